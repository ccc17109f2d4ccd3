"""Choose the path between observations, by cross-validated forecasts of a linear field over one interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from skode._bridge import Rows, bridge_rows
from skode._linear_field import ridge_fields
from skode._typing import BoolArray, FloatArray, IntArray
from skode.smooth import path, smooth

GRID = (0.0, 0.0625, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Decay rates tried first, per median interval: beyond 4 an interval forgets its start. Below .25 one
rate will do: what is best is refined, but not from 0."""
REFINE = 2.0**0.5
"""Factor between the rates that are tried around the best of those."""
N_FOLDS = 3
ROUGH, FINE = 3e6, 1e8
"""Bounds on rows x min(rows, sources)^2, the work for one field, when rates are tried first and when they are refined.
Few rows placed the rate within a factor of 2^.5 on each of sixteen simulated sets; more of them settle it."""
RIDGE = (0.01, 0.1, 1.0)
"""Strengths of the linear field, for sources of unit variance. The forecasts pick one: generalised cross-validation on
the rows, which share observations and a misfit of the linear field, picks strengths whose forecasts are useless."""
SPLINE_MARGIN = 0.1
"""Share by which the spline's forecasts must be better than those of the bridged path. Gains of
up to .06 on eight gene networks and linear systems went with better graphs about as often as with worse ones, and
only bridged rows allow model smoothing; dense oscillations gain far more."""
LEAST_BLOCK = 3
"""Intervals of a block of time, at least."""
LONGEST = 20.0
"""Interval length, in medians, beyond which no forecast is judged: nothing is known of the path inside."""
_GAUSS = np.array([0.5 - np.sqrt(3) / 6, 0.5 + np.sqrt(3) / 6])


class DecayChoice(NamedTuple):
    """How well each path lets a linear field forecast one interval ahead.

    ``gamma`` is None where the smoothing spline forecasts best.
    """

    gamma: float | None  # chosen
    best_gamma: float  # best of the bridged paths, per unit of time
    gammas: FloatArray  # (tried,) increasing, per unit of time
    errors: FloatArray  # (tried, fold) around the best, mean squared error over variance, of variables that move


def choose_decay(
    times: Sequence[FloatArray],
    states: Sequence[FloatArray],
    *,
    moves: BoolArray,
    inputs: FloatArray | None = None,
    groups: IntArray | None = None,
    n_folds: int = N_FOLDS,
) -> DecayChoice:
    """Choose between bridged paths of several decay rates and the smoothing spline.

    For every candidate a linear field, shrunk towards pure decay at that rate (ridge, the best of three strengths),
    is fitted to the interval rows of training trajectories, and simulated from every observation of the test
    trajectories to the next one. The test part is never smoothed or bridged, so candidates compete on the same
    ground. Rates 0, .0625, .25, .5, 1, 2, 4 per median interval and the spline are tried on few groups, spread evenly
    over the sizes of trajectories; then, on as many groups as fit the bound on work, factors of 2^.5 to both sides of
    the best for as long as forecasts get better. The spline is chosen if its error is smaller by a tenth, and by more
    than the standard error of the paired differences between folds.

    Parameters
    ----------
    times : sequence of arrays (knot_k,)
        Increasing.
    states : sequence of arrays (knot_k, d)
        nan is missing; a test forecast then starts from the last value seen, and that variable's is not judged,
        because an older start makes decay look faster.
    moves : array (d,) of bool
        False is constant: the variable may drive others, is held, and has no error.
    inputs : array (trajectory, m), default None
        Constant inputs, sources like the states.
    groups : array (trajectory,) of int, default None
        Trajectories of a group stay together. None is one group each.
    n_folds : int, default 3
        At most as many as there are groups. Groups in order of the size of their states go to folds in turn, so that
        neither the order of trajectories nor that of variables matters.

    Returns
    -------
    DecayChoice

    Raises
    ------
    ValueError
        If there is one group only, or no variable moves.
    """
    names, group = np.unique(np.arange(len(times)) if groups is None else groups, return_inverse=True)
    if len(names) < 2 or not moves.any():
        raise ValueError(
            f"the decay rate is chosen over whole trajectories, with one or more variables that move; got {len(names)} "
            f"group(s) and {int(moves.sum())} moving variable(s). Give more trajectories, or the rate itself."
        )
    given = np.zeros((len(times), 0)) if inputs is None else inputs
    unit = float(np.median(np.concatenate([np.diff(t) for t in times])))
    group = _by_size(states, group)
    n_sources = states[0].shape[1] + given.shape[1]

    def parts(work: float) -> list[_Part]:
        rank = _spread(times, group, n_sources, work)
        chosen = np.flatnonzero(rank >= 0).tolist()
        fold = rank[chosen] % min(n_folds, int(rank.max()) + 1)
        t, x = [times[k] for k in chosen], [states[k] for k in chosen]
        return [_Part.build(t, x, given[chosen], fold == k, moves, LONGEST * unit) for k in range(int(fold.max()) + 1)]

    rough = parts(ROUGH)
    first = {gamma: _best([part.bridged(gamma / unit, RIDGE) for part in rough]) for gamma in GRID}
    start = min(first, key=lambda gamma: float(first[gamma][0].mean()))
    gain = first[start][0] - _best([part.spline(start / unit, RIDGE) for part in rough])[0]
    error = float(gain.std(ddof=1)) / len(gain) ** 0.5
    splines = float(gain.mean()) > max(SPLINE_MARGIN * float(first[start][0].mean()), error)

    fine = parts(FINE)
    found, strength = _best([part.bridged(start / unit, RIDGE) for part in fine])
    tried = {start: found}
    best = start
    while best > 0 and len(tried) < 2 * len(GRID):
        around = [gamma for gamma in (best / REFINE, best * REFINE) if not _tried(gamma, tried)]
        if not around:
            break
        for gamma in around:
            tried[gamma] = np.array([part.bridged(gamma / unit, [strength])[0] for part in fine])
        best = min(tried, key=lambda gamma: float(tried[gamma].mean()))
    gammas = sorted(tried)
    return DecayChoice(
        gamma=None if splines else best / unit,
        best_gamma=best / unit,
        gammas=np.array(gammas) / unit,
        errors=np.stack([tried[gamma] for gamma in gammas]),
    )


