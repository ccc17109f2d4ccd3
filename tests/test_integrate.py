"""Oracles for the integrators: exact solutions, torchdiffeq, and that no trajectory touches another."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from skode.integrate import TorchSteps, double_step, halve_step, hermite, integrate, rk4, trace, tracing
from skode.integrate.buckets import share_out

ROTATION = torch.tensor([[-0.1, 2.0], [-2.0, -0.1]], dtype=torch.float64)
WIDE = np.array([[-1e3] * 3, [1e3] * 3])


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def rotate(t, x, index):
    return x @ ROTATION.T


def lorenz(t, x, index):
    a, b, c = x.unbind(-1)
    return torch.stack([10.0 * (b - a), a * (28.0 - c) - b, a * b - 8.0 / 3.0 * c], dim=-1)


def explode(t, x, index):
    """dx/dt = x^2, which ends at t = 1 / x0 for positive x0, and decays for negative."""
    return x**2


def network(weights):
    """A small field with its own weights in every model."""
    return lambda t, x, index: torch.tanh(x @ weights + t[..., None]) - 0.3 * x


def exact_rotation(x0, times):  # (model, trajectory, 2), (trajectory, time)
    return torch.stack(
        [
            torch.stack([torch.matrix_exp(t * ROTATION) @ x0[:, i, :, None] for t in row], dim=1)[..., 0]
            for i, row in enumerate(times)
        ],
        dim=1,
    )


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_rotation_converges_with_order_four_between_nodes_too(sign):
    x0, times = (
        random(2, 3, 2),
        sign * torch.rand(3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1)),
    )
    exact = exact_rotation(x0, times)
    errors = [(integrate(rotate, x0, times, n_steps=n) - exact).abs().max() for n in (8, 16, 32, 64)]
    orders = [math.log2(a / b) for a, b in zip(errors[:-1], errors[1:], strict=True)]
    assert all(3.7 < order < 4.4 for order in orders[1:])
    assert errors[-1] < 1e-6


def test_cubic_in_time_is_exact():
    def slope(t, x, index):
        return (4.0 * t**3 - t)[..., None].expand_as(x)

    nodes = rk4(slope, random(1, 2, 3), torch.tensor([0.5, -0.25], dtype=torch.float64), 6)
    t = torch.arange(7, dtype=torch.float64)[:, None] * torch.tensor([0.5, -0.25], dtype=torch.float64)
    expected = (t**4 - t**2 / 2)[:, None, :, None] + nodes.states[:1]
    torch.testing.assert_close(nodes.states, expected, rtol=0, atol=1e-12)


def test_hermite_meets_nodes_and_reproduces_cubics():
    step = torch.tensor([0.5, -0.3], dtype=torch.float64)
    nodes = rk4(lambda t, x, index: (3.0 * t**2)[..., None].expand_as(x), torch.zeros(1, 2, 1).double(), step, 4)
    times = step[:, None] * torch.tensor([[0.0, 1.0, 1.7, 4.0, 0.1, 1.7]], dtype=torch.float64)
    torch.testing.assert_close(hermite(nodes, step, times)[0, :, :, 0], times**3, rtol=0, atol=1e-14)


def test_origin_is_what_the_clock_shows():
    origin = torch.tensor([0.0, 5.0], dtype=torch.float64)
    times = torch.tensor([[1.0, -1.0], [2.0, -3.0]], dtype=torch.float64)
    x0 = torch.zeros(1, 2, 1, dtype=torch.float64)

    def slope(t, x, index):
        return 2.0 * t[..., None]

    exact = ((origin[:, None] + times) ** 2 - origin[:, None] ** 2)[None, ..., None]
    for method in ("rk4", "dopri5"):
        got = integrate(slope, x0, times, origin=origin, method=method)
        torch.testing.assert_close(got, exact, rtol=1e-6, atol=1e-6)


def test_agrees_with_torchdiffeq_and_scipy_on_lorenz():
    x0 = torch.tensor([[[1.0, 2.0, 20.0], [-3.0, 0.0, 15.0]]], dtype=torch.float64)
    times = torch.tensor([[0.1, 1.0, 0.7], [0.9, 0.3, 0.3]], dtype=torch.float64)
    ours = integrate(lorenz, x0, times, n_steps=1000)
    tight = integrate(lorenz, x0, times, method="dopri5", rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(tight, ours, rtol=0, atol=1e-6)
    for i in range(2):
        oracle = solve_ivp(
            lambda t, x: lorenz(t, torch.tensor(x), None).numpy(),
            (0.0, 1.0),
            x0[0, i].numpy(),
            method="DOP853",
            rtol=1e-11,
            atol=1e-11,
            dense_output=True,
        ).sol(times[i].numpy())
        torch.testing.assert_close(ours[0, i], torch.tensor(oracle.T), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "tolerance"),
    [("dopri5", 1e-6), ("dopri8", 1e-6), ("bosh3", 1e-5), ("midpoint", 1e-3), ("implicit_adams", 1e-3)],
)
def test_other_methods_solve_unsorted_repeated_times_of_both_signs(method, tolerance):
    x0 = random(2, 2, 2)
    times = torch.tensor([[0.5, -0.4, 0.0, 0.5, 0.2], [-1.0, -0.1, -0.1, -0.3, -1.0]], dtype=torch.float64)
    got = integrate(rotate, x0, times, method=method, n_steps=200)
    torch.testing.assert_close(got, exact_rotation(x0, times), rtol=0, atol=tolerance)
    torch.testing.assert_close(got[:, 0, 2], x0[:, 0], rtol=0, atol=0)


def test_backwards_inverts_forwards():
    x0 = torch.tensor([[[1.0, 2.0, 20.0]]], dtype=torch.float64)
    there = integrate(lorenz, x0, torch.tensor([[1.0]]).double(), n_steps=1000)[:, :, 0]
    back = integrate(lorenz, there, torch.tensor([[-1.0]]).double(), n_steps=1000)[:, :, 0]
    torch.testing.assert_close(back, x0, rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_batched_equals_one_by_one(method):
    weights, x0 = 0.7 * random(3, 2, 2), random(3, 4, 2, seed=1)
    times = 2.0 * random(4, 6, seed=2)
    origin = random(4, seed=3)
    whole = integrate(network(weights), x0, times, method=method, origin=origin)
    for model in range(3):
        for i in range(4):
            alone = integrate(
                network(weights[[model]]), x0[[model]][:, [i]], times[[i]], method=method, origin=origin[[i]]
            )
            torch.testing.assert_close(whole[model, i], alone[0, 0], rtol=1e-12, atol=1e-12)


def test_slope_is_told_which_trajectories_it_gets():
    rates = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    x0 = torch.ones(1, 3, 1, dtype=torch.float64)
    times = torch.tensor([[0.5, 0.5], [-0.5, -0.2], [0.3, -0.3]], dtype=torch.float64)

    def slope(t, x, index):
        return -rates[index, None] * x

    exact = torch.exp(-rates[:, None] * times)[None, ..., None]
    for method in ("rk4", "dopri5"):
        torch.testing.assert_close(integrate(slope, x0, times, method=method), exact, rtol=1e-5, atol=1e-5)
    rows, asked = np.array([2, 0, 2, 1]), np.array([0.3, 4.0, -0.3, -0.2])
    for block in (None, 1, 2, 8):
        steps = TorchSteps(slope, block)
        traced = trace(steps, np.ones((3, 1)), rows, asked, step=0.05, box=np.array([[-9.0], [9.0]]), chunk=3)
        np.testing.assert_allclose(traced.states[:, 0], np.exp(-rates[rows].numpy() * asked), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_gradients_pass_gradcheck(method):
    weights, x0 = (0.5 * random(2, 2, 2)).requires_grad_(), random(2, 2, 2, seed=1).requires_grad_()
    times = torch.tensor([[0.4, -0.3], [0.5, 0.0]], dtype=torch.float64)

    def solve(weights, x0):
        return integrate(network(weights), x0, times, method=method, n_steps=3, rtol=1e-7, atol=1e-7)

    assert torch.autograd.gradcheck(solve, (weights, x0), atol=1e-5)


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
@pytest.mark.parametrize("kind", ["explodes", "nan", "overflows"])
def test_diverging_neighbour_changes_nothing(method, kind):
    """Values and gradients of the others, also with respect to a weight that all trajectories share."""
    x0 = torch.tensor([[[-1.0], [3.0], [0.2]], [[-1.0], [-3.0], [0.2]]], dtype=torch.float64)
    times = torch.tensor([[1.0, 0.5], [1.0, 0.01], [1.0, 0.3]], dtype=torch.float64)

    def slope_with(weight):
        def slope(t, x, index):
            if kind == "explodes":
                return weight * x**2
            if kind == "nan":
                return weight * x**2 * torch.sqrt(10.0 - x)
            return weight * x**2 + torch.exp(60.0 * (x - 3.0)) * x.clamp(min=3.0).sub(3.0)

        return slope

    def run(keep):
        weight = torch.ones(2, 1, 1, dtype=torch.float64, requires_grad=True)
        start = x0[:, keep].clone().requires_grad_()
        states = integrate(slope_with(weight), start, times[keep], method=method)
        fine = states.isfinite()
        torch.where(fine, states, 0.0).pow(2).sum().backward()
        return states.detach(), fine, weight.grad, start.grad

    states, fine, weight_grad, start_grad = run([0, 1, 2])
    assert not fine[0, 1, 0].any() and fine[:, [0, 2]].all() and fine[1].all()
    without = run([0, 2])
    torch.testing.assert_close(states[:, [0, 2]], without[0], rtol=0, atol=0 if method == "rk4" else 1e-12)
    torch.testing.assert_close(start_grad[:, [0, 2]], without[3], rtol=1e-12, atol=1e-12)
    assert weight_grad.isfinite().all()


def test_failed_trajectory_adds_only_the_gradient_of_its_good_rows():
    x0 = torch.tensor([[[-1.0], [3.0]]], dtype=torch.float64)
    times = torch.tensor([[1.0, 0.5], [1.0, 1.0]], dtype=torch.float64)
    grads = []
    for keep in ([0, 1], [0]):
        weight = torch.ones((), dtype=torch.float64, requires_grad=True)
        states = integrate(lambda t, x, index, w=weight: w * x**2, x0[:, keep], times[keep])
        states[states.isfinite()].sum().backward()
        grads.append(weight.grad)
    torch.testing.assert_close(*grads, rtol=1e-14, atol=0)


def test_trace_agrees_with_integrate_and_keeps_its_grid():
    x0 = torch.tensor([[[1.0, 2.0, 20.0], [-3.0, 0.0, 15.0]]], dtype=torch.float64)
    rows, times = np.array([0, 1, 0, 1, 1]), np.array([1.0, 0.31, 0.25, -0.2, 0.0])
    traced = trace(TorchSteps(lorenz), x0[0].numpy(), rows, times, step=0.01, box=WIDE)
    grid = integrate(lorenz, x0, torch.tensor([[1.0, 0.25], [0.31, 0.0]]).double(), n_steps=100)[0].numpy()
    np.testing.assert_allclose(traced.states[[0, 2]], grid[0], rtol=1e-13, atol=1e-12)
    np.testing.assert_allclose(traced.states[1], grid[1, 0], rtol=0, atol=1e-3)
    np.testing.assert_array_equal(traced.states[4], x0[0, 1])
    assert not traced.held.any() and np.isnan(traced.failed_at).all()


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_trace_of_any_subset_of_rows_is_the_same_to_the_last_bit(chunk):
    generator = np.random.default_rng(0)
    weights = random(1, 3, 3, seed=4)
    x0 = random(20, 3, seed=5)
    x0[3] = 60.0
    rows, times = generator.integers(0, 20, 200), generator.uniform(-1.5, 6.5, 200)
    box = np.array([[-4.0] * 3, [4.0] * 3])

    def slope(t, x, index):
        return torch.tanh(x @ weights) * 1.5 + 0.2 * x * x0[index, :1].sign()

    steps, starts = TorchSteps(slope, block=8), x0.numpy()
    whole = trace(steps, starts, rows, times, step=0.05, box=box, chunk=64)
    assert whole.held.any() and not whole.held.all()
    assert np.isfinite(whole.states).all()
    for size in (1, 3, 50):
        some = generator.permutation(200)[:size]
        part = trace(steps, starts, rows[some], times[some], step=0.05, box=box, chunk=chunk)
        np.testing.assert_array_equal(part.states, whole.states[some])
        np.testing.assert_array_equal(part.held, whole.held[some])


def test_blocks_of_any_size_trace_the_same(monkeypatch):
    x0 = np.array([[1.0, 2.0, 20.0], [-3.0, 0.0, 15.0]])
    times = np.tile(np.linspace(-0.3, 1.0, 40), 2)
    rows, box = np.arange(2).repeat(40), np.array([[-15.0] * 3, [30.0] * 3])
    whole = trace(TorchSteps(lorenz), x0, rows, times, step=0.02, box=box)
    for name in ("ENTRIES", "ROW_ENTRIES"):
        monkeypatch.setattr(tracing, name, 30)
    for mine, other in zip(trace(TorchSteps(lorenz), x0, rows, times, step=0.02, box=box), whole, strict=True):
        np.testing.assert_array_equal(mine, other)
    assert whole.held.any() and not whole.held.all()


def test_trace_holds_what_leaves_the_box_at_its_edge_and_says_when():
    x0 = np.array([[0.5], [-1.0], [1.0], [30.0]])  # 1/x0: 2, never, 1, outside
    box = np.array([[-20.0], [20.0]])
    rows = np.array([0, 0, 0, 1, 2, 2, 2, 3, 3])
    times = np.array([1.0, 2.5, 900.0, 5.0, 0.5, 0.99, 7.0, 0.0, 1.0])
    for slope in (explode, lambda t, x, index: torch.where(x < 15.0, x**2, torch.nan)):
        traced = trace(TorchSteps(slope), x0, rows, times, step=0.01, box=box, chunk=16)
        assert np.isfinite(traced.states).all() and (np.abs(traced.states[:7]) <= 20.0).all()
        assert traced.held.tolist() == [False, True, True, False, False, True, True, False, True]
        assert abs(traced.failed_at[0] - 1.95) < 0.03 and abs(traced.failed_at[2] - 0.95) < 0.03
        assert np.isnan(traced.failed_at[1]) and traced.failed_at[3] == 0.0
        assert traced.states[1] == traced.states[2] > 10.0
        assert traced.states[7] == 30.0 and traced.states[8] == 20.0
        np.testing.assert_allclose(traced.states[[0, 3], 0], [1.0, -1 / 6], rtol=0, atol=1e-6)


def test_trace_starts_that_are_no_numbers_are_held():
    x0, box = np.array([[np.nan], [3.0], [0.5]]), np.array([[-20.0], [20.0]])
    traced = trace(TorchSteps(explode), x0, np.array([0, 1, 2]), np.array([1.0, 3.0, 1.0]), step=0.01, box=box)
    assert traced.held.tolist() == [True, True, False]
    np.testing.assert_allclose(traced.states[2], 1.0, atol=1e-6)


def test_trace_asks_only_for_the_steps_it_needs():
    asked = []

    def slope(t, x, index):
        asked.append((float(t.max()), len(set(index.tolist()))))
        return -x

    times = np.full(50, 0.35)
    times[7] = 3.0
    trace(TorchSteps(slope), np.ones((50, 1)), np.arange(50), times, step=0.1, box=np.array([[-2.0], [2.0]]), chunk=4)
    assert max(t for t, _ in asked) < 3.05
    assert {n for t, n in asked if t > 0.45} == {1}
    assert len(asked) == 4 * 30 + 8


def test_doubling_keeps_its_promise():
    x0 = random(1, 3, 2)
    times = torch.tensor([[1.0, 2.0], [3.0, 0.1], [-1.0, 1.0]], dtype=torch.float64)
    exact = exact_rotation(x0, times)
    previous = 0
    for tolerance in (1e-2, 1e-4, 1e-6):
        found = double_step(rotate, x0, times, tolerance)
        error = (integrate(rotate, x0, times, n_steps=found.n_steps) - exact).square().mean((1, 2)).sqrt().max()
        assert found.converged and error < 1.2 * tolerance and found.n_steps >= previous
        previous = found.n_steps
    assert not double_step(rotate, x0, times, 1e-15, max_steps=16).converged
    assert double_step(rotate, 1e5 * x0, times, 1e-1).n_steps == previous


def test_doubling_goes_back_to_the_fewest_steps_that_do():
    x0, times = random(1, 3, 2), torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64)
    fine = integrate(rotate, x0, times, n_steps=1024)
    for tolerance in (1e-3, 1e-5, 1e-7):
        found = double_step(rotate, x0, times, tolerance)
        fewer = integrate(rotate, x0, times, n_steps=int(0.75 * found.n_steps))
        assert (fewer - fine).square().mean((1, 2)).sqrt().max() > tolerance


def test_halving_keeps_its_promise_and_ignores_what_is_held_anyway():
    x0, box, steps = np.array([[0.5], [-1.0]]), np.array([[-20.0], [20.0]]), TorchSteps(explode)
    rows, times = np.array([0, 1, 0]), np.array([1.0, 3.0, 50.0])
    found = halve_step(steps, x0, rows, times, 1e-8, step=1.0, box=box)
    traced = trace(steps, x0, rows, times, step=found.step, box=box)
    assert found.converged
    np.testing.assert_allclose(traced.states[:2, 0], [1.0, -0.25], rtol=0, atol=2e-8)
    assert not halve_step(steps, x0, rows, times, 1e-14, step=1.0, box=box, max_halvings=2).converged


def test_failure_with_one_step_size_only_is_no_agreement():
    x0 = torch.ones(1, 1, 1, dtype=torch.float64)
    stiff = double_step(lambda t, x, index: -2000.0 * x, x0, torch.ones(1, 1).double(), 1e-3, n_steps=16)
    assert stiff.converged and stiff.n_steps >= 512


def test_wrong_arguments_are_explained():
    x0, times = torch.ones(1, 2, 1), torch.ones(2, 3)
    with pytest.raises(ValueError, match="method must be one of"):
        integrate(explode, x0, times, method="euler2")
    with pytest.raises(ValueError, match="n_steps"):
        integrate(explode, x0, times, n_steps=0)
    with pytest.raises(ValueError, match="x0 must be"):
        integrate(explode, x0, times[:1])
    with pytest.raises(ValueError, match="step must be positive"):
        trace(TorchSteps(explode), np.ones((2, 1)), np.array([0]), np.ones(1), step=0.0, box=np.ones((2, 1)))


def test_short_trajectories_take_fewer_steps_that_are_no_longer_than_those_of_the_longest():
    rng = np.random.default_rng(0)
    span = torch.tensor(np.concatenate([rng.uniform(50, 60, 3), rng.uniform(0.1, 10, 500), rng.uniform(10, 30, 200)]))
    times = span[:, None] * torch.linspace(0.25, 1.0, 4).double()
    buckets = share_out(-span, -times[:, -1:], 240)
    assert len(buckets) > 1
    assert torch.equal(torch.cat([bucket.some for bucket in buckets]).sort().values, torch.arange(len(span)))
    for some, n_steps in buckets:
        assert (span[some] / n_steps).max() <= span.max() / 240 * (1 + 1e-12)
    assert all(n == 240 for _, n in share_out(span, times, 240))  # as many times as the longest: as many steps


def test_solutions_of_mixed_lengths_are_those_of_the_closed_form():
    lengths = [400] + [5] * 300 + [40] * 60
    times = torch.zeros(len(lengths), 400, dtype=torch.float64)
    for row, n in enumerate(lengths):
        times[row, :n] = 0.05 * torch.arange(n)
        times[row, n:] = times[row, n - 1]
    rates = torch.linspace(0.1, 1.0, len(lengths)).double()
    assert len(share_out(times[:, -1], times, 399)) == 3

    def slope(t, x, index):
        return -rates[index, None] * x

    x0 = torch.ones(1, len(lengths), 1, dtype=torch.float64, requires_grad=True)
    sides = times * torch.where(torch.arange(len(lengths)) % 2 == 0, 1.0, -1.0)[:, None]
    solved = integrate(slope, x0, sides, n_steps=399)
    exact = torch.exp(-rates[:, None] * sides)
    assert ((solved[0, ..., 0] - exact) / exact).abs().max() < 1e-5
    (gradient,) = torch.autograd.grad(solved.sum(), x0)
    assert (gradient[0, :, 0] / exact.sum(dim=1) - 1).abs().max() < 1e-5
