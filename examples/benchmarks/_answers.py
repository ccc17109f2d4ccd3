"""What a method answers, and forecasts from a vector field: from test starts, unseen starts, and under knock-outs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from _sets import BenchmarkSet


class Answer(NamedTuple):
    """What a method says; None where it has no say."""

    scores: np.ndarray | None = None  # (d, d) dense ranking, target by source
    matrix: np.ndarray | None = None  # (d, d) zero where it sees no edge
    forecast: np.ndarray | None = None  # (trajectory, time, d)
    unseen: np.ndarray | None = None  # (trajectory, time, d), forecast of the starts of the probes
    effect: np.ndarray | None = None  # (trajectory, time, d), knock-outs minus controls
    confidence: np.ndarray | None = None  # (d, d) how sure an edge is, in [0, 1]


Method = Callable[[BenchmarkSet, int], Answer]
Field = Callable[[np.ndarray], np.ndarray]
Simulator = Callable[[np.ndarray, np.ndarray, "np.ndarray | None"], np.ndarray]
"""Starts (trajectory, s), times and the states held at 0 (trajectory, s), or None, give (trajectory, time, s)."""


def with_forecasts(answer: Answer, data: BenchmarkSet, simulator: Simulator) -> Answer:
    """Add every forecast that the set asks for. Sets with inputs along training trajectories have no test."""
    if data.test is None or data.inputs is not None:
        return answer
    d, probes = len(data.truth), data.probes
    start = data.test[:, 0]
    start = start if data.order == 1 else np.hstack([start, data.test_velocities[:, 0]])
    answer = answer._replace(forecast=simulator(start, data.test_times, None)[..., :d])
    if probes is None:
        return answer
    knocked = simulator(probes.knockout[:, 0], probes.times, probes.clamped)
    control = simulator(probes.control[:, 0], probes.times, np.zeros_like(probes.clamped))
    unseen = simulator(probes.unseen[:, 0], probes.times, None)
    return answer._replace(unseen=unseen, effect=knocked - control)


def runge_kutta(field: Field, data: BenchmarkSet, n_sub: int = 10) -> Simulator:
    """Simulate a field of first order by RK4, held inside ten times the training range."""
    limit = 10 * np.abs(np.concatenate(data.as_first_order().states)).max(0)

    def simulator(start: np.ndarray, times: np.ndarray, clamped: np.ndarray | None) -> np.ndarray:
        held = np.zeros(start.shape, bool) if clamped is None else clamped

        def slope(x: np.ndarray) -> np.ndarray:
            return np.where(held, 0.0, field(x))

        x = np.where(held, 0.0, start)
        out = [x]
        for interval in np.diff(times):
            h = interval / n_sub
            for _ in range(n_sub):
                k1 = slope(x)
                k2 = slope(x + h / 2 * k1)
                k3 = slope(x + h / 2 * k2)
                k4 = slope(x + h * k3)
                x = np.clip(np.nan_to_num(x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)), -limit, limit)
            out.append(x)
        return np.stack(out, axis=1)

    return simulator


def fold(scores: np.ndarray, d: int) -> np.ndarray:
    """Score of variables from that of positions and velocities, where there are both; rows are accelerations."""
    if len(scores) == d:
        return scores
    return np.hypot(scores[d:, :d], scores[d:, d:])
