"""The data sets of the recovery benchmark: what a method may see, what it must forecast, and the true graph."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _attractors import ATTRACTORS, sample_attractor
from _polynomial import CUBIC, POLYNOMIAL

from skode import SteadyStates
from skode.datasets import (
    SimulatedSystem,
    make_coupled_oscillators,
    make_dense_linear,
    make_hill_network,
    make_independent_decays,
    make_lorenz63,
    make_lorenz96,
    make_lotka_volterra,
)

CHAOTIC = (
    "Rossler Lorenz GenesioTesi Chua SprottB HenonHeiles HyperRossler HastingsPowell LorenzStenflo LorenzCoupled"
).split()


@dataclass(frozen=True, eq=False)
class Probes:
    """Questions far from the training data, free of noise: uniform starts, and knock-outs beside their controls.

    A knock-out holds the genes ``clamped`` at 0; its control has the same start but for those and is left alone.
    """

    times: np.ndarray  # (time,)
    unseen: np.ndarray  # (trajectory, time, d), from starts of another distribution
    knockout: np.ndarray  # (trajectory, time, d)
    control: np.ndarray  # (trajectory, time, d)
    clamped: np.ndarray  # (trajectory, d) bool


@dataclass(frozen=True, eq=False)
class BenchmarkSet:
    """One data set.

    ``states`` and ``times`` are the training trajectories; for order 2 ``velocities`` and ``test_velocities`` belong to
    them. ``groups`` says which trajectories are parts of one recording. ``test`` is free of noise, and its first
    state is given. Only rows ``targets`` of ``truth`` are compared, and the diagonal only if ``self_edges``. The
    forecast error counts times in (0, horizon]. ``degree`` is what a library of monomials is told: exact where the
    law is a polynomial.
    """

    name: str
    states: list[np.ndarray]  # (time, d) each
    times: list[np.ndarray]
    truth: np.ndarray  # (d, d), target by source
    self_edges: bool = True
    test: np.ndarray | None = None  # (trajectory, time, d)
    test_times: np.ndarray | None = None
    velocities: list[np.ndarray] | None = None
    test_velocities: np.ndarray | None = None
    inputs: np.ndarray | None = None  # (trajectory, m), constant; not part of the truth
    groups: np.ndarray | None = None  # (trajectory,)
    steady: SteadyStates | None = None
    targets: np.ndarray | None = None  # (d,)
    horizon: float = np.inf
    period: float | None = None
    order: int = 1
    degree: int = 2
    probes: Probes | None = None

    @property
    def compared(self) -> np.ndarray:
        """The entries that count.  # (target, source) bool"""
        keep = np.ones(self.truth.shape, bool) if self.self_edges else ~np.eye(len(self.truth), dtype=bool)
        return keep if self.targets is None else keep & self.targets[:, None]

    @property
    def prevalence(self) -> float:
        """Share of the compared entries that are edges: the AUPR of a coin."""
        return float(self.truth[self.compared].mean())

    def as_first_order(self) -> BenchmarkSet:
        """The same with velocities as states, for methods that know nothing of order 2."""
        if self.order == 1:
            return self
        both = [np.hstack(pair) for pair in zip(self.states, self.velocities, strict=True)]
        test = np.concatenate([self.test, self.test_velocities], axis=-1)
        return replace(self, states=both, test=test, order=1, velocities=None, test_velocities=None)


Maker = Callable[[int, Path | None], "BenchmarkSet | None"]


def _simulated(
    name: str, train: SimulatedSystem, test: SimulatedSystem | None = None, n_test: int = 10
) -> BenchmarkSet:
    """The last trajectories, or those of another simulation of the same law, are the test."""
    n_train = train.n_trajectories if test is not None else train.n_trajectories - n_test
    source, first = (train, n_train) if test is None else (test, 0)
    second = train.order == 2
    return BenchmarkSet(
        name,
        train.states[:n_train],
        train.times[:n_train],
        train.adjacency,
        train.self_edges,
        test=np.array(source.clean_states[first:]),
        test_times=source.times[first],
        velocities=train.velocities[:n_train] if second else None,
        test_velocities=np.array(source.clean_velocities[first:]) if second else None,
        order=train.order,
    )


def lorenz96(form: str, seed: int, _: Path | None) -> BenchmarkSet:
    """Ten variables: 1000 points of one series, a random half of them, or 20 x 30 points with 5 % noise."""
    name = f"lorenz96-{form}"
    if form == "short":
        data = make_lorenz96(n_trajectories=30, n_times=30, dt=0.05, noise=0.05, random_state=seed)
        return _simulated(name, data)
    irregular = 0.5 if form == "irregular" else False
    data = make_lorenz96(n_trajectories=1, n_times=1000, dt=0.05, noise=0.03, irregular=irregular, random_state=seed)
    test = make_lorenz96(n_trajectories=10, n_times=30, dt=0.05, random_state=seed + 1000)
    return _simulated(name, data, test)


