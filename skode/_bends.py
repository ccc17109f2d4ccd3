"""When paths bend: how much of their bending falls into every part of the time since they began."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.interpolate

from skode._typing import BoolArray, FloatArray, IntArray

BINS = 8
"""Most parts of the time, each with as many intervals as the others. With 16 or 32 slopes are no more exact."""
PER_BIN = 40
"""Equivalent parameters of all paths together for every part, of which a mean square is known to a quarter."""
LEAST = 1e-3
"""Least bending of a part, relative to the part that bends most."""


class Bends(NamedTuple):
    """Mean square second derivative of all paths, relative to its mean over time."""

    elapsed: FloatArray  # (bin,) increasing, since a path began
    amount: FloatArray  # (bin,)

    def stiffness(self, elapsed: FloatArray) -> FloatArray:
        """Factor of the roughness penalty at some times: where paths bend less, bending costs more."""
        return np.asarray(1.0 / np.interp(elapsed, self.elapsed, self.amount))

    def price(self, n_data: float) -> float:
        """Half of what the Bayesian information criterion asks for all parts but one."""
        return (len(self.amount) - 1) / 2 * float(np.log(n_data))


class Curve(NamedTuple):
    """Variables of one trajectory that are known at the same times."""

    variables: IntArray  # (v,)
    elapsed: FloatArray  # (knot,) since the trajectory began
    states: FloatArray  # (knot, v)


def find_bends(curves: Sequence[Curve], moves: BoolArray, n_parameters: float) -> Bends | None:
    r"""Mean squares of second derivatives by the time since a trajectory began.

    .. math:: q_b = \frac1{|V|} \sum_{i \in V} \frac{mean_b(g_i''^2)}{mean(g_i''^2)}

    over the variables V that move, with means over all trajectories. Paths that relax bend where they begin, paths on
    an attractor bend everywhere alike.

    Parameters
    ----------
    curves : sequence of Curve
        Natural cubic splines through their states; three or more knots each.
    moves : bool array (d,)
    n_parameters : float
        Equivalent parameters of all of them together, which bounds the number of bins.

    Returns
    -------
    Bends or None
        None where nothing bends, or all is too little for two bins.
    """
    if not curves:
        return None
    middles = [(curve.elapsed[1:] + curve.elapsed[:-1]) / 2 for curve in curves]
    edges = _edges(np.concatenate(middles), int(min(BINS, n_parameters / PER_BIN)))
    if not len(edges):
        return None
    n_bins = len(edges) + 1
    power, length = np.zeros((2, n_bins, len(moves)))
    place = np.zeros(n_bins)
    for curve, middle in zip(curves, middles, strict=True):
        bend = scipy.interpolate.CubicSpline(curve.elapsed, curve.states, bc_type="natural")(curve.elapsed, 2)
        square = (bend[1:] ** 2 + bend[1:] * bend[:-1] + bend[:-1] ** 2) / 3.0  # exact mean of a line's square
        interval = np.diff(curve.elapsed)
        own = np.searchsorted(edges, middle)
        for b in np.unique(own):
            some = own == b
            power[b, curve.variables] += interval[some] @ square[some]
            length[b, curve.variables] += interval[some].sum()
            place[b] += len(curve.variables) * (interval[some] @ middle[some])
    some = moves & (power.sum(axis=0) > 0)
    filled = length[:, some].sum(axis=1) > 0
    if not some.any() or filled.sum() < 2:
        return None
    power, length, place = power[np.ix_(filled, some)], length[filled], place[filled]
    elapsed, length = place / length.sum(axis=1), length[:, some]
    share = power / (power.sum(axis=0) / length.sum(axis=0))  # what every variable would add at its mean: its length
    amount = share.sum(axis=1) / length.sum(axis=1)
    return Bends(elapsed, np.maximum(amount, LEAST * amount.max()))


def _edges(middles: FloatArray, n_bins: int) -> FloatArray:
    """Times between bins with as many of the intervals each as may be; none of them is the middle of an interval."""
    unit = float(middles.max()) * 1e-9
    distinct, count = np.unique(np.round(middles / unit), return_counts=True)
    share = np.cumsum(count) / len(middles)
    last = np.unique(np.searchsorted(share, np.arange(1, n_bins) / max(n_bins, 1) - 1e-9))
    last = last[last + 1 < len(distinct)]
    return np.asarray((distinct[last] + distinct[last + 1]) / 2 * unit)
