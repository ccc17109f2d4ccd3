"""Sparsity of a network and of the dependencies that it makes, by the three figures of the PathReg paper.

References
----------
Aliee, Richter, Solonin, Ibarra, Theis, Kilbertus, "Sparsity in Continuous-Depth Neural Networks", NeurIPS
2022, arXiv 2210.14672. The paper's figures are read off gates; here a weight or a path is absent when it is
exactly zero in the deterministic network, so that redrawing gates cannot change the answer.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from skode._typing import AnyArray, FloatArray
from skode.metrics.graph import edge_precision


def weight_sparsity(weights: Iterable[ArrayLike]) -> float:
    """Share of the weights that are exactly zero, over all layers together.

    Parameters
    ----------
    weights : iterable of array-like
        Weight matrices of the network, any shapes; leave the biases out, which connect no input to any
        output.

    Returns
    -------
    float
        0 for a dense network, 1 for an empty one.

    Examples
    --------
    >>> from skode.metrics import weight_sparsity
    >>> weight_sparsity([[[1.0, 0.0], [0.0, 0.0]], [[2.0, 0.0]]])
    0.6666666666666666
    """
    layers = [np.asarray(layer) for layer in weights]
    n_weights = sum(layer.size for layer in layers)
    if n_weights == 0:
        raise ValueError("weights must hold at least one weight; got none. Pass the list of the layers' matrices.")
    return float(sum(np.count_nonzero(layer == 0) for layer in layers) / n_weights)


def open_paths(weights: Iterable[ArrayLike]) -> FloatArray:
    """Count the input-output paths that consist of non-zero weights.

    With Z_l = 1 where W_l is non-zero the count is Z_L ... Z_1: entry ``[i, j]`` is zero exactly where no
    path leads from input j to output i. Counting, unlike |W_L| ... |W_1|, cannot underflow to a false zero.

    Parameters
    ----------
    weights : iterable of array-like of shape (out, in)
        Weight matrices in the order in which the input meets them.

    Returns
    -------
    ndarray of shape (target, source)
        Number of open paths.

    Examples
    --------
    >>> from skode.metrics import open_paths
    >>> open_paths([[[1.0, 0.0], [0.5, 0.0]], [[2.0, 3.0], [0.0, 1.0]]])
    array([[2., 0.],
           [1., 0.]])
    """
    layers = [np.asarray(layer) for layer in weights]
    if not layers or any(layer.ndim != 2 for layer in layers):
        raise ValueError(
            "weights must be matrices of shape (out, in), first layer first; got "
            f"{[layer.shape for layer in layers]}. Pass one model's matrices."
        )
    for lower, upper in zip(layers, layers[1:], strict=False):
        if upper.shape[1] != lower.shape[0]:
            raise ValueError(
                f"Each layer must take what the one before gives; got {upper.shape} after {lower.shape}. "
                "Order the matrices from input to output, each of shape (out, in)."
            )
    paths: FloatArray = (layers[0] != 0).astype(np.float64)
    for layer in layers[1:]:
        paths = (layer != 0).astype(np.float64) @ paths
    return paths


def feature_sparsity(paths: ArrayLike, *, self_edges: bool = True) -> float:
    """Share of the pairs (target, source) between which the model has no path.

    Parameters
    ----------
    paths : array-like of shape (d, d + m)
        ``dependency_matrix_``, or :func:`open_paths` of a network's weights: zero exactly where no path
        leads.
    self_edges : bool, default=True
        Whether the pairs i -> i count.

    Returns
    -------
    float
        0 where everything depends on everything, 1 for an empty graph.

    Examples
    --------
    >>> from skode.metrics import feature_sparsity
    >>> feature_sparsity([[0.7, 0.0, 0.0], [0.2, 0.1, 0.0]])
    0.5
    """
    table = _matrix(paths)
    kept = np.ones(table.shape, dtype=bool)
    if not self_edges:
        np.fill_diagonal(kept, False)
    if not kept.any():
        raise ValueError(
            "At least one pair must be left; self_edges=False leaves none of one variable. Keep self-edges."
        )
    return float(np.mean(table[kept] == 0))


def spurious_edge_share(truth: ArrayLike, matrix: ArrayLike, *, self_edges: bool = True) -> float:
    """Share of the inferred edges that are not in the truth, 1 - precision; ``nan`` where none was inferred.

    Parameters
    ----------
    truth : array-like of shape (d, d + m), bool or 0/1
        True graph, row = target, column = source.
    matrix : array-like of shape (d, d + m), bool or >= 0
        Inferred graph, an edge wherever an entry is above zero.
    self_edges : bool, default=True
        Whether i -> i counts.

    Examples
    --------
    >>> from skode.metrics import spurious_edge_share
    >>> spurious_edge_share([[1, 0], [1, 1]], [[0.9, 0.2], [0.3, 0.5]])
    0.25
    """
    return 1.0 - edge_precision(truth, matrix, self_edges=self_edges)


def spurious_feature_share(regulators: ArrayLike, matrix: ArrayLike, *, self_edges: bool = False) -> float:
    """Share of the sources in use that cannot be regulators; ``nan`` where no source is in use.

    The figure for data without a known graph but with a known list of regulators (transcription factors among
    genes): a source is in use when at least one path leaves it.

    Parameters
    ----------
    regulators : array-like of shape (d + m,), bool
        Which sources may drive other variables.
    matrix : array-like of shape (d, d + m)
        Inferred graph, an edge wherever an entry is not zero.
    self_edges : bool, default=False
        Whether a source that drives only itself is in use. By default it is not: a gene that decays is no
        regulator.

    Examples
    --------
    >>> from skode.metrics import spurious_feature_share
    >>> spurious_feature_share([True, False], [[0.5, 0.4], [0.3, 0.5]])
    0.5
    """
    table = _matrix(matrix)
    known = np.asarray(regulators)
    if known.shape != (table.shape[1],) or known.dtype != bool:
        raise ValueError(
            f"regulators must be {table.shape[1]} booleans, one per source; got shape {known.shape} and "
            f"dtype {known.dtype}. Pass a mask, for example numpy.isin(names, list_of_regulators)."
        )
    edges = table != 0
    if not self_edges:
        np.fill_diagonal(edges, False)
    used = edges.any(axis=0)
    return float(np.mean(~known[used])) if used.any() else float("nan")


def _matrix(paths: ArrayLike) -> AnyArray:
    table = np.asarray(paths)
    if table.ndim != 2 or table.size == 0:
        raise ValueError(
            f"The graph must be a matrix of shape (target, source); got shape {table.shape}. Pass dependency_matrix_."
        )
    return table
