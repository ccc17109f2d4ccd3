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


def states(n):
    """Sources whose means differ from zero."""
    draw = torch.Generator().manual_seed(2)
    return 0.3 + torch.randn(1, n, 5, generator=draw, dtype=torch.float64)


@pytest.mark.parametrize("n_bilinear", [0, 2])
@pytest.mark.parametrize("share", [1.0, 0.7, 0.0])
def test_a_field_is_pulled_towards_the_regression_of_every_target_on_itself(n_bilinear, share):
    field, weights = packed(n_bilinear)
    z = states(200)
    slopes, lines = field(weights, z), []
    for i in range(4):
        slope, level = np.polyfit(z[0, :, i].numpy(), slopes[0, :, i].detach().numpy(), 1)
        if i == 3 or slope > 0:  # without an edge to itself, and with one that does not return
            slope, level = 0.0, float(slopes[0, :, i].mean())
        lines.append(level + slope * z[..., i])
    expected = share * slopes + (1 - share) * torch.stack(lines, dim=-1)
    torch.testing.assert_close(field(pulled(field, weights, share, relaxation(field, weights, z)), z), expected)


def test_variables_that_relax_by_themselves_stay_as_they_are():
    field, weights = packed(0)
    alone = {name: torch.zeros_like(value) for name, value in weights.items()}
    own = field.to_columns(torch.eye(4, 5, dtype=torch.float64))
    alone["K"] -= torch.tensor([0.5, 2.0, 1.0, 0.0], dtype=torch.float64).view(1, 4, 1, 1) * own.unsqueeze(-2)
    alone["b1"] += 0.7
    found = pulled(field, alone, 0.3, relaxation(field, alone, states(50)))
    for name, value in alone.items():
        torch.testing.assert_close(found[name], value)


def test_an_edge_that_is_not_there_is_not_opened():
    field, weights = packed(0)
    for name in ("W0", "K"):
        weights[name][:, 1, :, 0] = 0.0  # the column in which the second target reads itself
    found = pulled(field, weights, 0.5, relaxation(field, weights, states(50)))
    assert torch.equal(field.paths(found) > 0, field.paths(weights) > 0)
    assert not field.paths(found)[0, 1, 1]


def network(n_trajectories, n_edges, **options):
    data = make_hill_network(70, n_trajectories, 21, n_edges=n_edges, noise=0.1, **options)
    return from_trajectories(data.states, data.times)


def fits(monkeypatch, X, y, groups):
    """The fit before and after, and the model."""
    seen = []

    def spied(trained, *rest):
        with monkeypatch.context() as patch:
            patch.setattr("skode._calm.SHARES", ())
            before = calm(trained, *rest)
        seen.append((before, calm(trained, *rest)))
        return seen[-1][1]

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
    assert torch.equal(field.paths(before.trained.weights) > 0, field.paths(after.trained.weights) > 0)
    assert model._fitted.n_strays == after.own.strays
    np.testing.assert_array_equal(model.history_["calm"]["loss"], [before.own.error, after.own.error])


def test_forecasts_that_stay_leave_the_field_as_it_is(monkeypatch):
    X, y, groups = network(MOST + 14, 70, combine="sum", random_state=0)
    before, after, model = fits(monkeypatch, X, y, groups)
    assert before.own.strays == after.own.strays == model._fitted.n_strays == 0
    assert before.trained is after.trained and "calm" not in model.history_
