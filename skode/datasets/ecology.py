"""Predator and prey: the Lotka-Volterra equations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skode._typing import FloatArray
from skode.datasets._system import Sampling, Seed, SimulatedSystem, open_streams, simulate


@dataclass(frozen=True)
class LotkaVolterra:
    """The Lotka-Volterra right-hand side, vectorised over leading axes."""

    growth: float
    predation: float
    conversion: float
    death: float

    def __call__(self, t: float, x: FloatArray, u: FloatArray | None = None) -> FloatArray:
        """Return dx/dt."""
        prey, predator = x[..., 0], x[..., 1]
        rates = (self.growth - self.predation * predator, self.conversion * prey - self.death)
        return np.stack((rates[0] * prey, rates[1] * predator), axis=-1)


def make_lotka_volterra(
    n_trajectories: int = 10,
    n_times: int = 40,
    *,
    dt: float = 0.5,
    growth: float = 1.1,
    predation: float = 0.4,
    conversion: float = 0.1,
    death: float = 0.4,
    noise: float = 0.0,
    irregular: bool | float = False,
    missing: float = 0.0,
    random_state: Seed = None,
) -> SimulatedSystem:
    """Simulate prey and predators on closed orbits.

    dprey/dt = (growth - predation predator) prey,  dpredator/dt = (conversion prey - death) predator.
    All four entries of the graph are true. Starts are uniform between 0.4 and 1.6 times the equilibrium
    (death / conversion, growth / predation).

    Parameters
    ----------
    n_trajectories, n_times : int, default=10, 40
        Number of trajectories and of observations of each.
    dt : float, default=0.5
        Time between observations; small orbits take 2 pi / sqrt(growth death), about 9.5 with the defaults.
    growth, predation, conversion, death : float
        Positive rates.
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
        Variables prey, predator.

    References
    ----------
    Volterra, "Fluctuations in the abundance of a species considered mathematically", Nature, 1926,
    doi:10.1038/118558a0.

    Examples
    --------
    >>> from skode.datasets import make_lotka_volterra
    >>> make_lotka_volterra(random_state=0).names
    ('prey', 'predator')
    """
    if min(growth, predation, conversion, death) <= 0:
        raise ValueError(
            f"the four rates must be positive; got {growth}, {predation}, {conversion} and {death}. "
            "The minus signs stand in the equations already."
        )
    sampling = Sampling(n_trajectories, n_times, dt, noise, irregular, missing)
    streams = open_streams(random_state)
    equilibrium = np.array([death / conversion, growth / predation])
    starts = equilibrium * streams.starts.uniform(0.4, 1.6, size=(n_trajectories, 2))
    slope = LotkaVolterra(growth, predation, conversion, death)
    adjacency = np.ones((2, 2), dtype=np.bool_)
    return simulate(
        slope,
        starts,
        sampling,
        streams,
        name="lotka_volterra",
        adjacency=adjacency,
        names=("prey", "predator"),
    )
