"""Means along a path."""

from __future__ import annotations

import numpy as np
import scipy.sparse

from skode._typing import FloatArray


def row_means(nodes: FloatArray, quadrature: FloatArray | scipy.sparse.csr_array) -> FloatArray:
    """Weighted means of values at nodes, one for every row.

    Parameters
    ----------
    nodes : array (interval, node, source)
    quadrature : array (row, node) or sparse array (row, interval x node)
        Weights of the nodes; a dense array has one row for every interval.

    Returns
    -------
    array (row, source)
    """
    if isinstance(quadrature, np.ndarray):
        return np.asarray(np.einsum("kl,kls->ks", quadrature, nodes))
    return np.asarray(quadrature @ nodes.reshape(-1, nodes.shape[2]))


def spread(quadrature: FloatArray) -> scipy.sparse.csr_array:
    """The same weights as a sparse array (row, interval x node).  # (interval, node)"""
    n, m = quadrature.shape
    return scipy.sparse.csr_array((quadrature.ravel(), np.arange(n * m), np.arange(0, n * m + 1, m)), shape=(n, n * m))
