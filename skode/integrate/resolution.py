"""How fine must the grid be: step doubling, for solutions and for predictions."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from skode._typing import FloatArray, IntArray
from skode.integrate.runge_kutta import Slope
from skode.integrate.solve import integrate
from skode.integrate.tracing import trace
from skode.integrate.walks import Walk


class Doubling(NamedTuple):
    """The number of steps that step doubling accepted."""

    n_steps: int
    error: float  # root mean square difference to twice as many steps, in units of `scale`
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
    origin: torch.Tensor | None = None,
    scale: torch.Tensor | None = None,
    n_steps: int = 4,
    max_steps: int = 1024,
) -> Doubling:
    """Double the number of Runge-Kutta steps until twice as many change the states by no more than the tolerance.

    Returned is the smallest n of n_steps, 2 n_steps, ... with rms |x_n - x_2n| / scale <= tolerance, the root mean
    square over trajectories and times of the worst state of the worst model; the error of x_n is 16/15 of that
    difference to leading order. A mean, because it serves losses, which are means of squares: what the steps add to
    a loss is the square of their error. Trajectories that fail with both numbers of steps count for nothing, those
    that fail with one of them count as infinitely different.

    Parameters
    ----------
    slope, x0, times, origin
        As for `integrate`.
    tolerance : float
        Largest root mean square difference accepted, in units of `scale`.
    scale : tensor, shape (state,), default None
        Unit of difference for each state, positive; None is 1.
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
    4
    """

    def solve(n: int) -> torch.Tensor:
        return integrate(slope, x0, times, n_steps=n, origin=origin)

    def measure(difference: torch.Tensor) -> torch.Tensor:
        return difference.square().mean(dim=(1, 2)).sqrt().amax()  # of (model, trajectory, time, state)

    return Doubling(*_refine(solve, measure, tolerance, scale, n_steps, max_steps))


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


def _refine(
    solve: Callable[[int], torch.Tensor],
    measure: Callable[[torch.Tensor], torch.Tensor],
    tolerance: float,
    scale: torch.Tensor | None,
    n: int,
    last: int,
) -> tuple[int, float, bool]:
    """Double n until solve(n) and solve(2n) agree; only what fails on the finest grid too may fail."""
    coarse = solve(n)
    finest: torch.Tensor | None = None
    while True:
        fine = solve(2 * n)
        difference = ((coarse - fine).abs() / (1.0 if scale is None else scale)).nan_to_num(nan=torch.inf)
        lost = ~coarse.isfinite() & ~fine.isfinite()
        if lost.any():
            finest = solve(last) if finest is None else finest
            difference = torch.where(lost & ~finest.isfinite(), 0.0, difference)
        error = float(measure(difference)) if difference.numel() else 0.0
        if error <= tolerance or 2 * n > last:
            return n, error, error <= tolerance
        n, coarse = 2 * n, fine
