"""Bad input is refused with a message that names the remedy; good input is not."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from skode import _validation as check
from skode._layout import Layout
from skode._names import check_names, variable_names


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
