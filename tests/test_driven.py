"""Inputs that change in time: fits to series cut into segments, and simulations that go on from change to change."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from skode import (
    DivergedPredictionWarning,
    SparseNODERegressor,
    SparseNODERegressorCV,
    StabilitySelection,
    from_trajectories,
)

STEP = 0.4
QUICK = {"max_iter": 320, "tol": 1.0, "random_state": 0}


def tanks(t, x, u):
    """Three tanks in a row, one pump."""
    flow = np.array([0.9, 0.7, 0.8]) * np.sqrt(np.maximum(x, 1e-9))
    return np.array([u[0] - flow[0], flow[0] - flow[1], flow[1] - flow[2]])


def driven(field, start, inputs, step=STEP):
    """States under inputs that are held from one time to the next."""
    states = [np.asarray(start, dtype=float)]
    for u in inputs[:-1]:
        states.append(solve_ivp(field, (0, step), states[-1], args=(u,), rtol=1e-9, atol=1e-10).y[:, -1])
    return np.array(states)


def record(seed, n, hold=1):
    rng = np.random.default_rng(seed)
    inputs = np.repeat(rng.uniform(0.3, 1.5, (-(-n // hold), 1)), hold, axis=0)[:n]
    return driven(tanks, rng.uniform(0.3, 1.0, 3), inputs), inputs


@pytest.fixture(scope="module")
def fitted():
    states, inputs = record(0, 200)
    X, y, groups = from_trajectories([states], np.arange(200) * STEP, inputs=[inputs])
    return SparseNODERegressor(**QUICK).fit(X, y, groups=groups)


@pytest.fixture(scope="module")
def oscillator():
    """A driven oscillator of which only the position is seen."""

    def field(t, z, u):
        return np.array([z[1], u[0] - z[0] - 0.3 * z[1]])

    rng = np.random.default_rng(1)
    inputs = [np.repeat(rng.normal(size=(8, 1)), 10, axis=0) for _ in range(4)]
    states = [driven(field, rng.normal(size=2), u, 0.2) for u in inputs]
    positions, velocities = [s[:, :1] for s in states], [s[:, 1:] for s in states]
    X, y, groups = from_trajectories(positions, np.arange(80) * 0.2, inputs=inputs, velocities=velocities)
    return SparseNODERegressor(order=2, **QUICK).fit(X, y, groups=groups), states, inputs


def test_a_simulation_is_the_solution_of_the_fitted_field(fitted):
    inputs = record(3, 30)[1]
    start = np.array([0.5, 0.6, 0.7])

    def field(t, x, u):
        return fitted.predict_derivative(x[None], u)[0]

    expected = driven(field, start, inputs)
    got = fitted.simulate(start, np.arange(30) * STEP, inputs=inputs)
    assert got.shape == (1, 30, 3)
    np.testing.assert_allclose(got[0], expected, atol=2e-3)


def test_every_change_starts_where_the_solution_before_ended(fitted):
    inputs = record(4, 20, hold=3)[1]
    got = fitted.simulate([0.5, 0.6, 0.7], np.arange(20) * STEP, inputs=inputs)[0]
    for first in range(0, 19, 3):
        on = np.arange(first, min(first + 4, 20))
        again = fitted.simulate(got[first], (on - first) * STEP, inputs=inputs[first])[0]
        np.testing.assert_allclose(got[on], again, rtol=1e-12, atol=1e-12)


def test_inputs_that_do_not_change_are_constants(fitted):
    starts, times = np.random.default_rng(5).uniform(0.3, 1, (4, 3)), np.array([0.1, 0.5, 0.5, 3.0])
    inputs = np.random.default_rng(6).uniform(0.5, 1, (4, 1))
    constant = fitted.simulate(starts, times, inputs=inputs)
    assert np.array_equal(fitted.simulate(starts, times, inputs=np.repeat(inputs[:, None], 4, axis=1)), constant)


def test_a_trajectory_is_simulated_as_if_it_were_alone(fitted):
    rng = np.random.default_rng(7)
    starts, times = rng.uniform(0.3, 1, (5, 3)), np.cumsum(rng.uniform(0, 1, (5, 12)), axis=1)
    inputs = np.stack([record(seed, 12, hold=1 + seed)[1] for seed in range(5)])
    together = fitted.simulate(starts, times, inputs=inputs)
    for k in range(5):
        assert np.array_equal(fitted.simulate(starts[k], times[k], inputs=inputs[k])[0], together[k])


def test_one_input_that_is_left_alone_cuts_nothing(fitted):
    """The first input also holds before the first time."""
    inputs = np.array([[0.5], [0.5], [1.2], [1.2]])
    got = fitted.simulate([0.5, 0.5, 0.5], [1.0, 2.0, 3.0, 4.0], inputs=inputs)[0]
    early = fitted.simulate([0.5, 0.5, 0.5], [1.0, 2.0, 3.0], inputs=[0.5])[0]
    np.testing.assert_allclose(got[:3], early, rtol=1e-12)
    late = fitted.simulate(got[2], [1.0], inputs=[1.2])[0]
    np.testing.assert_allclose(got[3:], late, rtol=1e-12)


def test_velocities_go_on_where_inputs_change(oscillator):
    model, states, inputs = oscillator
    got = model.simulate(states[0][0], np.arange(80) * 0.2, inputs=inputs[0])[0, :, 0]
    assert np.abs(got - states[0][:, 0]).max() < 0.2 * states[0][:, 0].std()


def test_the_clock_goes_on_where_inputs_change():
    """dx/dt = u sin t, of which the clock is the start time that X gives."""
    rng = np.random.default_rng(8)
    times, step = 2.0 + np.arange(120) * 0.2, 0.2
    inputs = [np.repeat(rng.normal(size=(12, 1)), 10, axis=0) for _ in range(3)]
    states = []
    for u in inputs:
        change = u[:-1, 0] * (np.cos(times[:-1]) - np.cos(times[1:]))
        states.append(np.append(0.0, np.cumsum(change))[:, None])
    X, y, groups = from_trajectories(states, times, inputs=inputs, absolute_time=True)
    model = SparseNODERegressor(time_dependent=True, time_origin="input", **QUICK).fit(X, y, groups=groups)
    given = np.column_stack([np.full(120, 2.0), inputs[0]])
    got = model.simulate([0.0], np.arange(120) * step, inputs=given)[0]
    first = model.simulate([0.0], np.arange(11) * step, inputs=given[0])[0]
    np.testing.assert_allclose(got[:11], first, atol=1e-12)
    on = model.simulate(got[10], np.arange(11) * step, inputs=[2.0 + 10 * step, inputs[0][10, 0]])[0]
    np.testing.assert_allclose(got[10:21], on, atol=1e-9)
    with pytest.raises(ValueError, match="start time.*got one that changes"):
        model.simulate([0.0], np.arange(120) * step, inputs=np.column_stack([times, inputs[0]]))


def test_what_was_held_stays_held(fitted):
    runaway = dataclasses.replace(
        fitted._fitted, scales=dataclasses.replace(fitted._fitted.scales, rate=np.full(3, 1e6))
    )
    model = fitted._twin(runaway)
    inputs = record(9, 10)[1]
    with pytest.warns(DivergedPredictionWarning, match="held at its edge"):
        got = model.simulate([0.5, 0.5, 0.5], np.arange(10) * STEP, inputs=inputs)[0]
    assert np.isfinite(got).all() and (got[2:] == got[1]).all()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda m: m.simulate(np.ones((2, 3)), [0.0, 1.0], inputs=np.ones((2, 3, 1))), r"\(2, 2, m\).*got \(2, 3, 1\)"),
        (lambda m: m.simulate(np.ones(3), [0.0, 1.0], inputs=np.ones((2, 2))), "got 5"),
        (lambda m: m.simulate(np.ones(3), [1.0, 0.5], inputs=np.array([[1.0], [2.0]])), "not fall"),
        (lambda m: m.simulate(np.ones(3), [-1.0, 0.5], inputs=np.array([[1.0], [2.0]])), "start at 0 or later"),
        (lambda m: m.simulate(np.ones(3), [0.0, 0.5], inputs=np.array([[1.0], [np.nan]])), "inputs .*finite"),
    ],
)
def test_inputs_that_cannot_be_followed_are_refused(fitted, call, says):
    with pytest.raises(ValueError, match=says):
        call(fitted)


def test_a_clock_that_restarts_is_refused():
    states, inputs = record(0, 60, hold=10)
    X, y, groups = from_trajectories([states], np.arange(60) * STEP, inputs=[inputs])
    model = SparseNODERegressor(time_dependent=True, **QUICK).fit(X, y, groups=groups)
    with pytest.raises(ValueError, match="time_origin='input'"):
        model.simulate(states[0], np.arange(60) * STEP, inputs=inputs)


# fits


@pytest.mark.parametrize("estimator", [SparseNODERegressorCV, StabilitySelection])
def test_one_series_whose_input_always_changes_can_be_split(estimator):
    states, inputs = record(0, 120)
    X, y, groups = from_trajectories([states], np.arange(120) * STEP, inputs=[inputs])
    model = (
        estimator(n_alphas=3, **QUICK)
        if estimator is SparseNODERegressorCV
        else estimator(SparseNODERegressor(**QUICK), n_pairs=2, random_state=0)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        model.fit(X, y, groups=groups)
    if estimator is SparseNODERegressorCV:
        assert set(model.cv_results_["fold_kind"]) == {"blocks"}
    assert np.isfinite(model.confidence_).all() and np.isfinite(model.identifiability_).all()


def test_trajectories_of_one_interval_that_share_a_group_can_be_judged():
    """They do not hang together, and there is nothing to cut them into."""
    rng = np.random.default_rng(0)
    starts = rng.uniform(0.5, 2.0, (30, 2))
    ends = starts * np.exp(-0.5 * np.array([1.0, 0.5]))
    X, y, _ = from_trajectories(np.stack([starts, ends], axis=1), [0.0, 0.5])
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        model = SparseNODERegressor(**QUICK).fit(X, y, groups=np.zeros(len(X), dtype=int))
    assert np.isfinite(model.identifiability_).all()


@pytest.mark.slow
def test_noise_does_not_drown_a_series_whose_input_always_changes():
    """With 5 % noise a line from state and input to the next state is off by a quarter more, at least."""
    errors = []
    for seed in range(3):
        records = [record(10 * seed + k, 300) for k in range(3)]
        states, inputs = zip(*records, strict=True)
        spread = np.concatenate(states).std(axis=0)
        rng = np.random.default_rng(seed)
        noisy = [s + 0.05 * spread * rng.standard_normal(s.shape) for s in states[:2]]
        X, y, groups = from_trajectories(noisy, np.arange(300) * STEP, inputs=inputs[:2])
        model = SparseNODERegressor(random_state=0).fit(X, y, groups=groups)
        found = model.simulate(states[2][0], np.arange(300) * STEP, inputs=inputs[2])[0]
        before = np.concatenate(
            [np.column_stack([s[:-1], u[:-1], np.ones(299)]) for s, u in zip(noisy, inputs[:2], strict=True)]
        )
        line = np.linalg.lstsq(before, np.concatenate([s[1:] for s in noisy]), rcond=None)[0]
        walk = [states[2][0]]
        for u in inputs[2][:-1]:
            walk.append(np.concatenate([walk[-1], u, [1.0]]) @ line)
        errors.append([np.sqrt((((x - states[2]) / spread) ** 2).mean()) for x in (found, np.array(walk))])
    model_error, line_error = np.median(errors, axis=0)
    assert model_error < 0.8 * line_error
