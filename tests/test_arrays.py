"""Runge-Kutta steps on numpy arrays: equal to autograd through the same steps in torch, and used where they pay."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skode._dynamics import Dynamics
from skode._latent import Latent
from skode._scales import Scales
from skode.fields import ACTIVATIONS, Maps, PerTargetField, SharedField
from skode.fields import _chain as chain_module
from skode.integrate import adjoint as adjoint_module
from skode.integrate import rk4, rk4_adjoint

EXACT = {"rtol": 1e-10, "atol": 1e-10}
COVERED = [name for name, activation in ACTIVATIONS.items() if activation.keeps_output]
D, N = 3, 4


def normal(*shape, seed, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def equation(activation="tanh", *, hidden=(5, 4), inputs=0, clock=False, order=1, kind=SharedField, **options):
    one, n_sources = np.ones(D), order * D + inputs + clock
    rate = np.array([1.0, 0.6, 0.0])  # the last state is constant
    velocity_sd = None if order == 1 else one
    none, ones = np.zeros(inputs), np.ones(inputs)
    scales = Scales(0.7, 0 * one, one, velocity_sd, none, ones, 0.2, 1.5, rate, -one, one)
    variables = (*range(D), *range(D), *range(D, D + 3))[(2 - order) * D :][:n_sources]
    return Dynamics(kind(D, n_sources, hidden, activation, variables, **options), scales, clock)


def draw(dynamics, n_models, dtype=torch.float64):
    weights = dynamics.field.init(
        torch.Generator().manual_seed(0), n_models=n_models, dtype=dtype, device=torch.device("cpu")
    )
    moved = {
        name: value + 0.3 * normal(*value.shape, seed=k, dtype=dtype) for k, (name, value) in enumerate(weights.items())
    }
    return {name: value.requires_grad_() for name, value in moved.items()}


def slope_of(dynamics, weights):
    dtype = next(iter(weights.values())).dtype
    inputs, origin = normal(9, dynamics.scales.n_inputs, seed=3, dtype=dtype), normal(9, seed=4, dtype=dtype)
    return dynamics.slope(weights, inputs, origin)


def latent(activation, n_hidden, n_models):
    widths = [D, *(5, 4)[: n_hidden - 1], D]
    matrices = [normal(n_models, *shape, seed=k) for k, shape in enumerate(zip(widths[1:], widths[:-1], strict=True))]
    biases = [normal(n_models, 1, len(matrix[0]), seed=10 + k) for k, matrix in enumerate(matrices[1:])]
    drift, offset = normal(n_models, widths[1], 1, seed=15), normal(n_models, widths[1], 9, seed=16)
    leaves = [leaf.requires_grad_() for leaf in (*matrices, drift, offset, *biases)]
    between = list(zip(leaves[1:n_hidden], leaves[n_hidden + 2 :], strict=True))
    return Latent(ACTIVATIONS[activation], leaves[0], *leaves[n_hidden : n_hidden + 2], between)


def solved(march, slope, *, x0=None, n_steps=4, dtype=torch.float64):
    """States, slopes, and the gradients by x0 and by all weights of a sum over what is finite."""
    n_models = len(slope.weights[0])
    x0 = normal(n_models, N, D, seed=5, dtype=dtype) if x0 is None else x0
    x0 = x0.clone().requires_grad_()
    step = torch.tensor([0.3, -0.2, 0.1, 0.0], dtype=dtype)
    index, origin = torch.tensor([7, 0, 3, 2]), normal(N, seed=6, dtype=dtype)
    nodes = march(slope, x0, step, n_steps, origin=origin, index=index)
    loss = 0.0
    for k, values in enumerate(nodes):
        fine = torch.where(values.isfinite(), values, 0.0)
        loss = loss + (normal(*values.shape, seed=20 + k, dtype=dtype) * fine.square().log1p()).sum()
    found = torch.autograd.grad(loss, [x0, *slope.weights], materialize_grads=True)
    return [*(values.detach() for values in nodes), *found]


def forbid(monkeypatch, *names):
    def refuse(*_, **__):
        raise AssertionError("the steps were taken in torch")

    for name in names:
        monkeypatch.setattr(adjoint_module, name, refuse)


def assert_same(ours, theirs, **tolerance):
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, equal_nan=True, **(tolerance or EXACT))


@pytest.mark.parametrize("n_models", [1, 3])
@pytest.mark.parametrize("linear_skip", [False, True])
@pytest.mark.parametrize(("inputs", "clock"), [(0, False), (2, False), (0, True), (2, True)])
@pytest.mark.parametrize("activation", COVERED)
def test_shared_fields_equal_autograd_through_rk4(activation, inputs, clock, linear_skip, n_models, monkeypatch):
    dynamics = equation(activation, inputs=inputs, clock=clock, linear_skip=linear_skip)
    slope = slope_of(dynamics, draw(dynamics, n_models))
    theirs = solved(rk4, slope)
    forbid(monkeypatch, "_TensorTape", "rk4")
    assert_same(solved(rk4_adjoint, slope), theirs)


@pytest.mark.parametrize("n_models", [1, 3])
@pytest.mark.parametrize("n_hidden", [1, 2, 3])
@pytest.mark.parametrize("activation", COVERED)
def test_latent_slopes_equal_autograd_through_rk4(activation, n_hidden, n_models, monkeypatch):
    slope = latent(activation, n_hidden, n_models)
    theirs = solved(rk4, slope)
    forbid(monkeypatch, "_TensorTape", "rk4")
    assert_same(solved(rk4_adjoint, slope), theirs)


@pytest.mark.parametrize("block", [1, N, 3 * N, 17 * N, 1000])
def test_blocks_of_stages_add_up_to_the_whole(block, monkeypatch):
    dynamics = equation(inputs=1, linear_skip=True)
    slope = slope_of(dynamics, draw(dynamics, 2))
    theirs = solved(rk4, slope)
    monkeypatch.setattr(chain_module, "BLOCK", block)
    assert_same(solved(rk4_adjoint, slope), theirs)


def test_single_precision_is_that_of_torch(monkeypatch):
    dynamics = equation(inputs=2, clock=True, linear_skip=True)
    slope = slope_of(dynamics, draw(dynamics, 2, torch.float32))
    ours = solved(rk4_adjoint, slope, dtype=torch.float32)
    monkeypatch.setattr(chain_module, "LARGEST", 0)
    assert all(values.dtype == torch.float32 for values in ours)
    assert_same(ours, solved(rk4_adjoint, slope, dtype=torch.float32), rtol=1e-4, atol=1e-5)


def wild_slope():
    """Two models, the second of which grows so fast that some trajectories fail."""
    dynamics = equation("relu", hidden=(5,), inputs=1)
    tame = draw(dynamics, 2)
    wild = {name: torch.cat([value[:1], 60.0 * value[1:]]).detach().requires_grad_() for name, value in tame.items()}
    return slope_of(dynamics, tame), slope_of(dynamics, wild)


def test_trajectories_that_fail_are_treated_as_in_torch(monkeypatch):
    x0 = normal(2, N, D, seed=5)
    x0[1, 0] *= 1e3
    results = []
    for largest in (chain_module.LARGEST, 0):
        monkeypatch.setattr(chain_module, "LARGEST", largest)
        results.append(solved(rk4_adjoint, wild_slope()[1], x0=x0, n_steps=6))
    states = results[0][0]
    failed = states.isnan().all(-1)
    assert failed.any() and not failed.all(1).any()
    assert len(failed.sum(0).unique()) > 2  # some never, others in different steps
    assert all(gradient.isfinite().all() for gradient in results[0][2:])
    assert_same(*results, rtol=1e-9, atol=1e-10)


def test_a_model_that_fails_leaves_no_trace_in_its_neighbours():
    tame, wild = (solved(rk4_adjoint, slope, n_steps=6) for slope in wild_slope())
    assert wild[0].isnan().any() and not tame[0].isnan().any()
    for ours, theirs in zip(tame[:2], wild[:2], strict=True):
        assert torch.equal(ours[:, 0], theirs[:, 0])
    for ours, theirs in zip(tame[2:], wild[2:], strict=True):
        assert torch.equal(ours[0], theirs[0])


def test_without_gradients_the_nodes_are_the_same_and_layers_have_memory_for_one_stage():
    dynamics = equation(hidden=(5, 4), clock=True)
    slope = slope_of(dynamics, draw(dynamics, 2))
    x0, step, kept = normal(2, N, D, seed=5), torch.full((N,), 0.1).double(), []
    on_arrays = slope.on_arrays
    slope.on_arrays = lambda *a, **k: kept.append(on_arrays(*a, **k)) or kept[-1]
    with_graph = rk4_adjoint(slope, x0, step, 6)
    with torch.no_grad():
        without = rk4_adjoint(slope, x0, step, 6)
    assert all(torch.equal(mine, other) for mine, other in zip(with_graph, without, strict=True))
    assert [[len(memory) for memory in chain.memory] for chain in kept] == [[25] * 4, [25, 1, 1, 25]]


def test_gradients_can_be_asked_for_twice():
    dynamics = equation(linear_skip=True)
    weights = draw(dynamics, 1)
    x0 = normal(1, N, D, seed=5).requires_grad_()
    nodes = rk4_adjoint(slope_of(dynamics, weights), x0, torch.full((N,), 0.1).double(), 5)
    leaves = [x0, *weights.values()]
    first, again = (torch.autograd.grad(nodes.states.square().sum(), leaves, retain_graph=True) for _ in range(2))
    assert all(torch.equal(mine, other) for mine, other in zip(first, again, strict=True))


@pytest.mark.parametrize(
    ("dynamics", "n", "expected"),
    [
        (equation(hidden=(64, 64)), 64, True),
        (equation(hidden=(64, 64)), 65, False),
        (equation("silu"), N, False),
        (equation("softplus"), N, False),
        (equation(order=2), N, False),
        (equation(kind=PerTargetField), N, False),
    ],
)
@pytest.mark.parametrize("graph", [True, False])
def test_arrays_are_used_for_small_shared_networks(dynamics, n, expected, graph, monkeypatch):
    slope = slope_of(dynamics, draw(dynamics, 2))
    x0, step, index = normal(2, n, dynamics.n_states, seed=5), torch.full((n,), 0.1).double(), torch.arange(n) % 9
    forbid(monkeypatch, "_TensorTape" if expected else "ArrayTape", *["rk4"] * expected)
    with torch.set_grad_enabled(graph):
        assert rk4_adjoint(slope, x0, step, 2, index=index).states.isfinite().all()


def test_the_skip_counts_among_the_products():
    maps = Maps(ACTIVATIONS["tanh"], [torch.zeros(1, 200, 3)], torch.zeros(1, 2, 201))
    assert maps.pay_on_arrays(7)
    assert not maps._replace(skip=torch.zeros(1, 200, 200)).pay_on_arrays(7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_numbers_of_a_model_do_not_depend_on_how_many_run_beside_it(dtype):
    dynamics = equation(hidden=(16, 16), linear_skip=True)
    weights = {name: value.detach() for name, value in draw(dynamics, 5, dtype).items()}

    def of_first(n_models):
        some = {name: value[:n_models].clone().requires_grad_() for name, value in weights.items()}
        x0, step = normal(1, N, D, seed=5, dtype=dtype).expand(n_models, -1, -1), torch.full((N,), 0.1, dtype=dtype)
        nodes = rk4_adjoint(slope_of(dynamics, some), x0, step, 5)
        found = torch.autograd.grad(nodes.states.square().sum() + nodes.slopes.square().sum(), list(some.values()))
        return [nodes.states[:, :1].detach(), *(value[:1] for value in found)]

    alone = of_first(1)
    for n_models in (2, 3, 5):
        for mine, other in zip(alone, of_first(n_models), strict=True):
            assert torch.equal(mine, other)
