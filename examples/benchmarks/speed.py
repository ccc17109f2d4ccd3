"""How long everything takes, beside what others take, measured alternately in one run.

    python examples/benchmarks/speed.py [--quick] [--out DIR] [--rounds 7] [--sections steps fit scaling predict race]
    python examples/benchmarks/speed.py --sections race [--works W1 W2 W3 W4] [--budget 300]
    python examples/benchmarks/speed.py --sections size [--sizes 350 529 1000 2000] [--threads 2]

Writes ``speed.md``, ``speed.csv`` (one line per figure) and, with matplotlib, ``speed.png`` into the output folder,
and prints the tables as it goes. ``README.md`` beside this file describes the sections, and what was tried and did
not pay. One thread throughout, but for ``size``.
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from _race import measure_race
from _steps import WAYS, Step, Work, enlarged, fewest_steps, installed, make_works, skode_step
from _timing import IN_A_ROW, Figure, alternate, figure_of, seconds

from skode import SparseNODERegressor, SparseNODERegressorCV, from_trajectories
from skode.datasets import (
    SimulatedSystem,
    make_coupled_oscillators,
    make_hill_network,
    make_lorenz63,
    make_lorenz96,
)

PACKAGES = ("numpy", "scipy", "scikit-learn", "torch", "torchdiffeq", "torchode", "diffrax", "jax")
FRESH = """
import time; began = time.perf_counter()
import resource, warnings; warnings.simplefilter("ignore")
import torch; torch.set_num_threads(1)
from skode import SparseNODERegressor, from_trajectories
from skode.datasets import make_lorenz96
system = make_lorenz96(random_state=0, noise=0.05)
X, y, groups = from_trajectories(system.states, system.times)
before, ready = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
SparseNODERegressor(max_iter={max_iter}, random_state=0).fit(X, y, groups=groups)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(ready - began, time.perf_counter() - began, (after - before) / 1e3, after / 1e3)
"""


def calibration(rounds: int) -> tuple[float, list[Figure]]:
    """Speed of a matrix product, in floating-point operations per second."""
    a = torch.randn(1024, 1024)
    times = alternate({"product": lambda: a @ a}, 3 * rounds)["product"]
    rates = [2 * 1024**3 / t / 1e9 for t in times]
    return max(rates) * 1e9, [figure_of("calibration", "product of 1024 x 1024, float32", "GFLOP/s", rates)]


def floor_of(work: Work, rate: float) -> float:
    """Seconds that the matrix products of one step would take at full speed: forwards, and twice that backwards."""
    products = sum(w.numel() for name, w in work.weights.items() if name.startswith("W"))
    return 3 * 2 * products * len(work.start) * (4 * fewest_steps(work.name).gradient + 1) / rate


def measure_steps(name: str, ways: list[str], rounds: int, rate: float) -> list[Figure]:
    """Every way to take a training step of one workload, and the losses that they see."""
    work, found = make_works()[name], []
    steps: dict[str, Step] = {}
    for way in ways:
        package, make = WAYS[way]
        if not installed(package):
            found.append(Figure(name, way, "ms", np.nan, np.nan, np.nan, f"not run ({package} is not installed)"))
            continue
        steps[way] = make(work)
    losses, first = {}, {}
    for way, step in list(steps.items()):
        began = time.perf_counter()
        try:
            losses[way] = step()
        except Exception as error:  # a way that fails is a line of the table, not the end of it
            found.append(Figure(name, way, "ms", np.nan, np.nan, np.nan, f"failed: {type(error).__name__}"))
            del steps[way]
        first[way] = time.perf_counter() - began
    times = alternate(steps, rounds, IN_A_ROW)
    base = float(np.median(times["skode"]))
    for way, values in times.items():
        apart = abs(losses[way] / losses["skode"] - 1)
        ratio = float(np.median(values)) / base
        note = f"{ratio:.1f} x skode, loss {apart:.2%} apart, first step {first[way]:.2f} s"
        found.append(figure_of(name, way, "ms", [1e3 * t for t in values], note))
    floor = 1e3 * floor_of(work, rate)
    fewest = fewest_steps(name)
    note = f"skode is at {1e3 * base / floor:.1f} x; {fewest.gradient} steps, {fewest.loss} for the loss alone"
    found.append(Figure(name, "matrix-product floor", "ms", floor, floor, floor, note))
    return found


def _fit(model: SparseNODERegressor, system: SimulatedSystem) -> None:
    X, y, groups = rows_of(system)
    model.set_params(order=system.order).fit(X, y, groups=groups)


def rows_of(system: SimulatedSystem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X, y and groups."""
    return from_trajectories(system.states, system.times, velocities=system.velocities)


