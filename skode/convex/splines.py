"""Selection with a spline of every source: what a linear field takes for edges may be a bend of others."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse

from skode._parallel import on_threads
from skode._typing import BoolArray, FloatArray, IntArray
from skode.convex._exchange import TINY, Features, Target
from skode.convex._rows import row_means

N_FUNCTIONS = (2, 4)
"""Functions of a source on offer next to the line. Three never did better than the better of these."""
N_CANDIDATES = 25
"""Sources of a target that may enter beside those it has: the best of a ranking."""
FEWEST = 10
"""Sources that a target may have however few rows there are."""
BLOCK_ENTRIES = 1_000_000
"""Values of functions at the nodes that are formed at a time."""
MANY = 32
"""Targets that one thread takes at a time."""
OUTER = 0.05
"""Share of the values outside the outer knots, on each side, where splines are straight."""


class SplineSelection(NamedTuple):
    """Sources of every target where each acts through a line or a spline."""

    support: BoolArray  # (target, source)
    n_functions: int  # of every source; 1 is the line, and leaves the support as it was
    residual: FloatArray  # (target,) mean square left, as a share of that of the intercept


def spline_features(nodes: FloatArray, quadrature: FloatArray | scipy.sparse.csr_array, n_functions: int) -> Features:
    """Natural cubic splines of every source, with knots at quantiles, averaged over each interval.

    Parameters
    ----------
    nodes : array (interval, node, source)
    quadrature : array (row, node) or sparse array (row, interval x node)
    n_functions : int
        1 is the source itself; m > 1 has m + 1 knots, and the source itself is one of its functions.

    Returns
    -------
    Features
    """
    n_rows, _, n_sources = nodes.shape
    values, rank = np.empty((n_rows, n_sources, n_functions)), np.empty(n_sources, dtype=np.int64)
    size = max(1, BLOCK_ENTRIES // max(1, nodes[:, :, 0].size * n_functions))
    for block in (slice(begin, begin + size) for begin in range(0, n_sources, size)):
        values[:, block], rank[block] = _spline_block(nodes[:, :, block], quadrature, n_functions)
    return Features(values, rank)


def _spline_block(nodes: FloatArray, quadrature: FloatArray | scipy.sparse.csr_array, n_functions: int) -> Features:
    """The functions of some sources."""
    sd = nodes.std(axis=(0, 1))
    z = (nodes - nodes.mean(axis=(0, 1))) / np.where(sd > TINY, sd, 1.0)
    columns = [row_means(z, quadrature)]
    if n_functions > 1:
        knots = np.quantile(z, np.linspace(OUTER, 1 - OUTER, n_functions + 1), axis=(0, 1))
        beyond = np.maximum(z - knots[-1], 0.0) ** 3
        bends = [(np.maximum(z - knot, 0.0) ** 3 - beyond) / np.maximum(knots[-1] - knot, TINY) for knot in knots[:-1]]
        columns += [row_means(bend - bends[-1], quadrature) for bend in bends[:-1]]
    raw = np.stack(columns, axis=2)
    raw = raw - raw.mean(axis=0)
    scale = np.sqrt((raw**2).mean(axis=0))
    raw = raw / np.where(scale > TINY, scale, 1.0)
    power, directions = np.linalg.eigh(np.einsum("ksm,ksn->smn", raw, raw) / max(len(raw), 1))
    kept = power > 1e-7 * np.maximum(power[:, -1:], TINY)
    whitened = np.einsum("ksm,smn->ksn", raw, directions) / np.sqrt(np.where(kept, power, np.inf))[None]
    return Features(whitened, kept.sum(axis=1))


def select_splines(
    nodes: FloatArray,
    quadrature: FloatArray | scipy.sparse.csr_array,
    slopes: FloatArray,
    weights: FloatArray,
    *,
    start: BoolArray,
    scores: FloatArray,
    least: float,
    n_rows: FloatArray,
    n_functions: tuple[int, ...] = (1, *N_FUNCTIONS),
    prices: FloatArray | None = None,
) -> SplineSelection:
    r"""Exchange sources of every target, each acting through a spline, for as long as the extended BIC falls.

    .. math:: s_i \approx c + \sum_{j \in S_i} g_{ij}(z_j), \qquad
       n \log(residual) + df \log n + 2 \log \binom{p}{|S_i|}

    with g_ij in the span of m functions, df in all. From the sources that a linear field has, the one that
    explains least for its price is dropped and the candidate that explains most is added, until neither lowers the
    criterion.
    A source that explains less than ``least`` of a target's mean square is dropped, and none is added that explains
    less than twice that: of rows without noise every trace of the unknown path inside an interval is significant. One
    number m serves all targets, that of the least sum of criteria; lines keep the sources as they are.

    Misfit of a linear field is explained by sources that have nothing to do with the target but go with bends
    of those that have. Networks in which sources act together are not sums, but still closer to sums than to lines.

    Parameters
    ----------
    nodes : array (interval, node, source)
    quadrature : array (row, node) or sparse array (row, interval x node)
        Weights of the nodes in the mean over an interval.
    slopes : array (row, target)
    weights : array (row,) or (row, target)
    start : array (target, source) of bool
        Sources by a linear field.
    scores : array (target, source)
        Ranking of the candidates; 0 is none.
    least : float
        Least share of a target's mean square that an edge must explain beside the others.
    n_rows : array (target,)
        Number of independent observations.
    n_functions : tuple of int, default (1, 2, 4)
        Numbers of functions on offer.
    prices : array (target, source), default None
        Factors on the last term of the criterion, as for ``select``. None is 1 everywhere.

    Returns
    -------
    SplineSelection

    References
    ----------
    "Sparse additive models", 2009, doi 10.1111/j.1467-9868.2009.00718.x (sums of functions of single sources).
    "Adaptive forward-backward greedy algorithm for learning sparse representations", 2011, doi
    10.1109/TIT.2011.2146690. We start from a lasso's support instead of from nothing.
    """
    n_targets, n_sources = start.shape
    w = np.broadcast_to(weights if weights.ndim == 2 else weights[:, None], slopes.shape)
    w = w / np.maximum(w.sum(axis=0), 1e-300)
    candidates = [_candidates(scores[i], start[i]) for i in range(n_targets)]

    def with_functions(m: int) -> tuple[float, SplineSelection]:
        features = spline_features(nodes, quadrature, m)
        support, left, values = np.zeros_like(start), np.ones(n_targets), np.zeros(n_targets)

        def exchange(targets: IntArray) -> None:
            for i in targets:
                some = candidates[i]
                most = max(FEWEST, int(n_rows[i] / np.log(max(n_sources, 2)) / m))
                own = None if prices is None else prices[i, some]
                problem = Target.build(features, slopes[:, i], w[:, i], some, n_sources, float(n_rows[i]), own)
                now = start[i, some]
                sources, values[i] = problem.value_of(now) if m == 1 else problem.exchange(now, least, most)
                left[i] = problem.residual(sources)
                support[i, some[sources]] = True

        on_threads(exchange, np.array_split(np.arange(n_targets), max(1, n_targets // MANY)))
        return float(values.sum()), SplineSelection(support, m, left)

    best, chosen = np.inf, SplineSelection(start, 1, np.ones(n_targets))
    for m in n_functions:
        total, found = with_functions(m)
        if total < best:
            best, chosen = total, found
    return chosen


def edge_evidence(
    nodes: FloatArray,
    quadrature: FloatArray | scipy.sparse.csr_array,
    slopes: FloatArray,
    weights: FloatArray,
    *,
    support: BoolArray,
    n_functions: int,
    n_rows: FloatArray,
    prices: FloatArray | None = None,
) -> FloatArray:
    """Rise of the extended BIC of a target without each of its sources, the others refitted.

    Parameters
    ----------
    nodes, quadrature, slopes, weights, n_rows, prices
        As in ``select_splines``.
    support : array (target, source) of bool
    n_functions : int

    Returns
    -------
    array (target, source)
        0 where there is no edge.
    """
    w = np.broadcast_to(weights if weights.ndim == 2 else weights[:, None], slopes.shape)
    w = w / np.maximum(w.sum(axis=0), 1e-300)
    features, out = spline_features(nodes, quadrature, n_functions), np.zeros(support.shape)
    for i in np.flatnonzero(support.any(axis=1)):
        some = np.flatnonzero(support[i])
        own = None if prices is None else prices[i, some]
        problem = Target.build(features, slopes[:, i], w[:, i], some, support.shape[1], float(n_rows[i]), own)
        out[i, some] = problem.evidence()
    return out


def _candidates(scores: FloatArray, start: BoolArray) -> IntArray:
    top = np.argsort(-scores, kind="stable")[:N_CANDIDATES]
    return np.union1d(top[scores[top] > 0], np.flatnonzero(start))
