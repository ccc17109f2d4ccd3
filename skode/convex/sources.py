"""From interval rows to the sources of every target: lines first, then splines where lines do not do."""

from __future__ import annotations

from functools import partial

import numpy as np
import scipy.sparse

from skode._typing import BoolArray, FloatArray
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
) -> Selection:
    r"""Select by the adaptive lasso and, if splines describe the rows better than lines, exchange sources with these.

    ``alphas[-1]``, the weakest strength of the path, is the least share of a target's mean square that an edge must
    explain. What is left of a row is noise of its own, a share r of the mean square, and misfit of the field, which is
    one error seen again in neighbouring rows: noise counts once, misfit 1 / ``SHARE_OF_ROWS`` times,

    .. math:: n = \frac{(\sum_k w_k)^2 / \sum_k w_k^2}{r + (1 - r) / share}.

    r is 0 for the first choice; where noise is known, what is left then tells r, and the choice is repeated. n is never
    more than ``freedom``.

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

    Returns
    -------
    Selection
        ``alphas`` are the strengths at which the lasso's supports stand, from which the exchange began.
        ``evidence`` is None with a given ``alpha``.
    """
    features = np.einsum("kl,kls->ks", quadrature, nodes)
    rows = np.broadcast_to(weights.sum(axis=0) ** 2 / (weights**2).sum(axis=0), slopes.shape[1:])
    rows = rows if freedom is None else np.minimum(rows, freedom / SHARE_OF_ROWS)
    n_rows = SHARE_OF_ROWS * rows
    found = select(features, slopes, weights, alphas=alphas, alpha=alpha, allowed=allowed, n_rows=n_rows)
    if alpha is not None:
        return found
    choose = partial(select_splines, nodes, quadrature, slopes, weights, scores=found.scores, least=float(alphas[-1]))
    bent = choose(start=found.support, n_rows=n_rows)
    if noise is not None and noise.any():
        share = _share_of_noise(slopes, weights, bent.residual, noise)
        n_rows = rows / (share + (1.0 - share) / SHARE_OF_ROWS)
        if bent.n_functions == 1:
            found = select(features, slopes, weights, alphas=alphas, allowed=allowed, n_rows=n_rows)
        else:
            bent = choose(start=bent.support, n_rows=n_rows, n_functions=(bent.n_functions,))
    if bent.n_functions > 1:
        found = _with_support(found, bent.support, features, slopes, weights)
    evidence = edge_evidence(
        nodes, quadrature, slopes, weights, support=found.support, n_functions=bent.n_functions, n_rows=n_rows
    )
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
