"""Build X, y and groups from trajectories as people have them: lists of arrays or data frames."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from skode._reading import (
    broken,
    check_complete,
    check_options,
    column_names,
    numbers,
    read_clocks,
    read_inputs,
    read_tables,
    shapes,
    sorted_series,
)
from skode._segments import MissingStart, Questions, Start, ask
from skode._typing import FloatArray, IntArray
from skode._validation import as_numbers


class Dataset(NamedTuple):
    """What ``fit`` takes."""

    X: Any
    """Questions [ t | x0 | v0 | start time | u ], an array or a data frame."""
    y: Any
    """Answers, an array or a data frame."""
    groups: IntArray
    """Number of the trajectory of each row."""


def from_trajectories(
    states: Any,
    times: Any,
    inputs: Any = None,
    velocities: Any = None,
    breaks: Any = None,
    start: Start = "first",
    *,
    absolute_time: bool = False,
    missing_start: MissingStart = "drop",
) -> Dataset:
    """Turn trajectories into questions X, answers y, and groups.

    Observations are sorted by time, repeated times of one trajectory are averaged, and each trajectory is
    cut into segments where an input changes or a jump is known. Every segment starts in its own x0 under its
    own u and keeps its start as an anchor row, t = 0 and y = x0. Segments and windows that start where another one of
    their group ends are one series to ``fit``; nothing connects what comes before a jump with what comes after.

    Parameters
    ----------
    states : list of arrays or data frames (n_times_k, d), or array (n_trajectories, n_times, d)
        Observed states; NaN where missing. One two-dimensional array or frame is one trajectory;
        one-dimensional members of a list have d = 1.
    times : list of arrays (n_times_k,), or array (n_trajectories, n_times) or (n_times,)
        Observation times, in any order; one-dimensional times are shared by all trajectories.
    inputs : list or array, default=None
        Constants: shape (n_trajectories, m), or (m,) for one trajectory, or a list of (m,). Changing in
        time: a list of (n_times_k, m), or an array (n_trajectories, n_times, m), or (n_times, m) for one
        trajectory; the input at one observation holds until the next.
    velocities : like states, default=None
        Velocities, where the estimator has ``order=2`` and ``initial_velocity="given"``.
    breaks : list of sequences of times, or one sequence, default=None
        Times of known jumps: the first observation at or after each is a new start that nothing before
        explains. One sequence is shared by all trajectories.
    start : {"first", "each"} or int, default="first"
        Whole segments; one-step windows from each observation; or windows of k observations after their
        start, a start at every k-th observation (k = 1 is "each").
    absolute_time : bool, default=False
        Write the time at which a window starts as the first u column, for ``time_origin="input"``.
    missing_start : {"drop", "interpolate"}, default="drop"
        Start at the first observation of all states, or fill missing ones linearly in time inside the
        segment.

    Returns
    -------
    Dataset
        Named tuple (X, y, groups). X and y are data frames where the states were: y has their names, X the
        columns "t", "initial_<name>", "velocity_<name>", "start_time" and the names of the inputs.

    Raises
    ------
    ValueError
        If lengths disagree, names differ between trajectories, or an input is missing.

    Warns
    -----
    UserWarning
        Once, with counts, where windows without a complete start are left out.

    Examples
    --------
    >>> import numpy as np
    >>> X, y, groups = from_trajectories([np.array([[1.0], [2.0], [4.0]])], [0.0, 1.0, 2.0])
    >>> X.tolist()
    [[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]]
    >>> y[:, 0].tolist(), groups.tolist()
    ([1.0, 2.0, 4.0], [0, 0, 0])
    >>> from_trajectories([[1.0, 2.0, 4.0]], [0.0, 1.0, 2.0], start="each").X.tolist()
    [[0.0, 1.0], [1.0, 1.0], [0.0, 2.0], [1.0, 2.0]]
    """
    check_options(start, missing_start)
    observed = read_tables(states, "states")
    lengths = [len(table) for table in observed.tables]
    clocks = read_clocks(times, lengths)
    driven = read_inputs(inputs, lengths)
    moving = None if velocities is None else read_tables(velocities, "velocities")
    if moving is not None and [table.shape for table in moving.tables] != [table.shape for table in observed.tables]:
        raise ValueError(
            f"velocities must have the shapes of states; got {shapes(moving.tables)} for "
            f"{shapes(observed.tables)}. Pass one velocity per state and time."
        )
    series = sorted_series(
        np.concatenate(clocks),
        np.concatenate(observed.tables),
        None if moving is None else np.concatenate(moving.tables),
        np.concatenate(driven.tables),
        np.repeat(np.arange(len(lengths)), lengths),
    )
    jump = series.jump | broken(breaks, series, len(lengths))
    questions = ask(series._replace(jump=jump), start=start, missing_start=missing_start)
    return _dataset(questions, observed.names, driven.names, absolute_time)


def from_frame(
    df: Any,
    trajectory: str | None = "id",
    time: str = "t",
    *,
    states: Sequence[str],
    inputs: Sequence[str] = (),
    velocities: Sequence[str] | None = None,
    breaks: str | None = None,
    start: Start = "first",
    absolute_time: bool = False,
    missing_start: MissingStart = "drop",
) -> Dataset:
    """Turn a long data frame, one row per observation, into questions X, answers y, and groups.

    Parameters
    ----------
    df : pandas.DataFrame
        The observations, in any order.
    trajectory : str or None, default="id"
        Column that says to which trajectory a row belongs; None for a single one.
    time : str, default="t"
        Column of times.
    states : sequence of str
        Columns of states.
    inputs : sequence of str, default=()
        Columns of inputs; the input at one observation holds until the next.
    velocities : sequence of str, default=None
        Columns of velocities, in the order of the states.
    breaks : str, default=None
        Column that is true in rows that follow a jump.
    start, absolute_time, missing_start
        As in ``from_trajectories``.

    Returns
    -------
    Dataset
        Named tuple (X, y, groups) as from ``from_trajectories``, with trajectories numbered in the order in
        which they first appear.

    Raises
    ------
    ValueError
        If a column is missing, or an identifier or an input is.

    Examples
    --------
    >>> import pandas as pd
    >>> df = pd.DataFrame({"id": ["b", "b", "a", "a"], "t": [3.0, 4.0, 0.0, 2.0]})
    >>> df["prey"] = [1.0, 2.0, 5.0, 6.0]
    >>> X, y, groups = from_frame(df, states=["prey"])
    >>> X
         t  initial_prey
    0  0.0           1.0
    1  1.0           1.0
    2  0.0           5.0
    3  2.0           5.0
    >>> groups.tolist()
    [0, 0, 1, 1]
    """
    check_options(start, missing_start)
    for name, columns in [("states", states), ("inputs", inputs), ("velocities", velocities)]:
        if isinstance(columns, str):
            raise ValueError(f"{name} must be a list of column names; got the string {columns!r}. Pass [{columns!r}].")
    moving = None if velocities is None else list(velocities)
    if moving is not None and len(moving) != len(states):
        raise ValueError(
            f"velocities must name one column per state, {len(states)}; got {len(moving)}. Name them in the "
            "states' order."
        )
    named = [
        time,
        *states,
        *inputs,
        *(moving or []),
        *([breaks] if breaks else []),
        *([trajectory] if trajectory else []),
    ]
    absent = [name for name in named if name not in df.columns]
    if absent:
        raise ValueError(
            f"The data frame must have the columns {named}; got none named {', '.join(map(repr, absent))}. "
            f"Its columns are {[str(name) for name in df.columns]}."
        )
    series = sorted_series(
        np.asarray(df[time], dtype=np.float64),
        np.asarray(df[list(states)], dtype=np.float64),
        None if moving is None else np.asarray(df[moving], dtype=np.float64),
        check_complete(np.asarray(df[list(inputs)], dtype=np.float64).reshape(len(df), len(inputs))),
        np.zeros(len(df), dtype=np.int64) if trajectory is None else numbers(np.asarray(df[trajectory])),
        None if breaks is None else np.asarray(df[breaks], dtype=bool),
    )
    questions = ask(series, start=start, missing_start=missing_start)
    return _dataset(questions, [str(name) for name in states], [str(name) for name in inputs], absolute_time)


def make_questions(x0: Any, t: Any, inputs: Any = None, *, velocities: Any = None, start_time: Any = None) -> Any:
    """Ask for the states at the times t from each initial state.

    Parameters
    ----------
    x0 : array or data frame of shape (n_trajectories, d), or array of shape (d,)
        Initial states.
    t : array (n_times,) or (n_trajectories, n_times), list of arrays (n_times_k,), or number
        Elapsed times; one-dimensional times are shared by all initial states.
    inputs : array or data frame of shape (n_trajectories, m) or (m,), default=None
        Constant inputs; (m,) is shared.
    velocities : array of shape (n_trajectories, d) or (d,), default=None
        Initial velocities, for ``order=2`` with ``initial_velocity="given"``.
    start_time : array of shape (n_trajectories,) or a number, default=None
        Start of the field's clock, for ``time_origin="input"``.

    Returns
    -------
    X : ndarray or data frame of shape (n_trajectories * n_times, n_columns)
        Trajectory by trajectory, times in the order given; a data frame where x0 is one.

    Raises
    ------
    ValueError
        If the shapes disagree.

    Examples
    --------
    >>> make_questions([[1.0, 2.0]], [0.0, 0.5], inputs=[9.0]).tolist()
    [[0.0, 1.0, 2.0, 9.0], [0.5, 1.0, 2.0, 9.0]]
    """
    names = column_names(x0)
    initial = np.atleast_2d(as_numbers(x0, "x0"))
    if initial.ndim != 2:
        raise ValueError(
            f"x0 must have shape (n_trajectories, d) or (d,); got shape {initial.shape}. Pass one row per "
            "initial state."
        )
    n, d = initial.shape
    if not isinstance(t, (list, tuple)) and np.ndim(t) == 0:
        t = [t]
    clocks = read_clocks(t, None, n)
    repeats = [len(clock) for clock in clocks]

    def rows(table: Any, width: int | None, what: str) -> FloatArray:
        array = np.atleast_1d(as_numbers(table, what))
        array = np.broadcast_to(array, (n, array.shape[-1])) if array.ndim == 1 else array
        if array.ndim != 2 or len(array) != n or (width is not None and array.shape[1] != width):
            expected = f"({n}, {'m' if width is None else width})"
            raise ValueError(
                f"{what} must have shape {expected} for {n} initial states; got {np.shape(table)}. Pass one "
                "row per initial state."
            )
        return np.repeat(array, repeats, axis=0)

    clock = np.zeros(n) if start_time is None else np.asarray(start_time, dtype=np.float64)
    if clock.shape not in [(), (n,)]:
        raise ValueError(
            f"start_time must be a number or have shape ({n},); got shape {clock.shape}. Pass one per initial state."
        )
    driven = np.empty((n, 0)) if inputs is None else inputs
    questions = Questions(
        elapsed=np.concatenate(clocks),
        initial=np.repeat(initial, repeats, axis=0),
        velocity=None if velocities is None else rows(velocities, d, "velocities"),
        start_time=np.repeat(np.broadcast_to(clock, (n,)), repeats),
        inputs=rows(driven, None, "inputs"),
        answers=np.empty((sum(repeats), 0)),
        number=np.repeat(np.arange(n), repeats),
    )
    return _dataset(questions, names, column_names(inputs), start_time is not None).X


def _dataset(
    questions: Questions, names: list[str] | None, input_names: list[str] | None, absolute_time: bool
) -> Dataset:
    """Lay the columns out, and name them where the states have names."""
    nothing = np.empty((len(questions.elapsed), 0))
    X = np.column_stack(
        [
            questions.elapsed,
            questions.initial,
            nothing if questions.velocity is None else questions.velocity,
            questions.start_time if absolute_time else nothing,
            questions.inputs,
        ]
    )
    if names is None:
        return Dataset(X, questions.answers, questions.number)
    columns = ["t", *(f"initial_{name}" for name in names)]
    columns += [] if questions.velocity is None else [f"velocity_{name}" for name in names]
    columns += ["start_time"] if absolute_time else []
    columns += input_names if input_names is not None else [f"u{j}" for j in range(questions.inputs.shape[1])]
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise ValueError(
            f"The columns of X must have different names; got {', '.join(twice)} more than once. Rename the inputs."
        )
    pandas = importlib.import_module("pandas")
    answers = questions.answers if questions.answers.shape[1] else None
    y = None if answers is None else pandas.DataFrame(answers, columns=names)
    return Dataset(pandas.DataFrame(X, columns=columns), y, questions.number)
