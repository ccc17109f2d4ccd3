"""Smooth all observed trajectories at once: smoothed states, noise level, and which variables move at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.fft
import scipy.special

from skode._bends import Curve, find_bends, own_bends
from skode._spline import AbstractGrid, BandedGrid, SpectralGrid, path
from skode._typing import BoolArray, FloatArray, IntArray

__all__ = ["Smooth", "oversampling", "path", "smooth"]

N_STRENGTHS = 60
WELL_SAMPLED = 2  # observations per independent datum: smooths of noisy oscillations in the benchmarks have one to four
ROBUST = 0.5  # 1 is plain generalised cross-validation
LONG_SERIES = 300  # knots; beyond this the banded form is cheaper than the spectral one
SHORT_INTERVAL = 1e-3  # of the trajectory's median interval
CONSTANT_TOLERANCE = 1e-12  # of the largest absolute value of the variable
LEVEL = 0.01  # probability that white noise is taken for movement
ROUNDS = 2  # of smoothing again where paths bend unevenly
FREQUENCIES = (0.0, 1 / 16, 1 / 8, 1 / 4, 1 / 2)  # where "slow" ends, as a fraction of the highest frequency


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


class _Piece(NamedTuple):
    """Variables of one trajectory that were observed at the same times."""

    trajectory: int
    variables: IntArray  # (v,)
    knots: FloatArray  # (knot,) since the trajectory began
    values: FloatArray  # (knot, v)
    weights: FloatArray  # (knot,)
    spacing: float  # mean interval
    mass: float  # mean weight of the knots
    grid: AbstractGrid | None = None  # none yet, or for one or two knots, which are left as they are

    @property
    def scale(self) -> float:
        """Penalty factor on the grid = strength / scale."""
        return self.mass * self.spacing**3

    def fit(self, strengths: FloatArray) -> FloatArray:  # (d,)
        """Smoothed values at the knots.  # (knot, v)"""
        return self.values if self.grid is None else self.grid.fit(self.values, strengths[self.variables] / self.scale)


class _Choice(NamedTuple):
    """Strengths of all variables, and what they say."""

    noise: FloatArray  # (d,)
    dof: FloatArray  # (d,)
    strengths: FloatArray  # (d,)
    score: FloatArray  # (d,) of cross-validation; nan where nothing can be smoothed
    n_data: FloatArray  # (d,) observations


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
    pieces: list[_Piece] = []
    knots: list[FloatArray] = []
    for k, (t, y, w, keep) in enumerate(zip(times, values, weights, seen, strict=True)):
        order = np.flatnonzero(keep)[np.argsort(t[keep], kind="stable")]
        t, y, w = t[order], y[order], w[order] / mean_weight
        knots.append(_merge(t, np.empty((len(t), 0)), w)[0])
        pieces.extend(_split(k, t, y, w))

    found, constant_noise = _moving(pieces, n_variables)
    moves = found if moves is None else moves
    plain = _on_grids(pieces, [None] * len(pieces))
    pieces, chosen = plain, _choose(plain, knots, n_variables)
    if not even:
        pieces, chosen = _follow_bends(plain, chosen, knots, moves)
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


def _split(k: int, t: FloatArray, y: FloatArray, w: FloatArray) -> list[_Piece]:
    """Cut a trajectory (times sorted) into groups of variables observed at the same times."""
    patterns, which = np.unique(np.isfinite(y), axis=1, return_inverse=True)
    pieces = []
    for g, rows in enumerate(patterns.T):
        if rows.any():
            variables = np.flatnonzero(which.ravel() == g)
            knots, values, weights = _merge(t[rows], y[np.ix_(rows, variables)], w[rows])
            spacing = (knots[-1] - knots[0]) / max(len(knots) - 1, 1)
            pieces.append(_Piece(k, variables, knots - t[0], values, weights, spacing, float(weights.mean())))
    return pieces


def _on_grids(pieces: list[_Piece], stiffness: Sequence[FloatArray | None]) -> list[_Piece]:
    """The same with their grids, each made once for all pieces that share it up to shift and scale.

    Parameters
    ----------
    pieces : list of _Piece
    stiffness : sequence of arrays (interval,) or None, one per piece
        Factors of the penalty.
    """
    cache: dict[bytes, AbstractGrid] = {}
    out = []
    for piece, factor in zip(pieces, stiffness, strict=True):
        if len(piece.knots) < 3:
            out.append(piece)
            continue
        knots = np.round((piece.knots - piece.knots[0]) / piece.spacing, 11)
        weights = np.maximum(np.round(piece.weights / piece.mass, 11), 1e-9)
        factor = None if factor is None else np.round(factor, 11)
        key = knots.tobytes() + weights.tobytes() + (b"" if factor is None else factor.tobytes())
        if key not in cache:
            kind = SpectralGrid if len(knots) <= LONG_SERIES else BandedGrid
            cache[key] = kind.build(knots, weights, factor)
        out.append(piece._replace(grid=cache[key]))
    return out


