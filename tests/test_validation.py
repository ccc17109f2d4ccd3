"""Bad input is refused with a message that names the remedy; good input is not."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.datasets import make_regression

from skode import _question_checks as questions
from skode import _validation as check
from skode._layout import Layout
from skode._names import check_names, variable_names
from skode.builders import from_trajectories


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("n_states", [1, 2, 5])
def test_states_and_times_in_the_place_of_x_and_y_are_recognised(rng, n_states):
    t = np.sort(rng.uniform(0, 9, 60))
    states = np.sin(t[:, None] + np.arange(n_states)) + 0.05 * rng.normal(size=(60, n_states))
    with pytest.raises(ValueError, match="from_trajectories"):
        questions.check_not_times(states, t[:, None])


@pytest.mark.parametrize("start", ["first", "each", 3])
@pytest.mark.parametrize("n_trajectories", [1, 4])
def test_growing_one_dimensional_data_are_not_mistaken_for_times(rng, start, n_trajectories):
    times = [np.sort(rng.uniform(0, 2, 20)) for _ in range(n_trajectories)]
    X, y, _ = from_trajectories([np.exp(t) for t in times], times, start=start)
    order = np.argsort(y[:, 0], kind="stable")
    moved = X[:, 0] > 0
    for rows in (np.arange(len(X)), order, np.flatnonzero(moved), order[::-1], order[moved[order]]):
        questions.check_not_times(X[rows], y[rows])


def test_sorted_static_data_are_not_mistaken_for_times(rng):
    for seed in range(50):
        X, y = make_regression(n_samples=20, n_features=3, random_state=seed)
        questions.check_not_times(X, np.sort(y)[:, None])
        questions.check_not_times(rng.normal(size=(20, 1)), np.sort(y)[:, None])


@pytest.mark.parametrize("X", [np.zeros((2, 3, 4)), [np.zeros((3, 4)), np.zeros((2, 4))]])
def test_raw_trajectories_are_refused(X):
    with pytest.raises(ValueError, match="from_trajectories"):
        questions.check_not_raw(X)


@pytest.mark.parametrize("X", [np.zeros((2, 3)), [[1.0, 2.0]], [1.0], [], None, [np.zeros(3)]])
def test_other_things_are_left_to_scikit_learn(X):
    questions.check_not_raw(X)


def test_targets_name_what_is_wrong():
    y = np.ones((4, 2))
    questions.check_targets(y)
    y[1, 0] = -np.inf
    with pytest.raises(ValueError, match="row 1, variable 'x0'"):
        questions.check_targets(y)
    y[:, 0] = [np.nan, np.nan, np.nan, 1]
    questions.check_targets(y)
    with pytest.raises(ValueError, match="only NaN for prey"):
        questions.check_targets(y, sample_weight=np.array([1.0, 1, 1, 0]), names=["prey", "fox"])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, 2], r"shape \(3,\); got shape \(2,\)"),
        (np.ones((3, 1)), "one-dimensional"),
        ([1.0, -2, 3], "got -2"),
        ([1.0, np.nan, 3], "got nan"),
        ([0.0, 0, 0], "only zeros"),
    ],
)
def test_bad_weights_are_named(weights, message):
    with pytest.raises(ValueError, match=message):
        check.check_weights(weights, 3)


def test_weights_are_copied_and_default_to_ones():
    given = np.array([1.0, 2, 0])
    found = check.check_weights(given, 3)
    found[0] = 9
    assert given[0] == 1
    assert check.check_weights(None, 2).tolist() == check.check_weights(1.0, 2).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([], r"got shape \(0,\)"),
        ([1, 2], "one label per row"),
        ([1.0, np.nan, 2], "missing labels"),
        (np.array(["a", None, "b"], dtype=object), "missing labels"),
        (np.array(["a", 1, "b"], dtype=object), "got int, str"),
    ],
)
def test_bad_groups_are_named(groups, message):
    with pytest.raises(ValueError, match=message):
        check.check_groups(groups, 3)


def test_good_groups_pass():
    assert check.check_groups(None, 3) is None
    assert check.check_groups(["b", "a", "b"], 3).tolist() == ["b", "a", "b"]


def test_time_must_pass():
    questions.check_dynamics(np.array([0.0, 1.0]))
    with pytest.raises(ValueError, match="n_samples = 1 rows, all at t = 0"):
        questions.check_dynamics(np.zeros(1))


def test_negative_times_warn_once():
    with pytest.warns(UserWarning, match="2 rows with t < 0") as caught:
        questions.warn_backwards(np.array([-1.0, -2.0, 3.0]))
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        questions.warn_backwards(np.array([0.0, 1.0]))


@pytest.mark.parametrize("pattern", ["initial_{}", "{}_0", "{}", "x0[{}]"])
@pytest.mark.parametrize("states", [["g1", "g2", "g3"], ["prey", "fox"], ["only"], ["a_x", "b_x"]])
def test_names_may_carry_a_common_prefix_and_suffix(pattern, states):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_names(["t", *map(pattern.format, states)], states, Layout(len(states), 0))


@pytest.mark.parametrize("pattern", ["initial_{}", "{}_0", "{}"])
def test_names_in_another_order_raise(pattern):
    with pytest.raises(ValueError, match="in the order of y's columns"):
        check_names(["t", *map(pattern.format, ["g2", "g1", "g3"])], ["g1", "g2", "g3"], Layout(3, 0))


@pytest.mark.parametrize(("initial", "states"), [(["p", "q"], ["a", "b"]), (["p"], ["a"])])
def test_other_names_warn(initial, states):
    with pytest.warns(UserWarning, match="taken in this order"):
        check_names(["t", *initial], states, Layout(len(states), 0))


def test_nameless_data_pass():
    check_names(None, ["a"], Layout(1, 0))
    check_names(["t", "b"], None, Layout(1, 0))
    check_names(["t"], ["a"], Layout(1, 0, time_only=True))


def test_variables_are_named_by_columns_or_by_number():
    layout = Layout(2, 1, start_time=True)
    assert variable_names(None, None, layout) == (("x0", "x1"), ("u0",))
    assert variable_names(["t", "p", "q", "s", "dose"], ["a", "b"], layout) == (("a", "b"), ("dose",))


@pytest.mark.parametrize(
    ("x_names", "y_names", "time_node"),
    [
        (["t", "p", "q", "a"], ["a", "b"], False),
        (None, ["u0", "b"], False),
        (None, ["t", "b"], True),
        (None, ["b", "b"], False),
    ],
)
def test_names_that_collide_raise(x_names, y_names, time_node):
    with pytest.raises(ValueError, match="more than once"):
        variable_names(x_names, y_names, Layout(2, 1), time_node=time_node)


def test_a_state_may_be_called_t_where_time_is_no_node():
    assert variable_names(None, ["t", "b"], Layout(2, 0)).states == ("t", "b")
