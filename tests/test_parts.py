"""Memory that runs out: parts give what the whole would, and one model too large is explained."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import skode._parts
from skode import SparseNODERegressorCV, from_trajectories
from skode._parts import _beside, _join
from skode._train import Trained
from skode.datasets import make_dense_linear
from skode.fields import PerTargetField

SMALL = {"hidden_layer_sizes": (4,), "max_iter": 60, "tol": 1.0, "dtype": "float64", "device": "cpu", "random_state": 0}


def shortage(monkeypatch: pytest.MonkeyPatch, most: int, error: Exception) -> list[int]:
    """Let training fail for more than ``most`` models; collects how many were asked for at a time."""
    asked: list[int] = []
    train = skode._parts.train

    def limited(dynamics, penalty, problem, batch, options, **rest):
        asked.append(batch.n_models)
        if batch.n_models > most:
            raise error
        return train(dynamics, penalty, problem, batch, options, **rest)

    monkeypatch.setattr(skode._parts, "train", limited)
    return asked


def data():
    system = make_dense_linear(3, 6, 11, noise=0.02, random_state=3)
    return from_trajectories(system.states, system.times)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError("no more"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    ],
    ids=["cuda", "python", "cpu"],
)
def test_halves_give_what_the_whole_gives(monkeypatch, error):
    X, y, groups = data()
    whole = SparseNODERegressorCV(n_alphas=5, **SMALL).fit(X, y, groups=groups)
    asked = shortage(monkeypatch, 2, error)
    parts = SparseNODERegressorCV(n_alphas=5, **SMALL).fit(X, y, groups=groups)
    assert {1, 2, 5} <= set(asked)
    np.testing.assert_allclose(parts.dependency_matrix_, whole.dependency_matrix_, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(parts.cv_results_["mean_test_score"], whole.cv_results_["mean_test_score"], rtol=1e-6)
    assert [level["n_edges"] for level in parts.path_] == [level["n_edges"] for level in whole.path_]


def test_a_model_that_does_not_fit_alone_is_explained(monkeypatch):
    X, y, groups = data()
    shortage(monkeypatch, 0, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))
    with pytest.raises(MemoryError, match=r"must fit into memory; got .*Tried to allocate 2.00 GiB.*Fit fewer"):
        SparseNODERegressorCV(n_alphas=2, **SMALL).fit(X, y, groups=groups)


def test_other_errors_pass(monkeypatch):
    X, y, groups = data()
    asked = shortage(monkeypatch, 0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        SparseNODERegressorCV(n_alphas=2, **SMALL).fit(X, y, groups=groups)
    assert len(asked) == 1


def test_units_that_one_part_lacks_are_zero_there():
    left = {"W": torch.ones(2, 3), "P": torch.ones(2, 4)}
    right = {"W": torch.full((1, 3), 2.0)}
    both = _beside(left, right)
    assert both["W"][:, 0].tolist() == [1.0, 1.0, 2.0]
    assert both["P"].sum(-1).tolist() == [4.0, 4.0, 0.0]


def test_parts_keep_what_windows_say_of_bilinear_units():
    field, gains = PerTargetField(2, 2, (4,), "tanh", (0, 1)), torch.arange(6.0).view(2, 3)
    like = {"K": torch.zeros(2, 2, 1, 2)}
    whole = Trained(field, like, like, torch.zeros(2, 2, 2), {}, torch.ones(2), gains)
    joined = _join(whole.only(0), whole.only(1))
    assert torch.equal(joined.gains, gains) and torch.equal(whole.only(1).gains, gains[1:])
    silent = whole._replace(gains=None)
    assert silent.only(0).gains is None and _join(silent.only(0), whole.only(1)).gains is None
