"""Rows for long intervals: a path of constant production, and the decay-weighted mean of the field along it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from skode._typing import FloatArray

N_NODES = 3
"""Gauss-Legendre nodes per interval. The weighted mean of the path is then off by 1e-4 of the interval's change for a
decay x length of up to 10 (two nodes: 3e-3; four: 6e-6), and a field linear in the path is matched exactly anyway."""


class Bridge(NamedTuple):
    """Interval rows of one trajectory."""

    node_times: FloatArray  # (interval, node)
    node_states: FloatArray  # (interval, node, d)
    node_weights: FloatArray  # (interval, node), adding up to 1
    slopes: FloatArray  # (interval, d)


class Rows(NamedTuple):
    """Interval rows for a linear field, which reads nothing of the path but its mean."""

    features: FloatArray  # (interval, source)
    slopes: FloatArray  # (interval, d)
    weights: FloatArray  # (interval,)


def bridge(times: FloatArray, states: FloatArray, gamma: float, *, n_nodes: int = N_NODES) -> Bridge:
    r"""Join observations by paths of constant production under a shared decay rate, and form interval rows.

    Between two observations, s after the first and with h the interval's length,

    .. math:: x(s) = x_k e^{-\gamma s} + p (1 - e^{-\gamma s}), \qquad x(h) = x_{k+1},

    which for gamma = 0 is the straight line. Where the true path obeys x' = f(x), so do its means with any
    weights; those of the variation of constants,

    .. math:: \sum_l q_l f(x(s_l)) = \sum_l q_l x'(s_l), \qquad q_l \propto w_l e^{-\gamma (h - s_l)},
       \quad \sum_l q_l = 1,

    make the row exact for every field of the form production(inputs) - gamma x, whatever the length of the
    interval. For f = g - gamma x the left-hand side plus the decay of the mean path is the mean of g, and the
    slopes plus gamma times the mean path are :math:`\gamma (x_{k+1} - x_k e^{-\gamma h}) / (1 - e^{-\gamma h})`:
    the path's shape enters through g only. w_l are Gauss-Legendre weights.

    Parameters
    ----------
    times : array (knot,)
        Increasing, in any unit.
    states : array (knot, d)
        nan is missing: gaps between two observations of a variable are bridged as one interval, and beyond its
        first and last observation it keeps its value. A variable never seen stays nan.
    gamma : float
        Decay rate >= 0, per unit of time.
    n_nodes : int, default 3
        Gauss-Legendre nodes per interval.

    Returns
    -------
    Bridge
        Named tuple (node_times, node_states, node_weights, slopes).

    Examples
    --------
    >>> import numpy as np
    >>> times = np.array([0.0, 1.0, 4.0])
    >>> rows = bridge(times, np.exp(-times)[:, None], gamma=1.0)  # x' = -x
    >>> means = (rows.node_weights[:, :, None] * rows.node_states).sum(axis=1)
    >>> bool(np.allclose(rows.slopes, -means))
    True
    """
    abscissae, weights = np.polynomial.legendre.leggauss(n_nodes)
    states = fill(times, states, gamma)
    h = np.diff(times)[:, None]
    s = 0.5 * h * (abscissae + 1.0)
    q = weights * np.exp(-gamma * (h - s))
    q /= q.sum(axis=1, keepdims=True)
    share, speed = share_of_change(s, h, gamma)
    change = np.diff(states, axis=0)
    nodes = states[:-1, None] + share[:, :, None] * change[:, None]
    return Bridge(times[:-1, None] + s, nodes, q, (q * speed).sum(axis=1, keepdims=True) * change)


def bridge_nodes(times: FloatArray, n_nodes: int = N_NODES) -> FloatArray:
    """Times of the nodes of every interval, after its start.  # (interval, node)"""
    abscissae, _ = np.polynomial.legendre.leggauss(n_nodes)
    return np.asarray(0.5 * np.diff(times)[:, None] * (abscissae + 1.0))


