"""Bilinear units: offered without changing anything, kept where a law is quadratic, refused where it is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skode import SparseNODERegressor, from_trajectories
from skode._capacity import N_BILINEAR, narrow, widen, widened
from skode._problem import Problem
from skode.datasets import make_dense_linear, make_lorenz96
from skode.fields import PerTargetField
from skode.objectives import Rows, matching_scale

FLOAT = {"dtype": torch.float64, "device": torch.device("cpu")}


def sparse_field(n_models=2):
    """A field with random weights of which some edges are closed."""
    field = PerTargetField(3, 3, (4,), "tanh", (0, 1, 2))
    weights = field.init(torch.Generator().manual_seed(0), n_models=n_models, **FLOAT)
    weights["K"] += 0.3
    support = torch.tensor([[1, 0, 1], [1, 1, 0], [0, 0, 1]], dtype=torch.float64)
    for name in field.entries:
        weights[name] *= support[None, :, None, :]
    return field, weights, support


def offer(n_models=2):
    field, weights, support = sparse_field(n_models)
    frozen = {name: (value != 0).to(value.dtype) for name, value in weights.items()}
    drawn = widened(field).init(torch.Generator().manual_seed(1), n_models=n_models, **FLOAT)
    return field, weights, support, widen(field, weights, frozen, drawn)


def problem_with(rows):
    fields = dict.fromkeys(Problem._fields)
    return Problem(**{**fields, "held_rows": rows, "matching": matching_scale(rows), "moving": torch.arange(3)})


def test_the_first_half_answers_as_before():
    field, weights, _, wide = offer()
    z = torch.randn(1, 9, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert torch.allclose(wide.field(wide.params, z)[:2], field(weights, z), atol=1e-14)


def test_the_second_half_opens_no_new_edge():
    _, _, support, wide = offer()
    assert wide.params["P"].shape == (4, 3, N_BILINEAR, 3)
    assert torch.equal(wide.field.paths(wide.params)[2:] > 0, support.bool().expand(2, -1, -1))


@pytest.mark.parametrize("better", ["first", "second"])
def test_the_half_that_predicts_held_out_rows_is_kept(better):
    _, _, _, wide = offer()
    z = torch.randn(200, 2, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    half = {name: value[:1] if better == "first" else value[2:3] for name, value in wide.params.items()}
    slopes = wide.field(half, z.flatten(0, 1)[None])[0].unflatten(0, (-1, 2)).mean(1)
    rows = Rows(z, torch.full((200, 2), 0.5), slopes, torch.ones_like(slopes))
    kept = narrow(wide, wide.params, problem_with(rows))
    assert (kept.field.n_bilinear > 0) == (better == "second")
    assert torch.allclose(
        kept.field({n: v[:1] for n, v in kept.params.items()}, z[None, :, 0]), wide.field(half, z[None, :, 0])
    )


def fitted_bilinear(system, **options):
    X, y, groups = from_trajectories(system.states, system.times)
    model = SparseNODERegressor(max_iter=660, tol=1, random_state=0, **options).fit(X, y, groups=groups)
    return model._fitted.field.n_bilinear


def test_a_quadratic_law_gets_bilinear_units():
    assert fitted_bilinear(make_lorenz96(5, n_trajectories=10, n_times=20, dt=0.05, random_state=0)) == N_BILINEAR


def test_a_linear_law_gets_none_and_a_number_is_obeyed():
    system = make_dense_linear(3, n_trajectories=10, n_times=15, noise=0.02, random_state=0)
    assert fitted_bilinear(system) == 0
    assert fitted_bilinear(system, n_bilinear=2) == 2


def test_training_leaves_the_number_of_threads_as_it_was():
    before = torch.get_num_threads()
    fitted_bilinear(make_dense_linear(3, n_trajectories=5, n_times=8, random_state=0))
    assert torch.get_num_threads() == before


def test_a_start_that_was_given_is_inside_the_box():
    rng = np.random.default_rng(0)
    states = [np.exp(-np.linspace(0, 4, 9))[:, None] * rng.normal(size=(1, 2)) for _ in range(6)]
    states[0][0] += 500.0  # a start far from where the smooth passes
    X, y, groups = from_trajectories(states, np.linspace(0, 4, 9))
    model = SparseNODERegressor(max_iter=50, tol=1, random_state=0).fit(X, y, groups=groups)
    assert np.allclose(model.predict(X[:1]), y[:1])
