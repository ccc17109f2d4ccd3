"""What every model is compared with: forecasts that know no dynamics."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from skode.datasets import SimulatedSystem


class Split(NamedTuple):
    """Noisy trajectories to train on, clean ones to forecast."""

    system: SimulatedSystem
    states: list[np.ndarray]
    times: list[np.ndarray]
    test: np.ndarray  # (trajectory, time, d), clean
    test_times: np.ndarray  # (time,)


def split(system: SimulatedSystem, n_train: int) -> Split:
    """Train on the first trajectories as observed, test on the rest without noise."""
    return Split(
        system,
        system.states[:n_train],
        system.times[:n_train],
        np.array(system.clean_states[n_train:]),
        system.times[n_train],
    )


def nrmse(data: Split, forecast: np.ndarray, share: float = 1.0) -> float:
    """Error of the first share of a forecast, its start left out, in standard deviations of the clean test states."""
    sd = data.test.reshape(-1, data.test.shape[-1]).std(axis=0)
    error = ((forecast - data.test) / sd)[:, 1 : 1 + round(share * (data.test.shape[1] - 1))]
    return float(np.sqrt((error**2).mean()))


def persistence(data: Split) -> np.ndarray:
    """Every state stays where it starts."""
    return np.repeat(data.test[:, :1], data.test.shape[1], axis=1)


def training_mean(data: Split) -> np.ndarray:
    """The mean of all training observations."""
    return np.broadcast_to(np.nanmean(np.concatenate(data.states), axis=0), data.test.shape)


def mean_trajectory(data: Split) -> np.ndarray:
    """The mean training trajectory, smoothed in time by a Gaussian of a tenth of the span."""
    t, x = np.concatenate(data.times), np.concatenate(data.states)
    width = 0.1 * (data.test_times[-1] - data.test_times[0])
    kernel = np.exp(-0.5 * ((data.test_times[:, None] - t) / width) ** 2)
    return np.broadcast_to(kernel @ x / kernel.sum(axis=1, keepdims=True), data.test.shape)


def start_or_mean(data: Split) -> np.ndarray:
    """Variables that training states tell from their starts better than from their mean stay; the rest take the mean.

    The mean is that of the smoothed trajectories; what stays are inputs in the first place.
    """
    x = np.concatenate(data.states)
    starts = np.concatenate([np.repeat(s[:1], len(s), axis=0) for s in data.states])
    stays = ((x - starts) ** 2).mean(axis=0) < x.var(axis=0)
    return np.where(stays, persistence(data), mean_trajectory(data))
