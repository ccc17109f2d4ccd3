"""One fit of many variables in a process of its own; prints one line of JSON.

    python examples/benchmarks/_size.py 1000 --threads 2

A Hill network of d genes and 2 d edges, 200 trajectories of 6 times with 5 % noise, fitted by ``SparseNODERegressorCV``
with default settings; forecasts are those of ten more trajectories, from true starts, against clean states. Of no more
than 600 genes a fit of ``SparseNODERegressor`` is timed after it.
"""

from __future__ import annotations

import argparse
import json
import pickle
import resource
import time
import warnings

import numpy as np
import torch
from _baselines import nrmse, split, start_or_mean

from skode import SparseNODERegressor, SparseNODERegressorCV, from_trajectories
from skode.datasets import make_hill_network

N_TRAIN, N_TEST = 200, 10
BESIDE = 600
"""Genes up to which a plain fit is timed as well."""


def peak() -> float:
    """Largest resident memory so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> None:
    """Fit and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("d", type=int)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(arguments.threads)
    d = arguments.d
    system = make_hill_network(d, N_TRAIN + N_TEST, 6, dt=1.0, n_edges=2 * d, noise=0.05, random_state=0)
    data = split(system, N_TRAIN)
    X, y, groups = from_trajectories(system.states[:N_TRAIN], system.times[:N_TRAIN])
    before, wall, cpu = peak(), time.perf_counter(), time.process_time()
    model = SparseNODERegressorCV(random_state=0).fit(X, y, groups=groups)
    wall, cpu, most = time.perf_counter() - wall, time.process_time() - cpu, peak()
    other = ~np.eye(d, dtype=bool)
    true, found = system.adjacency.astype(bool) & other, (model.dependency_matrix_ > 0) & other
    forecast = model.simulate(data.test[:, 0], data.test_times)
    line = {
        "wall": wall,
        "cpu": cpu,
        "peak": most,
        "before": before,
        "f1": 2.0 * float((true & found).sum()) / float(true.sum() + found.sum()),
        "edges": int(found.sum()),
        "nrmse": float(nrmse(data, forecast)),
        "trivial": float(nrmse(data, start_or_mean(data))),
        "pickle": len(pickle.dumps(model)) / 1e6,
        "stages": {name: report["seconds"] for name, report in model.history_.items()},
    }
    if d <= BESIDE:
        began = time.perf_counter()
        SparseNODERegressor(random_state=0).fit(X, y, groups=groups)
        line["plain"] = time.perf_counter() - began
    print(json.dumps(line))


if __name__ == "__main__":
    main()
