"""The hand-written adjoint against autograd through a plain formula: every field, activation, layout and failure."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from skode._dynamics import Dynamics, RightHandSide
from skode._scales import Scales
from skode._typing import Weights
from skode.fields import ACTIVATIONS, AbstractField, PerTargetField, SharedField
from skode.integrate import SlopeStage, integrate, rk4, rk4_adjoint
from skode.integrate import adjoint as adjoint_module

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def plain(field: AbstractField, weights: Weights, z: torch.Tensor) -> torch.Tensor:
    """Every field by one formula, target after target, as one would write it on paper."""
    s = ACTIVATIONS[field.activation].plain
    last = len(field.hidden)
    targets = []
    for i in range(field.n_targets):
        of = {name: value[:, i] if field.per_target else value for name, value in weights.items()}
        h = z
        for k in range(last):
            h = s(h @ of[f"W{k}"].mT + of[f"b{k}"])
        row = slice(0, 1) if field.per_target else slice(i, i + 1)
        slope = h @ of[f"W{last}"][:, row].mT + of[f"b{last}"][..., row]
        if "K" in of:
            slope = slope + z @ of["K"][:, row].mT
        if "P" in of:
            slope = slope + ((z @ of["P"].mT) * (z @ of["R"].mT)).sum(-1, keepdim=True)
        targets.append(slope)
    return torch.cat(targets, dim=-1)


@dataclass(frozen=True)
class WithoutGradients(SharedField):
    """A field that writes no gradient: the default goes through autograd."""

    def __call__(self, weights: Weights, z: torch.Tensor) -> torch.Tensor:
        return plain(self, weights, z)

    bind = AbstractField.bind  # type: ignore[assignment]


def make(kind: str, d: int, n_sources: int, activation: str) -> AbstractField:
    variables = tuple(j % d if j < 2 * d else j for j in range(n_sources))
    both = (d, n_sources)
    return {
        "per_target": lambda: PerTargetField(*both, (4,), activation, variables),
        "deep": lambda: PerTargetField(*both, (4, 3, 2), activation, variables),
        "bilinear": lambda: PerTargetField(*both, (4, 3), activation, variables, n_bilinear=2),
        "shared": lambda: SharedField(*both, (5,), activation, variables),
        "shared_deep": lambda: SharedField(*both, (5, 4, 3), activation, variables),
        "residual": lambda: SharedField(*both, (5,), activation, variables, linear_skip=True),
        "without": lambda: WithoutGradients(*both, (5,), activation, variables),
    }[kind]()


KINDS = ("per_target", "deep", "bilinear", "shared", "shared_deep", "residual", "without")


def draw(field: AbstractField, n_models: int, seed: int = 0) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    weights = field.init(generator, n_models=n_models, dtype=torch.float64, device=torch.device("cpu"))
    return {
        name: (value + 0.3 * torch.randn(value.shape, generator=generator, dtype=torch.float64)).requires_grad_()
        for name, value in weights.items()
    }


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def equation(kind: str, activation: str = "tanh", *, order: int = 1, inputs: int = 0, clock: bool = False) -> Dynamics:
    d = 3
    one = np.ones(d)
    scales = Scales(
        time_unit=0.7,
        state_mean=0 * one,
        state_sd=one * [1.0, 2.0, 0.5],
        velocity_sd=None if order == 1 else one * [0.4, 1.0, 3.0],
        input_mean=np.zeros(inputs),
        input_sd=np.ones(inputs),
        clock_mean=0.2,
        clock_sd=1.5,
        rate=np.array([1.0, 0.6, 0.0]),  # the last state is constant
        low=np.tile(-one, order),
        high=np.tile(one, order),
    )
    return Dynamics(make(kind, d, d * order + inputs + clock, activation), scales, clock)


class Oracle(RightHandSide):
    """The same right-hand side with the plain formula in the graph of autograd."""

    def __call__(self, t: torch.Tensor, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        z = self._sources(t, x, index).expand(x.shape[0], -1, -1)
        return self._with_velocities(x, plain(self.dynamics.field, self.named, z))


def gradients(dynamics, weights, x0, times, inputs, origin, *, by_hand: bool):
    """Solution, and the gradient of a sum of squares of its finite part by weights and starts."""
    x0 = x0.clone().requires_grad_()
    slope = (RightHandSide if by_hand else Oracle)(dynamics, weights, inputs, origin)
    states = integrate(slope, x0, times, n_steps=5, march=rk4_adjoint if by_hand else rk4)
    fine = states.isfinite()
    loss = torch.where(fine, states, 0.0).pow(2).sum()
    return [states.detach(), *torch.autograd.grad(loss, [x0, *weights.values()], materialize_grads=True)]


def compare(dynamics: Dynamics, n_models: int, *, x0: torch.Tensor | None = None) -> list[torch.Tensor]:
    n, width = 4, dynamics.n_states
    weights = draw(dynamics.field, n_models)
    x0 = normal(n_models, n, width, seed=1) if x0 is None else x0
    times = torch.cat([torch.zeros(n, 1).double(), normal(n, 6, seed=2)], dim=1)
    times[0].abs_()
    times[1].abs_().neg_()
    inputs, origin = normal(n, dynamics.scales.n_inputs, seed=3), normal(n, seed=4)
    ours, theirs = (gradients(dynamics, weights, x0, times, inputs, origin, by_hand=way) for way in (True, False))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, equal_nan=True, **EXACT)
    return ours


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_given", [1, 2])
def test_gradients_of_fields_equal_autograd_through_the_plain_formula(kind: str, activation: str, n_given: int) -> None:
    field = make(kind, 3, 5, activation)
    weights, z = draw(field, 2), normal(n_given, 7, 5, seed=1).requires_grad_()
    cotangent = normal(2, 7, 3, seed=2)
    results = []
    for slopes in (field(weights, z), plain(field, weights, z.expand(2, -1, -1))):
        found = torch.autograd.grad(slopes, [z, *weights.values()], cotangent, materialize_grads=True)
        results.append([slopes.detach(), *found])
    for mine, other in zip(*results, strict=True):
        torch.testing.assert_close(mine, other, **EXACT)


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_that_a_field_does_not_read_get_no_gradient(kind: str) -> None:
    field = make(kind, 3, 5, "tanh")
    gate = torch.ones(2, 3, requires_grad=True, dtype=torch.float64)
    weights = {**draw(field, 2), "W0.log_alpha": gate}
    slopes = field(weights, normal(1, 7, 5, seed=1))
    (found,) = torch.autograd.grad(slopes.sum(), [gate], allow_unused=True)
    assert found is None or not found.any()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_adjoint_equals_autograd_for_every_field_and_activation(kind: str, activation: str) -> None:
    compare(equation(kind, activation), 2)


@pytest.mark.parametrize("n_models", [1, 3])
@pytest.mark.parametrize("clock", [False, True])
@pytest.mark.parametrize("inputs", [0, 2])
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_adjoint_equals_autograd_for_every_layout(kind: str, order: int, inputs: int, clock: bool, n_models: int):
    compare(equation(kind, order=order, inputs=inputs, clock=clock), n_models)


@pytest.mark.parametrize("order", [1, 2])
def test_trajectories_that_fail_leave_no_trace(order: int) -> None:
    """One model runs away from two starts, early and late; all gradients stay finite and equal autograd's."""
    dynamics = equation("bilinear", order=order)
    x0 = normal(2, 4, dynamics.n_states, seed=1)
    x0[0, 1] *= 1e3
    x0[0, 3] *= 30.0
    states, *found = compare(dynamics, 2, x0=x0)
    assert not states[0, 1].isfinite().all() and states[1].isfinite().all()
    assert all(gradient.isfinite().all() for gradient in found)