def _follow_bends(
    pieces: list[_Piece], chosen: _Choice, knots: list[FloatArray], moves: BoolArray
) -> tuple[list[_Piece], _Choice]:
    """Smooth again with penalties that follow when paths bend, as far as cross-validation prefers it.

    First by the time since a trajectory began, then every trajectory by its own bends too.

    Returns
    -------
    list of _Piece
        The same object if nothing is better.
    _Choice
    """
    bends, curved = None, [piece.grid is not None for piece in pieces]

    def curves() -> list[Curve]:
        return [
            Curve(piece.variables, piece.knots, piece.fit(chosen.strengths))
            for piece in pieces
            if piece.grid is not None
        ]

    def again(amounts: Sequence[FloatArray]) -> tuple[list[_Piece], _Choice, float]:
        left = iter(amounts)
        stiffer = _on_grids(pieces, [1.0 / next(left) if some else None for some in curved])
        other = _choose(stiffer, knots, len(moves))
        return stiffer, other, _gain(chosen, other, moves)

    for _ in range(ROUNDS):
        found = find_bends(curves(), moves, float(chosen.dof[moves].sum()))
        if found is None:
            break
        stiffer, other, gain = again([found.at(curve.middles) for curve in curves()])
        if not gain > (0.0 if bends else found.price(float(chosen.n_data[moves].sum()))):
            break
        pieces, chosen, bends = stiffer, other, found
    stiffer, other, gain = again(own_bends(curves(), moves, bends, chosen.dof))
    return (stiffer, other) if gain > 0.0 else (pieces, chosen)


def _choose(pieces: list[_Piece], knots: list[FloatArray], n_variables: int) -> _Choice:
    """Choose strengths by pooled cross-validation."""
    curved = [piece for piece in pieces if piece.grid is not None]
    n_knots, n_curved = np.zeros((2, n_variables))
    for piece in pieces:
        n_knots[piece.variables] += len(piece.knots)
        n_curved[piece.variables] += len(piece.knots) * (piece.grid is not None)
    if not curved:
        nothing = np.full(n_variables, np.nan)
        return _Choice(nothing, n_knots, nothing, nothing, n_knots)
    unit = float(np.median(np.concatenate([np.diff(t) for t in knots if len(t) > 1])))
    longest = max((p.knots[-1] - p.knots[0]) ** 3 * len(p.knots) for p in curved)
    mass = float(np.mean(np.concatenate([piece.weights for piece in curved])))
    strengths = mass * np.geomspace(2e-5 * unit**3, 2.0 * longest, N_STRENGTHS)
    freedom, residual = np.zeros((2, N_STRENGTHS, n_variables))
    known: dict[tuple[int, float], FloatArray] = {}
    for piece in curved:
        assert piece.grid is not None
        key = (id(piece.grid), piece.scale)
        if key not in known:
            known[key] = piece.grid.residual_freedom(strengths / piece.scale)
        freedom[:, piece.variables] += known[key][:, None]
        residual[:, piece.variables] += piece.mass * piece.grid.residual(piece.values, strengths / piece.scale)
    with np.errstate(invalid="ignore", divide="ignore"):
        fitted = 1.0 - freedom / n_curved
        score = residual / freedom**2 * (ROBUST + (1.0 - ROBUST) * fitted)
        best = np.argmin(np.where(np.isnan(score), np.inf, score), axis=0)
        chosen = (best, np.arange(n_variables))
        noise = np.sqrt(residual[chosen] / freedom[chosen])
    return _Choice(noise, n_knots - freedom[chosen], strengths[best], score[chosen], n_knots)


def _gain(before: _Choice, after: _Choice, moves: BoolArray) -> float:
    """Rise of the log-likelihood, as far as scores are mean squares of prediction errors."""
    with np.errstate(invalid="ignore", divide="ignore"):
        gain = before.n_data / 2 * np.log(before.score / after.score)
    return float(gain[moves & np.isfinite(gain)].sum())


def _moving(pieces: list[_Piece], n_variables: int) -> tuple[BoolArray, FloatArray]:
    """Test every variable against constants; return (moves, noise about the constants), each (d,)."""
    size, deviation, total, count = np.zeros((4, n_variables))
    slow, n_slow = np.zeros((2, len(FREQUENCIES), n_variables))
    for piece in pieces:
        v, n = piece.variables, len(piece.knots)
        centred = piece.values - piece.values[0]
        centred -= np.average(centred, axis=0, weights=piece.weights)
        size[v] = np.maximum(size[v], np.abs(piece.values).max(axis=0))
        deviation[v] = np.maximum(deviation[v], np.abs(centred).max(axis=0))
        power = scipy.fft.dct(np.sqrt(piece.weights)[:, None] * centred, axis=0, norm="ortho")[1:] ** 2
        total[v] += power.sum(axis=0)
        count[v] += n - 1
        for row, frequency in enumerate(FREQUENCIES):
            last = min(max(1, int(frequency * n)), n - 1)
            slow[row, v] += power[:last].sum(axis=0)
            n_slow[row, v] += last
    n_fast = count - n_slow
    fast = np.maximum(total - slow, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = (slow / n_slow) / (fast / n_fast)
        upper = scipy.special.fdtrc(n_slow, n_fast, ratio)
        lower = scipy.special.fdtrc(n_fast, n_slow, 1.0 / ratio)
        p_value = np.minimum(upper, lower)
        constant_noise = np.sqrt(total / count)
    testable = n_fast > 0
    p_value = np.where(testable & ~np.isnan(p_value), p_value, np.where(testable, 0.0, 1.0)).min(axis=0)
    n_tests = 2 * np.maximum(testable.sum(axis=0), 1)
    moves = (p_value * n_tests < LEVEL) | ~testable.any(axis=0)
    return np.asarray(moves & (deviation > CONSTANT_TOLERANCE * size)), constant_noise
