"""X and y become trajectories: rows tied by their initial state, in an order of their own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from skode._layout import Layout
from skode._question_checks import check_rows_left
from skode._ties import block_means, one_block, ranges, refine
from skode._typing import AnyArray, BoolArray, FloatArray, IntArray

ANCHOR_TOLERANCE = 1e-6
"""An x0 and a y that differ by less than this many standard deviations are the same state."""


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Observations sorted by trajectory and time, one initial state per trajectory.

    Parameters
    ----------
    times : ndarray of shape (n_rows,)
        Time elapsed since x0, in the user's units; ascending and distinct inside each trajectory.
    states : ndarray of shape (n_rows, d)
        Observed states in the user's units; NaN where a variable was not observed, never a whole row of NaN.
    weights : ndarray of shape (n_rows,)
        Weight of each row, positive.
    trajectory : ndarray of int of shape (n_rows,)
        Number of the trajectory of each row, non-decreasing.
    anchor : ndarray of bool of shape (n_rows,)
        Rows with t = 0 and y = x0 in every observed variable: they carry no dynamics.
    initial : ndarray of shape (n_trajectories, d)
        x0.
    velocity : ndarray of shape (n_trajectories, d) or None
        v0, where X gives it.
    inputs : ndarray of shape (n_trajectories, m)
        u.
    origin : ndarray of shape (n_trajectories,)
        Time of the field's clock at x0: the start time where X gives it, else 0.
    groups : ndarray of int of shape (n_trajectories,)
        Trajectories of one code are never separated by an inner split.
    """

    times: FloatArray
    states: FloatArray
    weights: FloatArray
    trajectory: IntArray
    anchor: BoolArray
    initial: FloatArray
    velocity: FloatArray | None
    inputs: FloatArray
    origin: FloatArray
    groups: IntArray

    @property
    def n_trajectories(self) -> int:
        """Number of trajectories, which is the number of solves."""
        return len(self.initial)

    @property
    def n_rows(self) -> int:
        """Number of distinct (trajectory, time) pairs."""
        return len(self.times)

    @property
    def n_states(self) -> int:
        """D."""
        return int(self.states.shape[1])

    @property
    def n_inputs(self) -> int:
        """M."""
        return int(self.inputs.shape[1])

    @property
    def bounds(self) -> IntArray:
        """Rows of trajectory k are ``bounds[k]:bounds[k + 1]``; shape (n_trajectories + 1,)."""
        return np.searchsorted(self.trajectory, np.arange(self.n_trajectories + 1)).astype(np.int64)

    def select(self, indices: IntArray | BoolArray) -> Trajectories:
        """Take whole trajectories, renumbered in the order asked for; repetitions are allowed.

        Parameters
        ----------
        indices : ndarray of int, or of bool of shape (n_trajectories,)
            Trajectories to take.

        Returns
        -------
        Trajectories
            Group codes are those of the original, so that they can be compared across selections.
        """
        chosen = np.arange(self.n_trajectories)[indices]
        bounds = self.bounds
        starts, stops = bounds[chosen], bounds[chosen + 1]
        rows = ranges(starts, stops)
        return Trajectories(
            times=self.times[rows],
            states=self.states[rows],
            weights=self.weights[rows],
            trajectory=np.repeat(np.arange(len(chosen)), stops - starts),
            anchor=self.anchor[rows],
            initial=self.initial[chosen],
            velocity=None if self.velocity is None else self.velocity[chosen],
            inputs=self.inputs[chosen],
            origin=self.origin[chosen],
            groups=self.groups[chosen],
        )

    def keep(self, rows: BoolArray) -> Trajectories:
        """Keep some rows of every trajectory and drop the trajectories that lose all of theirs.

        Parameters
        ----------
        rows : ndarray of bool of shape (n_rows,)
            Rows to keep, for instance those before a time.

        Returns
        -------
        Trajectories
        """
        left = replace(
            self,
            times=self.times[rows],
            states=self.states[rows],
            weights=self.weights[rows],
            trajectory=self.trajectory[rows],
            anchor=self.anchor[rows],
        )
        return left.select(np.unique(left.trajectory))


