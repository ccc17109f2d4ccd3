"""Cut series into segments and windows: where a question starts, and which observations answer it."""

from __future__ import annotations

import warnings
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from skode._ties import ranges
from skode._typing import BoolArray, FloatArray, IntArray

Start: TypeAlias = Literal["first", "each"] | int
MissingStart: TypeAlias = Literal["drop", "interpolate"]


class Series(NamedTuple):
    """All observations, one after the other, sorted by series and time, times distinct inside a series."""

    times: FloatArray  # (row,)
    states: FloatArray  # (row, state), NaN = missing
    velocities: FloatArray | None  # (row, state)
    inputs: FloatArray  # (row, input): what holds from this row's time to the next row's
    number: IntArray  # (row,) which series
    jump: BoolArray  # (row,) True where nothing connects the row with the one before


class Questions(NamedTuple):
    """One row per question and answer."""

    elapsed: FloatArray  # (row,)
    initial: FloatArray  # (row, state)
    velocity: FloatArray | None  # (row, state)
    start_time: FloatArray  # (row,)
    inputs: FloatArray  # (row, input)
    answers: FloatArray  # (row, state)
    number: IntArray  # (row,) which series


class _Segments(NamedTuple):
    rows: IntArray  # (place,) rows of the series; a row in which an input changes stands in two segments
    starts: IntArray  # (segment,) places
    stops: IntArray  # (segment,) places


def ask(series: Series, *, start: Start, missing_start: MissingStart) -> Questions:
    """Turn series into questions that start in known states and cross no jump and no change of an input.

    The row at which an input changes is the last answer of one segment and the start of the next; the row
    after a jump is a start only. Windows are laid inside segments, every k-th row a start, with the k rows
    after it as answers.

    Parameters
    ----------
    series : Series
        The observations.
    start : {"first", "each"} or int
        One window per segment, one per observation, or one per k observations.
    missing_start : {"drop", "interpolate"}
        Whether a window begins at its first row in which all states are observed, or missing states are
        interpolated linearly in time inside the segment (held beyond its ends).

    Returns
    -------
    Questions

    Raises
    ------
    ValueError
        If no window is left.

    Warns
    -----
    UserWarning
        Once, with the number of windows and of leading observations that are left out.
    """
    segments = _segments(series)
    times = series.times[segments.rows]
    known = series.states[segments.rows]
    if series.velocities is not None:
        known = np.concatenate([known, series.velocities[segments.rows]], axis=1)
    if missing_start == "interpolate":
        known = _interpolated(times, known, segments)
    begins, ends = _windows(segments, start)

    place = np.arange(len(known))
    complete = np.where(np.isfinite(known).all(axis=1), place, len(known))
    first = np.minimum.accumulate(complete[::-1])[::-1][begins]  # next complete place, (window,)
    usable = (first < ends - 1) | ((first < ends) & (ends - begins == 1))
    if not usable.any():
        raise ValueError(
            "Some observation must have all states, with another observation after it; got none in "
            f'{len(usable)} windows. Pass missing_start="interpolate" or leave out the states that are '
            "rarely observed."
        )
    _warn_left_out(int((~usable).sum()), int((first - begins)[usable].sum()), len(usable))

    first, ends = first[usable], ends[usable]
    answer = ranges(first, ends)
    begin = np.repeat(first, ends - first)
    d = series.states.shape[1]
    return Questions(
        elapsed=times[answer] - times[begin],
        initial=known[begin, :d],
        velocity=None if series.velocities is None else known[begin, d:],
        start_time=times[begin],
        inputs=series.inputs[segments.rows[begin]],
        answers=series.states[segments.rows[answer]],
        number=series.number[segments.rows[answer]],
    )


def _segments(series: Series) -> _Segments:
    n = len(series.times)
    changed = np.zeros(n, dtype=bool)
    changed[1:] = (series.inputs[1:] != series.inputs[:-1]).any(axis=1)
    head = np.flatnonzero(series.jump | changed)
    shared = np.append(~series.jump[head[1:]], False)  # the next segment's first row also ends this one
    tail = np.append(head[1:], n) + shared
    # a change at the last row of a series starts nothing: that row already is an answer
    useful = (tail - head > 1) | series.jump[head]
    head, tail = head[useful], tail[useful]
    stops = np.cumsum(tail - head)
    return _Segments(ranges(head, tail), stops - (tail - head), stops)


def _windows(segments: _Segments, start: Start) -> tuple[IntArray, IntArray]:
    if start == "first":
        return segments.starts, segments.stops
    k = 1 if start == "each" else int(start)
    lengths = segments.stops - segments.starts
    counts = np.maximum(-(-(lengths - 1) // k), 1)
    segment = np.repeat(np.arange(len(counts)), counts)
    begins = segments.starts[segment] + k * ranges(np.zeros_like(counts), counts)
    return begins, np.minimum(begins + k + 1, segments.stops[segment])


def _interpolated(times: FloatArray, known: FloatArray, segments: _Segments) -> FloatArray:
    """Fill gaps linearly in time inside each segment, and its ends with the nearest value."""
    n = len(times)
    lengths = segments.stops - segments.starts
    lowest = np.repeat(segments.starts, lengths)[:, None]
    highest = np.repeat(segments.stops, lengths)[:, None] - 1
    place = np.arange(n)[:, None]
    observed = np.isfinite(known)
    before = np.maximum.accumulate(np.where(observed, place, -1), axis=0)
    after = np.minimum.accumulate(np.where(observed, place, n)[::-1], axis=0)[::-1]
    before = np.where(before >= lowest, before, after)
    after = np.where(after <= highest, after, before)
    inside = (before >= lowest) & (before <= highest)
    before, after = np.where(inside, before, place), np.where(inside, after, place)
    left, right = np.take_along_axis(known, before, axis=0), np.take_along_axis(known, after, axis=0)
    gap = times[after] - times[before]
    share = np.divide(times[place] - times[before], gap, out=np.zeros_like(left), where=gap > 0)
    return np.where(observed, known, left + share * (right - left))


def _warn_left_out(windows: int, observations: int, total: int) -> None:
    if windows or observations:
        warnings.warn(
            f"A trajectory or window should start at an observation of all states; {windows} of {total} "
            f"have none (with an observation after it) and are left out, and so are {observations} "
            'observations before the first such one of the others. Pass missing_start="interpolate" to '
            "fill the missing states.",
            UserWarning,
            stacklevel=4,
        )
