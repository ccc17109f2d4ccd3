"""Additive fields whose forecasts of the training data run away: pulled towards variables that each relax by itself."""

from __future__ import annotations

from typing import NamedTuple

import torch

from skode._dynamics import Dynamics
from skode._prepared import Prepared
from skode._problem import Problem, forecasts
from skode._reach import HORIZON, Forecasts, forecast
from skode._typing import Weights
from skode.fields import PackedField

SHARES = (0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
"""Shares of the field that are tried. With none of it every forecast decays to the mean, and no edge is left."""
MOST = 50
"""Forecasts that are made of the training data; more are thinned evenly."""


class Calmed(NamedTuple):
    """Weights of one model, and how it forecasts its own data."""

    weights: Weights  # (1, ...)
    own: Forecasts


def calm(
    dynamics: Dynamics,
    weights: Weights,
    prepared: Prepared,
    problem: Problem,
    step: float,
) -> Calmed:
    r"""Take less of a field where its forecasts of the training data leave their range.

    Every equation of an additive field is found by itself, from slopes; the cycles that they close may grow although
    the data do not. Where forecasts from observed starts leave the box of the data widened by half,

    .. math:: F_i \to s F_i - (1 - s) \gamma_i z_i, \qquad
       \gamma_i = \max\Big(0, -\frac{\sum_k (F_i - \bar F_i) z_i}{\sum_k z_i^2}\Big)

    is tried for several s, z being standard, and sums going over the data: a variable keeps its rate of relaxation, and
    couplings weaken. Of these fields and the one before, that with the smallest error of such forecasts is kept. The
    edges stay. One number for all variables cannot follow noise.

    Parameters
    ----------
    dynamics : Dynamics
        Of a packed field.
    weights : dict of tensors  # (1, ...), float64
    prepared : Prepared
    problem : Problem
    step : float
        Step of the prediction grid for these weights; weaker couplings need none that is finer.

    Returns
    -------
    Calmed
    """
    windows = forecasts(prepared, HORIZON, torch.zeros(0, dtype=torch.float64, device=weights["K"].device))
    every = -(-len(windows.start) // MOST)
    windows = windows.select(torch.arange(len(windows.start), device=windows.start.device) % every == 0)

    def judged(some: Weights) -> Calmed:
        return Calmed(some, forecast(dynamics, some, windows, prepared, step))

    best = judged(weights)
    field = dynamics.field
    if not best.own.strays or not isinstance(field, PackedField):
        return best
    rates = relaxation(field, weights, problem.knots.double())
    for share in SHARES:
        now = judged(pulled(field, weights, share, rates))
        best = now if now.own.error < best.own.error else best
    return best


def relaxation(field: PackedField, weights: Weights, sources: torch.Tensor) -> torch.Tensor:
    """Rate at which every target returns, by regression of its slopes on itself; not negative.

    Parameters
    ----------
    field : PackedField
    weights : dict of tensors  # (1, ...)
    sources : tensor  # (1, sample, source)

    Returns
    -------
    tensor  # (target,)
    """
    own = sources[0, :, : field.n_targets]
    slopes = field(weights, sources)[0]
    slopes = slopes - slopes.mean(dim=0)
    return (-(slopes * own).sum(dim=0) / own.square().sum(dim=0).clamp_min(1e-30)).clamp_min(0.0)


def pulled(field: PackedField, weights: Weights, share: float, rates: torch.Tensor) -> Weights:
    """Weights of share * F - (1 - share) * rates * z; targets that do not read themselves only get the former.

    Parameters
    ----------
    field : PackedField
    weights : dict of tensors  # (1, ...)
    share : float
    rates : tensor  # (target,)

    Returns
    -------
    dict of tensors  # (1, ...)
    """
    last = len(field.hidden)
    linear = {f"W{last}", f"b{last}", "K", "P"}
    out = {name: share * value if name in linear else value for name, value in weights.items()}
    eye = torch.eye(field.n_targets, field.n_sources, dtype=rates.dtype, device=rates.device)
    own = field.to_columns(eye)  # (target, slot)
    out["K"] = out["K"] - (1.0 - share) * (rates.unsqueeze(-1) * own).unsqueeze(-2)
    return out
