"""The dense ranking of all pairs: the fitted field, and what raw observations add where noise hides its law."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from skode._prepare import LONGEST
from skode._prepared import Course, Prepared
from skode._typing import AnyArray, BoolArray, FloatArray

MANY = 256
"""Sources from which on the smaller of two systems of equations is solved; below, either takes some milliseconds."""
RIDGE = 10.0
"""Strength of the lagged ridge, in rows of data: as if ten more rows had shown no effect of any source."""
CLEAR = 3.0
"""Standard errors from which on movement is seen."""


def rank(scores: AnyArray, prepared: Prepared) -> AnyArray:
    r"""Mix the field's score of every pair with that of raw observations, target by target, by how noisy they are.

    .. math:: s_{ij} = (1 - w_i r^2) \hat a_{ij} + w_i r^2 \hat b_{ij} + w_i e_{ij}, \; i \ne j

    a is the score of the field, b of ``lagged_effects``, e of ``responses`` where steady states of
    clamped variables are known; w is ``hidden_share``, r ``memory``; hats divide by the root mean square over pairs
    of two different variables. So a field that was fitted to clean data keeps its ranking, and a variable that the
    smoother took for a constant, which the field gives no sources, still has one. A variable's own entry stays
    that of the field: noise in x_k is in the change that follows it too, and looks like decay. Of a second-order
    system raw rows would be second differences of noise, so b has no part. r is squared because b, unlike a, tells
    every pair from every other, true or not: a small part of it reorders all that a leaves level.

    Parameters
    ----------
    scores : array (d, variable)
        Those of the field.
    prepared : Prepared

    Returns
    -------
    array (d, variable)
        In units of ``scores``.
    """
    d = len(scores)
    other = ~np.eye(*scores.shape, dtype=np.bool_)
    ranking, size = _unit(scores, other)
    own = ranking.diagonal().copy()
    share: FloatArray = hidden_share(prepared)[:, None]
    lag = memory(prepared) ** 2 * share if prepared.scales.order == 1 else np.zeros_like(share)
    if lag.any():
        lagged, effect_size = _unit(lagged_effects(prepared), other)
        if effect_size > 0:
            lagged -= ranking
            lagged *= lag
            ranking += lagged.astype(ranking.dtype, copy=False)
    steady = steady_evidence(prepared)
    if steady is not None and steady.clamped.any():
        ranking[:, :d] += (share * responses(steady)).astype(ranking.dtype, copy=False)
    np.fill_diagonal(ranking, own)
    ranking *= size if size > 0 else 1.0
    return ranking


def hidden_share(prepared: Prepared) -> FloatArray:
    r"""How far noise hides each variable's movement from the smoother, from 0 to 1.  # (d,)

    .. math:: w_i = \min(1, 9 \cdot 2 \sigma_i^2 p_i / \mathrm{var}_k [g_i(t_{k + 1 / p_i}) - g_i(t_k)])^2

    g is the smoothed path, sigma the noise of an observation, and p the number of parameters that the smoother spent
    per observation. One parameter stands for 1 / p observations: that is the distance over which it resolves a
    change, and 2 sigma^2 p is the error variance of that change. w is 1 where movement is no larger than three of
    its standard errors, as for a variable that the smoother found constant, and 0 without noise. It falls with the
    square of the ratio, as the squared bias does that errors in the sources cause.
    """
    noise = prepared.noise**2
    residual, weight = np.zeros((2, len(noise)))
    for course in prepared.courses:
        residual += (course.weights * np.nan_to_num(course.observed - _states(course)) ** 2).sum(axis=0)
        weight += course.weights.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        parameters = np.nan_to_num(1.0 - residual / weight / noise, nan=1.0, neginf=1.0)  # per observation
    longest = max(len(course.times) for course in prepared.courses) - 1
    parameters = np.clip(parameters, 1.0 / max(longest, 1), 1.0)
    lags = np.rint(1.0 / parameters).astype(np.int64)
    change = np.zeros(len(noise))
    for lag in np.unique(lags):
        steps = [_states(c)[lag:] - _states(c)[:-lag] for c in prepared.courses if len(c.times) > lag]
        if steps:
            change[lags == lag] = np.concatenate(steps)[:, lags == lag].var(axis=0)
    limit = CLEAR**2 * 2.0 * noise * parameters
    share: FloatArray = (limit / np.maximum(change, np.where(limit > 0, limit, 1.0))) ** 2
    return share


def memory(prepared: Prepared) -> float:
    """How far an observation still tells of the next one, from 0 to 1.

    r = min(1, max(0, 2 - 2 c)), where c is the median over moving variables of the mean square change over an
    interval divided by the variance within series: 2 for white noise, small on a fine grid. Where most
    of the movement happens between two observations, what is seen at the first is not what drove it.
    """
    moving = prepared.scales.moving
    long = [k for k, course in enumerate(prepared.courses) if len(course.times) > 1]
    if not long or not moving.any():
        return 0.0
    paths, series = [_states(prepared.courses[k])[:, moving] for k in long], prepared.series[long]
    change = np.concatenate([np.diff(path, axis=0) for path in paths])
    states = np.concatenate(paths)
    owner = np.unique(np.repeat(series, [len(path) for path in paths]), return_inverse=True)[1]
    total = np.zeros((int(owner.max()) + 1, states.shape[1]))
    np.add.at(total, owner, states)
    within = states - (total / np.bincount(owner)[:, None])[owner]
    ratio = (change**2).mean(axis=0) / np.maximum((within**2).mean(axis=0), 1e-30)
    return float(np.clip(2.0 - 2.0 * np.median(ratio), 0.0, 1.0))


def lagged_effects(prepared: Prepared) -> FloatArray:
    """Size of every source's part in the changes that follow it, by ridge regression on raw observations.

    (x_k+1 - x_k) / h of every target on the sources as they were observed at t_k, in standard deviations of both. A
    smoother takes what changes fast for noise, and a smooth at t_k holds part of what is seen at t_k+1; the raw
    past has neither fault, and only the past can be a cause. Noise in the sources shrinks all effects but
    hardly their order. Steady states are rows of slope zero; a clamped variable's equation leaves out its rows,
    by an update of low rank instead of a system of equations per target.

    Parameters
    ----------
    prepared : Prepared

    Returns
    -------
    array (d, variable)

    References
    ----------
    "Investigating causal relations by econometric models and cross-spectral methods", 1969, doi 10.2307/1912791.
    """
    rows = _lagged_rows(prepared)
    d, n_sources = rows.slopes.shape[1], rows.sources.shape[1]
    if len(rows.slopes) < 2 or not rows.weights.any():
        return np.zeros((d, n_sources))
    weights = rows.weights / rows.weights.mean()
    mean = np.average(rows.sources, axis=0, weights=weights)
    sd = np.sqrt(np.average((rows.sources - mean) ** 2, axis=0, weights=weights))
    sd = np.where(sd > 1e-9, sd, 1.0)
    centre = np.average(rows.slopes, axis=0, weights=weights)
    unit = np.sqrt(np.average((rows.slopes - centre) ** 2, axis=0, weights=weights))
    slopes = rows.slopes / np.where(unit > 1e-12, unit, np.inf)
    steady = steady_evidence(prepared)
    if steady is None and n_sources > max(MANY, len(slopes)):  # as many equations as rows; z is orthogonal to constants
        root = np.sqrt(weights)[:, None]
        z = root * ((rows.sources - mean) / sd)
        inner = z @ z.T
        inner[np.diag_indices_from(inner)] += RIDGE
        effects = np.linalg.solve(inner, root * slopes).T @ z
        return np.asarray(np.abs(effects, out=effects))
    z = _with_constant((rows.sources - mean) / sd)
    gram = z.T @ (weights[:, None] * z) + np.diag([RIDGE] * n_sources + [1e-6])
    right = z.T @ (weights[:, None] * slopes)
    if steady is None:
        return np.asarray(np.abs(np.linalg.solve(gram, right)[:-1].T))
    rest = _with_constant((steady.sources - mean) / sd)
    inverse = np.linalg.inv(gram + rest.T @ rest)
    effects = inverse @ right  # (source + 1, d)
    for i in np.flatnonzero(steady.clamped.any(axis=0)):
        left_out = rest[steady.clamped[:, i]]
        reach = left_out @ inverse
        inner = np.eye(len(left_out)) - reach @ left_out.T
        effects[:, i] += reach.T @ np.linalg.solve(inner, left_out @ effects[:, i])
    return np.asarray(np.abs(effects[:-1].T))


class SteadyEvidence(NamedTuple):
    """Steady states in standard units."""

    sources: FloatArray  # (row, source)
    clamped: BoolArray  # (row, d)


def steady_evidence(prepared: Prepared) -> SteadyEvidence | None:
    """Steady states among the interval rows; the weight of a clamped variable's equation is zero."""
    rows = prepared.interval_trajectory < 0
    if not rows.any():
        return None
    return SteadyEvidence(prepared.nodes[rows, 0], prepared.slope_weights[rows] == 0)


