"""Training: models of a batch never touch each other, hidden rows never speak, and alpha means what it says."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from skode import SparseNODERegressor, from_trajectories
from skode._batch import Batch
from skode._fit import RECIPES, fit_batch
from skode._layout import Layout
from skode._parameters import specify
from skode._trajectories import as_trajectories
from skode.datasets import make_dense_linear, make_independent_decays
from skode.fields import PerTargetField
from skode.penalties import combinations

COMBINATIONS = list(combinations())
NAMES = ["-".join(str(part) for part in member) for member in COMBINATIONS]
SMALL = {"hidden_layer_sizes": (4,), "max_iter": 60, "dtype": "float64", "device": "cpu", "random_state": 0}
BAD_SEED = 666


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def data(n_trajectories=6, noise=0.02):
    system = make_dense_linear(3, n_trajectories, 11, noise=noise, random_state=3)
    return from_trajectories(system.states, system.times)


def model(**parameters):
    return SparseNODERegressor(**{**SMALL, **parameters})


def fit_models(alphas, seeds, **parameters):
    """Fit a batch to the same trajectories, as estimators do."""
    X, y, groups = data()
    found = as_trajectories(X, y, layout=Layout.infer(X.shape[1], 3), groups=groups)
    specification = specify(model(**parameters).get_params(deep=False))
    return fit_batch(found, specification, Batch(np.asarray(alphas, dtype=float), np.asarray(seeds)))


def assert_same(ours, theirs, rtol=1e-6):
    assert ours.status == theirs.status
    assert np.array_equal(ours.matrix > 0, theirs.matrix > 0)
    for name, value in theirs.weights.items():
        np.testing.assert_allclose(ours.weights[name], value, rtol=rtol, atol=rtol * np.abs(value).max())
    np.testing.assert_allclose(ours.scores, theirs.scores, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(ours.alpha_max, theirs.alpha_max, rtol=rtol)


@pytest.mark.parametrize("member", COMBINATIONS, ids=NAMES)
def test_batched_equals_one_by_one(member):
    how = {"penalty": member.penalty, "field": member.field, "gates": member.gates}
    alphas, seeds = [0.02, 0.0, 0.3], [5, 5, 8]
    together = fit_models(alphas, seeds, **how)
    for k in range(3):
        (single,) = fit_models(alphas[k : k + 1], seeds[k : k + 1], **how)
        assert_same(together[k], single)


@pytest.mark.parametrize("penalty", ["group_lasso", "pathreg", "l1"])
def test_batched_equals_one_by_one_through_the_solver(penalty):
    how = {"penalty": penalty, "training": "trajectory", "max_iter": 10}
    together = fit_models([0.02, 0.2], [5, 8], **how)
    for k, (alpha, seed) in enumerate([(0.02, 5), (0.2, 8)]):
        (single,) = fit_models([alpha], [seed], **how)
        assert_same(together[k], single)


@pytest.mark.parametrize("training", ["staged", "trajectory"])
@pytest.mark.parametrize("factor", [np.nan, 1e200, 1e3])
def test_a_diverging_neighbour_changes_nothing(monkeypatch, training, factor):
    start = PerTargetField.init

    def init(field, generator, **shapes):
        weights = start(field, generator, **shapes)
        bad = generator.initial_seed() == BAD_SEED
        return {name: value * factor for name, value in weights.items()} if bad else weights

    monkeypatch.setattr(PerTargetField, "init", init)
    how = {"training": training, "max_iter": 60 if training == "staged" else 5 if factor == 1e3 else 10}
    together = fit_models([0.02, 0.02, 0.1], [5, BAD_SEED, 8], **how)
    apart = fit_models([0.02, 0.1], [5, 8], **how)
    assert_same(together[0], apart[0])
    assert_same(together[2], apart[1])
    assert np.isfinite(factor) or together[1].status == "diverged"


@pytest.mark.parametrize("member", COMBINATIONS, ids=NAMES)
def test_same_seed_same_result(member):
    how = {"penalty": member.penalty, "field": member.field, "gates": member.gates, "alpha": 0.05}
    X, y, groups = data()
    first, second = (model(**how).fit(X, y, groups=groups) for _ in range(2))
    assert np.array_equal(first.predict(X), second.predict(X))
    assert np.array_equal(first.dependency_scores_, second.dependency_scores_)
    other = model(**{**how, "random_state": 1}).fit(X, y, groups=groups)
    assert not np.array_equal(first.predict(X), other.predict(X))


def assert_same_fit(ours, theirs, X):
    assert np.array_equal(ours.predict(X), theirs.predict(X))
    assert np.array_equal(ours.dependency_matrix_, theirs.dependency_matrix_)


def test_rows_without_weight_cannot_change_a_fit():
    X, y, groups = data()
    rng = np.random.default_rng(0)
    seen = np.append(np.ones(len(X)), np.zeros(20))
    hidden_X = np.r_[X, X[rng.integers(len(X), size=20)] + rng.normal(size=(20, 4)) * [0.1, 1e3, 1e3, 1e3]]
    hidden_y = np.r_[y, 1e6 * rng.normal(size=(20, 3))]
    plain = model().fit(X, y, sample_weight=np.ones(len(X)))
    assert_same_fit(model().fit(hidden_X, hidden_y, sample_weight=seen), plain, X)


def test_rows_of_another_fold_cannot_change_a_fit():
    X, y, groups = data()
    train = groups % 3 != 0
    only = model().fit(X[train], y[train], groups=groups[train])
    wild = np.where(train[:, None], y, 1e3 * y + 7.0)
    assert_same_fit(model().fit(X, wild, sample_weight=train.astype(float), groups=groups), only, X)


def test_order_and_repetition_of_rows_change_nothing():
    X, y, groups = data()
    shuffled = np.random.default_rng(0).permutation(len(X))
    plain = model().fit(X, y, groups=groups)
    assert_same_fit(model().fit(X[shuffled], y[shuffled], groups=groups[shuffled]), plain, X)
    counts = 1 + (np.arange(len(X)) % 3 == 0)
    repeated = model().fit(np.repeat(X, counts, axis=0), np.repeat(y, counts, axis=0), groups=np.repeat(groups, counts))
    weighted = model().fit(X, y, sample_weight=counts.astype(float), groups=groups)
    assert_same_fit(repeated, weighted, X)


@pytest.mark.parametrize("member", COMBINATIONS, ids=NAMES)
def test_alpha_zero_is_dense_and_alpha_max_empty(member):
    how = {"penalty": member.penalty, "field": member.field, "gates": member.gates}
    X, y, groups = data()
    dense = model(alpha=0.0, **how).fit(X, y, groups=groups)
    assert (dense.dependency_matrix_ > 0).all()
    if not np.isfinite(dense.alpha_max_):
        return
    empty = model(alpha=dense.alpha_max_, **how).fit(X, y, groups=groups)
    assert empty.alpha_max_ == dense.alpha_max_
    assert (empty.dependency_matrix_ == 0).all()
    assert empty.get_dependency_graph().number_of_edges() == 0
    assert (empty.dependency_scores_ > 0).all()  # a ranking is left
    assert np.isfinite(empty.predict(X)).all()


def test_alpha_above_alpha_max_is_empty_through_the_solver_too():
    X, y, groups = data()
    how = {"training": "trajectory", "max_iter": 10}
    alpha = 1.01 * model(**how).fit(X, y, groups=groups).alpha_max_
    assert (model(alpha=alpha, **how).fit(X, y, groups=groups).dependency_matrix_ == 0).all()


@pytest.mark.parametrize("penalty", ["group_lasso", "lassonet"])
def test_edges_fall_with_alpha(penalty):
    how = {"penalty": penalty, "max_iter": 300}
    (dense,) = fit_models([0.0], [5], **how)
    alphas = dense.alpha_max * np.array([0.0, 0.003, 0.03, 0.1, 0.3, 0.9, 1.0])
    fits = fit_models(alphas, [5] * 7, **how)
    edges = [int((fit.matrix > 0).sum()) for fit in fits]
    assert edges[0] == 9 and edges[-1] == 0
    assert all(after <= before + 1 for before, after in zip(edges[:-1], edges[1:], strict=True))
    assert 0 < min(edges[3:6]) < 9  # it is a path, not a step


def test_the_support_that_is_refitted_is_what_the_penalty_left():
    X, y, groups = data()
    fitted = model(alpha=0.2, max_iter=200).fit(X, y, groups=groups)
    edges = {name: report["n_edges"] for name, report in fitted.history_.items()}
    assert edges["press"] == edges["refit"] == edges["finish"] == int((fitted.dependency_matrix_ > 0).sum())
    assert edges["warm"] == 9 and edges["press"] < 9
    shrunken = model(alpha=0.2, max_iter=200, refit=False).fit(X, y, groups=groups)
    assert list(shrunken.history_) == ["warm", "pilot", "press"]
    assert fitted.score(X, y) > shrunken.score(X, y)  # a refit takes the shrinkage back


def test_the_guard_keeps_the_better_weights(monkeypatch):
    X, y, groups = data(n_trajectories=10, noise=0.0)
    before = RECIPES["staged"]
    monkeypatch.setitem(RECIPES, "staged", tuple(stage for stage in before if stage.name != "finish"))
    without = model(max_iter=200).fit(X, y, groups=groups).score(X, y)
    wild = tuple(dataclasses.replace(s, rate=1e3) if s.name == "finish" else s for s in before)
    monkeypatch.setitem(RECIPES, "staged", wild)
    assert model(max_iter=200).fit(X, y, groups=groups).score(X, y) >= without - 1e-3


def test_the_loss_of_every_stage_is_recorded_and_falls():
    X, y, groups = data()
    history = model(max_iter=300).fit(X, y, groups=groups).history_
    for report in history.values():
        assert np.isfinite(report["loss"]).all()
        assert report["seconds"] >= 0 and report["n_iter"] >= 1
    assert history["warm"]["loss"][-1] < 0.5 * history["warm"]["loss"][0]
    assert history["refit"]["loss"][-1] < history["warm"]["loss"][0]


def test_decays_at_a_moderate_alpha_have_no_edges_between_variables():
    system = make_independent_decays(4, 10, 12, random_state=0)
    X, y, groups = from_trajectories(system.states, system.times)
    fitted = model(alpha=0.1, max_iter=300).fit(X, y, groups=groups)
    assert np.array_equal(fitted.dependency_matrix_ > 0, np.eye(4, dtype=bool))
