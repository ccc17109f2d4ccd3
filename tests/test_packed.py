"""Packed fields agree with the field that has all columns, and their tangents with finite differences."""

from __future__ import annotations

import pytest
import torch

from skode.fields import PackedField, PerTargetField, _packed
from skode.fields.tangents import TargetNets

PARENTS = ((0, 2), (1,), (0, 3, 4))


def packed(n_bilinear, hidden=(4,), activation="tanh"):
    field = PackedField(3, 5, hidden, activation, tuple(range(5)), parents=PARENTS, n_bilinear=n_bilinear)
    draw = torch.Generator().manual_seed(0)
    weights = field.init(draw, n_models=2, dtype=torch.float64, device=torch.device("cpu"))
    open_columns = field.to_columns(torch.ones(3, 5, dtype=torch.float64)).unsqueeze(-2)
    weights["K"] = torch.randn(2, 3, 1, 3, dtype=torch.float64, generator=draw) * open_columns
    return field, weights


def spread(field, weights):
    """The same weights with a column for every source."""
    wide = PerTargetField(3, 5, field.hidden, field.activation, tuple(range(5)), n_bilinear=field.n_bilinear)
    return wide, {
        name: field.to_wide(value.transpose(1, 2)).transpose(1, 2) if name in field.entries else value
        for name, value in weights.items()
    }


