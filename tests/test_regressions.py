"""Faults that a reader found once, each as the claim it broke."""

from __future__ import annotations

import numpy as np
import pytest

from skode import SparseNODERegressor, SparseNODERegressorCV, from_trajectories
from skode._folds import make_folds
from skode._layout import Layout
from skode._prepare import prepare
from skode._trajectories import as_trajectories

QUICK = {"max_iter": 60, "tol": 1.0, "random_state": 0}


def rotation(n_trajectories=2, n_times=16, noise=0.05, seed=0):
    """Damped rotations from random starts."""
    rng = np.random.default_rng(seed)
    times = np.linspace(0.0, 6.0, n_times)
    states = []
    for _ in range(n_trajectories):
        phase, size = rng.uniform(0, 6), rng.uniform(0.5, 1.5)
        wave = size * np.exp(-0.1 * times)[:, None] * np.stack([np.cos(times + phase), -np.sin(times + phase)], 1)
        states.append(wave + noise * rng.normal(size=wave.shape))
    return states, times


def test_a_test_fold_takes_what_moves_from_its_training_part():
    X, y, groups = from_trajectories(*rotation())
    whole = as_trajectories(X, y, layout=Layout.infer(3, 2), groups=groups)
    for train, test in make_folds(whole, 4).parts:
        scales = prepare(train, order=1, time_dependent=False).scales
        held = prepare(test, order=1, time_dependent=False, scales=scales)
        assert (np.abs(held.slopes[:, scales.moving]).max(axis=0) > 0).all()


@pytest.mark.parametrize("scale", [1e-40, 1e-12, 1e300])
def test_only_ratios_of_weights_matter(scale):
    X, y, groups = from_trajectories(*rotation(6))
    plain = SparseNODERegressor(**QUICK).fit(X, y, groups=groups).predict(X)
    weighted = SparseNODERegressor(**QUICK).fit(X, y, np.full(len(X), scale), groups=groups).predict(X)
    assert np.allclose(plain, weighted, atol=1e-4)


def test_a_tiny_weight_is_no_fault():
    X, y, groups = from_trajectories(*rotation(6))
    weights = np.where(np.random.default_rng(0).random(len(X)) < 0.3, 1e-13, 1.0)
    assert np.isfinite(SparseNODERegressor(**QUICK).fit(X, y, weights, groups=groups).predict(X)).all()


@pytest.mark.parametrize("method", ["euler", "midpoint", "explicit_adams", "dopri5"])
def test_no_row_changes_the_steps_of_another(method):
    X, y, groups = from_trajectories(*rotation(6))
    model = SparseNODERegressor(method="rk4", **QUICK).fit(X, y, groups=groups)
    object.__setattr__(model._fitted, "method", method)
    later = X[[3]].copy()
    later[0, 0] = 7.77
    alone, beside = model.predict(X[:8]), model.predict(np.vstack([X[:8], later]))[:8]
    assert np.allclose(alone, beside, atol=1e-7)


def test_one_long_gap_costs_no_accuracy_elsewhere():
    rng = np.random.default_rng(0)
    times = np.append(np.arange(20.0), 3000.0)
    states = [np.exp(-0.2 * times)[:, None] * start + 1.0 for start in rng.normal(size=(6, 2))]
    X, y, groups = from_trajectories(states, times)
    near = X[:, 0] < 100
    gapped = SparseNODERegressor(max_iter=300, tol=1, random_state=0).fit(X, y, groups=groups)
    plain = SparseNODERegressor(max_iter=300, tol=1, random_state=0).fit(X[near], y[near], groups=groups[near])
    assert gapped.score(X[near], y[near]) > plain.score(X[near], y[near]) - 0.05


def test_the_path_is_empty_from_alpha_max_on():
    X, y, groups = from_trajectories(*rotation(8))
    options = {"cv": 2, **QUICK}
    top = SparseNODERegressorCV(alphas=[0.5, 0.01], **options).fit(X, y, groups=groups).alpha_max_
    path = SparseNODERegressorCV(alphas=[1.2 * top, 1.0001 * top, 0.01], **options).fit(X, y, groups=groups).path_
    assert [level["n_edges"] for level in path[:2]] == [0, 0] and path[2]["n_edges"] > 0


def test_a_constant_position_stays_whatever_velocity_is_given():
    rng = np.random.default_rng(0)
    times = np.linspace(0.0, 4.0, 20)
    states, velocities = [], []
    for k in range(6):
        phase = rng.uniform(0, 6)
        states.append(np.stack([np.cos(times + phase), np.full(20, float(k))], 1))
        velocities.append(np.stack([-np.sin(times + phase), rng.normal(0, 0.1, 20)], 1))
    X, y, groups = from_trajectories(states, times, velocities=velocities)
    model = SparseNODERegressor(order=2, **QUICK).fit(X, y, groups=groups)
    assert np.allclose(model.predict(X)[:, 1], y[:, 1])


def test_later_rows_of_one_series_start_at_a_later_clock():
    X, y = np.linspace(3.0, 6.0, 7)[:, None], np.arange(7.0)[:, None]
    part = as_trajectories(X, y, layout=Layout.infer(1, 1))
    assert part.times[0] == 0.0 and part.origin.tolist() == [3.0]


def test_nothing_observed_after_the_start_is_refused_in_words():
    X, y, groups = from_trajectories(*rotation())
    y[X[:, 0] > 0] = np.nan
    with pytest.raises(ValueError, match="no dynamics"):
        SparseNODERegressor(**QUICK).fit(X, y, groups=groups)


def test_a_large_offset_hides_no_motion():
    X, y, groups = from_trajectories([s + 1e9 for s in rotation(6, noise=0.0)[0]], rotation(6)[1])
    model = SparseNODERegressor(max_iter=300, tol=1, random_state=0).fit(X, y, groups=groups)
    assert model._fitted.scales.moving.all() and model.score(X, y) > 0.8


def test_a_fold_may_hold_nothing_but_a_far_observation():
    times = np.append(np.arange(12.0), 400.0)
    rng = np.random.default_rng(0)
    states = [1.0 + np.exp(-0.3 * times)[:, None] * start for start in rng.normal(size=(6, 2))]
    X, y, groups = from_trajectories(states, times)
    far = X[:, 0] > 100
    model = SparseNODERegressorCV(alphas=[0.5, 0.01], cv=[(np.flatnonzero(~far), np.flatnonzero(far))], **QUICK)
    assert np.isfinite(model.fit(X, y, groups=groups).predict(X)).all()
