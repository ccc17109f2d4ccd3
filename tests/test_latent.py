"""Wide states solved through the narrow layers that see them: equal to the solution of the states themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skode import objectives
from skode._dynamics import Dynamics
from skode._latent import Latent, latent_pays, solve_latent
from skode._scales import Scales
from skode.fields import ACTIVATIONS, PerTargetField, SharedField
from skode.integrate import integrate, rk4, rk4_adjoint
from skode.objectives import Windows, solve_windows, window_starts

EXACT = {"rtol": 1e-10, "atol": 1e-10}
D, N_MODELS, N = 12, 2, 5


def equation(hidden, activation="tanh", *, inputs=0, clock=False, order=1, **options) -> Dynamics:
    one, n_sources = np.ones(D), order * D + inputs + clock
    scales = Scales(
        time_unit=0.7,
        state_mean=0 * one,
        state_sd=one,
        velocity_sd=None if order == 1 else one,
        input_mean=np.zeros(inputs),
        input_sd=np.ones(inputs),
        clock_mean=0.2,
        clock_sd=1.5,
        rate=np.where(np.arange(D) == 3, 0.0, np.linspace(0.2, 1.0, D)),  # the fourth state is constant
        low=-one,
        high=one,
    )
    field = SharedField(D, n_sources, hidden, activation, tuple(range(n_sources)), **options)
    return Dynamics(field, scales, clock)


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draw(dynamics):
    weights = dynamics.field.init(
        torch.Generator().manual_seed(0), n_models=N_MODELS, dtype=torch.float64, device=torch.device("cpu")
    )
    moved = {name: value + 0.2 * normal(*value.shape, seed=k) for k, (name, value) in enumerate(weights.items())}
    return {name: value.requires_grad_() for name, value in moved.items()}


def windows_of(n_inputs):
    """Trajectories ahead, back and in both directions, of different lengths and with repeated times."""
    times = normal(N, 6, seed=1)
    times[0].abs_()
    times[1].abs_().neg_()
    times[2] *= 0.05
    times[3, 4:] = times[3, 3]
    times[:, 0] = 0.0
    values = normal(N, 6, D, seed=2)
    start, inputs, origin = normal(N, D, seed=3), normal(N, n_inputs, seed=4), normal(N, seed=5)
    return Windows(start, 0.1 * values[:, 0].abs(), times, values, values.abs(), inputs, origin, torch.full((N,), -1))


def in_full(dynamics, weights, windows, start, n_steps=7):
    slope = dynamics.slope(weights, windows.inputs, windows.origin)
    return integrate(slope, start, windows.times, n_steps=n_steps, march=rk4)


def latent(dynamics, weights, windows, start, n_steps=7):
    return solve_latent(dynamics, weights, windows.inputs, windows.origin, start, windows.times, n_steps=n_steps)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [(4,), (3, 5), (5, 4, 3)])
@pytest.mark.parametrize(("inputs", "clock"), [(0, False), (2, True)])
def test_states_and_gradients_are_those_of_the_full_states(activation, hidden, inputs, clock):
    dynamics, windows = equation(hidden, activation, inputs=inputs, clock=clock), windows_of(inputs)
    weights, shift = draw(dynamics), normal(N_MODELS, N, D, seed=6).requires_grad_()
    cotangent, results = normal(N_MODELS, N, 6, D, seed=7), []
    for solve in (latent, in_full):
        states = solve(dynamics, weights, windows, window_starts(windows, shift, N_MODELS))
        results.append([states, *torch.autograd.grad((cotangent * states).sum(), [shift, *weights.values()])])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, **EXACT)


def test_constant_states_and_starts_stay_exactly_where_they_are():
    dynamics, windows = equation((4,)), windows_of(0)
    states = latent(dynamics, draw(dynamics), windows, window_starts(windows, None, N_MODELS))
    start = windows.start[:, None].expand(-1, 6, -1)
    assert all(torch.equal(states[model, ..., 3], start[..., 3]) for model in range(N_MODELS))
    assert all(torch.equal(states[model, :, 0], start[:, 0]) for model in range(N_MODELS))
    assert not torch.equal(states[0, :, 1], start[:, 1])


def test_a_trajectory_that_fails_leaves_no_trace_in_its_neighbours():
    dynamics = equation((4,), "relu")
    windows = windows_of(0)._replace(times=torch.linspace(0, 1, 6).double().expand(N, -1) * torch.ones(N, 1))
    windows.times[1:] *= 1e-7
    weights = {name: value if name == "b0" else 1e4 * value.abs() for name, value in draw(dynamics).items()}
    weights = {name: value.detach().requires_grad_() for name, value in weights.items()}
    start, some = windows.start.abs().expand(N_MODELS, -1, -1), torch.arange(1, N)
    results = []
    for mine in (torch.arange(N), some):
        chosen = windows._replace(start=windows.start[mine], times=windows.times[mine], origin=windows.origin[mine])
        chosen = chosen._replace(inputs=windows.inputs[mine])
        begin = start[:, mine].clone().requires_grad_()
        states = latent(dynamics, weights, chosen, begin)
        loss = torch.where(states.isfinite(), states, 0.0)[:, -len(some) :].square().sum()
        by_start, *by_weights = torch.autograd.grad(loss, [begin, *weights.values()])
        results.append([states[:, -len(some) :], by_start[:, -len(some) :], *by_weights])
        if len(mine) == N:
            full = in_full(dynamics, weights, chosen, begin)
            assert torch.equal(states.isfinite(), full.isfinite())
            assert states[:, 0, -1].isnan().all() and states[:, 0, 0].isfinite().all()
    for both, alone in zip(*results, strict=True):
        assert both.isfinite().all()
        torch.testing.assert_close(both, alone, rtol=1e-10, atol=0)


def test_a_model_that_fails_leaves_no_trace_in_its_neighbours():
    dynamics, windows = equation((4,), "relu"), windows_of(0)
    tame = draw(dynamics)
    wild = {
        name: torch.cat([value[:1], 1e9 * value[1:].abs()]).detach().requires_grad_() for name, value in tame.items()
    }
    results = []
    for weights in (tame, wild):
        states = latent(dynamics, weights, windows, window_starts(windows, None, N_MODELS))
        loss = states[0].square().sum()
        results.append([states[:1], *(g[:1] for g in torch.autograd.grad(loss, list(weights.values())))])
    assert states[1].isnan().any()
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_pulled_gradients_equal_autograd_through_the_layer(activation):
    leaves = [normal(2, 4, 3, seed=1), normal(2, 4, 1, seed=2), normal(2, 4, N, seed=3)]
    leaves += [normal(2, 3, 4, seed=4), normal(2, 1, 3, seed=5)]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    x0, times, results = normal(2, N, 3, seed=6), windows_of(0).times, []
    for march in (rk4, rk4_adjoint):
        slope = Latent(ACTIVATIONS[activation], *leaves[:3], [(leaves[3], leaves[4])])
        states = integrate(slope, x0, times, n_steps=5, march=march)
        results.append([states, *torch.autograd.grad(states.sin().sum(), leaves)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, **EXACT)


@pytest.mark.parametrize(
    ("dynamics", "method", "expected"),
    [
        (equation((12, 12)), "rk4", True),
        (equation((13, 13)), "rk4", False),
        (equation((100, 7)), "rk4", False),
        (equation((100, 6)), "rk4", True),
        (equation((4,), linear_skip=True), "rk4", False),
        (equation((4,), order=2), "rk4", False),
        (equation((4,)), "midpoint", False),
    ],
)
def test_windows_are_solved_by_what_latent_pays(dynamics, method, expected, monkeypatch):
    used = []
    monkeypatch.setattr(objectives, "solve_latent", lambda *a, **k: used.append(True) or solve_latent(*a, **k))
    windows, order = windows_of(0), dynamics.scales.order
    windows = windows._replace(start=windows.start.repeat(1, order), spread=windows.spread.repeat(1, order))
    weights, start = draw(dynamics), window_starts(windows, None, N_MODELS)
    states = solve_windows(dynamics, weights, windows, start, n_steps=3, method=method)
    assert states.shape == (N_MODELS, N, 6, order * D)
    assert bool(used) is expected


def test_fields_of_single_targets_are_solved_in_full():
    field = PerTargetField(D, D, (2,), "tanh", tuple(range(D)))
    assert not latent_pays(Dynamics(field, equation((2,)).scales, False))
