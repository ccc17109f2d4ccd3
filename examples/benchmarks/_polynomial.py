"""Systems whose law is a polynomial: the library of sparse regression holds every term exactly.

Parameters are drawn anew for every seed. Self-edges count; noise is a share of each variable's standard deviation.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from skode.datasets import SimulatedSystem, make_lorenz63, make_lotka_volterra
from skode.datasets._system import Sampling, Streams, open_streams, simulate

Generator = Callable[[int, int, float, int], SimulatedSystem]
"""Number of trajectories and of times, noise and seed give a data set."""


def lotka_volterra(n_trajectories: int, n_times: int, noise: float, seed: int) -> SimulatedSystem:
    """Prey and predator; every rate is up to 1.4 times more or less than usual. All four entries are true."""
    rates = dict(growth=1.1, predation=0.4, conversion=0.1, death=0.4)
    factors = np.random.default_rng(seed).uniform(-1, 1, size=len(rates))
    drawn = {name: rate * 1.4**factor for (name, rate), factor in zip(rates.items(), factors, strict=True)}
    return make_lotka_volterra(n_trajectories, n_times, noise=noise, random_state=seed, **drawn)


def lorenz63(n_trajectories: int, n_times: int, noise: float, seed: int) -> SimulatedSystem:
    """The Lorenz system of 1963, parameters within a tenth of the usual ones: 8 of 9 entries."""
    a, b, c = np.random.default_rng(seed).uniform(0.9, 1.1, size=3)
    options = dict(sigma=10 * a, rho=28 * b, beta=8 / 3 * c, dt=0.04, noise=noise, random_state=seed)
    return make_lorenz63(n_trajectories, n_times, **options)


def food_web(n_trajectories: int, n_times: int, noise: float, seed: int, d: int = 10) -> SimulatedSystem:
    """Generalised Lotka-Volterra, two random others act on every species: quadratic, 30 of 100 entries.

    dx_i/dt = x_i (r_i - x_i + sum_j a_ij x_j), |a_ij| in [0.2, 0.45], so that the diagonal dominates.
    """
    sampling, streams = Sampling(n_trajectories, n_times, 0.1, noise), open_streams(seed)
    a = -np.eye(d)
    for i in range(d):
        others = streams.law.choice(np.delete(np.arange(d), i), 2, replace=False)
        a[i, others] = streams.law.choice([-1.0, 1.0], 2) * streams.law.uniform(0.2, 0.45, 2)
    growth = streams.law.uniform(0.8, 1.6, d)
    starts = streams.starts.uniform(0.1, 2.5, size=(n_trajectories, d))
    return simulate(
        lambda t, x, u: x * (growth + x @ a.T), starts, sampling, streams, name="food_web", adjacency=a != 0
    )


def mass_action(n_trajectories: int, n_times: int, noise: float, seed: int, d: int = 10) -> SimulatedSystem:
    """Random reactions A + B -> C and A -> B among ten species, mass-action rates: quadratic, some 40 of 100 entries.

    dx/dt = N v(x), v_r the rate constant times the product of the reactants. No two reactions have the same
    reactants, so no term cancels and ``adjacency[i, j]`` is: some reaction that changes i has j as a reactant.
    """
    sampling, streams = Sampling(n_trajectories, n_times, 0.1, noise), open_streams(seed)
    reactants, changes = _reactions(d, d // 2, streams)
    rates = streams.law.uniform(0.6, 1.8, len(reactants))

    def slope(t: float, x: np.ndarray, u: np.ndarray | None) -> np.ndarray:
        speed = rates * np.prod(np.where(reactants, x[..., None, :], 1.0), axis=-1)  # (..., reaction)
        return speed @ changes

    starts = streams.starts.uniform(0.1, 2.0, size=(n_trajectories, d))
    adjacency = (changes != 0).T.astype(int) @ reactants.astype(int) > 0
    return simulate(slope, starts, sampling, streams, name="mass_action", adjacency=adjacency)


def _reactions(d: int, n_pairs: int, streams: Streams) -> tuple[np.ndarray, np.ndarray]:
    """Draw reactants (reaction, species) bool and net changes (reaction, species).

    ``n_pairs`` reactions take two species each; every species also decays into another one, which keeps all moving.
    """
    rows, columns = np.triu_indices(d, k=1)
    chosen = streams.law.choice(rows.size, n_pairs, replace=False)
    reactants, changes = np.zeros((n_pairs + d, d), bool), np.zeros((n_pairs + d, d))
    for r, pair in enumerate(np.stack([rows[chosen], columns[chosen]], axis=1)):
        product = streams.law.choice(np.setdiff1d(np.arange(d), pair))
        reactants[r, pair], changes[r, pair], changes[r, product] = True, -1.0, 1.0
    for k in range(d):
        product = streams.law.choice(np.delete(np.arange(d), k))
        reactants[n_pairs + k, k], changes[n_pairs + k, k], changes[n_pairs + k, product] = True, -1.0, 1.0
    return reactants, changes


def van_der_pol(n_trajectories: int, n_times: int, noise: float, seed: int, n_units: int = 3) -> SimulatedSystem:
    """A ring of van der Pol oscillators, each pulled by the one before it: cubic, 12 of 36 entries.

    dx_i/dt = y_i,  dy_i/dt = mu_i (1 - x_i^2) y_i - w_i x_i + c_i (x_{i-1} - x_i).
    """
    sampling, streams = Sampling(n_trajectories, n_times, 0.25, noise), open_streams(seed)
    mu, w = streams.law.uniform(0.6, 1.4, n_units), streams.law.uniform(0.7, 1.6, n_units)
    pull = streams.law.uniform(0.3, 0.7, n_units)

    def slope(t: float, state: np.ndarray, u: np.ndarray | None) -> np.ndarray:
        x, y = state[..., :n_units], state[..., n_units:]
        force = mu * (1 - x**2) * y - w * x + pull * (np.roll(x, 1, axis=-1) - x)
        return np.concatenate([y, force], axis=-1)

    one = np.eye(n_units, dtype=bool)
    adjacency = np.block([[np.zeros_like(one), one], [one | np.roll(one, 1, axis=0), one]])
    starts = streams.starts.normal(size=(n_trajectories, 2 * n_units)) * 1.2
    return simulate(slope, starts, sampling, streams, name="van_der_pol", adjacency=adjacency)


def fitzhugh_nagumo(n_trajectories: int, n_times: int, noise: float, seed: int, n_units: int = 4) -> SimulatedSystem:
    """A chain of FitzHugh-Nagumo neurons, each driven by the one before it: cubic, 19 of 64 entries.

    dv_i/dt = v_i - v_i^3 / 3 - w_i + current_i + c_i (v_{i-1} - v_i),  dw_i/dt = e_i (v_i + 0.7 - 0.8 w_i).
    """
    sampling, streams = Sampling(n_trajectories, n_times, 0.3, noise), open_streams(seed)
    current, speed = streams.law.uniform(0.4, 0.7, n_units), streams.law.uniform(0.15, 0.3, n_units)
    drive = streams.law.uniform(0.2, 0.5, n_units)
    drive[0] = 0.0

    def slope(t: float, state: np.ndarray, u: np.ndarray | None) -> np.ndarray:
        v, w = state[..., :n_units], state[..., n_units:]
        voltage = v - v**3 / 3 - w + current + drive * (np.roll(v, 1, axis=-1) - v)
        return np.concatenate([voltage, speed * (v + 0.7 - 0.8 * w)], axis=-1)

    one = np.eye(n_units, dtype=bool)
    adjacency = np.block([[one | np.eye(n_units, k=-1, dtype=bool), one], [one, one]])
    starts = streams.starts.normal(size=(n_trajectories, 2 * n_units)) * np.repeat([1.5, 0.7], n_units)
    return simulate(slope, starts, sampling, streams, name="fitzhugh_nagumo", adjacency=adjacency)


POLYNOMIAL: dict[str, Generator] = {
    "lotka-volterra": lotka_volterra,
    "lorenz63": lorenz63,
    "food-web": food_web,
    "mass-action": mass_action,
    "van-der-pol": van_der_pol,
    "fitzhugh-nagumo": fitzhugh_nagumo,
}

CUBIC = ("van-der-pol", "fitzhugh-nagumo")
"""The others are quadratic."""
