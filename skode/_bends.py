"""When paths bend: all of them, by the time since they began, and each of them by itself."""

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
WINDOW = 3.0
"""Equivalent parameters of a path in the window in which its own bends are averaged."""
PRIOR = 10.0
"""Squares for which what is known of all paths counts beside those of a window: its parameters, of every variable."""


class Bends(NamedTuple):
    """Mean square second derivative of all paths, relative to its mean over time."""

    elapsed: FloatArray  # (bin,) increasing, since a path began
    amount: FloatArray  # (bin,)

    def at(self, elapsed: FloatArray) -> FloatArray:
        """The amount at some times; the inverse is how stiff paths are there."""
        return np.asarray(np.interp(elapsed, self.elapsed, self.amount))

    def price(self, n_data: float) -> float:
        """Half of what the Bayesian information criterion asks for all parts but one."""
        return (len(self.amount) - 1) / 2 * float(np.log(n_data))


class Curve(NamedTuple):
    """Variables of one trajectory that are known at the same times, and natural cubic splines through their states."""

    variables: IntArray  # (v,)
    elapsed: FloatArray  # (knot,) since the trajectory began, three or more
    states: FloatArray  # (knot, v)

    @property
    def middles(self) -> FloatArray:
        """Middles of the intervals."""
        return np.asarray((self.elapsed[1:] + self.elapsed[:-1]) / 2)

    def squares(self) -> FloatArray:
        """Mean square second derivative of every interval.  # (interval, v)"""
        bend = scipy.interpolate.CubicSpline(self.elapsed, self.states, bc_type="natural")(self.elapsed, 2)
        return np.asarray((bend[1:] ** 2 + bend[1:] * bend[:-1] + bend[:-1] ** 2) / 3.0)  # bends are lines


def find_bends(curves: Sequence[Curve], moves: BoolArray, n_parameters: float) -> Bends | None:
    r"""Mean squares of second derivatives by the time since a trajectory began.

    .. math:: q_b = \frac1{|V|} \sum_{i \in V} \frac{mean_b(g_i''^2)}{mean(g_i''^2)}

    over the variables V that move, with means over all trajectories. Paths that relax bend where they begin, paths on
    an attractor bend everywhere alike.

    Parameters
    ----------
    curves : sequence of Curve
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
    middles = [curve.middles for curve in curves]
    edges = _edges(np.concatenate(middles), int(min(BINS, n_parameters / PER_BIN)))
    if not len(edges):
        return None
    n_bins = len(edges) + 1
    power, length = np.zeros((2, n_bins, len(moves)))
    place = np.zeros(n_bins)
    for curve, middle in zip(curves, middles, strict=True):
        square, interval = curve.squares(), np.diff(curve.elapsed)
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


def own_bends(curves: Sequence[Curve], moves: BoolArray, bends: Bends | None, dof: FloatArray) -> list[FloatArray]:
    r"""How much every path bends in every interval, by what is known of all paths and by its own bends nearby.

    .. math:: q = \bar q \, \frac{n_0 + n r}{n_0 + n}, \qquad r = mean \frac{g_i''^2}{\bar q \, m_i}

    with :math:`\bar q` the amount for all paths, m_i the mean of :math:`g_i''^2 / \bar q` over time, the mean over the
    variables that move and a window of the time in which a path has three equivalent parameters, n = 3 for each of
    these variables, and :math:`n_0 = 10`.

    Parameters
    ----------
    curves : sequence of Curve
    moves : bool array (d,)
    bends : Bends or None
        Of all paths; None for those that bend alike at all times.
    dof : array (d,)
        Equivalent parameters of all of them together.

    Returns
    -------
    list of arrays (interval,)
    """
    whole = [np.ones(len(curve.middles)) if bends is None else bends.at(curve.middles) for curve in curves]
    relative = [curve.squares() / amount[:, None] for curve, amount in zip(curves, whole, strict=True)]
    power, length = np.zeros((2, len(moves)))
    for curve, square in zip(curves, relative, strict=True):
        power[curve.variables] += np.diff(curve.elapsed) @ square
        length[curve.variables] += curve.elapsed[-1] - curve.elapsed[0]
    bent = moves & (power > 0) & (dof > 0)
    if not bent.any():
        return whole
    mean = power / np.where(length > 0, length, 1.0)
    reach = WINDOW / 2 * float(np.median(length[bent] / dof[bent]))
    out = []
    for curve, amount, square in zip(curves, whole, relative, strict=True):
        some = bent[curve.variables]
        n = WINDOW * some.sum()
        if n:
            ratio = (square[:, some] / mean[curve.variables[some]]).mean(axis=1)
            amount = amount * (PRIOR + n * _nearby(curve.elapsed, ratio, reach)) / (PRIOR + n)
        out.append(amount)
    return out


def _nearby(knots: FloatArray, values: FloatArray, reach: float) -> FloatArray:
    """Means of what is constant in every interval, over all that is within reach of the middles of the intervals."""
    middles, interval = (knots[1:] + knots[:-1]) / 2, np.diff(knots)
    total = np.append(0.0, np.cumsum(interval * values))
    low, high = np.maximum(middles - reach, knots[0]), np.minimum(middles + reach, knots[-1])
    return np.asarray((np.interp(high, knots, total) - np.interp(low, knots, total)) / (high - low))


def _edges(middles: FloatArray, n_bins: int) -> FloatArray:
    """Times between bins with as many of the intervals each as may be; none of them is the middle of an interval."""
    unit = float(middles.max()) * 1e-9
    distinct, count = np.unique(np.round(middles / unit), return_counts=True)
    share = np.cumsum(count) / len(middles)
    last = np.unique(np.searchsorted(share, np.arange(1, n_bins) / max(n_bins, 1) - 1e-9))
    last = last[last + 1 < len(distinct)]
    return np.asarray((distinct[last] + distinct[last + 1]) / 2 * unit)
