"""Systems under inputs that change: fit noisy records, simulate new ones from their start and inputs alone.

    python examples/benchmarks/driven.py [--seeds 3] [--noise 0.05] [--holds 1 3 10]

Two records of 300 observations with noise (a share of each variable's standard deviation), every input held for so many
observations at a time, then drawn anew. Every change makes a segment of its own, so with one observation at a time
every trajectory that `fit` sees is one interval long. Four clean records of 200 observations are simulated. Prints one
table: for every model the median over seeds of the root mean square error, in standard deviations of the test states,
smallest and largest; F1 of the graph over states and inputs, self-edges among them, at the method's own threshold; and
seconds. Beside the models stand forecasts that know no dynamics, and the linear map from state and input to the next
state by least squares. `pysindy` is run where it is installed, with its defaults.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.integrate import solve_ivp

from skode import SparseNODERegressor, SparseNODERegressorCV, from_trajectories

N_TRAIN, N_TEST, LENGTH, TEST_LENGTH = 2, 4, 300, 200


@dataclass(frozen=True)
class Plant:
    """A law dx/dt = slope(x, u), the range of its inputs, and its edges."""

    slope: Callable[[np.ndarray, np.ndarray], list[float]]
    edges: list[list[int]]  # target by source: states, then inputs
    low: float
    high: float
    step: float

    @property
    def n_states(self) -> int:
        """D."""
        return len(self.edges)

    @property
    def n_inputs(self) -> int:
        """M."""
        return len(self.edges[0]) - len(self.edges)


def tanks(x: np.ndarray, u: np.ndarray) -> list[float]:
    """Three tanks in a row that drain by the root of their level; one pump."""
    flow = np.array([0.9, 0.7, 0.8]) * np.sqrt(np.maximum(x, 1e-9))
    return [u[0] - flow[0], flow[0] - flow[1], flow[1] - flow[2]]


def spring(x: np.ndarray, u: np.ndarray) -> list[float]:
    """A hardening spring with friction; a force."""
    return [x[1], u[0] - x[0] - 0.3 * x[0] ** 3 - 0.4 * x[1]]


def reactor(x: np.ndarray, u: np.ndarray) -> list[float]:
    """A + B -> C, all three washed out; feeds of A and B."""
    rate = 1.2 * x[0] * x[1]
    return [u[0] - 0.5 * x[0] - rate, u[1] - 0.4 * x[1] - rate, rate - 0.6 * x[2]]


def valve(x: np.ndarray, u: np.ndarray) -> list[float]:
    """A steady inflow, and a second tank behind a valve: the input multiplies a state."""
    return [1 - u[0] * x[0], u[0] * x[0] - 0.7 * x[1]]


def genes(x: np.ndarray, u: np.ndarray) -> list[float]:
    """A cascade of Hill functions; an inducer that saturates."""
    return [
        u[0] ** 3 / (0.5 + u[0] ** 3) - 0.6 * x[0],
        2 * x[0] ** 2 / (1 + x[0] ** 2) - 0.8 * x[1],
        1 / (1 + x[1] ** 2) - 0.5 * x[2],
    ]


PLANTS = {
    "tanks": Plant(tanks, [[1, 0, 0, 1], [1, 1, 0, 0], [0, 1, 1, 0]], 0.3, 1.5, 0.5),
    "spring": Plant(spring, [[0, 1, 0], [1, 1, 1]], -1.5, 1.5, 0.25),
    "reactor": Plant(reactor, [[1, 1, 0, 1, 0], [1, 1, 0, 0, 1], [1, 1, 1, 0, 0]], 0.0, 2.0, 0.4),
    "valve": Plant(valve, [[1, 0, 1], [1, 1, 1]], 0.2, 2.0, 0.25),
    "genes": Plant(genes, [[1, 0, 0, 1], [1, 1, 0, 0], [0, 1, 1, 0]], 0.0, 2.0, 0.4),
}


class Records(NamedTuple):
    """Training records with noise, clean test records."""

    states: np.ndarray  # (record, time, d)
    inputs: np.ndarray  # (record, time, m)
    test: np.ndarray
    test_inputs: np.ndarray


class Found(NamedTuple):
    """What a method says of one set of records."""

    forecast: np.ndarray
    edges: np.ndarray | None = None  # (d, d + m) bool


def record(plant: Plant, length: int, hold: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """States and inputs, each input held until the next observation."""
    drawn = rng.uniform(plant.low, plant.high, (-(-length // hold), plant.n_inputs))
    inputs = np.repeat(drawn, hold, axis=0)[:length]
    states = [rng.uniform(0.3, 1.2, plant.n_states)]
    for u in inputs[:-1]:
        solved = solve_ivp(lambda _, x, u=u: plant.slope(x, u), (0, plant.step), states[-1], rtol=1e-8, atol=1e-9)
        states.append(solved.y[:, -1])
    return np.array(states), inputs


def records(plant: Plant, hold: int, noise: float, seed: int) -> Records:
    """Records that differ with the seed."""
    rng = np.random.default_rng(seed)
    states, inputs = map(np.stack, zip(*[record(plant, LENGTH, hold, rng) for _ in range(N_TRAIN)], strict=True))
    test, test_inputs = map(np.stack, zip(*[record(plant, TEST_LENGTH, hold, rng) for _ in range(N_TEST)], strict=True))
    noisy = states + noise * states.std(axis=(0, 1)) * rng.standard_normal(states.shape)
    return Records(noisy, inputs, test, test_inputs)


def skode(model: type[SparseNODERegressor | SparseNODERegressorCV], data: Records, step: float, seed: int) -> Found:
    """An estimator with default settings."""
    times = np.arange(LENGTH) * step
    X, y, groups = from_trajectories(data.states, times, inputs=data.inputs)
    fitted = model(random_state=seed).fit(X, y, groups=groups)
    forecast = fitted.simulate(data.test[:, 0], np.arange(TEST_LENGTH) * step, inputs=data.test_inputs)
    return Found(forecast, fitted.dependency_matrix_ > 0)


def linear(data: Records, step: float, seed: int) -> Found:
    """The next state as an affine function of state and input, by least squares."""
    both = np.concatenate([data.states, data.inputs, np.ones((*data.states.shape[:2], 1))], axis=2)
    line = np.linalg.lstsq(both[:, :-1].reshape(-1, both.shape[2]), np.concatenate(data.states[:, 1:]), rcond=None)[0]
    walk = [data.test[:, 0]]
    for k in range(TEST_LENGTH - 1):
        walk.append(np.column_stack([walk[-1], data.test_inputs[:, k], np.ones(N_TEST)]) @ line)
    return Found(np.stack(walk, axis=1))


def pysindy(data: Records, step: float, seed: int) -> Found:
    """Sparse regression on polynomials of states and inputs, and its law by Runge-Kutta, held near the data."""
    from pysindy import SINDy

    model = SINDy().fit(list(data.states), t=step, u=list(data.inputs))
    d, limit = data.states.shape[2], 10 * np.abs(data.states).max(axis=(0, 1))
    walk, n_sub = [data.test[:, 0]], 4
    for k in range(TEST_LENGTH - 1):
        x, u, h = walk[-1], data.test_inputs[:, k], step / n_sub
        for _ in range(n_sub):
            k1 = np.asarray(model.predict(x, u=u))
            k2 = np.asarray(model.predict(x + h / 2 * k1, u=u))
            k3 = np.asarray(model.predict(x + h / 2 * k2, u=u))
            k4 = np.asarray(model.predict(x + h * k3, u=u))
            x = np.clip(np.nan_to_num(x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)), -limit, limit)
        walk.append(x)
    powers = np.asarray(model.feature_library.powers_)  # (term, variable)
    edges = (np.abs(model.coefficients()) > 0).astype(int) @ (powers > 0).astype(int) > 0
    return Found(np.stack(walk, axis=1), edges[:d])


def persistence(data: Records, step: float, seed: int) -> Found:
    """Every state stays where it starts."""
    return Found(np.repeat(data.test[:, :1], TEST_LENGTH, axis=1))


def training_mean(data: Records, step: float, seed: int) -> Found:
    """The mean of all training observations."""
    return Found(np.broadcast_to(data.states.mean(axis=(0, 1)), data.test.shape))


METHODS: dict[str, Callable[[Records, float, int], Found]] = {
    "skode": lambda *given: skode(SparseNODERegressor, *given),
    "skode-cv": lambda *given: skode(SparseNODERegressorCV, *given),
    "pysindy": pysindy,
    "linear": linear,
    "persistence": persistence,
    "training-mean": training_mean,
}


def judged(found: Found, data: Records, plant: Plant) -> tuple[float, float]:
    """Error of the forecast without its start, and F1."""
    error = ((found.forecast - data.test)[:, 1:] / data.test.std(axis=(0, 1))) ** 2
    if found.edges is None:
        return float(np.sqrt(error.mean())), np.nan
    true = np.array(plant.edges, dtype=bool)
    return float(np.sqrt(error.mean())), 2 * (true & found.edges).sum() / (true.sum() + found.edges.sum())


def main() -> None:
    """Fit, simulate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--noise", type=float, default=0.05)
    parser.add_argument("--holds", type=int, nargs="+", default=[1, 3, 10])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    methods = {name: run for name, run in METHODS.items() if name != "pysindy" or importlib.util.find_spec("pysindy")}
    print(f"noise {arguments.noise:g}, {arguments.seeds} seeds; medians, and smallest to largest\n")
    print("| system | input held for | method | NRMSE | over seeds | F1 | over seeds | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for system, plant in PLANTS.items():
        for hold in arguments.holds:
            for name, method in methods.items():
                rows = []
                for seed in range(arguments.seeds):
                    data, began = records(plant, hold, arguments.noise, seed), time.perf_counter()
                    found = method(data, plant.step, seed)
                    rows.append((*judged(found, data, plant), time.perf_counter() - began))
                (error, f1, seconds), low, high = np.median(rows, axis=0), np.min(rows, axis=0), np.max(rows, axis=0)
                graph = "- | -" if np.isnan(f1) else f"{f1:.2f} | {low[1]:.2f} to {high[1]:.2f}"
                spread = f"{low[0]:.3f} to {high[0]:.3f}"
                print(f"| {system} | {hold} | {name} | {error:.3f} | {spread} | {graph} | {seconds:.2g} |", flush=True)


if __name__ == "__main__":
    main()
