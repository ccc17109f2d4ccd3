"""Refits on folds: supports that are the same at several strengths are fitted once."""

import numpy as np
import pytest
import torch

from skode import SparseNODERegressorCV, _held_out, from_trajectories
from skode.datasets import make_lotka_volterra


def test_every_mask_is_held_by_the_model_that_stands_for_its_level():
    draw = torch.Generator().manual_seed(0)
    columns = torch.randint(2, (6, 3, 1, 2), generator=draw).float()
    masks = {"K": columns.expand(-1, -1, 4, -1).contiguous(), "b": torch.ones(6, 3, 4)}
    some, place = _held_out.distinct(masks)
    for name, value in masks.items():
        assert torch.equal(some[name][torch.as_tensor(place), torch.arange(3)], value)
    n_masks = [len(np.unique(columns[:, i].flatten(1).numpy(), axis=0)) for i in range(3)]
    assert len(some["K"]) == max(n_masks) and place.max(axis=0).tolist() == [n - 1 for n in n_masks]


@pytest.mark.parametrize("penalty", ["group_lasso", "lassonet"])
def test_held_out_losses_are_those_of_a_refit_of_every_level(monkeypatch, penalty):
    system = make_lotka_volterra(n_trajectories=6, n_times=15, noise=0.05, random_state=0)
    X, y, groups = from_trajectories(system.states, system.times)
    how = {
        "penalty": penalty,
        "alphas": np.geomspace(0.5, 0.01, 5),
        "cv": 2,
        "max_iter": 60,
        "dtype": "float64",
        "random_state": 0,
    }
    once = SparseNODERegressorCV(**how).fit(X, y, groups=groups)

    def every_level(masks):
        n_levels, n_targets = masks["K"].shape[:2]
        return masks, np.repeat(np.arange(n_levels)[:, None], n_targets, axis=1)

    monkeypatch.setattr(_held_out, "distinct", every_level)
    apart = SparseNODERegressorCV(**how).fit(X, y, groups=groups)
    for k in range(2):
        name = f"split{k}_test_score"
        np.testing.assert_allclose(once.cv_results_[name], apart.cv_results_[name], rtol=1e-9)
    np.testing.assert_allclose(once.predict(X), apart.predict(X), rtol=1e-6)