@pytest.mark.parametrize("n_bilinear", [0, 2])
@pytest.mark.parametrize("hidden", [(4,), (4, 3)])
def test_packed_fields_are_per_target_fields_without_absent_columns(n_bilinear, hidden):
    field, weights = packed(n_bilinear, hidden)
    wide, spread_weights = spread(field, weights)
    z = torch.randn(2, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(field(weights, z), wide(spread_weights, z))
    torch.testing.assert_close(field.paths(weights), wide.paths(spread_weights))
    torch.testing.assert_close(field.jacobian(weights, z), wide.jacobian(spread_weights, z))


def test_columns_and_sources_go_there_and_back():
    field, _ = packed(0)
    values = torch.arange(15.0).reshape(3, 5)
    there = field.to_columns(values)
    assert there.tolist() == [[0, 2, 0], [6, 0, 0], [10, 13, 14]]
    kept = torch.zeros(3, 5, dtype=torch.bool)
    for target, some in enumerate(PARENTS):
        kept[target, list(some)] = True
    assert torch.equal(field.to_wide(there), values * kept)


def test_absent_parents_get_no_gradient():
    field, weights = packed(2)
    leaves = {name: value.requires_grad_(True) for name, value in weights.items()}
    field(leaves, torch.randn(2, 6, 5, dtype=torch.float64)).sum().backward()
    closed = field.to_columns(torch.ones(3, 5)) == 0
    for name in field.entries:
        assert leaves[name].grad.transpose(2, 3)[:, closed].abs().max() == 0


@pytest.mark.parametrize("activation", ["tanh", "silu", "elu", "softplus"])
@pytest.mark.parametrize("hidden", [(4,), (4, 3)])
def test_tangents_agree_with_finite_differences_and_values_with_the_field(activation, hidden):
    field, weights = packed(2, hidden, activation)
    nets = TargetNets(2, field.hidden, activation, 2)
    targets = torch.tensor([0])
    flat = nets.flat(weights, targets)
    z = torch.randn(1, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    read = z[:, :, list(PARENTS[0])].mT.contiguous()
    torch.testing.assert_close(nets(flat, read)[0], field(weights, z)[0, :, 0])
    quadrature = torch.tensor([[0.3, 0.5, 0.1], [0.7, 0.5, 0.8]], dtype=torch.float64).unsqueeze(0)
    intervals = read.view(1, 2, 2, 3)

    def mean(theta):
        return (nets(theta, read).view(1, 2, 3) * quadrature).sum(1)

    values, tangents = nets.mean_tangents(flat, intervals, quadrature)
    torch.testing.assert_close(values, mean(flat))
    for entry in range(flat.shape[1]):
        step = torch.zeros_like(flat)
        step[:, entry] = 1e-6
        slope = (mean(flat + step) - mean(flat - step)) / 2e-6
        torch.testing.assert_close(tangents[:, entry], slope, rtol=1e-6, atol=1e-8)


def test_parameters_are_read_and_written_in_one_order():
    field, weights = packed(2)
    nets = TargetNets(3, field.hidden, field.activation, 2)
    targets = torch.tensor([2])
    other = {name: torch.zeros_like(value) for name, value in weights.items()}
    nets.put(other, targets, nets.flat(weights, targets))
    for name, value in weights.items():
        assert torch.equal(other[name][0, 2], value[0, 2])
        assert other[name][0, :2].abs().max() == 0
    assert int(nets.marks("K").sum()) == 3


@pytest.mark.parametrize("n_bilinear", [0, 2])
@pytest.mark.parametrize("hidden", [(4,), (4, 3)])
@pytest.mark.parametrize("n_samples", [7, 3000])
def test_packed_weights_that_are_bound_give_the_slopes_and_gradients_of_the_field(n_bilinear, hidden, n_samples):
    field, weights = packed(n_bilinear, hidden)
    weights[f"W{len(hidden)}"][:, 1] = 0.0  # a target without a network
    z = torch.randn(2, n_samples, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    bound = field.bind(weights)
    for given in (z, z[:1]):
        torch.testing.assert_close(bound.evaluate(given).slopes, field(weights, given))
    leaf = z.clone().requires_grad_(True)
    cotangent = torch.randn(2, n_samples, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    (expected,) = torch.autograd.grad(field(weights, leaf), leaf, cotangent)
    deltas = bound.deltas(bound.evaluate(z).memo, cotangent)
    torch.testing.assert_close(bound.source_gradient(deltas), expected)


def test_targets_in_small_groups_have_the_slopes_that_they_have_together(monkeypatch):
    parents = tuple((i, (3 * i + 1) % 40) for i in range(40))
    field = PackedField(40, 40, (4,), "tanh", tuple(range(40)), parents=parents)
    draw = torch.Generator().manual_seed(0)
    weights = field.init(draw, n_models=2, dtype=torch.float64, device=torch.device("cpu"))
    z = torch.randn(2, 70, 40, dtype=torch.float64, generator=draw)
    monkeypatch.setattr(_packed, "MOST_ENTRIES", 7 * 5 * _packed.SAMPLES)
    bound = field.bind(weights)
    assert [len(batch.targets) for batch in bound.batches] == [7, 7, 7, 7, 7, 5]
    torch.testing.assert_close(bound.evaluate(z).slopes, field(weights, z))


def test_targets_without_parents_are_constants():
    field = PackedField(2, 3, (4,), "tanh", tuple(range(3)), parents=((), (1,)))
    draw = torch.Generator().manual_seed(0)
    weights = field.init(draw, n_models=1, dtype=torch.float64, device=torch.device("cpu"))
    z = torch.randn(1, 6, 3, dtype=torch.float64, generator=draw)
    torch.testing.assert_close(field.bind(weights).evaluate(z).slopes, field(weights, z))


def test_jacobians_by_column_are_those_by_source_in_their_places():
    field, weights = packed(2)
    z = torch.randn(2, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(field.to_wide(field.column_jacobian(weights, z)), field.jacobian(weights, z))


def test_designs_are_the_tangents_of_linear_entries():
    field, weights = packed(2, (4, 3))
    nets = TargetNets(2, field.hidden, field.activation, 2)
    flat = nets.flat(weights, torch.tensor([0]))
    read = torch.randn(1, 2, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    quadrature = torch.rand(1, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    mean, tangents = nets.mean_tangents(flat, read, quadrature)
    design, products = nets.mean_design(flat, read, quadrature)
    torch.testing.assert_close(design, tangents[:, nets.linear()])
    torch.testing.assert_close((flat[:, nets.linear()].unsqueeze(1) @ design).squeeze(1) + products, mean)
