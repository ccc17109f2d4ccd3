"""Data losses: integral matching, windows and whole trajectories, each per model and target.

All of them divide a target's loss by the loss of its zero model (slope zero, state stays where it was), floored by
the loss that pure noise would leave. A loss is then about 1 - R2, whatever the units.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from skode._dynamics import Dynamics
from skode._latent import latent_pays, solve_latent
from skode._matching import matching_squares
from skode._typing import Weights
from skode.fields import AbstractField
from skode.integrate import Compressed, integrate, rk4_adjoint


class Rows(NamedTuple):
    """Interval rows of the matching regression."""

    sources: torch.Tensor  # (interval, node, source)
    quadrature: torch.Tensor  # (interval, node), weights of the nodes in the mean over an interval
    slopes: torch.Tensor  # (interval, target)
    weights: torch.Tensor  # (interval, target)

    def select(self, index: torch.Tensor) -> Rows:
        """Some of the rows."""
        return Rows(*(part[index] for part in self))


class Windows(NamedTuple):
    """Pieces of trajectories, each with its own start, for losses through the solver."""

    start: torch.Tensor  # (window, state)
    spread: torch.Tensor  # (window, state), how uncertain the start is; 0 where it is exact
    times: torch.Tensor  # (window, time), elapsed since the start, of both signs
    targets: torch.Tensor  # (window, time, target), 0 where missing
    weights: torch.Tensor  # (window, time, target), 0 where missing or padded
    inputs: torch.Tensor  # (window, input)
    origin: torch.Tensor  # (window,), standard clock at the start
    after: torch.Tensor  # (window,), the window that starts where this one ends; -1 if there is none

    def select(self, index: torch.Tensor) -> Windows:
        """Some of the windows, by a mask; a window whose successor is not among them has none."""
        place = torch.where(index, index.cumsum(0) - 1, -1)
        after = torch.where(self.after >= 0, place[self.after], -1)
        some = self._replace(after=after)
        return Windows(*(part[index] for part in some))

    def cut(self, n_times: torch.Tensor) -> Windows:
        """The first so many times of every window, at least one; one that ends early is not tied to what follows."""
        size = self.times.shape[1]
        inside = torch.arange(size, device=n_times.device) < n_times[:, None]
        last = self.times.gather(1, (n_times - 1)[:, None])
        return self._replace(
            times=torch.where(inside, self.times, last),
            weights=self.weights * inside.unsqueeze(-1),
            after=torch.where(n_times < size, -1, self.after),
        )


def matching_scale(rows: Rows) -> torch.Tensor:
    """Zero-model loss of every target.  # (target,)"""
    loss = (rows.weights * rows.slopes**2).sum(0) / rows.weights.sum(0).clamp_min(1e-30)
    return loss.clamp_min(1e-12)


def matching_loss(field: AbstractField, weights: Weights, rows: Rows, scale: torch.Tensor) -> torch.Tensor:
    """Mean squared error of the mean slope over every interval.

    loss_i = sum_k w_ki (slope_ki - sum over nodes of quadrature F_i)^2 / sum_k w_ki / scale_i

    Parameters
    ----------
    field : AbstractField
    weights : dict of tensors  # (model, ...)
    rows : Rows
    scale : tensor  # (target,), from ``matching_scale``

    Returns
    -------
    tensor  # (model, target)
    """
    return matching_squares(field, weights, *rows) / (rows.weights.sum(0).clamp_min(1e-30) * scale)


def matching_errors(field: AbstractField, weights: Weights, rows: Rows) -> torch.Tensor:
    """Weighted squared error of the mean slope of every interval.  # (model, interval, target)"""
    slopes = field(weights, rows.sources.flatten(0, 1).unsqueeze(0))  # (model, interval * node, target)
    slopes = slopes.reshape(slopes.shape[0], *rows.quadrature.shape, slopes.shape[-1])  # over nodes
    mean = (rows.quadrature.unsqueeze(-1) * slopes).sum(dim=2)
    return rows.weights * (rows.slopes - mean) ** 2


def window_scale(windows: Windows, floor: torch.Tensor) -> torch.Tensor:
    """Loss per target of states that stay where the window starts, not below ``floor``.  # (target,)"""
    d = windows.targets.shape[-1]
    kept = windows.start[:, None, :d]
    total = windows.weights.sum((0, 1)).clamp_min(1e-30)
    loss = (windows.weights * (windows.targets - kept) ** 2).sum((0, 1)) / total
    return torch.maximum(loss, floor).clamp_min(1e-12)


def window_starts(windows: Windows, shift: torch.Tensor | None, n_models: int) -> torch.Tensor:
    """Where the solutions start: as prepared, plus ``shift`` in units of the spread.  # (model, window, state)"""
    start = windows.start.expand(n_models, -1, -1)
    return start if shift is None else start + windows.spread * shift


