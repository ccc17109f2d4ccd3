"""Edges of large networks from noisy observations, by how often states are smoothed along the edges that were found.

    python examples/benchmarks/selection.py [--data DIR] [--passes 0 2 4 6] [--seeds 3]

Prints a Markdown table of what ``skode._screen.screen`` selects by the extended BIC, before any network is fitted:
AUPR, and in brackets F1, of every set and number of passes, mean over seeds; below, both means over sets, and the
median of seconds. 0 is one smoothing along a ridge field, and one choice. Where no noise is found every number
gives the same.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from _sets import SETS
from sklearn.metrics import average_precision_score, f1_score

from skode._screen import screen
from skode.datasets import make_hill_network

ALPHAS = np.geomspace(1.0, 0.005, 10)
"""The path of ``SparseNODERegressorCV``."""


class Network(NamedTuple):
    """Observations, and the edges that are looked for."""

    times: list[np.ndarray]
    states: list[np.ndarray]
    truth: np.ndarray  # (target, source) bool
    compared: np.ndarray  # (target, source) bool
    moves: np.ndarray  # (d,) bool


def of_benchmark(name: str, seed: int, folder: Path | None) -> Network | None:
    """A set of the recovery benchmark."""
    data = SETS[name](seed, folder)
    if data is None:
        return None
    moves = np.ones(len(data.truth), dtype=bool) if data.targets is None else data.targets
    return Network(data.times, data.states, data.truth != 0, data.compared & ~np.eye(len(moves), dtype=bool), moves)


def simulated(seed: int, _: Path | None, **options: object) -> Network:
    """A Hill network drawn for this table."""
    data = make_hill_network(random_state=seed, **options)
    d = len(data.adjacency)
    other = ~np.eye(d, dtype=bool)
    return Network(data.times, data.states, data.adjacency != 0, other, np.ones(d, dtype=bool))


RARELY = {"n_genes": 150, "n_trajectories": 120, "n_times": 5, "dt": 2.0, "n_edges": 300}
OFTEN = {"n_genes": 200, "n_trajectories": 120, "n_times": 5, "dt": 1.0, "n_edges": 600, "hubs": 1.0}

NETWORKS: dict[str, Callable[[int, Path | None], Network | None]] = {
    **{name: partial(of_benchmark, name) for name in SETS if name.startswith(("many", "hubs", "sim350"))},
    **{
        f"150 genes, {combine}, {noise:.0%} noise": partial(simulated, combine=combine, noise=noise, **RARELY)
        for combine in ("sum", "product")
        for noise in (0.1, 0.3)
    },
    "200 genes, 600 edges, hubs": partial(simulated, combine="sum", noise=0.3, decay_spread=3.0, **OFTEN),
}


def figures(network: Network, n_passes: int) -> tuple[float, float, float]:
    """AUPR, F1 and seconds of one choice."""
    every = np.concatenate(network.states)
    mean, sd = every.mean(axis=0), every.std(axis=0)
    states = [(x - mean) / np.where(sd > 0, sd, 1.0) for x in network.states]
    began = time.perf_counter()
    found = screen(network.times, states, moves=network.moves, alphas=ALPHAS, n_passes=n_passes)
    seconds = time.perf_counter() - began
    true, kept = network.truth[network.compared], found.support[network.compared]
    return average_precision_score(true, found.scores[network.compared]), f1_score(true, kept), seconds


def main() -> None:
    """Choose the edges of every network with every number of passes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=int, nargs="+", default=[0, 2, 4, 6])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", type=Path, help="folder of the sets that do not ship")
    arguments = parser.parse_args()
    print("| set | " + " | ".join(f"{k} passes" for k in arguments.passes) + " |")
    print("|---" * (len(arguments.passes) + 1) + "|")
    table = []
    for name, make in NETWORKS.items():
        draws = range(1, 2 if name.startswith("sim350") else arguments.seeds + 1)
        networks = [make(seed, arguments.data) for seed in draws]
        if any(network is None for network in networks):
            print(f"| {name} | not run: the data are not there |", flush=True)
            continue
        found = np.array([[figures(network, k) for network in networks] for k in arguments.passes])
        table.append(found.mean(axis=1))
        print(f"| {name} | " + " | ".join(f"{a:.3f} ({b:.3f})" for a, b, _ in table[-1]) + " |", flush=True)
    means, seconds = np.mean(table, axis=0), np.median(table, axis=0)[:, 2]
    print("| mean | " + " | ".join(f"{a:.4f} ({b:.4f})" for a, b, _ in means) + " |")
    print("| seconds | " + " | ".join(f"{s:.1f}" for s in seconds) + " |")


if __name__ == "__main__":
    main()
