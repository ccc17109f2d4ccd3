"""Hill's functions and their products: the laws that they hold exactly, and every way to evaluate them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skode.fields import HillField
from skode.fields.hill import HillNets, terms

PARENTS = ((0, 1, 2), (3,), (), (3, 0, 1, 2, 4), (0,))


def field_of(parents=PARENTS, n_sources=5, seed=0):
    draw = np.random.default_rng(seed)
    return HillField(
        len(parents),
        n_sources,
        (),
        "tanh",
        tuple(range(n_sources)),
        parents=parents,
        gain=tuple(draw.uniform(0.3, 0.8, n_sources)),
        shift=tuple(draw.uniform(1.0, 2.0, n_sources)),
    )


def drawn(field, n_models=1, seed=0):
    draw = torch.Generator().manual_seed(seed)
    weights = field.init(draw, n_models=n_models, dtype=torch.float64, device=torch.device("cpu"))
    return {name: torch.randn(value.shape, dtype=torch.float64, generator=draw) for name, value in weights.items()}


def samples(n_models, n, n_sources=5, seed=1):
    return torch.randn(n_models, n, n_sources, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_terms_are_all_products_of_few_curves_pairs_of_some_and_single_ones_of_many():
    assert terms(3) == [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
    assert [len(terms(n)) for n in (0, 4, 5, 8, 9)] == [0, 15, 15, 36, 9]


def test_what_a_batch_reads_is_what_all_sources_hold_there():
    field, sources = field_of(), samples(3, 4)[0].T.expand(2, 5, 4).transpose(0, 1)  # (source, 2, 4)
    for _, _, slots in field.alike():
        torch.testing.assert_close(field.read(sources, slots), field.expanded(sources)[slots], rtol=0, atol=0)


def test_a_gene_that_needs_one_regulator_and_not_the_other_is_in_the_span():
    """dx0/dt = .05 + 2 h(x1) (1 - h(x2)) - x0, with thresholds .4 and .6 and exponents 2.5 and 3."""
    mean, sd, usual = np.array([0.8, 0.5, 0.7]), np.array([0.3, 0.2, 0.25]), np.array([0.8, 0.4, 0.7])
    field = HillField(
        1, 3, (), "tanh", (0, 1, 2), parents=((0, 1, 2),), gain=tuple(sd / usual), shift=tuple(mean / usual)
    )
    weights = field.init(torch.Generator(), n_models=1, dtype=torch.float64, device=torch.device("cpu"))
    weights["K"][0, 0, 0, 0], weights["b0"][0, 0, 0, 0] = -sd[0], 0.05 - mean[0]
    weights["W0"][0, 0, 0] = torch.tensor([2.0, 0.0, -2.0])  # h1, h2, h1 h2
    weights["N"][0, 0, 0, 1:] = torch.log(torch.tensor([2.5, 3.0], dtype=torch.float64) / 2)
    weights["T"][0, 0, 0, 1:] = torch.as_tensor(np.log(np.array([0.4, 0.6]) / usual[1:]))
    x = np.random.default_rng(0).uniform(0.05, 1.5, (40, 3))
    active = x[:, 1] ** 2.5 / (x[:, 1] ** 2.5 + 0.4**2.5)
    free = 0.6**3 / (x[:, 2] ** 3 + 0.6**3)
    z = torch.as_tensor((x - mean) / sd).unsqueeze(0)
    np.testing.assert_allclose(field(weights, z)[0, :, 0].numpy(), 0.05 + 2 * active * free - x[:, 0], rtol=1e-10)
    assert (field.paths(weights)[0, 0] > 0).tolist() == [True, True, True]


def test_all_ways_to_evaluate_give_the_same_slopes():
    field = field_of()
    weights, z = drawn(field, n_models=2), samples(2, 300)
    slopes = field(weights, z)
    bound = field.bind(weights)
    torch.testing.assert_close(bound.evaluate(z).slopes, slopes)
    torch.testing.assert_close(bound.evaluate(z[:1]).slopes, field(weights, z[:1]))
    gain = np.array([1.0, 0.5, 2.0, 3.0, 0.1])
    ready = field.at_points({name: value[0].numpy() for name, value in weights.items()}, gain)
    read = np.concatenate([z[0].numpy(), np.ones((300, 1))], axis=1)
    out = np.empty((300, 5))
    ready.open(read)(out)
    np.testing.assert_allclose(out, slopes[0].numpy() * gain, rtol=1e-12, atol=1e-12)


def test_a_sample_has_the_same_slopes_to_the_last_bit_whoever_is_beside_it():
    field = field_of()
    ready = field.at_points({name: value[0].numpy() for name, value in drawn(field).items()}, np.ones(5))
    read = np.concatenate([samples(1, 33)[0].numpy(), np.ones((33, 1))], axis=1)
    together, alone = np.empty((33, 5)), np.empty((1, 5))
    ready.open(read)(together)
    for k in range(33):
        ready.open(read[k : k + 1].copy())(alone)
        np.testing.assert_array_equal(alone[0], together[k])


def test_gradients_of_a_bound_field_are_those_of_the_field():
    field = field_of()
    weights, z = drawn(field), samples(1, 9)
    leaf = z.clone().requires_grad_(True)
    cotangent = samples(1, 9, seed=2)
    (expected,) = torch.autograd.grad(field(weights, leaf), leaf, cotangent)
    bound = field.bind(weights)
    torch.testing.assert_close(bound.source_gradient(bound.deltas(bound.evaluate(z).memo, cotangent)), expected)


def test_derivatives_agree_with_finite_differences_and_are_zero_where_there_is_no_path():
    field = field_of()
    weights, z = drawn(field), samples(1, 4)
    jacobian = field.jacobian(weights, z)
    for source in range(5):
        step = torch.zeros(5, dtype=torch.float64)
        step[source] = 1e-6
        slope = (field(weights, z + step) - field(weights, z - step)) / 2e-6
        torch.testing.assert_close(jacobian[..., source], slope, rtol=1e-5, atol=1e-7)
    closed = torch.ones(5, 5, dtype=torch.bool)
    for target, some in enumerate(PARENTS):
        closed[target, list(some)] = False
    assert jacobian[0][:, closed].abs().max() == 0
    assert torch.equal(field.paths(weights)[0] == 0, closed)
    weights["W0"][0, 0] = 0.0  # nothing of a curve is left, the line of the target itself is
    assert (field.paths(weights)[0, 0] > 0).tolist() == [True, False, False, False, False]


@pytest.mark.parametrize(("n_slots", "n_own"), [(0, 0), (1, 1), (1, 0), (3, 1), (4, 0), (5, 1), (6, 1)])
def test_tangents_agree_with_finite_differences(n_slots, n_own):
    nets = HillNets(n_slots, n_own)
    draw = torch.Generator().manual_seed(0)
    flat = torch.randn(2, nets.n_entries, dtype=torch.float64, generator=draw)
    read = torch.randn(2, n_slots, 2, 3, dtype=torch.float64, generator=draw)
    quadrature = torch.rand(2, 2, 3, dtype=torch.float64, generator=draw)

    def mean(theta):
        return (nets(theta, read.flatten(2)).view(2, 2, 3) * quadrature).sum(1)

    values, tangents = nets.mean_tangents(flat, read, quadrature)
    torch.testing.assert_close(values, mean(flat))
    for entry in range(nets.n_entries):
        step = torch.zeros_like(flat)
        step[:, entry] = 1e-6
        torch.testing.assert_close(
            tangents[:, entry], (mean(flat + step) - mean(flat - step)) / 2e-6, rtol=1e-5, atol=1e-7
        )
    design, rest = nets.mean_design(flat, read, quadrature)
    assert rest is None
    torch.testing.assert_close(design, tangents[:, nets.linear()])


def test_amounts_below_the_least_change_nothing():
    field = field_of(parents=((0, 1),), n_sources=2)
    weights = drawn(field)
    low = torch.tensor([[[0.0, -50.0], [0.0, -80.0]]], dtype=torch.float64)
    slopes = field(weights, low)[0, :, 0]
    assert slopes[0] == slopes[1] and bool(slopes.isfinite().all())
