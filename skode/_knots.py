"""Rows of a trajectory at its knots: the times that differ, the given start among them."""

from __future__ import annotations

import numpy as np

from skode._trajectories import Trajectories
from skode._typing import FloatArray, IntArray


def _rows(trajectories: Trajectories, k: int) -> slice:
    bounds = trajectories.bounds
    return slice(int(bounds[k]), int(bounds[k + 1]))


def with_start(trajectories: Trajectories, k: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Times, states and weights of one trajectory, its given start added where no row holds it."""
    rows = _rows(trajectories, k)
    times, states = trajectories.times[rows], trajectories.states[rows]
    weights = trajectories.weights[rows]
    anchor = trajectories.anchor[rows]
    states = np.where(anchor[:, None] & np.isnan(states), trajectories.initial[k], states)
    if not bool(np.any(anchor)):
        weight = np.array([weights.mean()])
        times = np.concatenate([np.zeros(1), times])
        states = np.concatenate([trajectories.initial[k][None], states])
        weights = np.concatenate([weight, weights])
        ordering = np.argsort(times, kind="stable")
        times, states, weights = times[ordering], states[ordering], weights[ordering]
    return times, states, weights


def nearest_knot(times: FloatArray, knots: FloatArray) -> IntArray:
    """Place of the knot nearest to every time, the earlier of two; knots rise.  # (time,)"""
    return np.searchsorted(0.5 * (knots[1:] + knots[:-1]), times).astype(np.int64)


def knot_weights(raw: list[tuple[FloatArray, FloatArray, FloatArray]], knots: list[FloatArray]) -> list[FloatArray]:
    """Observation weight at every knot and variable; a missing value counts as a tenth of an observation."""
    out = []
    for (times, states, weights), at in zip(raw, knots, strict=True):
        nearest = nearest_knot(times, at)
        total = np.zeros((len(at), states.shape[1]))
        np.add.at(total, nearest, weights[:, None] * np.where(np.isnan(states), 0.1, 1.0))
        out.append(total)
    return out


def observations(trajectories: Trajectories, k: int, knots: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Weighted mean observation and total weight at every knot; anchors are not observations."""
    rows = _rows(trajectories, k)
    keep = ~trajectories.anchor[rows]
    times, states = trajectories.times[rows][keep], trajectories.states[rows][keep]
    weights = trajectories.weights[rows][keep][:, None] * ~np.isnan(states)
    nearest = nearest_knot(times, knots)
    total = np.zeros((len(knots), states.shape[1]))
    mean = np.zeros_like(total)
    np.add.at(total, nearest, weights)
    np.add.at(mean, nearest, weights * np.nan_to_num(states))
    with np.errstate(invalid="ignore"):
        return np.where(total > 0, mean / np.where(total > 0, total, 1.0), np.nan), total
