"""Polynomial laws as fields: every way to evaluate them, against scikit-learn's monomials and central differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.preprocessing import PolynomialFeatures

from skode.fields import PolynomialField, hold, monomials


def field_of(degree=3, n_targets=2, n_sources=4, *, held=False):
    draw = np.random.default_rng(0)
    field = PolynomialField(
        n_targets,
        n_sources,
        (),
        "tanh",
        tuple(range(n_sources)),
        terms=tuple(monomials(n_sources, degree)),
        gain=tuple(draw.uniform(0.3, 2.0, n_sources)),
        shift=tuple(draw.normal(size=n_sources)),
    )
    return hold(field, np.full(n_sources, -0.5), np.array([0.7, np.inf, 0.6, 0.5])[:n_sources]) if held else field


def drawn(field, n_models=1):
    shape = field.init(torch.Generator(), n_models=n_models, dtype=torch.float64, device=torch.device("cpu"))["C"].shape
    return {"C": torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))}


def samples(n_models=1, n=30, n_sources=4):
    return torch.randn(n_models, n, n_sources, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_monomials_are_those_of_scikit_learn(degree):
    field, z = field_of(degree), samples()[0]
    a = z.numpy() * np.array(field.gain) + np.array(field.shift)
    expected = PolynomialFeatures(degree).fit_transform(a)
    assert len(monomials(4, degree)) == expected.shape[1]
    np.testing.assert_allclose(field.values(z).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("held", [False, True])
def test_slopes_are_sums_of_monomials_in_torch_and_in_numpy(held):
    field, z = field_of(held=held), samples(n_models=2)
    weights = drawn(field, n_models=2)
    slopes = field(weights, z)
    by_hand = torch.stack([field.values(own) @ c.mT for own, c in zip(z, weights["C"], strict=True)])
    torch.testing.assert_close(slopes, by_hand)
    torch.testing.assert_close(field.bind(weights).evaluate(z).slopes, slopes)
    ready = field.at_points({"C": weights["C"][0].numpy()}, np.array([0.5, 3.0]))
    read = np.concatenate([z[0].numpy(), np.ones((30, 1))], axis=1)
    out = np.empty((30, 2))
    ready.open(read)(out)
    np.testing.assert_allclose(out, slopes[0].numpy() * [0.5, 3.0], rtol=1e-12, atol=1e-12)
    alone = np.empty((1, 2))
    for k in range(30):  # the same to the last bit, whoever is beside it
        ready.open(read[k : k + 1])(alone)
        np.testing.assert_array_equal(alone[0], out[k])


def test_products_stand_still_beyond_the_edges_and_lines_go_on():
    field, z = field_of(2, held=True), samples()[0]
    cut = torch.minimum(z.clamp_min(-0.5), torch.tensor([0.7, torch.inf, 0.6, 0.5], dtype=torch.float64))
    free = field_of(2)
    single = [k for k, term in enumerate(field.terms) if len(term) < 2]
    double = [k for k, term in enumerate(field.terms) if len(term) > 1]
    torch.testing.assert_close(field.values(z)[:, single], free.values(z)[:, single])
    torch.testing.assert_close(field.values(z)[:, double], free.values(cut)[:, double])
    assert bool((cut != z).any())


@pytest.mark.parametrize("held", [False, True])
def test_derivatives_equal_central_differences(held):
    field, z, step = field_of(held=held), samples(n_models=2), 1e-6
    weights = drawn(field, n_models=2)
    jacobian = field.jacobian(weights, z)
    for source, unit in enumerate(step * torch.eye(4, dtype=torch.float64)):
        central = (field(weights, z + unit) - field(weights, z - unit)) / (2 * step)
        torch.testing.assert_close(jacobian[..., source], central, rtol=1e-6, atol=1e-6)
    assert field.jacobian(weights, z[:1]).shape == (2, 30, 2, 4)


def test_a_path_is_open_where_a_source_is_in_a_term_that_is_used():
    field = field_of(2)
    weights = {"C": torch.zeros(1, 2, len(field.terms), dtype=torch.float64)}
    weights["C"][0, 0, field.terms.index((1, 3))] = -2.0
    weights["C"][0, 1, field.terms.index(())] = 5.0
    torch.testing.assert_close(
        field.paths(weights)[0], torch.tensor([[0.0, 2.0, 0.0, 2.0], [0.0] * 4], dtype=torch.float64)
    )
    less = field.only(weights["C"][0].ne(0).any(0))
    assert less.terms == ((), (1, 3))
    z = samples()
    some = {"C": weights["C"][..., weights["C"][0].ne(0).any(0)]}
    torch.testing.assert_close(less(some, z), field(weights, z))


def test_a_law_of_constants_alone_has_slopes():
    field = PolynomialField(2, 3, (), "tanh", (0, 1, 2), terms=((),), gain=(1.0,) * 3, shift=(0.0,) * 3)
    weights = {"C": torch.tensor([[[2.0], [-1.0]]], dtype=torch.float64)}
    z = samples(n_sources=3)
    torch.testing.assert_close(field(weights, z), torch.tensor([2.0, -1.0], dtype=torch.float64).expand(1, 30, 2))
    assert not field.jacobian(weights, z).any() and not field.paths(weights).any()
