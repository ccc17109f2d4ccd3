"""Chaotic systems with sparse, known right-hand sides: Lorenz-63 and Lorenz-96."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skode._typing import FloatArray
from skode.datasets._system import Sampling, Seed, SimulatedSystem, check_size, open_streams, settle, simulate


@dataclass(frozen=True)
class Lorenz63:
    """The right-hand side of the Lorenz system of 1963, vectorised over leading axes."""

    sigma: float
    rho: float
    beta: float

    def __call__(self, t: float, x: FloatArray, u: FloatArray | None = None) -> FloatArray:
        """Return dx/dt."""
        a, b, c = x[..., 0], x[..., 1], x[..., 2]
        return np.stack((self.sigma * (b - a), a * (self.rho - c) - b, a * b - self.beta * c), axis=-1)


@dataclass(frozen=True)
class Lorenz96:
    """The right-hand side of the Lorenz system of 1996 on a ring, vectorised over leading axes."""

    n_variables: int
    forcing: float

    def __call__(self, t: float, x: FloatArray, u: FloatArray | None = None) -> FloatArray:
        """Return dx/dt."""
        ring = np.concatenate((x[..., -2:], x, x[..., :1]), axis=-1)  # ring[i + 2] is x[i]
        return (ring[..., 3:] - ring[..., :-3]) * ring[..., 1:-2] - x + self.forcing


def make_lorenz63(
    n_trajectories: int = 20,
    n_times: int = 50,
    *,
    dt: float = 0.05,
    sigma: float = 10.0,
    rho: float = 28.0,
    beta: float = 8 / 3,
    noise: float = 0.0,
    irregular: bool | float = False,
    missing: float = 0.0,
    random_state: Seed = None,
) -> SimulatedSystem:
    """Simulate the Lorenz system of 1963 from starts on its attractor.

    dx/dt = sigma (y - x),  dy/dt = x (rho - z) - y,  dz/dt = x y - beta z: 8 of 9 entries of the graph are
    true.

    Parameters
    ----------
    n_trajectories, n_times : int, default=20, 50
        Number of trajectories and of observations of each.
    dt : float, default=0.05
        Time between observations; one turn around a wing takes about 0.75.
    sigma, rho, beta : float, default=10, 28, 8/3
        Parameters of the system; the defaults are chaotic.
    noise : float, default=0.0
        Standard deviation of the noise as a fraction of each variable's own.
    irregular : bool or float, default=False
        True for random times, a fraction for a random share of the regular grid.
    missing : float, default=0.0
        Share of the values after each first observation that is NaN.
    random_state : int, Generator, RandomState or None, default=None
        Seed.

    Returns
    -------
    SimulatedSystem
        Variables x, y, z.

    References
    ----------
    Lorenz, "Deterministic nonperiodic flow", Journal of the Atmospheric Sciences, 1963,
    doi:10.1175/1520-0469(1963)020<0130:DNF>2.0.CO;2.

    Examples
    --------
    >>> from skode.datasets import make_lorenz63
    >>> system = make_lorenz63(n_trajectories=2, n_times=5, random_state=0)
    >>> system.states[0].shape, int(system.adjacency.sum())
    ((5, 3), 8)
    """
    sampling = Sampling(n_trajectories, n_times, dt, noise, irregular, missing)
    streams = open_streams(random_state)
    slope = Lorenz63(sigma, rho, beta)
    starts = streams.starts.normal(size=(n_trajectories, 3)) * 5.0 + np.array([0.0, 0.0, 25.0])
    starts = settle(slope, starts, duration=10.0, step=0.01)
    adjacency = np.array([[1, 1, 0], [1, 1, 1], [1, 1, 1]], dtype=np.bool_)
    return simulate(slope, starts, sampling, streams, name="lorenz63", adjacency=adjacency, names=("x", "y", "z"))


def make_lorenz96(
    n_variables: int = 10,
    forcing: float = 10.0,
    n_trajectories: int = 20,
    n_times: int = 30,
    *,
    dt: float = 0.1,
    noise: float = 0.0,
    irregular: bool | float = False,
    missing: float = 0.0,
    random_state: Seed = None,
) -> SimulatedSystem:
    """Simulate the Lorenz system of 1996 from starts on its attractor.

    dx_i/dt = (x_{i+1} - x_{i-2}) x_{i-1} - x_i + forcing on a ring: every variable has four true inputs,
    itself among them. The three usual forms: many short trajectories ``noise=0.05`` (the default sizes); one
    long series ``n_trajectories=1, n_times=1000``; the same with half of it kept, ``irregular=0.5``.

    Parameters
    ----------
    n_variables : int, default=10
        Number of variables, at least 4.
    forcing : float, default=10.0
        Constant forcing; chaotic above about 8.
    n_trajectories, n_times : int, default=20, 30
        Number of trajectories and of observations of each.
    dt : float, default=0.1
        Time between observations; errors double in about 0.3.
    noise : float, default=0.0
        Standard deviation of the noise as a fraction of each variable's own.
    irregular : bool or float, default=False
        True for random times, a fraction for a random share of the regular grid.
    missing : float, default=0.0
        Share of the values after each first observation that is NaN.
    random_state : int, Generator, RandomState or None, default=None
        Seed.

    Returns
    -------
    SimulatedSystem
        Variables x0, x1, ...

    References
    ----------
    Lorenz, "Predictability: a problem partly solved", ECMWF Seminar on Predictability, 1996. As a benchmark
    of graph recovery: Bellot, Branson, van der Schaar, "Neural graphical modelling in continuous-time:
    consistency guarantees and algorithms", 2022, arXiv:2105.02522.

    Examples
    --------
    >>> from skode.datasets import make_lorenz96
    >>> system = make_lorenz96(n_variables=6, n_trajectories=1, n_times=20, irregular=0.5, random_state=0)
    >>> system.states[0].shape, system.adjacency.sum(axis=1).tolist()
    ((10, 6), [4, 4, 4, 4, 4, 4])
    """
    check_size("n_variables", n_variables, 4)
    sampling = Sampling(n_trajectories, n_times, dt, noise, irregular, missing)
    streams = open_streams(random_state)
    slope = Lorenz96(n_variables, forcing)
    starts = settle(
        slope, forcing + streams.starts.normal(size=(n_trajectories, n_variables)), duration=10.0, step=0.01
    )
    target = np.arange(n_variables)
    adjacency = np.zeros((n_variables, n_variables), dtype=np.bool_)
    for offset in (-2, -1, 0, 1):
        adjacency[target, (target + offset) % n_variables] = True
    return simulate(slope, starts, sampling, streams, name="lorenz96", adjacency=adjacency)
