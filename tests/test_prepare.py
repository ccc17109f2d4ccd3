"""Preparation: interval rows against exact integrals, units, constant states, clocks, and awkward sampling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from threadpoolctl import threadpool_info

from skode import from_trajectories, make_questions
from skode._blas import one_blas_thread
from skode._layout import Layout
from skode._prepare import prepare
from skode._problem import build_problem, forecasts, longest
from skode._steady import SteadyRows
from skode._trajectories import as_trajectories
from skode.datasets import make_independent_decays, make_lotka_volterra

A = np.array([[-0.4, 1.0, 0.0], [-1.0, -0.2, 0.5], [0.0, 0.3, -0.6]])
STARTS = np.array([[1.0, 0.0, 2.0], [-1.0, 1.5, 0.5], [0.5, -2.0, -1.0], [2.0, 1.0, 0.0]])


def solution(start, times):
    """x(t) = exp(A t) x0."""
    return np.stack([expm(A * t) @ start for t in times])


def linear(times, starts=STARTS):
    times = [times] * len(starts) if np.ndim(times[0]) == 0 else times
    return [solution(start, t - t[0]) for start, t in zip(starts, times, strict=True)], times


def prepared(states, times, *, order=1, steady=None, clock=False, **builder):
    X, y, groups = from_trajectories(states, times, absolute_time=clock, **builder)
    return ask(X, y, groups, order=order, steady=steady, clock=clock)


def ask(X, y, groups=None, *, order=1, steady=None, clock=False, origin="input", velocity="given"):
    layout = Layout.infer(
        X.shape[1],
        y.shape[1],
        order=order,
        time_dependent=clock,
        time_origin=origin,
        initial_velocity=velocity,
    )
    found = as_trajectories(X, y, layout=layout, groups=groups)
    return prepare(found, order=order, time_dependent=clock, steady=steady)


def user_nodes(p, d=3):
    return p.scales.user_states(p.nodes[..., :d])


def test_slopes_and_gauss_nodes_meet_the_exact_integral_of_a_linear_field():
    times = np.linspace(0.0, 6.0, 80)
    states, _ = linear(times)
    p = prepared(states, times)
    h = times[1]
    exact = np.concatenate([np.diff(x, axis=0) / h for x in states])  # mean of A x over each interval
    user = p.slopes * p.scales.slope_unit()
    assert np.array_equal(p.interval_trajectory, np.repeat(np.arange(4), 79))
    order = match(p, states)
    exact = exact.reshape(4, 79, 3)[order].reshape(-1, 3)
    size = exact.std(axis=0)
    assert (np.abs(user - exact) / size).max() < 2e-3
    by_nodes = (user_nodes(p) @ A.T).mean(axis=1)
    assert (np.abs(by_nodes - exact) / size).max() < 2e-3
    inner = np.tile(np.r_[np.zeros(8, bool), np.ones(63, bool), np.zeros(8, bool)], 4)  # away from the ends
    assert (np.abs(by_nodes - exact) / size)[inner].max() < 1e-5


def match(p, states):
    """Which of the given trajectories each prepared one is: canonical order is not the user's."""
    starts = p.scales.user_states(np.stack([course.start for course in p.courses]))
    return [int(np.abs(np.stack([x[0] for x in states]) - start).sum(axis=1).argmin()) for start in starts]


def test_two_gauss_nodes_integrate_cubics_of_the_clock_exactly():
    times = [np.array([2.0, 2.3, 3.1, 3.2, 4.0]), np.array([5.0, 5.5, 5.7, 7.0])]
    states = [np.sin(t)[:, None] for t in times]
    p = prepared(states, times, clock=True)
    clock = p.scales.clock_mean + p.scales.clock_sd * p.nodes[..., -1]
    first = np.concatenate([t[:-1] for t in times]), np.concatenate([t[1:] for t in times])
    exact = (first[1] ** 4 - first[0] ** 4) / (4 * (first[1] - first[0]))
    assert sorted((clock**3).mean(axis=1)) == pytest.approx(sorted(exact), rel=1e-12)
    assert np.allclose(np.sort(p.origin), np.sort(p.scales.standard_clock(np.array([2.0, 5.0]))))


