"""Inner folds, the choice among supports, and the cross-validated estimator."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
from scipy.linalg import expm
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GroupKFold, KFold

from skode import (
    IdentifiabilityWarning,
    SparseNODERegressor,
    SparseNODERegressorCV,
    SteadyStates,
    from_trajectories,
    model_selection,
)
from skode._folds import halves, has_dynamics, make_folds, most_folds
from skode._layout import Layout
from skode._strengths import strengths
from skode._trajectories import as_trajectories

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

# x0 decays, drives x1 and is driven by nothing; x2 stands apart.
SYSTEM = np.array([[-0.5, 0.0, 0.0], [1.2, -0.8, 0.0], [0.0, 0.0, -0.3]])
TRUTH = SYSTEM != 0
TIMES = np.linspace(0.0, 4.0, 13)


def linear_states(n_trajectories=8, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    starts = rng.uniform(0.5, 3.0, (n_trajectories, 3)) * rng.choice([-1.0, 1.0], (n_trajectories, 3))
    clean = np.array([[expm(SYSTEM * t) @ x for t in TIMES] for x in starts])
    return clean + noise * rng.standard_normal(clean.shape)


def tied(states, times, groups=None, **options):
    X, y, numbers = from_trajectories(states, times, **options)
    layout = Layout(n_states=y.shape[1], n_inputs=0, order=2 if "velocities" in options else 1)
    return as_trajectories(X, y, layout=layout, groups=numbers if groups is None else np.asarray(groups)[numbers])


def series(n=60, n_states=2, missing=0.0):
    t = np.cumsum(np.random.default_rng(1).uniform(0.5, 1.5, n))
    states = np.sin(t[:, None] * (1 + np.arange(n_states)) / 7)
    gone = np.random.default_rng(2).random(states.shape) < missing
    gone[0] = False
    return np.where(gone, np.nan, states), t - t[0]


X, Y, GROUPS = from_trajectories(list(linear_states()), TIMES)


def fit(X=X, y=Y, groups=GROUPS, sample_weight=None, steady_states=None, **options):
    quick = {"max_iter": 100, "n_alphas": 2, "cv": 2, "random_state": 0, **options}
    model = SparseNODERegressorCV(**quick)
    return model.fit(X, y, groups=groups, sample_weight=sample_weight, steady_states=steady_states)


@pytest.fixture
def seen_folds(monkeypatch):
    """Folds that reach ``select``, with nothing trained."""
    seen = []

    class Enough(Exception):
        pass

    def spy(trajectories, specification, **options):
        seen.append(options)
        raise Enough

    monkeypatch.setattr(model_selection, "select", spy)

    def ask(**options):
        with pytest.raises(Enough):
            fit(**options)
        return seen[-1]["folds"]

    return ask


# folds


def test_folds_hold_whole_groups_each_in_one_test_part():
    labels = [0, 0, 1, 2, 3, 3, 3]
    trajectories = tied(list(linear_states(7)), TIMES, groups=labels)
    folds = make_folds(trajectories, 3)
    assert folds.kind == "groups"
    held = [set(test.groups) for _, test in folds.parts]
    assert sorted(group for part in held for group in part) == [0, 1, 2, 3]
    for train, test in folds.parts:
        assert not set(train.groups) & set(test.groups)
        assert train.n_trajectories + test.n_trajectories == 7


def test_fewer_groups_than_folds_are_cut_into_blocks_of_time():
    states, times = series()
    trajectories = tied([states], times)
    folds = make_folds(trajectories, 4)
    assert folds.kind == "blocks" and len(folds.parts) == 4
    everywhere = {tuple(row) for row in states}
    for train, test in folds.parts:
        first, second = ({tuple(row) for row in part.states} for part in (train, test))
        assert not first & second and first | second == everywhere
        assert train.n_trajectories in (1, 2) and test.n_trajectories == 1


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_segments_start_at_a_complete_observation(missing):
    states, times = series(missing=missing)
    for part in [part for pair in make_folds(tied([states], times), 3).parts for part in pair]:
        for k in range(part.n_trajectories):
            rows = slice(*part.bounds[k : k + 2])
            assert np.isfinite(part.initial[k]).all()
            (start,) = np.flatnonzero(part.times[rows] == 0)
            np.testing.assert_array_equal(part.states[rows][start], part.initial[k])
            assert part.anchor[rows][start]
            whole = [np.isfinite(row).all() for row in part.states[rows][:start]]
            assert not any(whole)


def test_blocks_keep_the_distances_in_time_and_move_the_clock():
    states, times = series()
    trajectories = tied([states], times)
    for _, test in make_folds(trajectories, 3).parts:
        at = [int(np.flatnonzero((states == row).all(axis=1))[0]) for row in test.states]
        np.testing.assert_allclose(test.times + test.origin[0], times[at], atol=1e-12)


def test_blocks_forget_the_velocity_that_is_known_only_where_a_trajectory_starts():
    states, times = series()
    folds = make_folds(tied([states], times, velocities=[np.ones_like(states)]), 2)
    assert all(part.velocity is None for pair in folds.parts for part in pair)


def test_too_little_data_for_folds_is_refused_in_words():
    trajectories = tied(list(linear_states(2)), TIMES)
    with pytest.raises(ValueError, match=r"at least 4 groups, or a series of 16 rows .* got 2 groups .* 13 rows"):
        make_folds(trajectories, 4)


def test_as_many_folds_as_the_data_allow():
    trajectories = tied(list(linear_states(2)), TIMES)
    assert [len(most_folds(trajectories, n).parts) for n in (2, 3, 9)] == [2, 3, 3]
    assert most_folds(trajectories, 2).kind == "groups"
    assert most_folds(trajectories, 3).kind == "blocks"
    short = tied([linear_states(1)[0][:6]], TIMES[:6])
    assert most_folds(short, 5) == ([], "none")


def test_a_series_without_any_complete_observation_after_its_start_cannot_be_cut():
    states, times = series()
    states[1::2, 0] = states[2::2, 1] = np.nan
    folds = most_folds(tied([states], times), 4)
    assert all(map(has_dynamics, [part for pair in folds.parts for part in pair]))


# half-samples


@pytest.mark.parametrize("n_groups", [4, 7])
def test_halves_are_complementary_and_hold_whole_groups(n_groups):
    trajectories = tied(list(linear_states(n_groups)), TIMES)
    pairs = halves(trajectories, 6, seed=0)
    assert len(pairs) == 6
    for first, second in pairs:
        assert not set(first.groups) & set(second.groups)
        assert len(set(first.groups)) == len(set(second.groups)) == n_groups // 2
    assert len({tuple(sorted(set(first.groups))) for first, _ in pairs}) > 1


def test_fewer_than_four_groups_are_halved_by_blocks_of_time():
    states, times = series()
    for first, second in halves(tied([states], times), 5, seed=0):
        rows = [{tuple(row) for row in half.states} for half in (first, second)]
        assert not rows[0] & rows[1]
        assert all(20 <= len(half) <= 40 for half in rows)


def test_two_rows_cannot_be_halved():
    assert halves(tied([linear_states(1)[0][:2]], TIMES[:2]), 3, seed=0) == []


def test_strengths_fall_without_repetition():
    np.testing.assert_array_equal(strengths([0.1, 0.3, 0.1], 7), [0.3, 0.1])
    grid = strengths(None, 5)
    assert len(grid) == 5 and (np.diff(np.log(grid)) < 0).all()
    np.testing.assert_allclose(np.diff(np.log(grid)), np.log(grid[1] / grid[0]))


# the estimator


@pytest.fixture(scope="module")
def fitted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return fit(max_iter=400, n_alphas=4, cv=3)


@pytest.fixture(scope="module")
def noisy():
    """Few, noisy rows, so that supports differ along the path."""
    X, y, groups = from_trajectories(list(linear_states(6, noise=0.15, seed=3)), TIMES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return fit(X, y, groups, max_iter=200, n_alphas=5, alphas=[3.0, 0.3, 0.05, 0.005, 1e-4], cv=3)


@pytest.fixture(scope="module")
def weak():
    """A path on which the weaker strengths keep edges that a strong pilot would cut."""
    X, y, groups = from_trajectories(list(linear_states(4, noise=0.3, seed=5)), TIMES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = fit(X, y, groups, max_iter=200, alphas=[0.3, 0.02, 0.005], cv=2)
    return (X, y, groups), model.path_


def test_the_true_graph_is_found(fitted):
    np.testing.assert_array_equal(fitted.dependency_matrix_ > 0, TRUTH)
    assert fitted.score(X, Y) > 0.99


def test_scores_stay_dense_beside_the_selected_matrix(fitted):
    assert (fitted.dependency_scores_ > 0).all()
    assert fitted.dependency_scores_[TRUTH].min() > fitted.dependency_scores_[~TRUTH].max()


def test_edges_come_in_as_alpha_falls(noisy):
    edges = [level["n_edges"] for level in noisy.path_]
    np.testing.assert_array_equal([level["alpha"] for level in noisy.path_], [3.0, 0.3, 0.05, 0.005, 1e-4])
    assert edges == sorted(edges) and edges[0] < edges[-1] == 9


def test_a_level_has_the_support_of_the_plain_estimator_at_its_strength(weak):
    data, path = weak
    for level in path:
        plain = SparseNODERegressor(alpha=level["alpha"], max_iter=200, random_state=0).fit(
            data[0], data[1], groups=data[2]
        )
        np.testing.assert_array_equal(level["dependency_matrix"] > 0, plain.dependency_matrix_ > 0)


def test_refit_keeps_every_target_inside_the_support_that_it_chose(noisy):
    for target, alpha in enumerate(noisy.target_alphas_):
        (level,) = [level for level in noisy.path_ if level["alpha"] == alpha]
        support = level["dependency_matrix"][target] > 0
        np.testing.assert_array_equal(noisy.dependency_matrix_[target] > 0, support)


def test_results_have_the_form_of_scikit_learn(noisy):
    results = noisy.cv_results_
    assert all(len(values) == 5 for values in results.values())
    folds = np.array([results[f"split{k}_test_score"] for k in range(3)])
    np.testing.assert_allclose(results["mean_test_score"], folds.mean(axis=0))
    np.testing.assert_allclose(results["std_test_score"], folds.std(axis=0))
    assert results["rank_test_score"].dtype == np.int32
    assert results["rank_test_score"][np.argmax(results["mean_test_score"])] == 1
    assert results["params"] == [{"alpha": alpha} for alpha in noisy.alphas_]
    assert set(results["fold_kind"]) == {"groups"}
    np.testing.assert_allclose([-level["held_out_loss"] for level in noisy.path_], results["mean_test_score"])
    assert noisy.alpha_ in noisy.alphas_


def test_best_takes_the_level_of_least_loss_in_a_shared_field():
    model = fit(penalty="l0", field="shared", selection="best", alphas=[0.5, 1e-3])
    assert model.alpha_ == model.alphas_[np.argmax(model.cv_results_["mean_test_score"])]
    assert (model.target_alphas_ == model.alpha_).all()


@pytest.mark.parametrize("n_edges", [0, 9])
def test_a_number_of_edges_asks_for_the_nearest_level(n_edges):
    model = fit(selection=n_edges, alphas=[100.0, 0.0])
    assert (model.dependency_matrix_ > 0).sum() == n_edges
    assert (model.target_alphas_ == (100.0 if n_edges == 0 else 0.0)).all()


def test_a_constant_state_has_no_edges_in():
    states = linear_states()
    states[:, :, 2] = 1.5
    with_constant, y, groups = from_trajectories(list(states), TIMES)
    model = fit(with_constant, y, groups)
    assert not model.dependency_matrix_[2].any()
    assert np.isfinite(model.cv_results_["mean_test_score"]).all()
    np.testing.assert_array_equal(model.predict(with_constant)[:, 2], 1.5)


def test_a_variable_unseen_in_one_fold_does_not_decide_there():
    states = [s.copy() for s in linear_states(4)]
    for hidden in states[1:]:
        hidden[1:, 2] = np.nan
    table = from_trajectories(states, TIMES)
    scores = fit(*table, cv=4).cv_results_["mean_test_score"]
    assert (np.abs(scores) < 100).all()


def test_groups_are_never_separated(seen_folds):
    labels = GROUPS // 2
    folds = seen_folds(groups=labels, cv=4)
    assert folds.kind == "groups" and len(folds.parts) == 4
    for train, test in folds.parts:
        assert not set(train.groups) & set(test.groups)
        assert test.n_trajectories == 2


def test_a_splitter_means_rows(seen_folds):
    folds = seen_folds(cv=KFold(3, shuffle=True, random_state=0))
    assert folds.kind == "rows"
    assert {train.n_rows + test.n_rows for train, test in folds.parts} == {len(X)}
    assert {train.n_trajectories for train, _ in folds.parts} == {8}


def test_a_splitter_gets_the_groups(seen_folds):
    for train, test in seen_folds(cv=GroupKFold(4)).parts:
        assert train.n_trajectories == 6 and test.n_trajectories == 2


def test_an_iterable_of_rows_or_masks_is_taken_as_it_is(seen_folds):
    late = X[:, 0] > 2
    for split in [(np.flatnonzero(~late), np.flatnonzero(late)), (~late, late)]:
        folds = seen_folds(cv=[split])
        assert len(folds.parts) == 1 and folds.kind == "rows"
        assert folds.parts[0][0].times.max() <= 2 < folds.parts[0][1].times.min()


def test_fewer_folds_than_asked_for_are_reported():
    with pytest.warns(UserWarning, match=r"should allow cv=9 folds; got enough for 8: .* Lower cv"):
        model = fit(cv=9, max_iter=5)
    assert "split7_test_score" in model.cv_results_ and "split8_test_score" not in model.cv_results_


def test_without_folds_the_strength_nearest_to_the_default_is_taken():
    one = X[:5], Y[:5], GROUPS[:5]
    with pytest.warns(UserWarning, match="needs two groups, or a series of 8 rows; got less"):
        model = fit(*one, cv=None, alphas=[1.0, 0.03, 0.001], max_iter=5)
    assert model.alpha_ == 0.03 and (model.target_alphas_ == 0.03).all()
    assert set(model.cv_results_["fold_kind"]) == {"none"}
    assert np.isnan(model.cv_results_["mean_test_score"]).all()
    assert np.isfinite(model.predict(X[:5])).all()


def test_the_default_number_of_folds_falls_silently():
    two = GROUPS < 2
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", IdentifiabilityWarning)  # of two trajectories
        model = fit(X[two], Y[two], GROUPS[two], cv=None, max_iter=5)
    assert set(model.cv_results_["fold_kind"]) == {"blocks"}


def test_steady_states_are_used():
    # Trajectories of dx/dt = x (1 - x) that end far from rest; the state of rest says where the slope vanishes.
    t = np.linspace(0, 0.1, 8)
    states = [1 / (1 + (1 / x - 1) * np.exp(-t))[:, None] for x in (4.0, 5.0, 6.0, 7.0)]
    rest = SteadyStates(np.ones((8, 1)))
    table, options = from_trajectories(states, t), {"max_iter": 200, "n_bilinear": 0}
    slopes = [
        float(np.abs(fit(*table, steady_states=steady, **options).predict_derivative([[1.0]])).max())
        for steady in (None, rest)
    ]
    assert slopes[1] < 0.5 * slopes[0]


def test_row_order_weights_and_repetition_change_nothing():
    order = np.random.default_rng(0).permutation(len(X))
    first = fit(max_iter=10)
    second = fit(X[order], Y[order], GROUPS[order], max_iter=10)
    twice = fit(*(np.concatenate([part, part]) for part in (X, Y, GROUPS)), max_iter=10)
    double = fit(sample_weight=np.full(len(X), 2.0), max_iter=10)
    np.testing.assert_array_equal(first.predict(X), second.predict(X))
    np.testing.assert_array_equal(twice.predict(X), double.predict(X))


def test_survives_pickle_and_clone(fitted):
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict(X), fitted.predict(X))
    np.testing.assert_array_equal(again.path_[0]["dependency_matrix"], fitted.path_[0]["dependency_matrix"])
    assert not hasattr(clone(fitted), "path_")
    assert clone(fitted).get_params() == fitted.get_params()


def test_ebic_chooses_the_true_support_of_a_linear_system():
    states = linear_states(n_trajectories=10, noise=0.02)
    X, y, groups = from_trajectories(list(states), TIMES)
    model = fit(X, y, groups, selection="ebic", n_alphas=6, max_iter=1000)
    assert np.array_equal(model.dependency_matrix_ > 0, SYSTEM != 0)
    assert model.cv_results_["mean_test_score"].shape == (6,)
