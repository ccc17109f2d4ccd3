"""Additive fields: the road for many variables, on systems small enough for a test."""

from __future__ import annotations

import pickle

import networkx as nx
import numpy as np
import pytest

from skode import (
    PriorKnowledge,
    SparseNODERegressor,
    SparseNODERegressorCV,
    StabilitySelection,
    _typing,
    from_trajectories,
)
from skode.datasets import make_hill_network
from skode.fields import PackedField
from skode.metrics import graph_scores, r2

QUICK = {"field": "additive", "random_state": 0, "device": "cpu"}


@pytest.fixture(scope="module")
def network():
    """Ten genes at six long intervals, no noise; the last ten trajectories are the test."""
    return make_hill_network(10, 60, 6, dt=1.0, n_edges=12, combine="sum", random_state=1)


@pytest.fixture(scope="module")
def table(network):
    return from_trajectories(network.states[:50], network.times[:50])


@pytest.fixture(scope="module")
def chosen(table):
    X, y, groups = table
    return SparseNODERegressorCV(**QUICK).fit(X, y, groups=groups)


def test_few_long_intervals_are_enough_for_graph_and_forecast(network, chosen):
    found = graph_scores(
        network.adjacency, scores=chosen.dependency_scores_, matrix=chosen.dependency_matrix_, self_edges=False
    )
    assert found.auroc > 0.97 and found.recall > 0.9
    test = np.array(network.clean_states[50:])
    forecast = chosen.simulate(test[:, 0], network.times[0])
    moved = ((test[:, 1:] - test[:, :1]) ** 2).mean()
    assert ((forecast - test)[:, 1:] ** 2).mean() < 0.01 * moved


def test_edges_are_more_certain_than_not_where_they_are_true(network, chosen):
    sure = chosen.confidence_
    assert sure.min() >= 0 and sure.max() <= 1
    assert not sure[chosen.dependency_matrix_ == 0].any()
    other = ~np.eye(10, dtype=bool)
    assert network.adjacency[other & (sure > 0.9)].mean() >= 0.8
    assert sure[network.adjacency].mean() > 0.8


def test_what_is_cut_has_no_path(network, chosen):
    field = chosen._fitted.field
    assert isinstance(field, PackedField)
    states = np.array(network.states[0])
    base = chosen.predict_derivative(states)
    for source in range(10):
        moved = states.copy()
        moved[:, source] += 0.37
        changed = (chosen.predict_derivative(moved) != base).any(axis=0)
        assert not changed[chosen.dependency_matrix_[:, source] == 0].any()


def test_the_same_seed_gives_the_same_fit_and_pickles_agree(table, chosen):
    X, y, groups = table
    again = SparseNODERegressorCV(**QUICK).fit(X, y, groups=groups)
    assert np.array_equal(again.dependency_matrix_, chosen.dependency_matrix_)
    assert np.array_equal(again.predict(X), chosen.predict(X))
    assert np.array_equal(pickle.loads(pickle.dumps(chosen)).predict(X), chosen.predict(X))


def test_scale_and_unit_of_time_change_nothing_but_units(table, chosen):
    X, y, groups = table
    scale = np.geomspace(0.1, 10, 10)
    scaled = X.copy()
    scaled[:, 0] *= 3.0
    scaled[:, 1:] *= scale
    other = SparseNODERegressorCV(**QUICK).fit(scaled, y * scale, groups=groups)
    assert np.array_equal(other.dependency_matrix_ > 0, chosen.dependency_matrix_ > 0)
    np.testing.assert_allclose(other.predict(scaled) / scale, chosen.predict(X), atol=1e-3)


def test_a_stronger_penalty_keeps_fewer_edges_down_to_none(table):
    X, y, groups = table
    counts = []
    for alpha in (0.01, 0.2, 100.0):
        model = SparseNODERegressor(alpha=alpha, **QUICK).fit(X, y, groups=groups)
        counts.append(int((model.dependency_matrix_[~np.eye(10, dtype=bool)] > 0).sum()))
    assert counts[0] > counts[1] > counts[2] == 0
    assert 0.2 < model.alpha_max_ < 100.0


