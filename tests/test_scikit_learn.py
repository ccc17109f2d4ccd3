"""The estimator is at home in scikit-learn: pipelines, searches, cross-validation, frames, clones and pickles."""

from __future__ import annotations

import functools
import os
import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.metrics import r2_score
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skode import (
    L0,
    ForecastSplit,
    GroupLasso,
    LassoNet,
    PathReg,
    SparseNODERegressor,
    from_trajectories,
    make_questions,
)
from skode.datasets import make_lotka_volterra
from skode.scoring import neg_nrmse_scorer, persistence_skill_scorer, r2_scorer


def lotka_volterra(n_trajectories, shortest, longest, **options):
    """Unequal, irregular, noisy trajectories."""
    system = make_lotka_volterra(n_trajectories, longest, noise=0.05, irregular=True, random_state=0, **options)
    lengths = np.random.default_rng(0).integers(shortest, longest, n_trajectories, endpoint=True)
    pairs = zip(system.states, system.times, lengths, strict=True)
    states, times = zip(*((x[:n], t[:n]) for x, t, n in pairs), strict=True)
    return list(states), list(times), list(system.names)


@pytest.fixture(scope="module")
def noisy():
    states, times, _ = lotka_volterra(12, 20, 40)
    return from_trajectories(states, times)


@pytest.fixture(scope="module")
def small():
    states, times, _ = lotka_volterra(6, 10, 16)
    return from_trajectories(states, times)


@pytest.fixture(scope="module")
def frames():
    states, times, names = lotka_volterra(6, 10, 16)
    tables = [pd.DataFrame(x, columns=names) for x in states]
    return from_trajectories(tables, times, inputs=pd.DataFrame({"dose": np.arange(6.0)}))


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


@pytest.fixture
def received(monkeypatch):
    """Weights and groups that reach fit in this process, one entry per fit."""
    found = {"weights": [], "groups": []}
    fit = SparseNODERegressor.fit

    @functools.wraps(fit)  # keeps the signature, from which scikit-learn reads what may be routed
    def recorded(self, X, y, sample_weight=None, groups=None, **options):
        found["weights"].append(sample_weight)
        found["groups"].append(groups)
        return fit(self, X, y, sample_weight=sample_weight, groups=groups, **options)

    monkeypatch.setattr(SparseNODERegressor, "fit", recorded)
    return found


def quick(**options):
    """An estimator that is done at once; tol=1 accepts whatever it has reached."""
    return SparseNODERegressor(**{"max_iter": 10, "tol": 1.0, "random_state": 0, **options})


# --- scaling in front and behind -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain_score(noisy):
    model = SparseNODERegressor(max_iter=300, tol=1.0, random_state=0)
    score = cross_val_score(model, noisy.X, noisy.y, groups=noisy.groups, cv=GroupKFold(3), scoring="r2").mean()
    assert score > 0.93  # or the comparison would say little
    return score


def scaled(how):
    model = SparseNODERegressor(max_iter=300, tol=1.0, random_state=0)
    behind = "target" in how
    if how == "scaler around target":
        return make_pipeline(StandardScaler(), TransformedTargetRegressor(model, transformer=StandardScaler()))
    front = make_pipeline(StandardScaler(), model) if "scaler" in how else model
    return TransformedTargetRegressor(front, transformer=StandardScaler()) if behind else front


@pytest.mark.parametrize("how", ["scaler", "target", "target around scaler", "scaler around target"])
def test_scaled_models_score_as_the_plain_one(noisy, plain_score, how):
    X, y, groups = noisy
    scores = cross_val_score(scaled(how), X, y, groups=groups, cv=GroupKFold(3), scoring="r2")
    assert abs(scores.mean() - plain_score) <= 0.02


# --- searches and cross-validation -----------------------------------------------------------------------------


def test_grid_search_in_two_processes_equals_one(small):
    X, y, groups = small
    grid = {"alpha": [0.01, 0.1], "hidden_layer_sizes": [(4,), [8]]}
    one, two = (
        GridSearchCV(quick(), grid, cv=GroupKFold(3), n_jobs=n_jobs).fit(X, y, groups=groups) for n_jobs in (1, 2)
    )
    np.testing.assert_array_equal(one.cv_results_["mean_test_score"], two.cv_results_["mean_test_score"])
    assert one.best_params_ == two.best_params_
    assert np.isfinite(one.cv_results_["mean_test_score"]).all()
    assert two.best_estimator_.predict(X).shape == y.shape


