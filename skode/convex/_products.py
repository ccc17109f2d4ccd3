"""Scalar products of sources and slopes that the convex problems need, all targets at once.

With weights w_kt that add up to 1 over the rows k of every target t, and everything centred by them:

    cross_tj = sum_k w_kt s_kt z_kj,    power_t = sum_k w_kt s_kt^2,    G_tij = sum_k w_kt z_ki z_kj

Two ways to give blocks of G and the correlations cross - G beta, the same answer: one Gram matrix where all
targets weigh their rows alike, and products with the rows where they do not (missing values).
"""

from __future__ import annotations

import abc
from dataclasses import dataclass, replace
from typing import Self, final

import numpy as np
import scipy.linalg
import scipy.sparse

from skode._typing import FloatArray, IntArray

DENSE = 0.03
"""Share of non-zero coefficients from which on a dense matrix product is faster than a sparse one."""


class AbstractProducts(abc.ABC):
    """Products of one regression problem per target."""

    cross: FloatArray  # (target, source)
    power: FloatArray  # (target,)

    @abc.abstractmethod
    def blocks(self, targets: IntArray, index: IntArray) -> FloatArray:  # (b,), (b, m)
        """Return G[t][index_t, index_t] for every target asked, (b, m, m)."""

    @abc.abstractmethod
    def correlations(self, targets: IntArray, coefficients: scipy.sparse.csr_array) -> FloatArray:  # (b, source)
        """Return cross - G beta, (b, source)."""

    @abc.abstractmethod
    def ridge(self, strength: float, start: scipy.sparse.csr_array) -> FloatArray:
        """Ridge coefficients of what the start leaves, (target, source); for a ranking."""

    @abc.abstractmethod
    def scaled(self, factors: FloatArray) -> Self:  # (target,)
        """Multiply the slopes by a factor per target."""


@final
@dataclass(frozen=True)
class GramProducts(AbstractProducts):
    """All targets weigh the rows alike: one Gram matrix serves them all."""

    cross: FloatArray
    power: FloatArray
    gram: FloatArray  # (source, source)

    @classmethod
    def build(cls, features: FloatArray, slopes: FloatArray, weights: FloatArray) -> GramProducts:
        """Centre and multiply; features (row, source), slopes (row, target), weights (row,)."""
        w = (weights / weights.sum())[:, None]
        root = np.sqrt(w)
        z = root * (features - (w * features).sum(axis=0))
        s = root * (slopes - (w * slopes).sum(axis=0))
        return cls(np.asarray(s.T @ z), np.asarray((s**2).sum(axis=0)), np.asarray(z.T @ z))

    def blocks(self, targets: IntArray, index: IntArray) -> FloatArray:
        return np.asarray(self.gram[index[:, :, None], index[:, None, :]])

    def correlations(self, targets: IntArray, coefficients: scipy.sparse.csr_array) -> FloatArray:
        out: FloatArray = self.cross[targets]
        out -= _times(coefficients, self.gram)
        return out

    def ridge(self, strength: float, start: scipy.sparse.csr_array) -> FloatArray:
        right = self.correlations(np.arange(len(self.power)), start)
        return _solve_ridge(self.gram, strength, right)

    def scaled(self, factors: FloatArray) -> Self:
        return replace(self, cross=self.cross * factors[:, None], power=self.power * factors**2)


@final
@dataclass(frozen=True)
class RowProducts(AbstractProducts):
    """Every target has weights of its own: products go through the rows, and no Gram matrix is stored."""

    cross: FloatArray
    power: FloatArray
    features: FloatArray  # (row, source)
    weights: FloatArray  # (row, target), columns add up to 1

    @classmethod
    def build(cls, features: FloatArray, slopes: FloatArray, weights: FloatArray) -> RowProducts:
        """Centre and multiply; features (row, source), slopes and weights (row, target)."""
        w = weights / weights.sum(axis=0)
        features = features - features.mean(axis=0)
        s = w * (slopes - (w * slopes).sum(axis=0))
        return cls(np.asarray(s.T @ features), np.asarray((s * slopes).sum(axis=0)), features, w)

    def blocks(self, targets: IntArray, index: IntArray) -> FloatArray:
        out = np.empty((*index.shape, index.shape[1]))
        for b, (target, columns) in enumerate(zip(targets, index, strict=True)):
            w = self.weights[:, target, None]
            z = self.features[:, columns]
            z = np.sqrt(w) * (z - (w * z).sum(axis=0))
            out[b] = z.T @ z
        return out

    def correlations(self, targets: IntArray, coefficients: scipy.sparse.csr_array) -> FloatArray:
        fitted = _times(coefficients, self.features.T)  # (b, row)
        w = self.weights[:, targets].T
        fitted -= (w * fitted).sum(axis=1, keepdims=True)
        return np.asarray(self.cross[targets] - (w * fitted) @ self.features)

    def ridge(self, strength: float, start: scipy.sparse.csr_array) -> FloatArray:
        """As for one Gram matrix, that of the mean weights; approximate where weights differ much."""
        root = np.sqrt(self.weights.mean(axis=1, keepdims=True))
        z = root * (self.features - (root**2 * self.features).sum(axis=0))
        return _solve_ridge(np.asarray(z.T @ z), strength, self.correlations(np.arange(len(self.power)), start))

    def scaled(self, factors: FloatArray) -> Self:
        return replace(self, cross=self.cross * factors[:, None], power=self.power * factors**2)


def _solve_ridge(gram: FloatArray, strength: float, right: FloatArray) -> FloatArray:
    """Solve for all targets in the memory of ``right``, (target, source)."""
    system = gram.copy()
    system[np.diag_indices_from(system)] += strength
    return np.asarray(scipy.linalg.solve(system, right.T, assume_a="pos", overwrite_a=True, overwrite_b=True).T)


def _times(coefficients: scipy.sparse.csr_array, matrix: FloatArray) -> FloatArray:
    """Sparse times dense, through the dense product where there is little to save."""
    if coefficients.nnz > DENSE * np.prod(coefficients.shape):
        return np.asarray(coefficients.toarray() @ matrix)
    return np.asarray(coefficients @ matrix)