def hill(combine: Any, n_train: int, spread: float, seed: int, _: Path | None) -> BenchmarkSet:
    """A fresh random network of 20 genes for every seed, 5 % noise."""
    options = {"combine": combine, "decay_spread": spread, "noise": 0.05, "random_state": seed}
    name = f"hill-{combine}-{n_train}" + ("-decade" if spread > 1 else "")
    return _simulated(name, make_hill_network(n_trajectories=n_train + 10, n_times=10, **options))


def many(combine: Any, spread: float, seed: int, _: Path | None) -> BenchmarkSet:
    """A fresh random network of 100 genes for every seed, six observations at long intervals, 10 % noise."""
    options = {"dt": 1.0, "combine": combine, "decay_spread": spread, "noise": 0.1, "random_state": seed}
    name = f"many-{combine}" + ("-decade" if spread > 1 else "")
    return _simulated(name, make_hill_network(100, 90, 6, n_edges=200, **options))


def hubs(combine: Any, seed: int, _: Path | None) -> BenchmarkSet:
    """As ``many`` with one decay rate, few genes regulating most others by Zipf's law."""
    options = {"dt": 1.0, "combine": combine, "hubs": 1.0, "noise": 0.1, "random_state": seed}
    return _simulated(f"hubs-{combine}", make_hill_network(100, 90, 6, n_edges=200, **options))


def oscillators(seed: int, _: Path | None) -> BenchmarkSet:
    """Ten oscillators joined by springs, 5 % noise."""
    return _simulated("oscillators", make_coupled_oscillators(n_trajectories=30, noise=0.05, random_state=seed))


def decays(seed: int, _: Path | None) -> BenchmarkSet:
    """Ten variables that know nothing of each other, 5 % noise: any edge but a self-edge is wrong."""
    return _simulated("decays", make_independent_decays(n_trajectories=30, noise=0.05, random_state=seed))


def dense(seed: int, _: Path | None) -> BenchmarkSet:
    """Five variables and a linear law without a zero, 2 % noise: any missing edge is wrong."""
    return _simulated("dense", make_dense_linear(n_trajectories=30, noise=0.02, random_state=seed))


def polynomial(system: str, seed: int, _: Path | None) -> BenchmarkSet:
    """Laws that are polynomials, parameters drawn for every seed, 20 x 40 points, 5 % noise."""
    data = _simulated(f"polynomial-{system}", POLYNOMIAL[system](30, 40, 0.05, seed))
    return replace(data, degree=3 if system in CUBIC else 2)


SAMPLED = {
    "lorenz96": (make_lorenz96, 30, 0.1),
    "lorenz63": (make_lorenz63, 40, 0.05),
    "lotka-volterra": (make_lotka_volterra, 40, 0.2),
    "hill": (make_hill_network, 20, 0.5),
}
"""Simulator, number of observations and time between them, where they are few."""


