"""Whether sources are amounts, which are never negative, and how much of each is usual."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from skode._prepared import Prepared
from skode._typing import FloatArray

NOISE, BELOW, LOWEST = 3.0, 0.25, 0.01
"""Standard deviations of the noise, or of the source where no noise was found, by which its values may lie below zero,
and the share of all values that may lie lower still."""
DEEPEST, LARGEST_NOISE = 4.0, 0.2
"""Standard deviations of the noise by which the smooth path of an amount may go below zero, and those of the state from
which on noise does not let tell."""
LEAST = 0.05
"""Standard deviations below which what is usual of a source is no unit."""


class Amounts(NamedTuple):
    """From standard units to amounts, in units of what is usual of every source: gain * z + shift."""

    gain: FloatArray  # (source,)
    shift: FloatArray  # (source,)


def are_amounts(prepared: Prepared) -> bool:
    """Whether no source goes below zero, as far as noise lets tell; False where time or velocities are sources."""
    z, zero = _sources(prepared)
    if len(zero) != z.shape[1]:
        return False
    noise = np.concatenate([prepared.noise, np.zeros(prepared.scales.n_inputs)])
    return bool(((np.quantile(z, LOWEST, axis=0) + zero) >= -np.maximum(NOISE * noise, BELOW)).all())


def nothing_of(prepared: Prepared) -> FloatArray:
    """Zero, in standard units, of every state that nothing but noise puts below it; -inf for others.  # (d,)"""
    scales = prepared.scales
    zero = -scales.state_mean / scales.state_sd
    never = scales.low[: len(zero)] >= zero - DEEPEST * prepared.noise
    found: FloatArray = np.where(never & (prepared.noise <= LARGEST_NOISE), zero, -np.inf)
    return found


def amounts_of(prepared: Prepared) -> Amounts:
    """What is usual of every source: its median over the data, or its mean where that is larger.

    Parameters
    ----------
    prepared : Prepared
        Whose sources are states and inputs.

    Returns
    -------
    Amounts
    """
    z, zero = _sources(prepared)
    usual = np.maximum(np.median(z, axis=0), z.mean(axis=0)) + zero
    usual = np.where(usual > LEAST, usual, 1.0)
    return Amounts(1.0 / usual, zero / usual)


def _sources(prepared: Prepared) -> tuple[FloatArray, FloatArray]:
    """Standard sources at all nodes (sample, source), and the amount at which each of them is 0."""
    s = prepared.scales
    zero = np.concatenate([s.state_mean / s.state_sd, s.input_mean / s.input_sd])
    return prepared.nodes.reshape(-1, prepared.nodes.shape[2]), zero
