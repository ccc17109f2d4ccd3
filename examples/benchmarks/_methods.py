"""The methods of the recovery benchmark: a data set and a seed in, a ranking, a graph and forecasts out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from _answers import Answer, Field, Method, Simulator, fold, runge_kutta, with_forecasts
from _baselines import mean_trajectory, persistence, start_or_mean, training_mean
from _published import fit_published
from _regressions import correlation, lasso, ridge, trees
from _sets import BenchmarkSet
from _sindy import pysindy, sindy_integral

from skode import SparseNODERegressor, SparseNODERegressorCV, StabilitySelection, from_trajectories

Build = Callable[[int, int], Any]
"""Order and seed give an estimator that is not fitted."""


def estimator(kind: Callable[..., Any], options: dict[str, Any], order: int, seed: int) -> Any:
    """An estimator of skode; what is not in ``options`` is the default."""
    return kind(order=order, random_state=seed, **options)


def stability(kind: Callable[..., Any], n_pairs: int, order: int, seed: int) -> Any:
    """Stability selection around an estimator with default settings."""
    return StabilitySelection(kind(order=order, random_state=seed), n_pairs=n_pairs, random_state=seed)


def fit_skode(build: Build, data: BenchmarkSet, seed: int) -> Answer:
    """Fit an estimator of skode. ``confidence_`` is kept where it has one."""
    torch.set_num_threads(1)
    X, y, groups = from_trajectories(data.states, data.times, data.inputs, data.velocities)
    groups = groups if data.groups is None else data.groups[groups]
    model = build(data.order, seed)
    model.fit(X, y, groups=groups, steady_states=data.steady)
    d = len(data.truth)
    confidence = getattr(model, "confidence_", None)
    answer = Answer(
        model.dependency_scores_[:, :d],
        model.dependency_matrix_[:, :d],
        confidence=None if confidence is None else confidence[:, :d],
    )
    inside = getattr(model, "estimator_", model)  # stability selection forecasts with the fit to all data
    return with_forecasts(answer, data, own_or_clamped(model.simulate, inside.predict_derivative, data))


def own_or_clamped(own: Callable[..., np.ndarray], field: Field, data: BenchmarkSet) -> Simulator:
    """The method's own solver, and RK4 on its field where states are clamped."""
    clamping = runge_kutta(field, data)

    def simulator(start: np.ndarray, times: np.ndarray, clamped: np.ndarray | None) -> np.ndarray:
        return own(start, times) if clamped is None else clamping(start, times, clamped)

    return simulator


def knockouts(data: BenchmarkSet, _: int) -> Answer:
    """How far a knock-out moves every other gene, in standard deviations of that gene over all knock-outs."""
    if data.steady is None:
        return Answer()
    d = len(data.truth)
    moved = np.asarray(data.steady.states)[:d].T  # (gene, knock-out): the first d rows are the knock-outs
    return Answer(np.abs(moved - np.median(moved, axis=1, keepdims=True)) / moved.std(axis=1, keepdims=True))


def published(n_iter: int, data: BenchmarkSet, seed: int) -> Answer:
    """PathReg as its authors' notebook trains it; see ``_published.py``."""
    first = data.as_first_order()
    model = fit_published(first.states, first.times, n_iter=n_iter, seed=seed)
    d = len(data.truth)
    answer = Answer(fold(model.scores, d), fold(model.open_paths, d))
    return with_forecasts(answer, data, own_or_clamped(model.simulate, model.derivative, data))


def trivial(forecaster: Callable[[Any], np.ndarray], data: BenchmarkSet, _: int) -> Answer:
    """Forecasts without a model: a knock-out moves nothing but the gene itself."""
    if data.test is None:
        return Answer()
    answer = Answer(forecast=np.asarray(forecaster(data)))
    if data.probes is None:
        return answer
    unseen = replace(data, test=data.probes.unseen, test_times=data.probes.times)
    return answer._replace(unseen=np.asarray(forecaster(unseen)), effect=np.zeros_like(data.probes.control))


def make_methods(published_iterations: int) -> dict[str, Method]:
    """All methods by name, in the order of the tables."""
    plain, cv = SparseNODERegressor, SparseNODERegressorCV
    methods: dict[str, Method] = {
        "skode": partial(fit_skode, partial(estimator, plain, {})),
        "skode-cv": partial(fit_skode, partial(estimator, cv, {})),
        "skode-stability": partial(fit_skode, partial(stability, plain, 10)),
        "skode-stability-cv": partial(fit_skode, partial(stability, cv, 6)),
        "skode-dense": partial(fit_skode, partial(estimator, plain, {"penalty": None})),
    }
    for penalty in ("l1", "l0", "pathreg", "lassonet"):
        methods[f"skode-{penalty}"] = partial(fit_skode, partial(estimator, plain, {"penalty": penalty}))
    for penalty in ("l1", "l0", "pathreg"):
        options = {"penalty": penalty, "field": "shared", "training": "trajectory"}
        methods[f"skode-{penalty}-trajectory"] = partial(fit_skode, partial(estimator, plain, options))
    return methods | {
        "pathreg-published": partial(published, published_iterations),
        "pysindy": pysindy,
        "sindy-integral": sindy_integral,
        "ridge": partial(ridge, False),
        "ridge-integral": partial(ridge, True),
        "lasso": partial(lasso, False),
        "lasso-integral": partial(lasso, True),
        "trees": trees,
        "correlation": correlation,
        "knockout-z": knockouts,
        "persistence": partial(trivial, persistence),
        "training-mean": partial(trivial, training_mean),
        "start-or-mean": partial(trivial, start_or_mean),
        "smoothed-mean": partial(trivial, mean_trajectory),
    }


ALWAYS = ("ridge", "persistence", "training-mean", "start-or-mean", "smoothed-mean")
"""Printed whatever is asked for."""
