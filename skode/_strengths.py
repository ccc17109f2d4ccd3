"""The grid of strengths that every path goes down."""

from __future__ import annotations

import numbers

import numpy as np
import numpy.typing as npt

from skode._typing import FloatArray
from skode._validation import as_numbers

STRONGEST, WEAKEST = 1.0, 0.005
"""Ends of the default grid: hardly any edge survives the first, hardly any is removed by the second."""


def strengths(alphas: npt.ArrayLike | None, n_alphas: int) -> FloatArray:
    """Give the strengths that a user asked for, falling and without repetition.

    Parameters
    ----------
    alphas : array-like or None
        None is ``n_alphas`` values from 1 to 0.005, evenly spaced in the logarithm.
    n_alphas : int

    Returns
    -------
    ndarray of shape (n_alphas,)

    Raises
    ------
    ValueError, TypeError
        If there are fewer than two, or one of them is no strength.

    Examples
    --------
    >>> strengths([0.1, 0.2, 0.1], 10).tolist(), strengths(None, 3).round(3).tolist()
    ([0.2, 0.1], [1.0, 0.071, 0.005])
    """
    if alphas is None:
        if not isinstance(n_alphas, numbers.Integral) or isinstance(n_alphas, bool):
            raise TypeError(f"n_alphas must be an integer >= 2; got {n_alphas!r}. Use 10, or give alphas.")
        if n_alphas < 2:
            raise ValueError(f"n_alphas must be an integer >= 2; got {n_alphas!r}. Use 10, or give alphas.")
        return np.geomspace(STRONGEST, WEAKEST, int(n_alphas))
    given = as_numbers(alphas, "alphas")
    grid = np.unique(given)[::-1].copy()
    if given.ndim != 1 or len(grid) < 2 or grid[-1] < 0:
        raise ValueError(
            f"alphas must hold at least two different finite numbers >= 0, on one axis; got {alphas!r}. "
            "Leave alphas at None for the default grid."
        )
    return grid
