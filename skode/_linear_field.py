"""A linear field of low rank: ridge regression of production on the sources, and forecasts with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse

from skode._typing import BoolArray, FloatArray

N_STEPS, MOST_STEPS = 8, 128
"""Runge-Kutta steps over one interval, at least and at most."""
LONGEST_STEP = 1.5
"""Decay rate times step at which there are more of them; beyond 2.8 the method is not stable."""
STRENGTHS = 10.0 ** np.arange(-2.5, 0.75, 0.25)
"""Ridge strengths whose evidence is compared, for sources of unit variance; a weaker one interpolates the rows."""


class LinearField(NamedTuple):
    """z' = constant + readout V'(z - center) - gamma z for what moves: decay plus a field of rank r at most."""

    center: FloatArray  # (source,)
    basis: FloatArray  # (source, r)
    readout: FloatArray  # (moving, r)
    constant: FloatArray  # (moving,)

    def simulate(self, starts: FloatArray, lengths: FloatArray, gamma: float, moves: BoolArray) -> FloatArray:
        """Runge-Kutta from (row, source) over (row,), giving (row, moving).

        Runge-Kutta commutes with linear maps, so steps are taken in the r coordinates that production reads; Simpson's
        rule on them gives the decay-weighted integral of production.
        """
        own = self.basis[: len(moves)][moves]
        still = (starts - self.center) @ self.basis - starts[:, : len(moves)][:, moves] @ own
        matrix, drift = self.readout.T @ own, self.constant @ own
        stiffness = gamma * float(lengths.max(initial=0.0)) / LONGEST_STEP
        n_steps = int(np.clip(np.ceil(stiffness), N_STEPS, MOST_STEPS))
        step = (lengths / n_steps)[:, None]
        half, whole = np.exp(-0.5 * gamma * step), np.exp(-gamma * step)

        def slope(w: FloatArray) -> FloatArray:
            return np.asarray(drift + w @ matrix - gamma * (w - still))

        start = starts[:, : len(moves)][:, moves]
        w = still + start @ own
        total = np.zeros_like(w)
        for _ in range(n_steps):
            first = slope(w)
            second = slope(w + 0.5 * step * first)
            third = slope(w + 0.5 * step * second)
            middle = w + 0.25 * step * (first + second)
            fourth = slope(w + step * third)
            after = w + step / 6.0 * (first + 2.0 * second + 2.0 * third + fourth)
            total = whole * total + step / 6.0 * (whole * w + 4.0 * half * middle + after)
            w = after
        length = lengths if gamma == 0 else -np.expm1(-gamma * lengths) / gamma
        decayed = np.exp(-gamma * lengths)[:, None] * start
        return np.asarray(decayed + length[:, None] * self.constant + total @ self.readout.T)


def ridge_fields(
    features: FloatArray, production: FloatArray, weights: FloatArray, strengths: Sequence[float]
) -> list[LinearField]:
    """Ridge of the production of what moves on the sources, one field for every strength.

    Parameters
    ----------
    features : array (row, source)
        Sources of unit variance.
    production : array (row, moving)
        Slope plus gamma times the mean state.
    weights : array (row,)
    strengths : sequence of float
        Added to the weighted covariance of the features.

    Returns
    -------
    list of LinearField
    """
    parts = _Decomposition.of(features, production, weights)
    return [parts.field(strength) for strength in strengths]


def likeliest_field(features: FloatArray, production: FloatArray, weights: FloatArray) -> tuple[LinearField, float]:
    r"""Ridge at the strength of largest evidence, one for all targets.

    With :math:`k_i \sim N(0, s_i^2 / \lambda)` and errors :math:`N(0, s_i^2)` of the weighted rows, v_r the
    eigenvalues of their covariance and n rows, the log evidence is, up to a constant,

    .. math:: -\tfrac12 \sum_i \Big[ (n - 1) \log \hat s_i^2(\lambda) + \sum_r \log(1 + v_r / \lambda) \Big],

    with the likeliest :math:`\hat s_i^2`. Forecasts from noisy starts prefer more shrinkage than forecasts from
    the denoised ones that the field is wanted for; the evidence asks how well the rows determine the field.

    Parameters
    ----------
    features : array (row, source)
    production : array (row, moving)
    weights : array (row,)

    Returns
    -------
    field : LinearField
    strength : float

    References
    ----------
    .. [1] MacKay, "Bayesian interpolation", Neural Computation 4, 1992, doi:10.1162/neco.1992.4.3.415.
    """
    parts = _Decomposition.of(features, production, weights)
    power = parts.load**2 / parts.values[:, None]  # (r, moving)
    rest = np.maximum(parts.total - power.sum(axis=0), 1e-12 * parts.total)
    n = max(len(features) - 1, 1)
    evidence = []
    for strength in STRENGTHS:
        growth = 1.0 + parts.values / strength
        left = (power / growth[:, None]).sum(axis=0) + rest
        known = left > 0
        evidence.append(-n * np.log(left[known]).sum() - known.sum() * np.log(growth).sum())
    strength = float(STRENGTHS[int(np.argmax(evidence))])
    return parts.field(strength), strength


def likeliest_beside(
    edges: scipy.sparse.csr_array, features: FloatArray, production: FloatArray, weights: FloatArray
) -> LinearField:
    """Field of known edges, and the ridge field of largest evidence for what they leave.

    Parameters
    ----------
    edges : sparse array (moving, source)
        Production per unit of every source.
    features, production, weights
        As for ``likeliest_field``.

    Returns
    -------
    LinearField
    """
    rest, _ = likeliest_field(features, production - (edges @ features.T).T, weights)
    constant, used = rest.constant + edges @ rest.center, np.unique(edges.indices)
    if rest.basis.shape[1] + len(used) >= features.shape[1]:  # as many directions as there are
        return LinearField(
            rest.center, np.eye(features.shape[1]), rest.readout @ rest.basis.T + edges.toarray(), constant
        )
    read = np.zeros((features.shape[1], len(used)))
    read[used, np.arange(len(used))] = 1.0
    basis, readout = np.hstack([rest.basis, read]), np.hstack([rest.readout, edges[:, used].toarray()])
    return LinearField(rest.center, basis, readout, constant)


class _Decomposition(NamedTuple):
    """Eigenvectors of the weighted covariance of the features, and the production along them."""

    center: FloatArray  # (source,)
    constant: FloatArray  # (moving,)
    basis: FloatArray  # (source, r)
    values: FloatArray  # (r,) variances
    load: FloatArray  # (r, moving) covariance with production
    total: FloatArray  # (moving,) variance of production

    @classmethod
    def of(cls, features: FloatArray, production: FloatArray, weights: FloatArray) -> _Decomposition:
        w = (weights / weights.sum())[:, None]
        center, constant = (w * features).sum(axis=0), (w * production).sum(axis=0)
        z, s = np.sqrt(w) * (features - center), np.sqrt(w) * (production - constant)
        if len(z) <= z.shape[1]:
            values, left = np.linalg.eigh(z @ z.T)
            keep = values > 1e-12 * values[-1]
            values, left = values[keep], left[:, keep]
            basis = z.T @ left / np.sqrt(values)
        else:
            values, basis = np.linalg.eigh(z.T @ z)
            keep = values > 1e-12 * values[-1]
            values, basis = values[keep], basis[:, keep]
            left = z @ basis / np.sqrt(values)
        return cls(center, constant, basis, values, np.sqrt(values)[:, None] * (left.T @ s), (s**2).sum(axis=0))

    def field(self, strength: float) -> LinearField:
        readout = (self.load / (self.values + strength)[:, None]).T
        return LinearField(self.center, self.basis, readout, self.constant)
