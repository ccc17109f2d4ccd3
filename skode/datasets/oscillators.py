"""Mechanical systems of second order: sparsely coupled oscillators and a damped chain of pendulums."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skode._typing import BoolArray, FloatArray
from skode.datasets._system import Sampling, Seed, SimulatedSystem, check_size, open_streams, simulate


@dataclass(frozen=True, eq=False)
class CoupledOscillators:
    """Oscillators joined by springs: (positions, velocities) to (velocities, accelerations)."""

    stiffness: FloatArray  # (variable,)
    springs: FloatArray  # (target, source), symmetric, zero diagonal
    damping: float
    cubic: float

    def __call__(self, t: float, x: FloatArray, u: FloatArray | None = None) -> FloatArray:
        """Return (velocities, accelerations)."""
        q, v = np.split(x, 2, axis=-1)
        pull = q @ self.springs - self.springs.sum(axis=0) * q
        return np.concatenate((v, pull - self.stiffness * q - self.cubic * q**3 - self.damping * v), axis=-1)


@dataclass(frozen=True)
class PendulumChain:
    """Pendulums in a row joined by torsion springs: (angles, velocities) to (velocities, accelerations)."""

    gravity: float
    coupling: float
    damping: float

    def __call__(self, t: float, x: FloatArray, u: FloatArray | None = None) -> FloatArray:
        """Return (velocities, accelerations)."""
        q, v = np.split(x, 2, axis=-1)
        twist = np.zeros_like(q)
        step = np.diff(q, axis=-1)
        twist[..., :-1] += step
        twist[..., 1:] -= step
        return np.concatenate((v, self.coupling * twist - self.gravity * np.sin(q) - self.damping * v), axis=-1)


def make_coupled_oscillators(
    n_variables: int = 10,
    n_trajectories: int = 20,
    n_times: int = 40,
    *,
    dt: float = 0.15,
    n_springs: int | None = None,
    coupling: float = 1.0,
    damping: float = 0.1,
    cubic: float = 0.0,
    noise: float = 0.0,
    irregular: bool | float = False,
    missing: float = 0.0,
    random_state: Seed = None,
) -> SimulatedSystem:
    """Simulate oscillators of different frequencies, joined by a few springs; the law is of second order.

    ::

        d2q_i/dt2 = -k_i q_i - cubic q_i^3 - damping dq_i/dt + sum_j w_ij (q_j - q_i)

    Stiffnesses k_i are uniform in [0.5, 4]; the springs w_ij = w_ji are uniform in [0.5, 1.5] times
    ``coupling`` and join random pairs. The graph holds both directions of every spring and the diagonal.

    Parameters
    ----------
    n_variables : int, default=10
        Number of oscillators, at least 2.
    n_trajectories, n_times : int, default=20, 40
        Number of trajectories and of observations of each.
    dt : float, default=0.15
        Time between observations; the fastest period is about 2, the slowest about 9.
    n_springs : int or None, default=None
        Number of springs; None means as many as oscillators, or all pairs if those are fewer.
    coupling : float, default=1.0
        Mean strength of a spring, above 0.
    damping : float, default=0.1
        Damping, not negative.
    cubic : float, default=0.0
        Cubic stiffness, not negative; 0 makes the system linear.
    noise : float, default=0.0
        Standard deviation of the noise as a fraction of each variable's own, for positions and velocities.
    irregular : bool or float, default=False
        True for random times, a fraction for a random share of the regular grid.
    missing : float, default=0.0
        Share of the values after each first observation that is NaN; a velocity is missing with its position.
    random_state : int, Generator, RandomState or None, default=None
        Seed.

    Returns
    -------
    SimulatedSystem
        Positions q0, q1, ... with ``velocities``; starts have standard normal positions and velocities.

    Examples
    --------
    >>> from skode.datasets import make_coupled_oscillators
    >>> system = make_coupled_oscillators(n_variables=4, n_springs=3, random_state=0)
    >>> int(system.adjacency.sum()), system.velocities[0].shape
    (10, (40, 4))
    """
    check_size("n_variables", n_variables, 2)
    rows, columns = np.triu_indices(n_variables, k=1)
    n_springs = min(n_variables, rows.size) if n_springs is None else n_springs
    if not 0 <= n_springs <= rows.size:
        raise ValueError(
            f"n_springs must lie between 0 and the number of pairs, {rows.size}; got {n_springs}. "
            "Two oscillators share at most one spring."
        )
    _check_mechanics(coupling, damping, cubic)
    sampling = Sampling(n_trajectories, n_times, dt, noise, irregular, missing)
    streams = open_streams(random_state)
    chosen = streams.law.choice(rows.size, n_springs, replace=False)
    springs = np.zeros((n_variables, n_variables))
    springs[rows[chosen], columns[chosen]] = coupling * streams.law.uniform(0.5, 1.5, n_springs)
    springs += springs.T
    slope = CoupledOscillators(streams.law.uniform(0.5, 4.0, n_variables), springs, damping, cubic)
    starts = streams.starts.normal(size=(n_trajectories, 2 * n_variables))
    adjacency: BoolArray = (springs > 0) | np.eye(n_variables, dtype=np.bool_)
    names = tuple(f"q{i}" for i in range(n_variables))
    return simulate(
        slope,
        starts,
        sampling,
        streams,
        name="coupled_oscillators",
        adjacency=adjacency,
        names=names,
        order=2,
    )


def make_pendulum_chain(
    n_variables: int = 5,
    n_trajectories: int = 20,
    n_times: int = 40,
    *,
    dt: float = 0.15,
    gravity: float = 4.0,
    coupling: float = 1.0,
    damping: float = 0.2,
    noise: float = 0.0,
    irregular: bool | float = False,
    missing: float = 0.0,
    random_state: Seed = None,
) -> SimulatedSystem:
    """Simulate damped pendulums in a row, each twisted towards its neighbours; the law is of second order.

    d2q_i/dt2 = -gravity sin q_i - damping dq_i/dt + coupling (q_{i-1} - 2 q_i + q_{i+1}), free ends. The
    graph is tridiagonal.

    Parameters
    ----------
    n_variables : int, default=5
        Number of pendulums, at least 1.
    n_trajectories, n_times : int, default=20, 40
        Number of trajectories and of observations of each.
    dt : float, default=0.15
        Time between observations; small swings take 2 pi / sqrt(gravity), about 3.1 with the default.
    gravity : float, default=4.0
        Gravity over length.
    coupling : float, default=1.0
        Torsional stiffness between neighbours, above 0.
    damping : float, default=0.2
        Damping, not negative.
    noise : float, default=0.0
        Standard deviation of the noise as a fraction of each variable's own, for angles and velocities.
    irregular : bool or float, default=False
        True for random times, a fraction for a random share of the regular grid.
    missing : float, default=0.0
        Share of the values after each first observation that is NaN; a velocity is missing with its angle.
    random_state : int, Generator, RandomState or None, default=None
        Seed.

    Returns
    -------
    SimulatedSystem
        Angles q0, q1, ... in radians with ``velocities``. Starts: angles uniform in [-2, 2], velocities in
        [-1, 1].

    Examples
    --------
    >>> from skode.datasets import make_pendulum_chain
    >>> make_pendulum_chain(n_variables=3, random_state=0).adjacency.astype(int).tolist()
    [[1, 1, 0], [1, 1, 1], [0, 1, 1]]
    """
    check_size("n_variables", n_variables, 1)
    _check_mechanics(coupling, damping, 0.0)
    sampling = Sampling(n_trajectories, n_times, dt, noise, irregular, missing)
    streams = open_streams(random_state)
    angles = streams.starts.uniform(-2.0, 2.0, size=(n_trajectories, n_variables))
    starts = np.concatenate((angles, streams.starts.uniform(-1.0, 1.0, size=angles.shape)), axis=1)
    place = np.arange(n_variables)
    adjacency: BoolArray = np.abs(place[:, None] - place) <= 1
    slope = PendulumChain(gravity, coupling, damping)
    names = tuple(f"q{i}" for i in range(n_variables))
    return simulate(slope, starts, sampling, streams, name="pendulum_chain", adjacency=adjacency, names=names, order=2)


def _check_mechanics(coupling: float, damping: float, cubic: float) -> None:
    if not (coupling > 0 and damping >= 0 and cubic >= 0):
        raise ValueError(
            f"coupling must be positive, damping and cubic not negative; got {coupling}, {damping}, {cubic}. "
            "For oscillators without springs pass n_springs=0."
        )
