"""ForecastSplit: early part of every trajectory for training, later part for testing."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, cross_validate

from skode import ForecastSplit


def trajectories(lengths=(10, 7, 4), seed=0):
    """Rows [t | x0 | u] of trajectories of unequal lengths, shuffled, and their numbers."""
    rng = np.random.default_rng(seed)
    parts = [
        np.column_stack([np.sort(rng.random(n)), np.full((n, 2), k + 1.0), np.full(n, k % 2)])
        for k, n in enumerate(lengths)
    ]
    groups = np.repeat(np.arange(len(lengths)), lengths)
    order = rng.permutation(len(groups))
    return np.concatenate(parts)[order], groups[order]


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize(("test_size", "n_splits"), [(0.3, 1), (0.5, 2), (0.6, 3), (4, 2)])
def test_training_is_earlier_than_testing_in_every_trajectory(test_size, n_splits, grouped):
    X, groups = trajectories()
    splitter = ForecastSplit(test_size=test_size, n_splits=n_splits)
    splits = list(splitter.split(X, groups=groups if grouped else None))
    assert len(splits) == n_splits == splitter.get_n_splits(X)
    for train, test in splits:
        assert set(groups[train]) == set(groups)
        assert not set(train) & set(test)
        for group in set(groups[test]):
            assert X[train][groups[train] == group, 0].max() < X[test][groups[test] == group, 0].min()


def test_windows_expand_and_test_blocks_cover_the_share_once():
    X, groups = trajectories((20, 10))
    splits = list(ForecastSplit(test_size=0.5, n_splits=5).split(X, groups=groups))
    for (train, test), (later_train, _) in zip(splits, splits[1:], strict=False):
        assert set(later_train) == set(train) | set(test)
    tested = np.concatenate([test for _, test in splits])
    assert len(set(tested)) == len(tested) == 15
    np.testing.assert_array_equal(np.bincount(groups[tested]), [10, 5])


def test_hand_worked_split():
    t = np.array([3.0, 0.0, 1.0, 2.0, 4.0])
    X = np.column_stack([t, np.ones(5)])
    ((train, test),) = ForecastSplit(test_size=0.4).split(X)
    np.testing.assert_array_equal(train, [1, 2, 3])
    np.testing.assert_array_equal(test, [0, 4])
    ((train, test),) = ForecastSplit(test_size=1).split(X)
    np.testing.assert_array_equal(test, [4])


def test_repeated_times_stay_together():
    X = np.column_stack([[0.0, 1.0, 1.0, 2.0, 2.0, 2.0], np.ones(6)])
    ((train, test),) = ForecastSplit(test_size=1).split(X)
    np.testing.assert_array_equal(train, [0, 1, 2])
    np.testing.assert_array_equal(test, [3, 4, 5])


def test_row_order_means_nothing_where_a_group_is_one_trajectory():
    X, groups = trajectories()
    order = np.random.default_rng(1).permutation(len(groups))
    ((train, _),) = ForecastSplit().split(X, groups=groups)
    ((shuffled_train, _),) = ForecastSplit().split(X[order], groups=groups[order])
    assert set(order[shuffled_train]) == set(train)


def test_replicates_are_separate_where_groups_say_so():
    t = np.concatenate([np.arange(4.0), np.arange(4.0) + 10])
    X = np.column_stack([t, np.ones(8)])
    groups = np.repeat(["a", "b"], 4)
    ((_, test),) = ForecastSplit(test_size=0.5).split(X, groups=groups)
    np.testing.assert_array_equal(test, [2, 3, 6, 7])
    ((_, test),) = ForecastSplit(test_size=0.5).split(X)
    np.testing.assert_array_equal(test, [4, 5, 6, 7])


def test_windows_of_one_group_are_ordered_as_they_stand():
    # five one-step windows of one series, each an anchor and one answer, states falling so that sorting x0
    # would reverse them
    start = np.repeat([9.0, 7.0, 5.0, 3.0, 1.0], 2)
    X = np.column_stack([np.tile([0.0, 1.0], 5), start])
    ((train, test),) = ForecastSplit(test_size=0.4).split(X, groups=np.zeros(10))
    np.testing.assert_array_equal(train, np.arange(6))
    np.testing.assert_array_equal(test, np.arange(6, 10))


def test_the_first_two_times_are_always_trained_on():
    X, groups = trajectories((20, 2, 1))
    ((train, test),) = ForecastSplit(test_size=0.99).split(X, groups=groups)
    np.testing.assert_array_equal(np.bincount(groups[train]), [2, 2, 1])
    assert set(groups[test]) == {0}


def test_time_only_is_one_trajectory():
    ((train, test),) = ForecastSplit(test_size=0.5).split(np.arange(6.0)[::-1, None])
    np.testing.assert_array_equal(train, [3, 4, 5])
    np.testing.assert_array_equal(test, [0, 1, 2])


def test_data_frames_split_like_arrays():
    X, groups = trajectories()
    ((train, test),) = ForecastSplit().split(X, groups=groups)
    frame = pd.DataFrame(X, columns=["t", "a_0", "b_0", "u"])
    ((frame_train, frame_test),) = ForecastSplit().split(frame, groups=pd.Series(groups))
    np.testing.assert_array_equal(train, frame_train)
    np.testing.assert_array_equal(test, frame_test)


@pytest.mark.parametrize("routing", [False, True])
def test_it_serves_scikit_learn_searches(routing):
    X, groups = trajectories((20, 20))
    y = X[:, 0] * X[:, 1]
    with sklearn.config_context(enable_metadata_routing=routing):
        search = GridSearchCV(Ridge(), {"alpha": [1e-6, 10.0]}, cv=ForecastSplit(n_splits=2), error_score="raise")
        search.fit(X, y, groups=groups)
        given = {"params": {"groups": groups}} if routing else {"groups": groups}
        found = cross_validate(Ridge(), X, y, cv=ForecastSplit(n_splits=2), error_score="raise", **given)
    assert search.n_splits_ == 2
    assert found["test_score"].shape == (2,)


def test_it_prints_and_pickles():
    splitter = pickle.loads(pickle.dumps(ForecastSplit(test_size=0.2, n_splits=3)))
    assert repr(splitter) == "ForecastSplit(n_splits=3, test_size=0.2)"
    assert repr(clone(splitter, safe=False)) == repr(splitter)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"test_size": 0.0}, "test_size must be a share"),
        ({"test_size": 1.5}, "test_size must be a share"),
        ({"test_size": "half"}, "test_size must be a share"),
        ({"n_splits": 0}, "n_splits must be an integer"),
        ({"n_splits": 1.5}, "n_splits must be an integer"),
        ({"test_size": 0.1, "n_splits": 5}, "Every split must test on something"),
    ],
)
def test_bad_parameters_are_refused_in_words(parameters, message):
    X, groups = trajectories((4, 4))
    with pytest.raises(ValueError, match=message):
        list(ForecastSplit(**parameters).split(X, groups=groups))


def test_bad_data_are_refused_in_words():
    X, groups = trajectories()
    with pytest.raises(ValueError, match="one label per row"):
        list(ForecastSplit().split(X, groups=groups[:-1]))
    with pytest.raises(ValueError, match="time first"):
        list(ForecastSplit().split(X[:, 0]))
