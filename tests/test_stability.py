"""Stability selection and the path over strengths."""

from __future__ import annotations

import json
import pickle
import warnings

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from scipy.linalg import expm
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GroupKFold, cross_val_score

from skode import (
    SparseNODERegressor,
    SparseNODERegressorCV,
    StabilitySelection,
    SteadyStates,
    from_trajectories,
    regularization_path,
    stability,
)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

# x0 decays, drives x1 and is driven by nothing; x2 stands apart.
SYSTEM = np.array([[-0.5, 0.0, 0.0], [1.2, -0.8, 0.0], [0.0, 0.0, -0.3]])
TRUTH = SYSTEM != 0
TIMES = np.linspace(0.0, 4.0, 11)


def linear_states(n_trajectories, noise, seed=0):
    rng = np.random.default_rng(seed)
    starts = rng.uniform(0.5, 3.0, (n_trajectories, 3)) * rng.choice([-1.0, 1.0], (n_trajectories, 3))
    clean = np.array([[expm(SYSTEM * t) @ x for t in TIMES] for x in starts])
    return list(clean + noise * rng.standard_normal(clean.shape))


X, Y, GROUPS = from_trajectories(linear_states(8, 0.1), TIMES)
QUICK = SparseNODERegressor(alpha=0.02, max_iter=5)


def fit(estimator=QUICK, X=X, y=Y, groups=GROUPS, sample_weight=None, steady_states=None, **options):
    model = StabilitySelection(estimator, **{"n_pairs": 2, "random_state": 0, **options})
    return model.fit(X, y, groups=groups, sample_weight=sample_weight, steady_states=steady_states)


@pytest.fixture(scope="module")
def fitted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return fit(SparseNODERegressor(alpha=0.03, max_iter=200), n_pairs=3)


@pytest.fixture
def halves_seen(monkeypatch):
    """Half-samples that were fitted, and what they got."""
    seen = []
    original = stability._fit_half

    def spy(estimator, specification, trajectories, steady, seed):
        seen.append((trajectories, steady, seed))
        return original(estimator, specification, trajectories, steady, seed)

    monkeypatch.setattr(stability, "_fit_half", spy)
    return seen


def test_true_edges_are_surer_than_false_ones(fitted):
    assert fitted.n_halves_ == 6
    assert fitted.confidence_[TRUTH].min() == 1.0
    assert fitted.confidence_[TRUTH].min() > fitted.confidence_[~TRUTH].mean()
    np.testing.assert_array_equal(fitted.confidence_ * 6, np.round(fitted.confidence_ * 6))


def test_confidence_is_the_share_of_halves_that_have_the_edge(halves_seen):
    model = fit(SparseNODERegressor(alpha=0.2, max_iter=60), n_pairs=2)
    again = []
    for trajectories, _, seed in halves_seen:
        base = clone(model.estimator_)
        reading = base._read(X, Y, None, GROUPS, None)
        again.append(base._solve(reading.specification, trajectories, None, seed).matrix > 0)
    assert len(again) == 4
    np.testing.assert_allclose(model.confidence_, np.mean(again, axis=0))


def test_matrix_holds_the_edges_from_the_threshold_on(fitted):
    np.testing.assert_array_equal(fitted.dependency_matrix_ > 0, fitted.confidence_ >= fitted.threshold)
    base = fitted.estimator_.dependency_matrix_
    both = (base > 0) & (fitted.dependency_matrix_ > 0)
    np.testing.assert_array_equal(fitted.dependency_matrix_[both], base[both])


def test_an_edge_that_only_the_halves_have_gets_their_mean(monkeypatch):
    one, none = np.ones((3, 3)), np.zeros((3, 3))
    found = [stability.Dependencies(one * k, one * k, one.astype(int), True) for k in (1, 2)]
    found += [stability.Dependencies(one * 3, -one, -one.astype(int), True)]
    base = clone(QUICK).fit(X, Y)
    base.dependency_matrix_ = none
    model = StabilitySelection(QUICK)
    model._keep(base, found)
    np.testing.assert_allclose(model.dependency_matrix_, 2.0)
    edge = next(iter(model.get_dependency_graph().edges(data=True)))[2]
    assert edge == {"weight": 2.0, "effect": pytest.approx(2 / 3), "sign": 0, "confidence": 1.0}


