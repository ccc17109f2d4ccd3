"""The path between observations, and the mean slope over every interval along it: bridged, or a smoothing spline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse

from skode._bridge import bridge, fill, gap_weights
from skode._decay import blocks_of_time, choose_decay, relaxation_rate
from skode._model_smoothing import Denoised, denoise, denoise_along
from skode._typing import BoolArray, FloatArray, IntArray
from skode.smooth import WELL_SAMPLED, Smooth, oversampling, path, smooth

FEWEST_GROUPS = 4
"""Groups from which on folds are made of them; fewer are cut into blocks of time."""
N_BLOCKS = 8
_GAUSS = np.array([0.5 - np.sqrt(3) / 6, 0.5 + np.sqrt(3) / 6])
LONGEST, LONG_GAP = 1.0, 20.0
"""Along a spline, lengths of intervals in medians from which on a row's weight stops to grow, and is 0."""
MISSING_SHARE = 0.1
"""Weight of a missing value among the knots of a spline."""


class Intervals(NamedTuple):
    """Rows of a regression, one for every interval between knots."""

    nodes: FloatArray  # (interval, node, d)
    quadrature: FloatArray  # (interval, node)
    slopes: FloatArray  # (interval, d)
    weights: FloatArray  # (interval,) or (interval, d)


class Followed(NamedTuple):
    """A path through all observations, and the rows along it."""

    rows: Intervals
    owner: IntArray  # (interval,) trajectory
    states: list[FloatArray]  # (knot_k, d) denoised, none missing
    gamma: float | None  # decay rate of the bridged path; None is the smoothing spline
    rate: float  # decay that production is freed of
    noise: FloatArray  # (d,) standard deviation of observations, 0 where none is found
    process: FloatArray  # (d,) variance of a linear field's error per unit of time, where states are denoised
    freedom: FloatArray | None  # (d,) independent slopes along a spline; None is one for every interval


def follow(
    times: Sequence[FloatArray],
    states: Sequence[FloatArray],
    *,
    moves: BoolArray,
    inputs: FloatArray,
    groups: IntArray | None,
) -> Followed:
    """Choose the path between observations, denoise it, and lay rows along it: steps 1 and 2 of ``screen``.

    Where paths are oversampled the smoothing spline is taken, and the rate is that of every so many observations: what
    happens over one short interval is mostly noise.

    Parameters
    ----------
    times : sequence of arrays (knot_k,)
    states : sequence of arrays (knot_k, d)
        nan is missing.
    moves : array (d,) of bool
    inputs : array (trajectory, m)
    groups : array (trajectory,) of int or None

    Returns
    -------
    Followed
    """
    smoothed = smooth(times, states, moves=moves)
    noise = np.where(moves, np.nan_to_num(smoothed.noise), 0.0)
    stride = _stride(states, smoothed, moves)
    gamma, rate = _rate(*_thinned(times, states, stride), moves, inputs, groups)
    if gamma is None or stride > 1:
        rows = _along_splines(times, states, smoothed)
        clean = [np.nan_to_num(_at(k, x, t)) for k, x, t in zip(smoothed.knots, smoothed.states, times, strict=True)]
        owner = np.repeat(np.arange(len(times)), [len(k) - 1 for k in smoothed.knots])
        return Followed(
            rows, owner, clean, None, rate, noise, np.zeros_like(noise), np.maximum(smoothed.dof - len(times), 1.0)
        )
    limit = noise
    found = denoise(times, states, inputs=inputs, moves=moves, gamma=gamma, limit=limit)
    if found.noise.any():
        gamma = rate = _between(rate, _rate(times, found.states, moves, inputs, groups)[1])
        found = denoise(times, states, inputs=inputs, moves=moves, gamma=gamma, limit=limit)
    owner = np.repeat(np.arange(len(times)), [len(t) - 1 for t in times])
    return Followed(_bridged(times, states, found.states, gamma), owner, found.states, gamma, rate, *found[1:], None)


def follow_edges(
    times: Sequence[FloatArray],
    states: Sequence[FloatArray],
    before: Followed,
    edges: scipy.sparse.csr_array,
    *,
    moves: BoolArray,
    inputs: FloatArray,
) -> Followed:
    """The same path once more along a field with the edges that were found on it; unchanged where nothing was denoised.

    Parameters
    ----------
    times, states, moves, inputs
        As for ``follow``.
    before : Followed
    edges : sparse array (moving, source)
        Production per unit of every source.

    Returns
    -------
    Followed
    """
    if before.gamma is None or not before.noise.any():
        return before
    known = Denoised(before.states, before.noise, before.process)
    found = denoise_along(times, states, known, edges, inputs=inputs, moves=moves, gamma=before.gamma)
    rows = _bridged(times, states, found.states, before.gamma)
    return before._replace(rows=rows, states=found.states, noise=found.noise, process=found.process)