def test_blocks_add_up_to_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    dynamics = equation("bilinear", inputs=2, clock=True)
    whole = compare(dynamics, 2)
    monkeypatch.setattr(adjoint_module, "BLOCK", 10)
    for mine, other in zip(whole, compare(dynamics, 2), strict=True):
        torch.testing.assert_close(mine, other, **EXACT)


@pytest.mark.parametrize("order", [1, 2])
def test_without_gradients_the_nodes_are_the_same_and_no_stage_is_kept(order: int) -> None:
    dynamics = equation("per_target", order=order)
    weights, x0 = draw(dynamics.field, 2), normal(2, 3, 3 * order, seed=1)
    x0[0, 1] = 1e13  # fails
    alive: list[weakref.ref[torch.Tensor]] = []

    class Watched(RightHandSide):
        def evaluate(self, t: torch.Tensor, x: torch.Tensor, index: torch.Tensor) -> SlopeStage:
            found = super().evaluate(t, x, index)
            alive.append(weakref.ref(found.slope))
            most.append(sum(one() is not None for one in alive))
            return found

    counts = []
    for graph in (True, False):
        most: list[int] = []
        alive.clear()
        slope = Watched(dynamics, weights, torch.zeros(3, 0), torch.zeros(3))
        with torch.set_grad_enabled(graph):
            nodes = rk4_adjoint(slope, x0, torch.full((3,), 0.1).double(), 6)
        counts.append((max(most), nodes))
    torch.testing.assert_close(counts[0][1].states, counts[1][1].states, equal_nan=True, rtol=0, atol=0)
    torch.testing.assert_close(counts[0][1].slopes, counts[1][1].slopes, equal_nan=True, rtol=0, atol=0)
    assert counts[1][0] < counts[0][0]


def test_weights_that_need_no_gradient_get_none() -> None:
    dynamics = equation("per_target")
    weights = {name: value.detach() for name, value in draw(dynamics.field, 1).items()}
    x0 = normal(1, 2, 3, seed=1).requires_grad_()
    slope = RightHandSide(dynamics, weights, torch.zeros(2, 0), torch.zeros(2))
    nodes = rk4_adjoint(slope, x0, torch.full((2,), 0.1).double(), 3)
    nodes.states[-1].sum().backward()
    assert x0.grad is not None and all(value.grad is None for value in weights.values())


@pytest.mark.parametrize("kind", KINDS)
def test_adjoint_passes_gradcheck(kind: str) -> None:
    dynamics = equation(kind)
    weights = draw(dynamics.field, 1)
    step = torch.tensor([0.3, -0.2], dtype=torch.float64)

    def solve(x0: torch.Tensor, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        named = dict(zip(weights, values, strict=True))
        slope = RightHandSide(dynamics, named, torch.zeros(2, 0).double(), torch.zeros(2).double())
        return tuple(rk4_adjoint(slope, x0, step, 2))

    x0 = normal(1, 2, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(solve, (x0, *weights.values()), fast_mode=True)
