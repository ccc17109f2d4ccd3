"""Scorers for scikit-learn's searches and cross-validation that know what a row of trajectory data means.

A scorer is called as ``scorer(estimator, X, y, sample_weight=None)`` with X = [t | x0 | ...] and y = x(t).
Rows with t = 0 and y = x0 (anchors) are answered right by every model and are left out; NaN in y is an entry
that was not observed. scikit-learn's own scorers know neither and refuse NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.utils.metadata_routing import MetadataRequest

from skode._typing import AnyArray, BoolArray, FloatArray
from skode.metrics.forecast import nrmse, persistence_skill, r2

__all__ = ["ForecastScorer", "neg_nrmse_scorer", "persistence_skill_scorer", "r2_scorer"]

_Metric = Callable[[FloatArray, FloatArray, FloatArray | None, FloatArray | None], float]


@dataclass(frozen=True)
class ForecastScorer:
    """A score of forecasts, larger is better, for ``scoring=`` in scikit-learn.

    Use the ready ones: ``neg_nrmse_scorer``, ``persistence_skill_scorer``, ``r2_scorer``. They pickle, and
    under scikit-learn's metadata routing take weights after ``set_score_request(sample_weight=True)``.

    Parameters
    ----------
    metric : callable (y_true, y_pred, initial, sample_weight) -> float
        A module-level function; ``initial`` is None where X has no initial states (time only).
    sample_weight : bool, str or None, default=None
        scikit-learn's request for weights when scoring; set it by ``set_score_request``.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LinearRegression
    >>> from skode.scoring import r2_scorer
    >>> X = np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0], [3.0, 1.0]])  # t and x0
    >>> y = np.array([1.0, 2.0, np.nan, 4.0])
    >>> model = LinearRegression().fit(X[[0, 1, 3]], y[[0, 1, 3]])
    >>> round(r2_scorer(model, X, y), 6)
    1.0
    """

    metric: _Metric
    sample_weight: bool | str | None = None

    def __call__(self, estimator: Any, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Score ``estimator.predict(X)`` against y on the rows that ask something.

        Parameters
        ----------
        estimator : fitted estimator with ``predict``
        X : array-like or DataFrame of shape (n_rows, 1 + d + m), or (n_rows, 1)
        y : array-like or DataFrame of shape (n_rows, d) or (n_rows,)
        sample_weight : array-like of shape (n_rows,), default=None

        Returns
        -------
        float

        Raises
        ------
        ValueError
            If every row is an anchor, or widths do not fit.
        """
        truth = _two_axes(y)
        initial = _initial(X, truth.shape[1])
        asks = ~_anchors(X, truth, initial)
        if not asks.any():
            raise ValueError(
                f"A score needs rows that ask for a later state; got {truth.shape[0]} rows, all with t = 0 "
                "and y = x0. Split by groups, so that whole trajectories are held out."
            )
        answer = _two_axes(estimator.predict(X))
        weights = None if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)[asks]
        start = None if initial is None else initial[asks]
        return self.metric(truth[asks], answer[asks], start, weights)

    def set_score_request(self, *, sample_weight: bool | str | None) -> ForecastScorer:
        """Return a copy that asks for ``sample_weight`` under scikit-learn's metadata routing.

        Parameters
        ----------
        sample_weight : bool, str or None
            True takes the metadata ``sample_weight``, a string takes the metadata of that name, False ignores
            it, None makes scikit-learn raise when weights are given.
        """
        return replace(self, sample_weight=sample_weight)

    def get_metadata_routing(self) -> Any:
        """Return the metadata request that scikit-learn's searches read."""
        request = MetadataRequest(owner=self)
        request.score.add_request(param="sample_weight", alias=self.sample_weight)
        return request


def _neg_nrmse(truth: FloatArray, answer: FloatArray, initial: FloatArray | None, weights: FloatArray | None) -> float:
    return -nrmse(truth, answer, sample_weight=weights)


def _r2(truth: FloatArray, answer: FloatArray, initial: FloatArray | None, weights: FloatArray | None) -> float:
    return r2(truth, answer, sample_weight=weights)


def _persistence_skill(
    truth: FloatArray, answer: FloatArray, initial: FloatArray | None, weights: FloatArray | None
) -> float:
    if initial is None:
        raise ValueError(
            "Skill against persistence needs the initial states in columns 1 to d of X; got X with time "
            "only. Score with neg_nrmse_scorer, or build X with from_trajectories."
        )
    return persistence_skill(truth, answer, initial, sample_weight=weights)


def _two_axes(values: Any) -> FloatArray:
    array: AnyArray = np.asarray(values, dtype=np.float64)
    return array[:, None] if array.ndim == 1 else array


def _initial(X: Any, n_states: int) -> FloatArray | None:  # (n_rows, d)
    columns = np.asarray(X, dtype=np.float64)
    if columns.shape[1] == 1:
        return None
    if columns.shape[1] < 1 + n_states:
        raise ValueError(
            f"X must have at least 1 + d = {1 + n_states} columns for d = {n_states} states, or time only; "
            f"got {columns.shape[1]}. Build X with from_trajectories."
        )
    return columns[:, 1 : 1 + n_states]


def _anchors(X: Any, truth: FloatArray, initial: FloatArray | None) -> BoolArray:  # (n_rows,)
    if initial is None:
        return np.zeros(truth.shape[0], dtype=bool)
    at_start: BoolArray = np.asarray(X, dtype=np.float64)[:, 0] == 0
    unchanged = ((truth == initial) | np.isnan(truth)).all(axis=1)
    anchors: BoolArray = at_start & unchanged
    return anchors


neg_nrmse_scorer = ForecastScorer(_neg_nrmse)
persistence_skill_scorer = ForecastScorer(_persistence_skill)
r2_scorer = ForecastScorer(_r2)
