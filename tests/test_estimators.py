"""The estimator end to end: known systems come back, and every promise about predictions and graphs holds."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import warnings

import networkx as nx
import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.linalg import expm
from sklearn.exceptions import ConvergenceWarning

from skode import SparseNODERegressor, SteadyStates, from_trajectories, make_questions
from skode._parameters import available_device
from skode.datasets import make_coupled_oscillators, make_lotka_volterra
from skode.exceptions import DivergedPredictionWarning
from skode.penalties import combinations

COMBINATIONS = list(combinations())
A = np.array([[-0.3, 1.0, 0.0], [-1.2, -0.3, 0.0], [0.0, 0.8, -0.7]])
TIMES = np.linspace(0.0, 4.0, 21)
QUICK = {"hidden_layer_sizes": (4,), "max_iter": 60, "dtype": "float64", "device": "cpu", "random_state": 0}
GOOD = {"hidden_layer_sizes": (6,), "max_iter": 550, "dtype": "float64", "device": "cpu", "random_state": 0}


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def linear_data(n=8, times=TIMES, noise=0.0, matrix=A, seed=0):
    rng = np.random.default_rng(seed)
    starts = rng.normal(size=(n, len(matrix)))
    states = np.stack([[expm(matrix * t) @ start for t in times] for start in starts])
    return states + noise * states.std(axis=(0, 1)) * rng.standard_normal(states.shape)


def solve(law, starts, times):
    """dx/dt = law(t, x) from each start."""
    span = (times[0], times[-1])
    return np.stack([solve_ivp(law, span, x, t_eval=times, rtol=1e-9, atol=1e-10, method="DOP853").y.T for x in starts])


def edges(estimator):
    return estimator.dependency_matrix_ > 0


@pytest.fixture(scope="module")
def linear():
    states = linear_data()
    X, y, groups = from_trajectories(states, TIMES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return SparseNODERegressor(alpha=0.05, **GOOD).fit(X, y, groups=groups), X, y


# --- recovery -----------------------------------------------------------------------------------------------


def test_a_sparse_linear_system_comes_back(linear):
    fitted, X, y = linear
    assert np.array_equal(edges(fitted), A != 0)
    graph = fitted.get_dependency_graph()
    for target, source in np.argwhere(A != 0):
        assert graph.edges[f"x{source}", f"x{target}"]["sign"] == np.sign(A[target, source])
    fresh = np.random.default_rng(5).normal(size=(4, 3))
    truth = np.stack([[expm(A * t) @ start for t in TIMES] for start in fresh])
    assert np.abs(fitted.simulate(fresh, TIMES) - truth).max() < 0.1 * truth.std()
    assert np.abs(fitted.predict_derivative(fresh) - fresh @ A.T).max() < 0.2


def test_the_matrix_is_the_known_jacobian_in_units_of_spread(linear):
    fitted, X, y = linear
    slope_sd = (y @ A.T).std(axis=0)
    expected = np.abs(A) * y.std(axis=0) / slope_sd[:, None]
    np.testing.assert_allclose(fitted.dependency_matrix_, expected, rtol=0.1)
    np.testing.assert_allclose(np.abs(fitted._fitted.effect), expected, rtol=0.1)
    assert np.array_equal(np.sign(fitted._fitted.effect), np.sign(A))
    scores = fitted.dependency_scores_
    assert (scores > 0).all() and scores[A != 0].min() > scores[A == 0].max()


def test_noise_and_gaps_leave_the_graph():
    X, y, groups = from_trajectories(linear_data(n=12, noise=0.03), TIMES)
    y[np.random.default_rng(1).random(y.shape) < 0.2] = np.nan
    fitted = SparseNODERegressor(alpha=0.08, **GOOD).fit(X, y, groups=groups)
    assert np.array_equal(edges(fitted), A != 0)
    assert fitted.score(X, y) > 0.97


@pytest.mark.parametrize("velocity", ["given", "inferred"])
def test_coupled_oscillators_of_second_order_come_back(velocity):
    times, springs = np.linspace(0.0, 6.0, 41), np.array([[0, 1.0, 0], [1.0, 0, 0], [0, 0, 0]])
    stiffness = np.array([1.0, 1.5, 2.0]) + springs.sum(axis=1)
    rng = np.random.default_rng(0)
    starts = rng.normal(size=(10, 6))
    if velocity == "inferred":
        starts[:, 3:] = 0.5 * starts[:, [1, 2, 0]]  # a rule that SONODE can learn
    paths = solve(lambda t, x: np.r_[x[3:], springs @ x[:3] - stiffness * x[:3] - 0.1 * x[3:]], starts, times)
    velocities = paths[:, :, 3:] if velocity == "given" else None
    X, y, groups = from_trajectories(paths[:, :, :3], times, velocities=velocities)
    fitted = SparseNODERegressor(order=2, initial_velocity=velocity, alpha=0.05, **GOOD).fit(X, y, groups=groups)
    assert np.array_equal(edges(fitted), (springs > 0) | np.eye(3, dtype=bool))
    assert fitted.score(X, y) > 0.98
    assert fitted.get_dependency_graph().edges["x1", "x0"]["sign"] == 1
    assert fitted.get_dependency_graph().edges["x0", "x0"]["sign"] == -1


def test_the_generator_of_oscillators_speaks_to_the_estimator():
    system = make_coupled_oscillators(4, 10, 40, n_springs=2, random_state=0)
    X, y, groups = from_trajectories(system.states, system.times, velocities=system.velocities)
    fitted = SparseNODERegressor(order=2, alpha=0.04, **GOOD).fit(X, y, groups=groups)
    assert np.array_equal(edges(fitted), system.adjacency)


def test_inputs_drive_what_they_drive():
    rng = np.random.default_rng(0)
    B = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, -1.5]])
    u, starts = rng.normal(size=(14, 2)), rng.normal(size=(14, 3))
    states = [solve(lambda t, x, u=u_k: A @ x + B @ u, [x], TIMES)[0] for x, u_k in zip(starts, u, strict=True)]
    X, y, groups = from_trajectories(states, TIMES, inputs=u)
    fitted = SparseNODERegressor(alpha=0.05, **GOOD).fit(X, y, groups=groups)
    assert np.array_equal(edges(fitted), np.c_[A, B] != 0)
    graph = fitted.get_dependency_graph()
    assert graph.nodes["u0"]["kind"] == "input" and graph.in_degree("u1") == 0
    assert graph.edges["u0", "x0"]["sign"] == 1 and graph.edges["u1", "x2"]["sign"] == -1
    fresh = solve(lambda t, x: A @ x + B @ [0.5, -0.5], [np.ones(3)], TIMES)
    assert np.abs(fitted.simulate(np.ones(3), TIMES, inputs=[0.5, -0.5]) - fresh).max() < 0.2


@pytest.mark.parametrize("origin", ["zero", "input"])
def test_time_drives_what_it_drives(origin):
    rng = np.random.default_rng(0)
    starts, first = rng.normal(size=(14, 2)), np.zeros(14) if origin == "zero" else rng.uniform(0.0, 3.0, 14)
    clocks = [t + np.linspace(0.0, 4.0, 25) for t in first]
    states = [
        solve(lambda t, x: np.array([-x[0] + 2.0 * np.tanh(t - 2.0), x[0] - x[1]]), [x], clock)[0]
        for x, clock in zip(starts, clocks, strict=True)
    ]
    X, y, groups = from_trajectories(states, clocks, absolute_time=origin == "input")
    fitted = SparseNODERegressor(time_dependent=True, time_origin=origin, alpha=0.2, **GOOD)
    fitted.fit(X, y, groups=groups)
    assert np.array_equal(edges(fitted), [[True, False, True], [True, True, False]])
    graph = fitted.get_dependency_graph()
    assert graph.nodes["t"]["kind"] == "time" and graph.in_degree("t") == 0
    assert graph.edges["t", "x0"]["sign"] == 1
    assert fitted.score(X, y) > 0.98
    clock = np.array([1.0, 2.0, 3.0])
    slopes = fitted.predict_derivative(np.zeros((3, 2)), t=clock)
    assert np.abs(slopes[:, 0] - 2.0 * np.tanh(clock - 2.0)).max() < 0.5 and np.abs(slopes[:, 1]).max() < 0.2


def test_time_alone_is_one_trajectory_with_an_estimated_start():
    t = np.linspace(2.0, 8.0, 60)
    y = np.c_[np.sin(t), np.cos(t)] + 0.01 * np.random.default_rng(0).standard_normal((60, 2))
    fitted = SparseNODERegressor(alpha=0.02, **GOOD).fit(t[:, None], y)
    assert fitted.score(t[:, None], y) > 0.99
    assert np.abs(fitted.predict([[2.0]]) - y[0]).max() < 0.05
    with pytest.raises(ValueError, match="simulate needs a model that was fitted with initial states"):
        fitted.simulate([0.0, 1.0], t)


def test_a_constant_state_drives_and_is_not_driven():
    rng = np.random.default_rng(0)
    starts = rng.normal(size=(12, 3))
    states = solve(lambda t, x: np.array([-x[0] + 1.5 * x[2], x[0] - x[1], 0.0]), starts, TIMES)
    X, y, groups = from_trajectories(states, TIMES)
    fitted = SparseNODERegressor(alpha=0.05, **GOOD).fit(X, y, groups=groups)
    assert np.array_equal(edges(fitted), [[True, False, True], [True, True, False], [False, False, False]])
    assert (fitted.dependency_matrix_[2] == 0).all()
    np.testing.assert_allclose(fitted.predict(X)[:, 2], X[:, 3], rtol=1e-12)  # held at x0
    assert (fitted.predict_derivative(starts)[:, 2] == 0).all()


@pytest.mark.parametrize("driver", [1, 2])
def test_knock_outs_tell_apart_what_trajectories_cannot(driver):
    times, twin = np.linspace(0.0, 3.0, 16), 3 - driver
    law = -np.eye(3)
    law[0, driver] = 1.0
    starts = np.random.default_rng(0).normal(size=(10, 3))
    starts[:, 2] = starts[:, 1]  # whichever of the twins drives x0, the trajectories are the same
    X, y, groups = from_trajectories(solve(lambda t, x: law @ x, starts, times), times)
    held = np.random.default_rng(1).normal(size=(12, 2))
    rest = SteadyStates(np.c_[held[:, driver - 1], held], clamped=np.tile([False, True, True], (12, 1)))
    fitted = SparseNODERegressor(alpha=0.03, **GOOD).fit(X, y, groups=groups, steady_states=rest)
    assert fitted.dependency_matrix_[0, driver] > 5 * fitted.dependency_matrix_[0, twin]
    apart = np.array([[0.0, 1.0, -1.0], [0.5, -1.0, 1.0]])  # where the twins differ, as no trajectory shows
    assert np.abs(fitted.predict_derivative(apart) - apart @ law.T)[:, 0].max() < 0.2


# --- definitions --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def predator():
    system = make_lotka_volterra(8, 40, random_state=0)
    X, y, groups = from_trajectories(system.states, system.times)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return SparseNODERegressor(alpha=0.005, **GOOD).fit(X, y, groups=groups), X, y


def test_the_matrix_is_the_rms_jacobian_over_the_data(predator):
    fitted, X, y = predator
    h = 1e-5
    shifts = [np.array([h, 0.0]), np.array([0.0, h])]
    slope = fitted.predict_derivative
    jacobian = np.stack([(slope(y + s) - slope(y - s)) / (2 * h) for s in shifts], axis=-1)
    law = np.c_[(1.1 - 0.4 * y[:, 1]) * y[:, 0], (0.1 * y[:, 0] - 0.4) * y[:, 1]]
    unit = y.std(axis=0) / law.std(axis=0)[:, None]
    expected = np.sqrt((jacobian**2).mean(axis=0)) * unit
    np.testing.assert_allclose(fitted.dependency_matrix_, expected, rtol=0.03)
    np.testing.assert_allclose(fitted._fitted.effect, jacobian.mean(axis=0) * unit, rtol=0.03, atol=0.01)


def test_a_sign_that_changes_over_the_data_is_zero(predator):
    fitted, X, y = predator
    graph = fitted.get_dependency_graph()
    assert graph.edges["x1", "x0"]["sign"] == -1  # predators eat prey
    assert graph.edges["x0", "x1"]["sign"] == 1
    for name in ("x0", "x1"):
        if graph.has_edge(name, name):
            assert graph.edges[name, name]["sign"] == 0  # growth turns into decline


@pytest.mark.parametrize("member", [c for c in COMBINATIONS if c.penalty in ("none", "group_lasso")], ids=str)
def test_derivatives_are_slopes_of_simulations(member):
    X, y, groups = from_trajectories(linear_data(n=4), TIMES)
    fitted = SparseNODERegressor(member.penalty if member.penalty != "none" else None, field=member.field, **QUICK)
    fitted.fit(X, y, groups=groups)
    starts, h = np.random.default_rng(3).normal(size=(5, 3)), 1e-4
    ahead = fitted.simulate(starts, [h, -h])
    np.testing.assert_allclose((ahead[:, 0] - ahead[:, 1]) / (2 * h), fitted.predict_derivative(starts), atol=1e-5)


def test_second_derivatives_are_curvatures_of_simulations():
    system = make_coupled_oscillators(2, 5, 20, random_state=0)
    X, y, groups = from_trajectories(system.states, system.times, velocities=system.velocities)
    fitted = SparseNODERegressor(order=2, **QUICK).fit(X, y, groups=groups)
    starts, h = np.random.default_rng(3).normal(size=(5, 4)), 1e-3
    # The interpolant between grid points has the curvature of a cubic; on the grid there is none.
    fitted._fitted = dataclasses.replace(fitted._fitted, step=h / fitted._fitted.scales.time_unit)
    q = fitted.simulate(starts, [-h, 0.0, h])
    np.testing.assert_allclose((q[:, 2] - q[:, 0]) / (2 * h), starts[:, 2:], atol=1e-4)
    np.testing.assert_allclose(
        (q[:, 2] - 2 * q[:, 1] + q[:, 0]) / h**2, fitted.predict_derivative(starts), rtol=1e-3, atol=1e-3
    )


def test_simulate_asks_what_predict_asks(linear):
    fitted, X, y = linear
    starts, t = np.random.default_rng(2).normal(size=(3, 3)), np.array([0.3, 2.7, 0.0, 1.1])
    by_rows = fitted.predict(make_questions(starts, t)).reshape(3, 4, 3)
    assert np.array_equal(fitted.simulate(starts, t), by_rows)
    own = np.array([t, t + 0.1, t + 0.2])
    each = np.stack([fitted.simulate(x, row)[0] for x, row in zip(starts, own, strict=True)])
    np.testing.assert_allclose(fitted.simulate(starts, own), each, rtol=1e-12, atol=1e-12)
    assert np.array_equal(fitted.simulate(starts, [0.0])[:, 0], starts)


def test_a_row_is_answered_as_if_it_were_alone(linear):
    fitted, X, y = linear
    together = fitted.predict(X)
    assert together.dtype == np.float64
    rows = np.random.default_rng(0).permutation(len(X))[:25]
    np.testing.assert_allclose(fitted.predict(X[rows]), together[rows], rtol=1e-12, atol=1e-12)
    for row in rows[:8]:
        np.testing.assert_allclose(fitted.predict(X[[row]])[0], together[row], rtol=1e-12, atol=1e-12)
    far = X[[3]] * [[30.0, 1.0, 1.0, 1.0]]
    np.testing.assert_allclose(fitted.predict(np.r_[X, far])[:-1], together, rtol=1e-12, atol=1e-12)


def test_the_published_solver_agrees_at_predict(linear):
    fitted, X, y = linear
    groups = np.unique(X[:, 1:], axis=0, return_inverse=True)[1].reshape(-1)
    adaptive = SparseNODERegressor(method="dopri5", **QUICK).fit(X[groups < 4], y[groups < 4])
    fixed = SparseNODERegressor(**QUICK).fit(X[groups < 4], y[groups < 4])
    adaptive._fitted.weights.update(fixed._fitted.weights)
    assert np.abs(adaptive.predict(X) - fixed.predict(X)).max() < 1e-4


def test_backwards_in_time():
    states = linear_data(n=6)
    t = TIMES - 2.0
    X = np.concatenate([make_questions(x[10][None], t) for x in states])
    with pytest.warns(UserWarning, match="negative"):
        fitted = SparseNODERegressor(alpha=0.05, **GOOD).fit(X, states.reshape(-1, 3))
    assert np.array_equal(edges(fitted), A != 0)
    assert fitted.score(X, states.reshape(-1, 3)) > 0.99
    assert np.abs(fitted.simulate(states[0, 10], t)[0] - states[0]).max() < 0.2


def test_one_column_of_y_gives_one_axis_back():
    states = linear_data(n=6, matrix=np.array([[-0.8]]))
    X, y, groups = from_trajectories(states, TIMES)
    fitted = SparseNODERegressor(**QUICK).fit(X, y.ravel(), groups=groups)
    assert fitted.predict(X).shape == (len(X),)
    assert np.array_equal(fitted.predict(X), SparseNODERegressor(**QUICK).fit(X, y, groups=groups).predict(X)[:, 0])


# --- the box ------------------------------------------------------------------------------------------------


def test_predictions_that_leave_the_box_are_held_at_its_edge_with_one_warning():
    times = np.linspace(0.0, 2.0, 11)
    X, y, groups = from_trajectories(linear_data(n=6, times=times, matrix=np.diag([1.0, -1.0])), times)
    fitted = SparseNODERegressor(alpha=0.05, **GOOD).fit(X, y, groups=groups)
    rows = make_questions(np.array([[1.0, 1.0], [0.0, 1.0]]), [1.0, 30.0, 60.0])
    with pytest.warns(DivergedPredictionWarning, match="ten times the training box") as caught:
        states, status = fitted.predict(rows, return_status=True)
    assert len([w for w in caught if w.category is DivergedPredictionWarning]) == 1
    assert np.isfinite(states).all()
    assert status.tolist()[:3] == [0, 1, 1] and status.dtype == np.int64
    assert np.array_equal(states[1], states[2])  # held for ever
    low, high = y.min(axis=0), y.max(axis=0)
    centre, half = (low + high) / 2, np.maximum((high - low) / 2, y.std(axis=0))
    assert (np.abs(states - centre) <= 10.2 * half).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sound, fine = fitted.predict(X, return_status=True)
    assert (fine == 0).all() and np.array_equal(sound, fitted.predict(X))


# --- options ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("member", COMBINATIONS, ids=str)
def test_training_through_the_solver_lowers_the_loss_under_every_penalty(member):
    times = np.linspace(0.0, 2.0, 6)
    X, y, groups = from_trajectories(linear_data(n=3, times=times), times)
    fitted = SparseNODERegressor(
        member.penalty if member.penalty != "none" else None,
        alpha=0.002,
        field=member.field,
        gates=member.gates,
        training="trajectory",
        **{**QUICK, "max_iter": 40, "learning_rate": 0.02},
    ).fit(X, y, groups=groups)
    assert list(fitted.history_) == ["trajectory"]
    loss = fitted.history_["trajectory"]["loss"]
    assert np.isfinite(loss).all() and loss[-3:].mean() < 0.7 * loss[0]
    assert np.isfinite(fitted.predict(X)).all()


def test_refined_starts_follow_noisy_observations_closer():
    X, y, groups = from_trajectories(linear_data(n=20, noise=0.3), TIMES)
    losses = {}
    for choice in ("observed", "refine"):
        fitted = SparseNODERegressor(None, initial_state=choice, training="trajectory", **QUICK)
        losses[choice] = fitted.fit(X, y, groups=groups).history_["trajectory"]["loss"][-1]
    assert losses["refine"] < 0.9 * losses["observed"]


@pytest.mark.parametrize("choice", ["observed", "refine"])
def test_predictions_start_where_they_are_told(choice):
    X, y, groups = from_trajectories(linear_data(n=6, noise=0.1), TIMES)
    fitted = SparseNODERegressor(initial_state=choice, **QUICK).fit(X, y, groups=groups)
    np.testing.assert_allclose(fitted.predict(X * [[0, 1, 1, 1]]), X[:, 1:], rtol=1e-9)


def test_single_and_double_precision_agree():
    X, y, groups = from_trajectories(linear_data(noise=0.01), TIMES)
    single, double = (
        SparseNODERegressor(alpha=0.1, **{**GOOD, "dtype": dtype}).fit(X, y, groups=groups)
        for dtype in ("float32", "float64")
    )
    assert np.array_equal(edges(single), edges(double))
    np.testing.assert_allclose(single.dependency_matrix_, double.dependency_matrix_, rtol=0.02, atol=1e-3)
    assert np.abs(single.predict(X) - double.predict(X)).max() < 0.02 * y.std()
    assert single.predict(X).dtype == np.float64


def test_verbose_logs_a_line_per_stage(caplog):
    X, y, groups = from_trajectories(linear_data(n=3), TIMES)
    with caplog.at_level(logging.INFO, logger="skode"):
        SparseNODERegressor(**QUICK).fit(X, y, groups=groups)
        assert not caplog.records
        fitted = SparseNODERegressor(verbose=1, **QUICK).fit(X, y, groups=groups)
    lines = [record.getMessage() for record in caplog.records if record.name == "skode"]
    assert len(lines) == len(fitted.history_)
    assert all(line.startswith(stage) for line, stage in zip(lines, fitted.history_, strict=True))


def test_iterations_that_run_out_are_announced():
    X, y, groups = from_trajectories(linear_data(n=3), TIMES)
    with pytest.warns(ConvergenceWarning, match="Raise max_iter or tol"):
        fitted = SparseNODERegressor(**{**QUICK, "max_iter": 20, "tol": 0.0}).fit(X, y, groups=groups)
    assert fitted.status_ == "max_iter"
    assert fitted.n_iter_ == sum(report["n_iter"] for report in fitted.history_.values())


# --- the graph ----------------------------------------------------------------------------------------------


def test_graphs_survive_every_exporter(linear, tmp_path):
    graph = linear[0].get_dependency_graph()
    assert sorted(graph.nodes(data="kind")) == [("x0", "state"), ("x1", "state"), ("x2", "state")]
    nx.write_graphml(graph, tmp_path / "graph.graphml")
    nx.write_gexf(graph, tmp_path / "graph.gexf")
    nx.write_gml(graph, tmp_path / "graph.gml")
    text = json.dumps(nx.node_link_data(graph, edges="links"))
    back = {
        "graphml": nx.read_graphml(tmp_path / "graph.graphml"),
        "gexf": nx.read_gexf(tmp_path / "graph.gexf"),
        "gml": nx.read_gml(tmp_path / "graph.gml"),
        "json": nx.node_link_graph(json.loads(text), edges="links"),
    }
    for kind, other in back.items():
        assert set(other.nodes) == set(graph.nodes), kind
        assert set(other.edges) == set(graph.edges), kind
        for edge, attributes in graph.edges.items():
            for name in ("weight", "effect", "sign"):
                assert other.edges[edge][name] == pytest.approx(attributes[name]), (kind, name)
            assert {type(value) for value in attributes.values()} <= {float, int}
    buffer = io.BytesIO()
    nx.write_graphml(graph, buffer)
    assert buffer.getvalue()


def test_thresholds_and_counts_keep_the_strongest_edges(linear):
    fitted, X, y = linear
    whole = fitted.get_dependency_graph()
    by_weight = sorted(whole.edges(data="weight"), key=lambda edge: -edge[2])
    strongest = fitted.get_dependency_graph(max_edges=3)
    assert set(strongest.edges) == {edge[:2] for edge in by_weight[:3]}
    cut = by_weight[2][2]
    assert set(fitted.get_dependency_graph(threshold=cut).edges) == {edge[:2] for edge in by_weight if edge[2] > cut}
    assert set(strongest.nodes) == set(whole.nodes)
    matrix = fitted.dependency_matrix_
    for source, target, weight in whole.edges(data="weight"):
        assert matrix[int(target[1:]), int(source[1:])] == weight


@pytest.mark.gpu
def test_the_same_fit_on_cuda():
    X, y, groups = from_trajectories(linear_data(), TIMES)
    there = SparseNODERegressor(alpha=0.05, **{**GOOD, "device": "cuda"}).fit(X, y, groups=groups)
    here = SparseNODERegressor(alpha=0.05, **GOOD).fit(X, y, groups=groups)
    assert np.array_equal(edges(there), edges(here))
    assert np.abs(there.predict(X) - here.predict(X)).max() < 1e-3 * y.std()
    assert all(isinstance(value, np.ndarray) for value in there._fitted.weights.values())


def test_a_model_from_a_machine_with_other_devices_predicts_on_what_is_here(monkeypatch):
    cards = {"n": 2}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cards["n"] > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards["n"])
    assert available_device("cuda:1") == torch.device("cuda:1")
    assert available_device("auto") == torch.device("cuda")
    cards["n"] = 1
    assert available_device("cuda:1") == torch.device("cuda")
    cards["n"] = 0
    assert available_device("cuda:1") == available_device("cuda") == torch.device("cpu")
