"""Rows of X become questions: distinct starts in standard units, and the times asked of each."""

from __future__ import annotations

import numpy as np

from skode._fitted import Fitted
from skode._layout import Layout
from skode._predict import Questions
from skode._typing import FloatArray, IntArray


def as_questions(X: FloatArray, layout: Layout, fitted: Fitted) -> Questions:
    """Tie rows that share start, inputs and start time: one solve per distinct initial condition.

    Parameters
    ----------
    X : array of shape (n_rows, layout.n_columns)
        Aligned.
    layout : Layout
    fitted : Fitted

    Returns
    -------
    Questions
    """
    scales = fitted.scales
    if layout.time_only:
        n_rows = len(X)
        return Questions(
            times=X[:, 0],
            trajectory=np.zeros(n_rows, dtype=np.int64),
            start=fitted.start[None],
            inputs=np.zeros((1, 0)),
            origin=scales.standard_clock(np.zeros(1)),
        )
    distinct, trajectory = distinct_rows(X[:, 1:])
    rows = np.concatenate([np.zeros((len(distinct), 1)), distinct], axis=1)
    inputs = scales.standard_inputs(rows[:, layout.inputs])
    velocity = rows[:, layout.velocity] if layout.has_velocity else None
    start = scales.standard_start(rows[:, layout.initial], velocity)
    if fitted.start_velocity is not None:
        start = np.concatenate([start, fitted.start_velocity(start, inputs)], axis=1)
    clock = rows[:, layout.origin][:, 0] if layout.start_time else np.zeros(len(rows))
    return Questions(X[:, 0], trajectory, start, inputs, scales.standard_clock(clock))


def distinct_rows(table: FloatArray) -> tuple[FloatArray, IntArray]:
    """Distinct rows of a finite table, and which of them every row is; what ``np.unique(axis=0)`` says, faster.

    Runs of equal rows are found first, since questions mostly come trajectory by trajectory; only their heads are
    sorted.

    Parameters
    ----------
    table : array (n_rows, n_columns)

    Returns
    -------
    distinct : array (n_distinct, n_columns)
    index : array (n_rows,)
    """
    fresh = np.ones(len(table), dtype=bool)
    for first in range(0, len(table) - 1, 65536):  # a block at a time stays in the cache
        block = table[first : first + 65537]
        fresh[first + 1 : first + len(block)] = (block[1:] != block[:-1]).any(axis=1)
    if fresh.sum() == 1:
        return table[:1], np.zeros(len(table), dtype=np.int64)
    distinct, index = np.unique(table[fresh], axis=0, return_inverse=True)
    return distinct, index.reshape(-1)[np.cumsum(fresh) - 1]
