"""Blocks of networks against the formula as anyone would write it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import skode._matching as matching
from skode._matching import matching_squares
from skode.fields import PerTargetField, hold
from skode.objectives import Rows, matching_loss

D, N_ROWS, N_NODES = 4, 7, 3


def field_of(**settings):
    options = {"hidden": (5,), "activation": "tanh", **settings}
    return PerTargetField(6, D, options["hidden"], options["activation"], (0, 1, 2, 3), options.get("n_bilinear", 0))


def draw(field, n_models, dtype=torch.float64):
    drawn = field.init(torch.Generator().manual_seed(0), n_models=n_models, dtype=dtype, device=torch.device("cpu"))
    shaken = {
        name: value + 0.3 * normal(*value.shape, seed=k, dtype=dtype) for k, (name, value) in enumerate(drawn.items())
    }
    return {name: value.requires_grad_() for name, value in shaken.items()}


def normal(*shape, seed, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(100 + seed), dtype=dtype)


def data(n_models=None, dtype=torch.float64):
    lead = () if n_models is None else (n_models,)
    quadrature = normal(N_ROWS, N_NODES, seed=12, dtype=dtype).softmax(dim=1)
    weights = normal(N_ROWS, 6, seed=14, dtype=dtype).square() * (normal(N_ROWS, 6, seed=15, dtype=dtype) > -0.5)
    return (
        normal(N_ROWS, N_NODES, D, seed=11, dtype=dtype),
        quadrature,
        normal(*lead, N_ROWS, 6, seed=13, dtype=dtype),
        weights,
    )


def plainly(field, weights, sources, quadrature, slopes, row_weights):
    """The formula, its gradient left to autograd."""
    n_models = len(next(iter(weights.values())))
    a = {"tanh": torch.tanh, "silu": torch.nn.functional.silu, "relu": torch.relu}[field.activation]
    found = []
    for model in range(n_models):
        per_target = []
        for i in range(field.n_targets):
            w = {name: value[model, i] for name, value in weights.items()}
            h = sources
            for k in range(len(field.hidden)):
                h = a(h @ w[f"W{k}"].mT + w[f"b{k}"][0])
            k = len(field.hidden)
            value = (h @ w[f"W{k}"].mT + w[f"b{k}"][0] + sources @ w["K"].mT)[..., 0]
            if field.n_bilinear:
                value = value + ((sources @ w["P"].mT) * (sources @ w["R"].mT)).sum(-1)
            mine = slopes[..., i] if slopes.ndim == 2 else slopes[model, :, i]
            per_target.append((row_weights[:, i] * (mine - (quadrature * value).sum(-1)) ** 2).sum())
        found.append(torch.stack(per_target))
    return torch.stack(found)


@pytest.mark.parametrize("block", [1, 200, 900, 2**19])
@pytest.mark.parametrize("n_models", [1, 3])
@pytest.mark.parametrize(
    "settings",
    [{}, {"n_bilinear": 2}, {"hidden": (5, 4)}, {"hidden": (5, 4, 3), "activation": "silu"}, {"activation": "relu"}],
)
def test_blocks_say_what_the_formula_says(settings, n_models, block, monkeypatch):
    monkeypatch.setattr(matching, "BLOCK", block)
    field = field_of(**settings)
    weights, given = draw(field, n_models), data()
    found, expected = matching_squares(field, weights, *given), plainly(field, weights, *given)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    factor = normal(*found.shape, seed=20)  # what comes back differs from network to network
    ours = torch.autograd.grad((factor * found).sum(), list(weights.values()))
    theirs = torch.autograd.grad((factor * expected).sum(), list(weights.values()))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("block", [1, 2**19])
def test_every_model_may_have_slopes_of_its_own(block, monkeypatch):
    monkeypatch.setattr(matching, "BLOCK", block)
    field = field_of()
    weights, given = draw(field, 2), data(n_models=2)
    torch.testing.assert_close(matching_squares(field, weights, *given), plainly(field, weights, *given))


def test_nothing_is_carried_back_where_no_gradient_is_asked_for():
    field = field_of()
    weights, given = draw(field, 2), data()
    with torch.no_grad():
        assert not matching_squares(field, weights, *given).requires_grad
    fixed = {name: value.detach() for name, value in weights.items()}
    some = matching_squares(field, {**fixed, "K": weights["K"], "gate": torch.ones(2, requires_grad=True)}, *given)
    (gradient,) = torch.autograd.grad(some.sum(), [weights["K"]])
    expected = torch.autograd.grad(plainly(field, weights, *given).sum(), [weights["K"]])[0]
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize(("n_models", "n_targets", "most"), [(3, 4, 4), (3, 4, 9), (2, 10, 4), (1, 1, 1), (5, 3, 100)])
def test_blocks_hold_whole_models_or_equal_parts_of_one(n_models, n_targets, most):
    blocks = list(matching._blocks(n_models, n_targets, min(most, n_models * n_targets)))
    assert [k for block in blocks for k in range(block.start, block.stop)] == list(range(n_models * n_targets))
    assert all(block.stop - block.start <= most for block in blocks)
    for block in blocks:
        whole = block.start % n_targets == block.stop % n_targets == 0
        assert whole or block.start // n_targets == (block.stop - 1) // n_targets


@pytest.mark.parametrize("block", [400, 2000, 2**19])
def test_a_model_does_not_depend_on_those_beside_it(block, monkeypatch):
    monkeypatch.setattr(matching, "BLOCK", block)
    field = field_of()
    weights, given = draw(field, 4, torch.float32), data(dtype=torch.float32)
    every = torch.autograd.grad(matching_squares(field, weights, *given).sum(), list(weights.values()))
    alone = {name: value.detach()[2:3].requires_grad_() for name, value in weights.items()}
    mine = torch.autograd.grad(matching_squares(field, alone, *given).sum(), list(alone.values()))
    torch.testing.assert_close([g[2:3] for g in every], list(mine), rtol=1e-6, atol=1e-6)


def test_products_that_are_held_have_the_loss_of_what_they_read():
    field, (sources, quadrature, slopes, row_weights) = field_of(n_bilinear=2), data()
    weights, rows, scale = draw(field, 2), Rows(sources, quadrature, slopes, row_weights), torch.ones(6).double()
    far, near = (hold(field, np.full(D, -edge), np.full(D, edge)) for edge in (1e3, 0.1))
    expected = matching_loss(field, weights, rows, scale)
    torch.testing.assert_close(matching_loss(far, weights, rows, scale), expected)
    assert not torch.allclose(matching_loss(near, weights, rows, scale), expected)