def test_elapsed_clocks_start_at_zero():
    times = np.linspace(3.0, 5.0, 9)
    X, y, groups = from_trajectories(*linear(times))
    p = ask(X, y, groups, clock=True, origin="zero")
    clock = p.scales.clock_mean + p.scales.clock_sd * p.knot_sources[:, -1]
    assert np.allclose(clock.reshape(4, 9), times - 3.0)
    assert p.knot_sources.shape[1] == 4


def test_a_row_weighs_as_its_interval_is_long_up_to_the_median():
    times = [np.sort(np.random.default_rng(k).uniform(0.0, 3.0, 12)) for k in range(4)]
    states, _ = linear(times)
    p = prepared(states, times)
    gaps = [np.diff(times[k]) / np.median(np.concatenate([np.diff(t) for t in times])) for k in match(p, states)]
    for k, gap in enumerate(gaps):
        mine = p.interval_trajectory == k
        assert np.allclose(p.slope_weights[mine], np.minimum(gap, 1.0)[:, None])
        assert p.interval_place[mine].tolist() == list(range(11))


def test_units_of_states_and_time_leave_no_trace_in_standard_units():
    times = np.linspace(0.0, 4.0, 25)
    states, _ = linear(times)
    noisy = [x + 0.02 * np.random.default_rng(k).standard_normal(x.shape) for k, x in enumerate(states)]
    factor, shift = np.array([10.0, 0.02, 3.0]), np.array([5.0, -1.0, 100.0])
    ours = prepared(noisy, times)
    theirs = prepared([factor * x + shift for x in noisy], 7.0 * times)
    assert np.allclose(ours.nodes, theirs.nodes, atol=1e-8)
    assert np.allclose(ours.slopes, theirs.slopes, atol=1e-8)
    assert np.allclose(ours.noise, theirs.noise, rtol=1e-6)
    assert np.allclose(factor / 7.0 * ours.scales.slope_unit(), theirs.scales.slope_unit())
    assert theirs.scales.time_unit == pytest.approx(7.0 * ours.scales.time_unit)


def test_user_units_and_back():
    times = np.linspace(0.0, 4.0, 25)
    states, _ = linear(times)
    p = prepared(states, times, inputs=np.array([[0.0, 5.0], [1.0, 5.0], [2.0, 5.0], [5.0, 5.0]]))
    s = p.scales
    values = np.random.default_rng(0).normal(size=(7, 3))
    assert np.allclose(s.user_states(s.standard_states(values)), values)
    assert s.time_unit == pytest.approx(times[1])
    standard = s.standard_inputs(np.array([[2.0, 5.0]]))
    assert s.input_mean[1] == 5.0 and s.input_sd[1] == 1.0  # a constant input is centred, not blown up
    assert np.allclose(standard, [[0.0, 0.0]])
    assert np.allclose(p.nodes[..., 3:], p.inputs[p.interval_trajectory][:, None])
    inside = np.concatenate([c.path for c in p.courses])
    assert np.allclose(inside.min(axis=0), s.low) and np.allclose(inside.max(axis=0), s.high)
    assert np.allclose(inside.mean(axis=0), 0.0) and np.allclose(inside.std(axis=0), 1.0)