def solve_windows(
    dynamics: Dynamics,
    weights: Weights,
    windows: Windows,
    start: torch.Tensor,
    *,
    n_steps: int,
    method: str = "rk4",
    compressed: Compressed | None = None,
) -> torch.Tensor:
    """Solution of every window at its observation times, or the rows that stand for them.

    Parameters
    ----------
    dynamics : Dynamics
    weights : dict of tensors  # (model, ...)
    windows : Windows
    start : tensor  # (model, window, state)
    n_steps : int
        Steps of the Runge-Kutta grid per window.
    method : str
    compressed : Compressed, optional
        Of these windows, for as many steps of "rk4", which is the only method that it goes with.

    Returns
    -------
    tensor  # (model, window, time, state), or (model, row + end, state)
    """
    assert compressed is None or method == "rk4"
    if method == "rk4" and latent_pays(dynamics):
        given = windows.inputs, windows.origin, start, windows.times
        return solve_latent(dynamics, weights, *given, n_steps=n_steps, compressed=compressed)
    slope = dynamics.slope(weights, windows.inputs, windows.origin)
    if compressed is not None:
        return compressed.read(rk4_adjoint(slope, start, compressed.step, n_steps))
    return integrate(slope, start, windows.times, method=method, n_steps=n_steps, march=rk4_adjoint)


def window_loss(
    states: torch.Tensor, windows: Windows, scale: torch.Tensor, compressed: Compressed | None = None
) -> torch.Tensor:
    """Mean squared error of solutions at the observation times.

    Parameters
    ----------
    states : tensor
        From ``solve_windows`` with the same ``compressed``.
    windows : Windows
    scale : tensor  # (target,), from ``window_scale``
    compressed : Compressed, optional

    Returns
    -------
    tensor  # (model, target)
    """
    weights: torch.Tensor | None
    if compressed is None:
        targets, weights, total = windows.targets, windows.weights, windows.weights.sum((0, 1))
    else:
        targets, weights, total = compressed.targets, compressed.mask, compressed.total
        states = states[:, : len(targets)]
    x = states[..., : targets.shape[-1]]
    errors: torch.Tensor = _SquaredErrors.apply(x, targets, weights)  # type: ignore[no-untyped-call]
    errors = errors if compressed is None else errors + compressed.rest
    return errors / (total.clamp_min(1e-30) * scale)


def window_ends(states: torch.Tensor, compressed: Compressed | None = None) -> torch.Tensor:
    """Where every window ends, from ``solve_windows`` with the same ``compressed``.  # (model, window, state)"""
    return states[:, :, -1] if compressed is None else states[:, len(compressed.targets) :]


class _SquaredErrors(torch.autograd.Function):
    """Sum of w (x - target)^2 over windows and times, or rows, in half of the passes over memory of autograd."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        error = x - targets
        ctx.weighted = error if weights is None else weights * error
        over = tuple(range(1, x.ndim - 1))
        return error.square().sum(over) if weights is None else error.mul_(ctx.weighted).sum(over)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, cotangent: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        by_model = 2.0 * cotangent.view(len(cotangent), *[1] * (ctx.weighted.ndim - 2), -1)
        return ctx.weighted * by_model, None, None


def window_errors(states: torch.Tensor, windows: Windows, scale: torch.Tensor) -> torch.Tensor:
    """Squared errors of every window by itself; their mean over windows is ``window_loss``.

    Parameters
    ----------
    states : tensor  # (model, window, time, state), from ``solve_windows``
    windows : Windows
    scale : tensor  # (target,), from ``window_scale``

    Returns
    -------
    tensor  # (model, window, target)
    """
    squares = windows.weights * (states[..., : windows.targets.shape[-1]] - windows.targets) ** 2
    return squares.sum(2) * len(windows.start) / (windows.weights.sum((0, 1)).clamp_min(1e-30) * scale)


def seam_loss(ends: torch.Tensor, start: torch.Tensor, windows: Windows, scale: torch.Tensor) -> torch.Tensor:
    """Squared jumps where one window ends and the next begins, counted as errors of one observation each.

    A start is known as well as its own observation; solutions that must also meet the start after them tie the
    windows of a trajectory together, so that all its observations inform every start.

    loss_i = sum over seams of (end_i - next start_i)^2 / (number of observations_i scale_i)

    The velocity of a second-order system counts with its target, in units of its own spread.

    Parameters
    ----------
    ends : tensor  # (model, window, state), from ``window_ends``
    start : tensor  # (model, window, state), from ``window_starts``
    windows : Windows
    scale : tensor  # (target,), from ``window_scale``

    Returns
    -------
    tensor  # (model, target)

    References
    ----------
    "A multiple shooting algorithm for direct solution of optimal control problems", 1984,
    doi 10.1016/S1474-6670(17)61205-9 (the seams); here they are soft, because the model is not exact.
    """
    d = windows.targets.shape[-1]
    seam = windows.after >= 0
    jump = ends[:, seam] - start[:, windows.after[seam]]
    spread = windows.spread[windows.after[seam]]
    squares = jump[..., :d] ** 2
    if jump.shape[-1] > d:
        squares = squares + (jump[..., d:] * spread[..., :d] / spread[..., d:].clamp_min(1e-30)) ** 2
    n_observations = (windows.weights > 0).sum((0, 1)).clamp_min(1)
    return squares.sum(dim=1) / (n_observations * scale)
