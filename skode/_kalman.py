"""Noise told from the field's own error, and a Kalman filter and smoother per variable that follows a field."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from skode._bridge import error_growth
from skode._typing import BoolArray, FloatArray, IntArray

SIGNIFICANT = 3.0
"""Standard errors by which neighbouring residuals must disagree before any state is pulled."""
UNKNOWN = 1e6
"""Variance, in standard units, of a state that was not observed at the start."""
TINY = 1e-12

Forecast: TypeAlias = Callable[[FloatArray, FloatArray], FloatArray]
"""From starts (row, source) over lengths (row,) to the states of what moves, (row, moving)."""

FARTHEST = 10.0
"""Standard units at which forecasts are held: a field that blows up must not make states infinite."""
LEAST_PROCESS = 1e-6
"""Least share of a residual's variance that is left to the field's errors; keeps the gain defined."""


class Panel(NamedTuple):
    """Trajectories by place in time, the longest first: those with a k-th knot are the first n_k."""

    order: IntArray  # (trajectory,) number of every row
    lengths: list[FloatArray]  # over intervals k: (n_k+1,)
    states: list[FloatArray]  # over knots k: (n_k, d); nan is missing
    filled: list[FloatArray]  # over knots k: (n_k, d), missing states bridged
    inputs: FloatArray  # (trajectory, m), by row

    @classmethod
    def build(
        cls,
        times: Sequence[FloatArray],
        states: Sequence[FloatArray],
        filled: Sequence[FloatArray],
        inputs: FloatArray,
    ) -> Panel:
        """Sort trajectories by length and stack their k-th knots."""
        size = np.array([len(t) for t in times])
        order = np.argsort(-size, kind="stable")
        n_knots = int(size.max())
        alive = [order[: int((size > k).sum())] for k in range(n_knots)]
        lengths = [np.array([times[b][k + 1] - times[b][k] for b in alive[k + 1]]) for k in range(n_knots - 1)]
        seen = [np.stack([states[b][k] for b in alive[k]]) for k in range(n_knots)]
        whole = [np.stack([filled[b][k] for b in alive[k]]) for k in range(n_knots)]
        return cls(order, lengths, seen, whole, inputs[order])

    def sources(self, states: FloatArray) -> FloatArray:  # (n, d)
        """States of the first n rows with their inputs, (n, source)."""
        return np.concatenate([states, self.inputs[: len(states)]], axis=1)

    def scatter(self, states: Sequence[FloatArray]) -> list[FloatArray]:
        """Undo the stacking: one array (knot_k, d) per trajectory."""
        out = [np.stack([x[row] for x in states if row < len(x)]) for row in range(len(self.order))]
        back = np.argsort(self.order)
        return [out[row] for row in back]


class Noise(NamedTuple):
    """Variances of what moves, (moving,), in squared standard units."""

    observation: FloatArray  # of one observation
    process: FloatArray  # of the field's error, per unit of decay-weighted time


def residuals(panel: Panel, forecast: Forecast, moves: BoolArray) -> list[FloatArray]:
    """Errors of forecasts over one interval from the observations themselves; nan where either end is missing.

    Returns
    -------
    list over intervals of arrays (n_k+1, moving)
    """
    sizes = [len(h) for h in panel.lengths]
    starts = [panel.sources(x[:n]) for x, n in zip(panel.filled[:-1], sizes, strict=True)]
    found = _held(forecast(np.concatenate(starts), np.concatenate(panel.lengths)))
    seen = ~np.isnan(np.concatenate([x[:n] for x, n in zip(panel.states[:-1], sizes, strict=True)])[:, moves])
    errors = np.where(seen, np.concatenate(panel.states[1:])[:, moves] - found, np.nan)
    return np.split(errors, np.cumsum(sizes)[:-1])


def estimate_noise(panel: Panel, errors: Sequence[FloatArray], gamma: float) -> FloatArray:
    r"""Tell observation noise from the field's own error, by the covariance of neighbouring residuals.

    An observation's noise n enters the residual before it with its own sign and the one after it as
    :math:`-e^{-\gamma h} n`; errors of the field do not come back:

    .. math:: \sigma^2 = \max\Big(0, -\frac{\sum e_k e_{k+1}}{\sum e^{-\gamma h_{k+1}}}\Big),

    sums over trajectories and pairs of neighbouring intervals.

    They are told apart only if the covariance of all variables together lies below zero by three standard errors over
    trajectories and intervals; else the observations are taken to be exact.

    Parameters
    ----------
    panel : Panel
    errors : list over intervals of arrays (n_k+1, moving)
        nan is missing.
    gamma : float

    Returns
    -------
    array (moving,)
        Variance of one observation.
    """
    n = errors[0].shape[1] if errors else 0
    product, share = np.zeros((2, n))
    scale = np.sqrt(np.nanmean(np.concatenate(errors) ** 2, axis=0)) if errors else np.ones(n)
    scale = np.where(scale > 0, scale, 1.0)
    together = []
    for before, after, h in zip(errors[:-1], errors[1:], panel.lengths[1:], strict=True):
        both = before[: len(after)] * after
        seen = ~np.isnan(both)
        both = np.where(seen, both, 0.0)
        product += both.sum(axis=0)
        share += (np.exp(-gamma * h)[:, None] * seen).sum(axis=0)
        together.append((both / scale**2).mean(axis=1))
    sample = np.concatenate(together) if together else np.zeros(0)
    if len(sample) < 2 or sample.mean() > -SIGNIFICANT * sample.std(ddof=1) / len(sample) ** 0.5:
        return np.zeros(n)
    return np.asarray(np.maximum(-product, 0.0) / np.maximum(share, 1e-12))


def process_noise(panel: Panel, errors: Sequence[FloatArray], gamma: float, observation: FloatArray) -> Noise:
    r"""Give the field what the noise of the observations leaves of its residuals.

    .. math:: q = \frac{\sum e_k^2 - \sigma^2 (1 + e^{-2 \gamma h_k})}{\sum L(h_k)}, \qquad
       L(h) = \frac{1 - e^{-2 \gamma h}}{2 \gamma}.

    Parameters
    ----------
    panel : Panel
    errors : list over intervals of arrays (n_k+1, moving)
    gamma : float
    observation : array (moving,)
        Variance of one observation; what exceeds the residuals is cut.

    Returns
    -------
    Noise
    """
    power, decayed, length = np.zeros((3, len(observation)))
    for error, h in zip(errors, panel.lengths, strict=True):
        seen = ~np.isnan(error)
        power += (np.where(seen, error, 0.0) ** 2).sum(axis=0)
        decayed += ((1.0 + np.exp(-2.0 * gamma * h))[:, None] * seen).sum(axis=0)
        length += (error_growth(h, gamma)[:, None] * seen).sum(axis=0)
    observation = np.minimum(observation, power / np.maximum(decayed, 1e-300))
    rest = np.maximum(power - observation * decayed, LEAST_PROCESS * power)
    return Noise(observation, rest / np.maximum(length, 1e-300) + TINY)


def kalman_smoother(
    panel: Panel, forecast: Forecast, noise: Noise, *, moves: BoolArray, gamma: float
) -> list[FloatArray]:
    r"""Kalman filter and Rauch-Tung-Striebel smoother, one variance per variable.

    Means follow the field, with all variables together; variances decay and grow variable by variable,

    .. math:: P(t + h) = e^{-2 \gamma h} P(t) + q L(h), \qquad G = P / (P + \sigma^2),

    and on the way back a state moves by :math:`e^{-\gamma h} P_k / P(t_k + h)` times the correction of the next. For
    pure decay it is the exact smoother; couplings between variables enter the means alone. Nothing is known
    of a start but its observation. A variable without observation noise keeps its observations exactly.

    Parameters
    ----------
    panel : Panel
    forecast : callable
    noise : Noise
    moves : array (d,) of bool
    gamma : float

    Returns
    -------
    list over knots of arrays (n_k, d)
        Missing states are filled.

    References
    ----------
    .. [1] Rauch, Tung & Striebel, "Maximum likelihood estimates of linear dynamic systems", AIAA Journal 3, 1965,
       doi:10.2514/3.3166.
    """
    seen = ~np.isnan(panel.states[0][:, moves])
    states, spread = [panel.filled[0].copy()], [np.where(seen, noise.observation, UNKNOWN)]
    priors, prior_spread = [states[0][:, moves]], [spread[0]]
    for k, h in enumerate(panel.lengths):
        y = panel.states[k + 1][:, moves]
        seen = ~np.isnan(y)
        prior = _held(forecast(panel.sources(states[k][: len(h)]), h))
        a = np.exp(-gamma * h)[:, None]
        p = a**2 * spread[k][: len(h)] + error_growth(h, gamma)[:, None] * noise.process
        gain = np.where(seen, p / (p + noise.observation), 0.0)
        m = panel.filled[k + 1].copy()
        exact = seen & (noise.observation == 0)
        m[:, moves] = np.where(exact, y, prior + gain * np.where(seen, y - prior, 0.0))
        states.append(m)
        spread.append((1.0 - gain) * p)
        priors.append(prior)
        prior_spread.append(p)
    for k in range(len(states) - 2, -1, -1):
        h = panel.lengths[k]
        back = np.exp(-gamma * h)[:, None] * spread[k][: len(h)] / prior_spread[k + 1]
        states[k][: len(h), moves] += back * (states[k + 1][:, moves] - priors[k + 1])
    return states


def _held(states: FloatArray) -> FloatArray:
    return np.clip(np.nan_to_num(states, nan=0.0), -FARTHEST, FARTHEST)
