"""Choose the sources of every target: lasso path, adaptive second path, extended BIC or a given strength."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy.sparse

from skode._typing import AnyArray, BoolArray, FloatArray, IntArray, ranking_type
from skode.convex._products import AbstractProducts, GramProducts, RowProducts
from skode.convex._refit import ebic, refit
from skode.convex.path import LassoPath, alpha_max, lasso_path

FIRST_STAGE = 0.05
"""Strength whose coefficients make the adaptive factors."""
LARGEST_FACTOR = 50.0
"""Bound on an adaptive factor, so that what the first stage cut may come back if it must."""
EBIC_GAMMA = 1.0
"""Weight of the prior over supports; 1 treats all sizes alike, and is consistent for any power of n sources."""
SHARE_OF_ROWS = 0.5
"""Independent observations per row: neighbouring rows share an observation, and a linear field's misfit along a
trajectory is one error seen again and again."""
SCORE_FROM = 0.05
"""Weakest strength of the adaptive path that enters the ranking; under noise the rest of the path ranks noise."""
RIDGE = 0.1
GRAM_SHARE = 0.05
"""Targets with one column of weights, as a share of the sources, from which on a Gram matrix is cheaper than rows."""


class Known(NamedTuple):
    """What a choice of sources teaches about the rows."""

    n_rows: FloatArray  # (target,) how many are independent
    n_functions: int  # of every source that describe them best; 1 is the line
    support: BoolArray  # (target, source)


class Selection(NamedTuple):
    """Sources of every target, and how they were found."""

    support: BoolArray  # (target, source), free ones included
    coefficients: FloatArray  # (target, source) least squares on the support, in units of the slopes
    intercepts: FloatArray  # (target,)
    alphas: FloatArray  # (target,) strength of the adaptive path at which the support stands
    residual: FloatArray  # (target,) mean square left, as a share of what intercept and free coefficients leave
    scores: AnyArray  # (target, source) dense ranking >= 0, all pairs; of ``ranking_type``
    converged: BoolArray  # (target,)
    path: list[scipy.sparse.csr_array]  # (target, source) at every strength of the adaptive path
    alpha_max: FloatArray  # (target,) from which on no source has a coefficient on the first path
    evidence: FloatArray | None = None  # (target, source) rise of the extended BIC without the edge, where known
    known: Known | None = None  # what this choice teaches another one


def select(
    features: FloatArray,
    slopes: FloatArray,
    weights: FloatArray | None = None,
    *,
    alphas: FloatArray,
    free: BoolArray | None = None,
    allowed: BoolArray | None = None,
    alpha: float | None = None,
    n_rows: float | FloatArray | None = None,
    prices: FloatArray | None = None,
) -> Selection:
    r"""Select sources for all targets of a linear field, by an adaptive lasso on interval rows.

    Per target, with row weights that add up to 1 and s the slopes in units of what intercept and free coefficients
    leave of them (the loss of the field without edges is 1),

    .. math:: \min_k \sum_r w_r (s_r - k_0 - z_r k)^2 + \alpha \sum_j a_j |k_j|

    is solved down a path of strengths with a = 1, then with :math:`a_j = \min(50, \max_l |k_l| / |k_j|)` from strength
    .05 (the nearest on the path). Supports along the second path are refitted by least squares; the one of least
    extended BIC is taken, or that of the given ``alpha``.

    Parameters
    ----------
    features : array (row, source)
        Weighted mean of the sources over every interval; states of unit variance.
    slopes : array (row, target)
        In any unit. For trajectories that decay at a shared rate gamma: slope + gamma x, the production.
    weights : array (row,) or (row, target), default None
        >= 0; 0 takes a row out. A target's columns of weights decide how products are formed: a Gram matrix for
        each set of many targets with the same column, the rows for all others. None is 1 everywhere.
    alphas : array (alpha,)
        Falling strengths of both paths.
    free : array (target, source) of bool, default None
        Coefficients without a price, such as a variable's own decay. None is none.
    allowed : array (target, source) of bool, default None
        False never enters: neither support nor score, nor the count of candidates of EBIC. None is all. Free
        coefficients are allowed.
    alpha : float, default None
        The support at exactly this strength instead of the extended BIC's choice.
    n_rows : float or array (target,), default None
        Number of independent observations that EBIC counts per target. None is half of
        :math:`(\sum_r w_r)^2 / \sum_r w_r^2`.
    prices : array (target, source), default None
        > 0: factors on a_j of both paths and on the prior of the extended BIC (``source_prices``). None is 1.

    Returns
    -------
    Selection

    Notes
    -----
    A target leaves its path once it has more than n / log p sources, with n the independent observations and p the
    number of sources: beyond that (n / (2 log p) in rows) the lasso cannot tell a support [2]_. Its choice is among
    the strengths reached; a given ``alpha`` is always solved.

    Scores: mean absolute coefficient over strengths of the adaptive path from .05 on, a tenth of the mean over the
    first path, and a thousandth of a ridge regression, which parts what no path has touched.

    References
    ----------
    .. [1] Zou, "The adaptive lasso and its oracle properties", 2006, doi:10.1198/016214506000000735.
    .. [2] Wainwright, "Sharp thresholds for high-dimensional and noisy sparsity recovery using l1-constrained quadratic
       programming (lasso)", 2009, doi:10.1109/TIT.2009.2016018.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> features = rng.standard_normal((80, 12))
    >>> slopes = features[:, :2] - features[:, 3:5] + 0.3 * rng.standard_normal((80, 2))
    >>> found = select(features, slopes, alphas=np.geomspace(1.0, 0.005, 16))
    >>> [np.flatnonzero(row).tolist() for row in found.support]
    [[0, 3], [1, 4]]
    """
    n, n_targets = slopes.shape
    w = np.ones(n) if weights is None else weights
    unpriced = np.zeros((n_targets, features.shape[1]), dtype=np.bool_) if free is None else free
    barred = np.zeros_like(unpriced) if allowed is None else ~allowed & ~unpriced
    grid = np.asarray(alphas, dtype=np.float64)
    if alpha is not None:
        grid = np.append(grid[grid > alpha], alpha)
    parts, order = [], []
    for targets, products, column in products_of(features, slopes, w):
        mass = column.sum(axis=0) ** 2 / (column**2).sum(axis=0)
        given = mass * SHARE_OF_ROWS if n_rows is None else np.broadcast_to(n_rows, n_targets)[targets]
        effective = np.broadcast_to(given, len(targets)).astype(np.float64)
        own = prices if prices is None or len(targets) == n_targets else prices[targets]
        parts.append(_select(products, grid, unpriced[targets], barred[targets], alpha, effective, own))
        order.append(targets)
    place = np.argsort(np.concatenate(order))
    support, coefficients, chosen, residual, scores, converged, top = (
        _in_order([np.asarray(part[k]) for part in parts], place) for k in range(7)
    )
    path = [
        scipy.sparse.vstack([part.path[k] for part in parts], format="csr")[place]
        for k in range(min(len(part.path) for part in parts))
    ]
    intercepts = intercepts_of(features, slopes, w, coefficients)
    return Selection(support, coefficients, intercepts, chosen, residual, scores, converged, path, top)


def _in_order(parts: list[AnyArray], place: IntArray) -> AnyArray:
    """Rows of all parts by target; those of a single part, which are in order, without a copy."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)[place]


