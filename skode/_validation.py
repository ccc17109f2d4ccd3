"""Checks of what the user gives; every message says what must hold, what was given and what to do."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from skode._typing import AnyArray, BoolArray, FloatArray

BUILDER = "Build X, y and groups with from_trajectories(states, times)."


@contextmanager
def explained(must: str, remedy: str) -> Iterator[None]:
    """Add to what scikit-learn refuses the parts that its messages lack.

    Parameters
    ----------
    must : str
        What must hold.
    remedy : str
        What to do.

    Raises
    ------
    TypeError, ValueError
        Where the body raises one; scikit-learn's message stands between the two parts.

    Examples
    --------
    >>> with explained("n must be a number", "Pass digits."):
    ...     int("many")
    Traceback (most recent call last):
    ...
    ValueError: n must be a number; got this instead: invalid literal for int() with base 10: 'many'
    Pass digits.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{must}; got this instead: {str(error).strip()}\n{remedy}") from error


def as_numbers(values: Any, what: str, *, finite: bool = True) -> FloatArray:
    """Turn an array-like into an array of floats.

    Parameters
    ----------
    values : array-like of numbers
        Every axis of one length.
    what : str
        Name for the message.
    finite : bool, default=True
        Whether to refuse NaN and infinity.

    Returns
    -------
    ndarray of float64

    Raises
    ------
    ValueError
        If some value is no number, lengths differ along an axis, or a value is not finite.
    """
    try:
        numbers: FloatArray = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{what} must be numbers, as many in each row; got a value of type {type(values).__name__} ({error}). "
            "Convert words to numbers and give every row the same length."
        ) from error
    if finite and not np.isfinite(numbers).all():
        raise ValueError(
            f"{what} must be finite; got {int((~np.isfinite(numbers)).sum())} missing or infinite values among "
            f"{numbers.size}. Drop or fill them."
        )
    return numbers


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


def check_weights(sample_weight: npt.ArrayLike | None, n_rows: int) -> FloatArray:
    """Return weights as an array of floats, ones where none are given.

    Parameters
    ----------
    sample_weight : array-like of shape (n_rows,), a number, or None
        Weights of the rows.
    n_rows : int
        Number of rows of X.

    Returns
    -------
    ndarray of shape (n_rows,)
        A new array.

    Raises
    ------
    ValueError
        If the weights have the wrong shape, are negative or not finite, or are all zero.
    """
    if sample_weight is None:
        return np.ones(n_rows)
    weights = as_numbers(sample_weight, "sample_weight", finite=False).copy()
    if weights.ndim == 0:
        weights = np.full(n_rows, float(weights))
    if weights.shape != (n_rows,):
        raise ValueError(
            f"sample_weight must have one weight per row, shape ({n_rows},); got shape {weights.shape}. "
            "Pass a one-dimensional array as long as X."
        )
    if not np.isfinite(weights).all() or (weights < 0).any():
        worst = weights[~(np.isfinite(weights) & (weights >= 0))][0]
        raise ValueError(f"sample_weight must be finite and not negative; got {worst:g}. Use 0 to leave a row out.")
    if not weights.any():
        raise ValueError(
            "sample_weight must be positive for some row; got only zeros. Give a positive weight to the "
            "rows to learn from."
        )
    return weights


def check_groups(groups: npt.ArrayLike | None, n_rows: int) -> AnyArray | None:
    """Return group labels as a one-dimensional array that can be sorted, or None.

    Parameters
    ----------
    groups : array-like of shape (n_rows,), or None
        Labels of one kind: numbers or strings.
    n_rows : int
        Number of rows of X.

    Returns
    -------
    ndarray of shape (n_rows,) or None

    Raises
    ------
    ValueError
        If the labels are empty, of the wrong length, missing, or of kinds that cannot be compared.
    """
    if groups is None:
        return None
    with explained("groups must be one label per row", "Pass the groups that from_trajectories returns, or None."):
        labels = np.asarray(groups)
    if labels.shape != (n_rows,):
        raise ValueError(
            f"groups must have one label per row, shape ({n_rows},); got shape {labels.shape}. Pass the "
            "groups that from_trajectories returns, or None."
        )
    if any(_is_missing(label) for label in labels) if labels.dtype == object else (labels != labels).any():
        raise ValueError(
            "groups must have a label in every row; got missing labels. Fill them with a label of their own."
        )
    try:
        np.unique(labels)
    except TypeError as error:
        kinds = ", ".join(sorted({type(label).__name__ for label in labels}))
        raise ValueError(
            f"groups must be labels of one kind, numbers or strings; got {kinds}. Convert them to one type."
        ) from error
    return labels


def _is_missing(label: object) -> bool:
    """Tell whether a label is None or NaN."""
    return label is None or (isinstance(label, float) and label != label)


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
