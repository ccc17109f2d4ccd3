"""Preprocessing, baselines and errors for the blood-formation data, in plain numpy.

Published preprocessing (arXiv 2210.14672): inside every lineage drop the first 10 and the last 20 cells, and
scale time and every gene to [0, 1]. Doing so on a test donor looks at its future. So every test donor is also
scaled by the training donor, and then gives away nothing but its first five cells.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from skode.datasets import load_hematopoiesis

Array = NDArray[np.float64]
FIRST, LAST, START = 10, 20, 5
BANDWIDTH = 0.1
N_BINS = 20


@dataclass(frozen=True)
class Scale:
    """Where 0 and 1 are: of every gene, and of time."""

    low: Array  # (gene,)
    width: Array  # (gene,), 0 where a gene is silent
    span: float

    def apply(self, cells: Array, times: Array, begin: float) -> tuple[Array, Array]:
        """Scale cells and times; a gene without a width becomes 0, the time of the first cell 0."""
        scaled = (cells - self.low) / np.where(self.width > 0, self.width, 1.0) * (self.width > 0)
        return scaled, (times - begin) / self.span


@dataclass(frozen=True)
class Lineage:
    """Scaled cells of one lineage of one donor in order of pseudotime."""

    name: str
    times: Array  # (cell,), from 0
    cells: Array  # (cell, gene)
    scale: Scale

    @property
    def start(self) -> Array:
        """Mean of the first five cells, the only thing a forecast may see."""
        return self.cells[:START].mean(axis=0)

    def smooth(self, at: Array) -> Array:
        """Gaussian kernel mean of the cells."""
        kernel = np.exp(-0.5 * ((np.asarray(at)[:, None] - self.times) / BANDWIDTH) ** 2)
        return kernel @ self.cells / kernel.sum(axis=1, keepdims=True)

    def bins(self, n_bins: int = N_BINS) -> tuple[Array, Array]:
        """Means of equally many successive cells: times (bin,), states (bin, gene)."""
        return binned(self.times, n_bins), binned(self.cells, n_bins)


def binned(values: Array, n_bins: int = N_BINS) -> Array:
    """Means of equally many successive rows."""
    return np.array([part.mean(axis=0) for part in np.array_split(values, n_bins)])


def load_lineages(donor: str, scales: list[Scale] | None = None) -> list[Lineage]:
    """Trim and scale a donor, by its own extremes (published) or by given scales (clean)."""
    data = load_hematopoiesis(donor)
    states, times, _ = data.trajectories()
    lineages = []
    for k, name in enumerate(data.lineages):
        cells, clock = states[k][FIRST:-LAST], times[k][FIRST:-LAST]
        own = Scale(cells.min(axis=0), np.ptp(cells, axis=0), float(np.ptp(clock)))
        scale = own if scales is None else scales[k]
        cells, clock = scale.apply(cells, clock, float(clock[0]))
        lineages.append(Lineage(name, clock, cells, scale))
    return lineages


def cell_error(lineages: list[Lineage], forecasts: list[Array]) -> float:
    """Mean squared error over the cells and genes, summed over lineages."""
    return float(sum(np.mean((k.cells - f) ** 2) for k, f in zip(lineages, forecasts, strict=True)))


def smooth_error(lineages: list[Lineage], forecasts: list[Array]) -> float:
    """The same against the donor's own smooth, in which the noise of single cells is averaged away."""
    return float(sum(np.mean((k.smooth(k.times) - f) ** 2) for k, f in zip(lineages, forecasts, strict=True)))


def bin_error(lineages: list[Lineage], forecasts: list[Array]) -> float:
    """The same against the donor's own means in 20 bins of equally many cells."""
    parts = zip(lineages, forecasts, strict=True)
    return float(sum(np.mean((binned(k.cells) - binned(f)) ** 2) for k, f in parts))


def clock_ratio(lineages: list[Lineage]) -> float:
    """How much faster or slower the clock of another donor may run: the ratio of the spans of lineages."""
    spans = [lineage.scale.span for lineage in lineages]
    return max(spans) / min(spans)