@pytest.mark.usefixtures("routing")
def test_grid_search_routes_groups_to_splitter_and_fit(small, received):
    X, y, groups = small
    model = quick().set_fit_request(groups=True)
    search = GridSearchCV(model, {"alpha": [0.01, 0.1]}, cv=GroupKFold(3)).fit(X, y, groups=groups)
    seen = received["groups"]
    assert len(seen) == 2 * 3 + 1
    folds = [groups[train] for train, _ in GroupKFold(3).split(X, groups=groups)]
    for got, wanted in zip(seen, [*folds, *folds, groups], strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert len(set(folds[0])) == 4  # whole trajectories are left out
    assert np.isfinite(search.best_score_)


@pytest.mark.usefixtures("routing")
def test_routing_crosses_pipelines_searches_and_processes(small):
    X, y, groups = small
    model = quick().set_fit_request(groups=True, sample_weight=True).set_score_request(sample_weight=True)
    scaler = StandardScaler().set_fit_request(sample_weight=True)
    search = GridSearchCV(
        make_pipeline(scaler, model), {"sparsenoderegressor__alpha": [0.01, 0.1]}, cv=GroupKFold(3), n_jobs=2
    )
    search.fit(X, y, groups=groups, sample_weight=np.linspace(1, 2, len(X)))
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.usefixtures("routing")
def test_nested_cross_validation(small, received):
    X, y, groups = small
    model = quick().set_fit_request(groups=True)
    inner = GridSearchCV(model, {"alpha": [0.01, 0.1]}, cv=GroupKFold(2))
    result = cross_validate(inner, X, y, params={"groups": groups}, cv=GroupKFold(3), return_estimator=True)
    assert np.isfinite(result["test_score"]).all()
    assert all(search.best_params_["alpha"] in (0.01, 0.1) for search in result["estimator"])
    assert len(received["groups"]) == 3 * (2 * 2 + 1)


def test_nested_cross_validation_without_routing(small):
    X, y, groups = small
    inner = GridSearchCV(quick(), {"alpha": [0.01, 0.1]}, cv=GroupKFold(2))
    result = cross_validate(inner, X, y, groups=groups, params={"groups": groups}, cv=GroupKFold(3))
    assert np.isfinite(result["test_score"]).all()


def test_cross_val_predict_answers_every_row_by_a_model_that_has_not_seen_it(small):
    X, y, groups = small
    answers = cross_val_predict(quick(), X, y, groups=groups, cv=GroupKFold(3))
    assert answers.shape == y.shape
    train, test = next(iter(GroupKFold(3).split(X, y, groups)))
    np.testing.assert_array_equal(answers[test], quick().fit(X[train], y[train]).predict(X[test]))


def test_learning_curve(small):
    X, y, groups = small
    sizes, train, test = learning_curve(
        quick(), X, y, groups=groups, cv=GroupKFold(3), train_sizes=[0.5, 1.0], scoring=neg_nrmse_scorer
    )
    assert len(sizes) == 2
    assert np.isfinite(train).all() and np.isfinite(test).all()


def test_forecast_split_in_a_search(small):
    X, y, groups = small
    search = GridSearchCV(quick(), {"alpha": [0.01, 0.1]}, cv=ForecastSplit(), scoring=neg_nrmse_scorer)
    search.fit(X, y, groups=groups)
    assert np.isfinite(search.best_score_)


def test_score_is_r2_score_where_y_is_complete(small):
    X, y, _ = small
    weights = np.linspace(1, 3, len(X))
    model = quick().fit(X, y)
    assert model.score(X, y) == pytest.approx(r2_score(y, model.predict(X)), abs=1e-12)
    weighted = r2_score(y, model.predict(X), sample_weight=weights)
    assert model.score(X, y, sample_weight=weights) == pytest.approx(weighted, abs=1e-12)


# --- missing values and weights --------------------------------------------------------------------------------


@pytest.mark.parametrize("scoring", [None, neg_nrmse_scorer, persistence_skill_scorer, r2_scorer])
def test_missing_states_are_no_obstacle_to_a_search(small, scoring):
    X, y, groups = small
    gaps = (np.random.default_rng(0).random(y.shape) < 0.2) & (X[:, :1] > 0)
    search = GridSearchCV(quick(), {"alpha": [0.01, 0.1]}, cv=GroupKFold(3), scoring=scoring)
    search.fit(X, np.where(gaps, np.nan, y), groups=groups)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert np.isfinite(search.predict(X)).all()


@pytest.mark.usefixtures("routing")
def test_weights_are_routed_to_fit_and_to_the_scorer(small, received):
    X, y, groups = small
    weights = np.linspace(1, 2, len(X))
    result = cross_validate(
        quick().set_fit_request(sample_weight=True, groups=False),
        X,
        y,
        params={"groups": groups, "sample_weight": weights},
        cv=GroupKFold(3),
        scoring=r2_scorer.set_score_request(sample_weight=True),
        return_estimator=True,
        return_indices=True,
    )
    for got, train in zip(received["weights"], result["indices"]["train"], strict=True):
        np.testing.assert_array_equal(got, weights[train])
    test = result["indices"]["test"][0]
    score = r2_scorer(result["estimator"][0], X[test], y[test], sample_weight=weights[test])
    assert result["test_score"][0] == score


@pytest.mark.parametrize("model", ["plain", "target", "pipeline"])
def test_rows_of_weight_zero_are_as_if_not_given(small, model):
    X, y, groups = small
    used = groups > 0
    wrapped = {
        "plain": (quick(), ""),
        "target": (TransformedTargetRegressor(quick()), ""),
        "pipeline": (make_pipeline("passthrough", quick()), "sparsenoderegressor__"),
    }
    estimator, prefix = wrapped[model]
    weighted = clone(estimator).fit(X, y, **{f"{prefix}sample_weight": used.astype(float), f"{prefix}groups": groups})
    without = clone(estimator).fit(X[used], y[used], **{f"{prefix}groups": groups[used]})
    np.testing.assert_allclose(weighted.predict(X), without.predict(X), rtol=1e-10)


# --- penalties as parameters -----------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", [PathReg(gates="edge"), L0(), GroupLasso(), LassoNet(M=3.0)])
def test_penalty_objects_survive_clone(penalty):
    model = quick(penalty=penalty)
    assert clone(model).penalty == penalty
    assert clone(clone(model)).get_params()["penalty"] == penalty
    assert repr(penalty) in repr(model) or type(penalty).__name__ in repr(model)


def test_grid_search_over_penalties_and_strengths(small):
    X, y, groups = small
    grid = {"penalty": [None, "group_lasso", PathReg(gates="edge"), LassoNet()], "alpha": np.array([0.01, 0.1])}
    search = GridSearchCV(quick(), grid, cv=GroupKFold(2), scoring=neg_nrmse_scorer).fit(X, y, groups=groups)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert list(search.cv_results_["param_penalty"]) == 2 * grid["penalty"]


def test_numpy_scalars_from_a_grid_are_taken(small):
    X, y, _ = small
    options = {
        "max_iter": np.int64(10),
        "alpha": np.float32(0.1),
        "field": np.str_("per_target"),
        "order": np.int64(1),
        "refit": np.bool_(False),
        "hidden_layer_sizes": np.array([4]),
    }
    assert np.isfinite(quick(**options).fit(X, y).predict(X)).all()


def test_strength_decides_in_a_search_how_many_edges_there_are(small):
    X, y, _ = small
    dense, empty = (quick(alpha=alpha).fit(X, y) for alpha in (0.0, 1e9))
    assert np.count_nonzero(dense.dependency_matrix_) == 4
    assert np.count_nonzero(empty.dependency_matrix_) == 0
    assert empty.alpha >= empty.alpha_max_


# --- clone, set_params, pickle ---------------------------------------------------------------------------------


def test_clone_of_a_fitted_model_is_unfitted_and_fits_to_the_same(small):
    X, y, groups = small
    fitted = quick(alpha=0.05).fit(X, y, groups=groups)
    fresh = clone(fitted)
    assert not [name for name in vars(fresh) if name.endswith("_")]
    np.testing.assert_array_equal(fresh.fit(X, y, groups=groups).predict(X), fitted.predict(X))


def test_set_params_reaches_through_wrappers_and_leaves_fitted_state_alone(small):
    X, y, _ = small
    model = quick().fit(X, y)
    before = model.predict(X)
    np.testing.assert_array_equal(model.set_params(alpha=0.3, hidden_layer_sizes=(3,)).predict(X), before)
    assert not np.array_equal(model.fit(X, y).predict(X), before)
    wrapped = TransformedTargetRegressor(make_pipeline(StandardScaler(), quick()), transformer=StandardScaler())
    wrapped.set_params(regressor__sparsenoderegressor__penalty=PathReg(gates="edge"))
    assert wrapped.regressor.steps[-1][1].penalty == PathReg(gates="edge")


def test_a_random_state_instance_is_used_and_an_integer_repeats(small):
    X, y, _ = small
    seed = np.random.RandomState(3)
    model = quick(random_state=seed)
    assert not np.array_equal(model.fit(X, y).predict(X), model.fit(X, y).predict(X))
    assert np.array_equal(*(quick(random_state=3).fit(X, y).predict(X) for _ in range(2)))


ASK_AGAIN = """
import pickle, sys
import numpy as np
with open(sys.argv[1], "rb") as file:
    model, X = pickle.load(file)
np.savez(sys.argv[2], states=model.predict(X), slope=model.predict_derivative([[1.0, 2.0]], [1.0]))
assert sorted(model.get_dependency_graph().nodes) == ["dose", "predator", "prey"]
"""


def test_a_pickled_model_predicts_the_same_in_another_process(frames, tmp_path):
    model = quick(penalty=PathReg(gates="edge")).fit(frames.X, frames.y)
    (tmp_path / "model.pickle").write_bytes(pickle.dumps((model, frames.X)))
    command = [sys.executable, "-c", ASK_AGAIN, str(tmp_path / "model.pickle"), str(tmp_path / "answers.npz")]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=120)
    answers = np.load(tmp_path / "answers.npz")
    np.testing.assert_allclose(answers["states"], model.predict(frames.X), rtol=1e-12)
    np.testing.assert_allclose(answers["slope"], model.predict_derivative([[1.0, 2.0]], [1.0]), rtol=1e-12)


