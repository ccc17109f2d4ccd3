"""Four training steps, and the ways to take them: the loss of whole trajectories, its gradient, and a step of Adam.

W1 Lorenz, d 3, 20 trajectories x 50 irregular times, net 3-50-50-3; W2 Hill network, d 10, 50 x 30, 10-64-64-10; W3
d 529, 3 x up to 347, hidden 100-100; W4 d 350, 150 x 5 to 9, hidden 100-100. W3 and W4 have the shapes of the
single-cell and of the gene-network data, filled with smooth curves. All ways start from the same weights. skode takes
as few steps as give a gradient as accurate as that of the published solver, and a loss within 1 % of the exact one; in
one way as few as the loss alone asks for.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import torch
from torchdiffeq import odeint

from skode._dynamics import Dynamics
from skode._scales import Scales
from skode.datasets import make_hill_network, make_lorenz63
from skode.fields import SharedField
from skode.integrate import compress, integrate, rk4_adjoint
from skode.objectives import Windows, solve_windows, window_loss

Step = Callable[[], float]
"""Take one step of training and return the loss before it."""
RATE = 1e-9
"""Learning rate: too small for weights to move, so that all steps of all ways have the same work to do."""


class Work(NamedTuple):
    """Standardised trajectories, padded by repeating their last time, and the initial weights of a network."""

    name: str
    start: torch.Tensor  # (trajectory, d)
    times: torch.Tensor  # (trajectory, time)
    targets: torch.Tensor  # (trajectory, time, d)
    mask: torch.Tensor  # (trajectory, time, 1)
    weights: dict[str, torch.Tensor]  # (1, ...)
    field: SharedField

    def loss(self, states: torch.Tensor) -> torch.Tensor:
        """Mean squared error over all observations of all trajectories; models add up."""
        total = self.mask.sum() * states.shape[-1]
        return (self.mask * (states - self.targets) ** 2).sum() / total


def pack(name: str, states: list[np.ndarray], times: list[np.ndarray], hidden: tuple[int, ...]) -> Work:
    """Standardise and pad; times run over about 5 units."""
    every = np.concatenate(states)
    mean, sd = every.mean(0), np.maximum(every.std(0), 1e-9)
    d, longest, unit = every.shape[1], max(map(len, times)), max(np.ptp(t) for t in times) / 5.0
    shape = len(states), longest
    clock, values, mask = np.zeros(shape), np.zeros((*shape, d)), np.zeros((*shape, 1))
    for i, (x, t) in enumerate(zip(states, times, strict=True)):
        clock[i], values[i, : len(t)], mask[i, : len(t)] = (t[-1] - t[0]) / unit, (x - mean) / sd, 1.0
        clock[i, : len(t)] = (t - t[0]) / unit
    field = SharedField(d, d, hidden, "tanh", tuple(range(d)))
    weights = field.init(torch.Generator().manual_seed(0), n_models=1, dtype=torch.float32, device=torch.device("cpu"))
    tensors = [torch.as_tensor(a, dtype=torch.float32) for a in (values[:, 0], clock, values, mask)]
    # Slopes as large as those of the data, as they are in training: a fresh network hardly moves.
    change, span = np.diff(values, axis=1), np.diff(clock, axis=1)
    seen = span > 1e-3
    wanted = float(np.sqrt(((change[seen] / span[seen][:, None]) ** 2).mean()))
    got = float(field(weights, tensors[2].flatten(0, 1)[None]).square().mean().sqrt())
    weights["W2"] *= wanted / got
    return Work(name, *tensors, weights, field)


def smooth_curves(rng: np.random.Generator, d: int, lengths: list[int]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Mixtures of eight slow waves at irregular times."""
    mix, phase = rng.normal(size=(8, d)), rng.uniform(0, 6, (len(lengths), 8))
    times = [np.sort(rng.uniform(0, 5, n)) for n in lengths]
    waves = [np.sin(t[:, None] * np.linspace(0.2, 1.5, 8) + p) for t, p in zip(times, phase, strict=True)]
    return [w @ mix for w in waves], times


@cache
def make_works() -> dict[str, Work]:
    """All four."""
    rng = np.random.default_rng(0)
    lorenz = make_lorenz63(20, 50, irregular=0.5, random_state=0)
    hill = make_hill_network(10, n_trajectories=50, n_times=30, random_state=0)
    return {
        "W1": pack("W1", list(lorenz.states), list(lorenz.times), (50, 50)),
        "W2": pack("W2", list(hill.states), list(hill.times), (64, 64)),
        "W3": pack("W3", *smooth_curves(rng, 529, [347, 280, 190]), (100, 100)),
        "W4": pack("W4", *smooth_curves(rng, 350, [5 + k % 5 for k in range(150)]), (100, 100)),
    }


