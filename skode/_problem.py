"""Prepared data as tensors: interval rows and windows, in a training and a held-out part."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch

from skode._dynamics import tensor
from skode._prepare import LONG_GAP
from skode._prepared import Course, Prepared
from skode._ties import ranges
from skode._typing import BoolArray, FloatArray, IntArray
from skode.objectives import Rows, Windows, matching_scale, window_scale

MAX_KNOTS, MAX_ENTRIES = 2000, 2e9
"""Observation times at which Jacobians are averaged, and entries of all of them together; more are thinned evenly."""
VELOCITY_SPREAD = 0.1
"""How far the starting velocity of a window may move at a time, in standard units; it is not observed."""


class Problem(NamedTuple):
    """Everything that the losses of one fold read."""

    rows: Rows
    held_rows: Rows | None
    windows: Windows
    held_windows: Windows | None
    trajectories: Windows  # whole trajectories from the start that the user gave
    moving: torch.Tensor  # (moving,) targets that are not constant
    knots: torch.Tensor  # (1, knot, source)
    matching: torch.Tensor  # (target,) zero-model loss of interval rows
    shooting: torch.Tensor  # (target,) zero-model loss of windows
    whole: torch.Tensor  # (target,) zero-model loss of whole trajectories
    freedom: torch.Tensor  # (target,) independent data in the rows
    oversampling: int  # intervals in the time in which a well sampled path has one


Starts = Literal["refined", "given", "observed"]
"""Where windows start: on the smoothed path; there, but for given starts, which are exact; or all where they were
observed, as forecasts do."""


def build_problem(
    prepared: Prepared, *, window: int, starts: Starts, dtype: torch.dtype, device: torch.device
) -> Problem:
    """Move prepared data to the device and set a part of it aside.

    About a fifth of the groups is held out, so that stages can be stopped or refused by data that no gradient
    has seen. With fewer than five groups blocks of time are held out instead, and with fewer than ten blocks
    nothing is.

    Parameters
    ----------
    prepared : Prepared
    window : int
        Intervals per window, of well sampled paths; windows of others have as many times more as they are oversampled.
    starts : {"refined", "given", "observed"}
    dtype : torch.dtype
    device : torch.device

    Returns
    -------
    Problem
    """
    like = torch.zeros(0, dtype=dtype, device=device)
    window *= prepared.oversampling
    rows = every_row(prepared, like)
    pieces = _window_pieces(prepared, window, starts)
    owner = prepared.interval_trajectory
    first_row = np.searchsorted(owner[owner >= 0], np.arange(len(prepared.courses)))
    first = np.array([first_row[piece.trajectory] + piece.start for piece in pieces], dtype=np.int64)
    stop = first + np.array([len(piece.knots) - 1 for piece in pieces], dtype=np.int64)
    held = _held_rows(prepared, first, stop, window)
    row_held = torch.as_tensor(held, device=device)
    window_held = held[first]
    apart = torch.as_tensor(window_held, device=device)
    windows = _windows(prepared, pieces, like)
    trajectories = _windows(prepared, _whole_pieces(prepared, starts), like)
    some = bool(window_held.any()) and not bool(window_held.all())
    noise = tensor(prepared.noise, like) ** 2
    knots = prepared.knot_sources
    most = min(MAX_KNOTS, max(50, int(MAX_ENTRIES / (knots.shape[1] * prepared.slopes.shape[1]))))
    if len(knots) > most:
        knots = knots[np.linspace(0, len(knots) - 1, most).astype(int)]
    return Problem(
        rows=rows.select(~row_held) if some else rows,
        held_rows=rows.select(row_held) if some else None,
        windows=windows.select(~apart) if some else windows,
        held_windows=windows.select(apart) if some else None,
        trajectories=trajectories,
        moving=torch.as_tensor(np.flatnonzero(prepared.scales.moving), device=device),
        knots=tensor(knots, like).unsqueeze(0),
        matching=matching_scale(rows),
        shooting=window_scale(windows, noise),
        whole=window_scale(trajectories, noise),
        freedom=tensor(_freedom(prepared, ~held if some else np.ones_like(held)), like),
        oversampling=prepared.oversampling,
    )


def every_row(prepared: Prepared, like: torch.Tensor) -> Rows:
    """All interval rows, none set aside."""
    arrays = (prepared.nodes, prepared.quadrature, prepared.slopes, prepared.slope_weights)
    return Rows(*(tensor(array, like) for array in arrays))


def forecasts(prepared: Prepared, length: int, like: torch.Tensor, starts: Starts = "observed") -> Windows:
    """Windows of all trajectories, none set aside; by default from observations, as users will ask for them."""
    return _windows(prepared, _window_pieces(prepared, length * prepared.oversampling, starts), like)


def in_double(windows: Windows) -> Windows:
    """The same in float64."""
    return Windows(*(part.double() if part.is_floating_point() else part for part in windows))


def can_forecast(prepared: Prepared, length: int) -> bool:
    """Whether there are such windows: observations that follow each other without a long gap."""
    return bool(_window_pieces(prepared, length * prepared.oversampling, "observed"))


def longest(prepared: Prepared) -> int:
    """Intervals that the longest trajectory would have if it were well sampled, rounded up."""
    return -(-(max(len(course.times) for course in prepared.courses) - 1) // prepared.oversampling)


def _held_rows(prepared: Prepared, first: IntArray, stop: IntArray, window: int) -> BoolArray:
    """Mark interval rows that are held out, those of a window together; steady states never are.

    Parameters
    ----------
    prepared : Prepared
    first, stop : array (window,)
        Rows of every window.
    window : int
        Intervals in a block of time.

    Returns
    -------
    bool array (interval,)
    """
    running = prepared.interval_trajectory >= 0
    group = np.where(running, prepared.groups[prepared.interval_trajectory], -1)
    names = np.unique(group[running])
    if len(names) >= 5:
        chosen = np.random.default_rng(0).permutation(names)[: max(1, round(0.2 * len(names)))]
        return np.isin(group, chosen)
    place = prepared.interval_place
    block = prepared.interval_series * (int(place.max(initial=0)) // window + 1) + place // window
    block = block[first]  # windows are cut inside of trajectories, blocks along series
    names, held = np.unique(block), np.zeros(len(place), dtype=bool)
    if len(names) >= 10:
        apart = np.isin(block, names[2::5])
        held[ranges(first[apart], stop[apart])] = True
    return held


def _freedom(prepared: Prepared, kept: BoolArray) -> FloatArray:
    """Independent data in the rows that are kept: smooth paths, less a level for each, and every state of rest."""
    paths = prepared.interval_trajectory >= 0
    return np.asarray(prepared.independent_slopes * kept[paths].mean() + (~paths).sum())


class _Piece(NamedTuple):
    """Knots of one trajectory that one solve must meet."""

    trajectory: int
    start: int  # knot at which the solve starts
    knots: IntArray
    exact: bool  # whether it starts exactly where the user said, or the observation


def _window_pieces(prepared: Prepared, length: int, starts: Starts) -> list[_Piece]:
    """Consecutive windows of ``length`` intervals that share their end points; none spans a long gap."""
    pieces = []
    for k, course in enumerate(prepared.courses):
        gaps = np.flatnonzero(np.diff(course.times) > LONG_GAP) + 1
        for run in np.split(np.arange(len(course.times)), gaps):
            for first in range(0, len(run) - 1, length):
                knots = run[first : first + length + 1]
                exact = starts == "observed" or (starts == "given" and knots[0] == course.given)
                pieces.append(_Piece(k, int(knots[0]), knots, exact))
    return pieces


def _whole_pieces(prepared: Prepared, starts: Starts) -> list[_Piece]:
    """Whole trajectories, forwards and backwards from the given start."""
    return [
        _Piece(k, course.given, np.arange(len(course.times)), starts != "refined")
        for k, course in enumerate(prepared.courses)
        if len(course.times) > 1
    ]


def _windows(prepared: Prepared, pieces: list[_Piece], like: torch.Tensor) -> Windows:
    """Pad the pieces to one length; a free start is held by the observation there."""
    d = prepared.slopes.shape[1]
    size = max(len(piece.knots) for piece in pieces)
    n_states = prepared.scales.low.shape[0]
    start, spread = np.zeros((len(pieces), n_states)), np.zeros((len(pieces), n_states))
    times, targets = np.zeros((len(pieces), size)), np.zeros((len(pieces), size, d))
    weights, clock = np.zeros((len(pieces), size, d)), np.zeros(len(pieces))
    after = np.full(len(pieces), -1)
    begins = {(piece.trajectory, piece.start): row for row, piece in enumerate(pieces) if not piece.exact}
    tick = prepared.scales.time_unit / prepared.scales.clock_sd
    free = np.concatenate([prepared.noise, np.full(n_states - d, VELOCITY_SPREAD)])
    for row, piece in enumerate(pieces):
        course = prepared.courses[piece.trajectory]
        n = len(piece.knots)
        if piece.knots[-1] != piece.start:
            after[row] = begins.get(_next_start(prepared, piece), -1)
        times[row, :n] = course.times[piece.knots] - course.times[piece.start]
        times[row, n:] = times[row, n - 1]
        observed, weight = course.observed[piece.knots], course.weights[piece.knots]
        if piece.start == course.given and not piece.exact:
            here = piece.knots == piece.start
            observed = np.where(here[:, None], course.start[:d], observed)
            weight = np.where(here[:, None], weight.max(axis=0), weight)
        weights[row, :n] = weight
        targets[row, :n] = np.where(weight > 0, observed, 0.0)
        start[row] = _seen(course, piece.start) if piece.exact else course.path[piece.start]
        spread[row] = 0.0 if piece.exact else free
        clock[row] = prepared.origin[piece.trajectory] + course.times[piece.start] * tick
    inputs = prepared.inputs[[piece.trajectory for piece in pieces]]
    arrays = (start, spread, times, targets, weights, inputs, clock)
    return Windows(*[tensor(array, like) for array in arrays] + [torch.as_tensor(after, device=like.device)])


def _next_start(prepared: Prepared, piece: _Piece) -> tuple[int, int]:
    """Trajectory and knot at which the states go on where a piece ends."""
    k, end = piece.trajectory, int(piece.knots[-1])
    follower = int(prepared.after[k])
    if follower < 0 or end < len(prepared.courses[k].times) - 1:
        return k, end
    return follower, prepared.courses[follower].given


def _seen(course: Course, knot: int) -> FloatArray:
    """The state that the user gave or observed at a knot; what was not observed is that of the path.  # (s,)"""
    if knot == course.given:
        return course.start
    state: FloatArray = course.path[knot].copy()
    seen = np.flatnonzero(course.weights[knot] > 0)
    state[seen] = course.observed[knot][seen]
    return state
