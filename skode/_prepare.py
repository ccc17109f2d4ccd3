"""First stage of training: smooth the trajectories once, find units, and cut interval rows and windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from skode._blas import one_blas_thread
from skode._chains import find_chains
from skode._knots import knot_weights, observations, with_start
from skode._pieces import smooth_pieces
from skode._prepared import Course, Prepared
from skode._scales import Scales
from skode._steady import SteadyRows
from skode._trajectories import Trajectories
from skode._typing import BoolArray, FloatArray, IntArray
from skode._units import find_scales
from skode.smooth import Smooth, path

_GAUSS = np.array([0.5 - np.sqrt(3) / 6, 0.5 + np.sqrt(3) / 6])
"""Two-node Gauss-Legendre abscissae on [0, 1]; exact for cubic integrands."""
LONGEST = 1.0
"""Interval length, in medians, from which on a row's weight stops to grow."""
LONG_GAP = 20.0
"""Interval length, in medians, from which on nothing is known of the path inside: no row, and no window across."""


@one_blas_thread()
def prepare(
    trajectories: Trajectories,
    *,
    order: int,
    time_dependent: bool,
    steady: SteadyRows | None = None,
    scales: Scales | None = None,
    even: bool = False,
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
    even : bool, default=False
        Whether smoothing lets bends cost the same at all times, where paths set nothing but units.

    Returns
    -------
    Prepared
    """
    d = trajectories.n_states
    trajectories = replace(trajectories, weights=trajectories.weights / trajectories.weights.max())
    raw = [with_start(trajectories, k) for k in range(trajectories.n_trajectories)]
    chains = find_chains(trajectories)
    known = None if scales is None else scales.moving
    bent = _bent(trajectories, chains.after, time_dependent)
    smoothed, slopes = smooth_pieces(raw, trajectories.inputs, chains, moves=known, order=order, bent=bent, even=even)
    paths, slopes_at_knots = _paths(smoothed, slopes, trajectories.velocity, order)
    weights = knot_weights(raw, smoothed.knots)
    if scales is None:
        scales = find_scales(trajectories, smoothed.knots, paths, slopes_at_knots, weights, smoothed.moves)
    inputs = scales.standard_inputs(trajectories.inputs)
    origin = scales.standard_clock(trajectories.origin)
    courses, rows = [], []
    for k, (knots, values) in enumerate(zip(smoothed.knots, paths, strict=True)):
        courses.append(_course(trajectories, k, knots, values, scales))
        read = partial(_sources, inputs=inputs[k], origin=float(origin[k]), scales=scales, clock=time_dependent)
        rows.append(_interval_rows(knots, values, weights[k], scales, read))
    owner = [np.full(len(r.slopes), k) for k, r in enumerate(rows)]
    before = chains.before(np.array([len(r.slopes) for r in rows]))
    place = [first + np.arange(len(r.slopes)) for first, r in zip(before, rows, strict=True)]
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
        after=chains.after,
        series=chains.series,
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


def _bent(trajectories: Trajectories, after: IntArray, time_dependent: bool) -> BoolArray:
    """Whether inputs change, or the field's clock jumps, where a trajectory goes on in another.  # (trajectory,)"""
    changed = (trajectories.inputs != trajectories.inputs[after]).any(axis=1)
    if time_dependent:
        ends = trajectories.origin + trajectories.times[trajectories.bounds[1:] - 1]
        changed |= ~np.isclose(trajectories.origin[after], ends, rtol=1e-9, atol=1e-9 * np.ptp(trajectories.times))
    return np.asarray(changed & (after >= 0))


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
    observed, weights = observations(trajectories, k, knots)
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


def _paths(
    smoothed: Smooth, derivatives: list[FloatArray], velocity: FloatArray | None, order: int
) -> tuple[list[FloatArray], list[FloatArray]]:
    """State of the equation at the knots, and slopes of the targets there; in user units."""
    paths, slopes = [], []
    for k, (times, values, derivative) in enumerate(zip(smoothed.knots, smoothed.states, derivatives, strict=True)):
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