def products_of(
    features: FloatArray, slopes: FloatArray, weights: FloatArray
) -> Iterator[tuple[IntArray, AbstractProducts, FloatArray]]:
    """Targets, their scalar products, and their weights, formed as the weights allow."""
    for targets, column in _sets(weights, slopes.shape[1], features.shape[1]):
        if column.ndim == 1:
            yield targets, GramProducts.build(features, slopes[:, targets], column), column
        else:
            yield targets, RowProducts.build(features, slopes[:, targets], column), column


def intercepts_of(
    features: FloatArray, slopes: FloatArray, weights: FloatArray, coefficients: FloatArray
) -> FloatArray:
    """Intercepts that go with coefficients (target, source), by weighted means.  # (target,)"""
    share = np.broadcast_to(weights if weights.ndim == 2 else weights[:, None], slopes.shape)
    share = share / share.sum(axis=0)
    intercepts: FloatArray = (share * slopes).sum(axis=0) - np.einsum("ij,ij->i", coefficients, share.T @ features)
    return intercepts


def _sets(weights: FloatArray, n_targets: int, n_sources: int) -> list[tuple[IntArray, FloatArray]]:
    """Targets that share a column of weights with that column, then all others with their own columns."""
    if weights.ndim == 1:
        return [(np.arange(n_targets), weights)]
    columns, which, counts = np.unique(weights, axis=1, return_inverse=True, return_counts=True)
    which = which.ravel()
    many = np.flatnonzero(counts >= max(2.0, GRAM_SHARE * n_sources))
    sets = [(np.flatnonzero(which == c), np.ascontiguousarray(columns[:, c])) for c in many]
    others = np.flatnonzero(~np.isin(which, many))
    return [*sets, (others, np.ascontiguousarray(weights[:, others]))] if len(others) else sets