def enlarged(work: Work, *, observations: int = 1, trajectories: int = 1) -> Work:
    """The same with observations or trajectories repeated."""
    times, targets, mask = (x.repeat_interleave(observations, 1) for x in (work.times, work.targets, work.mask))
    many = [x.repeat(trajectories, *[1] * (x.ndim - 1)) for x in (work.start, times, targets, mask)]
    return work._replace(start=many[0], times=many[1], targets=many[2], mask=many[3])


def network(weights: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The network as anyone would write it; x (..., d)."""
    for k in range(2):
        x = torch.tanh(x @ weights[f"W{k}"][0].mT + weights[f"b{k}"][0, 0])
    return x @ weights["W2"][0].mT + weights["b2"][0, 0]


def _stepper(work: Work, loss_of: Callable[[dict[str, torch.Tensor]], torch.Tensor]) -> Step:
    weights = {name: value.clone().requires_grad_(True) for name, value in work.weights.items()}
    adam = torch.optim.Adam(weights.values(), lr=RATE, fused=True)

    def step() -> float:
        adam.zero_grad()
        loss = loss_of(weights)
        loss.backward()
        adam.step()
        return float(loss.detach())

    return step


def dynamics_of(work: Work) -> Dynamics:
    """The network as skode's equation in units in which nothing is scaled."""
    d = work.start.shape[-1]
    one, none = np.ones(d), np.zeros(0)
    return Dynamics(work.field, Scales(1.0, 0 * one, one, None, none, none, 0.0, 1.0, one, -one, one), False)


class Fewest(NamedTuple):
    """Runge-Kutta steps that a workload asks for."""

    gradient: int  # whose gradient is as exact as that of the published solver, and the loss within 1 %
    loss: int  # whose loss is within 1 % of the exact one


@cache
def fewest_steps(name: str) -> Fewest:
    """Try one step after the other."""
    work = make_works()[name]
    slope, still = dynamics_of(work).slope, torch.zeros(len(work.start))

    def solve(weights: dict[str, torch.Tensor], n_steps: int) -> torch.Tensor:
        right = slope(weights, torch.zeros(len(work.start), 0), still)
        return work.loss(integrate(right, work.start[None], work.times, n_steps=n_steps, march=rk4_adjoint)[0])

    exact, uphill = _gradient(work, partial(solve, n_steps=FINE))
    _, published = _gradient(work, lambda weights: work.loss(_loop(work, weights)))
    by_loss: int | None = None
    for n in range(1, FINE):
        loss, gradient = _gradient(work, partial(solve, n_steps=n))
        by_loss = (by_loss or n) if abs(loss / exact - 1) < 0.01 else None  # and with more steps too
        if by_loss is not None and (gradient - uphill).norm() <= (published - uphill).norm():
            return Fewest(n, by_loss)
    return Fewest(FINE, FINE)


FINE = 160
"""Runge-Kutta steps after which nothing changes in single precision."""


def _gradient(
    work: Work, loss_of: Callable[[dict[str, torch.Tensor]], torch.Tensor]
) -> tuple[float, torch.Tensor]:  # the loss, and its derivative by all weights, one after the other
    weights = {name: value.clone().requires_grad_(True) for name, value in work.weights.items()}
    loss = loss_of(weights)
    found = torch.autograd.grad(loss, list(weights.values()))
    return float(loss.detach()), torch.cat([part.flatten() for part in found])


def skode_step(
    work: Work, *, by_hand: bool = True, n_models: int = 1, compressed: bool = True, exact: bool = True
) -> Step:
    """All trajectories, and all models, in one batch of RK4 steps; as many as an exact gradient asks for, or a loss."""
    fewest = fewest_steps(work.name)
    dynamics, n_steps = dynamics_of(work), fewest.gradient if exact else fewest.loss
    inputs, origin = torch.zeros(len(work.start), 0), torch.zeros(len(work.start))
    seen, ones, nobody = work.mask * torch.ones_like(work.targets), torch.ones(work.start.shape[-1]), origin.long() - 1
    windows = Windows(work.start, 0 * work.start, work.times, work.targets, seen, inputs, origin, nobody)
    some = work._replace(weights={name: w.repeat(n_models, *[1] * (w.ndim - 1)) for name, w in work.weights.items()})
    start = work.start.expand(n_models, -1, -1)
    rows = compress(work.times, work.targets, seen, n_steps, n_models=n_models) if compressed else None

    def loss_of(weights: dict[str, torch.Tensor]) -> torch.Tensor:
        if by_hand:
            states = solve_windows(dynamics, weights, windows, start, n_steps=n_steps, compressed=rows)
            return window_loss(states, windows, ones, rows).mean(-1).sum()
        return work.loss(integrate(dynamics.slope(weights, inputs, origin), start, work.times, n_steps=n_steps))

    return _stepper(some, loss_of)


def _loop(work: Work, weights: dict[str, torch.Tensor]) -> torch.Tensor:
    """The published way: dopri5 at 1e-3, one trajectory after another.  # (trajectory, time, d)"""
    solved = []
    for x0, t in zip(work.start, work.times, strict=True):
        distinct, place = torch.unique(t, return_inverse=True)
        path = odeint(lambda _, x: network(weights, x), x0, distinct, rtol=1e-3, atol=1e-3, method="dopri5")
        solved.append(path[place])
    return torch.stack(solved)


def torchdiffeq_loop(work: Work) -> Step:
    """The published way."""
    return _stepper(work, lambda weights: work.loss(_loop(work, weights)))


def torchdiffeq_batched(work: Work) -> Step:
    """One batch on the union of all times, with one step size for all."""
    distinct, place = torch.unique(work.times, return_inverse=True)
    row = torch.arange(len(work.start))[:, None]

    def solve(weights: dict[str, torch.Tensor]) -> torch.Tensor:
        path = odeint(lambda _, x: network(weights, x), work.start, distinct, rtol=1e-3, atol=1e-3, method="dopri5")
        return path[place, row]

    return _stepper(work, lambda weights: work.loss(solve(weights)))


def torchode_step(work: Work) -> Step:
    """Tsit5 with a step size per trajectory."""
    import torchode as to

    def solve(weights: dict[str, torch.Tensor]) -> torch.Tensor:
        term = to.ODETerm(lambda _, x: network(weights, x))
        method = to.Tsit5(term=term)
        controller = to.IntegralController(atol=1e-3, rtol=1e-3, term=term)
        problem = to.InitialValueProblem(y0=work.start, t_eval=work.times)
        return to.AutoDiffAdjoint(method, controller).solve(problem).ys

    return _stepper(work, lambda weights: work.loss(solve(weights)))


def diffrax_step(work: Work) -> Step:
    """Tsit5 under jit and vmap; the first call compiles."""
    import diffrax
    import jax
    import jax.numpy as jnp

    start, times, targets, mask = (jnp.asarray(x.numpy()) for x in work[1:5])
    weights = {name: jnp.asarray(value.numpy()) for name, value in work.weights.items()}

    def slope(_: object, x: jax.Array, w: dict[str, jax.Array]) -> jax.Array:
        for k in range(2):
            x = jnp.tanh(w[f"W{k}"][0] @ x + w[f"b{k}"][0, 0])
        return w["W2"][0] @ x + w["b2"][0, 0]

    def one(w: dict[str, jax.Array], x0: jax.Array, t: jax.Array) -> jax.Array:
        solved = diffrax.diffeqsolve(
            diffrax.ODETerm(slope),
            diffrax.Tsit5(),
            t0=0.0,
            t1=t[-1],
            dt0=None,
            y0=x0,
            args=w,
            saveat=diffrax.SaveAt(ts=t),
            stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-3),
            max_steps=256,
        )
        return solved.ys

    def loss(w: dict[str, jax.Array]) -> jax.Array:
        states = jax.vmap(one, (None, 0, 0))(w, start, times)
        return (mask * (states - targets) ** 2).sum() / (mask.sum() * states.shape[-1])

    @jax.jit
    def advance(w, m, v, k):
        value, g = jax.value_and_grad(loss)(w)
        m = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, m, g)
        v = jax.tree.map(lambda a, b: 0.999 * a + 0.001 * b * b, v, g)
        scale = RATE * jnp.sqrt(1 - 0.999**k) / (1 - 0.9**k)
        return value, jax.tree.map(lambda a, b, c: a - scale * b / (jnp.sqrt(c) + 1e-8), w, m, v), m, v

    zeros = jax.tree.map(jnp.zeros_like, weights)
    state = [weights, zeros, zeros, 0]

    def step() -> float:
        value, *moved = advance(*state[:3], state[3] + 1)
        state[:] = [*moved, state[3] + 1]
        return float(value)

    return step


WAYS: dict[str, tuple[str, Callable[[Work], Step]]] = {
    "skode": ("torch", skode_step),
    "skode, steps for the loss alone": ("torch", lambda work: skode_step(work, exact=False)),
    "skode, every observation": ("torch", lambda work: skode_step(work, compressed=False)),
    "skode, autograd": ("torch", lambda work: skode_step(work, by_hand=False)),
    "torchdiffeq, loop": ("torchdiffeq", torchdiffeq_loop),
    "torchdiffeq, batched": ("torchdiffeq", torchdiffeq_batched),
    "torchode": ("torchode", torchode_step),
    "diffrax, jit": ("diffrax", diffrax_step),
}


def installed(package: str) -> bool:
    """Whether a way can be tried."""
    return importlib.util.find_spec(package) is not None
