"""Smooth all observed trajectories at once: smoothed states, noise level, and which variables move at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from skode._movement import moving
from skode._spline import path
from skode._strength import Piece, choose, follow_bends, on_grids
from skode._typing import BoolArray, FloatArray, IntArray

__all__ = ["Smooth", "oversampling", "path", "smooth"]

WELL_SAMPLED = 2  # observations per independent datum: smooths of noisy oscillations in the benchmarks have one to four
SHORT_INTERVAL = 1e-3  # of the trajectory's median interval


class Smooth(NamedTuple):
    """What smoothing found; lists run over trajectories, d is the number of variables."""

    knots: list[FloatArray]  # (n_knots_k,) increasing observation times, repeated ones merged
    states: list[FloatArray]  # (n_knots_k, d) smoothed, nan for a variable never seen in that trajectory
    noise: FloatArray  # (d,) standard deviation of one observation of average weight; nan if it cannot be told
    dof: FloatArray  # (d,) equivalent parameters of the smooth, all trajectories together
    moves: BoolArray  # (d,) False: constant in every trajectory, up to noise
    strengths: FloatArray  # (d,) chosen factor of the roughness penalty, in units of time cubed; nan if not smoothed
    uneven: bool  # whether bends cost more at some times than at others


def oversampling(n_seen: IntArray, dof: FloatArray) -> int:
    """Intervals in the time in which a well sampled path has one: those per independent datum, halved and rounded down.

    Parameters
    ----------
    n_seen : array (d,)
        Observations of every variable, in all trajectories together.
    dof : array (d,)
        Equivalent parameters of its smooth; those of 0 do not count.

    Returns
    -------
    int
        Of the median variable; 1 or more.

    Examples
    --------
    >>> import numpy as np
    >>> from skode.smooth import oversampling, smooth
    >>> times = np.linspace(0.0, 6.0, 301)
    >>> wave = np.sin(times)[:, None] + 0.1 * np.random.default_rng(0).standard_normal((301, 1))
    >>> oversampling(np.array([301]), smooth([times], [wave]).dof) > 10
    True
    """
    some = dof > 0
    return max(1, int(np.median(n_seen[some] / dof[some]) / WELL_SAMPLED)) if some.any() else 1


def smooth(
    times: Sequence[FloatArray],
    values: Sequence[FloatArray],
    weights: Sequence[FloatArray] | None = None,
    *,
    moves: BoolArray | None = None,
    even: bool = False,
) -> Smooth:
    r"""Smooth every trajectory by a natural cubic spline with one strength per variable.

    For variable i the trajectories :math:`g_k` minimise, with the same :math:`\lambda_i` for all k,

    .. math:: \sum_k \Big[ \sum_j w_{kj} (y_{kji} - g_k(t_{kj}))^2 + \lambda_i \int g_k''(t)^2 dt \Big]

    and :math:`\lambda_i` minimises the robust pooled generalised cross-validation score

    .. math:: \frac{N\,RSS}{(N - trace)^2} \Big[ \gamma + (1 - \gamma) \frac{trace}{N} \Big], \; \gamma = 1/2,

    in which N, RSS and trace are sums over trajectories, among 60 strengths between near interpolation and
    near straight lines. The noise variance is RSS / (N - trace).

    A variable is constant (`moves` False) if its deviations from the mean of each trajectory look like white
    noise: the power of slow and of fast components (cosines of the order of observation) is compared by
    two-sided F tests at five frequencies, all together at level 0.01, or if it deviates by no more than 1e-9
    of its largest value. It is then replaced by its mean in every trajectory.

    Paths that relax bend much where they begin and little later, others jump and rest: one strength would flatten the
    one and leave noise in the other. So all is smoothed again with :math:`\lambda_i / q` in place of :math:`\lambda_i`.
    At first q is the mean square of second derivatives, of all variables, at the same time since a trajectory began,
    relative to its mean over time (twice, where that helps); then every trajectory's own bends nearby count too. Each
    time the former paths stay where cross-validation does not prefer the new ones, and at first by more than BIC asks
    for the parameters of q. Between knots a path is the natural cubic spline through its smoothed states.

    Parameters
    ----------
    times : sequence of float arrays, one per trajectory, shape (n_k,)
        Observation times in any order and any unit. Repeated times, and times closer than 1e-3 of the
        trajectory's median interval, are averaged with their weights.
    values : sequence of float arrays, one per trajectory, shape (n_k, d)
        Observations; nan is missing. A missing entry and a missing row are the same thing.
    weights : sequence of float arrays, one per trajectory, shape (n_k,), default None
        Positive weights of rows; None is 1 everywhere. Only their ratios matter.
    moves : bool array (d,), default None
        Which variables move, if that is known.
    even : bool, default False
        Whether bends cost the same at all times.

    Returns
    -------
    Smooth
        Named tuple (knots, states, noise, dof, moves, strengths).

    Notes
    -----
    Trajectories of one or two distinct times are left as they are. Where no trajectory has three, noise is
    nan. Variables never seen in a trajectory stay nan there.

    References
    ----------
    .. [1] Craven & Wahba, "Smoothing noisy data with spline functions", 1978, doi:10.1007/BF01404567.
    .. [2] Lukas, "Robust generalized cross-validation for choosing the regularization parameter", Inverse
       Problems 22, 2006. The bracket keeps the score of a few dozen points from choosing interpolation. We
       take trace / N where the paper has the trace of the squared smoother, and pool over trajectories.

    Examples
    --------
    >>> import numpy as np
    >>> t = np.linspace(0.0, 6.0, 200)
    >>> y = np.sin(t)[:, None] + 0.1 * np.random.default_rng(0).standard_normal((200, 1))
    >>> result = smooth([t], [y])
    >>> bool(np.abs(result.states[0][:, 0] - np.sin(t)).max() < 0.1), round(float(result.noise[0]), 1)
    (True, 0.1)
    """
    if weights is None:
        weights = [np.ones(len(t)) for t in times]
    _check(times, values, weights)
    n_variables = values[0].shape[1]
    seen = [np.isfinite(y).any(axis=1) for y in values]
    total = sum(float(w[keep].sum()) for w, keep in zip(weights, seen, strict=True))
    mean_weight = total / max(sum(int(keep.sum()) for keep in seen), 1)
    pieces: list[Piece] = []
    knots: list[FloatArray] = []
    for k, (t, y, w, keep) in enumerate(zip(times, values, weights, seen, strict=True)):
        order = np.flatnonzero(keep)[np.argsort(t[keep], kind="stable")]
        t, y, w = t[order], y[order], w[order] / mean_weight
        knots.append(_merge(t, np.empty((len(t), 0)), w)[0])
        pieces.extend(_split(k, t, y, w))

    found, constant_noise = moving(pieces, n_variables)
    moves = found if moves is None else moves
    plain = on_grids(pieces, [None] * len(pieces))
    pieces, chosen = plain, choose(plain, knots, n_variables)
    if not even:
        pieces, chosen = follow_bends(plain, chosen, knots, moves)
    noise, dof, strengths = chosen[:3]
    n_pieces = np.zeros(n_variables)
    states = [np.full((len(t), n_variables), np.nan) for t in knots]
    for piece in pieces:
        n_pieces[piece.variables] += 1
        fitted = piece.fit(strengths).copy()
        still = ~moves[piece.variables]
        fitted[:, still] = np.average(piece.values[:, still], axis=0, weights=piece.weights)
        target = knots[piece.trajectory]
        same = len(target) == len(piece.knots)
        own = fitted if same else path(piece.knots, fitted, target - target[0])[0]
        states[piece.trajectory][:, piece.variables] = own
    return Smooth(
        knots,
        states,
        np.where(moves, noise, constant_noise),
        np.where(moves, dof, n_pieces),
        moves,
        np.where(moves, strengths, np.nan),
        pieces is not plain,
    )


def _check(times: Sequence[FloatArray], values: Sequence[FloatArray], weights: Sequence[FloatArray]) -> None:
    sizes = [len(times), len(values), len(weights)]
    if min(sizes) == 0 or len(set(sizes)) > 1:
        raise ValueError(
            "times, values and weights must be lists with one array for each of one or more trajectories; "
            f"got lists of {sizes[0]}, {sizes[1]} and {sizes[2]}. Pass one array per trajectory in each."
        )
    for k, (t, y, w) in enumerate(zip(times, values, weights, strict=True)):
        if y.ndim != 2 or y.shape[1] != values[0].shape[1] or not len(t) == len(y) == len(w):
            raise ValueError(
                "times (n,), values (n, d), weights (n,) must agree in n, and all trajectories in d; got "
                f"{t.shape}, {y.shape} and {w.shape} in trajectory {k}. Give values one column per variable."
            )
        if not (np.isfinite(t).all() and (w > 0).all() and np.isfinite(w).all()):
            raise ValueError(
                "times must be finite and weights finite and positive; "
                f"those of trajectory {k} are not all. Drop the rows concerned."
            )


def _merge(t: FloatArray, y: FloatArray, w: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Average rows whose sorted times are equal or far closer than usual; no nan here."""
    interval = np.diff(t)
    positive = interval[interval > 0]
    shortest = SHORT_INTERVAL * float(np.median(positive)) if len(positive) else 0.0
    new = interval > shortest
    if new.all():
        return t, y, w
    first = np.flatnonzero(np.append(True, new))
    mass = np.add.reduceat(w, first)
    share = w / np.repeat(mass, np.diff(np.append(first, len(t))))
    base_t, base_y = (np.repeat(a[first], np.diff(np.append(first, len(t))), axis=0) for a in (t, y))
    merged_t = t[first] + np.add.reduceat(share * (t - base_t), first)  # differences: equal values stay exactly equal
    merged_y = y[first] + np.add.reduceat(share[:, None] * (y - base_y), first, axis=0)
    return merged_t, merged_y, mass


def _split(k: int, t: FloatArray, y: FloatArray, w: FloatArray) -> list[Piece]:
    """Cut a trajectory (times sorted) into groups of variables observed at the same times."""
    patterns, which = np.unique(np.isfinite(y), axis=1, return_inverse=True)
    pieces = []
    for g, rows in enumerate(patterns.T):
        if rows.any():
            variables = np.flatnonzero(which.ravel() == g)
            knots, values, weights = _merge(t[rows], y[np.ix_(rows, variables)], w[rows])
            spacing = (knots[-1] - knots[0]) / max(len(knots) - 1, 1)
            pieces.append(Piece(k, variables, knots - t[0], values, weights, spacing, float(weights.mean())))
    return pieces
