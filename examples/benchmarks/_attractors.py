"""Chaotic systems written down here, beside the ten that come as a file: for laws that nobody has tuned anything to.

Every system is sampled as those of the file: 20 trajectories of 40 irregular times over two periods, from points of the
attractor, and ten clean ones of 61 regular times over three. The period is that of the strongest frequency of all
variables together, each in its own standard deviations, drifts left out. Starts, times and noise are drawn anew for
every seed.

The equations are those of J. C. Sprott, "Elegant Chaos", 2010, doi 10.1142/7183, and of the papers named there, with
the parameters that are usual.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.integrate import solve_ivp
from scipy.signal import welch

Slope = Callable[..., tuple[float, ...]]
"""The state, number by number, to its rate of change."""


class Attractor(NamedTuple):
    """A law, who acts on whom, a start in its basin, and about how long an oscillation takes."""

    slope: Slope
    acts: tuple[str, ...]  # of every variable, the digits of those in its rate of change
    start: tuple[float, ...]
    span: float  # a time in which there are some ten oscillations


def _halvorsen(x: float, y: float, z: float) -> tuple[float, ...]:
    return tuple(-1.4 * a - 4 * b - 4 * c - b * b for a, b, c in ((x, y, z), (y, z, x), (z, x, y)))


def _thomas(x: float, y: float, z: float) -> tuple[float, ...]:
    return tuple(np.sin(b) - 0.208186 * a for a, b in ((x, y), (y, z), (z, x)))


def _aizawa(x: float, y: float, z: float) -> tuple[float, ...]:
    lift = 0.6 + 0.95 * z - z**3 / 3 - (x * x + y * y) * (1 + 0.25 * z) + 0.1 * z * x**3
    return (z - 0.7) * x - 3.5 * y, 3.5 * x + (z - 0.7) * y, lift


def _dadras(x: float, y: float, z: float) -> tuple[float, ...]:
    return y - 3 * x + 2.7 * y * z, 1.7 * y - x * z + z, 2 * x * y - 9 * z


def _hadley(x: float, y: float, z: float) -> tuple[float, ...]:
    return -y * y - z * z - 0.25 * x + 0.25 * 8, x * y - 4 * x * z - y + 1, 4 * x * y + x * z - z


def _rabinovich_fabrikant(x: float, y: float, z: float) -> tuple[float, ...]:
    return y * (z - 1 + x * x) + 0.87 * x, x * (3 * z + 1 - x * x) + 0.87 * y, -2 * z * (1.1 + x * y)


def _hindmarsh_rose(x: float, y: float, z: float) -> tuple[float, ...]:
    return y - x**3 + 3 * x * x - z + 3.25, 1 - 5 * x * x - y, 0.006 * (4 * (x + 1.6) - z)


def _hyper_lu(x: float, y: float, z: float, w: float) -> tuple[float, ...]:
    return 36 * (y - x) + w, 20 * y - x * z, x * y - 3 * z, x * z + 1.3 * w


def _blasius(x: float, y: float, z: float) -> tuple[float, ...]:
    eaten = 0.2 * x * y / (1 + 0.05 * x)
    return x - eaten, -y + eaten - y * z, -10 * (z - 0.006) + y * z


def _quadrupole(q: float, s: float, p: float, r: float) -> tuple[float, ...]:
    a, b, c = 1.0, 0.55, 0.4
    push = a * q + 3 * b * (q * q - s * s) / np.sqrt(2) + c * q * (q * q + s * s)
    pull = a * s - 6 * b * q * s / np.sqrt(2) + c * s * (q * q + s * s)
    return a * p, a * r, -push, -pull


ATTRACTORS: dict[str, Attractor] = {
    "Halvorsen": Attractor(_halvorsen, ("012",) * 3, (-5.0, 0.0, 0.0), 10.0),
    "Thomas": Attractor(_thomas, ("01", "12", "02"), (0.1, 0.0, 0.0), 200.0),
    "Aizawa": Attractor(_aizawa, ("012",) * 3, (0.1, 0.0, 0.0), 20.0),
    "Dadras": Attractor(_dadras, ("012",) * 3, (1.0, 1.0, 0.0), 20.0),
    "Arneodo": Attractor(
        lambda x, y, z: (y, z, 5.5 * x - 4.5 * y - z - x**3), ("1", "2", "012"), (0.2, 0.2, -0.75), 30.0
    ),
    "Rucklidge": Attractor(
        lambda x, y, z: (-2 * x + 6.7 * y - y * z, x, y * y - z), ("012", "0", "12"), (1.0, 0.0, 4.5), 20.0
    ),
    "NoseHoover": Attractor(lambda x, y, z: (y, -x + y * z, 1.5 - y * y), ("1", "012", "1"), (-2.0, 0.0, -0.5), 60.0),
    "ShimizuMorioka": Attractor(
        lambda x, y, z: (y, x - 0.85 * y - x * z, x * x - 0.5 * z), ("1", "012", "02"), (0.1, 0.1, 0.5), 60.0
    ),
    "Chen": Attractor(
        lambda x, y, z: (35 * (y - x), -7 * x - x * z + 28 * y, x * y - 3 * z), ("01", "012", "012"), (-3, 2, 20), 5.0
    ),
    "BurkeShaw": Attractor(
        lambda x, y, z: (-10 * (x + y), -y - 10 * x * z, 10 * x * y + 4.272), ("01", "012", "01"), (0.6, 0, 0), 10.0
    ),
    "RabinovichFabrikant": Attractor(_rabinovich_fabrikant, ("012",) * 3, (-1.0, 0.0, 0.5), 60.0),
    "SprottC": Attractor(lambda x, y, z: (y * z, x - y, 1 - x * x), ("12", "01", "0"), (0.5, 0.5, 0.5), 50.0),
    "SprottE": Attractor(lambda x, y, z: (y * z, x * x - y, 1 - 4 * x), ("12", "01", "0"), (0.1, 0.1, 0.1), 60.0),
    "SprottK": Attractor(lambda x, y, z: (x * y - z, x - y, x + 0.3 * z), ("012", "01", "02"), (0.1, 0.1, 0.1), 60.0),
    "SprottM": Attractor(lambda x, y, z: (-z, -x * x - y, 1.7 * (1 + x) + y), ("2", "01", "01"), (0.1, 0.1, 0.1), 60.0),
    "MooreSpiegel": Attractor(
        lambda x, y, z: (y, z, -z - (6 - 20 + 20 * x * x) * y - 6 * x), ("1", "2", "012"), (0.1, 0.0, 0.0), 30.0
    ),
    "Finance": Attractor(
        lambda x, y, z: (z + (y - 0.9) * x, 1 - 0.2 * y - x * x, -x - 1.2 * z), ("012", "01", "02"), (1, 3, 2), 60.0
    ),
    "Hadley": Attractor(_hadley, ("012",) * 3, (1.0, 0.0, 0.5), 20.0),
    "HindmarshRose": Attractor(_hindmarsh_rose, ("012", "01", "02"), (0.1, 0.1, 3.0), 1000.0),
    "HyperLu": Attractor(_hyper_lu, ("013", "012", "012", "023"), (5.0, 8.0, 12.0, 21.0), 5.0),
    "Blasius": Attractor(_blasius, ("01", "012", "12"), (5.0, 5.0, 0.0), 60.0),
    "Quadrupole": Attractor(_quadrupole, ("2", "3", "01", "01"), (0.3, 1.1, 0.4, 0.6), 60.0),
}
"""Name -> law."""


class Sampled(NamedTuple):
    """What is seen of an attractor, and what comes after."""

    states: np.ndarray  # (trajectory, time, d), with noise
    times: np.ndarray  # (trajectory, time)
    test: np.ndarray  # (trajectory, time, d)
    test_times: np.ndarray  # (time,)
    truth: np.ndarray  # (d, d) bool, target by source
    period: float


def sample_attractor(name: str, noise: float, seed: int) -> Sampled:
    """Draw starts on the attractor, irregular times, and noise as a share of each variable's standard deviation."""
    system, rng = ATTRACTORS[name], np.random.default_rng(seed)
    path, period = _path(name)
    d, sd = path.shape[1], path.std(axis=0)
    starts = path[rng.choice(len(path), 30, replace=False)]
    times = np.sort(rng.uniform(0.0, 2.0 * period, (20, 40)), axis=1)
    times[:, 0] = 0.0
    test_times = np.linspace(0.0, 3.0 * period, 61)
    states = np.array([_solve(system, start, t) for start, t in zip(starts[:20], times, strict=True)])
    test = np.array([_solve(system, start, test_times) for start in starts[20:]])
    truth = np.array([[str(j) in acts for j in range(d)] for acts in system.acts])
    return Sampled(states + noise * sd * rng.normal(size=states.shape), times, test, test_times, truth, period)


@cache
def _path(name: str) -> tuple[np.ndarray, float]:
    """A long stay on the attractor, and its period."""
    system = ATTRACTORS[name]
    times, step = np.linspace(0.0, 100.0 * system.span, 200_001, retstep=True)
    path = _solve(system, np.array(system.start, float), times)[20_000:]
    frequency, power = welch(path / path.std(axis=0), 1.0 / step, nperseg=int(2 * system.span / step), axis=0)
    return path, float(1.0 / frequency[4:][power[4:].sum(axis=1).argmax()])


def _solve(system: Attractor, start: np.ndarray, times: np.ndarray) -> np.ndarray:
    """States at rising times, the first of which is that of the start.  # (time, d)"""

    def slope(t: float, x: np.ndarray) -> tuple[float, ...]:
        return system.slope(*x)

    span = times[0], times[-1]
    solved = solve_ivp(slope, span, start, t_eval=times, method="LSODA", rtol=1e-8, atol=1e-10)
    if not solved.success:
        raise RuntimeError(f"The solver should reach the last time; got: {solved.message}")
    return solved.y.T
