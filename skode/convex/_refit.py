"""Least squares on given supports, and the extended Bayesian information criterion that compares them."""

from __future__ import annotations

import numpy as np
import scipy.sparse
import scipy.special

from skode._typing import BoolArray, FloatArray, IntArray
from skode.convex._active import JITTER
from skode.convex._products import AbstractProducts

BLOCK_ENTRIES = 1_000_000
RESIDUAL_FLOOR = 1e-12
"""Share of a target's mean square below which a residual is rounding error."""


def refit(products: AbstractProducts, support: scipy.sparse.csr_array) -> tuple[scipy.sparse.csr_array, FloatArray]:
    """Least squares of every target on its support.

    Parameters
    ----------
    products : AbstractProducts
    support : sparse array (target, source)
        Stored entries are the support, whatever their value.

    Returns
    -------
    coefficients : sparse array (target, source)
    residual : array (target,)
        Mean square of what is left, as a share of the mean square of the slopes.
    """
    bounds, columns = support.indptr, support.indices
    sizes = np.diff(bounds)
    values = np.zeros(len(columns))
    explained = np.zeros(len(sizes))
    order = np.argsort(sizes, kind="stable")
    end = len(order)
    while end > 0 and sizes[order[end - 1]] > 0:
        width = int(sizes[order[end - 1]])
        smallest = int(np.searchsorted(sizes[order[:end]], max(1, 0.7 * width - 2)))
        begin = max(smallest, end - max(1, BLOCK_ENTRIES // width**2), 0)
        targets = order[begin:end].astype(np.int64)
        used = np.arange(width) < sizes[targets, None]
        entry = np.where(used, bounds[targets, None] + np.arange(width), 0)
        index = np.where(used, columns[entry], 0)
        found, explained[targets] = _least_squares(products, targets, index, used)
        values[entry[used]] = found[used]
        end = begin
    residual = 1.0 - explained / np.where(products.power > 0, products.power, 1.0)
    coefficients = scipy.sparse.csr_array((values, columns, bounds), shape=support.shape)
    return coefficients, np.where(products.power > 0, np.maximum(residual, RESIDUAL_FLOOR), 1.0)


def _least_squares(
    products: AbstractProducts, targets: IntArray, index: IntArray, used: BoolArray
) -> tuple[FloatArray, FloatArray]:
    blocks = np.where(used[:, :, None] & used[:, None, :], products.blocks(targets, index), 0.0)
    places = np.arange(index.shape[1])
    blocks[:, places, places] = np.where(used, blocks[:, places, places] * (1 + JITTER) + 1e-300, 1.0)
    cross = np.where(used, np.take_along_axis(products.cross[targets], index, axis=1), 0.0)
    found = np.linalg.solve(blocks, cross[:, :, None])[:, :, 0]
    return found, np.asarray((found * cross).sum(axis=1))


def ebic(
    residual: FloatArray,
    size: FloatArray,
    *,
    n_rows: FloatArray,
    n_sources: int | IntArray,
    gamma: float,
    price: float | FloatArray = 1.0,
) -> FloatArray:
    r"""Extended Bayesian information criterion of a linear model with Gaussian errors.

    .. math:: n \log(residual) + k \log n + 2 \gamma c \log \binom{p}{k}

    The last term is the prior: all supports of one size together weigh as much as those of another (gamma = 1, c = 1).
    gamma = 0 is BIC; for p of the order of n^c the criterion is consistent if gamma > 1 - 1 / (2 c).

    Parameters
    ----------
    residual : array
        Mean square of the residual, in any unit.
    size : array
        Number k of sources in the support.
    n_rows : array
        Effective number n of rows.
    n_sources : int or array
        Number p of candidates.
    gamma : float
        In [0, 1].
    price : float or array, default 1
        Mean price c of the sources in the support, relative to what they cost if all are alike.

    Returns
    -------
    array
        Smaller is better.

    References
    ----------
    .. [1] Chen & Chen, "Extended Bayesian information criteria for model selection with large model spaces",
       Biometrika 95, 2008, doi:10.1093/biomet/asn034.
    """
    p = np.asarray(n_sources, dtype=np.float64)
    lgamma = scipy.special.gammaln
    log_count = price * (lgamma(p + 1) - lgamma(size + 1) - lgamma(p - size + 1))
    return np.asarray(n_rows * np.log(residual) + size * np.log(n_rows) + 2.0 * gamma * log_count)
