"""The methods of the recovery benchmark: a data set and a seed in, a ranking, a graph and a forecast out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from _baselines import mean_trajectory, persistence, training_mean
from _published import fit_published
from _sets import BenchmarkSet
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.linear_model import LassoCV

from skode import SparseNODERegressor, SparseNODERegressorCV, from_trajectories


class Answer(NamedTuple):
    """What a method says; None where it has no say."""

    scores: np.ndarray | None = None  # (d, d) dense ranking, target by source
    matrix: np.ndarray | None = None  # (d, d) zero where it sees no edge
    forecast: np.ndarray | None = None  # (trajectory, time, d)


Method = Callable[[BenchmarkSet, int], Answer]


def fit_skode(estimator: Any, options: dict[str, Any], data: BenchmarkSet, seed: int) -> Answer:
    """An estimator of skode; what is not in ``options`` is the default."""
    torch.set_num_threads(1)
    X, y, groups = from_trajectories(data.states, data.times, data.inputs, data.velocities)
    groups = groups if data.groups is None else data.groups[groups]
    model = estimator(order=data.order, random_state=seed, **options)
    model.fit(X, y, groups=groups, steady_states=data.steady)
    forecast = None
    if data.test is not None:
        start = data.test[:, 0]
        start = start if data.order == 1 else np.hstack([start, data.test_velocities[:, 0]])
        forecast = model.simulate(start, data.test_times)
    d = len(data.truth)
    return Answer(model.dependency_scores_[:, :d], model.dependency_matrix_[:, :d], forecast)


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
    first = data.as_first_order()
    rows = changes(first, middle=middle)
    b = np.linalg.solve(rows.z.T @ rows.z + np.eye(rows.z.shape[1]), rows.z.T @ rows.slope).T
    return _linear(data, rows, b, sparse=False)


def lasso(data: BenchmarkSet, seed: int) -> Answer:
    """LassoCV per target on integrals of states."""
    rows = changes(data.as_first_order(), middle=True)
    b = np.zeros((rows.slope.shape[1], rows.z.shape[1]))
    for i in np.flatnonzero(rows.slope_sd > 1e-9):
        b[i] = LassoCV(cv=5, alphas=30, max_iter=3000).fit(rows.z, rows.slope[:, i]).coef_
    return _linear(data, rows, b, sparse=True)


def _linear(data: BenchmarkSet, rows: Changes, b: np.ndarray, *, sparse: bool) -> Answer:
    """A linear field in standard units as an answer."""
    d, s = len(data.truth), rows.slope.shape[1]
    scores = fold(np.abs(b[:, :s]), d)

    def field(x: np.ndarray) -> np.ndarray:
        z = (x - rows.mean) / np.where(rows.sd > 0, rows.sd, 1.0)
        return rows.slope_mean + rows.slope_sd * (z @ b[:, :s].T)

    return Answer(scores, scores if sparse else None, simulate(field, data))


def fold(scores: np.ndarray, d: int) -> np.ndarray:
    """Score of variables from that of positions and velocities, where there are both; rows are accelerations."""
    if len(scores) == d:
        return scores
    return np.hypot(scores[d:, :d], scores[d:, d:])


def simulate(field: Callable[[np.ndarray], np.ndarray], data: BenchmarkSet, n_sub: int = 10) -> np.ndarray | None:
    """Forecast by RK4 from the true starts, held inside ten times the training range.  # (trajectory, time, d)"""
    first = data.as_first_order()
    if first.test is None or data.inputs is not None:
        return None
    every = np.concatenate(first.states)
    limit = 10 * np.abs(every).max(0)
    x, out = first.test[:, 0].copy(), [first.test[:, 0]]
    for interval in np.diff(first.test_times):
        h = interval / n_sub
        for _ in range(n_sub):
            k1 = field(x)
            k2 = field(x + h / 2 * k1)
            k3 = field(x + h / 2 * k2)
            k4 = field(x + h * k3)
            x = np.clip(np.nan_to_num(x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)), -limit, limit)
        out.append(x.copy())
    return np.stack(out, axis=1)[..., : len(data.truth)]


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


