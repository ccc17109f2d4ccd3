"""Graph recovery: a ranking or a set of inferred edges against the true dependency matrix.

A graph is a matrix of shape (target, source) = (d, d + m): entry ``[i, j]`` says whether variable j drives
variable i. The first d sources are the states, in the order of the targets, so the diagonal of that square
holds the self-edges. Rankings (AUROC, AUPRC) read ``scores``; counts (F1, SHD and so on) read ``matrix``,
where an edge is an entry above zero. Where a figure is 0 / 0 (no true edge, or none inferred) it is ``nan``,
never a flattering number.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from skode._typing import BoolArray, FloatArray
from skode.metrics._tables import as_edges, as_ranking, as_truth, kept_entries


class GraphScores(NamedTuple):
    """All graph figures of one comparison, as :func:`graph_scores` returns them.

    The fields that need what was not given (``scores`` or ``matrix``) are ``nan``, ``n_edges`` is ``None``.
    """

    auroc: float
    auprc: float
    f1: float
    precision: float
    recall: float
    balanced_accuracy: float
    shd: float
    prevalence: float
    n_true: int
    n_edges: int | None
    n_entries: int


class _Counts(NamedTuple):
    """The confusion table of a set of edges."""

    hits: int
    extra: int
    missed: int
    absent: int


def graph_scores(
    truth: ArrayLike,
    *,
    scores: ArrayLike | None = None,
    matrix: ArrayLike | None = None,
    self_edges: bool = True,
    targets: ArrayLike | None = None,
) -> GraphScores:
    """Compare an inferred graph with the true one by every figure of this module at once.

    Parameters
    ----------
    truth : array-like of shape (d, d + m), bool or 0/1
        True graph, row = target, column = source.
    scores : array-like of shape (d, d + m), default=None
        Ranking of all pairs, larger is more likely an edge (``dependency_scores_``). Without it AUROC and
        AUPRC are ``nan``.
    matrix : array-like of shape (d, d + m), bool or >= 0, default=None
        Inferred graph, an edge wherever an entry is above zero (``dependency_matrix_``). Without it the
        figures that need a threshold are ``nan``.
    self_edges : bool, default=True
        Whether i -> i counts. Leave self-edges out where the truth has none by convention (gene networks).
    targets : array-like of shape (d,) bool, or of int indices, default=None
        Compare these rows only, for example the variables that move: "this target never moves" is easy to
        see, and counting it flatters every method.

    Returns
    -------
    GraphScores
        ``auroc``, ``auprc``, ``f1``, ``precision``, ``recall``, ``balanced_accuracy``, ``shd`` (normalised),
        ``prevalence`` and the counts ``n_true``, ``n_edges``, ``n_entries`` of the compared entries.

    Raises
    ------
    ValueError
        If the shapes differ, the truth is not 0/1, scores hold NaN, or the matrix holds NaN or negative
        entries.

    Examples
    --------
    >>> from skode.metrics import graph_scores
    >>> truth = [[1, 1, 0], [0, 1, 1]]  # two states and one input
    >>> found = [[0.9, 0.4, 0.0], [0.2, 0.8, 0.0]]
    >>> result = graph_scores(truth, scores=found, matrix=found)
    >>> result.n_true, result.n_edges, result.n_entries
    (4, 4, 6)
    >>> result.precision, result.recall, round(result.shd, 3)
    (0.75, 0.75, 0.333)
    """
    true_edge = _entries(as_truth(truth), self_edges, targets)
    counts = None if matrix is None else _counts(truth, matrix, self_edges, targets)
    nan = float("nan")
    return GraphScores(
        auroc=nan if scores is None else edge_auroc(truth, scores, self_edges=self_edges, targets=targets),
        auprc=nan if scores is None else edge_auprc(truth, scores, self_edges=self_edges, targets=targets),
        f1=nan if counts is None else _f1(counts),
        precision=nan if counts is None else _ratio(counts.hits, counts.hits + counts.extra),
        recall=nan if counts is None else _ratio(counts.hits, counts.hits + counts.missed),
        balanced_accuracy=nan if counts is None else _balanced_accuracy(counts),
        shd=nan if counts is None else _ratio(counts.extra + counts.missed, true_edge.size),
        prevalence=float(true_edge.mean()),
        n_true=int(true_edge.sum()),
        n_edges=None if counts is None else counts.hits + counts.extra,
        n_entries=true_edge.size,
    )


def edge_auroc(
    truth: ArrayLike, scores: ArrayLike, *, self_edges: bool = True, targets: ArrayLike | None = None
) -> float:
    """Area under the ROC curve: the chance that a true edge outranks a false one, ties counting half.

    ``nan`` where the truth has no edge or no absent edge. Parameters as in :func:`graph_scores`.

    Examples
    --------
    >>> from skode.metrics import edge_auroc
    >>> edge_auroc([[1, 0], [1, 0]], [[0.9, 0.1], [0.3, 0.3]])
    0.875
    """
    edge, score = _ranking(truth, scores, self_edges, targets)
    n_true, n_absent = int(edge.sum()), int((~edge).sum())
    if n_true == 0 or n_absent == 0:
        return float("nan")
    _, place, tied = np.unique(score, return_inverse=True, return_counts=True)
    middle_rank = np.cumsum(tied) - (tied - 1) / 2.0
    wins = middle_rank[place][edge].sum() - n_true * (n_true + 1) / 2.0
    return float(wins / (n_true * n_absent))


def edge_auprc(
    truth: ArrayLike, scores: ArrayLike, *, self_edges: bool = True, targets: ArrayLike | None = None
) -> float:
    """Average precision: the sum over thresholds of precision times the gain in recall.

    A ranking by chance gets the prevalence. Tied scores are one threshold. ``nan`` where the truth has no
    edge. Parameters as in :func:`graph_scores`.

    Examples
    --------
    >>> from skode.metrics import edge_auprc
    >>> round(edge_auprc([[1, 0], [1, 0]], [[0.9, 0.5], [0.3, 0.1]]), 4)
    0.8333
    """
    edge, score = _ranking(truth, scores, self_edges, targets)
    if not edge.any():
        return float("nan")
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    last_of_tie = np.append(ranked[1:] != ranked[:-1], True)
    hits = np.cumsum(edge[order])[last_of_tie]
    called = np.flatnonzero(last_of_tie) + 1
    gain = np.diff(hits, prepend=0) / edge.sum()
    return float(np.sum(gain * hits / called))


def edge_precision(
    truth: ArrayLike, matrix: ArrayLike, *, self_edges: bool = True, targets: ArrayLike | None = None
) -> float:
    """Share of the inferred edges that are true; ``nan`` where none was inferred.

    Examples
    --------
    >>> from skode.metrics import edge_precision
    >>> edge_precision([[1, 0], [1, 0]], [[0.9, 0.2], [0.0, 0.0]])
    0.5
    """
    counts = _counts(truth, matrix, self_edges, targets)
    return _ratio(counts.hits, counts.hits + counts.extra)


def edge_recall(
    truth: ArrayLike, matrix: ArrayLike, *, self_edges: bool = True, targets: ArrayLike | None = None
) -> float:
    """Share of the true edges that were inferred; ``nan`` where the truth has none.

    Examples
    --------
    >>> from skode.metrics import edge_recall
    >>> edge_recall([[1, 0], [1, 0]], [[0.9, 0.2], [0.0, 0.0]])
    0.5
    """
    counts = _counts(truth, matrix, self_edges, targets)
    return _ratio(counts.hits, counts.hits + counts.missed)


def edge_f1(truth: ArrayLike, matrix: ArrayLike, *, self_edges: bool = True, targets: ArrayLike | None = None) -> float:
    """Harmonic mean of precision and recall, 2 TP / (2 TP + FP + FN); ``nan`` where both graphs are empty.

    Examples
    --------
    >>> from skode.metrics import edge_f1
    >>> edge_f1([[1, 0], [1, 0]], [[0.9, 0.2], [0.0, 0.0]])
    0.5
    """
    return _f1(_counts(truth, matrix, self_edges, targets))


def edge_balanced_accuracy(
    truth: ArrayLike, matrix: ArrayLike, *, self_edges: bool = True, targets: ArrayLike | None = None
) -> float:
    """Mean of the shares of true edges and of absent edges that are called right.

    ``nan`` where the truth has no edge or no absent edge.

    Examples
    --------
    >>> from skode.metrics import edge_balanced_accuracy
    >>> edge_balanced_accuracy([[1, 0], [1, 0]], [[0.9, 0.0], [0.0, 0.0]])
    0.75
    """
    return _balanced_accuracy(_counts(truth, matrix, self_edges, targets))


def normalised_shd(
    truth: ArrayLike, matrix: ArrayLike, *, self_edges: bool = True, targets: ArrayLike | None = None
) -> float:
    """Structural Hamming distance per entry: wrong entries / compared entries.

    A reversed edge is two wrong entries (one missed, one extra). Other definitions count it once; ours is the
    plain Hamming distance of the two matrices, so that it also holds for inputs, which have no reverse.

    Examples
    --------
    >>> from skode.metrics import normalised_shd
    >>> normalised_shd([[0, 1], [0, 0]], [[0, 0], [1, 0]])  # one edge, reversed
    0.5
    """
    counts = _counts(truth, matrix, self_edges, targets)
    return _ratio(counts.extra + counts.missed, sum(counts))


def edge_prevalence(truth: ArrayLike, *, self_edges: bool = True, targets: ArrayLike | None = None) -> float:
    """Share of the compared entries that are true edges: the AUPRC of a coin.

    Examples
    --------
    >>> from skode.metrics import edge_prevalence
    >>> edge_prevalence([[1, 1], [0, 1]]), edge_prevalence([[1, 1], [0, 1]], self_edges=False)
    (0.75, 0.5)
    """
    return float(_entries(as_truth(truth), self_edges, targets).mean())


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _f1(counts: _Counts) -> float:
    return _ratio(2 * counts.hits, 2 * counts.hits + counts.extra + counts.missed)


def _balanced_accuracy(counts: _Counts) -> float:
    of_true = _ratio(counts.hits, counts.hits + counts.missed)
    of_absent = _ratio(counts.absent, counts.absent + counts.extra)
    return 0.5 * (of_true + of_absent)


def _counts(truth: ArrayLike, matrix: ArrayLike, self_edges: bool, targets: ArrayLike | None) -> _Counts:
    table = as_truth(truth)
    true_edge = _entries(table, self_edges, targets)
    found = _entries(as_edges(matrix, table.shape), self_edges, targets)
    return _Counts(
        hits=int((found & true_edge).sum()),
        extra=int((found & ~true_edge).sum()),
        missed=int((~found & true_edge).sum()),
        absent=int((~found & ~true_edge).sum()),
    )


def _ranking(
    truth: ArrayLike, scores: ArrayLike, self_edges: bool, targets: ArrayLike | None
) -> tuple[BoolArray, FloatArray]:
    table = as_truth(truth)
    ranking = as_ranking(scores, table.shape, "scores")
    kept = kept_entries(table.shape, self_edges, targets)
    if np.isnan(ranking[kept]).any():
        raise ValueError("scores must rank every pair; got NaN entries. Replace them, for example by the lowest score.")
    return table[kept], ranking[kept]


def _entries(table: BoolArray, self_edges: bool, targets: ArrayLike | None) -> BoolArray:
    """Return the compared entries of one matrix, flat."""
    return table[kept_entries(table.shape, self_edges, targets)]
