"""Read what people pass to the builders, lists, arrays and data frames alike, into one sorted series."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from skode._segments import MissingStart, Series, Start
from skode._ties import block_means, one_block, refine
from skode._typing import AnyArray, BoolArray, FloatArray, IntArray


class Tables(NamedTuple):
    """One table per trajectory."""

    tables: list[FloatArray]  # (time, column) each
    names: list[str] | None


def check_options(start: Start, missing_start: MissingStart) -> None:
    """Refuse options that do not exist."""
    if start not in ("first", "each") and not (isinstance(start, (int, np.integer)) and start >= 1):
        raise ValueError(
            f'start must be "first", "each" or an integer of at least 1; got {start!r}. Pass one of these.'
        )
    if missing_start not in ("drop", "interpolate"):
        raise ValueError(f'missing_start must be "drop" or "interpolate"; got {missing_start!r}. Pass one of these.')


def column_names(table: Any) -> list[str] | None:
    """Return the column names of a data frame, None for anything else."""
    columns = getattr(table, "columns", None)
    return None if columns is None else [str(name) for name in columns]


def shapes(tables: Sequence[FloatArray]) -> str:
    """Write the first few shapes out for a message."""
    return ", ".join(str(table.shape) for table in tables[:3]) + (", ..." if len(tables) > 3 else "")


def read_tables(value: Any, what: str) -> Tables:
    """Read states or velocities: a list of tables, one 3-d array, or one table.

    Parameters
    ----------
    value : list of arrays or data frames, array, or data frame
        Members of one axis are tables of one column.
    what : str
        Name for the messages.

    Returns
    -------
    Tables

    Raises
    ------
    ValueError
        If there are no trajectories or their columns differ.
    """
    members = _members(value, table_axes=2)
    if not members:
        raise ValueError(f"{what} must hold at least one trajectory; got none. Pass a list of arrays.")
    tables = [np.asarray(member, dtype=np.float64) for member in members]
    tables = [table[:, None] if table.ndim == 1 else table for table in tables]
    if any(table.ndim != 2 for table in tables) or len({table.shape[1] for table in tables}) > 1:
        raise ValueError(
            f"{what} must be tables (n_times, d) with one d for all trajectories; got {shapes(tables)}. "
            "Pass a list of two-dimensional arrays."
        )
    named = [column_names(member) for member in members]
    if any(names != named[0] for names in named):
        other = next(names for names in named if names != named[0])
        raise ValueError(
            f"The tables of {what} must have the same columns in the same order; got {named[0]} and "
            f"{other}. Reorder or rename the columns."
        )
    return Tables(tables, named[0])


def read_clocks(times: Any, lengths: Sequence[int] | None, n_trajectories: int = 0) -> list[FloatArray]:
    """Read times: one sequence for all trajectories, or one for each.

    Parameters
    ----------
    times : sequence of numbers, or sequence of sequences
        Times.
    lengths : sequence of int or None
        Number of observations of each trajectory; None where any number will do.
    n_trajectories : int, default=0
        Number of trajectories where lengths is None.

    Returns
    -------
    list of ndarray of shape (n_times_k,)

    Raises
    ------
    ValueError
        If the numbers of times are wrong or a time is not finite.
    """
    n = n_trajectories if lengths is None else len(lengths)
    members = _members(times, table_axes=1)
    clocks = [np.asarray(member, dtype=np.float64).reshape(-1) for member in members]
    if len(clocks) == 1:
        clocks = clocks * n
    found = [len(clock) for clock in clocks]
    if len(clocks) != n or (lengths is not None and found != list(lengths)):
        wanted = "any number" if lengths is None else str(list(lengths[:3]))[1:-1]
        raise ValueError(
            f"times must have one entry per observation: {n} trajectories of "
            f"{wanted}{', ...' if n > 3 else ''} times; got {len(found)} of "
            f"{str(found[:3])[1:-1]}{', ...' if len(found) > 3 else ''}. Pass a list of arrays, or one "
            "array where all trajectories share their times."
        )
    if not all(np.isfinite(clock).all() for clock in clocks):
        raise ValueError("times must be finite; got NaN or infinity. Drop these observations.")
    return clocks


def read_inputs(inputs: Any, lengths: Sequence[int]) -> Tables:
    """Read inputs, constant or changing in time, into one table per trajectory.

    Parameters
    ----------
    inputs : None, array, data frame, or list of arrays or data frames
        As ``from_trajectories`` describes them.
    lengths : sequence of int
        Number of observations of each trajectory.

    Returns
    -------
    Tables

    Raises
    ------
    ValueError
        If the shapes fit neither constants nor one row per observation, or a value is missing.
    """
    if inputs is None:
        return Tables([np.empty((length, 0)) for length in lengths], None)
    names = column_names(inputs)
    if isinstance(inputs, (list, tuple)) and any(np.ndim(member) == 2 for member in inputs):
        members = list(inputs)
        names = next((named for named in map(column_names, members) if named is not None), None)
        if any(column_names(member) not in (None, names) for member in members):
            raise ValueError(
                f"The tables of inputs must have the same columns in the same order, {names}; got others. "
                "Reorder or rename the columns."
            )
    else:
        members = _per_trajectory(inputs, lengths)
    tables = [np.asarray(member, dtype=np.float64) for member in members]
    if len(tables) == len(lengths):
        pairs = zip(tables, lengths, strict=True)
        tables = [np.tile(table, (length, 1)) if table.ndim == 1 else table for table, length in pairs]
    if [len(table) for table in tables] != list(lengths) or len({table.shape[1:] for table in tables}) > 1:
        raise ValueError(
            f"inputs must be constants, one row for each of {len(lengths)} trajectories, or tables with one "
            f"row per observation, all with the same columns; got shapes {shapes(tables)}. Pass shape "
            "(n_trajectories, m), or a list of (n_times, m)."
        )
    return Tables([check_complete(table) for table in tables], names)


def check_complete(inputs: FloatArray) -> FloatArray:
    """Refuse inputs that are missing or infinite."""
    if not np.isfinite(inputs).all():
        raise ValueError(
            f"inputs must be finite; got {int((~np.isfinite(inputs)).sum())} missing or infinite values. An "
            "input holds until the next observation: fill it forward."
        )
    return inputs


def sorted_series(
    times: FloatArray,
    states: FloatArray,
    velocities: FloatArray | None,
    inputs: FloatArray,
    number: IntArray,
    after_jump: BoolArray | None = None,
) -> Series:
    """Sort observations by trajectory and time, and average those at the same time of the same trajectory.

    Parameters
    ----------
    times : ndarray of shape (n_rows,)
    states : ndarray of shape (n_rows, d)
    velocities : ndarray of shape (n_rows, d) or None
    inputs : ndarray of shape (n_rows, m)
    number : ndarray of int of shape (n_rows,)
        Trajectory of each row.
    after_jump : ndarray of bool of shape (n_rows,), default=None
        Rows that follow a jump.

    Returns
    -------
    Series

    Raises
    ------
    ValueError
        If there are no rows, a time is not finite, or inputs differ at the same time of the same trajectory.
    """
    if not len(times) or not np.isfinite(times).all():
        raise ValueError(
            f"There must be observations, at finite times; got {len(times)}, of which "
            f"{int((~np.isfinite(times)).sum())} at times that are not. Drop these observations."
        )
    series = refine(one_block(len(times)), [number])
    order, fresh = refine(series, [times])
    rows = np.flatnonzero(fresh)
    ones = np.ones(len(times))
    driven = inputs[order]
    if (np.maximum.reduceat(driven, rows, axis=0) != np.minimum.reduceat(driven, rows, axis=0)).any():
        raise ValueError(
            "inputs must have one value at each time of a trajectory; got different ones at the same time. "
            "Give the two observations different trajectories or different times."
        )
    jump = series.starts[rows]
    if after_jump is not None:
        jump |= np.logical_or.reduceat(after_jump[order], rows)
    return Series(
        times=times[order[rows]],
        states=block_means(states[order], ones, rows),
        velocities=None if velocities is None else block_means(velocities[order], ones, rows),
        inputs=driven[rows],
        number=number[order[rows]],
        jump=jump,
    )


def broken(breaks: Any, series: Series, n_trajectories: int) -> BoolArray:
    """Mark the first row at or after each known jump.

    Parameters
    ----------
    breaks : None, sequence of times, or sequence of one such sequence (or None) per trajectory
    series : Series
    n_trajectories : int

    Returns
    -------
    ndarray of bool of shape (n_rows,)

    Raises
    ------
    ValueError
        If there is not one sequence per trajectory.
    """
    jump = np.zeros(len(series.times), dtype=bool)
    if breaks is None:
        return jump
    shared = all(item is not None and np.ndim(item) == 0 for item in breaks)
    each = [breaks] * n_trajectories if shared else list(breaks)
    if len(each) != n_trajectories:
        raise ValueError(
            f"breaks must be one sequence of times for each of {n_trajectories} trajectories, or one for "
            f"all; got {len(each)}. Pass an empty sequence where there is no jump."
        )
    bounds = np.searchsorted(series.number, np.arange(n_trajectories + 1))
    for k, instants in enumerate(each):
        times = series.times[bounds[k] : bounds[k + 1]]
        after = np.searchsorted(times, np.asarray([] if instants is None else instants, dtype=np.float64).ravel())
        jump[bounds[k] + after[after < len(times)]] = True
    return jump


def numbers(labels: AnyArray) -> IntArray:
    """Number the labels in the order in which they first appear."""
    missing = np.array([label is None or label != label for label in labels], dtype=bool)
    if missing.any():
        raise ValueError(
            f"Every row must say to which trajectory it belongs; got {int(missing.sum())} rows without. "
            "Fill or drop them."
        )
    codes: dict[Any, int] = {}
    return np.array([codes.setdefault(label, len(codes)) for label in labels], dtype=np.int64)


def _members(value: Any, *, table_axes: int) -> list[Any]:
    """Split what was passed into one member per trajectory."""
    if column_names(value) is not None:
        return [value]
    if isinstance(value, (list, tuple)):
        return [value] if len(value) and np.ndim(value[0]) == 0 else list(value)
    array = np.asarray(value)
    return list(array) if array.ndim > table_axes or array.dtype == object else [array]


def _per_trajectory(inputs: Any, lengths: Sequence[int]) -> list[FloatArray]:
    """Split one array of inputs, constant or changing, into one member per trajectory."""
    try:
        table = np.atleast_1d(np.asarray(inputs, dtype=np.float64))
    except ValueError as error:
        raise ValueError(
            "Constant inputs must be as many for each trajectory; got lists of different lengths. Pass "
            "shape (n_trajectories, m), or a list of (n_times, m)."
        ) from error
    if len(lengths) > 1:
        return list(table[:, None] if table.ndim == 1 else table)
    if table.ndim == 1 and table.size == lengths[0] > 1:
        raise ValueError(
            "inputs of one trajectory must say whether they change in time; got as many numbers as "
            f"observations, {table.size}. Pass shape ({table.size}, 1) for one changing input, (1, "
            f"{table.size}) for constants."
        )
    return list(table) if table.ndim == 3 or (table.ndim == 2 and len(table) != lengths[0]) else [table]
