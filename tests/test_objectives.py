"""Data losses against explicit loops, their zeros and their units."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import expm

from skode import from_trajectories
from skode._dynamics import Dynamics
from skode._layout import Layout
from skode._prepare import prepare
from skode._scales import Scales
from skode._trajectories import as_trajectories
from skode.fields import PerTargetField, SharedField
from skode.integrate import integrate
from skode.objectives import (
    Rows,
    Windows,
    matching_loss,
    matching_scale,
    seam_loss,
    solve_windows,
    window_ends,
    window_errors,
    window_loss,
    window_scale,
    window_starts,
)

FIELDS = {
    "per_target": PerTargetField(3, 4, (5,), "tanh", (0, 1, 2, 3)),
    "shared": SharedField(3, 4, (5,), "tanh", (0, 1, 2, 3)),
    "residual": SharedField(3, 4, (5,), "tanh", (0, 1, 2, 3), linear_skip=True),
}
SCALES = Scales(
    time_unit=0.5,
    state_mean=np.zeros(3),
    state_sd=np.ones(3),
    velocity_sd=None,
    input_mean=np.zeros(1),
    input_sd=np.ones(1),
    clock_mean=0.0,
    clock_sd=1.0,
    rate=np.array([0.3, 0.5, 0.2]),
    low=np.full(3, -3.0),
    high=np.full(3, 3.0),
)


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def drawn(field, n_models=2, seed=0):
    return field.init(
        torch.Generator().manual_seed(seed), n_models=n_models, dtype=torch.float64, device=torch.device("cpu")
    )


def silent(field, n_models=1):
    """A field that is zero everywhere."""
    return {name: torch.zeros_like(value) for name, value in drawn(field, n_models).items()}


def rows_of(n_rows=11, seed=1):
    quadrature = torch.tensor([0.3, 0.7], dtype=torch.float64).expand(n_rows, 2)
    slopes, weights = random(n_rows, 3, seed=seed + 1), random(n_rows, 3, seed=7).abs()
    return Rows(random(n_rows, 2, 4, seed=seed), quadrature, slopes, weights)


def windows_of(n_windows=4, n_times=6, seed=1):
    draw = torch.Generator().manual_seed(seed)
    weights = torch.rand(n_windows, n_times, 3, dtype=torch.float64, generator=draw)
    weights[weights < 0.3] = 0.0
    return Windows(
        start=random(n_windows, 3, seed=seed),
        spread=0.1 * torch.rand(n_windows, 3, dtype=torch.float64, generator=draw),
        times=3.0 * torch.rand(n_windows, n_times, dtype=torch.float64, generator=draw) - 1.0,
        targets=torch.where(weights > 0, random(n_windows, n_times, 3, seed=seed + 2), 0.0),
        weights=weights,
        inputs=random(n_windows, 1, seed=seed + 3),
        origin=torch.zeros(n_windows, dtype=torch.float64),
        after=torch.full((n_windows,), -1),
    )


def loss_of(dynamics, weights, windows, scale, *, shift=None, **options):
    start = window_starts(windows, shift, next(iter(weights.values())).shape[0])
    return window_loss(solve_windows(dynamics, weights, windows, start, **options), windows, scale)


@pytest.mark.parametrize("kind", FIELDS)
def test_matching_loss_equals_an_explicit_loop(kind):
    field, rows = FIELDS[kind], rows_of()
    weights, scale = drawn(field), torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64)
    found = matching_loss(field, weights, rows, scale)
    for model in range(2):
        one = {name: value[model : model + 1] for name, value in weights.items()}
        for target in range(3):
            total = 0.0
            for k in range(len(rows.slopes)):
                at_nodes = [float(field(one, z.view(1, 1, -1))[0, 0, target]) for z in rows.sources[k]]
                total += (
                    float(rows.weights[k, target])
                    * (float(rows.slopes[k, target]) - 0.3 * at_nodes[0] - 0.7 * at_nodes[1]) ** 2
                )
            expected = total / float(rows.weights[:, target].sum()) / float(scale[target])
            assert float(found[model, target]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", FIELDS)
def test_the_zero_model_has_matching_loss_one(kind):
    field, rows = FIELDS[kind], rows_of()
    assert torch.allclose(
        matching_loss(field, silent(field), rows, matching_scale(rows)), torch.ones(1, 3, dtype=torch.float64)
    )


def test_rows_without_weight_do_not_count():
    field, rows = FIELDS["per_target"], rows_of()
    weights = drawn(field)
    extra = Rows(1e6 * torch.ones(2, 2, 4), torch.ones(2, 2), 1e6 * torch.ones(2, 3), torch.zeros(2, 3))
    more = Rows(*(torch.cat([a, b.double()]) for a, b in zip(rows, extra, strict=True)))
    scale = matching_scale(rows)
    torch.testing.assert_close(matching_scale(more), scale, rtol=1e-13, atol=0)
    torch.testing.assert_close(
        matching_loss(field, weights, more, scale), matching_loss(field, weights, rows, scale), rtol=1e-13, atol=0
    )


def test_selected_rows_are_those_rows():
    rows = rows_of()
    some = rows.select(torch.tensor([3, 1]))
    assert torch.equal(some.slopes, rows.slopes[[3, 1]]) and torch.equal(some.sources, rows.sources[[3, 1]])


def true_linear_field():
    """Data of dx/dt = A x, and the field of skode that is exactly A x in standard units."""
    A = np.array([[-0.4, 1.0, 0.0], [-1.0, -0.2, 0.5], [0.0, 0.3, -0.6]])
    starts = np.random.default_rng(0).normal(size=(5, 3))
    times = np.linspace(0.0, 5.0, 101)
    states = [np.stack([expm(A * t) @ start for t in times]) for start in starts]
    X, y, groups = from_trajectories(states, times)
    found = as_trajectories(X, y, layout=Layout.infer(4, 3), groups=groups)
    prepared = prepare(found, order=1, time_dependent=False)
    field, s = PerTargetField(3, 3, (2,), "tanh", (0, 1, 2)), prepared.scales
    weights = silent(field)
    weights["K"][0, :, 0] = torch.tensor(A * s.state_sd / s.slope_unit()[:, None])
    weights["b1"][0, :, 0, 0] = torch.tensor(A @ s.state_mean / s.slope_unit())
    return prepared, field, weights


def test_matching_loss_of_the_true_linear_field_vanishes():
    prepared, field, weights = true_linear_field()
    rows = Rows(
        *(torch.tensor(a) for a in (prepared.nodes, prepared.quadrature, prepared.slopes, prepared.slope_weights))
    )
    assert matching_loss(field, weights, rows, matching_scale(rows)).max() < 1e-5
    weights["K"][0, 0, 0, 1] *= 0.9
    loss = matching_loss(field, weights, rows, matching_scale(rows))[0]
    assert loss[0] > 1e-3 and loss[1:].max() < 1e-5  # one wrong equation does not show in the others


def test_window_loss_of_the_true_linear_field_vanishes():
    prepared, field, weights = true_linear_field()
    n = len(prepared.courses)
    start = torch.tensor(np.stack([c.start for c in prepared.courses]))
    windows = Windows(
        start=start,
        spread=torch.zeros(n, 3),
        times=torch.tensor(np.stack([c.times for c in prepared.courses])),
        targets=torch.tensor(np.stack([np.nan_to_num(c.observed) for c in prepared.courses])),
        weights=torch.tensor(np.stack([c.weights for c in prepared.courses])),
        inputs=torch.zeros(n, 0),
        origin=torch.zeros(n),
        after=torch.full((n,), -1),
    )
    scale = window_scale(windows, torch.zeros(3))
    dynamics = Dynamics(field, prepared.scales, time_dependent=False)
    assert loss_of(dynamics, weights, windows, scale, n_steps=100).max() < 1e-10


def test_the_mean_of_window_errors_is_the_window_loss():
    windows, states, scale = windows_of(), random(2, 4, 6, 3, seed=3), torch.rand(3).double() + 0.5
    errors = window_errors(states, windows, scale)
    torch.testing.assert_close(errors.mean(1), window_loss(states, windows, scale))
    assert errors.shape == (2, 4, 3)


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
@pytest.mark.parametrize("shifted", [False, True])
def test_window_loss_equals_an_explicit_loop(method, shifted):
    field, windows = FIELDS["residual"], windows_of()
    weights, scale = drawn(field), torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64)
    dynamics = Dynamics(field, SCALES, time_dependent=False)
    shift = random(2, 4, 3, seed=9) if shifted else None
    found = loss_of(dynamics, weights, windows, scale, shift=shift, n_steps=40, method=method)
    for model in range(2):
        one = {name: value[model : model + 1] for name, value in weights.items()}
        total, mass = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        for k in range(4):
            start = windows.start[k] + (windows.spread[k] * shift[model, k] if shift is not None else 0.0)

            def slope(t, x, index, k=k, one=one):
                z = torch.cat([x, windows.inputs[k].expand(*x.shape[:-1], 1)], dim=-1)
                return field(one, z) * torch.tensor(SCALES.rate)

            path = integrate(slope, start.view(1, 1, 3), windows.times[k][None], n_steps=100)[0, 0]
            for j, there in enumerate(path):
                total += windows.weights[k, j] * (windows.targets[k, j] - there) ** 2
                mass += windows.weights[k, j]
        torch.testing.assert_close(found[model], total / mass / scale, rtol=1e-4, atol=0)


@pytest.mark.parametrize("n_states", [3, 6])
def test_the_gradient_of_the_window_loss_is_that_of_its_formula(n_states):
    windows, scale = windows_of(), torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64)
    states, cotangent = random(2, 4, 6, n_states, seed=5).requires_grad_(), random(2, 3, seed=6)
    squares = windows.weights * (windows.targets - states[..., :3]) ** 2
    expected = squares.sum((1, 2)) / windows.weights.sum((0, 1)) / scale
    found = window_loss(states, windows, scale)
    ours, theirs = (torch.autograd.grad((cotangent * loss).sum(), states)[0] for loss in (found, expected))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-15)


def test_the_zero_model_has_window_loss_one():
    field, windows = FIELDS["per_target"], windows_of()
    dynamics = Dynamics(field, SCALES, time_dependent=False)
    scale = window_scale(windows, torch.zeros(3))
    loss = loss_of(dynamics, silent(field), windows, scale, n_steps=5)
    assert torch.allclose(loss, torch.ones(1, 3, dtype=torch.float64))


def test_the_scale_of_windows_is_not_below_the_noise():
    windows = windows_of()
    still = windows._replace(targets=windows.start[:, None].expand(-1, 6, -1))
    floor = torch.tensor([0.3, 0.2, 0.1])
    assert torch.allclose(window_scale(still, floor).float(), floor)
    assert (window_scale(windows, floor) > floor).all()


def test_the_window_loss_of_a_diverging_model_stays_its_own():
    field, windows = FIELDS["residual"], windows_of()
    dynamics = Dynamics(field, SCALES, time_dependent=False)
    scale = window_scale(windows, torch.zeros(3))
    weights = drawn(field)
    alone = {name: value[:1] for name, value in weights.items()}
    wild = {name: value.clone() for name, value in weights.items()}
    wild["K"][1] = 1e8 * torch.eye(3, 4)
    leaves = {name: value.requires_grad_(True) for name, value in wild.items()}
    both = loss_of(dynamics, leaves, windows, scale, n_steps=10)
    one = {name: value.clone().requires_grad_(True) for name, value in alone.items()}
    single = loss_of(dynamics, one, windows, scale, n_steps=10)
    assert not both[1].isfinite().all()
    torch.testing.assert_close(both[:1], single, rtol=1e-12, atol=0)
    ours = torch.autograd.grad(both[0].sum(), list(leaves.values()))
    theirs = torch.autograd.grad(single.sum(), list(one.values()))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a[:1], b, rtol=1e-10, atol=1e-14)


def test_selected_windows_keep_their_successors():
    windows = windows_of(5)._replace(after=torch.tensor([1, 2, -1, 4, -1]))
    some = windows.select(torch.tensor([True, True, False, True, True]))
    assert some.after.tolist() == [1, -1, 3, -1]
    assert torch.equal(some.start[some.after[2]], windows.start[windows.after[3]])


def test_seams_count_jumps_as_errors_of_one_observation():
    windows = windows_of(3)._replace(after=torch.tensor([2, -1, -1]))
    start, states = random(2, 3, 3, seed=4), random(2, 3, 6, 3, seed=5)
    scale = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64)
    jump = states[:, 0, -1] - start[:, 2]
    n_observations = (windows.weights > 0).sum((0, 1))
    torch.testing.assert_close(
        seam_loss(window_ends(states), start, windows, scale), jump**2 / (n_observations * scale)
    )


def test_a_solution_cut_into_windows_has_no_seams_to_pay_for():
    field = PerTargetField(3, 3, (2,), "tanh", (0, 1, 2))
    weights = drawn(field, n_models=1)
    dynamics = Dynamics(field, SCALES, time_dependent=False)
    times = torch.linspace(0.0, 1.0, 6, dtype=torch.float64)
    windows = windows_of(2)._replace(
        times=times.expand(2, -1), after=torch.tensor([1, -1]), inputs=torch.zeros(2, 0, dtype=torch.float64)
    )
    first = integrate(dynamics.slope(weights, windows.inputs, windows.origin), windows.start[None], windows.times)
    start = torch.stack([windows.start[0], first[0, 0, -1]])[None]
    states = solve_windows(dynamics, weights, windows, start, n_steps=20)
    assert seam_loss(window_ends(states), start, windows, torch.ones(3)).max() < 1e-8