def _stride(states: Sequence[FloatArray], smoothed: Smooth, moves: BoolArray) -> int:
    """Intervals between independent data along a path that is oversampled; 1 if it is not."""
    seen = np.sum([(~np.isnan(x)).sum(axis=0) for x in states], axis=0)
    factor = oversampling(seen[moves], smoothed.dof[moves])
    return WELL_SAMPLED * factor if factor > 1 else 1


def _thinned(
    times: Sequence[FloatArray], states: Sequence[FloatArray], stride: int
) -> tuple[list[FloatArray], list[FloatArray]]:
    """Every so many observations, and the last."""
    kept = [np.unique(np.append(np.arange(0, len(t), stride), len(t) - 1)) for t in times]
    return [t[k] for t, k in zip(times, kept, strict=True)], [x[k] for x, k in zip(states, kept, strict=True)]


def _rate(
    times: Sequence[FloatArray],
    states: Sequence[FloatArray],
    moves: BoolArray,
    inputs: FloatArray,
    groups: IntArray | None,
) -> tuple[float | None, float]:
    """Decay rate of the path, None for the spline, and rate of the production that is selected for."""
    group = np.arange(len(times)) if groups is None else groups
    if len(np.unique(group)) < FEWEST_GROUPS:
        times, states, inputs = blocks_of_time(times, states, inputs, N_BLOCKS)
        group = np.arange(len(times))
    if len(group) < FEWEST_GROUPS:
        rate = relaxation_rate(times, states, moves)
        return rate, rate
    choice = choose_decay(times, states, moves=moves, inputs=inputs, groups=group)
    return choice.gamma, choice.best_gamma


def _between(one: float, other: float) -> float:
    """Geometric mean; the larger where the other is 0."""
    return float(np.sqrt(one * other)) if one > 0 and other > 0 else max(one, other)


def _bridged(
    times: Sequence[FloatArray], states: Sequence[FloatArray], denoised: Sequence[FloatArray], gamma: float
) -> Intervals:
    """Rows along the denoised path, with the production of the raw states."""
    nodes, quadrature, slopes, weights = [], [], [], []
    for t, x, z in zip(times, states, denoised, strict=True):
        raw, clean = bridge(t, np.nan_to_num(fill(t, x, gamma)), gamma), bridge(t, z, gamma)
        gap = np.einsum("kl,kld->kd", raw.node_weights, raw.node_states - clean.node_states)
        nodes.append(clean.node_states)
        quadrature.append(clean.node_weights)
        slopes.append(raw.slopes + gamma * gap)
        weights.append(gap_weights(t, x, gamma))
    w = np.concatenate(weights)
    same = bool((w == w[:, :1]).all())
    return Intervals(np.concatenate(nodes), np.concatenate(quadrature), np.concatenate(slopes), w[:, 0] if same else w)


def _along_splines(times: Sequence[FloatArray], states: Sequence[FloatArray], smoothed: Smooth) -> Intervals:
    """Rows along the smoothing spline, two Gauss nodes each."""
    unit = float(np.median(np.concatenate([np.diff(k) for k in smoothed.knots])))
    nodes, slopes, weights = [], [], []
    for t, x, knots, z in zip(times, states, smoothed.knots, smoothed.states, strict=True):
        h = np.diff(knots)
        z = np.nan_to_num(z)
        between, _ = path(knots, z, (knots[:-1, None] + h[:, None] * _GAUSS).ravel())
        nodes.append(between.reshape(len(h), 2, z.shape[1]))
        slopes.append(np.diff(z, axis=0) / h[:, None])
        nearest = np.abs(t[:, None] - knots).argmin(axis=1)
        known = np.zeros(z.shape)
        np.add.at(known, nearest, np.where(np.isnan(x), MISSING_SHARE, 1.0))
        length = np.where(h > LONG_GAP * unit, 0.0, np.minimum(h / unit, LONGEST))
        weights.append(0.5 * length[:, None] * (known[:-1] + known[1:]))
    w = np.concatenate(weights)
    same = bool((w == w[:, :1]).all())
    half = np.full((len(w), 2), 0.5)
    return Intervals(np.concatenate(nodes), half, np.concatenate(slopes), w[:, 0] if same else w)


def _at(knots: FloatArray, states: FloatArray, times: FloatArray) -> FloatArray:
    return states if len(knots) == len(times) else path(knots, states, times)[0]
