"""What is refused as questions and answers, with a message that names it."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.datasets import make_regression

from skode import _question_checks as questions
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
