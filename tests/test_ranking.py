"""The ranking of pairs: laws of units and order, an exact update, noise shares at their limits, and knock-outs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.linalg import expm
from sklearn.linear_model import Ridge

from skode import SparseNODERegressor, SteadyStates, from_trajectories
from skode._layout import Layout
from skode._prepare import prepare
from skode._ranking import (
    MANY,
    RIDGE,
    SteadyEvidence,
    hidden_share,
    lagged_effects,
    memory,
    rank,
    responses,
    steady_evidence,
)
from skode._steady import SteadyRows
from skode._trajectories import as_trajectories
from skode.datasets import make_hill_network

CHAIN = np.array([[-0.5, 0, 0, 0], [0.9, -0.7, 0, 0], [0, 0.8, -0.6, 0], [0, 0, -0.9, -0.8]])  # 0 -> 1 -> 2 -| 3
EDGES = (CHAIN != 0) & ~np.eye(4, dtype=bool)
PAIRS = ~np.eye(4, dtype=bool)


def chain(noise, n=12, n_times=15, span=3.0, seed=0):
    rng = np.random.default_rng(seed)
    times = np.linspace(0.0, span, n_times)
    starts = rng.normal(size=(n, 4))
    clean = [np.stack([expm(CHAIN * t) @ start for t in times]) for start in starts]
    return [x + noise * rng.normal(size=x.shape) for x in clean], [times] * n


def steady_rows(seed=0, n=4, noise=0.01):
    """Every variable in turn held at 0 under a constant drive of the first."""
    rng, drive = np.random.default_rng(seed), np.array([0.5, 0.2, 0.3, 1.5])
    states, clamped = [], np.concatenate([np.eye(n, dtype=bool), np.zeros((1, n), bool)])
    for held in clamped:
        law, right = CHAIN.copy(), -drive
        law[held], right = np.eye(n)[held], np.where(held, 0.0, right)
        states.append(np.linalg.solve(law, right))
    states = np.array(states) + noise * rng.normal(size=clamped.shape)
    return SteadyRows(states, clamped, np.zeros((n + 1, 0)))


def prepared(states, times, steady=None, **builder):
    X, y, groups = from_trajectories(states, times, **builder)
    layout = Layout.infer(X.shape[1], y.shape[1], order=1, time_dependent=False, time_origin="zero")
    return prepare(as_trajectories(X, y, layout=layout, groups=groups), order=1, time_dependent=False, steady=steady)


def changed(states, steady, change):
    return [change(x) for x in states], replace(steady, states=change(steady.states))


def test_lagged_effects_rank_the_edges_of_a_clean_linear_chain_first():
    effects = lagged_effects(prepared(*chain(0.0, n=40, n_times=40)))
    assert effects[EDGES].min() > effects[PAIRS & ~EDGES].max()


def test_effects_of_more_sources_than_rows_are_those_of_ridge_regression():
    rng = np.random.default_rng(0)
    states = [np.cumsum(rng.normal(size=(6, MANY + 5)), axis=0) for _ in range(8)]
    effects = lagged_effects(prepared(states, [np.linspace(0.0, 2.0, 6)] * 8))
    left, change = np.concatenate([x[:-1] for x in states]), np.concatenate([np.diff(x, axis=0) for x in states])
    z, slopes = ((x - x.mean(axis=0)) / x.std(axis=0) for x in (left, change))
    np.testing.assert_allclose(effects, np.abs(Ridge(RIDGE).fit(z, slopes).coef_), rtol=1e-7, atol=1e-12)


def test_leaving_out_clamped_rows_equals_one_regression_per_target():
    states, times = chain(0.1)
    p = prepared(states, times, steady_rows())
    effects = lagged_effects(p)
    left = p.scales.standard_states(np.concatenate([x[:-1] for x in states]))
    slopes = np.concatenate([np.diff(x, axis=0) for x in states])
    slopes = slopes / slopes.std(axis=0)
    mean, sd = left.mean(axis=0), left.std(axis=0)
    steady = steady_evidence(p)
    for i in range(4):
        rest = steady.sources[~steady.clamped[:, i]]
        z = np.vstack([left, rest])
        z = np.column_stack([(z - mean) / sd, np.ones(len(z))])
        target = np.concatenate([slopes[:, i], np.zeros(len(rest))])
        direct = np.linalg.solve(z.T @ z + np.diag([RIDGE] * 4 + [1e-6]), z.T @ target)
        # The weights of the given starts are not those of observations: nothing else may differ.
        assert np.allclose(effects[i], np.abs(direct[:4]), rtol=0.05, atol=0.01)


def test_a_clamped_equation_does_not_feel_where_its_variable_was_held():
    states, times = chain(0.1)
    rows = steady_rows()
    p = prepared(states, times, rows)
    moved = rows.states.copy()
    moved[2, 0] += 3.0  # while variable 2 is held
    q = prepared(states, times, replace(rows, states=moved))
    assert np.allclose(lagged_effects(p)[2], lagged_effects(q)[2])
    assert not np.allclose(lagged_effects(p)[0], lagged_effects(q)[0])


def test_units_change_nothing():
    states, times = chain(0.3)
    scores = np.random.default_rng(1).uniform(size=(4, 4))
    first = rank(scores, prepared(states, times, steady_rows()))
    unit = np.array([10.0, 0.1, 3.0, 1.0])
    other, steady = changed(states, steady_rows(), lambda x: x * unit + 5.0)
    assert np.allclose(first, rank(scores, prepared(other, [t * 60 for t in times], steady)), rtol=1e-6)


def test_the_order_of_variables_changes_nothing():
    states, times = chain(0.3)
    scores = np.random.default_rng(1).uniform(size=(4, 4))
    order = np.array([2, 0, 3, 1])
    other, steady = changed(states, steady_rows(), lambda x: x[:, order])
    steady = replace(steady, clamped=steady.clamped[:, order])
    first = rank(scores, prepared(states, times, steady_rows()))
    assert np.allclose(first[np.ix_(order, order)], rank(scores[np.ix_(order, order)], prepared(other, times, steady)))


def test_nothing_is_hidden_without_noise_and_all_is_in_pure_noise():
    states, times = chain(0.0, n_times=30)
    assert hidden_share(prepared(states, times)).max() < 1e-3
    noise = np.random.default_rng(0).normal(size=(12, 30, 1))
    share = hidden_share(prepared([np.hstack([x, e]) for x, e in zip(states, noise, strict=True)], times))
    assert share[-1] == 1.0
    assert share[:-1].max() < 1e-3


def test_the_hidden_share_grows_with_noise_and_falls_on_a_finer_grid():
    shares = [hidden_share(prepared(*chain(noise, n_times=21))).mean() for noise in (0.02, 0.1, 0.5)]
    assert shares[0] < shares[1] < shares[2]
    assert hidden_share(prepared(*chain(0.1, n_times=201))).mean() < shares[1]


def test_a_slow_decay_is_remembered_and_one_over_within_an_interval_is_not():
    starts = np.random.default_rng(0).normal(size=30)

    def decays(step):
        times = np.arange(6) * step
        return [start * np.exp(-times)[:, None] for start in starts], [times] * 30

    assert memory(prepared(*decays(0.1))) == 1.0
    assert memory(prepared(*decays(4.0))) == 0.0


def test_windows_of_a_series_remember_as_much_as_the_series():
    states, times = chain(0.1, n_times=40)
    whole = memory(prepared(states, times))
    assert 0 < whole <= 1
    assert memory(prepared(states, times, start="each")) == pytest.approx(whole, abs=0.05)


def test_clean_data_keep_the_ranking_of_the_field():
    states, times = chain(0.0, n_times=40)
    scores = np.random.default_rng(1).uniform(size=(4, 4))
    assert np.allclose(rank(scores, prepared(states, times)), scores, rtol=0.01, atol=0.01)


def test_own_entries_stay_those_of_the_field():
    scores = np.random.default_rng(1).uniform(size=(4, 4))
    ranking = rank(scores, prepared(*chain(1.0), steady_rows()))
    assert np.allclose(np.diag(ranking), np.diag(scores))
    assert (ranking[PAIRS] >= 0).all()


def test_the_child_of_a_knocked_out_variable_outranks_the_rest_of_the_chain():
    rows, repeated = steady_rows(noise=0.0), [0, 1, 2, 3, 4, 4, 4, 4, 4]  # most states are wild type
    moved = responses(SteadyEvidence(rows.states[repeated], rows.clamped[repeated]))
    assert np.array_equal(moved[0], np.ones(4))  # nothing moves 0, so nothing is known
    for source in range(3):
        child = moved[source + 1]
        assert child[: source + 1].min() > 0.1
        assert child[source] > child[source + 2 :].max(initial=0.0)
        assert np.allclose(child[source + 2 :], 0.0, atol=1e-9)


def test_a_variable_never_clamped_is_neither_favoured_nor_blamed():
    rows = steady_rows()
    part = SteadyEvidence(rows.states[[0, 1, 4]], rows.clamped[[0, 1, 4]])
    assert np.array_equal(responses(part)[:, 2:], np.ones((4, 2)))


def test_states_under_other_inputs_are_no_baseline():
    rows = steady_rows()
    base = responses(SteadyEvidence(np.column_stack([rows.states, np.zeros(5)]), rows.clamped))
    shifted = np.column_stack([rows.states + 7.0, np.ones(5)])
    both = np.concatenate([np.column_stack([rows.states, np.zeros(5)]), shifted])
    assert np.allclose(responses(SteadyEvidence(both, np.tile(rows.clamped, (2, 1)))), base)


def test_noisy_short_series_are_ranked_well_and_without_ties():
    gains = []
    for seed in range(3):
        system = make_hill_network(n_genes=6, n_trajectories=8, n_times=10, noise=0.25, random_state=seed)
        X, y, groups = from_trajectories(system.states, system.times)
        model = SparseNODERegressor(max_iter=300, tol=1, random_state=0).fit(X, y, groups=groups)
        truth, pairs = system.adjacency, ~np.eye(6, dtype=bool)
        gains.append(_auroc(truth[pairs], model.dependency_scores_[pairs]))
        assert len(np.unique(model.dependency_scores_)) == 36
    assert np.mean(gains) > 0.75


def test_rows_in_any_order_give_the_same_scores():
    states, times = chain(0.3, n=6, n_times=8)
    rows = steady_rows()
    X, y, groups = from_trajectories(states, times)
    mixed = np.random.default_rng(0).permutation(len(X))
    steady = SteadyStates(rows.states, clamped=rows.clamped)
    fits = [
        SparseNODERegressor(max_iter=40, tol=1, random_state=0)
        .fit(X[part], y[part], groups=groups[part], steady_states=steady)
        .dependency_scores_
        for part in (np.arange(len(X)), mixed)
    ]
    assert np.allclose(*fits)


def _auroc(truth, scores):
    positive, negative = scores[truth], scores[~truth]
    return float((positive[:, None] > negative).mean())
