"""What rows of questions and answers must be; every message says what must hold, what was given and what to do."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from skode._typing import BoolArray, FloatArray
from skode._validation import BUILDER


def check_questions(X: FloatArray, *, names: Sequence[str] | None = None) -> None:
    """Refuse questions that are not finite.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_columns)
    names : sequence of str, default=None
        Names of the columns, for the message.

    Raises
    ------
    ValueError
        If X holds NaN or infinity; the message names the first place.
    """
    bad = ~np.isfinite(X)
    if bad.any():
        row, column = np.argwhere(bad)[0].tolist()
        kind = "NaN" if np.isnan(X[bad]).any() else "infinity"
        where = repr(names[column]) if names is not None else str(column)
        raise ValueError(
            f"X must be finite: times, initial states and inputs; got {kind} in {int(bad.sum())} places, the first "
            f"in row {row}, column {where}. Drop these rows, or build X with from_trajectories, which starts "
            "every trajectory where all states are known. Only y may have NaN, where a state was not observed."
        )


def check_not_raw(X: object) -> None:
    """Refuse trajectories given as X: a three-dimensional array, or a list of tables.

    Parameters
    ----------
    X : object
        What the user passed, before any conversion.

    Raises
    ------
    ValueError
        If X has three axes.
    """
    first = X[0] if isinstance(X, (list, tuple)) and len(X) else X
    n_axes = int(getattr(first, "ndim", 0)) + (first is not X)
    if n_axes >= 3:
        raise ValueError(
            f"X must be a table with one row per question, [ t | x0 | u ]; got trajectories ({n_axes} axes). {BUILDER}"
        )


def check_not_times(X: FloatArray, y: FloatArray) -> None:
    """Refuse ``fit(states, times)``, recognised by a y that runs like a clock while X runs like states.

    It is raised only where y has one column, is strictly increasing over more than three rows, the first
    column of X is no time (it goes up and down), no two rows share the columns after it, no y is another
    row's x0, and every column of X is smooth in the order of the rows (von Neumann ratio below 1;
    independent rows give 2).

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_columns)
        Validated X.
    y : ndarray of shape (n_rows, d)
        Validated y.

    Raises
    ------
    ValueError
        If all the signs are there.

    References
    ----------
    J. von Neumann, "Distribution of the ratio of the mean square successive difference to the variance",
    1941, doi:10.1214/aoms/1177731677.
    """
    if len(X) <= 3 or y.shape[1] != 1 or not (np.diff(y[:, 0]) > 0).all():
        return
    step = np.diff(X, axis=0)
    if (step[:, 0] >= 0).all() or (step[:, 0] <= 0).all():
        return
    if X.shape[1] > 1 and (len(np.unique(X[:, 1:], axis=0)) < len(X) or np.isin(y[:, 0], X[:, 1]).any()):
        return
    if ((step**2).mean(axis=0) <= X.var(axis=0)).all():
        raise ValueError(
            f"X must be questions [ t | x0 | u ] and y the states at those times; got a y of {len(y)} "
            f"increasing numbers, which look like times, and an X of {X.shape[1]} columns, which look like "
            f"states. {BUILDER}"
        )


def check_targets(
    y: FloatArray, *, sample_weight: FloatArray | None = None, names: Sequence[str] | None = None
) -> None:
    """Refuse infinite states, and variables that no row of positive weight observes.

    Parameters
    ----------
    y : ndarray of shape (n_rows, d)
        NaN means not observed.
    sample_weight : ndarray of shape (n_rows,), default=None
        Validated weights.
    names : sequence of str, default=None
        Names of the variables, for the message; x0, x1, ... without.

    Raises
    ------
    ValueError
        If y is infinite somewhere or a variable is never observed.
    """
    names = names if names is not None else [f"x{i}" for i in range(y.shape[1])]
    infinite = np.isinf(y)
    if infinite.any():
        row, column = np.argwhere(infinite)[0].tolist()
        raise ValueError(
            f"y must be finite, or NaN where a variable was not observed; got infinity in {infinite.sum()} "
            f"places, the first in row {row}, variable {names[column]!r}. Replace them by NaN or drop the "
            "rows."
        )
    used = y if sample_weight is None else y[sample_weight > 0]
    never = [str(names[i]) for i in np.flatnonzero(np.isnan(used).all(axis=0)).tolist()]
    if never:
        raise ValueError(
            "Every variable must be observed in some row (of positive weight); got only NaN for "
            f"{', '.join(never)}. Drop these variables from y and their initial states from X."
        )


def check_rows_left(kept: BoolArray) -> None:
    """Refuse data of which no row has both a positive weight and an observation.

    Parameters
    ----------
    kept : ndarray of bool of shape (n_rows,)
        Rows of positive weight with at least one finite entry of y.

    Raises
    ------
    ValueError
        If there is none.
    """
    if not kept.any():
        raise ValueError(
            "Some row must have a positive weight and an observed state; got none among n_samples = "
            f"{len(kept)}. Check sample_weight and the NaN in y."
        )


def check_dynamics(times: FloatArray) -> None:
    """Refuse data in which no time passes.

    Parameters
    ----------
    times : ndarray of shape (n_rows,)
        Elapsed times, aligned.

    Raises
    ------
    ValueError
        If all of them are zero.
    """
    if not times.any():
        raise ValueError(
            "Some row must have t different from 0, or there are no dynamics to learn; got n_samples = "
            f"{len(times)} rows, all at t = 0. Add later observations of the same trajectories."
        )


def warn_backwards(times: FloatArray) -> None:
    """Warn once if some elapsed times are negative.

    Parameters
    ----------
    times : ndarray of shape (n_rows,)
        Elapsed times, aligned.

    Warns
    -----
    UserWarning
        If some are negative.
    """
    negative = int((times < 0).sum())
    if negative:
        warnings.warn(
            f"t should not be negative; got {negative} rows with t < 0, which are integrated backwards from "
            "x0. If this is not meant, let x0 be the state at the first time (from_trajectories).",
            UserWarning,
            stacklevel=3,
        )