# --- frames ----------------------------------------------------------------------------------------------------


def test_frames_keep_their_names_and_answer_as_arrays(frames):
    X, y, groups = frames
    model = quick().fit(X, y, groups=groups)
    assert list(model.feature_names_in_) == list(X.columns) == ["t", "initial_prey", "initial_predator", "dose"]
    assert model.state_names_ == ("prey", "predator") and model.input_names_ == ("dose",)
    assert set(model.get_dependency_graph().nodes) == {"prey", "predator", "dose"}
    arrays = quick().fit(X.to_numpy(), y.to_numpy(), groups=groups)
    np.testing.assert_array_equal(model.predict(X), arrays.predict(X.to_numpy()))
    np.testing.assert_array_equal(model.dependency_matrix_, arrays.dependency_matrix_)
    start = y.iloc[[0]]
    asked = make_questions(start, [0.0, 1.0], inputs=pd.DataFrame({"dose": [1.0]}))
    assert list(asked.columns) == list(X.columns)
    np.testing.assert_array_equal(model.predict(asked), model.simulate(start, [0.0, 1.0], inputs=[1.0])[0])


def test_frames_pass_through_pipelines_that_output_frames(frames):
    X, y, groups = frames
    scaler = StandardScaler().set_output(transform="pandas")
    model = make_pipeline(scaler, quick()).fit(X, y)
    assert list(model[-1].feature_names_in_) == list(X.columns)
    np.testing.assert_allclose(model.predict(X), quick().fit(X, y).predict(X), rtol=1e-3, atol=1e-3)
    answers = cross_val_predict(model, X, y, groups=groups, cv=GroupKFold(3))
    table = pd.DataFrame(answers, index=y.index, columns=y.columns)
    assert table.notna().all(axis=None)


def test_a_frame_that_was_shuffled_is_answered_row_by_row(frames):
    X, y, _ = frames
    model = quick().fit(X, y)
    mixed = X.sample(frac=1, random_state=0)
    answers = pd.DataFrame(model.predict(mixed), index=mixed.index).sort_index()
    np.testing.assert_array_equal(answers.to_numpy(), model.predict(X))


def test_one_variable_comes_and_goes_as_a_series(small):
    X, y, groups = small
    series = pd.Series(y[:, 0], name="prey")
    model = quick().fit(X[:, :2], series)
    assert model.predict(X[:, :2]).shape == (len(X),)
    assert model.state_names_ == ("prey",)
    wrapped = TransformedTargetRegressor(quick(), transformer=StandardScaler())
    scores = cross_val_score(wrapped, X[:, :2], series, groups=groups, cv=GroupKFold(2))
    assert np.isfinite(scores).all()


def test_rows_may_be_split_anyhow(small):
    X, y, _ = small
    scores = cross_val_score(quick(), X, y, cv=KFold(3, shuffle=True, random_state=0))
    assert np.isfinite(scores).all()
