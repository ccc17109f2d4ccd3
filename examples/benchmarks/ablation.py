"""What one parameter of the estimator does, all else being default.

    python examples/benchmarks/ablation.py weight_decay auto 1e-4 1e-3 1e-2 [--sets hill-sum-30 polynomial chaos]
                                           [--seeds 2] [--data DIR]

Prints a Markdown table: the NRMSE of forecasts, mean over seeds, and in brackets F1, for every set and value, beside
ridge regression and the trivial forecasts; below, the geometric mean of NRMSE over sets, the mean of F1, and seconds.
"""

from __future__ import annotations

import argparse
import ast
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from _answers import Method
from _figures import judge
from _methods import ALWAYS, estimator, fit_skode, make_methods
from _sets import SETS

from skode import SparseNODERegressor

GENERATED = ["lorenz96", "hill", "oscillators", "polynomial"]
"""Sets that need no data."""


def literal(text: str) -> object:
    """A number, tuple or None as Python writes it; else the word itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def figures(method: Method, name: str, seeds: int, folder: Path | None) -> np.ndarray | None:
    """Mean over seeds of NRMSE, F1 and seconds; None where the set is absent."""
    rows = []
    for seed in range(1, seeds + 1):
        data = SETS[name](seed, folder)
        if data is None:
            return None
        began = time.perf_counter()
        found = judge(data, method(data, seed))
        rows.append([found["NRMSE"], found["F1"], time.perf_counter() - began])
    return np.mean(rows, axis=0)


def main() -> None:
    """Fit every value to every set and print as results come."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parameter")
    parser.add_argument("values", nargs="+")
    parser.add_argument("--sets", nargs="*", default=GENERATED, help="names of sets, or beginnings of names")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--data", type=Path, help="folder of the sets that do not ship")
    arguments = parser.parse_args()
    if arguments.parameter not in SparseNODERegressor().get_params():
        parser.error(f"the parameter must be one of SparseNODERegressor; got {arguments.parameter!r}")
    warnings.simplefilter("ignore")
    known = make_methods(0)
    methods = {
        value: partial(fit_skode, partial(estimator, SparseNODERegressor, {arguments.parameter: literal(value)}))
        for value in arguments.values
    } | {name: known[name] for name in ALWAYS}
    print(f"| {arguments.parameter} | " + " | ".join(methods) + " |\n|" + "---|" * (len(methods) + 1))
    table = []
    for name in SETS:
        if any(f"{name}-".startswith(f"{start}-") for start in arguments.sets):
            row = [figures(method, name, arguments.seeds, arguments.data) for method in methods.values()]
            if any(cell is None for cell in row):
                print(f"| {name} | not run: the data are not there |", flush=True)
                continue
            table.append(row)
            cells = [f"{error:.3g}" + ("" if np.isnan(f1) else f" ({f1:.3g})") for error, f1, _ in row]
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    if not table:
        parser.error(f"--sets must be among {', '.join(SETS)}, and their data in --data")
    errors, f1, seconds = np.moveaxis(np.array(table), 2, 0)
    for label, values in (
        ("geometric mean of NRMSE", np.exp(np.log(errors).mean(axis=0))),
        ("mean F1", f1.mean(axis=0)),
        ("mean seconds", seconds.mean(axis=0)),
    ):
        print(f"| {label} | " + " | ".join("-" if np.isnan(value) else f"{value:.3g}" for value in values) + " |")


if __name__ == "__main__":
    main()
