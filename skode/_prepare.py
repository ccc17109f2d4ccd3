"""First stage of training: smooth the trajectories once, find units, and cut interval rows and windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np

from skode._blas import one_blas_thread
from skode._scales import Scales
from skode._steady import SteadyRows
from skode._trajectories import Trajectories
from skode._typing import BoolArray, FloatArray, IntArray
from skode.smooth import oversampling, path, smooth

_GAUSS = np.array([0.5 - np.sqrt(3) / 6, 0.5 + np.sqrt(3) / 6])
"""Two-node Gauss-Legendre abscissae on [0, 1]; exact for cubic integrands."""
LONGEST = 1.0
"""Interval length, in medians, from which on a row's weight stops to grow."""
LONG_GAP = 20.0
"""Interval length, in medians, from which on nothing is known of the path inside: no row, and no window across."""


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
        Number of the interval in its trajectory.
    knot_sources : array (knot, source)
        Sources at the observation times, for Jacobians over the data.
    noise : array (d,)
        Standard deviation of the observation noise, in standard units.
    slope_sd : array (d,)
        Standard deviation of the slopes at the observation times, in units of the rate.
    freedom : array (d,)
        Equivalent parameters of the smooth paths: how many independent data there are.
    """

    scales: Scales
    courses: list[Course]
    inputs: FloatArray
    origin: FloatArray
    groups: IntArray
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
    def oversampling(self) -> int:
        """Intervals in the time in which a well sampled path has one (see ``smooth.oversampling``).

        Windows and runs are as many times longer: what happens in five intervals of a densely sampled path is little
        more than noise, whatever their number.
        """
        seen = np.sum([(course.weights > 0).sum(axis=0) for course in self.courses], axis=0)
        moving = self.scales.moving
        return oversampling(seen[moving], self.freedom[moving])


@one_blas_thread()
def prepare(
    trajectories: Trajectories,
    *,
    order: int,
    time_dependent: bool,
    steady: SteadyRows | None = None,
    scales: Scales | None = None,
) -> Prepared:
    """Smooth, find constant states, standardise, and cut every trajectory into interval rows.

    Over the interval [t_k, t_k+1] a trajectory obeys (x(t_k+1) - x(t_k)) / h = mean of f along the path. The left
    side comes from the smoothed states, the right side is a two-node Gauss-Legendre mean of the field at the
    smoothed path: a regression with one row per interval and no solver in the loop. A row weighs as much as its
    interval is long, because a short one divides noise by little time, but no more than a median interval: inside
    a long gap the spline guesses, and the error of the guess is not the field's.
    Beyond twenty medians a gap has no row at all.

    Parameters
    ----------
    trajectories : Trajectories
    order : 1 or 2
    time_dependent : bool
    steady : SteadyRows, optional
        Each becomes an interval row with slope zero and the weight of a mean interval.
    scales : Scales, optional
        Units of other data, for a test part; by default they are found here.

    Returns
    -------
    Prepared
    """
    d = trajectories.n_states
    trajectories = replace(trajectories, weights=trajectories.weights / trajectories.weights.max())
    raw = [_with_start(trajectories, k) for k in range(trajectories.n_trajectories)]
    known = None if scales is None else scales.moving
    smoothed = smooth([r[0] for r in raw], [r[1] for r in raw], [r[2] for r in raw], moves=known)
    paths, slopes_at_knots = _paths(smoothed.knots, smoothed.states, trajectories.velocity, order)
    weights = _knot_weights(raw, smoothed.knots)
    if scales is None:
        scales = _scales(trajectories, smoothed.knots, paths, slopes_at_knots, weights, smoothed.moves)
    inputs = scales.standard_inputs(trajectories.inputs)
    origin = scales.standard_clock(trajectories.origin)
    courses, rows = [], []
    for k, (knots, values) in enumerate(zip(smoothed.knots, paths, strict=True)):
        courses.append(_course(trajectories, k, knots, values, scales))
        read = partial(_sources, inputs=inputs[k], origin=float(origin[k]), scales=scales, clock=time_dependent)
        rows.append(_interval_rows(knots, values, weights[k], scales, read))
    owner = [np.full(len(r.slopes), k) for k, r in enumerate(rows)]
    place = [np.arange(len(r.slopes)) for r in rows]
    if steady is not None:
        mean_weight = np.concatenate([r.weights for r in rows]).mean(axis=0)
        rows.append(_steady_rows(steady, scales, mean_weight))
        owner.append(np.full(len(steady.states), -1))
        place.append(np.arange(len(steady.states)))
    every_slope = np.concatenate(slopes_at_knots)[:, :d] / np.where(scales.moving, scales.slope_unit(), 1.0)
    knot_sources = [
        _sources(c.path, c.times, inputs=inputs[k], origin=float(origin[k]), scales=scales, clock=time_dependent)
        for k, c in enumerate(courses)
    ]
    return Prepared(
        scales=scales,
        courses=courses,
        inputs=inputs,
        origin=origin,
        groups=trajectories.groups,
        nodes=np.concatenate([r.nodes for r in rows]),
        quadrature=np.concatenate([np.full(r.nodes.shape[:2], 0.5) for r in rows]),
        slopes=np.concatenate([r.slopes for r in rows]),
        slope_weights=np.concatenate([r.weights for r in rows]),
        interval_trajectory=np.concatenate(owner),
        interval_place=np.concatenate(place),
        knot_sources=np.concatenate(knot_sources),
        noise=np.nan_to_num(smoothed.noise / scales.state_sd),
        slope_sd=every_slope.std(axis=0),
        freedom=smoothed.dof,
    )


class _IntervalRows(NamedTuple):
    nodes: FloatArray  # (interval, 2, source)
    slopes: FloatArray  # (interval, d)
    weights: FloatArray  # (interval, d)


def _interval_rows(
    knots: FloatArray,
    values: FloatArray,
    weights: FloatArray,
    scales: Scales,
    read: Callable[[FloatArray, FloatArray], FloatArray],
) -> _IntervalRows:
    """Mean slope of every interval, and the sources at its Gauss nodes."""
    tau = knots / scales.time_unit
    h = np.diff(tau)[:, None]
    at = (tau[:-1, None] + h * _GAUSS).ravel()
    between, _ = path(knots, values, at * scales.time_unit)
    d = weights.shape[1]
    sources = read(_standard(between, scales), at)
    nodes = sources.reshape(len(h), 2, sources.shape[1])  # there may be no interval
    change = np.diff(_standard(values, scales)[:, -d:], axis=0) / h
    slopes = np.where(scales.moving, change / np.where(scales.moving, scales.rate, 1.0), 0.0)
    length = np.where(h > LONG_GAP, 0.0, np.minimum(h, LONGEST))
    return _IntervalRows(nodes, slopes, length * 0.5 * (weights[:-1] + weights[1:]))


def _steady_rows(steady: SteadyRows, scales: Scales, mean_weight: FloatArray) -> _IntervalRows:
    """Rows of slope zero at rest; the equations of clamped variables have no weight."""
    states = scales.standard_states(steady.states)
    if scales.order == 2:
        states = np.concatenate([states, np.zeros_like(states)], axis=1)
    z = np.concatenate([states, scales.standard_inputs(steady.inputs)], axis=1)
    weights = np.where(steady.clamped, 0.0, mean_weight)
    return _IntervalRows(np.repeat(z[:, None], 2, axis=1), np.zeros_like(steady.states), weights)


def _course(trajectories: Trajectories, k: int, knots: FloatArray, values: FloatArray, scales: Scales) -> Course:
    d = trajectories.n_states
    standard = _standard(values, scales)
    given = int(np.argmin(np.abs(knots)))
    observed, weights = _observations(trajectories, k, knots)
    velocity = None if trajectories.velocity is None else trajectories.velocity[k]
    start = scales.standard_start(trajectories.initial[k], velocity)
    if len(start) < standard.shape[1]:
        start = np.concatenate([start, standard[given, d:]])
    return Course(
        times=knots / scales.time_unit,
        path=standard,
        observed=scales.standard_states(observed),
        weights=weights,
        start=start,
        given=given,
    )


def _rows(trajectories: Trajectories, k: int) -> slice:
    bounds = trajectories.bounds
    return slice(int(bounds[k]), int(bounds[k + 1]))


def _with_start(trajectories: Trajectories, k: int) -> tuple[FloatArray, FloatArray, FloatArray]:
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


def _paths(
    knots: list[FloatArray], states: list[FloatArray], velocity: FloatArray | None, order: int
) -> tuple[list[FloatArray], list[FloatArray]]:
    """State of the equation at the knots, and slopes of the targets there; in user units."""
    paths, slopes = [], []
    for k, (times, values) in enumerate(zip(knots, states, strict=True)):
        _, derivative = path(times, values, times)
        if order == 1:
            paths.append(values)
            slopes.append(derivative)
            continue
        if velocity is not None:
            derivative = derivative.copy()
            derivative[np.argmin(np.abs(times))] = velocity[k]
        _, acceleration = path(times, derivative, times)
        paths.append(np.concatenate([values, derivative], axis=1))
        slopes.append(acceleration)
    return paths, slopes


def nearest_knot(times: FloatArray, knots: FloatArray) -> IntArray:
    """Place of the knot nearest to every time, the earlier of two; knots rise.  # (time,)"""
    return np.searchsorted(0.5 * (knots[1:] + knots[:-1]), times).astype(np.int64)