def blocks_of_time(
    times: Sequence[FloatArray], states: Sequence[FloatArray], inputs: FloatArray, n_blocks: int
) -> tuple[list[FloatArray], list[FloatArray], FloatArray]:
    """Cut trajectories into blocks of time that share no interval, where there are too few for folds.

    Parameters
    ----------
    times : sequence of arrays (knot_k,)
    states : sequence of arrays (knot_k, d)
    inputs : array (trajectory, m)
    n_blocks : int
        Wanted. There are fewer where blocks would have less than three intervals.

    Returns
    -------
    times, states : lists over blocks
    inputs : array (block, m)
    """
    n_intervals = sum(len(t) - 1 for t in times)
    size = max(LEAST_BLOCK, -(-n_intervals // n_blocks))
    out_times, out_states, owner = [], [], []
    for k, (t, x) in enumerate(zip(times, states, strict=True)):
        pieces = max(1, (len(t) - 1) // size)
        cuts = np.linspace(0, len(t) - 1, pieces + 1).astype(int)
        for first, last in zip(cuts[:-1], cuts[1:], strict=True):
            out_times.append(t[first : last + 1])
            out_states.append(x[first : last + 1])
            owner.append(k)
    return out_times, out_states, inputs[owner]


def relaxation_rate(times: Sequence[FloatArray], states: Sequence[FloatArray], moves: BoolArray) -> float:
    """Rate at which variables relax to their means, the best of the grid for all of them together.

    Parameters
    ----------
    times : sequence of arrays (knot_k,)
    states : sequence of arrays (knot_k, d)
        nan is missing.
    moves : array (d,) of bool

    Returns
    -------
    float
        0 if there is no interval.
    """
    every = np.concatenate(states)[:, moves]
    h = np.concatenate([np.diff(t) for t in times])
    if len(h) == 0:
        return 0.0
    mean, sd = np.nanmean(every, axis=0), np.nanstd(every, axis=0)
    z = [(x[:, moves] - mean) / np.where(sd > 0, sd, 1.0) for x in states]
    before, after = np.concatenate([x[:-1] for x in z]), np.concatenate([x[1:] for x in z])
    rates = np.array(GRID) / float(np.median(h))
    errors = [float(np.nansum((after - np.exp(-rate * h)[:, None] * before) ** 2)) for rate in rates]
    return float(rates[int(np.argmin(errors))])


def _tried(gamma: float, tried: dict[float, FloatArray]) -> bool:
    return any(abs(other - gamma) < 1e-6 * gamma for other in tried)


def _by_size(states: Sequence[FloatArray], group: IntArray) -> IntArray:
    """Number the groups by the sum of squares of their standardised states."""
    every = np.concatenate(states)
    mean, sd = np.nanmean(every, axis=0), np.nanstd(every, axis=0)
    sd = np.where(sd > 0, sd, 1.0)
    squares = np.array([np.nansum(((x - mean) / sd) ** 2) for x in states])
    return np.asarray(np.argsort(np.argsort(np.bincount(group, weights=squares), kind="stable")))[group]


def _spread(times: Sequence[FloatArray], group: IntArray, n_sources: int, work: float) -> IntArray:
    """Rank of every trajectory's group among those chosen, evenly over all groups; -1 is left out."""
    rows = np.bincount(group, weights=[len(t) - 1 for t in times])
    n = len(rows)
    fits = [m for m in range(1, n + 1) if (total := rows.mean() * m) * min(total, n_sources) ** 2 <= work]
    kept = np.unique(np.linspace(0, n - 1, max(min(n, 8), max(fits, default=0))).round().astype(int))
    rank = np.full(n, -1)
    rank[kept] = np.arange(len(kept))
    return rank[group]


class _Part(NamedTuple):
    """One fold: training trajectories in standard units, and the test intervals."""

    times: list[FloatArray]
    states: list[FloatArray]
    inputs: FloatArray
    moves: BoolArray
    starts: FloatArray  # (test interval, source)
    ends: FloatArray  # (test interval, d)
    lengths: FloatArray  # (test interval,)

    @classmethod
    def build(
        cls,
        times: Sequence[FloatArray],
        states: Sequence[FloatArray],
        inputs: FloatArray,
        test: BoolArray,
        moves: BoolArray,
        longest: float,
    ) -> _Part:
        chosen = [k for k in range(len(times)) if not test[k]]
        known = np.concatenate([states[k] for k in chosen])
        mean, sd = np.nanmean(known, axis=0), np.nanstd(known, axis=0)
        sd = np.where(sd > 0, sd, 1.0)
        spread = inputs[~test].std(axis=0)
        u = (inputs - inputs[~test].mean(axis=0)) / np.where(spread > 0, spread, 1.0)
        z = [(x - mean) / sd for x in states]
        starts, ends, lengths = [], [], []
        for k in (k for k in range(len(times)) if test[k]):
            short = np.diff(times[k]) <= longest
            carried = _carry(z[k])[:-1][short]
            starts.append(np.concatenate([carried, np.broadcast_to(u[k], (len(carried), len(u[k])))], axis=1))
            ends.append(np.where(np.isnan(z[k][:-1]), np.nan, z[k][1:])[short])
            lengths.append(np.diff(times[k])[short])
        return cls(
            [times[k] for k in chosen],
            [z[k] for k in chosen],
            u[~test],
            moves,
            np.concatenate(starts),
            np.concatenate(ends),
            np.concatenate(lengths),
        )

    def bridged(self, gamma: float, strengths: Sequence[float]) -> FloatArray:  # (strength,)
        """Errors with rows along bridged paths."""
        rows = [bridge_rows(t, x, gamma) for t, x in zip(self.times, self.states, strict=True)]
        return self._errors(rows, gamma, strengths)

    def spline(self, gamma: float, strengths: Sequence[float]) -> FloatArray:  # (strength,)
        """Errors with rows along the smoothing spline, two Gauss nodes each."""
        smoothed = smooth(self.times, self.states, moves=self.moves)
        rows = [_spline_rows(t, x) for t, x in zip(smoothed.knots, smoothed.states, strict=True)]
        return self._errors(rows, gamma, strengths)

    def _errors(self, rows: list[Rows], gamma: float, strengths: Sequence[float]) -> FloatArray:
        u = [np.broadcast_to(self.inputs[k], (len(r[1]), self.inputs.shape[1])) for k, r in enumerate(rows)]
        features = np.concatenate([np.concatenate([r[0] for r in rows]), np.concatenate(u)], axis=1)
        features, slopes = np.nan_to_num(features), np.nan_to_num(np.concatenate([r[1] for r in rows]))
        production = (slopes + gamma * features[:, : slopes.shape[1]])[:, self.moves]
        ends = self.ends[:, self.moves]
        seen = ~np.isnan(ends)
        out = []
        for field in ridge_fields(features, production, np.concatenate([r[2] for r in rows]), strengths):
            with np.errstate(over="ignore", invalid="ignore"):
                error = (field.simulate(self.starts, self.lengths, gamma, self.moves) - ends)[seen] ** 2
            out.append(float(error.mean()) if np.isfinite(error).all() else float("inf"))
        return np.array(out)


def _best(by_fold: Sequence[FloatArray]) -> tuple[FloatArray, float]:
    """Errors of the strength that is best on average, (fold,), and that strength."""
    errors = np.stack(by_fold, axis=1)
    place = int(np.argmin(errors.mean(axis=1)))
    return np.asarray(errors[place]), RIDGE[place]


def _spline_rows(knots: FloatArray, states: FloatArray) -> Rows:
    h = np.diff(knots)
    between, _ = path(knots, states, (knots[:-1, None] + h[:, None] * _GAUSS).ravel())
    features = between.reshape(len(h), 2, states.shape[1]).mean(axis=1)
    return Rows(features, np.diff(states, axis=0) / h[:, None], h**2)


def _carry(states: FloatArray) -> FloatArray:
    """Replace what is missing by the last value seen, or by the mean, 0, before the first."""
    out = states.copy()
    out[0] = np.nan_to_num(out[0])
    for k in range(1, len(out)):
        out[k] = np.where(np.isnan(out[k]), out[k - 1], out[k])
    return out
