"""Regressions of slopes on states, linear or by trees: what needs no differential equation solver to be fitted."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from _answers import Answer, fold, runge_kutta, with_forecasts
from _sets import BenchmarkSet
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.linear_model import LassoCV


class Changes(NamedTuple):
    """One row per interval: standard sources, and the slope of each target."""

    z: np.ndarray  # (row, s + m) standardised sources, then inputs
    slope: np.ndarray  # (row, s) standardised
    mean: np.ndarray  # (s,)
    sd: np.ndarray
    slope_mean: np.ndarray
    slope_sd: np.ndarray


def changes(data: BenchmarkSet, *, middle: bool) -> Changes:
    """Slopes over the intervals, beside the state at their starts or (``middle``) averaged over their ends.

    The latter is the integral form with one trapezium. Steady states are left out.
    """
    left = np.concatenate([s[:-1] for s in data.states])
    right = np.concatenate([s[1:] for s in data.states])
    h = np.concatenate([np.diff(t) for t in data.times])[:, None]
    x, slope = (0.5 * (left + right) if middle else left), (right - left) / h
    mean, sd, slope_mean, slope_sd = x.mean(0), x.std(0), slope.mean(0), slope.std(0)
    z = (x - mean) / np.where(sd > 0, sd, 1.0)
    if data.inputs is not None:
        u = np.repeat(data.inputs, [len(s) - 1 for s in data.states], axis=0)
        z = np.hstack([z, u - u.mean(0)])
    return Changes(z, (slope - slope_mean) / np.where(slope_sd > 0, slope_sd, 1.0), mean, sd, slope_mean, slope_sd)


def ridge(middle: bool, data: BenchmarkSet, _: int) -> Answer:
    """Ridge regression of slopes on states (``middle``: on integrals of states)."""
    rows = changes(data.as_first_order(), middle=middle)
    b = np.linalg.solve(rows.z.T @ rows.z + np.eye(rows.z.shape[1]), rows.z.T @ rows.slope).T
    return _linear(data, rows, b, sparse=False)


def lasso(middle: bool, data: BenchmarkSet, _: int) -> Answer:
    """LassoCV per target of slopes on states (``middle``: on integrals of states)."""
    rows = changes(data.as_first_order(), middle=middle)
    b = np.zeros((rows.slope.shape[1], rows.z.shape[1]))
    for i in np.flatnonzero(rows.slope_sd > 1e-9):
        b[i] = LassoCV(cv=5, alphas=30, max_iter=3000).fit(rows.z, rows.slope[:, i]).coef_
    return _linear(data, rows, b, sparse=True)


def _linear(data: BenchmarkSet, rows: Changes, b: np.ndarray, *, sparse: bool) -> Answer:
    """A linear field in standard units as an answer."""
    s = rows.slope.shape[1]
    scores = fold(np.abs(b[:, :s]), len(data.truth))

    def field(x: np.ndarray) -> np.ndarray:
        z = (x - rows.mean) / np.where(rows.sd > 0, rows.sd, 1.0)
        return rows.slope_mean + rows.slope_sd * (z @ b[:, :s].T)

    return with_forecasts(Answer(scores, scores if sparse else None), data, runge_kutta(field, data))


def correlation(data: BenchmarkSet, _: int) -> Answer:
    """|correlation| of slopes with states."""
    rows = changes(data.as_first_order(), middle=False)
    s = rows.slope.shape[1]
    return Answer(fold(np.abs(rows.slope.T @ rows.z[:, :s]) / len(rows.z), len(data.truth)))


def trees(data: BenchmarkSet, seed: int) -> Answer:
    """Importances of extra-trees of slopes on states: the GENIE3 family."""
    rows = changes(data.as_first_order(), middle=False)
    s = rows.slope.shape[1]
    importance = np.zeros((s, rows.z.shape[1]))
    for i in np.flatnonzero(rows.slope_sd > 1e-9):
        forest = ExtraTreesRegressor(200, max_features="sqrt", min_samples_leaf=3, random_state=seed)
        importance[i] = forest.fit(rows.z, rows.slope[:, i]).feature_importances_
    return Answer(fold(importance[:, :s], len(data.truth)))
