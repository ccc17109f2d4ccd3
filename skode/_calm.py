"""Additive fields whose forecasts of the training data run away: pulled towards variables that relax by themselves."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from skode._dynamics import Dynamics
from skode._prepared import Prepared
from skode._problem import Problem, forecasts
from skode._reach import HORIZON, Forecasts, Reached, forecast
from skode._train import Trained
from skode._typing import Weights
from skode.fields import PackedField

SHARES = (0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
"""Shares of the field that are tried. With none of it no variable would feel another."""
MOST = 25
"""Forecasts that are made of the training data; more are thinned evenly."""
WORSE = 1.05
"""Times the smallest error from which on smaller shares are not tried."""


def calm(trained: Trained, prepared: Prepared, problem: Problem, step: Callable[[Dynamics, Weights], float]) -> Reached:
    r"""Take less of a field where its forecasts of the training data leave their range.

    Every equation of an additive field is found by itself, from slopes; the cycles that they close may grow although
    the data do not. Where forecasts from observed starts leave the box of the data widened by half,

    .. math:: F_i \to s F_i + (1 - s) (c_i - \gamma_i z_i)

    is tried for smaller and smaller s, until forecasts get clearly worse, where c and gamma >= 0 are the regression of
    F_i on z_i over the data: a variable keeps its rate of relaxation and its level, and what others do to it weakens.
    Of these fields and the one before, that with the smallest error of such forecasts is kept; ``history`` then has a
    stage "calm", with both errors as its losses. The edges stay. One number for all variables cannot follow noise.

    Other fields stay as they are; what counts is whether their forecasts are outside at the end.

    Parameters
    ----------
    trained : Trained
        One model of a packed field, in float64.
    prepared : Prepared
    problem : Problem
    step : callable (dynamics, weights) -> float
        Step of the prediction grid; weaker couplings need none that is finer.

    Returns
    -------
    Reached
    """
    began, field, weights = time.perf_counter(), trained.field, trained.weights
    dynamics = Dynamics(field, prepared.scales, time_dependent=False)
    windows = forecasts(
        prepared, HORIZON, torch.zeros(0, dtype=torch.float64, device=next(iter(weights.values())).device)
    )
    every = -(-len(windows.start) // MOST)
    windows = windows.select(torch.arange(len(windows.start), device=windows.start.device) % every == 0)
    length = step(dynamics, weights)

    def judged(some: Weights) -> Forecasts:
        return forecast(dynamics, some, windows, prepared, length, back=not isinstance(field, PackedField))

    whole = judged(weights)
    if not whole.strays or not isinstance(field, PackedField):
        return Reached(trained, whole)
    alone = relaxation(field, weights, problem.knots.double())
    best, kept = whole, weights
    for share in SHARES:
        less = pulled(field, weights, share, alone)
        now = judged(less)
        if now.error > WORSE * best.error:
            break
        best, kept = (now, less) if now.error < best.error else (best, kept)
    if kept is weights:
        return Reached(trained, whole)
    last = list(trained.history.values())[-1]
    report = last._replace(
        loss=np.array([[whole.error], [best.error]]),
        converged=np.ones(1, dtype=bool),
        n_iter=1,
        seconds=time.perf_counter() - began,
    )
    history = {**trained.history, "calm": report}
    return Reached(trained._replace(weights=kept, params=kept, history=history), best)


class Relaxation(NamedTuple):
    """What every target does by itself: level - rate * z."""

    level: torch.Tensor  # (target,)
    rate: torch.Tensor  # (target,)
    own: torch.Tensor  # (target, slot), 1 for the column in which a target reads itself


def relaxation(field: PackedField, weights: Weights, sources: torch.Tensor) -> Relaxation:
    """Regress the slopes of every target on itself; targets without an edge to themselves have their mean slope.

    Parameters
    ----------
    field : PackedField
    weights : dict of tensors  # (1, ...)
    sources : tensor  # (1, sample, source)

    Returns
    -------
    Relaxation
    """
    z, slopes = sources[0, :, : field.n_targets], field.bind(weights).evaluate(sources).slopes[0]
    there, mean = z.mean(dim=0), slopes.mean(dim=0)
    z = z - there
    rate = (-(slopes * z).sum(dim=0) / z.square().sum(dim=0).clamp_min(1e-30)).clamp_min(0.0)
    paths = field.to_columns(field.paths(weights)[0]) > 0
    eye = torch.eye(field.n_targets, field.n_sources, dtype=rate.dtype, device=rate.device)
    own = field.to_columns(eye) * paths
    rate = rate * own.sum(dim=-1)
    return Relaxation(mean + rate * there, rate, own)


def pulled(field: PackedField, weights: Weights, share: float, alone: Relaxation) -> Weights:
    """Weights of share * F + (1 - share) * (level - rate * z).

    Parameters
    ----------
    field : PackedField
    weights : dict of tensors  # (1, ...)
    share : float
    alone : Relaxation

    Returns
    -------
    dict of tensors  # (1, ...)
    """
    last, rest = len(field.hidden), 1.0 - share
    linear = {f"W{last}", f"b{last}", "K", "P"}
    out = {name: share * value if name in linear else value for name, value in weights.items()}
    out["K"] = out["K"] - rest * (alone.rate.unsqueeze(-1) * alone.own).unsqueeze(-2)
    out[f"b{last}"] = out[f"b{last}"] + rest * alone.level.view(-1, 1, 1)
    return out