def resampled(lineages: list[Lineage], n_copies: int, seed: int = 0) -> Iterator[tuple[Array, Array, int]]:
    """Draw trajectories as another donor might give them: times, states, lineage.

    Every copy starts from the mean of five random cells of the first tenth of time, at time 0, and goes on with
    the means of resampled cells in 20 bins. Starts differ and futures agree, so a model learns how little the
    noise of five cells tells. Every copy has a clock of its own, for a unit of pseudotime is not as much progress in
    another donor: its speed, relative to that of the training donor, is log-uniform from 1 / r to r (``clock_ratio``).
    What a model learns is the mean over clocks.
    """
    rng = np.random.default_rng(seed)
    ratio = clock_ratio(lineages)
    for number, lineage in enumerate(lineages):
        early = np.flatnonzero(lineage.times <= 0.1)
        for _ in range(n_copies):
            start = lineage.cells[rng.choice(early, START, replace=False)].mean(axis=0)
            clock = lineage.times * ratio ** rng.uniform(-1.0, 1.0)
            parts = np.array_split(np.arange(len(clock)), N_BINS)
            drawn = np.concatenate([rng.choice(part, len(part)) for part in parts])
            times, states = binned(clock[drawn]), binned(lineage.cells[drawn])
            yield np.append(0.0, times), np.vstack([start, states]), number


def ridge_forecasts(train: list[Lineage], test: list[Lineage], penalty: float = 1.0) -> list[Array]:
    """Ridge on one-step changes of the smoothed training trajectories, iterated from the test donor's start."""
    grid = np.linspace(0, 1, N_BINS + 1)
    flags = np.eye(len(train))
    paths = [lineage.smooth(grid) for lineage in train]
    before = np.vstack([np.column_stack([p[:-1], np.tile(u, (N_BINS, 1))]) for p, u in zip(paths, flags, strict=True)])
    model = Ridge(alpha=penalty).fit(before, np.vstack([np.diff(path, axis=0) for path in paths]))
    forecasts = []
    for lineage, flag in zip(test, flags, strict=True):
        path = [lineage.start]
        for _ in range(int(np.ceil(lineage.times[-1] * N_BINS))):
            path.append(path[-1] + model.predict(np.append(path[-1], flag)[None])[0])
        place = lineage.times * N_BINS
        cell = np.minimum(place.astype(int), len(path) - 2)
        share = (place - cell)[:, None]
        forecasts.append((1 - share) * np.array(path)[cell] + share * np.array(path)[cell + 1])
    return forecasts


def mean_over_clocks(train: list[Lineage], test: list[Lineage], n_clocks: int = 41) -> list[Array]:
    """The smooth training trajectory, averaged over the clocks of ``resampled``: what they give without a model."""
    ratio, places = clock_ratio(train), (np.arange(n_clocks) + 0.5) / n_clocks * 2 - 1
    return [
        np.mean([a.smooth(np.minimum(b.times * ratio**place, a.times[-1])) for place in places], axis=0)
        for a, b in zip(train, test, strict=True)
    ]


def trivial_forecasts(train: list[Lineage], test: list[Lineage]) -> dict[str, list[Array]]:
    """Forecasts that need no dynamics, each a list of (cell, gene) per lineage."""
    pairs = list(zip(train, test, strict=True))
    return {
        "zeros": [np.zeros_like(b.cells) for _, b in pairs],
        "persistence (the start stays)": [np.tile(b.start, (len(b.times), 1)) for _, b in pairs],
        "constant (training lineage mean)": [np.tile(a.cells.mean(axis=0), (len(b.times), 1)) for a, b in pairs],
        "smooth (training trajectory)": [a.smooth(np.minimum(b.times, a.times[-1])) for a, b in pairs],
        "smooth, mean over clocks": mean_over_clocks(train, test),
        "ridge on one-step changes": ridge_forecasts(train, test),
    }
