"""Runge-Kutta steps along one grid for many trajectories: in blocks in torch, or each for itself in numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import torch

from skode._typing import FloatArray, IntArray
from skode.integrate.runge_kutta import Slope, evaluate, take_step

AVERAGE = np.array([1.0, 2.0, 2.0, 1.0]) / 6.0


class Walked(NamedTuple):
    """States and slopes at the nodes of a grid."""

    states: FloatArray  # (node, trajectory, state)
    slopes: FloatArray  # (node, trajectory, state)


class Walk(Protocol):
    """Takes the steps ``cells`` of the trajectories ``active``, from x (active, state) at the start of the first."""

    def __call__(self, x: FloatArray, active: IntArray, step: float, cells: range) -> Walked:
        """States and slopes at all nodes of these steps."""


class TorchSteps:
    """Steps of trajectories side by side, in torch.

    A matrix product of a few rows may round otherwise than one of many, and its last rows otherwise than its first; and
    chaos makes much of little. In blocks of one fixed number of trajectories, the last filled up with repetitions,
    every product has the same shape and layout, so that what becomes of a trajectory does not depend on which others
    are there, if only the block is so small that products treat its members alike.

    Parameters
    ----------
    slope : callable (t, x, index) -> dx/dt
        See ``Slope``, of one model in float64.
    block : int, default None
        Trajectories per call of the slope; None is all that are active, whatever their number.
    device : torch.device, default None
        Where the slope is computed; None is the CPU.
    """

    def __init__(self, slope: Slope, block: int | None = None, device: torch.device | None = None) -> None:
        self.slope, self.block, self.device = slope, block, device

    @torch.inference_mode()
    def __call__(self, x: FloatArray, active: IntArray, step: float, cells: range) -> Walked:
        """Take the steps; see ``Walk``."""
        start, index = torch.as_tensor(x, device=self.device), torch.as_tensor(active, device=self.device)
        n_active = len(active)
        size = n_active if self.block is None else self.block
        nodes = start.new_empty(2, len(cells) + 1, n_active, x.shape[1])  # filled, not stacked
        for first in range(0, n_active, size):
            some = slice(first, min(first + size, n_active))
            here = torch.arange(first, first + size, device=self.device).clamp(max=n_active - 1)
            self._fill(nodes[:, :, some], start[here].unsqueeze(0), index[here], step, cells)
        return Walked(*nodes.cpu().numpy())

    def _fill(self, nodes: torch.Tensor, x: torch.Tensor, index: torch.Tensor, step: float, cells: range) -> None:
        (states, slopes), n = nodes, nodes.shape[2]
        h = torch.full(index.shape, step, dtype=x.dtype, device=x.device)
        clock = torch.zeros_like(h)
        for k, cell in enumerate(cells):
            states[k] = x[0, :n]
            now = take_step(self.slope, clock + cell * step, x, h, index)
            x, slopes[k] = now.state.contiguous(), now.slope[0, :n]
        states[-1] = x[0, :n]
        slopes[-1] = evaluate(self.slope, clock + cells.stop * step, x, index)[0, :n]


class PointSlope(Protocol):
    """dx/dt of some trajectories of one model; states are read from memory of its own, which the caller writes."""

    @property
    def state(self) -> FloatArray:
        """Where states are read.  # (trajectory, state)"""

    def __call__(self, t: float, out: FloatArray) -> None:
        """Put dx/dt at elapsed time t into ``out`` (trajectory, state)."""


class NumpySteps:
    """Steps of trajectories of one model that never meet in a matrix product, in numpy.

    For small fields: a call of torch takes longer than their arithmetic.

    Parameters
    ----------
    along : callable (index) -> PointSlope
        The slope along the trajectories ``index``, none of which may see another.
    block : int
        Trajectories at a time: as many as stay in the cache.
    """

    def __init__(self, along: Callable[[IntArray], PointSlope], block: int) -> None:
        self.along, self.block = along, block

    def __call__(self, x: FloatArray, active: IntArray, step: float, cells: range) -> Walked:
        """Take the steps; see ``Walk``."""
        states, slopes = np.empty((2, len(cells) + 1, *x.shape))
        with np.errstate(all="ignore"):
            for first in range(0, len(x), self.block):
                some = slice(first, first + self.block)
                _fill(states[:, some], slopes[:, some], self.along(active[some]), x[some], step, cells)
        return Walked(states, slopes)


def _fill(
    states: FloatArray, slopes: FloatArray, slope: PointSlope, start: FloatArray, step: float, cells: range
) -> None:
    """Put states and slopes of all nodes into arrays (node, trajectory, state)."""
    half, sixths = 0.5 * step, step * AVERAGE
    state, stages = slope.state, np.empty((len(start), 4, start.shape[1]))
    first, second, third, fourth = stages.swapaxes(0, 1)
    moved = np.empty_like(start)
    states[0] = state[:] = start
    for k, now in enumerate(cells):
        t, here = now * step, states[k]
        slope(t, first)
        np.add(here, np.multiply(first, half, out=moved), out=state)
        slope(t + half, second)
        np.add(here, np.multiply(second, half, out=moved), out=state)
        slope(t + half, third)
        np.add(here, np.multiply(third, step, out=moved), out=state)
        slope(t + step, fourth)
        slopes[k] = first
        np.add(here, np.matmul(sixths, stages, out=moved), out=states[k + 1])
        state[:] = states[k + 1]
    slope(cells.stop * step, slopes[-1])