def test_scores_rank_by_confidence_then_by_the_fit_to_all_data(fitted):
    confidence, scores = fitted.confidence_.ravel(), fitted.dependency_scores_.ravel()
    base = fitted.estimator_.dependency_scores_.ravel()
    np.testing.assert_array_equal(np.argsort(scores), np.lexsort((base, confidence)))


def test_graph_carries_confidence_in_plain_python(fitted):
    graph = fitted.get_dependency_graph()
    assert set(graph.nodes) == {"x0", "x1", "x2"}
    for source, target, edge in graph.edges(data=True):
        place = int(target[1]), int(source[1])
        assert type(edge["confidence"]) is float
        assert edge["confidence"] == fitted.confidence_[place] >= fitted.threshold
    json.dumps(nx.node_link_data(graph, edges="links"))
    list(nx.generate_graphml(graph))


def test_graph_at_another_confidence(fitted):
    sizes = [fitted.get_dependency_graph(confidence=c).number_of_edges() for c in (1e-9, 0.5, 1.0)]
    assert sizes == [(fitted.confidence_ >= c).sum() for c in (1e-9, 0.5, 1.0)]
    assert fitted.get_dependency_graph(max_edges=2).number_of_edges() == 2


def test_predictions_are_those_of_the_fit_to_all_data(fitted):
    alone = clone(fitted.estimator_).fit(X, Y, groups=GROUPS)
    np.testing.assert_array_equal(alone.predict(X), fitted.predict(X))
    assert fitted.score(X, Y) == alone.score(X, Y) > 0.9
    np.testing.assert_array_equal(fitted.simulate(X[0, 1:], TIMES), alone.simulate(X[0, 1:], TIMES))


def test_halves_never_separate_a_group_and_share_none(halves_seen):
    labels = GROUPS // 2
    fit(groups=labels, n_pairs=3)
    parts = [trajectories for trajectories, _, _ in halves_seen]
    assert len(parts) == 6
    for first, second in zip(parts[::2], parts[1::2], strict=True):
        assert not set(first.groups) & set(second.groups)
        assert first.n_trajectories == second.n_trajectories == 4


def test_one_series_is_halved_by_blocks(halves_seen):
    t = np.linspace(0, 12, 40)
    table = from_trajectories([np.column_stack([np.sin(t), np.cos(t)])], t)
    model = fit(QUICK, *table)
    assert model.confidence_.shape == (2, 2)
    for first, second in zip(halves_seen[::2], halves_seen[1::2], strict=True):
        rows = [{tuple(row) for row in half[0].states} for half in (first, second)]
        assert not rows[0] & rows[1] and all(rows)


def test_halves_start_from_weights_of_their_own(halves_seen):
    fit()
    assert len({seed for _, _, seed in halves_seen}) == 4


def test_steady_states_reach_every_half(halves_seen):
    fit(steady_states=SteadyStates(np.zeros((1, 3))))
    assert len(halves_seen) == 4
    assert all(steady is not None and not steady.states.any() for _, steady, _ in halves_seen)


def test_data_that_cannot_be_halved_are_fitted_from_several_seeds():
    with pytest.warns(UserWarning, match="needs two groups, or a series of 8 rows"):
        model = fit(QUICK, X[:4], Y[:4], GROUPS[:4])
    assert model.n_halves_ == 4


def test_row_order_weights_and_repetition_change_no_half():
    order = np.random.default_rng(0).permutation(len(X))
    zero = np.r_[np.ones(len(X)), np.zeros(3)]
    strange = np.r_[X, X[:3]], np.r_[Y, Y[:3] + 100], np.r_[GROUPS, GROUPS[:3]]
    one = fit()
    for other in (fit(QUICK, X[order], Y[order], GROUPS[order]), fit(QUICK, *strange, sample_weight=zero)):
        np.testing.assert_array_equal(one.confidence_, other.confidence_)
        np.testing.assert_array_equal(one.dependency_scores_, other.dependency_scores_)
        np.testing.assert_array_equal(one.predict(X), other.predict(X))
    twice = fit(QUICK, *(np.concatenate([part, part]) for part in (X, Y, GROUPS)))
    double = fit(sample_weight=np.full(len(X), 2.0))
    np.testing.assert_array_equal(twice.confidence_, double.confidence_)
    np.testing.assert_array_equal(twice.dependency_scores_, double.dependency_scores_)


