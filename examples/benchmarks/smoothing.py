"""How exact smoothed paths are, and what a penalty does that follows when paths bend.

    python examples/benchmarks/smoothing.py [--seeds 3] [--noise 0.01 0.05 0.2]

Prints a Markdown table. For every generated system and noise: root mean squared errors of states and of slopes over
intervals, in standard deviations of both, mean over seeds; beside them, in brackets, as times as large as with one
penalty for all times. "uneven" counts the draws whose penalty follows the bends; the others are as they were.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from _polynomial import POLYNOMIAL

from skode.datasets import (
    SimulatedSystem,
    make_coupled_oscillators,
    make_dense_linear,
    make_glycolysis,
    make_hill_network,
    make_independent_decays,
    make_lorenz96,
)
from skode.smooth import smooth

Make = Callable[[float, int], SimulatedSystem]


def _made(make: Callable[..., SimulatedSystem], **sizes: float) -> Make:
    return lambda noise, seed: make(noise=noise, random_state=seed, **sizes)


SYSTEMS: dict[str, Make] = {
    "Hill network, 30 x 10": _made(make_hill_network),
    "Hill network, 20 x 30": _made(make_hill_network, n_trajectories=20, n_times=30),
    "Hill network, 20 x 190": _made(make_hill_network, n_trajectories=20, n_times=190, dt=0.04),
    "decays": _made(make_independent_decays),
    "all edges, linear": _made(make_dense_linear),
    "glycolysis": _made(make_glycolysis),
    "oscillators": _made(make_coupled_oscillators),
    "Lorenz-96": _made(make_lorenz96),
    "Lorenz-96, 1 x 1000": _made(make_lorenz96, n_trajectories=1, n_times=1000),
    **{name: partial(make, 20, 40) for name, make in POLYNOMIAL.items()},
}


def errors(system: SimulatedSystem, even: bool = False) -> tuple[np.ndarray, bool]:
    """Root mean squared errors of states and of slopes, and whether the penalty was uneven."""
    found = smooth(system.times, system.states, even=even)
    pairs = list(zip(system.times, found.states, system.clean_states, strict=True))
    out = []
    for order in (0, 1):
        missed, true = (
            np.concatenate([np.diff(x, order, axis=0) / np.diff(t)[:, None] ** order if order else x for t, x in some])
            for some in ([(t, x - y) for t, x, y in pairs], [(t, y) for t, _, y in pairs])
        )
        out.append(np.sqrt(np.mean(missed**2 / true.var(axis=0))))
    return np.array(out), found.uneven


def row(make: Make, noise: float, seeds: Sequence[int]) -> str:
    """Errors of states and of slopes, each beside those with one penalty, and the draws with an uneven one."""
    systems = [make(noise, seed) for seed in seeds]
    own = [errors(system) for system in systems]
    even = np.array([errors(system, even=True)[0] for system in systems])
    ours = np.array([some for some, _ in own])
    cells = [f"{a:.3g} ({b:.2f})" for a, b in zip(ours.mean(axis=0), (ours / even).mean(axis=0), strict=True)]
    return " | ".join([*cells, f"{sum(uneven for _, uneven in own)} of {len(own)}"])


def main() -> None:
    """Smooth every system at every noise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--noise", type=float, nargs="+", default=[0.01, 0.05, 0.2])
    arguments = parser.parse_args()
    print("| system | noise | states | slopes | uneven |\n|---|---|---|---|---|")
    for name, make in SYSTEMS.items():
        for noise in arguments.noise:
            print(f"| {name} | {noise:g} | {row(make, noise, range(arguments.seeds))} |", flush=True)


if __name__ == "__main__":
    main()