def as_trajectories(
    X: FloatArray,
    y: FloatArray,
    *,
    layout: Layout,
    sample_weight: FloatArray | None = None,
    groups: AnyArray | None = None,
) -> Trajectories:
    """Tie the rows of X and y into trajectories that depend on the set of rows alone.

    Rows that share (x0, v0, start time, u, group) are one trajectory. Rows of weight zero and rows without
    any observation are dropped; rows that agree in t as well become one row, the weighted mean per variable
    over the rows where it was observed. Equal rows are added up before anything is averaged, so that the
    order of the rows, repeating a row instead of doubling its weight, and rows of weight zero change no bit
    of the result.

    Parameters
    ----------
    X : ndarray of shape (n_rows, layout.n_columns)
        Finite; times aligned to the initial states (``learn_alignment``).
    y : ndarray of shape (n_rows, d)
        NaN where a variable was not observed.
    layout : Layout
        Meaning of the columns of X.
    sample_weight : ndarray of shape (n_rows,), default=None
        Non-negative; None means ones.
    groups : ndarray of shape (n_rows,), default=None
        Labels. Without them, trajectories are joined where the x0 of one is a later state of another:
        windows cut from one series.

    Returns
    -------
    Trajectories

    Raises
    ------
    ValueError
        If no row with a positive weight has an observation.

    Notes
    -----
    An x0 that misses its anchor by less than 1e-6 standard deviations (rounding, as a scaler leaves it) is
    set to it. When X is time only, x0 is the mean of each variable at the first time at which it was
    observed.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[1.0, 5.0], [0.5, 5.0], [0.5, 5.0], [0.0, 7.0]])
    >>> y = np.array([[3.0], [4.0], [6.0], [7.0]])
    >>> found = as_trajectories(X, y, layout=Layout.infer(2, 1))
    >>> found.trajectory.tolist(), found.times.tolist(), found.states[:, 0].tolist()
    ([0, 0, 1], [0.5, 1.0, 0.0], [5.0, 3.0, 7.0])
    >>> found.anchor.tolist(), found.initial[:, 0].tolist()
    ([False, False, True], [5.0, 7.0])
    """
    weights = np.ones(len(X)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    kept = (weights > 0) & np.isfinite(y).any(axis=1)
    check_rows_left(kept)
    labels = np.zeros(len(X), dtype=np.int64) if groups is None else np.asarray(groups)
    columns = np.ascontiguousarray(X[kept].T) + 0.0  # (column, row); adding 0 turns -0.0 into 0.0
    codes = np.unique(labels[kept], return_inverse=True)[1]
    y, weights = y[kept] + 0.0, weights[kept]

    keys = refine(one_block(len(y)), [*columns[1:], codes])
    instants = refine(keys, [columns[0]])
    records = refine(instants, np.where(np.isnan(y), np.inf, y).T)
    order = refine(records, [weights]).order

    record = np.flatnonzero(records.starts)
    totals = np.add.reduceat(weights[order], record)
    row = np.flatnonzero(instants.starts[record])
    states = block_means(y[order[record]], totals, row)
    weights = np.add.reduceat(totals, row)
    first = record[row]
    times = columns[0, order[first]]
    trajectory = np.cumsum(keys.starts[first]) - 1

    heads = order[keys.starts]
    offset = float(times.min()) if layout.time_only else 0.0  # later rows of one series start at a later clock
    if layout.time_only:
        times = times - offset
        initial = np.tile(_earliest(times, states, weights), (len(heads), 1))
    else:
        initial = columns[layout.initial, heads].T.copy()
    anchor = (times == 0) & same_state(initial[trajectory], states)
    seen = anchor[:, None] & np.isfinite(states)
    initial[trajectory[seen.nonzero()[0]], seen.nonzero()[1]] = states[seen]
    return Trajectories(
        times=times,
        states=states,
        weights=weights,
        trajectory=trajectory,
        anchor=anchor,
        initial=initial,
        velocity=columns[layout.velocity, heads].T.copy() if layout.has_velocity else None,
        inputs=columns[layout.inputs, heads].T.copy(),
        origin=columns[layout.origin, heads].sum(axis=0) + offset,
        groups=codes[heads] if groups is not None else _joined(initial, states[times != 0], trajectory[times != 0]),
    )


def same_state(initial: FloatArray, states: FloatArray) -> BoolArray:
    """Tell in which rows x0 and y are one state, up to rounding, in every observed variable.

    Parameters
    ----------
    initial : ndarray of shape (n_rows, d)
        x0 of each row.
    states : ndarray of shape (n_rows, d)
        y of each row, NaN where not observed; rows without any observation are not the same state.

    Returns
    -------
    ndarray of bool of shape (n_rows,)
    """
    observed = np.isfinite(states)
    filled = np.where(observed, states, 0.0)
    count = np.maximum(observed.sum(axis=0), 1)
    centred = np.where(observed, states - filled.sum(axis=0) / count, 0.0)
    spread = np.sqrt((centred**2).sum(axis=0) / count)
    tolerance = ANCHOR_TOLERANCE * spread + 1e-12 * np.abs(filled).max(axis=0, initial=0.0)
    near: BoolArray = (np.abs(states - initial) <= tolerance) | ~observed
    return np.asarray(near.all(axis=1) & observed.any(axis=1))


def _earliest(times: FloatArray, states: FloatArray, weights: FloatArray) -> FloatArray:
    """Average every variable over the rows at the first time at which it was observed."""
    observed = np.isfinite(states)
    first = np.where(observed, times[:, None], np.inf).min(axis=0)  # (state,)
    chosen = np.where(observed & (times[:, None] == first), states, np.nan)
    return np.asarray(block_means(chosen, weights, np.array([0]))[0])


def _joined(initial: FloatArray, states: FloatArray, trajectory: IntArray) -> IntArray:
    """Give one code to trajectories of which one starts in a later state of the other."""
    n = len(initial)
    complete = np.isfinite(states).all(axis=1)
    table = np.concatenate([initial, states[complete]])
    owner = np.concatenate([np.arange(n), trajectory[complete]])
    order, starts = refine(one_block(len(table)), np.ascontiguousarray(table.T))
    first = np.flatnonzero(starts)
    is_start = order < n
    linked = np.logical_or.reduceat(is_start, first) & np.logical_or.reduceat(~is_start, first)
    block = np.cumsum(starts) - 1
    member = linked[block]
    ends = owner[order[member]], owner[order[first[block[member]]]]
    graph = coo_array((np.ones(member.sum()), ends), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)
