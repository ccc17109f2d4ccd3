"""Units of training data: means, standard deviations, and the time between observations."""

from __future__ import annotations

import numpy as np

from skode._scales import Scales
from skode._trajectories import Trajectories
from skode._typing import BoolArray, FloatArray


def find_scales(
    trajectories: Trajectories,
    knots: list[FloatArray],
    paths: list[FloatArray],
    slopes: list[FloatArray],
    weights: list[FloatArray],
    moves: BoolArray,
) -> Scales:
    """Units in which states, velocities, inputs, clock and slopes are of order one."""
    d = trajectories.states.shape[1]
    gaps = np.concatenate([np.diff(k) for k in knots]) if any(len(k) > 1 for k in knots) else np.ones(1)
    time_unit = float(np.median(gaps))
    everything = np.concatenate(paths)
    w = np.concatenate(weights)
    mean, sd = _moments(everything[:, :d], w)
    velocity_sd = None
    if everything.shape[1] > d:
        speed = np.sqrt(np.average(everything[:, d:] ** 2, weights=w, axis=0))
        velocity_sd = np.where(speed > 0, speed, 1.0)
    rms = np.sqrt(np.average(np.concatenate(slopes) ** 2, weights=w, axis=0))
    unit = sd if velocity_sd is None else velocity_sd
    rate = np.where(moves, rms * time_unit / unit, 0.0)
    per_trajectory = np.array([weight.sum(axis=0).mean() for weight in weights])
    if trajectories.inputs.shape[1]:
        input_mean, input_sd = _moments(
            trajectories.inputs, np.repeat(per_trajectory[:, None], trajectories.inputs.shape[1], axis=1)
        )
    else:
        input_mean, input_sd = np.zeros(0), np.ones(0)
    clock = np.concatenate([o + k for o, k in zip(trajectories.origin, knots, strict=True)])[:, None]
    clock_mean, clock_sd = _moments(clock, w.mean(axis=1, keepdims=True))
    low, high = everything.min(axis=0), everything.max(axis=0)
    low[:d] = np.minimum(low[:d], trajectories.initial.min(axis=0))  # what is given may be asked again
    high[:d] = np.maximum(high[:d], trajectories.initial.max(axis=0))
    shift, scale = (mean, sd) if velocity_sd is None else (np.r_[mean, np.zeros(d)], np.r_[sd, velocity_sd])
    return Scales(
        time_unit=time_unit,
        state_mean=mean,
        state_sd=sd,
        velocity_sd=velocity_sd,
        input_mean=input_mean,
        input_sd=input_sd,
        clock_mean=float(clock_mean[0]),
        clock_sd=float(clock_sd[0]),
        rate=rate,
        low=(low - shift) / scale,
        high=(high - shift) / scale,
    )


def _moments(values: FloatArray, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Weighted mean and standard deviation per column; an sd that is rounding error becomes 1."""
    mean = np.average(values, weights=weights, axis=0)
    sd = np.sqrt(np.average((values - mean) ** 2, weights=weights, axis=0))
    floor = 1e-12 * np.maximum(np.abs(values).max(axis=0), np.finfo(np.float64).tiny)
    return mean, np.where(sd > floor, sd, 1.0)
