"""Trajectories depend on the set of rows alone, bit for bit."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest

from skode._layout import Layout
from skode._trajectories import Trajectories, as_trajectories

LAYOUTS = [
    Layout(2, 0),
    Layout(2, 2),
    Layout(2, 1, order=2),
    Layout(2, 1, start_time=True),
    Layout(2, 0, time_only=True),
]


def assert_identical(one: Trajectories, other: Trajectories) -> None:
    for field in dataclasses.fields(Trajectories):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if a is None or b is None:
            assert a is b
            continue
        assert a.dtype == b.dtype and a.shape == b.shape, field.name
        assert a.tobytes() == b.tobytes(), field.name


@pytest.fixture(params=LAYOUTS, ids=str)
def data(request, rng):
    """Random rows with many ties in every column, missing values and irrational weights."""
    layout = request.param
    X = rng.integers(-1, 2, size=(300, layout.n_columns)) / 3.0
    y = np.sin(rng.integers(0, 4, size=(300, 2)))
    y[rng.random(y.shape) < 0.2] = np.nan
    return layout, X, y, rng.integers(1, 5, size=300).astype(float), rng.integers(0, 3, size=300)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("grouped", [False, True])
def test_order_of_rows_changes_no_bit(data, rng, grouped):
    layout, X, y, weights, groups = data
    weights = weights * np.pi
    p = rng.permutation(len(X))
    assert_identical(
        as_trajectories(X, y, layout=layout, sample_weight=weights, groups=groups if grouped else None),
        as_trajectories(X[p], y[p], layout=layout, sample_weight=weights[p], groups=groups[p] if grouped else None),
    )


@pytest.mark.parametrize("grouped", [False, True])
def test_weights_equal_repetitions_bit_for_bit(data, grouped):
    layout, X, y, weights, groups = data
    index = np.repeat(np.arange(len(X)), weights.astype(int))
    assert_identical(
        as_trajectories(X, y, layout=layout, sample_weight=weights, groups=groups if grouped else None),
        as_trajectories(X[index], y[index], layout=layout, groups=groups[index] if grouped else None),
    )


@pytest.mark.parametrize("grouped", [False, True])
def test_rows_of_weight_zero_change_no_bit(data, rng, grouped):
    layout, X, y, weights, groups = data
    more = rng.normal(size=(50, X.shape[1])) - 5
    assert_identical(
        as_trajectories(X, y, layout=layout, sample_weight=weights, groups=groups if grouped else None),
        as_trajectories(
            np.concatenate([more, X]),
            np.concatenate([rng.normal(size=(50, 2)), y]),
            layout=layout,
            sample_weight=np.concatenate([np.zeros(50), weights]),
            groups=np.concatenate([np.full(50, -7), groups]) if grouped else None,
        ),
    )


def test_negative_zero_is_zero(data):
    layout, X, y, weights, _ = data
    assert_identical(
        as_trajectories(np.where(X == 0, -0.0, X), np.where(y == 0, -0.0, y), layout=layout),
        as_trajectories(X, y, layout=layout),
    )


def test_merged_rows_equal_a_dictionary_of_means(data):
    layout, X, y, weights, groups = data
    found = as_trajectories(X, y, layout=layout, sample_weight=weights, groups=groups)
    table: dict[tuple[float, ...], list[tuple[np.ndarray, float]]] = {}
    for row, state, weight, group in zip(X, y, weights, groups, strict=True):
        if np.isfinite(state).any():
            key = (*row[1:], group, row[0] - (X[:, 0].min() if layout.time_only else 0))
            table.setdefault(key, []).append((state, weight))
    keys = sorted(table)
    assert found.n_rows == len(keys)
    for k, key in enumerate(keys):
        states = np.array([state for state, _ in table[key]])
        shares = np.where(np.isnan(states), 0, np.array([weight for _, weight in table[key]])[:, None])
        with np.errstate(invalid="ignore"):
            mean = (np.nan_to_num(states) * shares).sum(axis=0) / shares.sum(axis=0)
        np.testing.assert_allclose(found.states[k], mean, rtol=1e-14)
        assert found.times[k] == key[-1]
        assert found.weights[k] == sum(weight for _, weight in table[key])
        assert found.groups[found.trajectory[k]] == key[-2]
        own = found.trajectory[k]
        u = np.concatenate(
            [
                [] if layout.time_only else found.initial[own],
                [] if found.velocity is None else found.velocity[own],
                found.origin[[own]] if layout.start_time else [],
                found.inputs[own],
            ]
        )
        np.testing.assert_array_equal(u, key[: len(u)])


def test_equal_observations_average_to_themselves():
    y = np.full((7, 1), 0.1)
    found = as_trajectories(np.ones((7, 2)), y, layout=Layout(1, 0), sample_weight=np.linspace(0.1, 0.7, 7))
    assert found.states.tolist() == [[0.1]]


def test_static_random_rows_are_trajectories_of_one_observation(rng):
    X, y = rng.normal(size=(50, 4)), rng.normal(size=(50, 1))
    found = as_trajectories(X, y, layout=Layout.infer(4, 1))
    assert found.n_trajectories == found.n_rows == 50
    assert not found.anchor.any()
    assert (found.times < 0).any()
    assert len(np.unique(found.groups)) == 50


def test_one_row_is_enough():
    found = as_trajectories(np.array([[-2.0, 1.0, 3.0]]), np.array([[4.0]]), layout=Layout.infer(3, 1))
    assert (found.times.tolist(), found.inputs.tolist()) == ([-2.0], [[3.0]])


def test_no_row_left_raises():
    with pytest.raises(ValueError, match="n_samples = 1"):
        as_trajectories(np.ones((1, 2)), np.array([[np.nan]]), layout=Layout(1, 0))


def test_anchors_are_rows_at_zero_with_y_equal_to_x0():
    X = np.array([[0.0, 1, 2], [1, 1, 2], [0, 5, 6], [0, 7, 8], [2, 7, 8]])
    y = np.array([[1.0, 2], [1, 2], [5, np.nan], [7, 9], [0, 0]])
    found = as_trajectories(X, y, layout=Layout(2, 0))
    assert found.anchor.tolist() == [True, False, True, False, False]


def test_rounded_initial_states_are_set_to_their_anchors():
    rng = np.random.default_rng(1)
    x0, later = rng.normal(size=(20, 3)), rng.normal(size=(20, 3))
    X = np.column_stack([np.repeat([0.0, 1.0], 20), np.tile(x0, (2, 1))])
    y = np.concatenate([x0, later])
    rounded = X.copy()
    rounded[:, 1:] = rounded[:, 1:] * (1 + 1e-15) + 1e-13
    assert_identical(as_trajectories(rounded, y, layout=Layout(3, 0)), as_trajectories(X, y, layout=Layout(3, 0)))


def test_windows_of_one_series_share_a_group():
    rng = np.random.default_rng(2)
    series = rng.normal(size=(3, 6, 2))
    X = np.column_stack([np.ones(15), series[:, :-1].reshape(15, 2)])
    found = as_trajectories(X, series[:, 1:].reshape(15, 2), layout=Layout(2, 0))
    truth = {tuple(state): k for k in range(3) for state in series[k]}
    expected = np.array([truth[tuple(state)] for state in found.initial])
    same = found.groups[:, None] == found.groups
    np.testing.assert_array_equal(same, expected[:, None] == expected)


def test_anchors_do_not_join_experiments_from_one_state():
    X = np.array([[0.0, 1, 0], [1, 1, 0], [0, 1, 1], [1, 1, 1]])
    y = np.array([[1.0], [2], [1], [3]])
    assert as_trajectories(X, y, layout=Layout(1, 1)).groups.tolist() == [0, 1]


def test_users_groups_separate_replicates():
    X, y = np.array([[1.0, 2.0], [1.0, 2.0]]), np.array([[3.0], [5.0]])
    found = as_trajectories(X, y, layout=Layout(1, 0), groups=np.array(["b", "a"]))
    assert found.states.tolist() == [[5.0], [3.0]]
    assert found.groups.tolist() == [0, 1]


def test_time_only_starts_at_the_first_observation_of_each_variable():
    X = np.array([[3.0], [2.0], [2.0], [4.0]])
    y = np.array([[5.0, 6.0], [1.0, np.nan], [3.0, np.nan], [0.0, 0.0]])
    found = as_trajectories(X, y, layout=Layout.infer(1, 2))
    assert found.times.tolist() == [0.0, 1.0, 2.0]
    assert found.initial.tolist() == [[2.0, 6.0]]


def test_select_takes_whole_trajectories(data):
    layout, X, y, weights, groups = data
    whole = as_trajectories(X, y, layout=layout, sample_weight=weights, groups=groups)
    wanted = np.array([2, 0, 0])
    part = whole.select(wanted)
    assert part.n_trajectories == 3
    for new, old in enumerate(wanted):
        rows = whole.trajectory == old
        mine = slice(*part.bounds[new : new + 2])
        for name in ("times", "states", "weights", "anchor"):
            np.testing.assert_array_equal(getattr(part, name)[mine], getattr(whole, name)[rows])
        for name in ("initial", "inputs", "origin", "groups"):
            np.testing.assert_array_equal(getattr(part, name)[new], getattr(whole, name)[old])
    assert_identical(whole.select(np.ones(whole.n_trajectories, dtype=bool)), whole)


def test_keep_drops_rows_and_empty_trajectories(data):
    layout, X, y, weights, groups = data
    whole = as_trajectories(X, y, layout=layout, sample_weight=weights, groups=groups)
    rows = (whole.times > 0) & (whole.trajectory != 1)
    part = whole.keep(rows)
    np.testing.assert_array_equal(part.times, whole.times[rows])
    np.testing.assert_array_equal(whole.initial[whole.trajectory[rows]], part.initial[part.trajectory])
    assert part.n_trajectories == len(np.unique(whole.trajectory[rows]))


def test_inputs_are_not_changed(data):
    layout, X, y, weights, groups = data
    copies = [array.copy() for array in (X, y, weights, groups)]
    for array in (X, y, weights, groups):
        array.setflags(write=False)
    as_trajectories(X, y, layout=layout, sample_weight=weights, groups=groups)
    for array, copy in zip((X, y, weights, groups), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("n_times", [2, 1000])
def test_two_hundred_thousand_rows_tie_quickly(rng, n_times):
    n = 200_000 // n_times
    X = np.column_stack([np.tile(np.arange(n_times), n), np.repeat(rng.normal(size=(n, 5)), n_times, axis=0)])
    y = rng.normal(size=(len(X), 5))
    p = rng.permutation(len(X))
    start = time.process_time()
    found = as_trajectories(X[p], y[p], layout=Layout(5, 0))
    assert time.process_time() - start < 3
    assert found.n_trajectories == n
    np.testing.assert_array_equal(np.diff(found.bounds), n_times)
