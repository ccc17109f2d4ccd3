"""The natural cubic smoothing spline on one set of knots.

For knots s_1 < ... < s_n with weights v the spline minimises

    sum_i v_i (y_i - g(s_i))^2 + strength * integral g''(s)^2 ds.

With g'' = gamma at the inner knots, Q'g = R gamma (Q: n x (n - 2) second differences, R: tridiagonal), so
that the penalty is g' K g with K = Q R^-1 Q'. A penalty that is s times as strong in an interval makes its part of R
one s-th, with R gamma the products of stiffness and g''. Two ways to solve it, the same answer:

- `SpectralGrid`: the Demmler-Reinsch basis, one decomposition, after which every strength is a division;
- `BandedGrid`: Reinsch's pentadiagonal system, cost linear in n, for long series.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import final

import numpy as np
import scipy.interpolate
import scipy.linalg

from skode._typing import FloatArray

JITTER = 4e-15
"""Share by which a diagonal is raised: rounding of a factorisation with five bands is a few 1e-16."""


class AbstractGrid(abc.ABC):
    """What the smoother needs of one set of knots, in time of unit mean spacing, weights of mean 1."""

    @abc.abstractmethod
    def residual_freedom(self, strengths: FloatArray) -> FloatArray:  # (strength,)
        """Return n - trace of the smoother matrix for every strength, (strength,)."""

    @abc.abstractmethod
    def residual(self, values: FloatArray, strengths: FloatArray) -> FloatArray:  # (knot, d), (strength,)
        """Return the weighted residual sum of squares, (strength, d)."""

    @abc.abstractmethod
    def fit(self, values: FloatArray, strengths: FloatArray) -> FloatArray:  # (knot, d), (d,)
        """Return the smoothed values at the knots, (knot, d), each variable with its own strength."""


@final
@dataclass(frozen=True)
class SpectralGrid(AbstractGrid):
    """Demmler-Reinsch form: V^-1/2 K V^-1/2 = U diag(roughness) U'.

    The smoother is U diag(1 / (1 + strength roughness)) U' in the coordinates V^1/2 y. The squares of
    singular values keep the smallest roughness exact to many more digits than the eigenvalues of K would
    where intervals differ much in length.

    References
    ----------
    .. [1] Demmler & Reinsch, "Oscillation matrices with spline smoothing", 1975, doi:10.1007/BF01437406.
    .. [2] Green & Silverman, "Nonparametric Regression and Generalized Linear Models", 1994, section 2.
    """

    root_weights: FloatArray  # (knot, 1)
    basis: FloatArray  # (knot, component)
    roughness: FloatArray  # (component,)

    @classmethod
    def build(cls, knots: FloatArray, weights: FloatArray, stiffness: FloatArray | None = None) -> SpectralGrid:
        """Decompose the roughness penalty of three or more increasing knots, with a factor (interval,) if given."""
        n = len(knots)
        root = np.sqrt(weights)[:, None]
        differences = np.zeros((n - 2, n))
        row = np.arange(n - 2)
        for offset, band in enumerate(_second_differences(knots)):
            differences[row, row + offset] = band
        factor = scipy.linalg.cholesky_banded(_gram(knots, stiffness), lower=True)  # R = L L'
        lower = np.diag(factor[0]) + np.diag(factor[1, :-1], -1)
        half = scipy.linalg.solve_triangular(lower, differences / root.T, lower=True)  # K = half' half
        _, singular, right = np.linalg.svd(half, full_matrices=True)
        return cls(root, np.ascontiguousarray(right.T), np.append(singular**2, [0.0, 0.0]))

    def residual_freedom(self, strengths: FloatArray) -> FloatArray:
        return np.asarray(self._removed(strengths).sum(-1))

    def residual(self, values: FloatArray, strengths: FloatArray) -> FloatArray:
        power = (self.basis.T @ (self.root_weights * values)) ** 2
        return np.asarray(self._removed(strengths) ** 2 @ power)

    def fit(self, values: FloatArray, strengths: FloatArray) -> FloatArray:
        coefficients = self.basis.T @ (self.root_weights * values)
        removed = self.basis @ (self._removed(strengths).T * coefficients)
        return np.asarray(values - removed / self.root_weights)

    def _removed(self, strengths: FloatArray) -> FloatArray:  # (strength, component)
        amount = strengths[:, None] * self.roughness
        return np.asarray(amount / (1.0 + amount))


@final
@dataclass(frozen=True)
class BandedGrid(AbstractGrid):
    """Reinsch's form: (R + strength Q' V^-1 Q) gamma = Q'y, g = y - strength V^-1 Q gamma.

    n - trace = strength tr(A^-1 Q' V^-1 Q) needs the five central bands of A^-1 only, which follow from the
    factors A = L D L' by a backward recursion.

    References
    ----------
    .. [1] Reinsch, "Smoothing by spline functions", 1967, doi:10.1007/BF02162161.
    .. [2] Hutchinson & de Hoog, "Smoothing noisy data with spline functions", 1985, doi:10.1007/BF01389878.
    """

    weights: FloatArray  # (knot,)
    differences: FloatArray  # (3, knot - 2) the three diagonals of Q'
    gram: FloatArray  # (3, knot - 2) R in lower banded form, third band zero
    rough: FloatArray  # (3, knot - 2) Q' V^-1 Q in lower banded form
    sound: FloatArray  # the same, its diagonal raised so that rounding leaves R + strength Q' V^-1 Q definite

    @classmethod
    def build(cls, knots: FloatArray, weights: FloatArray, stiffness: FloatArray | None = None) -> BandedGrid:
        """Set up the bands for three or more increasing knots, with a factor (interval,) of the penalty if given."""
        q = np.stack(_second_differences(knots))
        n = q.shape[1]
        v = 1.0 / weights
        gram, rough = np.zeros((3, n)), np.zeros((3, n))
        gram[:2] = _gram(knots, stiffness)
        rough[0] = q[0] ** 2 * v[:-2] + q[1] ** 2 * v[1:-1] + q[2] ** 2 * v[2:]
        rough[1, :-1] = q[1, :-1] * q[0, 1:] * v[1:-2] + q[2, :-1] * q[1, 1:] * v[2:-1]
        rough[2, :-2] = q[2, :-2] * q[0, 2:] * v[2:-2]
        sound = rough * np.array([1.0 + JITTER, 1.0, 1.0])[:, None]
        return cls(weights, q, gram, rough, sound)

    def residual_freedom(self, strengths: FloatArray) -> FloatArray:
        bands = self.gram[:, :, None] + strengths * self.sound[:, :, None]  # (3, knot - 2, strength)
        n = bands.shape[1]
        # Two empty rows beyond the end (index -1 and -2 before the start) spare the special cases.
        pivot, first, second = np.zeros((3, n + 2, len(strengths)))
        for i in range(n):
            pivot[i] = bands[0, i] - pivot[i - 1] * first[i - 1] ** 2 - pivot[i - 2] * second[i - 2] ** 2
            first[i] = (bands[1, i] - pivot[i - 1] * first[i - 1] * second[i - 1]) / pivot[i]
            second[i] = bands[2, i] / pivot[i]
        inverse = np.zeros((3, n + 2, len(strengths)))
        for i in range(n - 1, -1, -1):
            inverse[2, i] = -first[i] * inverse[1, i + 1] - second[i] * inverse[0, i + 2]
            inverse[1, i] = -first[i] * inverse[0, i + 1] - second[i] * inverse[1, i + 1]
            inverse[0, i] = 1.0 / pivot[i] - first[i] * inverse[1, i] - second[i] * inverse[2, i]
        products = np.einsum("bks,bk->bs", inverse[:, :n], self.rough)
        return np.asarray(strengths * (products[0] + 2.0 * products[1] + 2.0 * products[2]))

    def residual(self, values: FloatArray, strengths: FloatArray) -> FloatArray:
        removed = (self._removed(values, strength) for strength in strengths)
        return np.stack([self.weights @ part**2 for part in removed])

    def fit(self, values: FloatArray, strengths: FloatArray) -> FloatArray:
        removed = [self._removed(values[:, [i]], strength) for i, strength in enumerate(strengths)]
        return np.asarray(values - np.concatenate(removed, axis=1))

    def _removed(self, values: FloatArray, strength: float) -> FloatArray:  # (knot, d)
        q, n = self.differences[:, :, None], self.differences.shape[1]
        right = sum(q[k] * values[k : n + k] for k in range(3))
        curvature = scipy.linalg.solveh_banded(self.gram + strength * self.sound, right, lower=True)
        out = np.zeros_like(values)
        for k in range(3):
            out[k : n + k] += q[k] * curvature
        return np.asarray(strength * out / self.weights[:, None])


def path(knots: FloatArray, states: FloatArray, times: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Evaluate the natural cubic spline through smoothed knots, and its slope.

    Beyond the first and last knot the spline goes on as a straight line; one knot is a constant, two are a
    line.

    Parameters
    ----------
    knots : float array, shape (n_knots,)
        Increasing times.
    states : float array, shape (n_knots, d)
        States at the knots; a variable with a nan is nan everywhere.
    times : float array, shape (n_times,)
        Where to evaluate, in any order.

    Returns
    -------
    values, derivatives : float arrays, shape (n_times, d)
        Derivatives are per unit of the given time.

    Examples
    --------
    >>> import numpy as np
    >>> states = np.array([[0.0], [2.0], [6.0]])
    >>> values, slopes = path(np.array([0.0, 1.0, 3.0]), states, np.array([0.5, 4.0]))
    >>> values.ravel().round(12).tolist(), slopes.ravel().round(12).tolist()
    ([1.0, 8.0], [2.0, 2.0])
    """
    if len(knots) == 1:
        values = np.repeat(states, len(times), axis=0)
        return values, np.where(np.isnan(values), np.nan, 0.0)
    known = ~np.isnan(states).any(axis=0)
    spline = scipy.interpolate.CubicSpline(knots, np.where(known, states, 0.0), bc_type="natural")
    inside = np.clip(times, knots[0], knots[-1])
    derivatives = np.where(known, spline(inside, 1), np.nan)
    return np.where(known, spline(inside), np.nan) + (times - inside)[:, None] * derivatives, derivatives


def _second_differences(knots: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the three diagonals of Q': 1/h_k, -1/h_k - 1/h_k+1, 1/h_k+1."""
    inverse = 1.0 / np.diff(knots)
    return inverse[:-1], -inverse[:-1] - inverse[1:], inverse[1:]


def _gram(knots: FloatArray, stiffness: FloatArray | None) -> FloatArray:  # (2, knot - 2)
    """Return R, the integrals of products of the hat functions at the inner knots, in lower banded form."""
    interval = np.diff(knots) if stiffness is None else np.diff(knots) / stiffness
    return np.stack([(interval[:-1] + interval[1:]) / 3.0, interval[1:] / 6.0])
