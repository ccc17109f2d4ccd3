"""A scaler in front of the estimator is undone exactly, or named."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.compose import TransformedTargetRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

from skode._alignment import learn_alignment
from skode._layout import Layout
from skode._trajectories import as_trajectories

SCALERS = [StandardScaler(), MinMaxScaler(), MaxAbsScaler(), RobustScaler()]


@pytest.fixture
def data():
    """Eight trajectories of nine times, the third state constant, one input, anchors included."""
    rng = np.random.default_rng(0)
    x0 = np.repeat(rng.uniform(1, 5, size=(8, 3)), 9, axis=0)
    x0[:, 2] = 2.5
    t = np.tile(np.linspace(0, 4, 9), 8)
    u = np.repeat(rng.integers(0, 2, size=(8, 1)), 9, axis=0)
    y = np.where(t[:, None] == 0, x0, x0 * np.cos(t[:, None]) + rng.normal(size=x0.shape))
    y[:, 2] = 2.5
    return np.column_stack([t, x0, u]), y


LAYOUT = Layout(3, 1)


def quiet(X, y, layout=LAYOUT, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return learn_alignment(X, y, layout, **options)


@pytest.mark.parametrize("scaler", SCALERS, ids=str)
@pytest.mark.parametrize("scaled_y", [False, True])
def test_scaled_data_with_anchors_give_the_same_trajectories(data, scaler, scaled_y):
    X, y = data
    y = StandardScaler().fit_transform(y) if scaled_y else y
    expected = as_trajectories(np.column_stack([X[:, 0], y[X[:, 0] == 0].repeat(9, 0), X[:, 4]]), y, layout=LAYOUT)
    scaled = scaler.fit_transform(X)
    alignment = quiet(scaled, y)
    found = as_trajectories(alignment.apply(scaled), y, layout=LAYOUT)
    np.testing.assert_array_equal(found.initial, expected.initial)
    np.testing.assert_array_equal(found.states, expected.states)
    np.testing.assert_array_equal(found.anchor, expected.anchor)
    np.testing.assert_array_equal(found.groups, expected.groups)
    np.testing.assert_allclose(found.times, expected.times * found.times.max() / 4, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scaler", SCALERS, ids=str)
def test_scaled_targets_alone_are_followed(data, scaler):
    X, y = data
    scaled = scaler.fit_transform(y)
    alignment = quiet(X, scaled)
    anchors = X[:, 0] == 0
    np.testing.assert_allclose(alignment.apply(X)[anchors, 1:4], scaled[anchors], atol=1e-12)


def test_the_map_holds_for_new_initial_states(data):
    X, y = data
    scaler = StandardScaler().fit(X)
    alignment = quiet(scaler.transform(X), y)
    new = np.array([[0.0, 9.0, -3.0, 2.5, 0.0]])
    aligned = alignment.apply(scaler.transform(new))
    np.testing.assert_allclose(aligned[:, 1:4], new[:, 1:4], rtol=1e-12)
    np.testing.assert_allclose(aligned[:, 0], 0, atol=1e-12)


def test_plain_data_are_left_alone(data):
    X, y = data
    alignment = quiet(X, y)
    assert alignment.is_identity
    assert alignment.apply(X) is X


def test_plain_data_without_anchors_are_left_alone(data):
    X, y = data
    later = X[:, 0] > 0
    assert quiet(X[later], y[later]).is_identity


def test_scaled_data_without_anchors_warn_with_the_remedy(data):
    X, y = data
    later = X[:, 0] > 0
    with pytest.warns(UserWarning, match=r"keep a row with t = 0 and y = x0"):
        assert learn_alignment(StandardScaler().fit_transform(X[later]), y[later], LAYOUT).is_identity


def test_a_noisy_tie_is_no_map(data):
    X, y = data
    noisy = y.copy()
    noisy[0, 0] += 1e-4
    with pytest.warns(UserWarning, match="look scaled"):
        assert learn_alignment(StandardScaler().fit_transform(X), noisy, LAYOUT).is_identity


def test_constant_scaled_time_raises(data):
    X, y = data
    once = X[:, 0] == 4
    with pytest.raises(ValueError, match="elapsed time is lost"):
        learn_alignment(StandardScaler().fit_transform(X[once]), y[once], LAYOUT)


def test_constant_plain_time_does_not(data):
    X, y = data
    once = X[:, 0] == 4
    assert quiet(X[once], y[once]).is_identity


def test_missing_anchors_of_one_variable_are_made_up_by_others(data):
    X, y = data
    y = y.copy()
    y[:9, 0] = np.nan
    y[9:18, 1] = np.nan
    aligned = quiet(StandardScaler().fit_transform(X), y).apply(StandardScaler().fit_transform(X))
    np.testing.assert_allclose(aligned[:, 1:4], X[:, 1:4], rtol=1e-9)


def test_order_of_rows_and_rows_of_weight_zero_change_no_bit(data):
    X, y = data
    X = StandardScaler().fit_transform(X)
    p = np.random.default_rng(1).permutation(len(X))
    one, other = quiet(X, y), quiet(X[p], y[p])
    more = np.concatenate([X, X[:5] - 9])
    third = quiet(more, np.concatenate([y, y[:5]]), sample_weight=np.repeat([1.0, 0.0], [len(X), 5]))
    for alignment in (other, third):
        assert alignment.time_origin == one.time_origin
        np.testing.assert_array_equal(alignment.scale, one.scale)
        np.testing.assert_array_equal(alignment.shift, one.shift)


def test_time_only_takes_the_smallest_time(data):
    X, y = data
    alignment = quiet(X[:, :1] - 7, y, Layout(3, 0, time_only=True))
    assert alignment.time_origin == -7
    assert alignment.apply(X[:, :1] - 7).min() == 0


def test_scaled_velocities_are_named(data):
    X, y = data
    layout = Layout(3, 1, order=2)
    X = np.column_stack([X[:, :4], X[:, 1:4] + 1, X[:, 4:]])
    with pytest.warns(UserWarning, match="velocities must be"):
        alignment = learn_alignment(StandardScaler().fit_transform(X), y, layout)
    np.testing.assert_allclose(alignment.apply(StandardScaler().fit_transform(X))[:, 1:4], X[:, 1:4], rtol=1e-9)


def test_states_that_start_at_zero_are_no_proof_of_plain_data():
    t = np.tile([0.0, 1.0, 3.0], 3)
    x0 = np.repeat([0.0, 2.0, 4.0], 3)
    y = np.where(t == 0, x0, x0 + t)[:, None]
    X = np.column_stack([t, x0])
    aligned = quiet(MaxAbsScaler().fit_transform(X), y, Layout(1, 0)).apply(MaxAbsScaler().fit_transform(X))
    np.testing.assert_allclose(aligned[:, 1], x0)


def test_scikit_learns_wrappers_score_as_the_plain_estimator(data):
    """A stand-in estimator that holds the aligned x0: exact only if every wrapper is seen through."""
    from sklearn.base import BaseEstimator, RegressorMixin

    class Persistence(RegressorMixin, BaseEstimator):
        def fit(self, X, y):
            self.alignment_ = quiet(X, y)
            return self

        def predict(self, X):
            return self.alignment_.apply(X)[:, 1:4]

    X, y = data
    plain = Persistence().fit(X, y).score(X, y)
    target = TransformedTargetRegressor(Persistence(), transformer=StandardScaler())
    for wrapped in (
        make_pipeline(StandardScaler(), Persistence()),
        target,
        make_pipeline(MinMaxScaler(), target),
    ):
        assert wrapped.fit(X, y).score(X, y) == pytest.approx(plain, rel=1e-9)


@pytest.mark.parametrize("n_trajectories", [1, 2, 5])
def test_noisy_first_observations_are_no_map(n_trajectories):
    rng = np.random.default_rng(3)
    x0 = np.repeat(rng.normal(size=(n_trajectories, 1)) + 3, 4, axis=0)
    t = np.tile([0.0, 1.0, 2.0, 3.0], n_trajectories)
    y = x0 + rng.normal(size=x0.shape)
    assert quiet(np.column_stack([t, x0]), y, Layout(1, 0)).is_identity
