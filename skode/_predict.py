"""A fitted model answers rows: one solve per distinct start, always finite."""

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import torch

from skode._dynamics import Dynamics, tensor
from skode._fitted import Fitted
from skode._parallel import on_threads, one_torch_thread
from skode._problem import Problem
from skode._scales import widened_box
from skode._single import SingleDynamics
from skode._typing import BoolArray, FloatArray, IntArray, Weights
from skode.integrate import Slope, halve_step, integrate, trace, trace_one

PREDICTION_TOLERANCE = 1e-4
"""Largest change of a predicted state, in standard deviations, when the step is halved, over a training window."""

MOST_ENTRIES, FEWEST_WINDOWS = 2**15, 64
"""States that one thread takes at a time: what stays in cache; more would wait for each other at the end of every
operation. Where the step is chosen, training windows at least: with fewer most of the time is calls."""


class Questions(NamedTuple):
    """Rows to predict, tied to their distinct starts."""

    times: FloatArray  # (row,) elapsed, user units
    trajectory: IntArray  # (row,)
    start: FloatArray  # (trajectory, s) standard
    inputs: FloatArray  # (trajectory, m) standard
    origin: FloatArray  # (trajectory,) standard clock


class Answers(NamedTuple):
    """Predicted states."""

    states: FloatArray  # (row, d), user units
    failed_at: FloatArray  # (trajectory,), user units; nan where nothing failed
    held: BoolArray  # (row,)


def predict_batch(fitted: Fitted, questions: Questions, device: torch.device) -> Answers:
    """Answer rows, one solve per distinct start, in float64.

    Parameters
    ----------
    fitted : Fitted
    questions : Questions
    device : torch.device

    Returns
    -------
    Answers
    """
    if len(questions.start) == 1 and fitted.method == "rk4" and fitted.single is not None:
        return _alone(fitted, fitted.single, questions)
    ready = fitted.slope(questions.inputs, questions.origin, device)
    slope, like = ready.value, ready.rate
    x0 = tensor(questions.start, like).unsqueeze(0)
    trajectory = torch.as_tensor(questions.trajectory, device=device)
    times = tensor(questions.times / fitted.scales.time_unit, like)
    with one_torch_thread() if x0.numel() <= MOST_ENTRIES else nullcontext():
        traced = trace(slope, x0, trajectory, times, step=fitted.step, box=tensor(fitted.box, like))
    states = traced.states[0].cpu().numpy()
    if fitted.method != "rk4":
        states = _other_method(fitted, slope, x0, questions, states)
    return Answers(
        states=fitted.scales.user_states(states),
        failed_at=traced.failed_at[0].cpu().numpy() * fitted.scales.time_unit,
        held=traced.held[0].cpu().numpy(),
    )


def _alone(fitted: Fitted, single: SingleDynamics, questions: Questions) -> Answers:
    """Rows of one trajectory, in numpy."""
    scales = fitted.scales
    slope = single.along(questions.inputs[0], float(questions.origin[0]))
    times = questions.times / scales.time_unit
    traced = trace_one(slope, questions.start[0], times, step=fitted.step, box=fitted.box)
    return Answers(
        states=scales.user_states(traced.states),
        failed_at=np.array([traced.failed_at * scales.time_unit]),
        held=traced.held,
    )


def _only(slope: Slope, index: torch.Tensor) -> Slope:
    """The slope of one of the trajectories, told apart by its inputs."""
    return lambda t, x, _: slope(t, x, index)


def _other_method(
    fitted: Fitted, slope: Slope, x0: torch.Tensor, questions: Questions, fallback: FloatArray
) -> FloatArray:
    """Solve by torchdiffeq where it succeeds; elsewhere keep what the fixed grid gave."""
    out = fallback.copy()
    box = fitted.box
    tau = questions.times / fitted.scales.time_unit
    for k in np.unique(questions.trajectory):
        for sign in (1.0, -1.0):
            rows = np.flatnonzero((questions.trajectory == k) & (sign * tau > 0))
            if not len(rows):
                continue
            # The solve ends on the fixed grid, whatever is asked, so that no row changes the steps of another.
            n_steps = int(np.ceil(np.abs(tau[rows]).max() / fitted.step))
            asked = tensor(np.append(tau[rows], sign * n_steps * fitted.step), x0)
            index = torch.tensor([int(k)], device=x0.device)
            with torch.no_grad():
                solved = integrate(
                    _only(slope, index),
                    x0[:, index],
                    asked.unsqueeze(0),
                    method=fitted.method,
                    n_steps=n_steps,
                    rtol=1e-9,
                    atol=1e-10,
                )[0, 0, :-1]
            states = solved.cpu().numpy()
            fine = np.isfinite(states).all(axis=1) & (states >= box[0]).all(axis=1) & (states <= box[1]).all(axis=1)
            out[rows[fine]] = states[fine]
    return out


def choose_step(dynamics: Dynamics, weights: Weights, problem: Problem) -> float:
    """Step of the prediction grid: halved until the training windows stand still, some of them on every thread."""
    windows = problem.windows
    like = next(iter(weights.values()))
    right = dynamics.slope(weights, windows.inputs.to(like), windows.origin.to(like))
    right.bound  # noqa: B018 (made once, for all threads)
    box = tensor(widened_box(dynamics.scales), like)

    def halved(some: torch.Tensor) -> float:
        return halve_step(
            right.along(right.inputs[some], right.origin[some]).value,
            windows.start[some].to(like).unsqueeze(0),
            torch.arange(len(some), device=like.device).repeat_interleave(windows.times.shape[1]),
            windows.times[some].to(like).flatten(),
            PREDICTION_TOLERANCE,
            step=1.0,
            box=box,
        ).step

    every = torch.arange(len(windows.times), device=like.device)
    few = max(FEWEST_WINDOWS, MOST_ENTRIES // windows.start.shape[1])
    with one_torch_thread() if len(every) <= few else nullcontext():
        return min(on_threads(halved, torch.split(every, few)))
