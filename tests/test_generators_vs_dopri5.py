"""Batched Runge-Kutta against torchdiffeq's dopri5 and finite differences, on the law of every generator."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
import torchdiffeq

from skode import datasets
from skode.datasets import SimulatedSystem
from skode.fields import PerTargetField
from skode.integrate import integrate

SYSTEMS: dict[str, SimulatedSystem] = {
    "lorenz63": datasets.make_lorenz63(3, 8, irregular=True, random_state=0),
    "lorenz96": datasets.make_lorenz96(6, n_trajectories=3, n_times=6, random_state=0),
    "lotka_volterra": datasets.make_lotka_volterra(3, 8, random_state=0),
    "hill_product": datasets.make_hill_network(6, 3, 8, n_inputs=2, irregular=True, random_state=0),
    "hill_sum": datasets.make_hill_network(6, 3, 8, combine="sum", decay_spread=10.0, random_state=0),
    "glycolysis": datasets.make_glycolysis(2, 8, random_state=0),
    "independent_decays": datasets.make_independent_decays(4, 3, 8, irregular=True, random_state=0),
    "dense_linear": datasets.make_dense_linear(4, 3, 8, random_state=0),
    "coupled_oscillators": datasets.make_coupled_oscillators(4, 3, 8, cubic=0.3, random_state=0),
    "pendulum_chain": datasets.make_pendulum_chain(4, 3, 8, irregular=True, random_state=0),
}
N_STEPS = 200


class NumpyLaw(torch.autograd.Function):
    """A law that knows numpy only, made differentiable: the product with its Jacobian by central differences."""

    @staticmethod
    def forward(ctx, x, law, u):  # x (..., state)
        ctx.save_for_backward(x)
        ctx.law, ctx.u = law, u
        return torch.from_numpy(law(0.0, x.detach().numpy(), u))

    @staticmethod
    def backward(ctx, gradient):  # (..., state)
        (x,) = ctx.saved_tensors
        base, out = x.numpy(), np.empty(x.shape)
        for j in range(x.shape[-1]):
            h = np.zeros(x.shape[-1])
            h[j] = 1e-6 * max(1.0, float(np.abs(base[..., j]).max()))
            change = (ctx.law(0.0, base + h, ctx.u) - ctx.law(0.0, base - h, ctx.u)) / (2.0 * h[j])
            out[..., j] = (gradient.numpy() * change).sum(axis=-1)
        return torch.from_numpy(out), None, None


class Problem(NamedTuple):
    starts: torch.Tensor  # (model, trajectory, state)
    times: torch.Tensor  # (trajectory, time)
    exact: torch.Tensor  # (trajectory, time, state), from scipy
    scale: torch.Tensor  # (state,)


def problem(system: SimulatedSystem) -> Problem:
    """Two models: the generator's starts, and others nearby."""
    paths = system.clean_states
    if system.clean_velocities is not None:
        paths = [np.concatenate(pair, axis=1) for pair in zip(paths, system.clean_velocities, strict=True)]
    exact = torch.tensor(np.stack(paths))
    starts = torch.stack([exact[:, 0], 1.02 * exact[:, 0]])
    return Problem(starts, torch.tensor(np.stack(system.times)), exact, exact.flatten(0, 1).std(dim=0))


def batched(system: SimulatedSystem):
    """The generator's law as a slope of the batched integrator; inputs follow the trajectory."""

    def slope(t, x, index):
        u = None if system.inputs is None else system.inputs[index.numpy()]
        return NumpyLaw.apply(x, system.slope, u)

    return slope


def alone(system: SimulatedSystem, k: int):
    """The same for torchdiffeq: one state vector."""
    u = None if system.inputs is None else system.inputs[k]
    return lambda t, x: torch.from_numpy(system.slope(0.0, x.numpy(), u))


def test_every_generator_is_here():
    makers = {name.removeprefix("make_") for name in datasets.__all__ if name.startswith("make_")}
    assert {system.name for system in SYSTEMS.values()} == makers


@pytest.mark.parametrize("name", SYSTEMS)
def test_rk4_agrees_with_dopri5_at_tight_tolerance(name):
    system = SYSTEMS[name]
    starts, times, exact, scale = problem(system)
    ours = integrate(batched(system), starts, times, n_steps=N_STEPS)
    for model in range(2):
        for k in range(len(times)):
            theirs = torchdiffeq.odeint(
                alone(system, k),
                starts[model, k],
                times[k],
                rtol=1e-9,
                atol=1e-11,
                method="dopri5",
                options={"step_t": times[k, 1:]},
            )
            assert ((ours[model, k] - theirs) / scale).abs().max() < 1e-5
    assert ((ours[0] - exact) / scale).abs().max() < 1e-4  # what the generator itself got from scipy


@pytest.mark.parametrize("name", ["lotka_volterra", "hill_product", "coupled_oscillators"])
def test_rk4_agrees_with_dopri5_backwards_and_forwards_in_one_call(name):
    system = SYSTEMS[name]
    starts, times, exact, scale = problem(system)
    middle = exact[:, 4].expand(2, -1, -1)
    around = times - times[:, 4:5]
    ours = integrate(batched(system), middle, around, n_steps=N_STEPS)
    theirs = integrate(batched(system), middle, around, method="dopri5", rtol=1e-9, atol=1e-11)
    assert ((ours - theirs) / scale).abs().max() < 1e-6
    assert ((ours - exact) / scale).abs().max() < 1e-4


@pytest.mark.parametrize("name", SYSTEMS)
def test_gradients_of_a_loss_by_the_starts_are_finite_differences(name):
    system = SYSTEMS[name]
    starts, times, exact, scale = problem(system)
    times, exact = times[:, :5], exact[:, :5]
    slope = batched(system)

    def loss(x0):
        return ((integrate(slope, x0, times, n_steps=60) - exact) / scale).square().mean(dim=(1, 2, 3))

    x0 = starts.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(loss(x0).sum(), x0)
    for direction in range(3):
        step = torch.randn(starts.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(direction))
        step = 1e-6 * step * scale
        expected = (loss(starts + step) - loss(starts - step)) / 2
        found = (gradient * step).sum(dim=(1, 2))
        reach = (gradient.abs() * step.abs()).sum(dim=(1, 2)) + 1e-14
        assert ((found - expected).abs() <= 1e-4 * reach).all()


def test_gradients_by_the_weights_of_a_field_are_finite_differences():
    field = PerTargetField(3, 3, (4,), "tanh", (0, 1, 2))
    draw = torch.Generator().manual_seed(0)
    weights = field.init(draw, n_models=2, dtype=torch.float64, device=torch.device("cpu"))
    x0 = torch.randn(2, 4, 3, dtype=torch.float64, generator=draw)
    times = 2.0 * torch.rand(4, 5, dtype=torch.float64, generator=draw) - 0.5

    def loss(values):
        return integrate(lambda t, x, index: field(values, x), x0, times, n_steps=10).square().sum(dim=(1, 2, 3))

    leaves = {name: value.clone().requires_grad_(True) for name, value in weights.items()}
    gradients = torch.autograd.grad(loss(leaves).sum(), list(leaves.values()))
    for name, gradient in zip(leaves, gradients, strict=True):
        step = 1e-6 * torch.randn(gradient.shape, dtype=torch.float64, generator=draw)
        ahead, behind = ({**weights, name: weights[name] + sign * step} for sign in (1.0, -1.0))
        expected = (loss(ahead) - loss(behind)) / 2
        found = (gradient * step).flatten(1).sum(dim=1)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-13)
