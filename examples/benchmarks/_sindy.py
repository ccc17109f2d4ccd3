"""Sparse regression on a library of monomials: PySINDy as it comes, and a stronger form that smooths and integrates."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from _answers import Answer, fold, runge_kutta, with_forecasts
from _regressions import changes
from _sets import BenchmarkSet
from sklearn.preprocessing import PolynomialFeatures

from skode.smooth import path, smooth

THRESHOLDS = np.geomspace(0.005, 0.5, 20)  # of standardised coefficients
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


class Rows(NamedTuple):
    """One row per interval."""

    nodes: list[np.ndarray]  # per node (row, s + m): smoothed states, then inputs
    slope: np.ndarray  # (row, s): change of the smooth over the interval, by its length


def sindy_integral(data: BenchmarkSet, _: int) -> Answer:
    """Sparse regression of the changes of smoothed states on integrals of monomials; degree and threshold by BIC.

    ``(x(t_k+1) - x(t_k)) / h_k = mean of library(x) over the interval``, two Gauss-Legendre nodes. Degrees up to 3
    with fewer terms than nine tenths of the rows. Per target and degree: least squares in standard units, thresholded
    again and again, over a path of thresholds; the support of least n log(RSS / n) + k log n is kept.
    """
    first = data.as_first_order()
    rows = _integral_rows(first)
    n_rows, s = rows.slope.shape
    libraries = [PolynomialFeatures(degree, include_bias=False).fit(rows.nodes[0][:1]) for degree in (1, 2, 3)]
    libraries = [lib for lib in libraries if lib.n_output_features_ < 0.9 * n_rows] or libraries[:1]
    powers = np.vstack([np.zeros((1, rows.nodes[0].shape[1]), int), libraries[-1].powers_])
    coefficients, best = np.zeros((s, len(powers))), np.full(s, np.inf)
    for library in libraries:  # lower degrees are the beginning of higher ones
        theta = sum(library.transform(x) for x in rows.nodes) / len(rows.nodes)
        mean, sd = theta.mean(0), theta.std(0)
        moving = np.flatnonzero(sd > 1e-9)
        z = (theta[:, moving] - mean[moving]) / sd[moving]
        for i in np.flatnonzero(rows.slope.std(0) > 1e-9):
            unit = rows.slope[:, i].std()
            score, b = _least_bic(z, (rows.slope[:, i] - rows.slope[:, i].mean()) / unit)
            if score < best[i]:
                best[i], coefficients[i] = score, 0.0
                coefficients[i, 1 + moving] = b * unit / sd[moving]
                coefficients[i, 0] = rows.slope[:, i].mean() - coefficients[i, 1 + moving] @ mean[moving]
    return _answer(data, powers, coefficients, np.concatenate(rows.nodes), rows.slope.std(0))


def _least_bic(z: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """The best of the path of thresholds, each begun from the support before it, by the Bayesian criterion."""
    n, p = z.shape
    keep, best = np.arange(p), (n * np.log((y**2).mean() + 1e-300), np.zeros(p))
    for threshold in THRESHOLDS:
        while len(keep):
            b = np.linalg.lstsq(z[:, keep], y, rcond=None)[0]
            large = np.abs(b) >= threshold
            if large.all():
                score = n * np.log(((y - z[:, keep] @ b) ** 2).mean() + 1e-300) + len(keep) * np.log(n)
                if score < best[0]:
                    best = (score, np.bincount(keep, b, minlength=p))
                break
            keep = keep[large]
    return best


def _integral_rows(data: BenchmarkSet) -> Rows:
    """Smooth every trajectory; one strength per variable, by generalised cross-validation."""
    smoothed = smooth(data.times, data.states)
    slopes, nodes = [], [[] for _ in NODES]
    for knots, states in zip(smoothed.knots, smoothed.states, strict=True):
        h = np.diff(knots)
        slopes.append(np.diff(states, axis=0) / h[:, None])
        for k, node in enumerate(NODES):
            nodes[k].append(path(knots, states, knots[:-1] + node * h)[0])
    return Rows([np.concatenate(_with_inputs(data, parts)) for parts in nodes], np.concatenate(slopes))


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
