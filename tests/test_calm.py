"""Additive fields that run away from the data they were fitted to: the formula, and what is left of the forecasts."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from skode import SparseNODERegressorCV, _fit, from_trajectories
from skode._calm import MOST, calm, pulled, relaxation
from skode.datasets import make_hill_network
from skode.exceptions import DivergedPredictionWarning
from skode.fields import PackedField

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def packed(n_bilinear):
    """Four targets of five sources; the last target does not read itself."""
    parents = ((0, 1), (1, 2, 4), (0, 2), (0, 1))
    field = PackedField(4, 5, (6,), "tanh", tuple(range(5)), parents=parents, n_bilinear=n_bilinear)
    weights = field.init(torch.Generator().manual_seed(0), n_models=1, dtype=torch.float64, device=torch.device("cpu"))
    noise = torch.Generator().manual_seed(1)
    return field, {
        name: value + 0.3 * torch.randn(value.shape, generator=noise, dtype=value.dtype) * (value != 0)
        for name, value in weights.items()
    }


@pytest.mark.parametrize("n_bilinear", [0, 2])
@pytest.mark.parametrize("share", [1.0, 0.7, 0.0])
def test_a_field_is_pulled_as_the_formula_says(n_bilinear, share):
    field, weights = packed(n_bilinear)
    z = torch.randn(1, 30, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    rates = torch.tensor([0.5, 2.0, 0.0, 3.0], dtype=torch.float64)
    reads = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    expected = share * field(weights, z) - (1 - share) * rates * reads * z[..., :4]
    torch.testing.assert_close(field(pulled(field, weights, share, rates), z), expected)


def test_relaxation_is_the_regression_of_slopes_on_oneself():
    field, weights = packed(0)
    z = torch.randn(1, 400, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    z = z - z.mean(dim=1, keepdim=True)
    found, slopes = relaxation(field, weights, z), field(weights, z)[0]
    for i in range(4):
        line = np.polyfit(z[0, :, i].numpy(), slopes[:, i].detach().numpy(), 1)
        assert float(found[i]) == pytest.approx(max(0.0, -line[0]))
    rates = torch.tensor([0.5, 2.0, 0.0, 0.0], dtype=torch.float64)
    alone = pulled(field, weights, 0.0, rates)
    torch.testing.assert_close(relaxation(field, alone, z), rates)


def network(n_trajectories, n_edges, **options):
    data = make_hill_network(70, n_trajectories, 21, n_edges=n_edges, noise=0.1, **options)
    return from_trajectories(data.states, data.times)


def fits(monkeypatch, X, y, groups):
    """Errors and run-aways of forecasts before and after, and the model."""
    seen = []

    def spied(dynamics, weights, prepared, problem, step):
        after = calm(dynamics, weights, prepared, problem, step)
        with monkeypatch.context() as patch:
            patch.setattr("skode._calm.SHARES", ())
            before = calm(dynamics, weights, prepared, problem, step)
        seen.append((before, after))
        return after

    monkeypatch.setattr(_fit, "calm", spied)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DivergedPredictionWarning)
        model = SparseNODERegressorCV(random_state=0).fit(X, y, groups=groups)
    (pair,) = seen
    return *pair, model


def test_forecasts_that_run_away_are_called_back_and_edges_stay(monkeypatch):
    X, y, groups = network(8, 210, hubs=1.0, random_state=3)
    before, after, model = fits(monkeypatch, X, y, groups)
    assert before.own.strays > after.own.strays
    assert after.own.error < 0.9 * before.own.error
    field = model._fitted.field
    assert torch.equal(field.paths(before.weights) > 0, field.paths(after.weights) > 0)
    assert model._fitted.n_strays == after.own.strays


def test_forecasts_that_stay_leave_the_field_as_it_is(monkeypatch):
    X, y, groups = network(MOST + 14, 70, combine="sum", random_state=0)
    before, after, model = fits(monkeypatch, X, y, groups)
    assert before.own.strays == after.own.strays == model._fitted.n_strays == 0
    for name, value in before.weights.items():
        assert torch.equal(value, after.weights[name])