def knockouts(data: BenchmarkSet, _: int) -> Answer:
    """How far a knock-out moves every other gene, in standard deviations of that gene over all knock-outs."""
    if data.steady is None:
        return Answer()
    d = len(data.truth)
    moved = np.asarray(data.steady.states)[:d].T  # (gene, knock-out): the first d rows are the knock-outs
    return Answer(np.abs(moved - np.median(moved, axis=1, keepdims=True)) / moved.std(axis=1, keepdims=True))


def pysindy(data: BenchmarkSet, _: int) -> Answer:
    """PySINDy with its defaults: quadratic library, finite differences, thresholded least squares."""
    import pysindy as ps

    first = data.as_first_order()
    model = ps.SINDy()
    u = None
    if data.inputs is not None:
        u = [np.repeat(row[None], len(s), axis=0) for row, s in zip(data.inputs, first.states, strict=True)]
    model.fit(first.states, t=first.times, u=u)
    coefficients = np.asarray(model.coefficients())  # (target, term)
    powers = np.asarray(model.feature_library.powers_)  # (term, variable)
    s = first.states[0].shape[1]

    def terms(x: np.ndarray) -> np.ndarray:
        return np.prod(x[..., None, :] ** powers[:, : x.shape[-1]], axis=-1)

    spread = terms(np.concatenate(first.states) if u is None else _beside(first.states, u)).std(0)
    unit = changes(first, middle=False).slope_sd[:, None]
    weight = np.abs(coefficients) * spread / np.where(unit > 0, unit, 1.0)
    scores = fold((weight[:, :, None] * (powers > 0)).max(1)[:, :s], len(data.truth))
    return Answer(scores, scores, simulate(lambda x: terms(x) @ coefficients.T, data))


def _beside(states: list[np.ndarray], inputs: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.hstack(pair) for pair in zip(states, inputs, strict=True)])


def published(n_iter: int, data: BenchmarkSet, seed: int) -> Answer:
    """PathReg as its authors' notebook trains it; see ``_published.py``."""
    first = data.as_first_order()
    model = fit_published(first.states, first.times, n_iter=n_iter, seed=seed)
    scores = fold(model.scores, len(data.truth))
    forecast = None
    if first.test is not None and data.inputs is None:
        forecast = model.simulate(first.test[:, 0], first.test_times)[..., : len(data.truth)]
    return Answer(scores, fold(model.open_paths, len(data.truth)), forecast)


def trivial(forecaster: Callable[[Any], np.ndarray], data: BenchmarkSet, _: int) -> Answer:
    """A forecast without a model."""
    return Answer(forecast=None if data.test is None else np.asarray(forecaster(data)))


def make_methods(published_iterations: int) -> dict[str, Method]:
    """All methods by name, in the order of the tables."""
    plain, cv = SparseNODERegressor, SparseNODERegressorCV
    methods: dict[str, Method] = {
        "skode": partial(fit_skode, plain, {}),
        "skode-cv": partial(fit_skode, cv, {}),
        "skode-dense": partial(fit_skode, plain, {"penalty": None}),
    }
    for penalty in ("l1", "l0", "pathreg", "lassonet"):
        methods[f"skode-{penalty}"] = partial(fit_skode, plain, {"penalty": penalty})
    for penalty in ("l1", "l0", "pathreg"):
        options = {"penalty": penalty, "field": "shared", "training": "trajectory"}
        methods[f"skode-{penalty}-trajectory"] = partial(fit_skode, plain, options)
    methods |= {
        "pathreg-published": partial(published, published_iterations),
        "pysindy": pysindy,
        "ridge": partial(ridge, False),
        "ridge-integral": partial(ridge, True),
        "lasso-integral": lasso,
        "trees": trees,
        "correlation": correlation,
        "knockout-z": knockouts,
        "persistence": partial(trivial, persistence),
        "training-mean": partial(trivial, training_mean),
        "smoothed-mean": partial(trivial, mean_trajectory),
    }
    return methods


ALWAYS = ("ridge", "persistence", "training-mean", "smoothed-mean")
"""Printed whatever is asked for."""
