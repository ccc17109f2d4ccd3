"""Builders ask the questions that a plain loop over observations would ask."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

from skode._layout import Layout
from skode._names import check_names
from skode._trajectories import as_trajectories
from skode.builders import from_frame, from_trajectories, make_questions


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def series(rng):
    lengths = [5, 1, 8]
    return [rng.normal(size=(n, 2)) for n in lengths], [np.sort(rng.uniform(0, 9, n)) for n in lengths]


def reference(states, times, inputs, breaks, start):
    """Ask by loops: complete states, sorted distinct times."""
    X, y, groups = [], [], []
    for k, (x, t) in enumerate(zip(states, times, strict=True)):
        n = len(t)
        jumps = {min((i for i in range(n) if t[i] >= b), default=None) for b in breaks[k]} | {0}
        changes = {i for i in range(1, n) if (inputs[k][i] != inputs[k][i - 1]).any()}
        for a in sorted((jumps | changes) - {None}):
            later = [b for b in sorted((jumps | changes) - {None}) if b > a]
            end = n - 1 if not later else (later[0] - 1 if later[0] in jumps else later[0])
            if end == a and a not in jumps:
                continue
            step = max(end - a, 1) if start == "first" else (1 if start == "each" else start)
            for s in range(a, max(end, a + 1), step):
                for i in range(s, min(s + step, end) + 1):
                    X.append([t[i] - t[s], *x[s], *inputs[k][s]])
                    y.append(x[i])
                    groups.append(k)
    return np.array(X), np.array(y), np.array(groups)


@pytest.mark.parametrize("start", ["first", "each", 1, 2, 3, 20])
@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("driven", [False, True])
def test_questions_equal_a_loop_over_observations(series, rng, start, broken, driven):
    states, times = series
    inputs = [rng.integers(0, 2, size=(len(t), 1)).astype(float) for t in times]
    breaks = [[t[len(t) // 2]] if len(t) > 1 else [] for t in times] if broken else [[], [], []]
    constant = [np.zeros((len(t), 0)) for t in times]
    found = from_trajectories(
        states, times, inputs=inputs if driven else None, breaks=breaks if broken else None, start=start
    )
    X, y, groups = reference(states, times, inputs if driven else constant, breaks, start)
    np.testing.assert_allclose(found.X, X, rtol=0, atol=0)
    np.testing.assert_array_equal(found.y, y)
    np.testing.assert_array_equal(found.groups, groups)


@pytest.mark.parametrize("start", ["first", "each", 3])
def test_every_interval_is_asked_about_once(series, start):
    states, times = series
    tied = as_trajectories(*from_trajectories(states, times, start=start)[:2], layout=Layout(2, 0))
    assert (~tied.anchor).sum() == sum(len(t) - 1 for t in times)
    assert tied.anchor.sum() == tied.n_trajectories


@pytest.mark.parametrize("start", ["each", 3])
def test_windows_join_into_the_series_they_were_cut_from(series, start):
    states, times = series
    X, y, groups = from_trajectories(states, times, start=start)
    tied = as_trajectories(X, y, layout=Layout(2, 0))
    assert len(np.unique(tied.groups)) == len(states)
    named = as_trajectories(X, y, layout=Layout(2, 0), groups=groups)
    same = tied.groups[:, None] == tied.groups
    order = np.lexsort(tied.initial.T[::-1]), np.lexsort(named.initial.T[::-1])
    codes = named.groups[order[1]][np.argsort(order[0])]
    np.testing.assert_array_equal(same, codes[:, None] == codes)


def test_the_row_of_a_changed_input_ends_one_segment_and_starts_the_next():
    X, y, groups = from_trajectories([[1.0, 2, 3, 4]], [0.0, 1, 2, 3], inputs=[[[5.0], [5], [6], [6]]])
    assert X.tolist() == [[0, 1, 5], [1, 1, 5], [2, 1, 5], [0, 3, 6], [1, 3, 6]]
    assert y.ravel().tolist() == [1, 2, 3, 3, 4]
    assert groups.tolist() == [0] * 5


def test_nothing_connects_the_rows_on_both_sides_of_a_break():
    X, _, _ = from_trajectories([[1.0, 2, 3, 4]], [0.0, 1, 2, 3], breaks=[[1.5]])
    assert X.tolist() == [[0, 1], [1, 1], [0, 3], [1, 3]]


def test_a_change_at_the_last_row_starts_nothing():
    X, _, _ = from_trajectories([[1.0, 2]], [0.0, 1], inputs=[[[0.0], [1]]])
    assert X.tolist() == [[0, 1, 0], [1, 1, 0]]


def test_three_ways_of_passing_the_same_trajectories_agree(rng):
    states, t = rng.normal(size=(3, 4, 2)), np.arange(4.0)
    u = rng.normal(size=(3, 2))
    whole = from_trajectories(states, t, inputs=u)
    for x, times, inputs in [
        (list(states), [t] * 3, list(u)),
        (states, np.tile(t, (3, 1)), np.repeat(u[:, None], 4, axis=1)),
        ([x.tolist() for x in states], t.tolist(), u.tolist()),
        (list(states), t, [u[0], np.tile(u[1], (4, 1)), u[2]]),
    ]:
        other = from_trajectories(x, times, inputs=inputs)
        for a, b in zip(whole, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_one_table_is_one_trajectory(rng):
    x, t, u = rng.normal(size=(4, 2)), np.arange(4.0), rng.normal(size=(4, 1))
    for a, b in zip(from_trajectories(x, t, inputs=u), from_trajectories([x], [t], inputs=[u]), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(from_trajectories(x, t, inputs=[7.0, 8.0]).X[:, 3:], [[7, 8]] * 4)


def test_times_are_sorted_and_repeated_times_averaged():
    X, y, _ = from_trajectories([np.array([[3.0], [1], [5], [np.nan]])], [[1.0, 0, 1, 1]])
    assert X.tolist() == [[0, 1], [1, 1]]
    assert y.ravel().tolist() == [1, 4]


def test_missing_starts_are_dropped_with_one_warning():
    x = np.array([[np.nan, 1.0], [2, 2], [3, np.nan], [4, 4]])
    with pytest.warns(UserWarning, match="1 of 2 have none .* 1 observations before") as caught:
        X, y, groups = from_trajectories([x, np.full((3, 2), np.nan)], [np.arange(4.0), np.arange(3.0)])
    assert len(caught) == 1
    np.testing.assert_array_equal(X, [[0, 2, 2], [1, 2, 2], [2, 2, 2]])
    np.testing.assert_array_equal(y, [[2, 2], [3, np.nan], [4, 4]])
    assert groups.tolist() == [0, 0, 0]


def test_windows_start_in_complete_observations_only():
    x = np.array([[1.0, 1], [2, np.nan], [3, 3], [4, 4]])
    with pytest.warns(UserWarning, match="1 of 3"):
        X, y, _ = from_trajectories(x, np.arange(4.0), start="each")
    assert X[:, 1].tolist() == [1, 1, 3, 3]


def test_missing_starts_are_interpolated_in_time_inside_the_segment():
    x = np.array([[0.0, np.nan], [np.nan, 2], [3, 4], [np.nan, 9], [7, 7]])
    t = np.array([0.0, 1, 3, 4, 5])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        X, y, _ = from_trajectories(x, t, start="each", missing_start="interpolate", breaks=[4.0])
    np.testing.assert_allclose(X[::2, 1:], [[0, 2], [1, 2], [7, 9]])
    np.testing.assert_array_equal(y[::2], x[[0, 1, 3]])
    found = as_trajectories(X, y, layout=Layout(2, 0))
    assert found.anchor.sum() == 3


def test_no_complete_start_raises():
    with pytest.raises(ValueError, match="interpolate"):
        from_trajectories(np.array([[np.nan, 1.0], [1, np.nan]]), [0.0, 1])


def test_absolute_time_and_velocities_fill_their_columns(series):
    states, times = series
    velocities = [x + 10 for x in states]
    X, y, _ = from_trajectories(states, times, velocities=velocities, absolute_time=True, start="each")
    layout = Layout.infer(X.shape[1], 2, order=2, time_dependent=True, time_origin="input")
    assert layout.n_inputs == 0
    np.testing.assert_array_equal(X[:, layout.velocity], X[:, layout.initial] + 10)
    found = as_trajectories(X, y, layout=layout)
    wanted = np.concatenate([t[:-1] if len(t) > 1 else t for t in times])
    np.testing.assert_array_equal(np.sort(found.origin), np.sort(wanted))


def test_frames_keep_their_names():
    frames = [pd.DataFrame({"prey": [1.0, 2], "fox": [3.0, 4]}) for _ in range(2)]
    u = pd.DataFrame({"dose": [0.0, 1]})
    X, y, _ = from_trajectories(frames, [0.0, 1], inputs=u, velocities=frames, absolute_time=True)
    names = ["t", "initial_prey", "initial_fox", "velocity_prey", "velocity_fox", "start_time", "dose"]
    assert list(X.columns) == names
    assert list(y.columns) == ["prey", "fox"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_names(list(X.columns), list(y.columns), Layout(2, 1, order=2, start_time=True))


def test_from_frame_equals_from_trajectories(series, rng):
    states, times = series
    inputs = [rng.integers(0, 2, size=(len(t), 1)) for t in times]
    df = pd.DataFrame(np.concatenate(states), columns=["a", "b"])
    df["time"], df["u"] = np.concatenate(times), np.concatenate(inputs)
    df["who"] = np.repeat(["z", "y", "x"], [len(t) for t in times])
    df["jump"] = np.arange(len(df)) == 9
    X, y, groups = from_frame(df, "who", "time", states=["a", "b"], inputs=["u"], breaks="jump", start=2)
    frames = [pd.DataFrame(x, columns=["a", "b"]) for x in states]
    driven = [pd.DataFrame(u, columns=["u"], dtype=float) for u in inputs]
    expected = from_trajectories(frames, times, inputs=driven, breaks=[[], [], [times[2][3]]], start=2)
    pd.testing.assert_frame_equal(X, expected.X)
    pd.testing.assert_frame_equal(y, expected.y)
    np.testing.assert_array_equal(groups, expected.groups)
    shuffled = from_frame(df[::-1], "who", "time", states=["a", "b"], inputs=["u"], breaks="jump", start=2)
    assert len(shuffled.X) == len(X)


def test_make_questions_lays_columns_out_as_the_builder(series):
    states, times = series
    u = np.arange(6.0).reshape(3, 2)
    X, _, _ = from_trajectories(states, times, inputs=u, velocities=states, absolute_time=True)
    asked = make_questions(
        [x[0] for x in states],
        [t - t[0] for t in times],
        inputs=u,
        velocities=[x[0] for x in states],
        start_time=[t[0] for t in times],
    )
    np.testing.assert_array_equal(asked, X)


def test_make_questions_shares_times_and_inputs():
    X = make_questions([[1.0], [2.0]], [0.0, 3.0], inputs=[9.0])
    assert X.tolist() == [[0, 1, 9], [3, 1, 9], [0, 2, 9], [3, 2, 9]]
    assert make_questions([1.0, 2.0], 5).tolist() == [[5, 1, 2]]
    named = make_questions(pd.DataFrame({"a": [1.0]}), [0.0, 1.0], inputs=pd.DataFrame({"dose": [2.0]}))
    assert list(named.columns) == ["t", "initial_a", "dose"]


x3 = np.arange(6.0).reshape(3, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"states": [], "times": []}, "at least one trajectory"),
        ({"states": [x3, x3[:, :1]], "times": [0.0, 1, 2]}, "one d for all"),
        ({"states": [x3, x3], "times": [[0.0, 1, 2], [0.0, 1]]}, "one entry per observation"),
        ({"states": x3, "times": [0.0, 1, np.nan]}, "times must be finite"),
        ({"states": x3, "times": [0.0, 1, 2], "inputs": [1.0, 2, 3]}, "whether they change in time"),
        ({"states": [x3, x3], "times": [0.0, 1, 2], "inputs": np.ones((3, 1))}, "inputs must be constants"),
        ({"states": [x3, x3], "times": [0.0, 1, 2], "inputs": [[1.0], [1.0, 2.0]]}, "as many"),
        ({"states": x3, "times": [0.0, 1, 2], "inputs": [[[1.0], [2], [np.nan]]]}, "must be finite"),
        ({"states": x3, "times": [0.0, 1, 1], "inputs": [[[1.0], [2], [3]]]}, "one value at each time"),
        ({"states": x3, "times": [0.0, 1, 2], "velocities": x3[:, :1]}, "shapes of states"),
        ({"states": [x3, x3], "times": [0.0, 1, 2], "breaks": [[1.0]]}, "one sequence of times"),
        ({"states": x3, "times": [0.0, 1, 2], "start": 0}, "start must be"),
        ({"states": x3, "times": [0.0, 1, 2], "start": "last"}, "start must be"),
        ({"states": x3, "times": [0.0, 1, 2], "missing_start": "fill"}, "missing_start must be"),
        (
            {"states": [pd.DataFrame(x3, columns=c) for c in (["a", "b"], ["b", "a"])], "times": [0.0, 1, 2]},
            "same order",
        ),
        (
            {
                "states": pd.DataFrame(x3, columns=["a", "b"]),
                "times": [0.0, 1, 2],
                "inputs": pd.DataFrame({"t": [1.0]}),
            },
            "different names",
        ),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        from_trajectories(**arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"states": ["b"]}, "got none named 'b'"),
        ({"states": "a"}, "list of column names"),
        ({"states": ["a"], "velocities": ["a", "a"]}, "one column per state"),
        ({"states": ["a"], "trajectory": "hole"}, "to which trajectory"),
        ({"states": ["a"], "inputs": ["hole"]}, "inputs must be finite"),
    ],
)
def test_bad_frames_are_named(options, message):
    df = pd.DataFrame({"id": [0, 0], "t": [0.0, 1.0], "a": [1.0, 2.0], "hole": [1.0, np.nan]})
    with pytest.raises(ValueError, match=message):
        from_frame(df, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": [[1.0], [2], [3]]}, "inputs must have shape"),
        ({"velocities": [[1.0, 2, 3]]}, "velocities must have shape"),
        ({"start_time": [1.0, 2, 3]}, "start_time must be"),
    ],
)
def test_bad_questions_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make_questions([[1.0, 2], [3, 4]], [0.0, 1], **options)