def responses(steady: SteadyEvidence) -> FloatArray:
    """How far clamping j moves i at rest, as a multiple of how far i moves over all steady states.  # (d, d)

    e_ij = RMS of x_i - median x_i over rows with j clamped / that over all rows, i itself being free; 1, which favours
    nothing, where j was never clamped or i never moved. Each row is compared with those of the same inputs, and
    variables that were clamped together share what followed. The median is the resting state as long as most
    perturbations leave i alone; a wild type of one noisy row would be a worse one.
    """
    d = steady.clamped.shape[1]
    states, inputs = steady.sources[:, :d], steady.sources[:, d:]
    free = np.where(steady.clamped, np.nan, states)
    moved = np.full_like(free, np.nan)
    _, kind = np.unique(np.round(inputs, 9), axis=0, return_inverse=True)
    for group in np.unique(kind):
        mine = kind.ravel() == group
        seen = np.isfinite(free[mine]).any(axis=0)
        moved[np.ix_(mine, seen)] = free[np.ix_(mine, seen)] - np.nanmedian(free[np.ix_(mine, seen)], axis=0)
    n_free = np.isfinite(moved).sum(axis=0)
    square = np.nan_to_num(moved) ** 2
    spread = square.sum(axis=0) / np.maximum(n_free, 1)
    held = steady.clamped / np.maximum(steady.clamped.sum(axis=1, keepdims=True), 1)  # a double clamp halves the blame
    total = square.T @ held
    count = np.isfinite(moved).T.astype(float) @ held
    known = (count > 0) & (spread > 1e-18)[:, None]
    return np.where(known, np.sqrt(total / np.where(known, count * spread[:, None], 1.0)), 1.0)