def test_standard_slopes_have_mean_square_near_one():
    times = np.linspace(0.0, 6.0, 60)
    p = prepared(*linear(times))
    assert np.allclose(np.sqrt(np.average(p.slopes**2, weights=p.slope_weights, axis=0)), 1.0, atol=0.05)


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_constant_states_are_found_and_frozen(noise):
    times = np.linspace(0.0, 5.0, 20)
    states, _ = linear(times)
    draw = np.random.default_rng(1)
    level = np.array([-1.0, 0.0, 0.7, 2.0])
    wide = [np.column_stack([x, np.full(20, c)]) for x, c in zip(states, level, strict=True)]
    p = prepared([x + noise * draw.standard_normal(x.shape) for x in wide], times)
    assert p.scales.moving.tolist() == [True, True, True, False]
    assert (p.slopes[:, 3] == 0.0).all()
    assert p.scales.slope_unit()[3] == 0.0
    for course in p.courses:
        assert np.ptp(course.path[:, 3]) < 1e-12
    found = sorted(float(p.scales.user_states(course.path)[0, 3]) for course in p.courses)
    assert found == pytest.approx(level.tolist(), abs=4 * noise / np.sqrt(20) + 1e-9)
    if noise:
        assert p.noise[3] * p.scales.state_sd[3] == pytest.approx(noise, rel=0.35)


def test_a_state_with_one_value_everywhere_has_unit_scale():
    times = np.linspace(0.0, 5.0, 20)
    states, _ = linear(times)
    p = prepared([np.column_stack([x, np.full(20, 7.5)]) for x in states], times)
    assert not p.scales.moving[3] and p.scales.state_sd[3] == 1.0
    assert np.allclose(p.nodes[..., 3], 0.0)


@pytest.mark.parametrize("start", ["each", 2, 3, 5])
@pytest.mark.parametrize("noise", [0.0, 0.02])
@pytest.mark.parametrize("make", [make_lotka_volterra, make_independent_decays])
def test_windows_of_a_moving_system_move(start, noise, make):
    system = make(n_trajectories=4, n_times=16, noise=noise, random_state=0)
    p = prepared(system.states, system.times, start=start)
    assert p.scales.moving.all()
    assert (p.slope_sd > 0).all()


@pytest.mark.parametrize("start", [3, "each"])
def test_windows_are_smoothed_as_the_series_that_they_were_cut_from(start):
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.2, 0.8, 30))
    states = [x + 0.05 * rng.standard_normal(x.shape) for x in linear(times)[0]]
    whole, cut = prepared(states, times), prepared(states, times, start=start)
    assert len(cut.courses) == 4 * (10 if start == 3 else 29) and len(np.unique(cut.groups)) == 4
    np.testing.assert_allclose(cut.noise * cut.scales.state_sd, whole.noise * whole.scales.state_sd, rtol=1e-9)
    found, expected = (p.slopes * p.scales.slope_unit() for p in (cut, whole))
    np.testing.assert_allclose(np.sort(found, axis=0), np.sort(expected, axis=0), atol=1e-9)


def test_velocities_and_accelerations_of_an_oscillation():
    times = np.linspace(0.0, 6.0, 120)
    omega = np.array([1.0, 1.7])
    phases = [0.0, 0.8, 2.0]
    q = [np.sin(omega * times[:, None] + phase) for phase in phases]
    v = [omega * np.cos(omega * times[:, None] + phase) for phase in phases]
    p = prepared(q, times, order=2, velocities=v)
    assert p.scales.order == 2 and p.nodes.shape[-1] == 4
    inner = slice(15, -15)
    order = match(p, q)
    for course, k in zip(p.courses, order, strict=True):
        velocity = course.path[:, 2:] * p.scales.velocity_sd
        assert np.abs(velocity - v[k])[inner].max() < 2e-3
        assert np.allclose(velocity[0], v[k][0])  # the user said so
        assert np.allclose(
            course.start, course.path[0] * [0, 0, 1, 1] + p.scales.standard_start(q[k][:1], None)[0] @ np.eye(2, 4)
        )
    acceleration = (p.slopes * p.scales.slope_unit()).reshape(3, -1, 2)
    for mine, k in zip(acceleration, order, strict=True):
        exact = np.diff(v[k], axis=0) / times[1]
        assert np.abs(mine - exact)[inner].max() < 2e-2


