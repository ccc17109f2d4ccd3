"""Find rows that are equal, whatever their order: the sort behind every tie in the package."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from skode._typing import AnyArray, BoolArray, FloatArray, IntArray


class Blocks(NamedTuple):
    """Rows in sorted order, cut into blocks of equal rows."""

    order: IntArray  # (row,) positions in the unsorted table
    starts: BoolArray  # (row,) True where a block of equal rows begins, in sorted order


def one_block(n_rows: int) -> Blocks:
    """Put all rows in one block, in the order in which they come."""
    return Blocks(np.arange(n_rows), np.arange(n_rows) == 0)


def refine(blocks: Blocks, columns: Iterable[AnyArray]) -> Blocks:
    """Sort the rows of every block by more columns and cut it where they differ.

    A column that is constant inside every block costs one comparison and no sort, so that sorting rows of few
    distinct initial states by many columns is as quick as sorting them by one. Block edges that were there
    before stay where they are, which is what lets a caller refine in stages and compare the edges.

    Parameters
    ----------
    blocks : Blocks
        Where to begin, for instance ``one_block(n_rows)``.
    columns : iterable of arrays of shape (n_rows,)
        Sort keys without NaN, most important first.

    Returns
    -------
    Blocks

    Examples
    --------
    >>> import numpy as np
    >>> order, starts = refine(one_block(4), [np.array([2, 1, 2, 1]), np.array([0, 5, 0, 4])])
    >>> order.tolist(), starts.tolist()
    ([3, 1, 0, 2], [True, True, True, False])
    """
    order, starts = blocks.order.copy(), blocks.starts.copy()
    for column in columns:
        if starts.all():
            break
        values = column[order]
        if not (_changes(values) & ~starts).any():
            continue
        tied = ~starts
        tied[:-1] |= ~starts[1:]
        places = np.flatnonzero(tied)
        inside = np.lexsort((values[places], np.cumsum(starts)[places]))
        order[places] = order[places][inside]
        values[places] = values[places][inside]
        starts |= _changes(values)
    return Blocks(order, starts)


def ranges(starts: IntArray, stops: IntArray) -> IntArray:
    """Concatenate ``range(starts[k], stops[k])`` over k, without a loop.

    Examples
    --------
    >>> import numpy as np
    >>> ranges(np.array([3, 10]), np.array([5, 13])).tolist()
    [3, 4, 10, 11, 12]
    """
    lengths = stops - starts
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if ends.size else 0
    return np.asarray(np.arange(total) + np.repeat(starts - (ends - lengths), lengths), dtype=np.int64)


def block_means(values: FloatArray, weights: FloatArray, starts: IntArray) -> FloatArray:
    """Average blocks of rows per column, leaving NaN out; exactly the common value where all agree.

    Parameters
    ----------
    values : ndarray of shape (n_rows, n_columns)
        Rows, block by block.
    weights : ndarray of shape (n_rows,)
        Positive weights.
    starts : ndarray of int of shape (n_blocks,)
        First row of each block.

    Returns
    -------
    ndarray of shape (n_blocks, n_columns)
        NaN where a block has none but NaN.

    Examples
    --------
    >>> import numpy as np
    >>> values = np.array([[1.0, np.nan], [4.0, 0.1], [5.0, 0.1]])
    >>> block_means(values, np.array([2.0, 1.0, 3.0]), np.array([0, 2])).tolist()
    [[2.0, 0.1], [5.0, 0.1]]
    """
    if len(starts) == len(values):
        return values
    missing = np.isnan(values)
    share = np.where(missing, 0.0, weights[:, None])
    total = np.add.reduceat(share, starts, axis=0)
    sums = np.add.reduceat(share * np.where(missing, 0.0, values), starts, axis=0)
    means = np.divide(sums, total, out=np.full_like(sums, np.nan), where=total > 0)
    low, high = np.fmin.reduceat(values, starts, axis=0), np.fmax.reduceat(values, starts, axis=0)
    return np.clip(means, low, high)


def _changes(values: AnyArray) -> BoolArray:
    changes = np.zeros(values.shape, dtype=bool)
    changes[1:] = values[1:] != values[:-1]
    return changes