def _knot_weights(raw: list[tuple[FloatArray, FloatArray, FloatArray]], knots: list[FloatArray]) -> list[FloatArray]:
    """Observation weight at every knot and variable; a missing value counts as a tenth of an observation."""
    out = []
    for (times, states, weights), at in zip(raw, knots, strict=True):
        nearest = nearest_knot(times, at)
        total = np.zeros((len(at), states.shape[1]))
        np.add.at(total, nearest, weights[:, None] * np.where(np.isnan(states), 0.1, 1.0))
        out.append(total)
    return out


def _scales(
    trajectories: Trajectories,
    knots: list[FloatArray],
    paths: list[FloatArray],
    slopes: list[FloatArray],
    weights: list[FloatArray],
    moves: BoolArray,
) -> Scales:
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


def _standard(values: FloatArray, scales: Scales) -> FloatArray:
    """States (then velocities) in standard units."""
    d = scales.state_mean.shape[0]
    states = scales.standard_states(values[:, :d])
    if scales.velocity_sd is None:
        return states
    return np.concatenate([states, values[:, d:] / scales.velocity_sd], axis=1)


def _sources(
    standard: FloatArray, tau: FloatArray, *, inputs: FloatArray, origin: float, scales: Scales, clock: bool
) -> FloatArray:
    """Rows as the field reads them: states, velocities, inputs, clock."""
    parts = [standard, np.broadcast_to(inputs, (len(standard), inputs.shape[0]))]
    if clock:
        parts.append((origin + tau * scales.time_unit / scales.clock_sd)[:, None])
    return np.concatenate(parts, axis=1)


def _observations(trajectories: Trajectories, k: int, knots: FloatArray) -> tuple[FloatArray, FloatArray]:
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
