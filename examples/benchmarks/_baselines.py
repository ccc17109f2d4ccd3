"""What every model is compared with: forecasts and graphs that need no neural network."""

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


class Ridge(NamedTuple):
    """A linear vector field from one-step changes."""

    coefficients: np.ndarray  # (d, d), target by source, in standard units
    forecast: np.ndarray


def ridge(data: Split, strength: float = 1.0) -> Ridge:
    """Ridge regression of (x_k+1 - x_k) / h on x_k, simulated by small Euler steps from the true start."""
    x = np.concatenate([s[:-1] for s in data.states])
    slopes = np.concatenate(
        [np.diff(s, axis=0) / np.diff(t)[:, None] for s, t in zip(data.states, data.times, strict=True)]
    )
    mean, sd, unit = x.mean(axis=0), x.std(axis=0), slopes.std(axis=0)
    z, target = (x - mean) / sd, (slopes - slopes.mean(axis=0)) / unit
    b = np.linalg.solve(z.T @ z + strength * np.eye(z.shape[1]), z.T @ target)
    state, out = data.test[:, 0].copy(), [data.test[:, 0]]
    limit = 10 * np.abs(np.concatenate(data.states)).max()
    for h in np.diff(data.test_times):
        for _ in range(20):
            slope = slopes.mean(axis=0) + unit * (((state - mean) / sd) @ b)
            state = np.clip(state + h / 20 * slope, -limit, limit)
        out.append(state.copy())
    return Ridge(np.abs(b.T), np.stack(out, axis=1))


def lagged_correlation(data: Split) -> np.ndarray:
    """|correlation| of every state with the next change of every state.  # (target, source)."""
    x = np.concatenate([s[:-1] for s in data.states])
    change = np.concatenate([np.diff(s, axis=0) for s in data.states])
    d = x.shape[1]
    return np.abs(np.corrcoef(change.T, x.T)[:d, d:])
