"""Checks of what the user gives; every message says what must hold, what was given and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from skode._typing import AnyArray, FloatArray

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
