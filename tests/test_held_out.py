"""Refits on folds: supports that are the same at several strengths are fitted once."""

import numpy as np
import pytest
import torch

from skode import SparseNODERegressorCV, _held_out, _supports, from_trajectories
from skode._batch import Batch
from skode._fit import options_of, set_up
from skode._layout import Layout
from skode._problem import every_row
from skode._supports import Supports, distinct, fit_supports
from skode._train import initial_weights, train
from skode._trajectories import as_trajectories
from skode.datasets import make_lotka_volterra
from skode.objectives import matching_errors, matching_loss
from skode.penalties import NoPenalty
from skode.recipe import AFRESH

SINGLE = Batch.single(0.0, 0)


def test_every_mask_is_held_by_the_network_that_stands_for_its_level():
    draw = torch.Generator().manual_seed(0)
    columns = torch.randint(2, (6, 3, 1, 2), generator=draw).float()
    masks = {"K": columns.expand(-1, -1, 4, -1).contiguous(), "b": torch.ones(6, 3, 4)}
    some, place = distinct(masks)
    for name, value in masks.items():
        assert torch.equal(some.masks[name][torch.as_tensor(place)], value)
    assert torch.equal(some.targets[torch.as_tensor(place)], torch.arange(3).expand(6, 3))
    n_masks = [len(np.unique(columns[:, i].flatten(1).numpy(), axis=0)) for i in range(3)]
    assert torch.bincount(some.targets).tolist() == n_masks


@pytest.mark.parametrize("at_once", [1024, 2])
def test_networks_on_supports_are_those_of_whole_fields_on_these_supports(monkeypatch, at_once):
    system = make_lotka_volterra(n_trajectories=4, n_times=12, noise=0.05, random_state=0)
    X, y, groups = from_trajectories(system.states, system.times)
    spec = SparseNODERegressorCV(field="per_target", max_iter=60, dtype="float64")._specify()
    trajectories = as_trajectories(X, y, layout=Layout(n_states=2, n_inputs=0, order=1), groups=groups)
    prepared, dynamics, problem = set_up(trajectories, spec, None)
    field, options = dynamics.field, options_of(spec, (AFRESH,))
    problem = problem._replace(held_rows=None, held_windows=None)
    mask = {name: torch.ones_like(value) for name, value in initial_weights(field, SINGLE, options).items()}
    less = {name: value.clone() for name, value in mask.items()}
    for name in field.entries:
        less[name][..., 0, :, 1] = 0.0  # target 0 without source 1
    monkeypatch.setattr(_supports, "AT_ONCE", at_once)
    supports, place = distinct({name: torch.cat([value, less[name]]) for name, value in mask.items()})
    found = fit_supports(dynamics, field, problem, supports, options, seed=0)
    rows = every_row(prepared, problem.matching)
    assert len(supports.targets) == 3
    for level, some in enumerate((mask, less)):
        whole = train(dynamics, NoPenalty(), problem, SINGLE, options, frozen=some).weights
        own = found.weights["W0"][:, place[level]]
        torch.testing.assert_close(own, whole["W0"], rtol=1e-9, atol=1e-12)
        losses = matching_loss(field, whole, rows, problem.matching)[0]
        torch.testing.assert_close(found.losses(rows, problem.matching)[place[level]], losses, rtol=1e-9, atol=0.0)
        errors = matching_errors(field, whole, rows)[0]
        torch.testing.assert_close(found.errors(rows)[:, place[level]], errors, rtol=1e-7, atol=1e-15)


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
        supports = Supports(
            torch.arange(n_targets).repeat(n_levels), {name: value.flatten(0, 1) for name, value in masks.items()}
        )
        return supports, np.arange(n_levels * n_targets).reshape(n_levels, n_targets)

    monkeypatch.setattr(_held_out, "distinct", every_level)
    apart = SparseNODERegressorCV(**how).fit(X, y, groups=groups)
    for k in range(2):
        name = f"split{k}_test_score"
        np.testing.assert_allclose(once.cv_results_[name], apart.cv_results_[name], rtol=1e-9)
    np.testing.assert_allclose(once.predict(X), apart.predict(X), rtol=1e-6)
