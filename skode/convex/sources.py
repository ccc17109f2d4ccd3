"""From interval rows to the sources of every target: lines, splines where lines do not do, hubs where there are any."""

from __future__ import annotations

from functools import partial

import numpy as np
import scipy.sparse

from skode._typing import BoolArray, FloatArray, IntArray
from skode.convex._hubs import source_prices
from skode.convex._refit import refit
from skode.convex.select import SHARE_OF_ROWS, Selection, intercepts_of, products_of, select
from skode.convex.splines import edge_evidence, select_splines


def select_sources(
    nodes: FloatArray,
    quadrature: FloatArray,
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
) -> Selection:
    r"""Select by the adaptive lasso and, if splines describe the rows better than lines, exchange sources with these.

    ``alphas[-1]``, the weakest strength of the path, is the least share of a target's mean square that an edge must
    explain. What is left of a row is noise of its own, a share r of the mean square, and misfit of the field, which is
    one error seen again in neighbouring rows: noise counts once, misfit 1 / ``SHARE_OF_ROWS`` times,

    .. math:: n = \frac{(\sum_k w_k)^2 / \sum_k w_k^2}{r + (1 - r) / share}.

    r is 0 for the first choice; where noise is known, what is left then tells r, and the choice is repeated. n is never
    more than ``freedom``.

    What is chosen tells how targets are shared out among sources. If that is more uneven than chance makes it, edges of
    sources with many targets cost less, those of others more (``source_prices``), and sources are chosen once more.

    Parameters
    ----------
    nodes : array (row, node, source)
    quadrature : array (row, node)
        Weights of the nodes in the mean over an interval.
    slopes : array (row, target)
        Mean production over every interval.
    weights : array (row,) or (row, target)
    alphas : array (alpha,)
        Falling strengths.
    alpha : float, default None
        The support of the adaptive lasso at exactly this strength instead; lines alone.
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

    Returns
    -------
    Selection
        ``alphas`` are the strengths at which the lasso's supports stand, from which the exchange began; ``path`` and
        ``alpha_max`` are those where all sources cost the same, as with a given ``alpha``.
        ``evidence`` is None with a given ``alpha``.
    """
    features = np.einsum("kl,kls->ks", quadrature, nodes)
    rows = np.broadcast_to(weights.sum(axis=0) ** 2 / (weights**2).sum(axis=0), slopes.shape[1:])
    rows = rows if freedom is None else np.minimum(rows, freedom / SHARE_OF_ROWS)
    n_rows = n_convex = SHARE_OF_ROWS * rows
    convex = partial(select, features, slopes, weights, alphas=alphas, allowed=allowed)
    found = convex(alpha=alpha, n_rows=n_convex)
    if alpha is not None:
        return found
    exchange = partial(select_splines, nodes, quadrature, slopes, weights, least=float(alphas[-1]))
    bent = exchange(start=found.support, scores=found.scores, n_rows=n_rows)
    n_functions = bent.n_functions
    if noise is not None and noise.any():
        share = _share_of_noise(slopes, weights, bent.residual, noise)
        n_rows = rows / (share + (1.0 - share) / SHARE_OF_ROWS)
        if n_functions == 1:
            n_convex, found = n_rows, convex(n_rows=n_rows)
        else:
            bent = exchange(start=bent.support, scores=found.scores, n_rows=n_rows, n_functions=(n_functions,))
    support = found.support if n_functions == 1 else bent.support
    prices = source_prices(support, allowed=allowed, own=own, peers=peers)
    if prices is not None:
        path, top = found.path, found.alpha_max
        del found  # matrices of all pairs
        found = convex(n_rows=n_convex, prices=prices)._replace(path=path, alpha_max=top)
        again = partial(exchange, start=found.support, scores=found.scores, n_rows=n_rows, prices=prices)
        support = found.support if n_functions == 1 else again(n_functions=(n_functions,)).support
    if n_functions > 1:
        found = _with_support(found, support, features, slopes, weights)
    given = nodes, quadrature, slopes, weights
    evidence = edge_evidence(*given, support=support, n_functions=n_functions, n_rows=n_rows, prices=prices)
    return found._replace(evidence=evidence)


def _share_of_noise(slopes: FloatArray, weights: FloatArray, residual: FloatArray, noise: FloatArray) -> FloatArray:
    """Share of what is left of the rows that noise in the observations of the target explains.  # (target,)"""
    w = np.broadcast_to(weights if weights.ndim == 2 else weights[:, None], slopes.shape)
    mean = (w * slopes).sum(axis=0) / np.maximum(w.sum(axis=0), 1e-300)
    left = residual * (w * (slopes - mean) ** 2).sum(axis=0) / np.maximum((w > 0).sum(axis=0), 1)
    share: FloatArray = np.clip(noise / np.maximum(left, 1e-300), 0.0, 1.0)
    return share


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
