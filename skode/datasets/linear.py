"""Linear systems at the two ends of sparsity: independent decays, and a dense stable matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skode._typing import FloatArray
from skode.datasets._system import Sampling, Seed, SimulatedSystem, check_size, open_streams, simulate


@dataclass(frozen=True, eq=False)
class Linear:
    """The right-hand side dx/dt = A x, vectorised over leading axes."""

    matrix: FloatArray  # (target, source)

    def __call__(self, t: float, x: FloatArray, u: FloatArray | None = None) -> FloatArray:
        """Return dx/dt."""
        return np.asarray(x @ self.matrix.T, dtype=np.float64)


def make_independent_decays(
    n_variables: int = 10,
    n_trajectories: int = 20,
    n_times: int = 20,
    *,
    dt: float = 0.15,
    decay: float = 1.0,
    decay_spread: float = 10.0,
    noise: float = 0.0,
    irregular: bool | float = False,
    missing: float = 0.0,
    random_state: Seed = None,
) -> SimulatedSystem:
    """Simulate variables that only decay: the control in which no variable drives another.

    dx_i/dt = -rate_i x_i, so x_i(t) = x_i(0) exp(-rate_i t). The true graph is the diagonal; every other edge
    found is false.

    Parameters
    ----------
    n_variables : int, default=10
        Number of variables.
    n_trajectories, n_times : int, default=20, 20
        Number of trajectories and of observations of each.
    dt : float, default=0.15
        Time between observations.
    decay : float, default=1.0
        Geometric mean of the range of rates.
    decay_spread : float, default=10.0
        Ratio of the largest to the smallest possible rate; the logarithm of a rate is uniform. 1 gives equal
        rates.
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
        Variables x0, x1, ...; starts are uniform in [-1, 1].

    Examples
    --------
    >>> from skode.datasets import make_independent_decays
    >>> make_independent_decays(n_variables=2, random_state=0).adjacency.tolist()
    [[True, False], [False, True]]
    """
    check_size("n_variables", n_variables, 1)
    sampling = Sampling(n_trajectories, n_times, dt, noise, irregular, missing)
    streams = open_streams(random_state)
    rates = draw_rates(n_variables, decay, decay_spread, streams.law)
    starts = streams.starts.uniform(-1.0, 1.0, size=(n_trajectories, n_variables))
    adjacency = np.eye(n_variables, dtype=np.bool_)
    return simulate(Linear(-np.diag(rates)), starts, sampling, streams, name="independent_decays", adjacency=adjacency)


def make_dense_linear(
    n_variables: int = 5,
    n_trajectories: int = 20,
    n_times: int = 30,
    *,
    dt: float = 0.15,
    margin: float = 0.3,
    noise: float = 0.0,
    irregular: bool | float = False,
    missing: float = 0.0,
    random_state: Seed = None,
) -> SimulatedSystem:
    """Simulate a stable linear system without a single zero: the control in which nothing may be cut.

    dx/dt = A x. Off the diagonal, entries have random signs and sizes uniform in [0.5, 1.5] /
    sqrt(n_variables); the diagonal is one negative constant, set so that the slowest mode of A decays at the
    rate ``margin``.

    Parameters
    ----------
    n_variables : int, default=5
        Number of variables, at least 2.
    n_trajectories, n_times : int, default=20, 30
        Number of trajectories and of observations of each.
    dt : float, default=0.15
        Time between observations.
    margin : float, default=0.3
        Rate of decay of the slowest mode, above 0.
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
        Variables x0, x1, ...; ``slope.matrix`` is A; starts are standard normal.

    Examples
    --------
    >>> from skode.datasets import make_dense_linear
    >>> bool(make_dense_linear(random_state=0).adjacency.all())
    True
    """
    check_size("n_variables", n_variables, 2)
    if margin <= 0:
        raise ValueError(
            f"margin must be positive for a stable system; got {margin}. Pass the rate of the slowest mode."
        )
    sampling = Sampling(n_trajectories, n_times, dt, noise, irregular, missing)
    streams = open_streams(random_state)
    shape = (n_variables, n_variables)
    matrix = (
        streams.law.choice([-1.0, 1.0], size=shape) * streams.law.uniform(0.5, 1.5, size=shape) / np.sqrt(n_variables)
    )
    np.fill_diagonal(matrix, 0.0)
    matrix -= (np.linalg.eigvals(matrix).real.max() + margin) * np.eye(n_variables)
    starts = streams.starts.normal(size=(n_trajectories, n_variables))
    adjacency = np.ones(shape, dtype=np.bool_)
    return simulate(Linear(matrix), starts, sampling, streams, name="dense_linear", adjacency=adjacency)


def draw_rates(n_rates: int, center: float, spread: float, rng: np.random.Generator) -> FloatArray:
    """Draw positive rates, log-uniform from center / sqrt(spread) to center sqrt(spread)."""
    if not (center > 0 and spread >= 1):
        raise ValueError(
            f"decay must be positive and decay_spread at least 1; got {center} and {spread}. "
            "decay_spread is the ratio of the largest to the smallest rate: 1 gives equal rates, 10 a decade."
        )
    return center * spread ** (rng.random(n_rates) - 0.5)
