"""How far ahead a forecast holds: error per bin of time, and the time until it fails.

Missing values, infinite forecasts and the average over variables are as in :mod:`skode.metrics.forecast`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from skode._typing import FloatArray, IntArray
from skode.metrics._observed import Observed, observe, one_per_row, root_normalised_mse, scale_of


class HorizonErrors(NamedTuple):
    """NRMSE per bin of time, as :func:`nrmse_by_horizon` returns it."""

    edges: FloatArray  # (n_bins + 1,)
    nrmse: FloatArray  # (n_bins,)
    n_entries: IntArray  # (n_bins,)


def nrmse_by_horizon(
    t: ArrayLike,
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    bins: int | ArrayLike = 5,
    scale: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> HorizonErrors:
    """NRMSE for each bin of the forecast horizon t, all in units of one and the same scale.

    Parameters
    ----------
    t : array-like of shape (n_rows,)
        Time since the initial state, the first column of X.
    y_true, y_pred, sample_weight
        As in :func:`mse`.
    bins : int or array-like of increasing edges, default=5
        Number of bins of equal width between the smallest and largest t, or their edges. A bin holds its left
        edge, the last bin both.
    scale : array-like of shape (d,) or scalar, default=None
        As in :func:`nrmse`; the default is taken over all rows, so that bins can be compared.

    Returns
    -------
    HorizonErrors
        ``edges`` (n_bins + 1,), ``nrmse`` (n_bins,), ``nan`` for an empty bin, and ``n_entries`` (n_bins,)
        observed in each.

    Examples
    --------
    >>> from skode.metrics import nrmse_by_horizon
    >>> found = nrmse_by_horizon([0.0, 1.0, 2.0], [0.0, 0.0, 0.0], [0.0, 2.0, 2.0], bins=2, scale=1.0)
    >>> found.nrmse
    array([0., 2.])
    """
    data = observe(y_true, y_pred, sample_weight)
    times = one_per_row(t, data.values.shape[0], "t")
    edges = _edges(times, bins)
    common = scale_of(data, scale)
    place = np.searchsorted(edges, times, side="right") - 1
    place[times == edges[-1]] = edges.size - 2
    parts = [Observed(*(part[place == k] for part in data)) for k in range(edges.size - 1)]
    return HorizonErrors(
        edges=edges,
        nrmse=np.array([root_normalised_mse(part, common) for part in parts]),
        n_entries=np.array([np.count_nonzero(part.weights) for part in parts], dtype=np.int64),
    )


def valid_prediction_time(
    t: ArrayLike,
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    trajectory: ArrayLike | None = None,
    threshold: float = 0.4,
    period: float = 1.0,
    scale: ArrayLike | None = None,
) -> FloatArray:
    """Time at which each trajectory's forecast error first exceeds a threshold, in periods.

    The error at a time is sqrt( mean over observed variables of (y_j - p_j)^2 / sd_j^2 ). A forecast that
    never exceeds the threshold gets its last observed time, a lower bound.

    Parameters
    ----------
    t : array-like of shape (n_rows,)
        Time since the initial state, in any order.
    y_true, y_pred
        As in :func:`mse`.
    trajectory : array-like of shape (n_rows,), default=None
        Label of each row's trajectory; None takes all rows as one.
    threshold : float, default=0.4
        Error that ends the valid time, in standard deviations.
    period : float, default=1.0
        Unit of the answer, in units of t: a period or a Lyapunov time of the system.
    scale : array-like of shape (d,) or scalar, default=None
        As in :func:`nrmse`; the default is taken over all trajectories together.

    Returns
    -------
    ndarray of shape (n_trajectories,)
        In the order of the sorted labels; ``nan`` for a trajectory without any observation.

    Examples
    --------
    >>> from skode.metrics import valid_prediction_time
    >>> valid_prediction_time([0.0, 1.0, 2.0], [0.0, 0.0, 0.0], [0.0, 0.3, 0.6], period=0.5, scale=1.0)
    array([4.])
    """
    if not (threshold > 0 and period > 0):
        raise ValueError(f"threshold and period must be > 0; got {threshold} and {period}. Pass positive numbers.")
    data = observe(y_true, y_pred, None)
    n_rows = data.values.shape[0]
    times = one_per_row(t, n_rows, "t")
    common = scale_of(data, scale)
    counted = (data.weights > 0) & (common > 0)
    ratio = np.divide(data.errors, common, out=np.zeros_like(data.errors), where=counted)
    n_counted = counted.sum(axis=1)
    seen = n_counted > 0
    error = np.sqrt(np.sum(ratio**2, axis=1) / np.maximum(n_counted, 1))
    labels = np.zeros(n_rows, dtype=int) if trajectory is None else np.asarray(trajectory)
    if labels.shape != (n_rows,):
        raise ValueError(
            f"trajectory must hold one label per row, {n_rows}; got shape {labels.shape}. Pass groups of the same rows."
        )
    valid = []
    for label in np.unique(labels):
        rows = (labels == label) & seen
        late = times[rows & (error > threshold)]
        end = late.min(initial=np.inf) if late.size else times[rows].max(initial=-np.inf)
        valid.append(end / period if rows.any() else np.nan)
    return np.array(valid, dtype=np.float64)


def _edges(times: FloatArray, bins: int | ArrayLike) -> FloatArray:
    given = np.asarray(bins)
    edges = given.astype(np.float64) if given.ndim else np.linspace(times.min(), times.max(), int(given) + 1)
    if edges.size < 2 or not (np.diff(edges) > 0).all():
        raise ValueError(
            f"bins must be a number >= 1 of bins over times that differ, or increasing edges; got {bins!r} "
            f"for t from {times.min()} to {times.max()}. Pass edges such as [0, 1, 2]."
        )
    return edges
