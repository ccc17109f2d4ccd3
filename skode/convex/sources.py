"""From interval rows to the sources of every target: lines, splines where lines do not do, hubs where there are any."""

from __future__ import annotations

from functools import partial

import numpy as np
import scipy.sparse

from skode._typing import BoolArray, FloatArray, IntArray
from skode.convex._hubs import source_prices
from skode.convex._refit import refit
from skode.convex._rows import row_means
from skode.convex.select import SHARE_OF_ROWS, Known, Selection, intercepts_of, products_of, select
from skode.convex.splines import edge_evidence, select_splines


def select_sources(
    nodes: FloatArray,
    quadrature: FloatArray | scipy.sparse.csr_array,
    slopes: FloatArray,
    weights: FloatArray,
    *,
    alphas: FloatArray,
    alpha: float | None = None,
    allowed: BoolArray | None = None,
    noise: FloatArray | None = None,
    freedom: FloatArray | None = None,
    own: IntArray | None = None,
    peers: BoolArray | None = None,
    known: Known | None = None,
) -> Selection:
    r"""Select by the adaptive lasso and, if splines describe the rows better than lines, exchange sources with these.

    ``alphas[-1]``, the weakest strength of the path, is the least share of a target's mean square that an edge must
    explain. What is left of a row is noise of its own, a share r of the mean square, and misfit of the field, which is
    one error seen again in neighbouring rows: noise counts once, misfit 1 / ``SHARE_OF_ROWS`` times,

    .. math:: n = \frac{(\sum_k w_k)^2 / \sum_k w_k^2}{r + (1 - r) / share}.

    r is 0 for the first choice, unless one is ``known``; where noise is known, what is left then tells r, and the
    choice is repeated. n is never more than ``freedom``.

    What is chosen tells how targets are shared out among sources. If that is more uneven than chance makes it, edges of
    sources with many targets cost less, those of others more (``source_prices``), and sources are chosen once more.

    Parameters
    ----------
    nodes : array (interval, node, source)
    quadrature : array (row, node) or sparse array (row, interval x node)
        Weights of the nodes in the mean over an interval.
    slopes : array (row, target)
        Mean production of every row.
    weights : array (row,) or (row, target)
    alphas : array (alpha,)
        Falling strengths.
    alpha : float, default None
        The support of the adaptive lasso at exactly this strength instead; lines alone, whatever is known.
    allowed : array (target, source) of bool, default None
        False never enters.
    noise : array (target,), default None
        Variance that noise in the target's own observations gives to a row of weight 1; a row of weight w has
        that over w. None is 0.
    freedom : array (target,), default None
        Independent slopes in the rows: a path that was smoothed has fewer than intervals. None is one for each row.
    own : array (target,) of int, default None
        The source that a target is itself. None is none.
    peers : array (source,) of bool, default None
        Sources of one kind, whose numbers of targets may be compared. None is all.
    known : Known, default None
        What a choice on nearly the same rows taught, from which this one sets out. None finds out.

    Returns
    -------
    Selection
        ``alphas`` are the strengths at which the lasso's supports stand, from which the exchange began; ``path`` and
        ``alpha_max`` are those where all sources cost the same, as with a given ``alpha``, unless a choice is known.
        ``evidence`` is None with a given ``alpha``.
    """
    features = row_means(nodes, quadrature)
    rows = np.broadcast_to(weights.sum(axis=0) ** 2 / (weights**2).sum(axis=0), slopes.shape[1:])
    rows = rows if freedom is None else np.minimum(rows, freedom / SHARE_OF_ROWS)
    half = SHARE_OF_ROWS * rows
    convex = partial(select, features, slopes, weights, alphas=alphas, allowed=allowed)
    if alpha is not None:
        return convex(alpha=alpha, n_rows=half)
    exchange = partial(select_splines, nodes, quadrature, slopes, weights, least=float(alphas[-1]))

    def independent(residual: FloatArray) -> FloatArray:
        """How many rows are, by what is left of them.  # (target,)"""
        share = (
            0.0 if noise is None else np.clip(noise / np.maximum(_left(slopes, weights, residual), 1e-300), 0.0, 1.0)
        )
        return np.asarray(rows / (share + (1.0 - share) / SHARE_OF_ROWS))

    def choose(n_rows: FloatArray, m: int, prices: FloatArray | None) -> tuple[Selection, BoolArray, FloatArray]:
        """Convex problems, the sources among m functions each, and what these leave."""
        found = convex(n_rows=n_rows if m == 1 else half, prices=prices)
        if m == 1:
            return found, found.support, found.residual
        bent = exchange(start=found.support, scores=found.scores, n_rows=n_rows, n_functions=(m,), prices=prices)
        return found, bent.support, bent.residual

    if known is None:
        found = convex(n_rows=half)
        bent = exchange(start=found.support, scores=found.scores, n_rows=half)
        n_rows, m = independent(bent.residual), bent.n_functions
        path, top, support, residual = found.path, found.alpha_max, bent.support, bent.residual
        if noise is not None and noise.any():
            del found  # matrices of all pairs
            found, support, residual = choose(n_rows, m, None)
        prices = source_prices(support, allowed=allowed, own=own, peers=peers)
        if prices is not None:
            del found
            found, support, residual = choose(n_rows, m, prices)
        found = found._replace(path=path, alpha_max=top)
    else:
        n_rows, m = known.n_rows, known.n_functions
        prices = source_prices(known.support, allowed=allowed, own=own, peers=peers)
        found, support, residual = choose(n_rows, m, prices)
    if m > 1:
        found = _with_support(found, support, features, slopes, weights)
    given = nodes, quadrature, slopes, weights
    evidence = edge_evidence(*given, support=support, n_functions=m, n_rows=n_rows, prices=prices)
    return found._replace(evidence=evidence, known=Known(independent(residual), m, support))


def _left(slopes: FloatArray, weights: FloatArray, residual: FloatArray) -> FloatArray:
    """Variance of what is left of a row of weight 1, from the share of the mean square that is.  # (target,)"""
    w = np.broadcast_to(weights if weights.ndim == 2 else weights[:, None], slopes.shape)
    mean = (w * slopes).sum(axis=0) / np.maximum(w.sum(axis=0), 1e-300)
    left: FloatArray = residual * (w * (slopes - mean) ** 2).sum(axis=0) / np.maximum((w > 0).sum(axis=0), 1)
    return left


def _with_support(
    found: Selection, support: BoolArray, features: FloatArray, slopes: FloatArray, weights: FloatArray
) -> Selection:
    """Least squares of lines on another support."""
    coefficients, residual = np.zeros(support.shape), np.ones(len(support))
    for targets, products, _ in products_of(features, slopes, weights):
        on, residual[targets] = refit(products, scipy.sparse.csr_array(support[targets].astype(np.float64)))
        coefficients[targets] = on.toarray()
    intercepts = intercepts_of(features, slopes, weights, coefficients)
    return found._replace(support=support, coefficients=coefficients, intercepts=intercepts, residual=residual)
