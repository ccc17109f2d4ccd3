"""Prediction of one trajectory of one model in numpy: what ``trace`` gives, without the price of small torch calls."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import numpy as np

from skode._typing import BoolArray, FloatArray, IntArray

CHUNK = 256
"""Steps between two looks at whether the trajectory has left the box."""
AVERAGE = np.array([1.0, 2.0, 2.0, 1.0]) / 6.0


class PointSlope(Protocol):
    """dx/dt of one trajectory; the state is read from memory of its own, which the caller writes."""

    @property
    def state(self) -> FloatArray:
        """Where the state is read.  # (state,)"""

    def __call__(self, t: float, out: FloatArray) -> None:
        """Put dx/dt at elapsed time t into ``out`` (state,)."""


class TracedOne(NamedTuple):
    """Answers of all rows, and where they are no solutions but the edge of the box."""

    states: FloatArray  # (row, state), finite
    failed_at: float  # elapsed time of the last good state; nan if nothing failed
    held: BoolArray  # (row,), True where the row lies beyond that time


def trace_one(slope: PointSlope, x0: FloatArray, times: FloatArray, *, step: float, box: FloatArray) -> TracedOne:
    """Predict rows of one trajectory by Runge-Kutta steps on the grid k * step.

    Parameters
    ----------
    slope : PointSlope
    x0 : array (state,)
        State at elapsed time 0. A row at time 0 is answered by x0 whatever the box.
    times : array (row,)
        Elapsed times, of both signs, in any order.
    step : float
        Length of a step, positive, in units of time.
    box : array (2, state)
        Lower and upper edge of the box that states may not leave; see ``trace``.

    Returns
    -------
    TracedOne

    Examples
    --------
    >>> import numpy as np
    >>> class Growth:
    ...     state = np.empty(1)
    ...     def __call__(self, t, out):
    ...         out[:] = self.state
    >>> box, times = np.array([[-5.0], [5.0]]), np.array([1.0, 2.0, -1.0])
    >>> traced = trace_one(Growth(), np.ones(1), times, step=0.1, box=box)
    >>> traced.states.ravel().round(4).tolist(), traced.held.tolist()
    ([2.7183, 5.0, 0.3679], [False, True, False])
    """
    states = np.repeat(x0[None], len(times), axis=0)
    held = np.zeros(len(times), dtype=bool)
    failed_at = math.nan
    with np.errstate(all="ignore"):  # what is not finite is held
        for sign in (1.0, -1.0):
            rows = np.flatnonzero(sign * times > 0.0)
            if len(rows):
                part = _one_way(slope, x0, times[rows], sign * step, box)
                states[rows], held[rows] = part.states, part.held
                if math.isnan(failed_at) or abs(part.failed_at) < abs(failed_at):
                    failed_at = part.failed_at
    return TracedOne(states, failed_at, held)


def _one_way(slope: PointSlope, x0: FloatArray, times: FloatArray, step: float, box: FloatArray) -> TracedOne:
    """Trace rows of one direction, chunk of steps after chunk; step k leads from node k to node k + 1."""
    place = times / step
    cell: IntArray = np.ceil(place).astype(np.int64) - 1
    n_steps = int(cell.max()) + 1
    x = np.clip(x0, box[0], box[1])  # where the trajectory stands: at its last node, or at the edge for ever
    failed = n_steps if (x == x0).all() else -1  # the step in which it left the box
    states, first = np.repeat(x[None], len(times), axis=0), 0
    while first < min(failed, n_steps):
        stop = min(first + CHUNK, n_steps)
        nodes, slopes = _walk(slope, x, step, range(first, stop))
        rows = np.flatnonzero((cell >= first) & (cell < stop))
        inside = cell[rows] - first
        answer = _interpolate(nodes, slopes, inside, (place[rows] - cell[rows])[:, None], step)
        left, x = _leave(nodes, slopes, box)
        if left is not None:
            failed = first + left
            cut = np.clip(np.where(np.isfinite(answer), answer, x), box[0], box[1])
            answer = np.where((inside < left)[:, None], answer, np.where((inside == left)[:, None], cut, x))
            states[cell >= stop] = x
        states[rows] = answer
        first = stop
    return TracedOne(states, max(failed, 0) * step if failed < n_steps else math.nan, cell >= failed)


def _walk(slope: PointSlope, x: FloatArray, step: float, cells: range) -> tuple[FloatArray, FloatArray]:
    """States and slopes at all nodes of some steps.  # (node, state)"""
    n, half, sixths = len(cells), 0.5 * step, step * AVERAGE
    states, slopes = np.empty((n + 1, len(x))), np.empty((n + 1, len(x)))
    state, stages = slope.state, np.empty((4, len(x)))
    first, second, third, fourth = stages
    moved = np.empty(len(x))
    states[0] = state[:] = x
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
        np.add(here, np.dot(sixths, stages, out=moved), out=states[k + 1])
        state[:] = states[k + 1]
    slope(cells.stop * step, slopes[n])
    return states, slopes


def _leave(nodes: FloatArray, slopes: FloatArray, box: FloatArray) -> tuple[int | None, FloatArray]:
    """The first failing step, and the state to go on with or to hold."""
    good = ((nodes >= box[0]) & (nodes <= box[1]) & np.isfinite(slopes)).all(axis=1)  # False for nan
    if good.all():
        return None, nodes[-1]
    bad = ~(good[1:] & np.isfinite(slopes[:-1]).all(axis=1))
    if not bad.any():
        return None, nodes[-1]
    step = int(bad.argmax())
    before, after = nodes[step], nodes[step + 1]
    return step, np.clip(np.where(np.isnan(after), before, after), box[0], box[1])


def _interpolate(nodes: FloatArray, slopes: FloatArray, cell: IntArray, u: FloatArray, h: float) -> FloatArray:
    """Hermite cubic at the place u (row, 1) in [0, 1] inside each cell, as ``hermite``.  # (row, state)"""
    v = 1.0 - u
    value = (1.0 + 2.0 * u) * v**2 * nodes[cell] + u**2 * (3.0 - 2.0 * u) * nodes[cell + 1]
    value += h * u * v**2 * slopes[cell]
    value -= h * u**2 * v * slopes[cell + 1]
    return np.asarray(value, dtype=np.float64)
