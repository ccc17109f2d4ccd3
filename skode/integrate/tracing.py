"""Prediction: rows on a fixed grid of time, always finite, each as if it had been asked alone."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from skode._typing import BoolArray, FloatArray, IntArray
from skode.integrate.walks import Walk, Walked

CHUNK = 256  # steps between two looks at what has left the box, or has no rows left
ENTRIES = 2**19  # of nodes kept at a time, 4 MB: with very many trajectories, or states, fewer steps
ROW_ENTRIES = 2**14  # of rows interpolated at a time, 128 KB: few enough for the cache
NEVER = np.iinfo(np.int64).max


class Traced(NamedTuple):
    """Answers of all rows, and where they are no solutions but the edge of the box."""

    states: FloatArray  # (row, state), finite
    failed_at: FloatArray  # (trajectory,) elapsed time of the last good state; nan where nothing failed
    held: BoolArray  # (row,), True where the row lies beyond that time


def trace(
    walk: Walk,
    x0: FloatArray,
    trajectory: IntArray,
    times: FloatArray,
    *,
    step: float,
    box: FloatArray,
    chunk: int = CHUNK,
) -> Traced:
    """Predict rows (trajectory, time) by Runge-Kutta steps on the grid k * step from each origin.

    The grid depends on nothing but `step`, so a row's answer does not depend on the other rows, as long as the walk
    keeps trajectories apart. Steps are taken in chunks; a trajectory drops out after its last row, and memory grows
    with the rows and one chunk only. A trajectory whose next node is non-finite or outside the box is held: rows inside
    the step in which it leaves are its interpolant cut at the box, all later ones the edge of the box where it left
    (the last good state, if the next is not a number).

    Parameters
    ----------
    walk : Walk
        What takes the steps: `TorchSteps` or `NumpySteps`.
    x0 : array, shape (trajectory, state)
        States at elapsed time 0. A row at time 0 is answered by x0 whatever the box.
    trajectory : integer array, shape (row,)
        Which trajectory each row asks for.
    times : array, shape (row,)
        Elapsed times, of both signs, in any order.
    step : float
        Length of a step, positive, in units of time.
    box : array, shape (2, state)
        Lower and upper edge of the box that states may not leave.
    chunk : int, default 256
        Largest number of steps kept in memory.

    Returns
    -------
    Traced
        (states, failed_at, held). If a trajectory fails both ways, failed_at is the time nearer to 0.

    Raises
    ------
    ValueError
        If step is not positive and finite.

    Examples
    --------
    >>> import numpy as np
    >>> from skode.integrate import TorchSteps
    >>> box, times = np.array([[-5.0], [5.0]]), np.array([1.0, 2.0, -1.0])
    >>> growth = TorchSteps(lambda t, x, index: x)
    >>> traced = trace(growth, np.ones((1, 1)), np.array([0, 0, 0]), times, step=0.1, box=box)
    >>> traced.states.ravel().round(4).tolist(), traced.held.tolist()
    ([2.7183, 5.0, 0.3679], [False, True, False])
    """
    if not (step > 0.0 and math.isfinite(step)):
        raise ValueError(f"step must be positive and finite; got {step}. Give the length of a step in units of time.")
    states = x0[trajectory]
    failed_at, held = np.full(len(x0), math.nan), np.zeros(len(times), dtype=bool)
    with np.errstate(all="ignore"):  # what is not finite is held
        for sign in (1.0, -1.0):
            rows = np.flatnonzero(sign * times > 0.0)
            if len(rows):
                part = _one_way(walk, x0, trajectory[rows], times[rows], sign * step, box, chunk)
                states[rows], held[rows] = part.states, part.held
                nearer = np.abs(part.failed_at) < np.where(np.isnan(failed_at), math.inf, np.abs(failed_at))
                failed_at = np.where(nearer, part.failed_at, failed_at)
    return Traced(states, failed_at, held)


def _one_way(
    walk: Walk,
    x0: FloatArray,
    trajectory: IntArray,
    times: FloatArray,  # (row,) all of the sign of step
    step: float,
    box: FloatArray,
    chunk: int,
) -> Traced:
    """Trace rows of one direction, chunk of steps after chunk; step k leads from node k to node k + 1."""
    place = times / step
    cell: IntArray = np.ceil(place).astype(np.int64) - 1
    order = np.argsort(cell, kind="stable")
    trajectory, cell, place = trajectory[order], cell[order], place[order]
    last = np.full(len(x0), -1)
    last[trajectory] = cell  # the latest, as cells rise
    x = np.clip(x0, box[0], box[1])  # where each trajectory stands: at its last node, or at the edge for ever
    failed = np.where((x != x0).any(axis=-1), -1, NEVER)  # (trajectory,) the step in which it left the box
    states, held = np.empty((len(times), x0.shape[1])), np.empty(len(times), dtype=bool)
    at_a_time = max(1, ROW_ENTRIES // max(1, x0.shape[1]))
    done = first = 0
    while done < len(times):
        active = np.flatnonzero((last >= first) & (failed == NEVER))
        some = max(1, min(chunk, ENTRIES // max(1, len(active) * x0.shape[1])))
        stop = min(first + some, int(last[active].max()) + 1) if len(active) else int(last.max()) + 1
        end = int(np.searchsorted(cell, stop))
        if len(active):
            nodes = walk(x[active], active, step, range(first, stop))
            left, x[active] = _leave(nodes, box)
            failed[active] = np.where(left < NEVER, left + first, NEVER)
            column = np.zeros(len(x0), dtype=np.int64)  # what is held gets some answer, which is not used
            column[active] = np.arange(len(active))
        for begin in range(done, end, at_a_time):
            rows = slice(begin, min(begin + at_a_time, end))
            asked, inside = trajectory[rows], cell[rows]
            limit = failed[asked]
            late = inside >= limit
            if len(active):
                answer = _interpolate(nodes, inside - first, column[asked], (place[rows] - inside)[:, None], step)
                if late.any():
                    edge = x[asked]
                    cut = np.clip(np.where(np.isfinite(answer), answer, edge), box[0], box[1])
                    answer = np.where((inside == limit)[:, None], cut, np.where(late[:, None], edge, answer))
            else:
                answer = x[asked]
            states[order[rows]], held[order[rows]] = answer, late
        done, first = end, stop
    failed_at = np.where(failed < NEVER, np.maximum(failed, 0) * step, math.nan)
    return Traced(states, failed_at, held)


def _leave(nodes: Walked, box: FloatArray) -> tuple[IntArray, FloatArray]:
    """Return the first failing step of every trajectory, and the state to go on with or to hold."""
    inside = (nodes.states >= box[0]) & (nodes.states <= box[1]) & np.isfinite(nodes.slopes)  # False for nan
    n = nodes.states.shape[1]
    if inside.all():
        return np.full(n, NEVER), nodes.states[-1]
    bad = ~(inside.all(axis=-1)[1:] & np.isfinite(nodes.slopes[:-1]).all(axis=-1))  # (step, trajectory)
    ever, first = bad.any(axis=0), bad.argmax(axis=0)
    after = np.where(ever, first + 1, len(bad))
    before, now = nodes.states[after - 1, np.arange(n)], nodes.states[after, np.arange(n)]
    return np.where(ever, first, NEVER), np.clip(np.where(np.isnan(now), before, now), box[0], box[1])


def _interpolate(nodes: Walked, cell: IntArray, column: IntArray, u: FloatArray, h: float) -> FloatArray:
    """Hermite cubic at the place u (row, 1) in [0, 1] inside each cell, as ``hermite``.  # (row, state)"""
    v = 1.0 - u
    value: FloatArray = (1.0 + 2.0 * u) * v**2 * nodes.states[cell, column]
    value += u**2 * (3.0 - 2.0 * u) * nodes.states[cell + 1, column]
    value += h * u * v**2 * nodes.slopes[cell, column]
    value -= h * u**2 * v * nodes.slopes[cell + 1, column]
    return value
