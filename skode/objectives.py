"""Data losses: integral matching, windows and whole trajectories, each per model and target.

All of them divide a target's loss by the loss of its zero model (slope zero, state stays where it was), floored by
the loss that pure noise would leave. A loss is then about 1 - R2, whatever the units.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from skode._dynamics import Dynamics
from skode._typing import Weights
from skode.fields import AbstractField
from skode.integrate import integrate, rk4_adjoint


class Rows(NamedTuple):
    """Interval rows of the matching regression."""

    sources: torch.Tensor  # (interval, 2, source)
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

    def select(self, index: torch.Tensor) -> Windows:
        """Some of the windows."""
        return Windows(*(part[index] for part in self))


def matching_scale(rows: Rows) -> torch.Tensor:
    """Zero-model loss of every target.  # (target,)"""
    loss = (rows.weights * rows.slopes**2).sum(0) / rows.weights.sum(0).clamp_min(1e-30)
    return loss.clamp_min(1e-12)


def matching_loss(field: AbstractField, weights: Weights, rows: Rows, scale: torch.Tensor) -> torch.Tensor:
    """Mean squared error of the mean slope over every interval.

    loss_i = sum_k w_ki (slope_ki - mean over Gauss nodes of F_i)^2 / sum_k w_ki / scale_i

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
    error = matching_errors(field, weights, rows)
    return error.sum(dim=1) / (rows.weights.sum(0).clamp_min(1e-30) * scale)


def matching_errors(field: AbstractField, weights: Weights, rows: Rows) -> torch.Tensor:
    """Weighted squared error of the mean slope of every interval.  # (model, interval, target)"""
    slopes = field(weights, rows.sources.flatten(0, 1).unsqueeze(0))  # (model, interval * node, target)
    mean = 0.5 * (slopes[:, 0::2] + slopes[:, 1::2])
    return rows.weights * (rows.slopes - mean) ** 2


def window_scale(windows: Windows, floor: torch.Tensor) -> torch.Tensor:
    """Loss per target of states that stay where the window starts, not below ``floor``.  # (target,)"""
    d = windows.targets.shape[-1]
    kept = windows.start[:, None, :d]
    total = windows.weights.sum((0, 1)).clamp_min(1e-30)
    loss = (windows.weights * (windows.targets - kept) ** 2).sum((0, 1)) / total
    return torch.maximum(loss, floor).clamp_min(1e-12)


def window_loss(
    dynamics: Dynamics,
    weights: Weights,
    windows: Windows,
    scale: torch.Tensor,
    *,
    shift: torch.Tensor | None,
    n_steps: int,
    method: str = "rk4",
) -> torch.Tensor:
    """Mean squared error of the solution of every window at the observation times.

    Parameters
    ----------
    dynamics : Dynamics
    weights : dict of tensors  # (model, ...)
    windows : Windows
    scale : tensor  # (target,), from ``window_scale``
    shift : tensor or None  # (model, window, state), corrections of the starts in units of their spread
    n_steps : int
        Steps of the Runge-Kutta grid per window.
    method : str

    Returns
    -------
    tensor  # (model, target)
    """
    n_models = next(iter(weights.values())).shape[0]
    start = windows.start.expand(n_models, -1, -1)
    if shift is not None:
        start = start + windows.spread * shift
    slope = dynamics.slope(weights, windows.inputs, windows.origin)
    states = integrate(slope, start, windows.times, method=method, n_steps=n_steps, march=rk4_adjoint)
    d = windows.targets.shape[-1]
    error = windows.weights * (windows.targets - states[..., :d]) ** 2
    return error.sum(dim=(1, 2)) / (windows.weights.sum((0, 1)).clamp_min(1e-30) * scale)
