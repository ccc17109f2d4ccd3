"""Training data of one fold after smoothing, in standard units: what all stages of training read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skode._scales import Scales
from skode._typing import FloatArray, IntArray
from skode.smooth import oversampling


@dataclass(frozen=True)
class Course:
    """One trajectory after smoothing, in standard units; knots in time order, the given start among them.

    Parameters
    ----------
    times : array (knot,)
        Elapsed standard time.
    path : array (knot, s)
        Smoothed states (then velocities, for order 2).
    observed : array (knot, d)
        Observations, repeated times averaged; nan where missing. The given start is not an observation.
    weights : array (knot, d)
        Weight of every observation, 0 where missing.
    start : array (s,)
        The state that the user gave at elapsed time 0.
    given : int
        Knot at elapsed time 0.
    """

    times: FloatArray
    path: FloatArray
    observed: FloatArray
    weights: FloatArray
    start: FloatArray
    given: int


@dataclass(frozen=True)
class Prepared:
    """Training data of one fold, in standard units.

    Parameters
    ----------
    scales : Scales
    courses : list of Course
    inputs : array (trajectory, m)
    origin : array (trajectory,)
        Standard clock at elapsed time 0.
    groups : array (trajectory,)
    after : array (trajectory,)
        The trajectory that starts where this one ends, -1 where none does (see ``_chains``).
    series : array (trajectory,)
        Number of the series that a trajectory is a piece of.
    nodes : array (interval, node, source)
        Sources at the Gauss nodes of every interval, along the smoothed path.
    quadrature : array (interval, node)
        Weights of the nodes in the mean over an interval.
    slopes : array (interval, d)
        Mean slope of every target over every interval, in units of its rate.
    slope_weights : array (interval, d)
    interval_trajectory : array (interval,)
        Trajectory of every interval; -1 for steady states. Intervals of a trajectory follow each other.
    interval_place : array (interval,)
        Number of the interval in its series.
    knot_sources : array (knot, source)
        Sources at the observation times, for Jacobians over the data.
    noise : array (d,)
        Standard deviation of the observation noise, in standard units.
    slope_sd : array (d,)
        Standard deviation of the slopes at the observation times, in units of the rate.
    freedom : array (d,)
        Equivalent parameters of the smooth series: how many independent data there are.
    """

    scales: Scales
    courses: list[Course]
    inputs: FloatArray
    origin: FloatArray
    groups: IntArray
    after: IntArray
    series: IntArray
    nodes: FloatArray
    quadrature: FloatArray
    slopes: FloatArray
    slope_weights: FloatArray
    interval_trajectory: IntArray
    interval_place: IntArray
    knot_sources: FloatArray
    noise: FloatArray
    slope_sd: FloatArray
    freedom: FloatArray

    @property
    def interval_series(self) -> IntArray:
        """Series of every interval; -1 for states of rest.  # (interval,)"""
        owner = self.interval_trajectory
        return np.where(owner >= 0, self.series[owner], -1)

    @property
    def independent_slopes(self) -> FloatArray:
        """Independent data on slopes, 1 or more: those on smooth series, less a level for each.  # (d,)"""
        return np.maximum(self.freedom - len(np.unique(self.series)), 1.0)

    @property
    def oversampling(self) -> int:
        """Intervals in the time in which a well sampled path has one (see ``smooth.oversampling``).

        Windows and runs are as many times longer: what happens in five intervals of a densely sampled path is little
        more than noise, whatever their number.
        """
        seen = np.sum([(course.weights > 0).sum(axis=0) for course in self.courses], axis=0)
        moving = self.scales.moving
        return oversampling(seen[moving], self.freedom[moving])
