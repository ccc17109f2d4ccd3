"""Sparse regression on a library of monomials: PySINDy as it comes, and a stronger form that smooths and integrates."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from _answers import Answer, fold, runge_kutta, with_forecasts
from _regressions import changes
from _sets import BenchmarkSet
from scipy.linalg import lstsq
from scipy.special import gammaln
from sklearn.preprocessing import PolynomialFeatures

from skode.smooth import path, smooth

NODES = 0.5 + np.array([-0.5, 0.5]) / np.sqrt(3)  # of Gauss and Legendre, both of weight 1/2


def pysindy(data: BenchmarkSet, _: int) -> Answer:
    """PySINDy with its defaults: quadratic library, finite differences, thresholded least squares."""
    import pysindy as ps

    first = data.as_first_order()
    model = ps.SINDy()
    model.fit(first.states, t=first.times, u=_inputs(first, first.states))
    every = np.concatenate(_with_inputs(first, first.states))
    unit = changes(first, middle=False).slope_sd
    return _answer(data, np.asarray(model.feature_library.powers_), np.asarray(model.coefficients()), every, unit)


class Intervals(NamedTuple):
    """One row per interval between observations, all from the smoothed states."""

    nodes: list[np.ndarray]  # per node (row, s + m): smoothed states, then inputs
    slope: np.ndarray  # (row, s): change over the interval, by its length
    freedom: np.ndarray  # (s,) parameters that the smooth is worth: what the rows know, however many they are


def sindy_integral(data: BenchmarkSet, _: int) -> Answer:
    """Sparse regression of changes of smoothed states on integrals of monomials of them, terms by BIC.

    ``(x(t_k+1) - x(t_k)) / h_k = mean of the library over the interval``, by two Gauss-Legendre nodes. The library is
    of the degree that the set names, or linear where that has nine terms for ten rows. Per target: least squares, the
    tenth of smallest standard coefficients is dropped again and again, and the support of the least
    n log(RSS) + k log n + 2 log C(p, k) is kept, the extended criterion for libraries of p terms (2008, doi
    10.1093/biomet/asn034). n is the equivalent degrees of freedom of the smooth: smoothed rows repeat each other.
    """
    first = data.as_first_order()
    rows = _intervals(first)
    n_rows, s = rows.slope.shape
    libraries = [PolynomialFeatures(degree, include_bias=False).fit(rows.nodes[0][:1]) for degree in (1, data.degree)]
    library = [libraries[0], *(lib for lib in libraries if lib.n_output_features_ < 0.9 * n_rows)][-1]
    theta = sum(library.transform(x) for x in rows.nodes) / len(rows.nodes)
    mean, sd = theta.mean(0), theta.std(0)
    moving = np.flatnonzero(sd > 1e-9)
    q, r = np.linalg.qr((theta[:, moving] - mean[moving]) / sd[moving])
    coefficients = np.zeros((s, 1 + theta.shape[1]))
    unit, level = rows.slope.std(0), rows.slope.mean(0)
    for i in np.flatnonzero(unit > 1e-9):
        y = (rows.slope[:, i] - level[i]) / unit[i]
        b = _least_bic(r, q.T @ y, y @ y, rows.freedom[i])
        coefficients[i, 1 + moving] = b * unit[i] / sd[moving]
        coefficients[i, 0] = level[i] - coefficients[i, 1 + moving] @ mean[moving]
    powers = np.vstack([np.zeros((1, library.n_features_in_), int), library.powers_])
    return _answer(data, powers, coefficients, np.concatenate(rows.nodes), unit)


def _least_bic(r: np.ndarray, y: np.ndarray, total: float, n: float) -> np.ndarray:
    """The support of the least criterion on the path that drops the smallest terms; its coefficients.

    ``r`` and ``y`` are the regression after a QR decomposition, ``total`` the sum of squares before it.
    """
    p = r.shape[1]
    rest = max(total - y @ y, 0.0)
    keep, least, best = np.arange(p), n * np.log(total), np.zeros(p)
    while len(keep):
        b, k = lstsq(r[:, keep], y, lapack_driver="gelsy")[0], len(keep)
        score = n * np.log(rest + ((y - r[:, keep] @ b) ** 2).sum() + 1e-300) + k * np.log(n)
        score += 2 * (gammaln(p + 1) - gammaln(k + 1) - gammaln(p - k + 1))
        if score < least:
            least, best = score, np.bincount(keep, b, minlength=p)
        keep = np.sort(keep[np.argsort(np.abs(b))[max(k // 10, 1) :]])
    return best


def _intervals(data: BenchmarkSet) -> Intervals:
    """Smooth every trajectory, one strength per variable by generalised cross-validation."""
    smoothed = smooth(data.times, data.states)
    slopes, nodes = [], [[] for _ in NODES]
    for knots, states in zip(smoothed.knots, smoothed.states, strict=True):
        h = np.diff(knots)
        slopes.append(np.diff(states, axis=0) / h[:, None])
        for k, node in enumerate(NODES):
            nodes[k].append(path(knots, states, knots[:-1] + node * h)[0])
    freedom = np.maximum(np.nan_to_num(smoothed.dof) - len(slopes), 2.0)  # slopes know nothing of levels
    return Intervals([np.concatenate(_with_inputs(data, parts)) for parts in nodes], np.concatenate(slopes), freedom)


def _inputs(data: BenchmarkSet, states: list[np.ndarray]) -> list[np.ndarray] | None:
    """The inputs of every trajectory, repeated along it."""
    if data.inputs is None:
        return None
    return [np.repeat(row[None], len(part), axis=0) for row, part in zip(data.inputs, states, strict=True)]


def _with_inputs(data: BenchmarkSet, states: list[np.ndarray]) -> list[np.ndarray]:
    """States beside the inputs of their trajectory."""
    u = _inputs(data, states)
    return states if u is None else [np.hstack(pair) for pair in zip(states, u, strict=True)]


def _answer(
    data: BenchmarkSet, powers: np.ndarray, coefficients: np.ndarray, every: np.ndarray, unit: np.ndarray
) -> Answer:
    """A source scores the largest coefficient, in standard units, of the terms in which it takes part.

    ``powers`` is (term, variable), ``coefficients`` (target, term), ``every`` samples of all variables and inputs.
    """
    s = len(coefficients)
    weight = np.abs(coefficients) * _terms(every, powers).std(0) / np.where(unit > 0, unit, 1.0)[:, None]
    scores = np.stack([(weight[:, powers[:, j] > 0]).max(1, initial=0.0) for j in range(s)], axis=1)
    scores = fold(scores, len(data.truth))

    def field(x: np.ndarray) -> np.ndarray:
        return _terms(x, powers[:, : x.shape[-1]]) @ coefficients.T

    return with_forecasts(Answer(scores, scores), data, runge_kutta(field, data))


def _terms(x: np.ndarray, powers: np.ndarray) -> np.ndarray:
    """Monomials.  # (sample, variable), (term, variable) -> (sample, term)"""
    out = np.ones((len(x), len(powers)))
    for j, power in enumerate(powers.T):
        used = np.flatnonzero(power)
        out[:, used] *= x[:, j, None] ** power[used]
    return out
