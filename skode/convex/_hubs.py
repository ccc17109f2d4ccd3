"""What an edge costs by its source: one that drives many targets already is likelier to drive one more."""

from __future__ import annotations

import numpy as np
from scipy.special import chdtrc

from skode._typing import BoolArray, FloatArray, IntArray

CHANCE = 0.05
"""Probability with which sources that are all alike may differ as much, from which on they are taken to be alike."""
MOST = 0.5
"""Largest probability of an edge that is believed beforehand."""


def source_prices(
    support: BoolArray,
    *,
    allowed: BoolArray | None = None,
    own: IntArray | None = None,
    peers: BoolArray | None = None,
) -> FloatArray | None:
    r"""Price of every edge by how many other targets its source has, relative to the price if all sources were alike.

    Source j has n_j of the e_j targets that it may have. That number is taken for Poisson, with a rate that differs
    between sources by a gamma distribution of mean :math:`\rho` and shape a, estimated by moments. The mean of the rate
    given the other targets of j, at most one half, is the probability of an edge j -> i beforehand, and its logarithm
    the price:

    .. math:: \rho = \frac{\sum_j n_j}{\sum_j e_j}, \qquad
       a = \frac{\sum_j (\rho e_j)^2}{\sum_j [(n_j - \rho e_j)^2 - \rho e_j]}, \qquad
       \pi_{ij} = \min\Big(\frac{a + n_j - s_{ij}}{a / \rho + e_j - 1}, \frac12\Big), \qquad
       p_{ij} = \frac{\log \pi_{ij}}{\log \rho}

    with s_ij = 1 for an edge that is there, so that none is an argument for itself.

    Parameters
    ----------
    support : array (target, source) of bool
    allowed : array (target, source) of bool, default None
        False may not be an edge. None is all.
    own : array (target,) of int, default None
        The source that a target is itself. Such edges are no argument for others, and their price is 1. None is none.
    peers : array (source,) of bool, default None
        Sources that are of one kind. Others are no argument, and the price of their edges is 1. None is all.

    Returns
    -------
    array (target, source) or None
        None where sources differ no more than chance lets those that are alike, so that there is nothing to learn.

    Examples
    --------
    >>> import numpy as np
    >>> support = np.zeros((40, 30), dtype=bool)
    >>> support[np.arange(40), np.arange(40) % 30] = support[:12, 0] = True
    >>> support.sum(axis=0)[[0, 1, 20]].tolist(), source_prices(support)[39, [0, 1, 20]].round(2).tolist()
    ([13, 2, 1], [0.47, 0.96, 1.09])

    References
    ----------
    Liu and Ihler, "Learning Scale Free Networks by Reweighted L1 Regularization", 2011, Proceedings of Machine Learning
    Research 15, pages 40-48 (prices that fall with the degree of a node, found from the edges so far). We estimate
    how far degrees differ.
    """
    edges, targets = support.copy(), np.arange(len(support))
    possible = np.full(support.shape[1], float(len(support)))
    if allowed is not None:
        edges &= allowed
        possible = allowed.sum(axis=0).astype(np.float64)
    if own is not None:
        possible -= np.bincount(own, None if allowed is None else allowed[targets, own], minlength=len(possible))
        edges[targets, own] = False
    some = possible > 0 if peers is None else (possible > 0) & peers
    n, e = edges.sum(axis=0)[some], possible[some]
    share = n.sum() / max(e.sum(), 1.0)
    expected = share * e
    if not 0.0 < share < MOST:
        return None
    square = (n - expected) ** 2
    if chdtrc(max(len(n) - 1, 1), (square / expected).sum()) > CHANCE:
        return None
    shape = (expected**2).sum() / max((square - expected).sum(), 1e-9)
    without, with_it = np.ones((2, len(some)))  # prices of edges that are not there, and of those that are
    for prices, others in ((without, n), (with_it, np.maximum(n - 1, 0))):
        probability = (shape + others) / (shape / share + e - 1.0)
        prices[some] = np.log(np.minimum(probability, MOST)) / np.log(share)
    found = np.where(edges, with_it, without)
    if own is not None:
        found[targets, own] = 1.0
    return found
