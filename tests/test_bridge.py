"""Bridged paths, and the choice of their decay rate."""

import numpy as np
import pytest
import scipy.integrate
import scipy.linalg

from skode._bridge import bridge, bridge_rows, fill
from skode._decay import choose_decay
from skode._linear_field import ridge_fields
from skode.smooth import smooth

TIMES = np.array([0.0, 2.0, 3.0, 7.0, 9.0])


def mean(rows, values):
    """Mean of values (interval, node, d) with the rows' weights."""
    return (rows.node_weights[:, :, None] * values).sum(axis=1)


@pytest.mark.parametrize("gamma", [0.0, 1e-9, 0.3, 1.0, 5.0])
def test_constant_production_is_followed_exactly(gamma):
    production, start = np.array([0.7, -0.2]), np.array([1.0, 2.0])

    def solution(t):
        t = np.asarray(t)[..., None]
        grown = t if gamma == 0 else -np.expm1(-gamma * t) / gamma
        return start * np.exp(-gamma * t) + production * grown

    rows = bridge(TIMES, solution(TIMES), gamma)
    np.testing.assert_allclose(rows.node_states, solution(rows.node_times), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(rows.slopes, production - gamma * mean(rows, rows.node_states), rtol=1e-5, atol=1e-8)


def test_no_decay_is_integral_matching_on_straight_lines():
    states = np.random.default_rng(0).standard_normal((5, 3))
    rows = bridge(TIMES, states, 0.0)
    change = np.diff(states, axis=0) / np.diff(TIMES)[:, None]
    np.testing.assert_allclose(rows.slopes, change)
    line = states[:-1, None] + (rows.node_times - TIMES[:-1, None])[:, :, None] * change[:, None]
    np.testing.assert_allclose(rows.node_states, line)
    np.testing.assert_allclose(rows.node_weights, np.broadcast_to(np.array([5, 8, 5]) / 18, (4, 3)))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_small_decay_is_continuous_and_rows_follow_the_unit_of_time(gamma):
    states = np.random.default_rng(1).standard_normal((5, 2))
    here, there = bridge(TIMES, states, gamma), bridge(60 * TIMES, states, gamma / 60)
    np.testing.assert_allclose(here.node_states, there.node_states)
    np.testing.assert_allclose(here.node_weights, there.node_weights)
    np.testing.assert_allclose(here.slopes, 60 * there.slopes)
    nearby = bridge(TIMES, states, gamma + 1e-9)
    np.testing.assert_allclose(here.slopes, nearby.slopes, rtol=1e-6)


def test_weighted_means_agree_with_adaptive_quadrature():
    gamma, h = 1.3, 2.5
    rows = bridge(np.array([0.0, h]), np.array([[0.2], [0.9]]), gamma, n_nodes=6)

    def path(s):
        return 0.2 + 0.7 * np.expm1(-gamma * s) / np.expm1(-gamma * h)

    def weight(s):
        return np.exp(-gamma * (h - s))

    def hill(x):
        return x**3 / (0.125 + x**3)

    whole = scipy.integrate.quad(weight, 0, h)[0]
    expected = scipy.integrate.quad(lambda s: weight(s) * hill(path(s)), 0, h)[0] / whole
    np.testing.assert_allclose(mean(rows, hill(rows.node_states))[0, 0], expected, rtol=1e-4)
    # production = slope + gamma x is what variation of constants says, whatever the path
    production = gamma * (0.9 - 0.2 * np.exp(-gamma * h)) / -np.expm1(-gamma * h)
    np.testing.assert_allclose(rows.slopes[0, 0] + gamma * mean(rows, rows.node_states)[0, 0], production, rtol=1e-6)


def test_gaps_are_bridged_as_one_interval():
    gamma = 0.8
    full = np.exp(-gamma * TIMES)[:, None] * [1.0, -2.0] + 0.3
    holed = full.copy()
    holed[1:3, 0] = np.nan
    holed[3:, 1] = np.nan
    filled = fill(TIMES, holed, gamma)
    np.testing.assert_allclose(filled[:, 0], full[:, 0])
    np.testing.assert_allclose(filled[3:, 1], full[2, 1])
    assert np.isnan(fill(TIMES, np.full((5, 1), np.nan), gamma)).all()


def linear_system(gamma, n=6, n_trajectories=24, seed=0):
    rng = np.random.default_rng(seed)
    matrix = 0.25 * rng.standard_normal((n, n)) - gamma * np.eye(n)
    starts = rng.standard_normal((n_trajectories, n))
    steps = [scipy.linalg.expm(matrix * t) for t in TIMES]
    return matrix, np.stack([starts @ step.T for step in steps], axis=1)


def test_forecast_of_the_linear_field_solves_its_equation():
    rng = np.random.default_rng(2)
    features, weights = rng.standard_normal((9, 5)), rng.uniform(1, 2, 9)
    moves = np.array([True, False, True, True])
    gamma, strength = 0.4, 0.3
    (field,) = ridge_fields(features, rng.standard_normal((9, 3)), weights, [strength])
    production = field.readout @ field.basis.T
    matrix = np.zeros((5, 5))
    matrix[[0, 2, 3]] = production
    matrix[[0, 2, 3], [0, 2, 3]] -= gamma
    drift = np.zeros(5)
    drift[[0, 2, 3]] = field.constant - production @ field.center
    starts, lengths = rng.standard_normal((4, 5)), np.array([0.1, 0.5, 1.0, 0.7])
    got = field.simulate(starts, lengths, gamma, moves)
    for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        block = np.zeros((6, 6))
        block[:5, :5], block[:5, 5] = matrix * length, drift * length
        exact = (scipy.linalg.expm(block) @ np.append(start, 1.0))[[0, 2, 3]]
        np.testing.assert_allclose(got[row], exact, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("n_rows", [4, 40])
def test_ridge_fields_solve_their_normal_equations(n_rows):
    rng = np.random.default_rng(3)
    features, slopes, weights = rng.standard_normal((n_rows, 7)), rng.standard_normal((n_rows, 2)), rng.random(n_rows)
    (field,) = ridge_fields(features, slopes, weights, [0.2])
    w = (weights / weights.sum())[:, None]
    z, s = features - (w * features).sum(0), slopes - (w * slopes).sum(0)
    expected = np.linalg.solve(z.T @ (w * z) + 0.2 * np.eye(7), z.T @ (w * s)).T
    np.testing.assert_allclose(field.readout @ field.basis.T, expected, atol=1e-10)


@pytest.mark.parametrize("gamma", [0.3, 1.0])
def test_the_decay_rate_of_a_linear_system_is_found(gamma):
    _, states = linear_system(gamma)
    choice = choose_decay([TIMES] * len(states), list(states), moves=np.ones(6, dtype=bool))
    assert gamma / 2 <= choice.best_gamma <= 2 * gamma
    assert choice.errors.shape == (len(choice.gammas), 3)


def test_the_choice_follows_the_units_and_ignores_what_does_not_move():
    _, states = linear_system(0.7)
    states = np.concatenate([states, np.full((*states.shape[:2], 1), 3.0)], axis=2)
    moves = np.arange(7) < 6
    times = [TIMES] * len(states)
    here = choose_decay(times, list(states), moves=moves)
    there = choose_decay([60 * t for t in times], [5 * x - 2 for x in states], moves=moves)
    np.testing.assert_allclose(here.gammas, 60 * there.gammas)
    np.testing.assert_allclose(here.errors, there.errors, rtol=1e-6)


def test_densely_sampled_oscillations_keep_the_spline():
    t = np.linspace(0, 6, 25)
    phases = np.random.default_rng(4).uniform(0, 6, 12)
    states = [np.stack([np.sin(3 * t + p), np.cos(3 * t + p)], axis=1) for p in phases]
    choice = choose_decay([t] * 12, states, moves=np.ones(2, dtype=bool))
    assert choice.gamma is None


def test_missing_values_and_inputs_are_taken():
    rng = np.random.default_rng(5)
    _, states = linear_system(1.0)
    states = states.copy()
    states[:, 1:][rng.random(states[:, 1:].shape) < 0.1] = np.nan
    inputs = rng.standard_normal((len(states), 2))
    choice = choose_decay([TIMES] * len(states), list(states), moves=np.ones(6, dtype=bool), inputs=inputs)
    assert np.isfinite(choice.errors).all()


def test_one_group_is_refused():
    with pytest.raises(ValueError, match="whole trajectories"):
        choose_decay([TIMES], [np.ones((5, 2))], moves=np.ones(2, dtype=bool))


def test_row_weights_are_the_precision_of_the_production():
    rng, gamma = np.random.default_rng(6), 0.9
    noise = rng.standard_normal((20000, 2))
    for h in (0.5, 3.0):
        times = np.array([0.0, h])
        _, _, weight = bridge_rows(times, np.zeros((2, 1)), gamma)
        rows = bridge(times, noise.T.reshape(2, -1), gamma)
        production = rows.slopes[0] + gamma * (rows.node_weights[0, :, None] * rows.node_states[0]).sum(0)
        np.testing.assert_allclose(production.var() * weight[0], 1.0, rtol=0.05)


def test_constant_variables_under_noise_are_found_with_the_stated_error_rate():
    rng = np.random.default_rng(7)
    starts = rng.uniform(0, 1, (60, 300))
    constant = starts[:, None, :200].repeat(5, axis=1)
    moving = 0.5 + (starts[:, None, 200:] - 0.5) * np.exp(-0.5 * TIMES)[:, None]
    states = np.concatenate([constant, moving], axis=2) + 0.05 * rng.standard_normal((60, 5, 300))
    moves = smooth([TIMES] * 60, list(states)).moves
    assert moves[:200].sum() <= 8  # level .01: two are expected among 200, more than eight once in 5000
    assert moves[200:].all()
