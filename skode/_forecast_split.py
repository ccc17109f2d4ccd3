"""Splitting trajectory data for scikit-learn's cross-validation."""

from __future__ import annotations

import numbers
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.model_selection import BaseCrossValidator

from skode._typing import BoolArray, FloatArray, IntArray

__all__ = ["ForecastSplit"]


class ForecastSplit(BaseCrossValidator):
    """Train on the early part of every trajectory, test on the later part.

    A trajectory is the rows of one group, or without ``groups`` the rows that share everything in X but the
    time. Its distinct observation times are counted; the last ``test_size`` of them are cut into ``n_splits``
    consecutive blocks. Split k tests on block k and trains on all that comes before it, so later splits train
    on more (expanding windows) and no training row is later than a test row of its trajectory.

    Parameters
    ----------
    test_size : float or int, default=0.3
        Share of each trajectory's observation times that is tested in all splits together, or their number.
        The first two times of a trajectory are always trained on, so a trajectory of two times is never
        tested.
    n_splits : int, default=1
        Number of splits.

    Notes
    -----
    In a group of several windows or segments (several x0 or inputs in one group), t starts anew in each, so
    their order is taken from the order in which they first appear: keep the rows of such a group in the order
    of ``from_trajectories``. Elsewhere the order of rows has no meaning.

    Examples
    --------
    >>> import numpy as np
    >>> from skode import ForecastSplit
    >>> t, x0 = np.tile(np.arange(5.0), 2), np.repeat([1.0, 2.0], 5)  # two trajectories
    >>> X = np.column_stack([t, x0])
    >>> for train, test in ForecastSplit(test_size=0.4, n_splits=2).split(X):
    ...     print(train, test)
    [0 1 2 5 6 7] [3 8]
    [0 1 2 3 5 6 7 8] [4 9]
    """

    # Under scikit-learn's metadata routing groups reach ``split`` without being asked for, as for GroupKFold.
    __metadata_request__split = {"groups": True}

    def __init__(self, test_size: float | int = 0.3, n_splits: int = 1) -> None:
        self.test_size = test_size
        self.n_splits = n_splits

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of splits.

        Parameters
        ----------
        X, y, groups : object, default=None
            Ignored; here for scikit-learn's interface.
        """
        self._check()
        return self.n_splits

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterator[tuple[IntArray, IntArray]]:
        """Yield the row numbers of each split's training and test part.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_rows, 1 + d + m), or (n_rows, 1)
            Questions, time first.
        y : object, default=None
            Ignored.
        groups : array-like of shape (n_rows,), default=None
            Number of each row's trajectory; None takes rows that share (x0, u) as one.

        Yields
        ------
        train, test : ndarray of int
            Sorted row numbers.

        Raises
        ------
        ValueError
            If a parameter is out of range, ``groups`` has another length, or a split would test on nothing.
        """
        self._check()
        place, length = _places(_matrix(X), groups)
        bounds = [self._bound(k, length) for k in range(self.n_splits + 1)]
        parts = list(zip(bounds[:-1], bounds[1:], strict=True))
        for k, (start, stop) in enumerate(parts):
            if not ((start <= place) & (place < stop)).any():
                raise ValueError(
                    f"Every split must test on something; split {k} of {self.n_splits} has no rows with "
                    f"test_size = {self.test_size}. Give longer trajectories, a larger test_size or fewer "
                    "splits."
                )
        for start, stop in parts:
            yield np.flatnonzero(place < start), np.flatnonzero((start <= place) & (place < stop))

    def _bound(self, k: int, length: IntArray) -> IntArray:  # (n_rows,)
        """Return the place at which block k begins in the trajectory of each row."""
        n_tested = self.test_size * length if self.test_size < 1 else np.full(length.shape, self.test_size)
        left = np.floor(n_tested * (self.n_splits - k) / self.n_splits + 0.5).astype(np.int64)
        bound: IntArray = np.maximum(length - left, np.minimum(2, length))
        return bound

    def _check(self) -> None:
        if not isinstance(self.n_splits, numbers.Integral) or self.n_splits < 1:
            raise ValueError(f"n_splits must be an integer >= 1; got {self.n_splits!r}. Pass for example n_splits=3.")
        share = isinstance(self.test_size, numbers.Real) and 0 < self.test_size < 1
        count = isinstance(self.test_size, numbers.Integral) and self.test_size >= 1
        if not (share or count):
            raise ValueError(
                "test_size must be a share between 0 and 1 or a number of observation times >= 1; got "
                f"{self.test_size!r}. Pass for example test_size=0.3."
            )


def _matrix(X: Any) -> FloatArray:
    columns = np.asarray(X, dtype=np.float64)
    if columns.ndim != 2 or columns.shape[1] < 1:
        raise ValueError(
            f"X must have shape (n_rows, 1 + d + m) with the time first; got {columns.shape}. Build X with "
            "from_trajectories."
        )
    return columns


def _places(columns: FloatArray, groups: Any) -> tuple[IntArray, IntArray]:  # (n_rows,), (n_rows,)
    """Return each row's place among the distinct times of its trajectory, and the number of those times."""
    window = np.unique(columns[:, 1:], axis=0, return_inverse=True)[1].reshape(-1)
    if groups is None:
        trajectory = window
    else:
        labels = np.asarray(groups)
        if labels.shape != window.shape:
            raise ValueError(
                f"groups must hold one label per row, {window.size}; got shape {labels.shape}. Pass the "
                "groups of from_trajectories."
            )
        trajectory = np.unique(labels, return_inverse=True)[1].reshape(-1)
    first_seen = np.full(window.max(initial=-1) + 1, window.size)
    np.minimum.at(first_seen, window, np.arange(window.size))
    appearance = first_seen[window]
    order = np.lexsort((columns[:, 0], appearance, trajectory))
    keys = np.column_stack([trajectory, appearance, columns[:, 0]])[order]
    new_trajectory = _changes(keys[:, :1])
    new_time = _changes(keys)
    count = np.cumsum(new_time)
    place = np.empty(window.size, dtype=np.int64)
    place[order] = count - np.maximum.accumulate(np.where(new_trajectory, count, 0))
    length = np.zeros(trajectory.max(initial=-1) + 1, dtype=np.int64)
    np.maximum.at(length, trajectory, place + 1)
    return place, length[trajectory]


def _changes(keys: FloatArray) -> BoolArray:  # (n_rows,): True where a sorted row differs from the one before
    changed = np.ones(keys.shape[0], dtype=bool)
    changed[1:] = (keys[1:] != keys[:-1]).any(axis=1)
    return changed
