"""The weighted lasso of every target along a falling sequence of strengths."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse

from skode._parallel import on_threads
from skode._typing import BoolArray, FloatArray, IntArray
from skode.convex._active import Active, minimise
from skode.convex._products import AbstractProducts

CHUNK = 256
"""Targets that go down the path together; bounds the memory for their correlations."""
BLOCK_ENTRIES = 250_000
"""Entries of the blocks that are solved in one call."""
MAX_ROUNDS = 200


@dataclass(frozen=True)
class LassoPath:
    """Coefficients of all targets at falling strengths.

    Parameters
    ----------
    alphas : array (alpha,)
    coefficients : list over alphas of sparse arrays (target, source)
        Stored entries are the active ones: they may be read by ``.toarray()`` or row by row.
    reached : array (target,)
        Number of strengths solved for that target; the later ones repeat its last coefficients.
    converged : array (target,) of bool
    """

    alphas: FloatArray
    coefficients: list[scipy.sparse.csr_array]
    reached: IntArray
    converged: BoolArray


def alpha_max(products: AbstractProducts, *, factors: FloatArray | None = None) -> FloatArray:
    r"""Smallest strength at which nothing but intercepts and free coefficients is left, per target.

    Without free coefficients it is :math:`\max_j 2 |cross_{ij}| / (a_{ij} m_i)`, with m the mean square of the slopes;
    with them, the correlations are those of the residual of the free part.

    Parameters
    ----------
    products : AbstractProducts
    factors : array (target, source), default None
        Price of every coefficient relative to alpha; 0 is free. None is 1 everywhere.

    Returns
    -------
    array (target,)
    """
    n_targets, n_sources = products.cross.shape
    out = np.zeros(n_targets)
    for targets in _chunks(n_targets):
        prices = np.ones((len(targets), n_sources)) if factors is None else factors[targets]
        state = _free(products, targets, prices)
        correlations = np.abs(products.correlations(targets, state.sparse(n_sources)))
        with np.errstate(divide="ignore", invalid="ignore"):
            out[targets] = np.where(prices > 0, 2.0 * correlations / prices, 0.0).max(axis=1)
    return out


def lasso_path(
    products: AbstractProducts,
    alphas: FloatArray,
    *,
    factors: FloatArray | None = None,
    max_support: int | None = None,
    tol: float = 1e-6,
) -> LassoPath:
    r"""Solve the lasso of every target along a path of strengths, warm-started, on active sets.

    For target i, with row weights that add up to 1, slopes of mean square 1 and the intercept minimised out,

    .. math:: \min_k \sum_r w_{ri} (s_{ri} - k_0 - z_r k)^2 + \alpha \sum_j a_{ij} |k_j|

    so that with unit-variance sources alpha is dimensionless and means what it means for ``group_lasso``.
    Every target keeps its own active set; the sets of many targets are solved together (feature-sign
    search), then the correlations of all sources are looked at, and the strongest violators enter.

    Parameters
    ----------
    products : AbstractProducts
        Of slopes scaled to a mean square of 1.
    alphas : array (alpha,)
        Falling strengths > 0.
    factors : array (target, source), default None
        a_ij >= 0; 0 leaves a coefficient free (a variable's own decay), infinity keeps it out. None is 1 everywhere.
    max_support : int, default None
        A target with more penalised non-zeros than this leaves the path. None is no bound.
    tol : float, default 1e-6
        How far, relative to alpha a_ij, a correlation may exceed its bound.

    Returns
    -------
    LassoPath
    """
    n_targets, n_sources = products.cross.shape
    reached = np.full(n_targets, len(alphas))
    converged = np.ones(n_targets, dtype=np.bool_)

    def solve(targets: IntArray) -> list[scipy.sparse.csr_array]:
        prices = np.ones((len(targets), n_sources)) if factors is None else factors[targets]
        state = _free(products, targets, prices)
        part = []
        on = np.arange(len(targets))
        for a, alpha in enumerate(alphas):
            prices_now = np.where(np.isinf(prices), np.inf, 0.5 * alpha * np.where(np.isinf(prices), 0.0, prices))
            converged[targets[on]] &= _solve(products, targets, state, prices_now, on, tol)
            part.append(state.sparse(n_sources))
            if max_support is not None:
                left = (state.signs[on] != 0).sum(axis=1) > max_support
                reached[targets[on[left]]] = a + 1
                on = on[~left]
        return part

    parts = on_threads(solve, _chunks(n_targets))
    joined = [scipy.sparse.vstack([p[a] for p in parts], format="csr") for a in range(len(alphas))]
    return LassoPath(np.asarray(alphas, dtype=np.float64), joined, reached, converged)


class _State:
    """Active sets of a chunk of targets, packed to the left; changed in place as the path goes on."""

    def __init__(self, index: IntArray, coefficients: FloatArray, signs: FloatArray, used: BoolArray) -> None:
        self.index, self.coefficients, self.signs, self.used = index, coefficients, signs, used

    def sparse(self, n_sources: int, rows: IntArray | None = None) -> scipy.sparse.csr_array:
        """Coefficients as (target, source)."""
        pick = slice(None) if rows is None else rows
        used, index, values = self.used[pick], self.index[pick], self.coefficients[pick]
        bounds = np.concatenate([[0], np.cumsum(used.sum(axis=1))])
        return scipy.sparse.csr_array((values[used], index[used], bounds), shape=(len(used), n_sources))

    def pack(self, rows: IntArray) -> None:
        """Move the used places of these rows to the left."""
        order = np.argsort(~self.used[rows], axis=1, kind="stable")
        for name in ("index", "coefficients", "signs", "used"):
            array = getattr(self, name)
            array[rows] = np.take_along_axis(array[rows], order, axis=1)

    def widen(self, width: int) -> None:
        """Make room for at least this many places."""
        more = width - self.used.shape[1]
        if more > 0:
            more = max(more, self.used.shape[1])
            for name in ("index", "coefficients", "signs", "used"):
                setattr(self, name, np.pad(getattr(self, name), ((0, 0), (0, more))))


def _chunks(n: int) -> list[IntArray]:
    return [np.arange(k, min(k + CHUNK, n)) for k in range(0, n, CHUNK)]


def _free(products: AbstractProducts, targets: IntArray, prices: FloatArray) -> _State:
    """Start with the free coefficients alone, fitted."""
    free = prices == 0
    width = max(int(free.sum(axis=1).max(initial=0)), 1)
    index = np.argsort(~free, axis=1, kind="stable")[:, :width]
    used = np.take_along_axis(free, index, axis=1)
    state = _State(np.where(used, index, 0), np.zeros(index.shape), np.zeros(index.shape), used)
    _settle(products, targets, state, prices, np.arange(len(targets)))
    return state


def _solve(
    products: AbstractProducts, targets: IntArray, state: _State, prices: FloatArray, on: IntArray, tol: float
) -> BoolArray:
    """Solve at these prices the targets at places ``on`` of the chunk; changes the state."""
    converged = np.zeros(len(targets), dtype=np.bool_)
    todo = on
    for _ in range(MAX_ROUNDS):
        fine = _settle(products, targets, state, prices, todo)
        todo = todo[fine]
        correlations = products.correlations(targets[todo], state.sparse(prices.shape[1], todo))
        excess = np.abs(correlations) - prices[todo]
        rows = np.repeat(np.arange(len(todo)), state.used[todo].sum(axis=1))
        excess[rows, state.index[todo][state.used[todo]]] = -np.inf
        violates = excess > tol * prices[todo]
        open_ = violates.any(axis=1)
        converged[todo[~open_]] = True
        todo, excess, correlations = todo[open_], np.where(violates, excess, -np.inf)[open_], correlations[open_]
        if len(todo) == 0:
            break
        _enter(state, todo, excess, correlations)
    return converged[on]


def _enter(state: _State, rows: IntArray, excess: FloatArray, correlations: FloatArray) -> None:
    """Add the strongest violators of every row, at most half as many as are there already, or eight."""
    sizes = state.used[rows].sum(axis=1)
    most = np.minimum(np.maximum(8, sizes // 2), np.isfinite(excess).sum(axis=1))
    widest = int(most.max())
    strongest = np.argpartition(-excess, widest - 1, axis=1)[:, :widest] if widest < excess.shape[1] else None
    if strongest is None:
        strongest = np.broadcast_to(np.arange(excess.shape[1]), excess.shape)
    value = np.take_along_axis(excess, strongest, axis=1)
    order = np.argsort(-value, axis=1)
    strongest = np.take_along_axis(strongest, order, axis=1)
    state.widen(int((sizes + most).max()))
    row, rank = np.nonzero(np.arange(widest) < most[:, None])
    source, place = strongest[row, rank], sizes[row] + rank
    state.index[rows[row], place] = source
    state.coefficients[rows[row], place] = 0.0
    state.signs[rows[row], place] = np.sign(correlations[row, source])
    state.used[rows[row], place] = True


def _settle(
    products: AbstractProducts, targets: IntArray, state: _State, prices: FloatArray, rows: IntArray
) -> BoolArray:
    """Minimise over the active sets of these rows, those of like size together; changes the state."""
    sizes = state.used[rows].sum(axis=1)
    ordering = np.argsort(sizes, kind="stable")
    fine = np.ones(len(rows), dtype=np.bool_)
    end = len(ordering)
    while end > 0:
        width = max(int(sizes[ordering[end - 1]]), 1)
        smallest = int(np.searchsorted(sizes[ordering[:end]], 0.7 * width - 2))
        begin = max(smallest, end - max(1, BLOCK_ENTRIES // width**2), 0)
        batch = ordering[begin:end]
        here = rows[batch]
        index = state.index[here, :width]
        start = Active(state.coefficients[here, :width], state.signs[here, :width], state.used[here, :width])
        found, fine[batch] = minimise(
            products.blocks(targets[here], index),
            np.where(start.used, np.take_along_axis(products.cross[targets[here]], index, axis=1), 0.0),
            np.where(start.used, prices[here[:, None], index], 0.0),
            start,
            max_iter=MAX_ROUNDS,
        )
        state.coefficients[here, :width], state.signs[here, :width], state.used[here, :width] = found
        end = begin
    state.pack(rows)
    return fine
