"""Oracles for smoothing: scipy's smoothing spline, exact lines, known noise."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy.interpolate import CubicSpline, make_smoothing_spline

from skode._bends import BINS, LEAST, PRIOR, WINDOW, Bends, Curve, find_bends, own_bends
from skode._spline import BandedGrid, SpectralGrid
from skode._strength import LONG_SERIES
from skode.datasets import make_hill_network, make_lorenz63, make_lotka_volterra
from skode.smooth import path, smooth


def noisy_waves(n: int, n_trajectories: int, noise: float, seed: int, d: int = 3, length: float = 10.0):
    rng = np.random.default_rng(seed)
    times = [(np.arange(n) + rng.uniform(-0.4, 0.4, n)) * length / n for _ in range(n_trajectories)]
    clean = [np.sin(t[:, None] + np.arange(d)) for t in times]
    return times, clean, [c + noise * rng.standard_normal(c.shape) for c in clean]


@pytest.mark.parametrize("n", [5, 40, LONG_SERIES + 50])
@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e5])
def test_agrees_with_scipy_at_the_chosen_strength(n, unit):
    times, _, values = noisy_waves(n, 1, 0.1, seed=n)
    times = [t * unit for t in times]
    weights = [np.random.default_rng(1).uniform(0.5, 2.0, n)]
    result = smooth(times, values, weights)
    assert len(result.knots[0]) == n
    for i in np.flatnonzero(result.moves):
        w, y, strength = weights[0] / weights[0].mean(), values[0][:, i], result.strengths[i] / unit**3
        oracle = make_smoothing_spline(times[0] / unit, y, w=w, lam=strength)
        np.testing.assert_allclose(result.states[0][:, i], oracle(times[0] / unit), atol=2e-7)


def test_spectral_and_banded_forms_agree():
    rng = np.random.default_rng(0)
    knots, weights = np.cumsum(rng.uniform(0.2, 2.0, 80)), rng.uniform(0.3, 2.0, 80)
    values, strengths = rng.standard_normal((80, 4)), np.geomspace(1e-4, 1e6, 4)
    spectral, banded = SpectralGrid.build(knots, weights), BandedGrid.build(knots, weights)
    for name, arguments in {
        "residual_freedom": (strengths,),
        "residual": (values, strengths),
        "fit": (values, strengths),
    }.items():
        one, other = (getattr(grid, name)(*arguments) for grid in (spectral, banded))
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-9)


def test_residual_freedom_is_n_minus_the_trace_of_the_smoother_matrix():
    knots, weights = np.cumsum([0.0, 1.0, 0.3, 2.0, 1.0, 0.7]), np.array([1.0, 2.0, 0.5, 1.0, 1.0, 0.5])
    strengths = np.array([0.1, 3.0])
    for kind in (SpectralGrid, BandedGrid):
        grid = kind.build(knots, weights)
        for strength, freedom in zip(strengths, grid.residual_freedom(strengths), strict=True):
            matrix = grid.fit(np.eye(6), np.full(6, strength))
            np.testing.assert_allclose(freedom, 6 - np.trace(matrix), rtol=1e-10)


@pytest.mark.parametrize("n", [7, LONG_SERIES + 1])
def test_straight_lines_are_reproduced_exactly(n):
    t = np.sort(np.random.default_rng(0).uniform(-3.0, 900.0, n))
    line = np.stack([2.0 - 0.1 * t, 1e3 * t], axis=1)
    result = smooth([t], [line])
    np.testing.assert_allclose(result.states[0], line, rtol=1e-8, atol=1e-7)
    assert result.moves.all()
    assert (result.noise < 1e-7 * np.abs(line).max(axis=0)).all()


def test_noise_free_curves_are_nearly_interpolated():
    t = np.linspace(0.0, 10.0, 60)
    values = np.stack([t**2, np.sin(t), np.exp(-t)], axis=1)
    result = smooth([t], [values])
    assert np.abs(result.states[0] - values).max() < 2e-4 * 100.0
    assert np.abs(result.states[0][:, 1:] - values[:, 1:]).max() < 1e-3


@pytest.mark.parametrize(("n", "n_trajectories"), [(40, 20), (200, 4), (1000, 1), (10, 200)])
def test_noise_is_estimated_within_ten_per_cent(n, n_trajectories):
    times, clean, values = noisy_waves(n, n_trajectories, 0.1, seed=3, length=10.0 if n > 10 else 3.0)
    result = smooth(times, values)
    np.testing.assert_allclose(result.noise, 0.1, rtol=0.1)
    error = np.sqrt(np.mean(np.concatenate([s - c for s, c in zip(result.states, clean, strict=True)]) ** 2))
    assert error < 0.09
    assert (result.dof < n * n_trajectories).all()


def test_missing_entry_equals_missing_row():
    times, _, values = noisy_waves(30, 4, 0.1, seed=5, d=1)
    rng = np.random.default_rng(0)
    keep = [rng.random(30) > 0.3 for _ in times]
    holes = [np.where(k[:, None], y, np.nan) for k, y in zip(keep, values, strict=True)]
    one = smooth(times, holes)
    other = smooth([t[k] for t, k in zip(times, keep, strict=True)], [y[k] for y, k in zip(values, keep, strict=True)])
    for a, b in zip(one.states + one.knots, other.states + other.knots, strict=True):
        np.testing.assert_array_equal(a, b)
    assert one.noise == other.noise


def test_variables_missing_at_different_times_are_smoothed_on_their_own_times():
    times, clean, values = noisy_waves(60, 3, 0.05, seed=5, d=2)
    rng = np.random.default_rng(0)
    draws = [rng.random((60, 1)) for _ in values]
    holes = [np.where(abs(u - [0.1, 0.6]) < 0.1, np.nan, y) for u, y in zip(draws, values, strict=True)]
    holes[0][:, 1] = np.nan
    result = smooth(times, holes)
    assert np.isnan(result.states[0][:, 1]).all() and np.isfinite(result.states[0][:, 0]).all()
    assert np.abs(result.states[1] - clean[1]).max() < 0.15
    np.testing.assert_allclose(result.noise, 0.05, rtol=0.15)
    for i in range(2):  # alone, with the strength that was chosen
        rows = np.isfinite(holes[2][:, i])
        oracle = make_smoothing_spline(times[2][rows], holes[2][rows, i], lam=result.strengths[i])
        np.testing.assert_allclose(result.states[2][rows, i], oracle(times[2][rows]), atol=1e-8)


def test_repeated_rows_equal_weights():
    times, _, values = noisy_waves(25, 2, 0.1, seed=7)
    copies = np.array([1, 2, 3, 1, 1] * 5)
    one = smooth(times, values, [copies.astype(float)] * 2)
    other = smooth([np.repeat(t, copies) for t in times], [np.repeat(y, copies, axis=0) for y in values])
    for a, b in zip(one.states, other.states, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)


def test_order_scale_and_shift_change_nothing_else():
    times, _, values = noisy_waves(25, 3, 0.1, seed=8)
    one = smooth(times, values)
    order = np.random.default_rng(0).permutation(25)
    other = smooth([1e4 * t[order] - 3.0 for t in times], [1e-6 * y[order] + 2e-6 for y in values])
    np.testing.assert_array_equal(one.moves, other.moves)
    np.testing.assert_allclose(1e-6 * one.noise, other.noise, rtol=1e-6)
    for a, b in zip(one.states, other.states, strict=True):
        np.testing.assert_allclose(1e-6 * a + 2e-6, b, atol=1e-12)


def test_constant_variables_do_not_move_and_slow_ones_do():
    rng = np.random.default_rng(0)
    t = np.linspace(0.0, 1.0, 50)
    times = [t] * 8
    columns = [
        np.full(50, 7.0),
        np.full(50, 1e9),
        np.zeros(50),
        np.zeros(50),
        0.1 * t,
        np.sin(20 * t),
        (-1.0) ** np.arange(50),
    ]
    noise = np.array([0.0, 1e-3, 1.0, 0.0, 0.1, 0.3, 0.1])  # 1e-3 of 1e9 is rounding
    values = [np.stack(columns, axis=1) + noise * rng.standard_normal((50, 7)) for _ in times]
    result = smooth(times, values)
    assert result.moves.tolist() == [False, False, False, False, True, True, True]
    np.testing.assert_allclose(result.noise[[0, 2, 3]], [0.0, 1.0, 0.0], atol=0.1)
    assert (result.states[0][:, ~result.moves] == result.states[0][:1, ~result.moves]).all()


@pytest.mark.parametrize(("n", "n_trajectories"), [(5, 140), (30, 2), (12, 1)])
def test_white_noise_is_taken_for_movement_no_more_often_than_stated(n, n_trajectories):
    rng = np.random.default_rng(1)
    times = [np.arange(n) ** 1.3] * n_trajectories
    result = smooth(times, [5.0 + rng.standard_normal((n, 1500)) for _ in times])
    assert result.moves.mean() < 0.018


def test_one_and_two_points_are_left_as_they_are():
    times = [np.array([0.0]), np.array([0.0, 1.0]), np.linspace(0.0, 5.0, 30)]
    values = [np.array([[3.0]]), np.array([[1.0], [-1.0]]), np.sin(np.linspace(0.0, 5.0, 30))[:, None]]
    result = smooth(times, values)
    np.testing.assert_array_equal(result.states[0], values[0])
    np.testing.assert_array_equal(result.states[1], values[1])
    alone = smooth(times[:2], values[:2])
    assert alone.moves.all() and np.isnan(alone.noise).all()


def test_times_far_closer_than_usual_are_merged():
    t = np.sort(np.append(np.arange(40.0), [3.0, 7.0 + 1e-6]))
    result = smooth([t], [np.sin(0.3 * t)[:, None]])
    assert len(result.knots[0]) == 40
    assert np.diff(result.knots[0]).min() > 0.9


def test_long_series_cost_grows_linearly_and_has_no_seams():
    t = np.linspace(0.0, 100.0, 6000)
    values = np.sin(t)[:, None] + 0.2 * np.random.default_rng(0).standard_normal((6000, 2))
    result = smooth([t], [values])
    assert np.abs(result.states[0] - np.sin(t)[:, None]).max() < 0.15
    _, slopes = path(result.knots[0], result.states[0], t)
    assert np.sqrt(np.mean((slopes - np.cos(t)[:, None]) ** 2)) < 0.15


def test_path_is_the_natural_spline_inside_and_a_line_outside():
    knots = np.array([0.0, 1.0, 1.5, 4.0])
    states = np.array([[0.0, np.nan], [1.0, 1.0], [0.0, 1.0], [2.0, 1.0]])
    times = np.linspace(-1.0, 5.0, 25)
    values, slopes = path(knots, states, times)
    oracle = CubicSpline(knots, states[:, 0], bc_type="natural")
    inside = (times >= 0.0) & (times <= 4.0)
    np.testing.assert_allclose(values[inside, 0], oracle(times[inside]))
    np.testing.assert_allclose(slopes[inside, 0], oracle(times[inside], 1))
    np.testing.assert_allclose(values[-1, 0], 2.0 + oracle(4.0, 1))
    assert np.isnan(values[:, 1]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], []), "one array for each"),
        (([np.arange(3.0)], [np.ones(3)]), "must agree"),
        (([np.array([0.0, np.nan])], [np.ones((2, 1))]), "finite"),
        (([np.arange(2.0)], [np.ones((2, 1))], [np.array([1.0, 0.0])]), "positive"),
    ],
)
def test_wrong_arguments_are_explained(arguments, message):
    with pytest.raises(ValueError, match=message):
        smooth(*arguments)


def test_uneven_series_of_a_hundred_thousand_points_are_smoothed_up_to_a_straight_line():
    rng = np.random.default_rng(0)
    n = 100_000
    times = np.sort(np.concatenate([rng.uniform(0, 1, n // 4), rng.uniform(0, n, n - n // 4)]))
    values = 3.0 - 2.0 * (times / times[-1])[:, None] + 0.1 * rng.standard_normal((n, 1))
    grid = BandedGrid.build((times - times[0]) / (times[-1] - times[0]) * (n - 1), np.ones(n))
    strengths = np.geomspace(1e-4, 1e20, 9)
    residual = grid.residual(values, strengths)[:, 0]
    freedom = grid.residual_freedom(strengths[[0, -1]])
    assert np.isfinite(residual).all() and (np.diff(residual) > -1e-5 * residual[-1]).all()
    assert residual[-1] / freedom[-1] == pytest.approx(0.01, rel=0.02)  # the noise about the line, and two parameters


def test_an_uneven_penalty_is_that_of_a_fine_path_whose_bends_cost_what_they_should():
    rng = np.random.default_rng(0)
    knots, values = np.linspace(0.0, 12.0, 13), rng.standard_normal((13, 1))
    stiffness, strength, per = np.geomspace(0.01, 5.0, 12), 0.3, 60
    # min |y - x|^2 + strength * sum over a fine grid of s(t) x''(t)^2 dt, the data at every sixtieth point
    n, step = 12 * per + 1, 1.0 / per
    bends = (np.eye(n - 2, n) - 2.0 * np.eye(n - 2, n, 1) + np.eye(n - 2, n, 2)) / step**2
    cost = stiffness[np.minimum((np.arange(1, n - 1) - 0.5) // per, 11).astype(int)]
    seen = np.zeros((13, n))
    seen[np.arange(13), np.arange(13) * per] = 1.0
    system = seen.T @ seen + strength * step * bends.T @ (cost[:, None] * bends)
    fine = np.linalg.solve(system, seen.T @ values)[::per]
    for kind in (SpectralGrid, BandedGrid):
        found = kind.build(knots, np.ones(13), stiffness).fit(values, np.array([strength]))
        np.testing.assert_allclose(found, fine, atol=0.02 * np.ptp(fine))
        even = kind.build(knots, np.ones(13)).fit(values, np.array([strength]))
        same = kind.build(knots, np.ones(13), np.full(12, 2.0)).fit(values, np.array([strength / 2.0]))
        np.testing.assert_allclose(same, even, atol=1e-9)
        assert np.abs(even - fine).max() > 0.1 * np.ptp(fine)


def test_bends_are_mean_squares_of_second_derivatives_by_the_time_since_a_path_began():
    elapsed = np.linspace(0.0, 4.0, 401)
    rates = np.array([1.0, 1.0, 2.0])
    curves = [
        Curve(np.array([0, 1, 2]), elapsed, a * np.exp(-rates * elapsed[:, None]) * np.array([1.0, 1e3, 1.0]))
        for a in (0.5, -2.0)
    ]
    flat = np.array([True, True, False])  # one that does not move has no say
    found = find_bends(curves, flat, 1e3)
    edges = np.linspace(0.0, 4.0, BINS + 1)
    exact = -np.diff(np.exp(-2.0 * edges)) / np.diff(edges)  # of exp(-t)'' squared, times two
    np.testing.assert_allclose(found.elapsed, (edges[1:] + edges[:-1]) / 2, rtol=1e-6)
    np.testing.assert_allclose(found.amount, np.maximum(exact, LEAST * exact[0]) / exact.mean(), rtol=0.02)
    assert found.price(np.exp(2.0)) == pytest.approx(BINS - 1)
    np.testing.assert_allclose(found.at(found.elapsed), found.amount)
    assert find_bends(curves, flat, 30.0) is None and find_bends([], flat, 1e3) is None
    assert find_bends(curves, np.zeros(3, dtype=bool), 1e3) is None


def test_a_path_bends_as_its_own_bends_nearby_and_those_of_all_say():
    elapsed = np.linspace(0.0, 6.0, 61)
    knee = np.where(elapsed > 4.0, (elapsed - 4.0) ** 2, 0.0)[:, None] * np.array([1.0, -5.0])
    quiet = 1e-9 * knee[::-1]
    curves = [Curve(np.array([0, 1]), elapsed, x) for x in (knee, quiet)]
    moves, dof = np.ones(2, dtype=bool), np.full(2, 24.0)  # 12 parameters for each path: one every half unit of time
    one, other = own_bends(curves, moves, None, dof)
    n = WINDOW * 2
    # The first path has all squares of both: twelve units of time, of which they are in two.
    np.testing.assert_allclose(one[5:30], PRIOR / (PRIOR + n), rtol=1e-3)
    np.testing.assert_allclose(one[50], (PRIOR + n * 6.0) / (PRIOR + n), rtol=0.1)
    np.testing.assert_allclose(other, PRIOR / (PRIOR + n), rtol=1e-3)
    late = Bends(np.array([0.0, 3.0, 3.2, 6.0]), np.array([1e-3, 1e-3, 1.0, 1.0]))
    np.testing.assert_allclose(own_bends(curves, moves, late, dof)[0][5:20], one[5:20] * 1e-3, rtol=1e-3)
    np.testing.assert_allclose(own_bends(curves, moves, late, dof)[0][50], one[50], rtol=1e-3)
    still = own_bends(curves, ~moves, late, dof)
    np.testing.assert_allclose(still[0], late.at(curves[0].middles))


@pytest.mark.parametrize(
    "make",
    [
        partial(make_hill_network, n_trajectories=20, n_times=30),
        partial(make_lorenz63, n_trajectories=20, n_times=40),
        partial(make_lotka_volterra, n_trajectories=20, n_times=40),
    ],
)
def test_paths_that_bend_unevenly_are_smoothed_better_than_with_one_penalty_for_all_times(make):
    ratios = []
    for seed in range(3):
        system = make(noise=0.05, random_state=seed)
        found = smooth(system.times, system.states)
        even = smooth(system.times, system.states, even=True)
        assert found.uneven and not even.uneven
        errors = [
            np.concatenate([np.diff(x - y, axis=0) for x, y in zip(some.states, system.clean_states, strict=True)])
            for some in (found, even)
        ]
        ratios.append(np.sqrt((errors[0] ** 2).mean() / (errors[1] ** 2).mean()))
    assert np.mean(ratios) < 0.95


def test_paths_that_bend_everywhere_alike_are_smoothed_as_well_as_with_one_penalty():
    times, clean, values = noisy_waves(60, 8, 0.1, seed=0)
    found = smooth(times, values)
    even = smooth(times, values, even=True)
    errors = [np.square(np.concatenate(some.states) - np.concatenate(clean)).mean() for some in (found, even)]
    assert errors[0] < 1.02 * errors[1]
