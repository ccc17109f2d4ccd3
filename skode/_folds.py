"""Inner folds: whole groups of trajectories, or blocks of time where groups are too few."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from skode._trajectories import Trajectories
from skode._typing import BoolArray


class Folds(NamedTuple):
    """Training and test parts of the inner cross-validation."""

    parts: list[tuple[Trajectories, Trajectories]]
    kind: str  # "groups", "blocks" or "rows"


def make_folds(trajectories: Trajectories, n_folds: int) -> Folds:
    """Split by groups, or by contiguous blocks of every trajectory where there are fewer groups than folds.

    A block is a trajectory of its own, that starts at its first complete observation: nothing smooths across an
    edge between training and test.

    Parameters
    ----------
    trajectories : Trajectories
    n_folds : int

    Returns
    -------
    Folds

    Raises
    ------
    ValueError
        If neither kind of fold can be made.
    """
    groups = np.unique(trajectories.groups)
    if len(groups) >= n_folds:
        order = np.random.default_rng(0).permutation(len(groups))
        fold = np.empty(len(groups), dtype=np.int64)
        fold[order] = np.arange(len(groups)) % n_folds
        mine = fold[np.searchsorted(groups, trajectories.groups)]
        return Folds(
            [(trajectories.select(mine != k), trajectories.select(mine == k)) for k in range(n_folds)], "groups"
        )
    bounds = trajectories.bounds
    place = np.arange(trajectories.n_rows) - bounds[trajectories.trajectory]
    length = np.diff(bounds)[trajectories.trajectory]
    if length.max() < 4 * n_folds:
        raise ValueError(
            f"Inner cross-validation needs at least {n_folds} groups, or a trajectory of {4 * n_folds} rows to cut "
            f"into blocks of time; got {len(groups)} groups and at most {length.max()} rows. Pass fewer folds (cv=), "
            "or more trajectories."
        )
    block = place * n_folds // length
    parts = [(_segments(trajectories, block != k), _segments(trajectories, block == k)) for k in range(n_folds)]
    return Folds(parts, "blocks")


def _segments(trajectories: Trajectories, keep: BoolArray) -> Trajectories:
    """Runs of kept rows as trajectories of their own."""
    rows = np.flatnonzero(keep)
    owner = trajectories.trajectory[rows]
    new = np.r_[True, (np.diff(rows) > 1) | (np.diff(owner) != 0)]
    segment = np.cumsum(new) - 1
    complete = np.isfinite(trajectories.states[rows]).all(axis=1)
    # Each segment starts at its first complete observation; what lies before it stays, at negative times.
    first = np.full(segment.max() + 1, -1)
    for row in np.flatnonzero(complete)[::-1]:
        first[segment[row]] = row
    usable = first >= 0
    kept = usable[segment]
    number = np.cumsum(usable) - 1
    start = first[usable]
    source = owner[start]
    velocity = None
    if trajectories.velocity is not None:
        # Velocities are known only where a trajectory itself starts; elsewhere the smooth must tell.
        velocity = trajectories.velocity[source]
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
        velocity=velocity,
        inputs=trajectories.inputs[source],
        origin=trajectories.origin[source] + offset,
        groups=trajectories.groups[source],
    )