def test_what_is_forbidden_stays_closed_and_what_is_required_open(network, table):
    X, y, groups = table
    target, source = np.argwhere(network.adjacency & ~np.eye(10, dtype=bool))[0]
    free = np.argwhere(~network.adjacency & ~np.eye(10, dtype=bool))[0]
    forbidden, required = np.zeros((10, 10), bool), np.zeros((10, 10), bool)
    forbidden[target, source] = required[free[0], free[1]] = True
    known = PriorKnowledge(forbidden=forbidden, required=required)
    model = SparseNODERegressorCV(prior=known, **QUICK).fit(X, y, groups=groups)
    assert model.dependency_matrix_[target, source] == 0 == model.dependency_scores_[target, source]
    assert model._fitted.field.parents[free[0]].count(free[1]) == 1


def test_a_ranking_in_single_precision_changes_nothing_else(table, chosen, monkeypatch):
    monkeypatch.setattr(_typing, "MANY_PAIRS", 99)
    X, y, groups = table
    single = SparseNODERegressorCV(**QUICK).fit(X, y, groups=groups)
    assert single.dependency_scores_.dtype == np.float32 and chosen.dependency_scores_.dtype == np.float64
    np.testing.assert_allclose(single.dependency_scores_, chosen.dependency_scores_, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(single.dependency_matrix_, chosen.dependency_matrix_)
    np.testing.assert_array_equal(single.predict(X), chosen.predict(X))


def test_a_number_of_edges_is_met_as_the_path_allows(table, chosen):
    X, y, groups = table
    asked = chosen.path_[5]["n_edges"]
    model = SparseNODERegressorCV(selection=int(asked), **QUICK).fit(X, y, groups=groups)
    other = ~np.eye(10, dtype=bool)
    kept = (model.dependency_matrix_ > 0) & other
    level = next(one for one in chosen.path_ if one["n_edges"] == asked)
    assert np.array_equal(kept, (level["dependency_matrix"] > 0) & other)


def test_gaps_and_unequal_weights_are_taken(network, table):
    X, y, groups = table
    holes = np.random.default_rng(0).random(y.shape) < 0.1
    weight = np.where(groups < 25, 1.0, 3.0)
    gaps = np.where(holes & (X[:, :1] > 0), np.nan, y)
    model = SparseNODERegressorCV(**QUICK).fit(X, gaps, groups=groups, sample_weight=weight)
    assert np.isfinite(model.predict(X)).all() and r2(y, model.predict(X)) > 0.9
    truth = graph_scores(network.adjacency, scores=model.dependency_scores_, self_edges=False)
    assert truth.auroc > 0.9


def test_auto_is_additive_from_64_sources_on():
    big = make_hill_network(64, 30, 5, dt=1.0, random_state=0)
    X, y, groups = from_trajectories(big.states, big.times)
    model = SparseNODERegressorCV(random_state=0).fit(X, y, groups=groups)
    assert isinstance(model._fitted.field, PackedField)
    assert nx.number_of_nodes(model.get_dependency_graph()) == 64
    small = SparseNODERegressor(max_iter=20, tol=1, random_state=0).fit(X[:, :4], y[:, :3], groups=groups)
    assert not isinstance(small._fitted.field, PackedField)


def test_one_trajectory_and_half_samples_work(table):
    X, y, groups = table
    one = groups == 0
    model = SparseNODERegressor(**QUICK).fit(X[one], y[one])
    assert np.isfinite(model.predict(X[one])).all()
    stable = StabilitySelection(SparseNODERegressor(**QUICK), n_pairs=2, random_state=0).fit(X, y, groups=groups)
    assert stable.confidence_.shape == (10, 10)