class _LaggedRows(NamedTuple):
    sources: FloatArray  # (row, source)
    slopes: FloatArray  # (row, d)
    weights: FloatArray  # (row,)


def _lagged_rows(prepared: Prepared) -> _LaggedRows:
    """Raw changes and what was observed before them; the smooth stands in for what was not observed."""
    d = prepared.slopes.shape[1]
    bounds = np.cumsum([len(course.times) for course in prepared.courses])[:-1]
    sources, slopes, lengths = [], [], []
    for course, smoothed in zip(prepared.courses, np.split(prepared.knot_sources, bounds), strict=True):
        raw = _raw(course)
        h = np.diff(course.times)[:, None]
        sources.append(np.concatenate([raw, smoothed[:, d:]], axis=1)[:-1])
        slopes.append(np.diff(raw, axis=0) / h)
        lengths.append(np.minimum(h[:, 0], LONGEST))
    series = prepared.interval_trajectory >= 0
    # Once more by length: the noise of a short interval's slope grows as 1 / h, and here nothing has smoothed it.
    weights = prepared.slope_weights[series].mean(axis=1) * np.concatenate(lengths)
    return _LaggedRows(np.concatenate(sources), np.concatenate(slopes), weights)


def _states(course: Course) -> FloatArray:
    return course.path[:, : course.observed.shape[1]]


def _raw(course: Course) -> FloatArray:
    """Observations, the given start among them, gaps filled from the smooth."""
    d = course.observed.shape[1]
    observed = course.observed.copy()
    missing = np.isnan(observed[course.given])
    observed[course.given, missing] = course.start[:d][missing]
    return np.where(np.isnan(observed), course.path[:, :d], observed)


def _with_constant(z: FloatArray) -> FloatArray:
    return np.concatenate([z, np.ones((len(z), 1))], axis=1)


def _unit(scores: AnyArray, pairs: BoolArray) -> tuple[AnyArray, float]:
    """Scores over their root mean square over some pairs, as an array of its own, and that."""
    some = scores[pairs]
    size = float(np.sqrt(np.mean(np.square(some, out=some)))) if len(some) else 0.0
    return (scores / scores.dtype.type(size), size) if size > 0 else (scores.copy(), 0.0)
