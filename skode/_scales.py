"""Standard units: what the field sees, and how to go back to the user's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skode._typing import BoolArray, FloatArray

BOX = 10.0
"""How far predictions may leave the training box: this many times its half-width from its centre."""
WIDER = 1.5
"""How far forecasts of data like those of training go, in the same measure. Attractors hold forecasts inside: of 35
fits of ten chaotic and ten other systems one reached 1.42 and the others 1.34. Of 60 fits to two to six trajectories
with noise of 0 to 50 % sixteen went further; longer windows (see ``_reach``) made thirteen of them forecast better from
noisy starts, by a fifth on average, and none worse."""


@dataclass(frozen=True)
class Scales:
    """Weighted statistics of the training rows that turn user units into standard units.

    Parameters
    ----------
    time_unit : float
        One unit of standard time, in the user's time unit: the median spacing of observations.
    state_mean, state_sd : array (d,)
        In units of the states.
    velocity_sd : array (d,) or None
        RMS of the smoothed velocities, for second-order systems.
    input_mean, input_sd : array (m,)
    clock_mean, clock_sd : float
        Of the field's clock (start time plus elapsed time), for time-dependent fields.
    rate : array (d,)
        RMS slope of each target per unit of standard time, in standard state (or velocity) units; 0 where a
        state is constant, which freezes it.
    low, high : array (s,)
        Box of the training states (then velocities), in standard units.
    """

    time_unit: float
    state_mean: FloatArray
    state_sd: FloatArray
    velocity_sd: FloatArray | None
    input_mean: FloatArray
    input_sd: FloatArray
    clock_mean: float
    clock_sd: float
    rate: FloatArray
    low: FloatArray
    high: FloatArray

    @property
    def order(self) -> int:
        """1, or 2 where velocities are part of the state."""
        return 1 if self.velocity_sd is None else 2

    @property
    def moving(self) -> BoolArray:
        """States that are not constant."""
        return self.rate > 0

    @property
    def n_inputs(self) -> int:
        """Number of constant inputs."""
        return len(self.input_mean)

    def standard_states(self, states: FloatArray) -> FloatArray:
        """(x - mean) / sd."""
        return (states - self.state_mean) / self.state_sd

    def user_states(self, standard: FloatArray) -> FloatArray:
        """Mean + sd * standard; the first d columns of standard."""
        d = self.state_mean.shape[0]
        return self.state_mean + self.state_sd * standard[..., :d]

    def standard_inputs(self, inputs: FloatArray) -> FloatArray:
        """(u - mean) / sd."""
        return (inputs - self.input_mean) / self.input_sd

    def standard_start(self, states: FloatArray, velocities: FloatArray | None) -> FloatArray:
        """State of the differential equation: standard states, then standard velocities for order 2."""
        standard = self.standard_states(states)
        if velocities is None or self.velocity_sd is None:
            return standard
        return np.concatenate([standard, velocities / self.velocity_sd], axis=-1)

    def standard_clock(self, clock: FloatArray) -> FloatArray:
        """(clock - mean) / sd."""
        return (clock - self.clock_mean) / self.clock_sd

    def slope_unit(self) -> FloatArray:
        """Derivative of each target, in user units, for one unit of field output."""
        sd = self.state_sd if self.velocity_sd is None else self.velocity_sd
        return self.rate * sd / self.time_unit


def widened_box(scales: Scales, times: float = BOX) -> FloatArray:
    """Edges of the training box widened so many times, in standard units; none for constant states.  # (2, s)"""
    centre, half = 0.5 * (scales.low + scales.high), 0.5 * (scales.high - scales.low)
    reach = np.where(np.tile(scales.moving, scales.order), times * np.maximum(half, 1.0), np.inf)
    return np.stack([centre - reach, centre + reach])


def near_box(scales: Scales, n_sources: int, times: float = WIDER) -> FloatArray:
    """Edges of the training box, widened, in standard units; none but for moving states.  # (2, source)"""
    edges = np.tile(np.array([[-np.inf], [np.inf]]), n_sources)
    edges[:, : len(scales.low)] = widened_box(scales, times)
    return edges
