"""Yeast glycolysis: seven metabolites with rational kinetics that oscillate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skode._typing import FloatArray
from skode.datasets._system import Sampling, Seed, SimulatedSystem, open_streams, simulate

# Ranges of the starts, (low, high) per variable: roughly those of the limit cycle.
_STARTS = np.array(
    [(0.15, 1.60), (0.19, 2.16), (0.04, 0.20), (0.10, 0.35), (0.08, 0.30), (0.14, 2.67), (0.05, 0.10)],
    dtype=np.float64,
)
# One row per target: which of the seven metabolites its rate depends on.
_ADJACENCY = (
    (1, 0, 0, 0, 0, 1, 0),
    (1, 1, 0, 0, 1, 1, 0),
    (0, 1, 1, 0, 1, 1, 0),
    (0, 0, 1, 1, 1, 1, 1),
    (0, 1, 0, 1, 1, 0, 0),
    (1, 0, 1, 0, 0, 1, 0),
    (0, 0, 0, 1, 0, 0, 1),
)


@dataclass(frozen=True)
class Glycolysis:
    """The right-hand side of yeast glycolysis (mM, minutes), vectorised over leading axes."""

    influx: float = 2.5  # J0
    k1: float = 100.0
    k2: float = 6.0
    k3: float = 16.0
    k4: float = 100.0
    k5: float = 1.28
    k6: float = 12.0
    loss: float = 1.8  # k
    exchange: float = 13.0  # kappa
    hill: float = 4.0  # q
    inhibition: float = 0.52  # K1
    volume: float = 0.1  # psi, cells over medium
    total_nad: float = 1.0  # N
    total_adenosine: float = 4.0  # A

    def __call__(self, t: float, x: FloatArray, u: FloatArray | None = None) -> FloatArray:
        """Return dx/dt."""
        s1, s2, s3, s4, s5, s6, s7 = np.moveaxis(x, -1, 0)
        uptake = self.k1 * s1 * s6 / (1.0 + (s6 / self.inhibition) ** self.hill)
        oxidation = self.k2 * s2 * (self.total_nad - s5)
        phosphorylation = self.k3 * s3 * (self.total_adenosine - s6)
        ethanol = self.k4 * s4 * s5
        glycerol = self.k6 * s2 * s5
        flow = self.exchange * (s4 - s7)
        return np.stack(
            (
                self.influx - uptake,
                2.0 * uptake - oxidation - glycerol,
                oxidation - phosphorylation,
                phosphorylation - ethanol - flow,
                oxidation - ethanol - glycerol,
                2.0 * phosphorylation - 2.0 * uptake - self.k5 * s6,
                self.volume * flow - self.loss * s7,
            ),
            axis=-1,
        )


def make_glycolysis(
    n_trajectories: int = 20,
    n_times: int = 40,
    *,
    dt: float = 0.05,
    noise: float = 0.0,
    irregular: bool | float = False,
    missing: float = 0.0,
    random_state: Seed = None,
) -> SimulatedSystem:
    """Simulate the oscillating glycolysis of yeast: seven metabolites, 23 of 49 entries true.

    With v1 = k1 s1 s6 / (1 + (s6 / K1)^q), v2 = k2 s2 (N - s5) and v3 = k3 s3 (A - s6)::

        ds1/dt = J0 - v1                                  ds5/dt = v2 - k4 s4 s5 - k6 s2 s5
        ds2/dt = 2 v1 - v2 - k6 s2 s5                     ds6/dt = 2 v3 - 2 v1 - k5 s6
        ds3/dt = v2 - v3                                  ds7/dt = psi kappa (s4 - s7) - k s7
        ds4/dt = v3 - k4 s4 s5 - kappa (s4 - s7)

    Parameters
    ----------
    n_trajectories, n_times : int, default=20, 40
        Number of trajectories and of observations of each.
    dt : float, default=0.05
        Time between observations in minutes; a period takes about one minute.
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
        Variables s1 (glucose), s2 (triose phosphates), s3 (bisphosphoglycerate), s4 (pyruvate and
        acetaldehyde), s5 (NADH), s6 (ATP) and s7 (the pool of s4 outside the cells), in mM.

    References
    ----------
    Ruoff, Christensen, Wolf, Heinrich, "Temperature dependency and temperature compensation in a model of
    yeast glycolytic oscillations", Biophysical Chemistry, 2003, doi:10.1016/S0301-4622(03)00191-1. Parameters
    and starts: Daniels, Nemenman, "Efficient inference of parsimonious phenomenological models of cellular
    dynamics using S-systems and alternating regression", PLoS ONE, 2015, doi:10.1371/journal.pone.0119821.

    Examples
    --------
    >>> from skode.datasets import make_glycolysis
    >>> make_glycolysis(n_trajectories=1, random_state=0).states[0].shape
    (40, 7)
    """
    sampling = Sampling(n_trajectories, n_times, dt, noise, irregular, missing)
    streams = open_streams(random_state)
    starts = streams.starts.uniform(_STARTS[:, 0], _STARTS[:, 1], size=(n_trajectories, 7))
    names = tuple(f"s{i}" for i in range(1, 8))
    adjacency = np.array(_ADJACENCY, dtype=np.bool_)
    return simulate(
        Glycolysis(),
        starts,
        sampling,
        streams,
        name="glycolysis",
        adjacency=adjacency,
        names=names,
        stiff=True,
    )
