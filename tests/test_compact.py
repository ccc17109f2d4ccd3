"""Matrices come back from their compact form as they were."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from skode import SparseNODERegressorCV, from_trajectories
from skode._compact import Level, Repeated, Sparse, compact, expand
from skode.datasets import make_hill_network


def random(*shape):
    return np.random.default_rng(0).standard_normal(shape)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int8])
def test_nothing_is_lost(dtype):
    few = np.where(random(150, 120) > 1.5, 3 * random(150, 120), 0.0).astype(dtype)
    same = np.repeat(random(1, 120).astype(dtype) + dtype(9), 150, axis=0)
    same[3] = 0
    for matrix, kind in ((few, Sparse), (same, Repeated), ((10 * random(150, 120)).astype(dtype), None)):
        small = compact(matrix)
        assert type(small) is (kind or np.ndarray) or (kind is None and dtype is np.int8)
        np.testing.assert_array_equal(expand(small), matrix)
        assert expand(small).dtype == matrix.dtype


def test_small_arrays_and_other_things_stay_what_they_are():
    for value in (np.eye(5), "a", None, [1, 2], np.zeros(20_000), np.zeros((0, 3))):
        assert compact(value) is value and expand(value) is value


def test_a_level_is_read_like_the_dictionary_that_it_was_made_of():
    few = np.where(random(150, 120) > 1.5, 1.0, 0.0).astype(np.float32)
    entries = {"alpha": 0.1, "dependency_matrix": few}
    level = pickle.loads(pickle.dumps(Level(entries)))
    assert list(level) == list(entries) and len(level) == 2 and level["alpha"] == 0.1
    for matrix in (level["dependency_matrix"], level.get("dependency_matrix"), dict(level)["dependency_matrix"]):
        assert type(matrix) is np.ndarray and matrix.dtype == np.float32
        np.testing.assert_array_equal(matrix, few)
    assert len(pickle.dumps(Level(entries))) < 0.2 * few.nbytes
    with pytest.raises(KeyError):
        level["beta"]


def test_a_pickled_model_answers_as_before_and_holds_no_matrix_twice():
    data = make_hill_network(120, 12, 4, dt=1.0, n_edges=240, noise=0.05, random_state=0)
    X, y, groups = from_trajectories(data.states, data.times)
    model = SparseNODERegressorCV(n_alphas=4, max_iter=300, tol=1, random_state=0).fit(X, y, groups=groups)
    stored = pickle.dumps(model)
    again = pickle.loads(stored)
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    for name in ("dependency_matrix_", "dependency_scores_", "identifiability_", "confidence_"):
        np.testing.assert_array_equal(getattr(again, name), getattr(model, name))
        assert type(getattr(again, name)) is np.ndarray
    np.testing.assert_array_equal(again.path_[2]["dependency_matrix"], model.path_[2]["dependency_matrix"])
    assert [level["n_edges"] for level in model.path_] == [
        (level["dependency_matrix"] > 0).sum() for level in model.path_
    ]
    assert again.dependency_matrix_ is again._fitted.matrix
    assert len(stored) < 3 * 8 * 120**2  # the dense ranking, and little more
