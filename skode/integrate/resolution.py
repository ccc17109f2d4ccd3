"""How fine must the grid be: step doubling, for solutions and for predictions."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch

from skode._typing import FloatArray, IntArray
from skode.integrate.runge_kutta import Slope
from skode.integrate.solve import integrate
from skode.integrate.tracing import trace
from skode.integrate.walks import Walk

ORDER = 4.0
"""Power of the step with which errors of the Runge-Kutta scheme and of its interpolant fall."""


class Doubling(NamedTuple):
    """The number of steps that step doubling accepted."""

    n_steps: int
    error: float  # root mean square difference to a grid twice as fine, or finer, in units of the states
    converged: bool


class Halving(NamedTuple):
    """The step that step halving accepted."""

    step: float
    error: float  # largest difference to half the step, in units of the states
    converged: bool


@torch.no_grad()
def double_step(
    slope: Slope,
    x0: torch.Tensor,
    times: torch.Tensor,
    tolerance: float,
    *,
    n_steps: int = 4,
    max_steps: int = 1024,
) -> Doubling:
    """Double the number of Runge-Kutta steps until twice as many change the states by no more than the tolerance.

    Found is the smallest n of n_steps, 2 n_steps, ... with rms |x_n - x_2n| <= tolerance, the root mean
    square over trajectories and times of the worst state of the worst model; the error of x_n is 16/15 of that
    difference to leading order. Fewer steps than n that are as near to x_2n are returned in its place: errors fall
    with the fourth power or so, and the last doubling mostly goes too far. A mean, because it serves losses, which
    are means of squares: what the steps add to a loss is the square of their error. Trajectories that fail with both
    numbers of steps count for nothing, those that fail with one of them count as infinitely different.

    Parameters
    ----------
    slope, x0, times
        As for `integrate`.
    tolerance : float
        Largest root mean square difference accepted, in units of the states.
    n_steps : int, default 4
        The first number tried.
    max_steps : int, default 1024
        The largest number returned; if that does not meet the tolerance, `converged` is False.

    Returns
    -------
    Doubling
        (n_steps, error, converged).

    Examples
    --------
    >>> import torch
    >>> x0 = torch.ones(1, 1, 1, dtype=torch.float64)
    >>> double_step(lambda t, x, index: -x, x0, torch.ones(1, 1, dtype=torch.float64), 1e-4).n_steps
    3
    """
    finest: torch.Tensor | None = None

    def solve(n: int) -> torch.Tensor:
        return integrate(slope, x0, times, n_steps=n)

    def distance(coarse: torch.Tensor, fine: torch.Tensor) -> float:
        nonlocal finest
        difference = (coarse - fine).abs().nan_to_num(nan=torch.inf)
        lost = ~coarse.isfinite() & ~fine.isfinite()
        if lost.any():  # what fails on the finest grid too may fail
            finest = solve(max_steps) if finest is None else finest
            difference = torch.where(lost & ~finest.isfinite(), 0.0, difference)
        by_state = difference.square().mean(dim=(1, 2)).sqrt()  # of (model, trajectory, time, state)
        return float(by_state.amax()) if difference.numel() else 0.0

    n, coarse, fine, order = n_steps, solve(n_steps), solve(2 * n_steps), ORDER
    error = distance(coarse, fine)
    while error > tolerance and 2 * n <= max_steps:
        n, coarse, fine, last = 2 * n, fine, solve(4 * n), error
        error = distance(coarse, fine)
        order = math.log2(last / error) if 0 < error < last < math.inf else ORDER
    # Fewer steps may do: as many eighths of n as the errors foretell, or the next that do.
    for eighths in range(max(1, math.ceil(8 * (error / tolerance) ** (1.0 / order))), 8) if error <= tolerance else ():
        fewer = -(-eighths * n // 8)
        if (nearly := distance(solve(fewer), fine)) <= tolerance:
            n, error = fewer, nearly
            break
    return Doubling(n, error, error <= tolerance)


def halve_step(
    walk: Walk,
    x0: FloatArray,
    trajectory: IntArray,
    times: FloatArray,
    tolerance: float,
    *,
    step: float,
    box: FloatArray,
    max_halvings: int = 6,
) -> Halving:
    """Halve the step of `trace` until half the step changes no row by more than the tolerance.

    A trajectory that has met the tolerance is not solved again with smaller steps, which change it less.
    Rows that are held at the edge of the box with both steps, and with the smallest, count for nothing;
    others that are held count as infinitely different.

    Parameters
    ----------
    walk, x0, trajectory, times, box
        As for `trace`.
    tolerance : float
        Largest difference accepted, in units of the states.
    step : float
        The first step tried.
    max_halvings : int, default 6
        How often the step may be halved; if that does not meet the tolerance, `converged` is False.

    Returns
    -------
    Halving
        (step, error, converged).

    Examples
    --------
    >>> import numpy as np
    >>> from skode.integrate import TorchSteps
    >>> decay, box = TorchSteps(lambda t, x, index: -x), np.array([[-2.0], [2.0]])
    >>> halve_step(decay, np.ones((1, 1)), np.array([0]), np.array([3.0]), 1e-6, step=1.0, box=box).step
    0.125
    """

    def solve(n: int, rows: IntArray) -> FloatArray:
        traced = trace(walk, x0, trajectory[rows], times[rows], step=step / n, box=box)
        return np.where(traced.held[:, None], np.nan, traced.states)

    n, last, rows = 1, 2**max_halvings, np.arange(len(times))
    coarse = solve(n, rows)
    while True:
        fine = solve(2 * n, rows)
        difference = np.nan_to_num(np.abs(coarse - fine), nan=np.inf)
        lost = ~np.isfinite(coarse) & ~np.isfinite(fine)
        if lost.any():
            some = lost.any(axis=1)
            never = lost[some] & ~np.isfinite(solve(last, rows[some]))
            difference[some] = np.where(never, 0.0, difference[some])
        by_row = difference.max(axis=1, initial=0.0)
        error = float(by_row.max(initial=0.0))
        if error <= tolerance or 2 * n > last:
            return Halving(step / n, error, error <= tolerance)
        kept = np.isin(trajectory[rows], trajectory[rows[by_row > tolerance]])
        n, rows, coarse = 2 * n, rows[kept], fine[kept]
