"""Runs timed in turn, and what is kept of them: one figure per median."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

PATIENCE = 30.0
"""Seconds after which a run is not repeated."""
IN_A_ROW = 0.2
"""Seconds for which steps of training are repeated before others have their turn."""


class Figure(NamedTuple):
    """One measured number: the median of some runs, and the smallest and largest of them."""

    section: str
    what: str
    unit: str
    median: float
    low: float
    high: float
    note: str = ""


def figure_of(section: str, what: str, unit: str, values: list[float], note: str = "") -> Figure:
    """Median and range."""
    return Figure(section, what, unit, float(np.median(values)), min(values), max(values), note)


def seconds(run: Callable[[], object], least: float = 0.0) -> float:
    """Wall clock of one call, on average over as many as take ``least`` seconds together."""
    began, n = time.perf_counter(), 0
    while not n or time.perf_counter() - began < least:
        run()
        n += 1
    return (time.perf_counter() - began) / n


def alternate(runs: dict[str, Callable[[], object]], rounds: int, least: float = 0.0) -> dict[str, list[float]]:
    """Time all runs in turn, round after round, so that a busy moment hits all of them.

    With ``least`` every run is repeated for so many seconds before the next has its turn, as steps of training follow
    each other: the first after another run finds nothing in the caches.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            if sum(times[name]) < PATIENCE:
                times[name].append(seconds(run, least))
    return times
