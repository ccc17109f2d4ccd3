"""Trajectories that follow each other: pieces of one series, cut where an input changes or where a window ends."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from skode._ties import one_block, refine
from skode._trajectories import Trajectories
from skode._typing import AnyArray, BoolArray, IntArray


class Chains(NamedTuple):
    """Which trajectory goes on where another one ends; a series is all that hang together."""

    after: IntArray  # (trajectory,) the trajectory that starts where this one ends; -1 if there is none
    series: IntArray  # (trajectory,) number of its series, in the order of their first trajectories
    place: IntArray  # (trajectory,) how many come before it in its series

    @property
    def order(self) -> IntArray:
        """Trajectories series by series, each series in the order of time.  # (trajectory,)"""
        return np.lexsort((self.place, self.series))

    def cut(self, ends: BoolArray) -> Chains:
        """What is left where nothing goes on after trajectories for which ``ends`` holds."""
        return _numbered(np.where(ends, -1, self.after))

    def before(self, lengths: AnyArray) -> AnyArray:
        """Sum of the lengths of all trajectories that come before each one in its series.  # (trajectory,)"""
        order = self.order
        total = np.cumsum(lengths[order]) - lengths[order]
        head = np.maximum.accumulate(np.where(self.place[order] == 0, np.arange(len(order)), 0))
        before = np.empty_like(total)
        before[order] = total - total[head]
        return before


def find_chains(trajectories: Trajectories) -> Chains:
    """Find trajectories that start in the last state of another one of their group.

    So do the segments that builders cut where an input changes, and windows of k observations. A state that ends or
    starts more than one trajectory ties none: it does not say which goes on where.

    Parameters
    ----------
    trajectories : Trajectories

    Returns
    -------
    Chains

    Examples
    --------
    >>> import numpy as np
    >>> from skode import from_trajectories
    >>> from skode._layout import Layout
    >>> from skode._trajectories import as_trajectories
    >>> states, inputs = [[[3.0], [2.0], [1.0]]], [[[5.0], [4.0], [4.0]]]
    >>> X, y, groups = from_trajectories(states, [0.0, 1.0, 2.0], inputs=inputs)
    >>> found = as_trajectories(X, y, layout=Layout.infer(3, 1), groups=groups)
    >>> found.initial.ravel().tolist(), find_chains(found).after.tolist()
    ([2.0, 3.0], [-1, 0])
    """
    n, bounds = trajectories.n_trajectories, trajectories.bounds
    first, last = bounds[:-1], bounds[1:] - 1
    begins = np.flatnonzero(trajectories.times[first] >= 0)
    ends = np.flatnonzero((trajectories.times[last] > 0) & np.isfinite(trajectories.states[last]).all(axis=1))
    owner = np.concatenate([begins, ends])
    is_start = np.arange(len(owner)) < len(begins)
    table = np.concatenate([trajectories.initial[begins], trajectories.states[last[ends]]])
    place, starts = refine(one_block(len(owner)), [trajectories.groups[owner], *np.ascontiguousarray(table.T)])
    head = np.flatnonzero(starts)
    pair = head[np.diff(np.append(head, len(owner))) == 2]
    one, two = place[pair], place[pair + 1]
    tied = (is_start[one] != is_start[two]) & (owner[one] != owner[two])
    one, two = one[tied], two[tied]
    after = np.full(n, -1)
    after[owner[np.where(is_start[one], two, one)]] = owner[np.where(is_start[one], one, two)]
    return _numbered(after)


def _numbered(after: IntArray) -> Chains:
    """Number every series and what it consists of; a ring is opened before its first trajectory."""
    n, tied = len(after), after >= 0
    graph = coo_array((np.ones(tied.sum()), (np.flatnonzero(tied), after[tied])), shape=(n, n))
    label = connected_components(graph, directed=False)[1]
    first, series = np.unique(label, return_index=True, return_inverse=True)[1:]
    headless = np.bincount(series[after[tied]], minlength=len(first)) == np.bincount(series)
    after = np.where(np.isin(after, first[headless]), -1, after)
    here = np.setdiff1d(np.arange(n), after)
    place, step = np.zeros(n, dtype=np.int64), 0
    while len(here):
        place[here], step = step, step + 1
        here = after[here][after[here] >= 0]
    return Chains(after, first.argsort().argsort()[series], place)
