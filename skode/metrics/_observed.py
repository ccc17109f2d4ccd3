"""What the forecast errors share: the observed entries, their errors, and means over rows and variables."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from skode._typing import AnyArray, BoolArray, FloatArray


class Observed(NamedTuple):
    """Truth and error where something was observed; zeros elsewhere, told apart by the weight."""

    values: FloatArray  # (sample, feature)
    errors: FloatArray  # (sample, feature)
    weights: FloatArray  # (sample, feature), 0 where not observed


def squared_error(data: Observed) -> FloatArray:  # (feature,)
    """Return each variable's mean squared error, nan where nothing was observed."""
    return _weighted_mean(data.errors**2, data.weights)


def root_normalised_mse(data: Observed, scale: FloatArray) -> float:
    """Return the root of :func:`normalised_mse`."""
    return float(np.sqrt(normalised_mse(data, scale)))


def normalised_mse(data: Observed, scale: FloatArray) -> float:
    """Return the mean over variables of the squared error in units of the scale, skipping scale 0."""
    moves = scale > 0
    return mean_over_variables(squared_error(data)[moves] / scale[moves] ** 2)


def scale_of(data: Observed, scale: ArrayLike | None) -> FloatArray:  # (feature,)
    """Return the given standard deviations or those of the truth, 0 where a variable never moves."""
    if scale is not None:
        given = one_per_variable(scale, data.values.shape[1], "scale")
        if not (np.isfinite(given) & (given >= 0)).all():
            raise ValueError("scale must be finite and >= 0; got other values. Pass standard deviations.")
        return given
    spread = np.sqrt(_weighted_mean(centred(data) ** 2, data.weights))
    rounding = 16 * np.finfo(np.float64).eps * np.abs(data.values).max(axis=0, initial=0.0)
    own: FloatArray = np.where(np.isfinite(spread) & (spread > rounding), spread, 0.0)
    return own


def centred(data: Observed) -> FloatArray:  # (sample, feature)
    """Return the observed values less each variable's weighted mean."""
    return data.values - _weighted_mean(data.values, data.weights)


def _weighted_mean(values: FloatArray, weights: FloatArray) -> FloatArray:  # (feature,)
    """Return each variable's mean over its observed rows, nan where there are none."""
    total = weights.sum(axis=0)
    summed = np.sum(weights * values, axis=0)
    mean: FloatArray = np.divide(summed, total, out=np.full_like(total, np.nan), where=total > 0)
    return mean


def mean_over_variables(per_variable: FloatArray) -> float:
    """Return the mean over the variables that have a figure."""
    known = per_variable[~np.isnan(per_variable)]
    return float(known.mean()) if known.size else float("nan")


def observe(y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None) -> Observed:
    """Check a truth and an answer of the same rows and form the errors where something was observed."""
    truth, answer = two_axes(y_true, "y_true"), two_axes(y_pred, "y_pred")
    if truth.shape != answer.shape:
        raise ValueError(
            f"y_pred must have the shape of y_true, {truth.shape}; got {answer.shape}. Predict the same rows."
        )
    if np.isinf(truth).any():
        raise ValueError("y_true must not hold inf; got inf. Mark what was not observed by NaN.")
    if np.isnan(answer).any():
        raise ValueError("y_pred must not hold NaN; got NaN. Replace a forecast that failed by inf, or by a fallback.")
    n_rows = truth.shape[0]
    rows = np.ones(n_rows) if sample_weight is None else one_per_row(sample_weight, n_rows, "sample_weight")
    if (rows < 0).any():
        raise ValueError("sample_weight must be >= 0; got negative weights. Give rows to leave out the weight 0.")
    seen: BoolArray = ~np.isnan(truth) & (rows > 0)[:, None]
    return Observed(
        values=np.where(seen, truth, 0.0),
        errors=np.subtract(truth, answer, out=np.zeros_like(truth), where=seen),
        weights=np.where(seen, rows[:, None], 0.0),
    )


def two_axes(values: ArrayLike, name: str) -> FloatArray:
    """Return the values as (n_rows, d)."""
    array: AnyArray = np.asarray(values, dtype=np.float64)
    if array.ndim not in (1, 2) or array.shape[0] == 0:
        raise ValueError(
            f"{name} must have shape (n_rows, d) or (n_rows,) with at least one row; got {array.shape}. "
            "Stack the trajectories' rows."
        )
    return array[:, None] if array.ndim == 1 else array


def one_per_row(values: ArrayLike, n_rows: int, name: str) -> FloatArray:
    """Return a vector of one finite number per row."""
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (n_rows,) or not np.isfinite(array).all():
        raise ValueError(
            f"{name} must hold one finite number per row, {n_rows}; got shape {array.shape}. Pass the values "
            "of the same rows."
        )
    return array


def one_per_variable(values: ArrayLike, n_variables: int, name: str) -> FloatArray:
    """Return a vector of one number per variable."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim > 1 or array.size not in (1, n_variables):
        raise ValueError(
            f"{name} must be one number or one per variable, {n_variables}; got shape {array.shape}. Pass an "
            "array of shape (d,)."
        )
    return np.broadcast_to(array, (n_variables,)).copy()
