"""Default settings on two systems that share nothing: a chaotic ring and a gene network.

    python examples/benchmarks/default_settings.py [--seeds 3]

Prints, as mean and spread (max - min) over seeds: AUROC, AUPRC beside the prevalence, F1, number of edges, and the
NRMSE of forecasts of held-out trajectories from their true starts, for the default estimator, the same without
penalty, the cross-validated one, and the baselines.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
import torch
from _baselines import (
    Split,
    lagged_correlation,
    mean_trajectory,
    nrmse,
    persistence,
    ridge,
    split,
    training_mean,
)

from skode import SparseNODERegressor, SparseNODERegressorCV, from_trajectories
from skode.datasets import make_hill_network, make_lorenz96
from skode.metrics import graph_scores


def lorenz96(seed: int) -> Split:
    """Ten variables, 20 trajectories of 30 points, 5 % noise."""
    return split(make_lorenz96(n_trajectories=30, n_times=30, dt=0.05, noise=0.05, random_state=seed), 20)


def hill_sum(seed: int) -> Split:
    """Twenty genes whose regulators add up, 30 trajectories of 10 points, 5 % noise."""
    return split(make_hill_network(n_trajectories=40, combine="sum", noise=0.05, random_state=seed), 30)


def hill_product(seed: int) -> Split:
    """The same with regulators that must act together, which rare states alone reveal."""
    return split(make_hill_network(n_trajectories=40, combine="product", noise=0.05, random_state=seed), 30)


SYSTEMS = {
    "Lorenz-96, d 10, 20 x 30, 5 % noise": lorenz96,
    "Hill network (sums), 20 genes, 30 x 10, 5 % noise": hill_sum,
    "Hill network (products), 20 genes, 30 x 10, 5 % noise": hill_product,
}


def row(data: Split, scores: np.ndarray | None, matrix: np.ndarray | None, forecast: np.ndarray | None) -> list[float]:
    """AUROC, AUPRC, F1, edges and NRMSE (first third, all) of one method; nan where it has no say."""
    truth, keep = data.system.adjacency, data.system.self_edges
    graph = graph_scores(truth, scores=scores, matrix=matrix, self_edges=keep)
    n_edges = np.nan if graph.n_edges is None else graph.n_edges
    errors = [np.nan, np.nan] if forecast is None else [nrmse(data, forecast, 1 / 3), nrmse(data, forecast)]
    return [graph.auroc, graph.auprc, graph.f1, n_edges, *errors]


def methods(data: Split, seed: int) -> dict[str, list[float]]:
    """Rows of the table for one seed; the last entry is seconds."""
    X, y, groups = from_trajectories(data.states, data.times)
    out = {}
    models = {
        "skode, defaults": SparseNODERegressor(random_state=seed),
        "skode, penalty=None": SparseNODERegressor(None, random_state=seed),
        "skode, cross-validated": SparseNODERegressorCV(random_state=seed),
    }
    for name, model in models.items():
        began = time.perf_counter()
        model.fit(X, y, groups=groups)
        seconds = time.perf_counter() - began
        forecast = model.simulate(data.test[:, 0], data.test_times)
        out[name] = [*row(data, model.dependency_scores_, model.dependency_matrix_, forecast), seconds]
    linear = ridge(data)
    out["ridge on one-step changes"] = [*row(data, linear.coefficients, None, linear.forecast), np.nan]
    out["lagged correlation"] = [*row(data, lagged_correlation(data), None, None), np.nan]
    for name, forecast in (
        ("persistence", persistence(data)),
        ("training mean", training_mean(data)),
        ("smoothed mean trajectory", mean_trajectory(data)),
    ):
        out[name] = [*row(data, None, None, forecast), np.nan]
    return out


HEADER = """| method | AUROC | AUPRC | F1 | edges | NRMSE, first third | NRMSE | seconds |
|---|---|---|---|---|---|---|---|"""


def main() -> None:
    """Print one table per system."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name, make in SYSTEMS.items():
        tables = [methods(make(seed), seed) for seed in range(arguments.seeds)]
        system = make(0).system
        keep = np.ones_like(system.adjacency) if system.self_edges else ~np.eye(system.n_variables, dtype=bool)
        print(f"\n{name}; prevalence {system.adjacency[keep].mean():.3f}, {arguments.seeds} seeds: mean (spread)\n")
        print(HEADER)
        for method in tables[0]:
            values = np.array([table[method] for table in tables])
            cells = ["-" if np.isnan(v).any() else f"{v.mean():.3g} ({np.ptp(v):.2g})" for v in values.T]
            print(f"| {method} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