def sampling(system: str, often: int, seed: int, _: Path | None) -> BenchmarkSet:
    """The same 20 trajectories observed once or ten times as often, 5 % noise; forecasts of the same few times."""
    simulate, n_times, dt = SAMPLED[system]
    finest = simulate(n_trajectories=30, n_times=10 * n_times - 9, dt=dt / 10, noise=0.05, random_state=seed)
    data = _simulated(f"sampling-{often}-{system}", finest)
    assert data.test is not None and data.test_times is not None
    some = slice(None, None, 10 // often)
    return replace(
        data,
        states=[x[some] for x in data.states],
        times=[t[some] for t in data.times],
        test=data.test[:, ::10],
        test_times=data.test_times[::10],
    )


def dream4(network: int, form: str, _: int, folder: Path | None) -> BenchmarkSet | None:
    """Five series of 21 points; a perturbation of unknown targets acts until t = 500.

    Each series is two segments, for nothing may be smoothed across the jump: "series" knows no more. "inputs" marks
    the first half by a constant input of its own, as an unknown perturbation can be written. "knockouts" is that
    with the steady states of knock-outs and knock-downs, in which the gene's own equation does not hold.
    """
    path = _file(folder, f"dream4/insilico_size10_{network}.npz")
    if path is None:
        return None
    with np.load(path) as file:
        times, series = file["times"].astype(float), file["expression"].astype(float)
        rest = np.concatenate([file["knockouts"], file["knockdowns"]]).astype(float)
        genes = [str(gene) for gene in file["genes"]]
    before, after = times <= 500, times >= 500
    n, d = len(series), len(genes)
    wild_type = series[:, 0]
    steady = SteadyStates(
        np.concatenate([rest, wild_type]),
        clamped=np.concatenate([np.eye(d), np.eye(d), np.zeros((n, d))]).astype(bool),
        inputs=np.zeros((len(rest) + n, n)),
    )
    known = form != "series"
    return BenchmarkSet(
        f"dream4-{form}-{network}",
        [s[part] for s in series for part in (before, after)],
        [times[before], times[after] - 500.0] * n,
        _edges(path.with_name(f"insilico_size10_{network}_edges.csv"), genes),
        self_edges=False,
        inputs=np.stack([row for k in range(n) for row in (np.eye(n)[k], np.zeros(n))]) if known else None,
        groups=np.repeat(np.arange(n), 2),
        steady=steady if form == "knockouts" else None,
    )


def chaos(system: str, _: int, folder: Path | None) -> BenchmarkSet | None:
    """Chaotic systems, 20 irregular trajectories of 40 points over two periods, 5 % noise."""
    path = _file(folder, "chaos/chaos.npz")
    if path is None:
        return None
    with np.load(path) as file:
        part = {key.split("/")[1]: np.asarray(file[key], float) for key in file.files if key.split("/")[0] == system}
    if not part:
        return None
    period = float(part["period"])
    return BenchmarkSet(
        f"chaos-{system}",
        list(part["train_noise05"]),
        list(part["times"]),
        part["adjacency"] > 0,
        test=part["test"],
        test_times=part["test_times"],
        horizon=period * (1 + 1e-5),
        period=period,
    )


def attractor(system: str, seed: int, _: Path | None) -> BenchmarkSet:
    """A chaotic system of our own writing, sampled as those of the file."""
    found = sample_attractor(system, 0.05, seed)
    return BenchmarkSet(
        f"attractor-{system}",
        list(found.states),
        list(found.times),
        found.truth,
        test=found.test,
        test_times=found.test_times,
        horizon=found.period * (1 + 1e-5),
        period=found.period,
    )


def sim350(form: str, _: int, folder: Path | None) -> BenchmarkSet | None:
    """350 genes, 140 trajectories x 5 times; only genes that are not constant inputs are compared as targets."""
    path = _file(folder, "sim_grn/sim350.npz")
    if path is None:
        return None
    with np.load(path) as file:
        part = {key: file[key] for key in file.files}
    train, genes = part[f"train_{form}"].astype(float), [str(gene) for gene in part["genes"]]
    probes = Probes(
        part["test_extra_times"].astype(float),
        unseen=part["test_ood_ic"].astype(float),
        knockout=part["test_knockout"].astype(float),
        control=part["test_knockout_control"].astype(float),
        clamped=part["knockout_gene"][:, None] == part["genes"],
    )
    return BenchmarkSet(
        f"sim350-{form}",
        list(train),
        [part["times"].astype(float)] * len(train),
        _edges(path.with_name("sim350_true_edges.csv.gz"), genes),
        self_edges=False,
        test=part["test"].astype(float),
        test_times=part["test_times"].astype(float),
        targets=~part["is_input"],
        probes=probes,
    )


def _file(folder: Path | None, name: str) -> Path | None:
    path = None if folder is None else folder / name
    return path if path is not None and path.exists() else None


def _edges(path: Path, genes: list[str]) -> np.ndarray:
    """Read ``source,target,...`` lines into a matrix.  # (target, source)"""
    place = {gene: k for k, gene in enumerate(genes)}
    matrix = np.zeros((len(genes), len(genes)), dtype=bool)
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        for edge in csv.DictReader(file):
            matrix[place[edge["target"]], place[edge["source"]]] = True
    return matrix


SETS: dict[str, Maker] = {
    **{f"lorenz96-{form}": partial(lorenz96, form) for form in ("long", "irregular", "short")},
    **{
        f"hill-{combine}-{n}{'-decade' if spread > 1 else ''}": partial(hill, combine, n, spread)
        for combine in ("sum", "product")
        for n in (30, 15)
        for spread in (1.0, 10.0)
    },
    **{
        f"many-{combine}{'-decade' if spread > 1 else ''}": partial(many, combine, spread)
        for combine in ("sum", "product")
        for spread in (1.0, 10.0)
    },
    **{f"hubs-{combine}": partial(hubs, combine) for combine in ("sum", "product")},
    "oscillators": oscillators,
    "decays": decays,
    "dense": dense,
    **{f"polynomial-{system}": partial(polynomial, system) for system in POLYNOMIAL},
    **{f"sampling-{often}-{system}": partial(sampling, system, often) for often in (1, 10) for system in SAMPLED},
    **{f"dream4-{form}-{k}": partial(dream4, k, form) for form in ("series", "inputs", "knockouts") for k in (1, 2, 3)},
    **{f"chaos-{system}": partial(chaos, system) for system in CHAOTIC},
    **{f"attractor-{system}": partial(attractor, system) for system in ATTRACTORS},
    **{f"sim350-{form}": partial(sim350, form) for form in ("clean", "noise05")},
}
"""Name -> function of a seed and of the folder of sets that do not ship, which gives None where the set is absent."""

FAMILIES = (
    *("polynomial", "sampling-10", "sampling-1", "chaos", "attractor"),
    *("dream4-series", "dream4-inputs", "dream4-knockouts"),
)
"""Sets whose names begin so are also averaged."""


def family_of(name: str) -> str:
    """The family of a set: the beginning that it shares with its like."""
    return next((family for family in FAMILIES if name.startswith(family)), name.split("-")[0])
