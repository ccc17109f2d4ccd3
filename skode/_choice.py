"""Which strength: the rules that choose among supports, by held-out losses or by an information criterion."""

from __future__ import annotations

import numpy as np

from skode._prepared import Prepared
from skode._typing import FloatArray, IntArray
from skode.convex import EBIC_GAMMA, SHARE_OF_ROWS, ebic

TOLERANCE = 0.02
"""A smaller support may lose this share of the best held-out loss on top of one standard error."""
PLAIN = 0.02
"""Strength of the plain estimator, which stands in where nothing can be held out."""


def choose_levels(
    losses: FloatArray, alphas: FloatArray, n_edges: IntArray, selection: str | int, *, per_target: bool
) -> tuple[int, IntArray]:
    """The level that serves all targets, and that of every target.

    Parameters
    ----------
    losses : array (fold, level, target)
    alphas : array (level,)
    n_edges : array (level, target)
    selection : {"one_se", "best", "ebic"} or int
        A rule as for ``choose``, or a number of edges in all.
    per_target : bool
        False gives all targets the same level.

    Returns
    -------
    int
    array (target,) of int
    """
    n_targets = losses.shape[-1]
    in_all = n_edges.sum(-1)
    if isinstance(selection, int):
        best = int(np.argmin(np.abs(in_all - selection)))
    elif not len(losses):
        best = usual_level(alphas)
    else:
        best = choose(losses.sum(-1), in_all, selection)
        if per_target:
            return best, np.array([choose(losses[..., i], n_edges[:, i], selection) for i in range(n_targets)])
    return best, np.full(n_targets, best)


def usual_level(alphas: FloatArray) -> int:
    """The level nearest to the plain estimator's strength."""
    return int(np.argmin(np.abs(np.log(np.maximum(alphas, 1e-12) / PLAIN))))


def choose(losses: FloatArray, n_edges: IntArray, selection: str) -> int:
    """Pick one level from held-out losses.

    Parameters
    ----------
    losses : array (fold, level)
    n_edges : array (level,)
    selection : {"one_se", "best", "ebic"}
        The fewest edges among the levels whose mean paired difference to the best is within one standard error
        plus 2 % of the best loss; or the best (of losses, or of information criteria).

    Returns
    -------
    int

    Examples
    --------
    >>> import numpy as np
    >>> from skode._choice import choose
    >>> losses = np.array([[1.0, 0.50, 0.47], [1.0, 0.50, 0.52]])
    >>> choose(losses, np.array([0, 2, 5]), "one_se"), choose(losses, np.array([0, 2, 5]), "best")
    (1, 2)
    """
    mean = losses.mean(axis=0)
    best = int(np.lexsort((n_edges, mean))[0])
    if selection in ("best", "ebic"):
        return best
    difference = losses - losses[:, best : best + 1]
    error = difference.std(axis=0, ddof=min(1, len(losses) - 1)) / np.sqrt(len(losses))
    candidates = np.flatnonzero(difference.mean(axis=0) <= error + TOLERANCE * mean[best])
    return int(candidates[np.lexsort((mean[candidates], n_edges[candidates]))[0]])


def information(losses: FloatArray, n_edges: IntArray, prepared: Prepared) -> FloatArray:
    """Extended BIC in place of losses, from refits on all data; every second row counts (see ``convex.select``).

    There are never more independent rows than the smooth paths have parameters, and states of rest.

    Parameters
    ----------
    losses : array (1, level, target)
        Matching losses in sample, in units of the zero model's; 0 for targets that do not move.
    n_edges : array (level, target)
    prepared : Prepared

    Returns
    -------
    array (1, level, target)
    """
    effective = SHARE_OF_ROWS * prepared.slope_weights.sum(0) ** 2 / (prepared.slope_weights**2).sum(0)
    at_rest = (prepared.interval_trajectory < 0).sum()
    effective = np.minimum(effective, prepared.independent_slopes + at_rest)
    n_sources = prepared.nodes.shape[-1]
    values = [
        ebic(np.maximum(loss, 1e-12), size.astype(float), n_rows=effective, n_sources=n_sources, gamma=EBIC_GAMMA)
        for loss, size in zip(losses[0], n_edges, strict=True)
    ]
    return np.where(losses > 0, np.stack(values)[None], 0.0)