def test_velocities_that_nobody_gave_come_from_the_smooth():
    times = np.linspace(0.0, 6.0, 120)
    q = [np.sin(times + phase)[:, None] for phase in (0.0, 1.0)]
    X, y, groups = from_trajectories(q, times)
    p = ask(X, y, groups, order=2, velocity="inferred")
    for course in p.courses:
        assert course.start.shape == (2,)
        assert course.start[1] == course.path[0, 1]


def test_steady_states_are_rows_without_slope_and_clamped_equations_without_weight():
    times = np.linspace(0.0, 5.0, 20)
    states, _ = linear(times)
    rest = np.array([[0.0, 1.0, -2.0], [3.0, 0.0, 0.5]])
    clamped = np.array([[True, False, False], [False, False, True]])
    steady = SteadyRows(rest, clamped, np.zeros((2, 0)))
    p, without = prepared(states, times, steady=steady), prepared(states, times)
    mine = p.interval_trajectory < 0
    assert mine.sum() == 2 and (p.slopes[mine] == 0).all()
    assert np.allclose(user_nodes(p)[mine], rest[:, None])
    assert ((p.slope_weights[mine] == 0) == clamped).all()
    assert np.allclose(p.slope_weights[mine][~clamped], p.slope_weights[~mine].mean())
    assert np.array_equal(p.nodes[~mine], without.nodes)
    assert np.array_equal(p.scales.state_sd, without.scales.state_sd)


def test_steady_states_of_second_order_systems_do_not_move():
    times = np.linspace(0.0, 6.0, 40)
    q = [np.sin(times + phase)[:, None] for phase in (0.0, 1.0)]
    v = [np.cos(times + phase)[:, None] for phase in (0.0, 1.0)]
    steady = SteadyRows(np.array([[0.3]]), np.zeros((1, 1), bool), np.zeros((1, 0)))
    p = prepared(q, times, order=2, velocities=v, steady=steady)
    assert np.allclose(p.nodes[-1] * np.r_[p.scales.state_sd, p.scales.velocity_sd], [0.3 - p.scales.state_mean[0], 0])


def test_lengths_gaps_signs_and_repetitions_of_time():
    draw = np.random.default_rng(0)
    rows, answers = [], []
    for start, n in zip(STARTS, (5, 9, 2, 30), strict=True):
        t = np.sort(draw.uniform(-1.0, 3.0, n))
        t = np.append(t, t[-1])  # a replicate
        rows.append(make_questions(start[None], t))
        answers.append(solution(start, t) + 0.01 * draw.standard_normal((n + 1, 3)))
        answers[-1][:-2][draw.random((n - 1, 3)) < 0.15] = np.nan
    X, y = np.concatenate(rows), np.concatenate(answers)
    p = ask(X, y)
    starts = np.stack([course.start for course in p.courses])
    assert np.allclose(np.sort(p.scales.user_states(starts), axis=0), np.sort(STARTS, axis=0))
    assert np.isfinite(p.nodes).all() and np.isfinite(p.slopes).all() and (p.slope_weights > 0).all()
    for course in p.courses:
        assert (np.diff(course.times) > 0).all()
        assert course.times[course.given] == 0.0  # the start is a knot although no row holds it
        assert (np.isnan(course.observed) == (course.weights == 0)).all()
        assert course.weights[course.given].sum() == 0  # and no observation
    total = sum(course.weights.sum() for course in p.courses)
    assert total == pytest.approx(np.isfinite(y).sum() / 2)  # in units of the heaviest row, a pair of replicates
    assert len(p.slopes) == sum(len(course.times) - 1 for course in p.courses)