def measure_fits(rounds: int, max_iter: int) -> list[Figure]:
    """A fit with default settings, where its time goes, cross-validation beside it, and a fit in a fresh process."""
    found = []
    systems = {
        "Lorenz-96, d 10, 20 x 30": make_lorenz96(random_state=0, noise=0.05),
        "Lorenz-96, d 10, 20 x 50": make_lorenz96(n_times=50, random_state=0, noise=0.05),
        "Hill network, d 20, 20 x 30": make_hill_network(n_trajectories=20, n_times=30, noise=0.05, random_state=0),
    }
    for name, system in systems.items():
        model = SparseNODERegressor(max_iter=max_iter, random_state=0)
        fits = [seconds(partial(_fit, model, system)) for _ in range(rounds)]
        found.append(figure_of("fit", name, "s", fits, f"max_iter {max_iter}"))
        stages = {stage: report["seconds"] for stage, report in model.history_.items()}
        rest = fits[-1] - sum(stages.values())
        for stage, value in {**stages, "all else (preparation, graph, step)": rest}.items():
            found.append(Figure("fit", f"{name}: {stage}", "s", value, value, value, f"{value / fits[-1]:.0%}"))
    validated = {
        "Lorenz-96": systems["Lorenz-96, d 10, 20 x 30"],
        "Lorenz 1963": make_lorenz63(20, 40, noise=0.05, random_state=0),
        "Hill network": systems["Hill network, d 20, 20 x 30"],
        "oscillators of order 2": make_coupled_oscillators(10, 20, noise=0.05, random_state=0),
    }
    for name, system in validated.items():
        search = SparseNODERegressorCV(max_iter=max_iter, random_state=0)
        single = SparseNODERegressor(max_iter=max_iter, random_state=0)
        times = alternate({"fit": partial(_fit, single, system), "cv": partial(_fit, search, system)}, 2)
        note = f"{min(times['cv']) / min(times['fit']):.1f} x one fit"
        found.append(figure_of("fit", f"SparseNODERegressorCV, {name}", "s", times["cv"], note))
    ran = [_fresh(max_iter) for _ in range(max(1, rounds // 3))]
    imports, whole, growth, peak = (list(values) for values in zip(*ran, strict=True))
    found.append(figure_of("fit", "fresh process: imports and data", "s", imports))
    found.append(figure_of("fit", "fresh process: imports, data and first fit", "s", whole))
    found.append(figure_of("fit", "memory that the first fit adds", "MB", growth, f"peak {max(peak):.0f} MB"))
    return found


def _fresh(max_iter: int) -> tuple[float, ...]:
    """Seconds of imports and data, seconds with the first fit, MB that the fit adds, MB at the peak."""
    code = FRESH.format(max_iter=max_iter)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return tuple(map(float, ran.stdout.split()))


def measure_scaling(rounds: int, *, most: int) -> list[Figure]:
    """Exponent of the cost of a training step in each size, on W2, and of a fit in the number of variables."""
    work = make_works()["W2"]
    factors = [k for k in (1, 2, 4, 8, 16) if k <= most]
    grids: dict[str, dict[int, Callable[[], object]]] = {
        "observations": {k: skode_step(enlarged(work, observations=k)) for k in factors},
        "trajectories": {k: skode_step(enlarged(work, trajectories=k)) for k in factors},
        "models (alphas, folds, seeds)": {k: skode_step(work, n_models=k) for k in factors},
        "variables (a fit, 50 iterations)": {5 * k: _fit_of_size(5 * k) for k in factors},
    }
    found = []
    for what, runs in grids.items():
        for run in runs.values():
            run()
        times = alternate({str(k): run for k, run in runs.items()}, rounds, IN_A_ROW)
        medians = [float(np.median(values)) for values in times.values()]
        slope = float(np.polyfit(np.log(list(runs)), np.log(medians), 1)[0])
        late = float(np.log(medians[-1] / medians[-2]) / np.log(2.0))
        shown = ", ".join(f"{k}: {1e3 * m:.0f}" for k, m in zip(runs, medians, strict=True))
        found.append(Figure("exponent", what, "", slope, min(slope, late), max(slope, late), f"ms at {shown}"))
    return found


def _fit_of_size(d: int) -> Callable[[], object]:
    X, y, groups = rows_of(make_hill_network(d, n_trajectories=20, n_times=20, noise=0.05, random_state=0))
    model = SparseNODERegressor(max_iter=50, random_state=0)
    return lambda: model.fit(X, y, groups=groups)


def measure_predictions(rounds: int) -> list[Figure]:
    """One row, and a million rows of 1000 trajectories."""
    X, y, groups = rows_of(make_lorenz96(random_state=0, noise=0.05))
    model = SparseNODERegressor(max_iter=100, random_state=0).fit(X, y, groups=groups)
    starts = np.repeat(X[np.random.default_rng(0).integers(0, len(X), 1000), 1:], 1000, axis=0)
    many = np.column_stack([np.tile(np.linspace(0.0, 2.9, 1000), 1000), starts])
    last = X[[np.argmax(X[:, 0])]]
    runs = {
        "one row, one observation ahead": lambda: model.predict(X[[1]]),
        f"one row, {round(last[0, 0] / 0.1)} observations ahead": lambda: model.predict(last),
    }
    for run in runs.values():
        run()
    found = [
        figure_of("predict", what, "ms", [1e3 * t for t in values], f"best {1e3 * min(values):.2f} ms")
        for what, values in alternate(runs, 10 * rounds).items()
    ]
    times = alternate({"many": lambda: model.predict(many)}, max(1, rounds // 2))["many"]
    return [*found, figure_of("predict", "a million rows of 1000 trajectories", "s", times)]


def measure_size(d: int, threads: int) -> list[Figure]:
    """A cross-validated fit of a Hill network of d genes and 2 d edges, in a fresh process (``_size.py``)."""
    command = [sys.executable, str(Path(__file__).with_name("_size.py")), str(d), "--threads", str(threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    got = json.loads(ran.stdout)
    stages = ", ".join(f"{name} {value:.0f}" for name, value in got["stages"].items())
    rows = [
        ("seconds of a fit", "s", got["wall"], f"{threads} threads; {stages}"),
        ("seconds of all threads", "s", got["cpu"], ""),
        ("peak memory", "MB", got["peak"], f"{got['before']:.0f} with imports and data"),
        ("F1", "", got["f1"], f"{got['edges']} edges, {2 * d} true"),
        ("NRMSE", "", got["nrmse"], f"start-or-mean {got['trivial']:.3g}"),
        ("pickle", "MB", got["pickle"], ""),
    ]
    if "plain" in got:
        rows.append(
            ("seconds of a plain fit", "s", got["plain"], f"cross-validation {got['wall'] / got['plain']:.1f} x")
        )
    return [Figure("size", f"d {d}: {what}", unit, value, value, value, note) for what, unit, value, note in rows]


def table(figures: list[Figure]) -> str:
    """One Markdown table per section."""
    parts = []
    for section in dict.fromkeys(figure.section for figure in figures):
        parts += [f"\n## {section}\n", "| what | median | lowest | highest | unit | |", "|---|---|---|---|---|---|"]
        for f in figures:
            if f.section == section:
                cells = ["-" if np.isnan(v) else f"{v:.3g}" for v in (f.median, f.low, f.high)]
                parts.append(f"| {f.what} | {' | '.join(cells)} | {f.unit} | {f.note} |")
    return "\n".join(parts)


def machine() -> str:
    """What this was measured on."""
    versions = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES if _known(name)]
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return (
        f"{platform.machine()}, {platform.system()}, {os.cpu_count()} cores{load}, one thread, "
        f"Python {platform.python_version()}, {', '.join(versions)}"
    )


def _known(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def draw(figures: list[Figure], path: Path) -> None:
    """Training steps as bars, if matplotlib is there."""
    steps = [f for f in figures if f.section in {"W1", "W2", "W3", "W4"} and np.isfinite(f.median)]
    if importlib.util.find_spec("matplotlib") is None or not steps:
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    works = list(dict.fromkeys(f.section for f in steps))
    fig, axes = plt.subplots(1, len(works), figsize=(3.2 * len(works), 2.6), layout="constrained", squeeze=False)
    for axis, work in zip(axes[0], works, strict=True):
        mine = [f for f in steps if f.section == work]
        spread = [[f.median - f.low for f in mine], [f.high - f.median for f in mine]]
        axis.barh([f.what for f in mine], [f.median for f in mine], xerr=spread, color="tab:blue")
        axis.set_xscale("log")
        axis.set_title(f"{work}, ms per training step", fontsize=8)
        axis.tick_params(labelsize=6)
        axis.invert_yaxis()
    fig.savefig(path, dpi=150)
    plt.close(fig)


def main() -> None:
    """Run what was asked for; write the tables after every section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("speed-results"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sections", nargs="*", default=["steps", "fit", "scaling", "predict", "race"])
    parser.add_argument("--works", nargs="*", default=["W1", "W2", "W3", "W4"])
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=list(WAYS), help="of taking a step")
    parser.add_argument("--sizes", nargs="*", type=int, default=[350, 529, 1000, 2000], help="of section size")
    parser.add_argument("--threads", type=int, default=2, help="of the fits of section size")
    parser.add_argument("--budget", type=float, default=300.0, help="seconds of training per workload of section race")
    parser.add_argument("--max-iter", type=int, default=SparseNODERegressor().max_iter, help="of the timed fits")
    parser.add_argument("--quick", action="store_true", help="two rounds, W1 and W2 (race: W1, 5 s), short fits")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.works, arguments.max_iter = 2, ["W1", "W2"], 200
        arguments.budget = min(arguments.budget, 5.0)
    races = arguments.works[:1] if arguments.quick else arguments.works
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    rate, figures = calibration(arguments.rounds)
    sections: dict[str, Callable[[], list[Figure]]] = {
        **{name: partial(measure_steps, name, arguments.ways, arguments.rounds, rate) for name in arguments.works},
        "fit": lambda: measure_fits(min(5, arguments.rounds), arguments.max_iter),
        "scaling": lambda: measure_scaling(min(3, arguments.rounds), most=4 if arguments.quick else 16),
        "predict": lambda: measure_predictions(arguments.rounds),
        **{f"race {name}": partial(measure_race, name, arguments.budget, min(3, arguments.rounds)) for name in races},
        **{f"size {d}": partial(measure_size, d, arguments.threads) for d in arguments.sizes},
    }
    print(machine(), table(figures), flush=True)
    several = {
        "steps": arguments.works,
        "race": [f"race {name}" for name in races],
        "size": [f"size {d}" for d in arguments.sizes],
    }
    asked = [name for one in arguments.sections for name in several.get(one, [one])]
    for name in asked:
        new = sections[name]()
        figures += new
        print(table(new), flush=True)
        (arguments.out / "speed.md").write_text(f"# Speed\n\n{machine()}\n{table(figures)}\n")
        with (arguments.out / "speed.csv").open("w", newline="") as file:
            csv.writer(file).writerows([Figure._fields, *figures])
    draw(figures, arguments.out / "speed.png")


if __name__ == "__main__":
    main()
