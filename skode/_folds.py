"""Inner splits: whole groups of trajectories, or blocks of time where groups are too few."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from skode._chains import Chains, find_chains
from skode._trajectories import Trajectories
from skode._typing import BoolArray, IntArray

SHORTEST = 4
"""Rows per block of time: fewer tell hardly anything of a slope."""
MOST_BLOCKS = 8
"""Blocks into which a half-sample cuts a series: 35 ways to halve a single one, none of them short."""


class Folds(NamedTuple):
    """Training and test parts of the inner cross-validation."""

    parts: list[tuple[Trajectories, Trajectories]]
    kind: str  # "groups", "blocks", "rows", or "none" where nothing could be split


class Half(NamedTuple):
    """Two half-samples that share nothing."""

    first: Trajectories
    second: Trajectories


def make_folds(trajectories: Trajectories, n_folds: int) -> Folds:
    """Split by groups, or by contiguous blocks of every series where there are fewer groups than folds.

    A series is a trajectory, or all that follow each other (see ``_chains``). What a block has of a trajectory is one
    of its own, that starts at its first complete observation: nothing smooths across an edge between training and
    test. A fold of which one part holds no dynamics is left out.

    Parameters
    ----------
    trajectories : Trajectories
    n_folds : int
        At least 2.

    Returns
    -------
    Folds

    Raises
    ------
    ValueError
        If neither kind leaves two folds.
    """
    groups = np.unique(trajectories.groups)
    if len(groups) >= n_folds:
        order = np.random.default_rng(0).permutation(len(groups))
        fold = np.empty(len(groups), dtype=np.int64)
        fold[order] = np.arange(len(groups)) % n_folds
        mine = fold[np.searchsorted(groups, trajectories.groups)]
        parts = [(trajectories.select(mine != k), trajectories.select(mine == k)) for k in range(n_folds)]
        kind = "groups"
    else:
        trajectories = _anchored(trajectories)
        place, length = _places(trajectories, find_chains(trajectories))
        block = place * n_folds // length
        cut = range(n_folds if length.max() >= SHORTEST * n_folds else 0)
        parts = [(_segments(trajectories, block != k), _segments(trajectories, block == k)) for k in cut]
        kind = "blocks"
    parts = [part for part in parts if all(map(has_dynamics, part))]
    if len(parts) < 2:
        longest = _places(trajectories, find_chains(trajectories))[1].max()
        raise ValueError(
            f"Inner cross-validation needs at least {n_folds} groups, or a series of {SHORTEST * n_folds} rows to "
            f"cut into blocks of time; got {len(groups)} groups and at most {longest} rows. "
            "Pass fewer folds (cv=), or more trajectories."
        )
    return Folds(parts, kind)


def most_folds(trajectories: Trajectories, n_folds: int) -> Folds:
    """Make ``n_folds`` folds, or as many as the data allow, or none.

    Parameters
    ----------
    trajectories : Trajectories
    n_folds : int

    Returns
    -------
    Folds
    """
    for fewer in range(n_folds, 1, -1):
        try:
            return make_folds(trajectories, fewer)
        except ValueError:
            continue
    return Folds([], "none")


def halves(trajectories: Trajectories, n_pairs: int, seed: int) -> list[Half]:
    """Draw complementary half-samples of the groups, or of blocks of time where there are fewer than four groups.

    The draw depends on the canonical trajectories alone, so that the order of rows and their repetition change
    nothing. Of an odd number of groups each pair leaves one out. Pairs of which one half holds no dynamics are drawn
    again, a few times.

    Parameters
    ----------
    trajectories : Trajectories
    n_pairs : int
    seed : int

    Returns
    -------
    list of Half
        Empty where the data cannot be halved.

    References
    ----------
    "Variable selection with error control: another look at stability selection", 2013,
    doi 10.1111/j.1467-9868.2011.01034.x, section 2 (complementary pairs).
    """
    rng = np.random.default_rng(seed)
    groups = np.unique(trajectories.groups)
    whole = len(groups) >= 4
    if whole:
        unit = np.searchsorted(groups, trajectories.groups)
    else:
        trajectories = _anchored(trajectories)
        chains = find_chains(trajectories)
        place, length = _places(trajectories, chains)
        n_blocks = np.clip(length // SHORTEST, 1, MOST_BLOCKS)
        label = chains.series[trajectories.trajectory] * MOST_BLOCKS + place * n_blocks // length
        unit = np.unique(label, return_inverse=True)[1]
    n_units = int(unit.max()) + 1
    pairs: list[Half] = []
    for _ in range(5 * n_pairs):
        order = rng.permutation(n_units)
        side = np.full(n_units, -1)
        side[order[: n_units // 2]], side[order[n_units // 2 : 2 * (n_units // 2)]] = 0, 1
        mine = side[unit]
        take = trajectories.select if whole else lambda keep: _segments(trajectories, keep)
        pair = Half(take(mine == 0), take(mine == 1))
        if all(map(has_dynamics, pair)):
            pairs.append(pair)
        if len(pairs) == n_pairs:
            break
    return pairs


def has_dynamics(trajectories: Trajectories) -> bool:
    """Tell whether a state is known after some time has passed."""
    return bool((trajectories.times != 0).any())


def _anchored(trajectories: Trajectories) -> Trajectories:
    """The same with a row at x0 where the first one comes later: parts of a trajectory know no other start."""
    first = trajectories.bounds[:-1]
    bare = np.flatnonzero(trajectories.times[first] > 0)
    at = first[bare]
    return replace(
        trajectories,
        times=np.insert(trajectories.times, at, 0.0),
        states=np.insert(trajectories.states, at, trajectories.initial[bare], axis=0),
        weights=np.insert(trajectories.weights, at, trajectories.weights[at]),
        trajectory=np.insert(trajectories.trajectory, at, bare),
        anchor=np.insert(trajectories.anchor, at, True),
    )


def _places(trajectories: Trajectories, chains: Chains) -> tuple[IntArray, IntArray]:
    """Number of every row in its series, and how many there are; what ends one trajectory and starts another is one."""
    bounds, owner = trajectories.bounds, trajectories.trajectory
    again = (chains.place > 0) & trajectories.anchor[bounds[:-1]]
    before = chains.before(np.diff(bounds) - again) - again
    place = before[owner] + np.arange(trajectories.n_rows) - bounds[owner]
    length = np.zeros(len(bounds) - 1, dtype=np.int64)
    np.maximum.at(length, chains.series[owner], place + 1)
    return place, length[chains.series[owner]]


def _segments(trajectories: Trajectories, keep: BoolArray) -> Trajectories:
    """Runs of kept rows as trajectories of their own."""
    rows = np.flatnonzero(keep)
    owner = trajectories.trajectory[rows]
    new = np.ones(len(rows), dtype=bool)
    new[1:] = (np.diff(rows) > 1) | (np.diff(owner) != 0)
    segment = np.cumsum(new) - 1
    complete = np.isfinite(trajectories.states[rows]).all(axis=1)
    # Each segment starts at its first complete observation; what lies before it stays, at negative times.
    first = np.full(int(new.sum()), -1)
    for row in np.flatnonzero(complete)[::-1]:
        first[segment[row]] = row
    usable = first >= 0
    kept = usable[segment]
    number = np.cumsum(usable) - 1
    start = first[usable]
    source = owner[start]
    index = number[segment[kept]]
    offset = trajectories.times[rows][start]
    at = rows[kept]
    times = trajectories.times[at] - offset[index]
    return Trajectories(
        times=times,
        states=trajectories.states[at],
        weights=trajectories.weights[at],
        trajectory=index,
        anchor=times == 0,
        initial=trajectories.states[rows][start],
        velocity=None,  # known only where the trajectory itself starts; here the smooth must tell
        inputs=trajectories.inputs[source],
        origin=trajectories.origin[source] + offset,
        groups=trajectories.groups[source],
    )
