"""Metrics against scikit-learn, laws and hand-worked cases."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from skode.metrics import (
    edge_auprc,
    edge_auroc,
    edge_balanced_accuracy,
    edge_f1,
    edge_precision,
    edge_prevalence,
    edge_recall,
    feature_sparsity,
    graph_scores,
    mean_skill,
    mse,
    normalised_shd,
    nrmse,
    nrmse_by_horizon,
    open_paths,
    persistence_skill,
    r2,
    skill,
    spurious_edge_share,
    spurious_feature_share,
    valid_prediction_time,
    weight_sparsity,
)

nan = np.nan


def random_graph(seed, n_states=6, n_inputs=2, ties=True):
    rng = np.random.default_rng(seed)
    truth = rng.random((n_states, n_states + n_inputs)) < 0.3
    scores = rng.random(truth.shape) + 0.3 * truth
    scores = np.round(scores, 1) if ties else scores
    matrix = np.where(rng.random(truth.shape) < 0.5, scores, 0.0)
    return truth, scores, matrix


def compared(table, self_edges):
    kept = np.ones(table.shape, dtype=bool)
    if not self_edges:
        kept[np.arange(len(table)), np.arange(len(table))] = False
    return table[kept]


# ---- graph -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("self_edges", [True, False])
@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_graph_scores_equal_scikit_learn(seed, ties, self_edges):
    truth, scores, matrix = random_graph(seed, ties=ties)
    found = graph_scores(truth, scores=scores, matrix=matrix, self_edges=self_edges)
    edge, score = compared(truth, self_edges), compared(scores, self_edges)
    called = compared(matrix, self_edges) > 0
    assert found.auroc == pytest.approx(reference.roc_auc_score(edge, score))
    assert found.auprc == pytest.approx(reference.average_precision_score(edge, score))
    assert found.f1 == pytest.approx(reference.f1_score(edge, called))
    assert found.precision == pytest.approx(reference.precision_score(edge, called))
    assert found.recall == pytest.approx(reference.recall_score(edge, called))
    assert found.balanced_accuracy == pytest.approx(reference.balanced_accuracy_score(edge, called))
    assert found.shd == pytest.approx(reference.zero_one_loss(edge, called))
    assert found.prevalence == pytest.approx(edge.mean())
    assert (found.n_true, found.n_edges, found.n_entries) == (edge.sum(), called.sum(), edge.size)


@pytest.mark.parametrize("self_edges", [True, False])
def test_single_functions_equal_the_joint_one(self_edges):
    truth, scores, matrix = random_graph(7)
    joint = graph_scores(truth, scores=scores, matrix=matrix, self_edges=self_edges)
    ranked = {"auroc": edge_auroc, "auprc": edge_auprc}
    counted = {
        "f1": edge_f1,
        "precision": edge_precision,
        "recall": edge_recall,
        "balanced_accuracy": edge_balanced_accuracy,
        "shd": normalised_shd,
    }
    for name, function in ranked.items():
        assert getattr(joint, name) == function(truth, scores, self_edges=self_edges)
    for name, function in counted.items():
        assert getattr(joint, name) == function(truth, matrix, self_edges=self_edges)
    assert joint.prevalence == edge_prevalence(truth, self_edges=self_edges)


def test_hand_worked_graph():
    truth = np.array([[1, 1, 0], [0, 1, 0], [0, 1, 1]])
    matrix = np.array([[0.5, 0.0, 0.0], [0.1, 0.2, 0.3], [0.0, 0.4, 0.0]])
    found = graph_scores(truth, scores=matrix, matrix=matrix)
    # hits (0,0) (1,1) (2,1); extra (1,0) (1,2); missed (0,1) (2,2); absent (0,2) (2,0)
    assert found.precision == pytest.approx(3 / 5)
    assert found.recall == pytest.approx(3 / 5)
    assert found.f1 == pytest.approx(3 / 5)
    assert found.balanced_accuracy == pytest.approx((3 / 5 + 2 / 4) / 2)
    assert found.shd == pytest.approx(4 / 9)
    assert found.prevalence == pytest.approx(5 / 9)
    # true scores .5 .4 .2 0 0 against false .3 .1 0 0: wins 4 + 4 + 3 + 1 + 1 (ties half) of 20
    assert found.auroc == pytest.approx(13 / 20)
    without = graph_scores(truth, scores=matrix, matrix=matrix, self_edges=False)
    assert without.precision == pytest.approx(1 / 3)
    assert without.recall == pytest.approx(1 / 2)
    assert without.shd == pytest.approx(3 / 6)


def test_a_reversed_edge_counts_as_two_wrong_entries():
    truth = np.zeros((3, 3))
    truth[0, 1] = 1
    assert normalised_shd(truth, truth.T) == pytest.approx(2 / 9)
    assert normalised_shd(truth, truth.T, self_edges=False) == pytest.approx(2 / 6)


def test_self_edges_leave_the_inputs_in():
    truth = np.array([[1, 0, 1], [0, 1, 0]])
    assert graph_scores(truth, self_edges=False).n_entries == 4
    assert graph_scores(truth, self_edges=False).n_true == 1


@pytest.mark.parametrize("targets", [[True, False, True], [0, 2]])
def test_targets_equal_the_rows_alone(targets):
    truth = np.array([[1, 0, 0, 1], [1, 1, 1, 0], [0, 0, 1, 1]])
    matrix = np.array([[1, 1, 0, 0], [0, 0, 0, 1], [0, 1, 1, 1]])
    found = graph_scores(truth, scores=matrix, matrix=matrix, targets=targets)
    rows = truth[[0, 2]].ravel(), matrix[[0, 2]].ravel()
    assert found.f1 == pytest.approx(reference.f1_score(*rows))
    assert found.auroc == pytest.approx(reference.roc_auc_score(*rows))
    assert found.n_entries == 8


def test_ranking_figures_see_only_the_order():
    truth, scores, _ = random_graph(3)
    for transform in (np.exp, lambda s: 5 * s - 2, lambda s: s**3):
        assert edge_auroc(truth, transform(scores)) == pytest.approx(edge_auroc(truth, scores))
        assert edge_auprc(truth, transform(scores)) == pytest.approx(edge_auprc(truth, scores))


def test_a_constant_ranking_is_chance():
    truth, scores, _ = random_graph(4)
    flat = np.full_like(scores, 0.2)
    assert edge_auroc(truth, flat) == pytest.approx(0.5)
    assert edge_auprc(truth, flat) == pytest.approx(edge_prevalence(truth))


def test_a_perfect_graph_is_perfect():
    truth, _, _ = random_graph(5)
    found = graph_scores(truth, scores=truth, matrix=truth)
    assert found[:7] == (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0)


def test_zero_over_zero_is_nan_and_never_flatters():
    nothing, everything = np.zeros((2, 2)), np.ones((2, 2))
    no_truth = graph_scores(nothing, scores=everything, matrix=nothing)
    assert np.isnan([no_truth.auroc, no_truth.auprc, no_truth.f1, no_truth.precision, no_truth.recall]).all()
    assert np.isnan(no_truth.balanced_accuracy)
    assert no_truth.shd == 0.0
    none_found = graph_scores(everything, scores=everything, matrix=nothing)
    assert np.isnan(none_found.precision)
    assert (none_found.recall, none_found.f1, none_found.shd) == (0.0, 0.0, 1.0)
    assert np.isnan(none_found.auroc)
    assert none_found.auprc == 1.0


def test_what_was_not_given_is_nan():
    truth, scores, matrix = random_graph(6)
    ranked = graph_scores(truth, scores=scores)
    assert np.isnan([ranked.f1, ranked.shd, ranked.precision]).all()
    assert ranked.n_edges is None
    counted = graph_scores(truth, matrix=matrix)
    assert np.isnan([counted.auroc, counted.auprc]).all()


@pytest.mark.parametrize(
    ("truth", "given", "message"),
    [
        (np.ones(3), {}, r"shape \(d, d \+ m\)"),
        (np.ones((3, 2)), {}, "Transpose"),
        (np.full((2, 2), 0.5), {}, "only 0 and 1"),
        (np.eye(2), {"matrix": np.ones((2, 3))}, "matrix must have the shape of truth"),
        (np.eye(2), {"scores": np.ones((3, 3))}, "scores must have the shape of truth"),
        (np.eye(2), {"matrix": -np.eye(2)}, "numpy.abs"),
        (np.eye(2), {"matrix": np.full((2, 2), nan)}, "without NaN"),
        (np.eye(2), {"scores": np.full((2, 2), nan)}, "rank every pair"),
        (np.eye(1), {"self_edges": False}, "At least one entry"),
        (np.eye(2), {"targets": [False, False]}, "At least one entry"),
    ],
)
def test_bad_graphs_are_refused_in_words(truth, given, message):
    with pytest.raises(ValueError, match=message):
        graph_scores(truth, **given)


# ---- sparsity ----------------------------------------------------------------------------------------------


def test_weight_sparsity_counts_over_all_layers():
    assert weight_sparsity([np.zeros((2, 3)), np.ones((3, 2))]) == 0.5
    assert weight_sparsity([np.ones((2, 2))]) == 0.0
    assert weight_sparsity([np.zeros((4, 1)), np.ones((1, 12))]) == 0.25


def test_open_paths_equal_explicit_enumeration():
    rng = np.random.default_rng(0)
    first, second, third = (rng.normal(size=shape) * (rng.random(shape) < 0.4) for shape in [(5, 3), (4, 5), (2, 4)])
    counted = np.zeros((2, 3))
    for target in range(2):
        for source in range(3):
            for low in range(5):
                for high in range(4):
                    weights = first[low, source], second[high, low], third[target, high]
                    counted[target, source] += all(weight != 0 for weight in weights)
    np.testing.assert_array_equal(open_paths([first, second, third]), counted)


def test_tiny_weights_still_make_a_path():
    assert feature_sparsity(open_paths([[[1e-200]], [[1e-200]]])) == 0.0


def test_a_cut_input_is_feature_sparse_though_few_weights_are_zero():
    first = np.ones((10, 2))
    first[:, 1] = 0.0
    layers = [first, np.ones((2, 10))]
    assert weight_sparsity(layers) == 0.25
    assert feature_sparsity(open_paths(layers)) == 0.5


def test_feature_sparsity_leaves_self_edges_out_on_request():
    table = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 2.0]])
    assert feature_sparsity(table) == pytest.approx(3 / 6)
    assert feature_sparsity(table, self_edges=False) == pytest.approx(3 / 4)


def test_spurious_shares_hand_worked():
    truth = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]])
    matrix = np.array([[5, 1, 0], [1, 0, 1], [0, 1, 0]])
    assert spurious_edge_share(truth, matrix) == pytest.approx(3 / 5)
    assert spurious_edge_share(truth, matrix, self_edges=False) == pytest.approx(2 / 4)
    assert np.isnan(spurious_edge_share(truth, np.zeros((3, 3))))
    assert spurious_feature_share(np.array([True, False, False]), matrix) == pytest.approx(2 / 3)
    assert spurious_feature_share(np.array([False, True, False]), 3 * np.eye(3), self_edges=True) == pytest.approx(
        2 / 3
    )
    assert np.isnan(spurious_feature_share(np.array([True, True, True]), 3 * np.eye(3)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: weight_sparsity([]), "at least one weight"),
        (lambda: open_paths([np.ones(3)]), r"shape \(out, in\)"),
        (lambda: open_paths([np.ones((3, 2)), np.ones((2, 4))]), "Each layer must take"),
        (lambda: feature_sparsity(np.ones(3)), "must be a matrix"),
        (lambda: feature_sparsity([[1.0]], self_edges=False), "At least one pair"),
        (lambda: spurious_feature_share([0, 1], np.eye(2)), "booleans"),
    ],
)
def test_bad_networks_are_refused_in_words(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ---- forecast ----------------------------------------------------------------------------------------------


def random_forecast(seed, n_rows=40, n_states=3):
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(n_rows, n_states)) * [1.0, 10.0, 0.1] + [5.0, 0.0, -1.0]
    answer = truth + 0.4 * rng.normal(size=truth.shape) * [1.0, 10.0, 0.1]
    return truth, answer, rng.random(n_rows) + 0.1


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_complete_forecasts_equal_scikit_learn(seed, weighted):
    truth, answer, weight = random_forecast(seed)
    weight = weight if weighted else None
    assert r2(truth, answer, sample_weight=weight) == pytest.approx(
        reference.r2_score(truth, answer, sample_weight=weight), abs=1e-12
    )
    assert mse(truth, answer, sample_weight=weight) == pytest.approx(
        reference.mean_squared_error(truth, answer, sample_weight=weight)
    )


@pytest.mark.parametrize("answer", [[1.0, 1.0, 1.0], [1.0, 1.0, 2.0]])
def test_r2_of_a_constant_equals_scikit_learn(answer):
    truth = [1.0, 1.0, 1.0]
    assert r2(truth, answer) == reference.r2_score(truth, answer)


def test_missing_entries_equal_the_observed_rows_of_each_variable():
    truth, answer, weight = random_forecast(1)
    truth[np.random.default_rng(2).random(truth.shape) < 0.4] = nan
    seen = ~np.isnan(truth)
    columns = [(truth[seen[:, j], j], answer[seen[:, j], j], weight[seen[:, j]]) for j in range(3)]
    by_hand = [reference.r2_score(y, p, sample_weight=w) for y, p, w in columns]
    assert r2(truth, answer, sample_weight=weight) == pytest.approx(np.mean(by_hand))
    by_hand = [reference.mean_squared_error(y, p, sample_weight=w) for y, p, w in columns]
    assert mse(truth, answer, sample_weight=weight) == pytest.approx(np.mean(by_hand))


def test_weights_equal_repetitions():
    truth, answer, _ = random_forecast(2)
    times = np.random.default_rng(0).integers(0, 4, size=len(truth))
    for metric in (mse, r2, nrmse):
        repeated = metric(np.repeat(truth, times, axis=0), np.repeat(answer, times, axis=0))
        assert metric(truth, answer, sample_weight=times) == pytest.approx(repeated)


def test_what_was_not_observed_cannot_change_a_score():
    truth, answer, _ = random_forecast(3)
    truth[5] = nan
    truth[7, 1] = nan
    other = answer.copy()
    other[5], other[7, 1] = np.inf, 1e300
    for metric in (mse, r2, nrmse):
        assert metric(truth, answer) == metric(truth, other)


def test_nrmse_squared_is_one_minus_r2():
    truth, answer, weight = random_forecast(4)
    assert nrmse(truth, answer, sample_weight=weight) ** 2 == pytest.approx(1 - r2(truth, answer, sample_weight=weight))


def test_nrmse_of_the_mean_is_one():
    truth, _, _ = random_forecast(5)
    assert nrmse(truth, np.broadcast_to(truth.mean(axis=0), truth.shape)) == pytest.approx(1.0)


def test_nrmse_does_not_see_units():
    truth, answer, _ = random_forecast(6)
    units = np.array([1e-6, 1.0, 1e6])
    assert nrmse(truth * units + 3 * units, answer * units + 3 * units) == pytest.approx(nrmse(truth, answer))


def test_a_variable_that_never_moves_is_left_out():
    truth, answer, _ = random_forecast(7)
    with_constant = np.column_stack([truth, np.full(len(truth), 0.1)])
    assert nrmse(with_constant, np.column_stack([answer, np.zeros(len(truth))])) == pytest.approx(nrmse(truth, answer))
    assert np.isnan(nrmse([0.1, 0.1, 0.1], [0.0, 0.0, 0.0]))


def test_a_given_scale_is_used():
    assert nrmse([[0.0, 0.0]], [[2.0, 3.0]], scale=[2.0, 3.0]) == pytest.approx(1.0)
    assert nrmse([[0.0, 0.0]], [[2.0, 3.0]], scale=[2.0, 0.0]) == pytest.approx(1.0)


def test_a_forecast_that_blew_up_is_infinitely_wrong():
    truth, answer, _ = random_forecast(8)
    answer[3, 0] = np.inf
    assert mse(truth, answer) == np.inf
    assert r2(truth, answer) == -np.inf
    assert nrmse(truth, answer) == np.inf


def test_horizon_bins_hand_worked():
    t = [0.0, 0.5, 1.0, 2.0, 3.0, 3.0]
    error = np.array([1.0, 1.0, 2.0, nan, 3.0, 4.0])
    truth = np.where(np.isnan(error), nan, 0.0)
    found = nrmse_by_horizon(t, truth, np.nan_to_num(error), bins=[0.0, 1.0, 2.0, 2.5, 3.0], scale=1.0)
    np.testing.assert_allclose(found.nrmse, [1.0, 2.0, nan, np.sqrt(12.5)])
    np.testing.assert_array_equal(found.n_entries, [2, 1, 0, 2])


def test_one_bin_is_the_whole():
    truth, answer, weight = random_forecast(9)
    t = np.linspace(0.0, 4.0, len(truth))
    found = nrmse_by_horizon(t, truth, answer, bins=1, sample_weight=weight)
    assert found.nrmse[0] == pytest.approx(nrmse(truth, answer, sample_weight=weight))
    np.testing.assert_array_equal(found.edges, [0.0, 4.0])


def test_rows_outside_the_given_edges_are_in_no_bin():
    found = nrmse_by_horizon([0.0, 1.0, 5.0], np.zeros(3), np.ones(3), bins=[0.5, 2.0], scale=1.0)
    np.testing.assert_array_equal(found.n_entries, [1])


def test_skill_is_one_for_perfect_zero_for_the_baseline_negative_for_worse():
    truth, answer, _ = random_forecast(10)
    baseline = np.zeros_like(truth)
    assert skill(truth, truth, baseline) == 1.0
    assert skill(truth, baseline, baseline) == 0.0
    assert skill(truth, answer, baseline) == pytest.approx(1 - (nrmse(truth, answer) / nrmse(truth, baseline)) ** 2)
    assert skill(truth, truth + 100, baseline) < 0
    assert skill(truth, truth, truth) == 0.0
    assert skill(truth, answer, truth) == -np.inf


def test_skills_against_the_named_baselines():
    truth, answer, weight = random_forecast(11)
    start = np.full_like(truth, 2.0)
    mean = np.array([5.0, 0.5, -1.0])
    assert persistence_skill(truth, answer, start, sample_weight=weight) == skill(
        truth, answer, start, sample_weight=weight
    )
    assert mean_skill(truth, answer, mean) == skill(truth, answer, np.tile(mean, (len(truth), 1)))
    assert mean_skill([1.0, 3.0], [1.0, 3.0], 2.0) == 1.0


def test_valid_prediction_time_hand_worked():
    t = np.array([3.0, 0.0, 1.0, 2.0, 0.0, 1.0, 0.0])
    label = np.array(["a", "a", "a", "a", "b", "b", "c"])
    truth = np.array([0.0, 0.0, nan, 0.0, 0.0, 0.0, nan])
    answer = np.array([0.0, 0.3, 9.0, 0.5, 0.1, 0.4, 1.0])
    found = valid_prediction_time(t, truth, answer, trajectory=label, scale=1.0, period=2.0)
    np.testing.assert_array_equal(found, [1.0, 0.5, nan])  # exceeded at 2; never (0.4 is not above 0.4); unobserved


def test_valid_prediction_time_averages_over_observed_variables():
    truth = np.array([[0.0, 0.0], [nan, 0.0]])
    answer = np.array([[0.5, 0.0], [7.0, 0.5]])
    assert valid_prediction_time([0.0, 1.0], truth, answer, scale=1.0)[0] == 1.0  # sqrt(.125) = .35, then .5
    assert valid_prediction_time([0.0, 1.0], truth, answer, scale=1.0, threshold=0.3)[0] == 0.0


def test_valid_prediction_time_scales_with_the_data():
    truth, answer, _ = random_forecast(12)
    t = np.arange(float(len(truth)))
    assert valid_prediction_time(t, truth, answer) == valid_prediction_time(t, 7 * truth, 7 * answer)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mse([1.0, 2.0], [1.0]), "shape of y_true"),
        (lambda: mse([], []), "at least one row"),
        (lambda: mse([1.0, np.inf], [1.0, 1.0]), "not hold inf"),
        (lambda: mse([1.0, nan], [1.0, nan]), "y_pred must not hold NaN"),
        (lambda: mse([1.0], [1.0], sample_weight=[-1.0]), "sample_weight must be >= 0"),
        (lambda: mse([1.0], [1.0], sample_weight=[1.0, 2.0]), "one finite number per row"),
        (lambda: nrmse([1.0, 2.0], [1.0, 2.0], scale=[1.0, 2.0]), "one per variable"),
        (lambda: nrmse([1.0, 2.0], [1.0, 2.0], scale=-1.0), ">= 0"),
        (lambda: nrmse_by_horizon([0.0], [1.0, 2.0], [1.0, 2.0]), "t must hold"),
        (lambda: nrmse_by_horizon([0.0, 0.0], [1.0, 2.0], [1.0, 2.0]), "bins must be"),
        (lambda: nrmse_by_horizon([0.0, 1.0], [1.0, 2.0], [1.0, 2.0], bins=0), "bins must be"),
        (lambda: nrmse_by_horizon([0.0, 1.0], [1.0, 2.0], [1.0, 2.0], bins=[1.0, 0.0]), "bins must be"),
        (lambda: valid_prediction_time([0.0], [1.0], [1.0], period=0.0), "threshold and period"),
        (lambda: valid_prediction_time([0.0], [1.0], [1.0], trajectory=[0, 1]), "one label per row"),
    ],
)
def test_bad_forecasts_are_refused_in_words(call, message):
    with pytest.raises(ValueError, match=message):
        call()