def _select(
    products: AbstractProducts,
    grid: FloatArray,
    free: BoolArray,
    barred: BoolArray,
    alpha: float | None,
    n_rows: FloatArray,
    prices: FloatArray | None,
) -> _Part:
    """Select for targets whose products come from one place."""
    left, scale = refit(products, scipy.sparse.csr_array(free.astype(np.float64)))
    unit = np.sqrt(scale * np.where(products.power > 0, products.power, 1.0))
    products = products.scaled(1.0 / unit)
    n_sources = free.shape[1]
    most = None if alpha is not None else max(10, int(n_rows.max() / np.log(max(n_sources, 2))))
    known = np.where(barred, np.inf, np.where(free, 0.0, 1.0)) if free.any() or barred.any() else None
    first = known if prices is None else prices if known is None else prices * known
    one = lasso_path(products, grid, factors=first, max_support=most)
    factors = adaptive_factors(_at(one, FIRST_STAGE).toarray(), free)
    if prices is not None:
        factors *= prices
    factors[barred] = np.inf
    two = lasso_path(products, grid, factors=factors, max_support=most)
    del factors
    if alpha is None:
        place = _least(products, two, free, barred, n_rows, prices)
    else:
        place = np.full(len(free), len(grid) - 1)
    chosen = _pick(two.coefficients, place)
    coefficients, residual = refit(products, chosen)
    support = np.zeros(free.shape, dtype=np.bool_)
    support[np.repeat(np.arange(len(free)), np.diff(chosen.indptr)), chosen.indices] = True
    last = int(np.searchsorted(-grid, -SCORE_FROM, side="right"))
    scores = _mean(two.coefficients[: max(last, 1)])
    scores += 0.1 * _mean(one.coefficients)
    touched = np.abs(products.ridge(RIDGE, left.multiply(1.0 / unit[:, None]).tocsr()))
    touched *= 1e-3
    scores += touched
    scores[barred] = 0.0
    return _Part(
        support,
        coefficients.multiply(unit[:, None]).toarray(),
        grid[place],
        residual * products.power,
        scores.astype(ranking_type(scores.shape), copy=False),
        one.converged & two.converged,
        alpha_max(products, factors=first),
        two.coefficients,
    )


class _Part(NamedTuple):
    """What was selected for targets whose products come from one place, in their own order."""

    support: BoolArray
    coefficients: FloatArray
    alphas: FloatArray
    residual: FloatArray
    scores: AnyArray
    converged: BoolArray
    alpha_max: FloatArray
    path: list[scipy.sparse.csr_array]


def adaptive_factors(coefficients: FloatArray, free: BoolArray) -> FloatArray:
    """Prices of the second stage, min(50, largest |k| of the target / |k|); free coefficients stay free.

    Parameters
    ----------
    coefficients : array (target, source)
        Of the first stage. A target without any keeps the largest price everywhere.
    free : array (target, source) of bool

    Returns
    -------
    array (target, source)
    """
    factors = np.abs(coefficients)
    factors[free] = 0.0
    some = factors > 0
    largest = np.broadcast_to(factors.max(axis=1, keepdims=True, initial=0.0), factors.shape)[some]
    bounded = np.minimum(largest / factors[some], LARGEST_FACTOR)
    factors.fill(LARGEST_FACTOR)
    factors[some] = bounded
    factors[free] = 0.0
    return factors


def _at(path: LassoPath, alpha: float) -> scipy.sparse.csr_array:
    return path.coefficients[int(np.argmin(np.abs(np.log(path.alphas / alpha))))]


def _mean(coefficients: list[scipy.sparse.csr_array]) -> FloatArray:
    total = np.abs(coefficients[0])
    for one in coefficients[1:]:
        total = total + np.abs(one)
    return np.asarray(total.toarray() / len(coefficients))


def _least(
    products: AbstractProducts,
    path: LassoPath,
    free: BoolArray,
    barred: BoolArray,
    n_rows: FloatArray,
    prices: FloatArray | None,
) -> IntArray:
    """Place on the path of the support with the least extended BIC, per target; the strongest of equals."""
    n_free = free.sum(axis=1)
    candidates = np.maximum((~free & ~barred).sum(axis=1), 1)
    best, place = np.full(len(free), np.inf), np.zeros(len(free), dtype=np.int64)
    for a, coefficients in enumerate(path.coefficients):
        _, residual = refit(products, coefficients)
        size = np.maximum(np.diff(coefficients.indptr) - n_free, 0.0)
        price = 1.0 if prices is None else _mean_price(coefficients, prices, free)
        value = ebic(residual, size, n_rows=n_rows, n_sources=candidates, gamma=EBIC_GAMMA, price=price)
        better = (value < best - 1e-9 * np.abs(best)) & (a < path.reached) if a else np.ones(len(free), dtype=np.bool_)
        best, place = np.where(better, value, best), np.where(better, a, place)
    return place


def _mean_price(support: scipy.sparse.csr_array, prices: FloatArray, free: BoolArray) -> FloatArray:
    """Mean price of the sources of every target that are not free; 1 where there are none.  # (target,)"""
    row = np.repeat(np.arange(len(free)), np.diff(support.indptr))
    paid = ~free[row, support.indices]
    size = np.bincount(row[paid], minlength=len(free))
    total = np.bincount(row[paid], prices[row, support.indices][paid], minlength=len(free))
    return np.where(size > 0, total / np.maximum(size, 1), 1.0)


def _pick(coefficients: list[scipy.sparse.csr_array], place: IntArray) -> scipy.sparse.csr_array:
    """Row of every target from its own place on the path."""
    used = np.unique(place)
    rows = [coefficients[int(a)][np.flatnonzero(place == a)] for a in used]
    back = np.argsort(np.concatenate([np.flatnonzero(place == a) for a in used]))
    return scipy.sparse.vstack(rows, format="csr")[back]
