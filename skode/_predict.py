"""A fitted model answers rows: one solve per distinct start, always finite."""

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import torch

from skode._dynamics import Dynamics, tensor
from skode._fitted import Fitted
from skode._memory import release
from skode._parallel import on_threads, one_torch_thread
from skode._problem import Problem
from skode._scales import widened_box
from skode._typing import BoolArray, FloatArray, IntArray, Weights
from skode.integrate import Slope, TorchSteps, Traced, halve_step, integrate, trace

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
    scales, solved = fitted.scales, solve_batch(fitted, questions, device)
    return Answers(scales.user_states(solved.states), solved.failed_at * scales.time_unit, solved.held)


def solve_batch(fitted: Fitted, questions: Questions, device: torch.device) -> Traced:
    """As ``predict_batch``, in standard units: states with their velocities, times at which trajectories failed."""
    times = questions.times / fitted.scales.time_unit
    walk = fitted.steps(questions.inputs, questions.origin, device)
    with one_torch_thread() if questions.start.size <= MOST_ENTRIES else nullcontext():
        traced = trace(walk, questions.start, questions.trajectory, times, step=fitted.step, box=fitted.box)
    if fitted.method == "rk4":
        return traced
    return traced._replace(states=_other_method(fitted, questions, traced.states, device))


def _only(slope: Slope, index: torch.Tensor) -> Slope:
    """The slope of one of the trajectories, told apart by its inputs."""
    return lambda t, x, _: slope(t, x, index)


def _other_method(fitted: Fitted, questions: Questions, fallback: FloatArray, device: torch.device) -> FloatArray:
    """Solve by torchdiffeq where it succeeds; elsewhere keep what the fixed grid gave."""
    ready = fitted.slope(questions.inputs, questions.origin, device)
    slope, x0 = ready.value, tensor(questions.start, ready.rate).unsqueeze(0)
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
    start, times = windows.start.double().cpu().numpy(), windows.times.double().cpu().numpy()
    box = widened_box(dynamics.scales)

    def halved(some: torch.Tensor) -> float:
        here = right.along(right.inputs[some], right.origin[some])
        rows = some.cpu().numpy()
        return halve_step(
            TorchSteps(here.value, device=like.device),
            start[rows],
            np.arange(len(rows)).repeat(times.shape[1]),
            times[rows].ravel(),
            PREDICTION_TOLERANCE,
            step=1.0,
            box=box,
        ).step

    every = torch.arange(len(times), device=like.device)
    few = max(FEWEST_WINDOWS, MOST_ENTRIES // start.shape[1])
    if len(every) <= few:
        with one_torch_thread():
            return halved(every)
    release()
    return min(on_threads(halved, torch.split(every, few)))
