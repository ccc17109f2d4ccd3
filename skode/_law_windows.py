"""The windows that a polynomial law is fitted to: how many, and how many steps their solutions take."""

from __future__ import annotations

import numpy as np
import torch

from skode._best_starts import best_start_errors, z_score
from skode._dynamics import Dynamics, tensor
from skode._fit import SetUp
from skode._problem import in_double
from skode._shooting import Shooting
from skode._typing import FloatArray, Weights
from skode.fields import AbstractField
from skode.integrate import double_step
from skode.objectives import Windows

MOST_WINDOWS, FEWEST_WINDOWS, MOST_WORK = 400, 60, 5e8
"""Windows that are read; of more, series are cut into runs and thinned evenly. Fewer, but not fewer than 60, where one
pass over derivatives by all coefficients would multiply more often than this: some seconds on one core."""
RUN = 8
"""Windows of such a run."""
LEAST_NOISE = 2e-3
"""Standard deviations of a state below which its noise is no more than errors of solver and smoother."""
STEP_SHARE, FINEST = 0.01, 2e-5
"""What the steps of a solve may leave, in standard deviations of the noise; and the least, in those of states."""
LARGEST_GRID = 16
"""Most steps per observation."""
Solvable = tuple[AbstractField, Weights]
"""A field and its weights (1, ...), in float64."""
MOST_SOLVED = 64
"""Windows on which the number of steps is chosen."""


def shooting_of(setup: SetUp, teacher: Dynamics, weights: Weights) -> Shooting:
    """The windows that training reads, and as many steps as they need."""
    problem = setup.problem
    like = problem.knots.double()
    sd = tensor(_noise(setup), like)
    windows = in_double(problem.windows)
    n_steps = n_steps_for(teacher, weights, windows, sd, setup)
    return thinned(Shooting.of(windows, tensor(setup.prepared.scales.rate, like), sd, n_steps))


def n_steps_for(dynamics: Dynamics, weights: Weights, windows: Windows, sd: torch.Tensor, setup: SetUp) -> int:
    """Steps per window whose errors are small beside the noise of every target, two per observation or more."""
    some = evenly(windows, MOST_SOLVED)
    n_intervals = max(1, -(-(windows.times.shape[1] - 1) // setup.problem.oversampling))
    found = double_step(
        dynamics.slope(weights, some.inputs, some.origin).value,
        some.start.unsqueeze(0),
        some.times,
        max(STEP_SHARE * float(sd[setup.problem.moving].min()), FINEST),
        n_steps=2 * n_intervals,
        max_steps=LARGEST_GRID * n_intervals,
    )
    return max(found.n_steps, 2 * n_intervals)


def nearer(one: Solvable, other: Solvable, windows: Windows, sd: torch.Tensor, setup: SetUp) -> float:
    """Standard errors by which windows are nearer to a field than to another, from the start that suits each best.

    Both are solved in as many steps as the one needs that needs more.
    """
    some = evenly(windows, MOST_WINDOWS)
    both = [(Dynamics(field, setup.prepared.scales, time_dependent=False), weights) for field, weights in (one, other)]
    n_steps = max(n_steps_for(dynamics, weights, some, sd, setup) for dynamics, weights in both)
    return z_score(*(best_start_errors(dynamics, weights, some, sd, n_steps) for dynamics, weights in both))


def _noise(setup: SetUp) -> FloatArray:
    """Standard deviations of observations, as smoothing has them; where it leaves none, the median of the others."""
    noise = setup.prepared.noise
    known = noise > LEAST_NOISE
    usual = float(np.median(noise[known])) if known.any() else LEAST_NOISE
    found: FloatArray = np.where(known, noise, usual)
    return found


def evenly(windows: Windows, most: int) -> Windows:
    """No more than so many windows, taken evenly."""
    n = len(windows.start)
    return windows.select(torch.arange(n, device=windows.start.device) % -(-n // most) == 0)


def thinned(shooting: Shooting, most: int = MOST_WINDOWS) -> Shooting:
    """The same along about so many of its windows, or fewer: of more, every so many of all runs."""
    n, places = len(shooting.windows.start), shooting.places
    if n <= most:
        return shooting
    label, n_runs = torch.zeros_like(shooting.windows.after), 0
    for place in range(0, len(places), RUN):
        for here in places[place : place + RUN]:
            label[here] = torch.arange(len(here), device=label.device) + n_runs
        n_runs += len(places[place])
    keep = (label * most) // n != ((label - 1) * most) // n
    return shooting.along(shooting.windows.select(keep))


def as_many_as_pay(shooting: Shooting, n_columns: int) -> Shooting:
    """The same along fewer windows, where derivatives by so many coefficients are much to do."""
    work = shooting.n_steps * len(shooting.rate) ** 2 * n_columns
    return thinned(shooting, min(max(int(MOST_WORK / work), FEWEST_WINDOWS), MOST_WINDOWS))