def test_replicates_are_averaged_with_their_weights():
    X = np.array([[0.0, 1.0], [1.0, 1.0], [1.0, 1.0], [2.0, 1.0]])
    y = np.array([[1.0], [2.0], [5.0], [4.0]])
    found = as_trajectories(X, y, layout=Layout.infer(2, 1), sample_weight=np.array([1.0, 2.0, 1.0, 1.0]))
    p = prepare(found, order=1, time_dependent=False)
    (course,) = p.courses
    assert p.scales.user_states(course.observed)[1] == pytest.approx(3.0)
    assert course.weights[:, 0].tolist() == pytest.approx([0.0, 1.0, 1 / 3])  # by the heaviest


def test_a_trajectory_of_its_anchor_alone_adds_no_row():
    times = np.linspace(0.0, 3.0, 10)
    X, y, groups = from_trajectories(*linear(times))
    lonely = np.r_[0.0, 1.0, 1.0, 1.0]
    p = ask(np.vstack([X, lonely]), np.vstack([y, lonely[1:]]))
    assert len(p.courses) == 5 and len(p.slopes) == 4 * 9


def test_a_state_never_observed_in_one_trajectory_rests_at_its_start():
    times = np.linspace(0.0, 3.0, 10)
    states, _ = linear(times)
    X, y, groups = from_trajectories(states, times)
    y[groups == groups[0], 1] = np.nan
    p = ask(X, y, groups)
    assert np.isfinite(p.nodes).all() and np.isfinite(p.slopes).all()
    (k,) = [k for k, course in enumerate(p.courses) if course.weights[:, 1].sum() == 0]
    assert np.allclose(p.scales.user_states(p.courses[k].path)[:, 1], states[0][0, 1])


def test_sources_stand_in_the_order_states_velocities_inputs_clock():
    times = np.linspace(0.0, 6.0, 30)
    q = [np.sin(times + phase)[:, None] for phase in (0.0, 1.0)]
    v = [np.cos(times + phase)[:, None] for phase in (0.0, 1.0)]
    p = prepared(q, [times, times + 4.0], order=2, velocities=v, inputs=np.array([[1.0], [3.0]]), clock=True)
    s = p.scales
    sd = np.r_[s.state_sd, s.velocity_sd, s.input_sd, s.clock_sd]
    user = p.knot_sources * sd + np.r_[s.state_mean, 0.0, s.input_mean, s.clock_mean]
    assert p.knot_sources.shape == (60, 4)
    assert set(user[:, 2].round(9)) == {1.0, 3.0}
    for k, first in ((1.0, 0.0), (3.0, 4.0)):
        mine = np.isclose(user[:, 2], k)
        assert np.allclose(user[mine, 3], first + times)
        assert np.abs(user[mine, 0] - np.sin(times + (k == 3.0))).max() < 1e-2
        assert np.abs(user[mine, 1] - np.cos(times + (k == 3.0)))[2:-2].max() < 0.1


def test_blas_is_back_to_its_threads_after_small_work():
    def threads() -> list[int]:
        return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]

    before = threads()
    with one_blas_thread():
        assert set(threads()) == {1}
    assert threads() == before


def test_windows_span_the_same_time_however_densely_a_path_is_observed():
    spans = {}
    for often in (1, 8, 32):
        times = np.linspace(0.0, 12.0, 24 * often + 1)
        rng = np.random.default_rng(0)
        noisy = [np.sin(times + k)[:, None] + 0.1 * rng.standard_normal((len(times), 1)) for k in range(8)]
        dense = prepared(noisy, [times] * 8)
        problem = build_problem(dense, window=5, starts="refined", dtype=torch.float64, device=torch.device("cpu"))
        assert problem.windows.times.shape[1] - 1 == 5 * dense.oversampling == 5 * problem.oversampling
        spans[often] = float(problem.windows.times[0, -1]) * dense.scales.time_unit
        like = torch.zeros(0, dtype=torch.float64)
        assert forecasts(dense, 2, like).times.shape[1] - 1 == 2 * dense.oversampling
        assert longest(dense) * dense.oversampling >= len(times) - 1
    assert np.ptp(list(spans.values())) < 0.5 * max(spans.values())
