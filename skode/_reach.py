"""Forecasts of the training data that run away: how to see it, and longer windows for the fits that do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from skode._batch import Batch
from skode._dynamics import Dynamics
from skode._parallel import one_torch_thread
from skode._parts import train_in_parts
from skode._prepared import Prepared
from skode._problem import Problem, forecasts, longest
from skode._scales import WIDER, Scales, widened_box
from skode._stage import Options
from skode._train import Trained
from skode._typing import BoolArray, FloatArray, Weights
from skode.integrate import TorchSteps, trace
from skode.objectives import Windows
from skode.penalties import NoPenalty
from skode.recipe import REACH

HORIZON = max(REACH)
"""Intervals that the training data are forecast; on an attractor errors have long grown as far as they can."""
COARSE = 2.0
"""Steps are this much longer than those of predictions; errors of 1e-3 tell as well who leaves."""


class Forecasts(NamedTuple):
    """Forecasts of the training data by one model."""

    strays: int  # windows in which they leave the widened box, or are outside at the end if they may come back, or fail
    error: float  # root mean square per window in standard deviations, the mean of all; strays held at the box
    step: float  # of the prediction grid


class Reached(NamedTuple):
    """One model, and how it forecasts its own data."""

    trained: Trained  # of one model
    own: Forecasts


def reach(
    trained: Trained,
    prepared: Prepared,
    options: Options,
    *,
    time_dependent: bool,
    step: Callable[[Dynamics, Weights], float],
    problem: Callable[[int], Problem],
) -> Reached:
    """Train on longer windows where forecasts of the training data leave the range of the data.

    Short windows start on smoothed paths and end before errors grow; forecasts start at an observation and go on. By
    the loss of short windows a field is no worse if noise in a start throws it where it has seen no data, or if it is
    unstable there. The remedy is to train as forecasts are made: from observed starts, on windows of 10, 20, 40 and 80
    intervals, as far as trajectories go. Of these fits and the one before, the one is kept that forecasts with the
    smallest error. Where no forecast leaves the range nothing is done.

    Parameters
    ----------
    trained : Trained
        One model.
    prepared : Prepared
    options : Options
        Of its training.
    time_dependent : bool
    step : callable (dynamics, weights) -> float
        Step of the prediction grid.
    problem : callable length -> Problem
        The problem of windows of so many intervals, from observed starts.

    Returns
    -------
    Reached
    """
    like = torch.zeros(0, dtype=torch.float64, device=options.device)
    windows = forecasts(prepared, HORIZON, like)

    def judged(model: Trained) -> Reached:
        dynamics = Dynamics(model.field, prepared.scales, time_dependent)
        weights = {name: value.double() for name, value in model.weights.items()}
        return Reached(model, forecast(dynamics, weights, windows, prepared, step(dynamics, weights)))

    best = judged(trained)
    if not best.own.strays or options.recipe[-1].objective != "windows":
        return best
    last, covered = trained, longest(prepared)
    for length, stage in REACH.items():
        if length >= 2 * covered:  # the windows before held whole trajectories
            break
        last = _go_on(last, prepared, problem(length), replace(options, recipe=(stage,)), time_dependent)
        if bool(last.history[stage.name].failed.any()):  # longer windows would have no finite loss either
            break
        now = judged(last)
        best = now if now.own.error < best.own.error else best
    # What failed here was not kept, and leaves the fit as sound as it was.
    sound = np.zeros(1, dtype=bool)
    reports = {
        name: report if name in trained.history else report._replace(failed=sound)
        for name, report in last.history.items()
    }
    return best._replace(trained=best.trained._replace(history=reports))


def _go_on(model: Trained, prepared: Prepared, problem: Problem, options: Options, time_dependent: bool) -> Trained:
    """Train one model on other windows; its edges and its ranking stay."""
    dynamics = Dynamics(model.field, prepared.scales, time_dependent)
    frozen = {name: (value != 0).to(value.dtype) for name, value in model.weights.items()}
    went = train_in_parts(
        dynamics, NoPenalty(), problem, Batch.single(0.0, 0), options, start=model.weights, frozen=frozen
    )
    return model._replace(weights=went.weights, params=went.params, history={**model.history, **went.history})


def forecast(
    dynamics: Dynamics,
    weights: Weights,
    windows: Windows,
    prepared: Prepared,
    step: float,
    *,
    back: bool = False,
) -> Forecasts:
    """Forecast windows as predictions are made, on a grid half as fine, in the box of the data widened by half.

    Parameters
    ----------
    dynamics : Dynamics
    weights : dict of tensors  # (1, ...), float64
    windows : Windows
    prepared : Prepared
    step : float
        Of the prediction grid.
    back : bool, default=False
        Whether solutions may leave the box and come back, as between observations that miss a peak: they go as far as
        predictions do, those that are outside at the end are strays, and for comparison they are held at the box.

    Returns
    -------
    Forecasts
    """
    n_windows, n_times, d = windows.targets.shape
    slope = dynamics.slope(weights, windows.inputs, windows.origin)
    scales, targets, seen = prepared.scales, windows.targets.cpu().numpy(), windows.weights.cpu().numpy()
    box = data_box(targets, seen > 0, scales)
    with one_torch_thread():
        traced = trace(
            TorchSteps(slope.value, device=slope.rate.device),
            windows.start.cpu().numpy(),
            np.arange(n_windows).repeat(n_times),
            windows.times.cpu().numpy().ravel(),
            step=min(1.0, COARSE * step),
            box=widened_box(scales) if back else box,
        )
    every = traced.states.reshape(n_windows, n_times, -1)
    strayed = np.isfinite(traced.failed_at)
    if back:
        strayed |= ((every[:, -1] < box[0]) | (every[:, -1] > box[1])).any(axis=1)
    states, weight = np.clip(every, *box)[..., :d], seen * scales.moving
    errors = (weight * (targets - states) ** 2).sum((1, 2)) / np.maximum(weight.sum((1, 2)), 1e-30)
    return Forecasts(int(strayed.sum()), float(np.sqrt(errors).mean()), step)


def data_box(targets: FloatArray, seen: BoolArray, scales: Scales) -> FloatArray:
    """Edges of the box of paths and observations widened by half; none for constant states.

    Parameters
    ----------
    targets : array (window, time, d), standard
    seen : bool array (window, time, d)
        Which of them were observed.
    scales : Scales

    Returns
    -------
    array (2, s)
    """
    d, (low, high) = targets.shape[-1], np.stack([scales.low, scales.high])
    low[:d] = np.minimum(low[:d], np.where(seen, targets, np.inf).min((0, 1)))
    high[:d] = np.maximum(high[:d], np.where(seen, targets, -np.inf).max((0, 1)))
    centre, half = 0.5 * (low + high), 0.5 * (high - low)
    far = np.where(np.tile(scales.moving, scales.order), WIDER * half, np.inf)
    return np.stack([centre - far, centre + far])
