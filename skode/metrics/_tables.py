"""Checked tables of edges and rankings, and which of their entries are compared."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from skode._typing import BoolArray, FloatArray


def kept_entries(shape: tuple[int, ...], self_edges: bool, targets: ArrayLike | None) -> BoolArray:
    """Return the mask of the entries that are compared."""
    kept = np.zeros(shape, dtype=bool)
    kept[slice(None) if targets is None else np.asarray(targets)] = True
    if not self_edges:
        np.fill_diagonal(kept, False)
    if not kept.any():
        raise ValueError(
            f"At least one entry must be compared; self_edges and targets leave none of a {shape[0]} x "
            f"{shape[1]} matrix. Name at least one target with a source besides itself."
        )
    return kept


def as_truth(truth: ArrayLike) -> BoolArray:
    """Return the true graph as booleans."""
    table = np.asarray(truth)
    if table.ndim != 2 or table.shape[0] == 0 or table.shape[1] < table.shape[0]:
        raise ValueError(
            "truth must have shape (d, d + m), one row per target and the states first among the sources; "
            f"got shape {table.shape}. Transpose a matrix of shape (source, target)."
        )
    if not np.isin(table, (0, 1)).all():
        raise ValueError("truth must hold only 0 and 1 (or booleans); got other values. Pass truth != 0.")
    return table.astype(bool)


def as_edges(matrix: ArrayLike, shape: tuple[int, ...]) -> BoolArray:
    """Return where the inferred graph has an edge."""
    table = as_ranking(matrix, shape, "matrix")
    if not (table >= 0).all():
        raise ValueError("matrix must be >= 0 and without NaN; got entries that are not. Pass numpy.abs(matrix).")
    edges: BoolArray = table > 0
    return edges


def as_ranking(matrix: ArrayLike, shape: tuple[int, ...], name: str) -> FloatArray:
    """Return a matrix of numbers in the shape of the truth."""
    table = np.asarray(matrix, dtype=np.float64)
    if table.shape != shape:
        raise ValueError(
            f"{name} must have the shape of truth, {shape}; got {table.shape}. Rows are targets, columns are "
            "states, then inputs."
        )
    return table
