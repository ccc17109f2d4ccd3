"""Fields: one battery for all members, with finite differences, naive loops and random masks as oracles."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skode._typing import Weights
from skode.fields import ACTIVATIONS, AbstractField, HeldField, PerTargetField, SharedField, hold

VARIABLES = (0, 1, 2, 0, 3)
LOW, HIGH = (-0.4, -1.1, -torch.inf, -0.2, -1.0), (0.3, torch.inf, torch.inf, 0.9, 1.3)
FIELDS: dict[str, AbstractField] = {
    "per_target": PerTargetField(3, 5, (4,), "tanh", VARIABLES),
    "per_target_deep": PerTargetField(3, 5, (4, 3), "softplus", VARIABLES),
    "per_target_bilinear": PerTargetField(3, 5, (4,), "silu", VARIABLES, n_bilinear=2),
    "held": HeldField(3, 5, (4,), "silu", VARIABLES, n_bilinear=2, low=LOW, high=HIGH),
    "shared": SharedField(3, 5, (4,), "tanh", VARIABLES),
    "shared_deep": SharedField(3, 5, (6, 4), "elu", VARIABLES),
    "residual": SharedField(3, 5, (4,), "tanh", VARIABLES, linear_skip=True),
}


@pytest.fixture(params=FIELDS, name="field")
def _field(request: pytest.FixtureRequest) -> AbstractField:
    return FIELDS[request.param]


def draw(field: AbstractField, *, n_models: int, seed: int = 0) -> Weights:
    """Initial weights with every entry moved, so that no skip is zero."""
    generator = torch.Generator().manual_seed(seed)
    weights = field.init(generator, n_models=n_models, dtype=torch.float64, device=torch.device("cpu"))
    return {
        name: tensor + 0.3 * torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        for name, tensor in weights.items()
    }


def points(n_models: int = 1) -> torch.Tensor:
    return torch.randn(n_models, 7, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_slopes_have_model_sample_target_axes(field: AbstractField) -> None:
    assert field(draw(field, n_models=2), points()).shape == (2, 7, 3)


def test_every_parameter_leads_with_the_model_axis_and_entries_end_with_the_source_axis(
    field: AbstractField,
) -> None:
    weights = draw(field, n_models=2)
    assert all(tensor.shape[0] == 2 for tensor in weights.values())
    assert all(weights[name].shape[-1] == field.n_sources for name in field.entries)
    assert set(field.chain) <= set(weights)
    assert field.chain[0] in field.entries


def test_jacobian_equals_central_differences(field: AbstractField) -> None:
    weights, z, step = draw(field, n_models=2), points(2), 1e-6
    jacobian = field.jacobian(weights, z)
    for source in range(field.n_sources):
        shift = torch.zeros(field.n_sources, dtype=torch.float64)
        shift[source] = step
        difference = (field(weights, z + shift) - field(weights, z - shift)) / (2 * step)
        torch.testing.assert_close(jacobian[..., source], difference, rtol=1e-6, atol=1e-8)


def test_jacobian_of_one_set_of_points_serves_all_models(field: AbstractField) -> None:
    weights = draw(field, n_models=3)
    torch.testing.assert_close(field.jacobian(weights, points()), field.jacobian(weights, points().expand(3, -1, -1)))


@pytest.mark.parametrize("seed", range(4))
def test_paths_are_zero_exactly_where_no_source_can_be_felt(field: AbstractField, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = draw(field, n_models=4, seed=seed)
    for name in sorted({*field.chain, *field.entries}):
        weights[name] *= torch.rand(weights[name].shape, generator=generator) < 0.35
    z = torch.randn(1, 40, 5, generator=generator, dtype=torch.float64)
    felt = field.jacobian(weights, z).abs().amax(dim=1) > 0
    paths = field.paths(weights)
    assert paths.shape == (4, 3, 5)
    assert bool((paths >= 0).all())
    assert torch.equal(paths > 0, felt)
    assert bool((paths == 0).any())
    assert bool((paths > 0).any())


@pytest.mark.parametrize("name", sorted(set(FIELDS) - {"per_target_bilinear"}))
def test_path_weights_bound_the_jacobian_where_slopes_are_at_most_one(name: str) -> None:
    field = FIELDS[name]
    weights = draw(field, n_models=2)
    assert bool((field.jacobian(weights, points()).abs() <= field.paths(weights)[:, None] + 1e-12).all())


def test_batch_of_models_equals_models_one_by_one(field: AbstractField) -> None:
    weights, z = draw(field, n_models=3), points(3)
    for model in range(3):
        single = {name: tensor[model : model + 1] for name, tensor in weights.items()}
        own = z[model : model + 1]
        torch.testing.assert_close(field(weights, z)[model : model + 1], field(single, own))
        torch.testing.assert_close(field.paths(weights)[model : model + 1], field.paths(single))
        torch.testing.assert_close(field.jacobian(weights, z)[model : model + 1], field.jacobian(single, own))


def test_non_finite_model_leaves_its_neighbours_alone(field: AbstractField) -> None:
    weights = draw(field, n_models=2)
    before = field(weights, points())[1]
    for tensor in weights.values():
        tensor[0] = torch.nan
    assert torch.equal(field(weights, points())[1], before)


@pytest.mark.parametrize("name", ["per_target", "per_target_deep", "per_target_bilinear"])
def test_per_target_field_equals_a_loop_over_targets_and_samples(name: str) -> None:
    field = FIELDS[name]
    assert isinstance(field, PerTargetField)
    weights, z = draw(field, n_models=1), points()[0]
    activation = ACTIVATIONS[field.activation]
    expected = torch.zeros(7, 3, dtype=torch.float64)
    for sample in range(7):
        for target in range(3):
            own = {key: tensor[0, target] for key, tensor in weights.items()}
            h = z[sample]
            for k in range(len(field.hidden)):
                h = activation(own[f"W{k}"] @ h + own[f"b{k}"][0])
            last = len(field.hidden)
            value = own[f"W{last}"][0] @ h + own[f"b{last}"][0, 0] + own["K"][0] @ z[sample]
            for q in range(field.n_bilinear):
                value = value + (own["P"][q] @ z[sample]) * (own["R"][q] @ z[sample])
            expected[sample, target] = value
    torch.testing.assert_close(field(weights, z[None])[0], expected)


@pytest.mark.parametrize("name", ["per_target", "per_target_deep", "per_target_bilinear"])
def test_cutting_the_entries_of_an_edge_removes_that_edge_and_no_other(name: str) -> None:
    field = FIELDS[name]
    weights = draw(field, n_models=1)
    before = field.paths(weights)
    for entry in field.entries:
        weights[entry][:, 1, :, 2] = 0.0
    after = field.paths(weights)
    expected = before.clone()
    expected[0, 1, 2] = 0.0
    assert torch.equal(after == 0, expected == 0)
    assert torch.equal(after[:, [0, 2]], before[:, [0, 2]])


def test_sources_of_one_variable_are_added_and_repeated(field: AbstractField) -> None:
    squares = torch.arange(5.0)
    assert field.by_variable(squares).tolist() == [0.0 + 3.0, 1.0, 2.0, 4.0]
    assert field.to_sources(torch.tensor([10.0, 11.0, 12.0, 13.0])).tolist() == [10.0, 11.0, 12.0, 10.0, 13.0]
    assert field.n_variables == 4


def test_same_seed_gives_the_same_weights_in_both_precisions(field: AbstractField) -> None:
    def init(dtype: torch.dtype) -> Weights:
        generator = torch.Generator().manual_seed(3)
        return field.init(generator, n_models=2, dtype=dtype, device=torch.device("cpu"))

    double, again, single = init(torch.float64), init(torch.float64), init(torch.float32)
    for name, tensor in double.items():
        assert torch.equal(tensor, again[name])
        assert torch.equal(tensor.float(), single[name])


def test_products_that_are_held_read_the_nearest_sources_between_the_edges_and_all_else_reads_on() -> None:
    free = PerTargetField(3, 5, (4,), "tanh", VARIABLES, n_bilinear=2)
    field, weights, z = hold(free, np.array(LOW), np.array(HIGH)), draw(free, n_models=2), 3.0 * points()
    nearest = torch.as_tensor(np.clip(z.numpy(), LOW, HIGH))
    assert not torch.equal(nearest, z)
    alone = {name: torch.zeros_like(w) if name in ("P", "R") else w for name, w in weights.items()}
    expected = free(alone, z) + free(weights, nearest) - free(alone, nearest)
    torch.testing.assert_close(field(weights, z), expected)
    torch.testing.assert_close(field.bind(weights).evaluate(z).slopes, expected)
    torch.testing.assert_close(field(weights, nearest), free(weights, nearest))


def test_fields_without_products_are_not_held() -> None:
    for field in (PerTargetField(3, 5, (4,), "tanh", VARIABLES), SharedField(3, 5, (4,), "tanh", VARIABLES)):
        assert hold(field, np.array(LOW), np.array(HIGH)) is field
