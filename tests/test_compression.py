"""Observations compressed to the numbers of a grid: the same squared errors and gradients, whatever was observed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skode import SparseNODERegressor, from_trajectories
from skode import _alike as alike_module
from skode._dynamics import Dynamics
from skode._latent import latent_pays
from skode._scales import Scales
from skode.datasets import make_lotka_volterra
from skode.fields import PerTargetField, SharedField
from skode.integrate import compress, integrate, rk4
from skode.objectives import Windows, solve_windows, window_ends, window_loss

N, N_TIMES, N_STEPS, N_MODELS = 4, 40, 5, 2
EXACT = {"rtol": 1e-10, "atol": 1e-12}


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def equation(kind, d=3):
    """A shared field, one of them wide enough for its latent form, or networks per target; inputs and time are seen."""
    one = np.ones(d)
    scales = Scales(0.7, 0 * one, one, None, np.zeros(1), np.ones(1), 0.2, 1.5, np.linspace(0.2, 1, d), -one, one)
    variables = tuple(range(d + 2))
    if kind == "per_target":
        field = PerTargetField(d, d + 2, (4,), "tanh", variables, n_bilinear=2)
    else:
        field = SharedField(d, d + 2, (3, 4), "tanh", variables, linear_skip=kind == "residual")
    return Dynamics(field, scales, time_dependent=True)


def draw(dynamics):
    weights = dynamics.field.init(
        torch.Generator().manual_seed(0), n_models=N_MODELS, dtype=torch.float64, device=torch.device("cpu")
    )
    return {name: (w + 0.2 * normal(*w.shape, seed=k)).requires_grad_() for k, (name, w) in enumerate(weights.items())}


def patterns(kind, d):
    """Weights of observations: all alike, rows that lack, two patterns of targets, one target that nobody saw."""
    weights = torch.ones(N, N_TIMES, d, dtype=torch.float64)
    if kind == "rows":
        weights *= normal(N, N_TIMES, 1, seed=9).abs() * (normal(N, N_TIMES, 1, seed=8) > -0.5)
    if kind == "targets":
        weights[0, ::3, : d // 2] = 0.0
        weights[1, 5:, -1] = 0.0
        weights[2] *= 3.0
    if kind == "unseen":
        weights[..., 0] = 0.0
    return weights


def windows_of(weights, d):
    times = normal(N, N_TIMES, seed=1).abs()
    times[0] *= 0.5
    times[:, 0] = 0.0
    times[3, 20:] = times[3].max()  # padded
    values = normal(N, N_TIMES, d, seed=2)
    after = torch.full((N,), -1)
    return Windows(
        normal(N, d, seed=3),
        values[:, 0].abs(),
        times,
        torch.where(weights > 0, values, 0.0),
        weights,
        normal(N, 1, seed=4),
        normal(N, seed=5),
        after,
    )


@pytest.mark.parametrize("seen", ["all", "rows", "targets", "unseen"])
@pytest.mark.parametrize(("kind", "d"), [("shared", 3), ("shared", 12), ("residual", 3), ("per_target", 3)])
def test_the_loss_and_its_gradient_are_those_of_all_observations(kind, d, seen):
    dynamics, scale = equation(kind, d), torch.linspace(0.5, 2.0, d, dtype=torch.float64)
    assert latent_pays(dynamics) == (kind == "shared" and d == 12)
    weights, windows = draw(dynamics), windows_of(patterns(seen, d), d)
    start = (windows.start + 0.1 * normal(N_MODELS, N, d, seed=6)).requires_grad_()
    leaves = [start, *weights.values()]

    slope = dynamics.slope(weights, windows.inputs, windows.origin)
    states = integrate(slope, start, windows.times, n_steps=N_STEPS, march=rk4)  # autograd through the steps
    expected = window_loss(states, windows, scale)
    found = compress(windows.times, windows.targets, windows.weights, N_STEPS, n_models=N_MODELS)
    assert found is not None
    rows = solve_windows(dynamics, weights, windows, start, n_steps=N_STEPS, compressed=found)
    loss = window_loss(rows, windows, scale, found)

    torch.testing.assert_close(loss, expected, **EXACT)
    prices = normal(*loss.shape, seed=7)
    by_hand = torch.autograd.grad((prices * loss).sum(), leaves, allow_unused=True, materialize_grads=True)
    by_graph = torch.autograd.grad((prices * expected).sum(), leaves, allow_unused=True, materialize_grads=True)
    for ours, theirs in zip(by_hand, by_graph, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("kind", "d"), [("shared", 3), ("shared", 12), ("per_target", 3)])
def test_ends_follow_the_rows_if_they_are_asked_for(kind, d):
    dynamics, windows = equation(kind, d), windows_of(patterns("targets", d), d)
    weights, start = draw(dynamics), windows.start.expand(N_MODELS, -1, -1)
    parts = windows.times, windows.targets, windows.weights
    without, found = compress(*parts, N_STEPS), compress(*parts, N_STEPS, ends=True)
    assert without is not None
    assert found is not None
    states = solve_windows(dynamics, weights, windows, start, n_steps=N_STEPS, compressed=found)
    end = windows._replace(times=windows.times.amax(1, keepdim=True))
    expected = solve_windows(dynamics, weights, end, start, n_steps=N_STEPS)[:, :, 0]
    torch.testing.assert_close(window_ends(states, found), expected, **EXACT)
    rows = solve_windows(dynamics, weights, windows, start, n_steps=N_STEPS, compressed=without)
    assert not window_ends(rows, without).numel()
    torch.testing.assert_close(rows, states[:, : len(found.targets)], **EXACT)


def test_only_rows_that_tell_something_are_kept():
    weights = patterns("all", 3)
    weights[0, 3:] = 0.0  # three observations, one, as many as there are
    weights[1, 1:] = 0.0
    windows = windows_of(weights, 3)
    found = compress(windows.times[:3, :8], windows.targets[:3, :8], weights[:3, :8], N_STEPS)
    assert found is not None
    assert found.mask is None  # targets were observed together
    assert found.owner.tolist() == [0] * 3 + [1] + [2] * 8


def test_a_solution_that_fails_leaves_no_finite_loss_and_only_its_own_model_knows():
    windows = windows_of(patterns("all", 3), 3)
    dynamics = equation("per_target")
    weights = {name: value.detach().clone() for name, value in draw(dynamics).items()}
    weights["P"][0] = weights["R"][0] = 1e3
    found = compress(windows.times, windows.targets, windows.weights, N_STEPS)
    assert found is not None
    start = windows.start.expand(N_MODELS, -1, -1)
    rows = solve_windows(dynamics, weights, windows, start, n_steps=N_STEPS, compressed=found)
    loss = window_loss(rows, windows, torch.ones(3, dtype=torch.float64), found)
    assert not bool(loss[0].isfinite().any())
    alone = {name: value[1:] for name, value in weights.items()}
    rows = solve_windows(dynamics, alone, windows, start[1:], n_steps=N_STEPS, compressed=found)
    assert torch.equal(loss[1:], window_loss(rows, windows, torch.ones(3, dtype=torch.float64), found))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_numbers_of_a_model_do_not_depend_on_how_many_run_beside_it(dtype):
    dynamics, windows = equation("per_target"), windows_of(patterns("rows", 3), 3)
    windows = Windows(*(part if part.dtype == torch.long else part.to(dtype) for part in windows))
    weights = {
        name: value.detach().to(dtype).repeat(3, *[1] * (value.ndim - 1)) for name, value in draw(dynamics).items()
    }
    found = compress(windows.times, windows.targets, windows.weights, N_STEPS)
    assert found is not None

    def of_first(n_models):
        some = {name: value[:n_models].clone().requires_grad_() for name, value in weights.items()}
        start = windows.start.expand(n_models, -1, -1)
        rows = solve_windows(dynamics, some, windows, start, n_steps=N_STEPS, compressed=found)
        loss = window_loss(rows, windows, torch.ones(3, dtype=dtype), found)
        gradients = torch.autograd.grad(loss.sum(), list(some.values()))
        return [loss[:1].detach(), *(value[:1] for value in gradients)]

    alone = of_first(1)
    for n_models in (2, 3, 5):
        for mine, other in zip(alone, of_first(n_models), strict=True):
            assert torch.equal(mine, other)


def test_what_does_not_pay_stays_as_it_is():
    windows = windows_of(patterns("all", 3), 3)
    times, targets, weights = windows.times, windows.targets, windows.weights
    assert compress(times, targets, weights, 31) is not None  # 64 numbers for every observation
    assert compress(times, targets, weights, 32) is None
    assert compress(times - 0.1, targets, weights, N_STEPS) is None  # both signs of time
    assert compress(times, targets, normal(N, N_TIMES, 3, seed=4).abs(), 10) is None  # weights of every target its own
    assert compress(0.0 * times, targets, weights, N_STEPS) is None  # nothing to solve
    short = torch.cat([torch.linspace(0, 64, N_TIMES).double()[None], torch.linspace(0, 1, N_TIMES).repeat(500, 1)])
    short[1:, 3:] = 1.0
    many = torch.ones(501, N_TIMES, 3, dtype=torch.float64)
    assert compress(short.double(), many, many, 16) is None  # short ones take fewer steps


@pytest.mark.parametrize(
    ("field", "training"), [("shared", "trajectory"), ("per_target", "trajectory"), ("per_target", "staged")]
)
def test_a_fit_is_the_same_with_and_without(field, training, monkeypatch):
    system = make_lotka_volterra(n_trajectories=6, n_times=80, noise=0.02, random_state=0)
    X, y, groups = from_trajectories(system.states, system.times)
    if training == "trajectory":  # short windows do not pay where targets were not observed together
        y[::7, 0] = np.nan
    options = {"penalty": None, "training": training, "field": field, "dtype": "float64", "random_state": 0}
    asked = []

    def counted(*args, **kwargs):
        asked.append(compress(*args, **kwargs))
        return asked[-1]

    monkeypatch.setattr(alike_module, "compress", counted)
    short = SparseNODERegressor(**options, max_iter=20, tol=1).fit(X, y, groups=groups)
    assert asked
    assert all(found is not None for found in asked)
    monkeypatch.setattr(alike_module, "compress", lambda *args, **kwargs: None)
    full = SparseNODERegressor(**options, max_iter=20, tol=1).fit(X, y, groups=groups)
    np.testing.assert_allclose(short.predict(X), full.predict(X), rtol=1e-6, atol=1e-8)


def test_ends_are_read_where_windows_follow_each_other_alone(monkeypatch):
    system = make_lotka_volterra(n_trajectories=6, n_times=40, noise=0.02, random_state=0)
    X, y, groups = from_trajectories(system.states, system.times)
    asked = set()

    def noted(*args, **kwargs):
        asked.add(kwargs["ends"])
        return compress(*args, **kwargs)

    monkeypatch.setattr(alike_module, "compress", noted)
    options = {"penalty": None, "max_iter": 20, "tol": 1, "random_state": 0}
    SparseNODERegressor(**options, training="trajectory").fit(X, y, groups=groups)
    assert asked == {False}
    asked.clear()
    SparseNODERegressor(**options).fit(X, y, groups=groups)
    assert True in asked