def test_same_seed_same_confidence_also_in_several_processes():
    one, two = fit(), fit(n_jobs=2)
    np.testing.assert_array_equal(one.confidence_, two.confidence_)
    np.testing.assert_array_equal(one.dependency_matrix_, two.dependency_matrix_)


def test_the_estimator_inside_is_left_alone_and_its_seed_respected():
    base = SparseNODERegressor(max_iter=5, random_state=7)
    model = fit(base)
    assert not hasattr(base, "dependency_matrix_")
    assert model.estimator_.random_state == 7
    assert fit().estimator_.random_state is not None


def test_works_around_the_cross_validated_estimator():
    model = fit(SparseNODERegressorCV(max_iter=20, n_alphas=2, cv=GroupKFold(2)), n_pairs=1)
    assert len(model.estimator_.path_) == 2 and model.estimator_.cv_results_["fold_kind"][0] == "rows"
    assert model.n_halves_ == 2


def test_diverged_halves_do_not_count(monkeypatch):
    outcome = iter([True, False, True, True])
    matrices = iter(np.ones((3, 3)) * k for k in (1, 0, 1, 0))

    def pretend(*_):
        matrix = next(matrices)
        return stability.Dependencies(matrix, matrix, matrix.astype(int), next(outcome))

    monkeypatch.setattr(stability, "_fit_half", pretend)
    model = fit()
    assert model.n_halves_ == 3
    np.testing.assert_allclose(model.confidence_, 2 / 3)


def test_names_inputs_and_a_clock_are_kept():
    frames = [pd.DataFrame(s[:, :2], columns=["prey", "fox"]) for s in linear_states(4, 0.0)]
    table = from_trajectories(frames, TIMES, inputs=np.arange(4.0))
    model = fit(SparseNODERegressor(max_iter=5, time_dependent=True), *table, n_pairs=1)
    graph = model.get_dependency_graph(confidence=0.5)
    assert dict(graph.nodes(data="kind")) == {"prey": "state", "fox": "state", "u0": "input", "t": "time"}
    assert model.confidence_.shape == (2, 4)
    assert list(model.feature_names_in_) == list(table[0].columns)


def test_serves_in_scikit_learns_cross_validation():
    scores = cross_val_score(
        StabilitySelection(QUICK, n_pairs=1, random_state=0), X, Y, groups=GROUPS, cv=GroupKFold(2)
    )
    assert np.isfinite(scores).all()


def test_survives_pickle_and_clone(fitted):
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.confidence_, fitted.confidence_)
    np.testing.assert_array_equal(again.predict(X), fitted.predict(X))
    assert clone(fitted).get_params()["estimator__alpha"] == 0.03


# the path


@pytest.fixture(scope="module")
def path():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        base = SparseNODERegressor(max_iter=150, random_state=0, dtype="float64")
        return base, regularization_path(X, Y, alphas=[0.0, 100.0, 0.05], groups=GROUPS, estimator=base)


def test_path_falls_from_the_empty_graph_to_the_full_one(path):
    levels = path[1]
    assert [level.alpha for level in levels] == [100.0, 0.05, 0.0]
    edges = [level.n_edges for level in levels]
    assert edges[0] == 0 < edges[1] < edges[2] == 9
    assert [int((level.dependency_matrix > 0).sum()) for level in levels] == edges
    assert levels[0].error > levels[1].error


def test_every_level_is_the_plain_estimator_at_its_alpha(path):
    base, levels = path
    for level in levels:
        alone = clone(base).set_params(alpha=level.alpha).fit(X, Y, groups=GROUPS)
        np.testing.assert_allclose(level.dependency_matrix, alone.dependency_matrix_, rtol=1e-6, atol=1e-9)
        assert level.error == pytest.approx(1 - alone.score(X, Y), rel=1e-6, abs=1e-9)
        assert level.estimator.get_params() == alone.get_params()
    assert base.alpha == 0.02 and not hasattr(base, "dependency_matrix_")


def test_path_warns_once_of_all_levels_that_did_not_settle():
    base = SparseNODERegressor(max_iter=3, tol=0.0, random_state=0)
    with pytest.warns(ConvergenceWarning) as caught:
        regularization_path(X, Y, alphas=[0.2, 0.1], estimator=base)
    assert len(caught) == 1 and "alpha = 0.2, 0.1" in str(caught[0].message)