def bridge_rows(times: FloatArray, states: FloatArray, gamma: float) -> Rows:
    """Interval rows of one trajectory for a linear field: weighted mean of the path, its slope, and precision.

    The production of a row has the noise of two observations, (x_k+1 - x_k e^{-gamma h}) over
    (1 - e^{-gamma h}) / gamma; the weight is the reciprocal of its variance.
    """
    rows = bridge(times, states, gamma)
    weights = _precision(np.diff(times), gamma)
    return Rows(np.einsum("kl,kld->kd", rows.node_weights, rows.node_states), rows.slopes, weights)


def gap_weights(times: FloatArray, states: FloatArray, gamma: float) -> FloatArray:
    """Precision of every variable's production in each interval, shared out over the intervals of a gap.

    Over a gap of length H there is one production, of precision w(H) as in ``bridge_rows``. An interval of length h
    in it has the share h / H of that; before a variable's first and after its last observation it has none.

    Parameters
    ----------
    times : array (knot,)
    states : array (knot, d)
        nan is missing.
    gamma : float

    Returns
    -------
    array (interval, d)
    """
    seen = ~np.isnan(states)
    number = np.arange(len(times))[:, None]
    first = np.maximum.accumulate(np.where(seen, number, -1), axis=0)[:-1]
    last = np.minimum.accumulate(np.where(seen, number, len(times))[::-1], axis=0)[::-1][1:]
    inside = (first >= 0) & (last < len(times))
    whole = np.where(inside, times[np.minimum(last, len(times) - 1)] - times[np.maximum(first, 0)], 1.0)
    return np.where(inside, _precision(whole, gamma) * np.diff(times)[:, None] / whole, 0.0)


def fill(times: FloatArray, states: FloatArray, gamma: float) -> FloatArray:
    """Fill missing states from the path that bridges each gap; constant beyond a variable's ends.

    Parameters
    ----------
    times : array (knot,)
    states : array (knot, d)
    gamma : float

    Returns
    -------
    array (knot, d)
        A variable never seen stays nan.
    """
    missing = np.isnan(states)
    if not missing.any():
        return states
    out = states.copy()
    for i in np.flatnonzero(missing.any(axis=0) & ~missing.all(axis=0)):
        seen = np.flatnonzero(~missing[:, i])
        gaps = np.flatnonzero(missing[:, i])
        right = np.searchsorted(seen, gaps)
        first, last = seen[np.maximum(right - 1, 0)], seen[np.minimum(right, len(seen) - 1)]
        inside = first < last
        length = np.where(inside, times[last] - times[first], 1.0)
        share, _ = share_of_change(np.where(inside, times[gaps] - times[first], 0.0)[:, None], length[:, None], gamma)
        out[gaps, i] = states[first, i] + share[:, 0] * (states[last, i] - states[first, i])
    return out


def share_of_change(s: FloatArray, h: FloatArray, gamma: float) -> tuple[FloatArray, FloatArray]:
    """Share of the interval's change that is done after s, and its derivative; both (interval, node)."""
    if gamma == 0:
        return s / h, np.broadcast_to(1.0 / h, s.shape)
    whole = -np.expm1(-gamma * h)
    return -np.expm1(-gamma * s) / whole, gamma * np.exp(-gamma * s) / whole


def _precision(h: FloatArray, gamma: float) -> FloatArray:
    """Reciprocal variance of the production over a length h, for observations of unit noise."""
    return np.asarray(produced(h, gamma) ** 2 / (1.0 + np.exp(-2.0 * gamma * h)))


def produced(h: FloatArray, gamma: float) -> FloatArray:
    """Change that a production of 1 makes over a length h."""
    return h if gamma == 0 else np.asarray(-np.expm1(-gamma * h) / gamma)


def error_growth(h: FloatArray, gamma: float) -> FloatArray:
    """Variance after a length h of errors that add 1 to it per unit of time, and decay."""
    return produced(h, 2.0 * gamma)
