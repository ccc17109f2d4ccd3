"""Choose the path between observations, by cross-validated forecasts of a linear field over one interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from skode._bridge import bridge
from skode._typing import BoolArray, FloatArray, IntArray
from skode.smooth import path, smooth

GRID = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Decay rates tried first, per median interval: beyond 4 an interval forgets its start, below .25 all are alike."""
REFINE = 2.0**0.5
"""Factor to either side of the best rate that is tried next."""
N_STEPS = 8
"""Runge-Kutta steps over one interval."""
N_FOLDS = 4
RIDGE = (0.01, 0.1, 1.0)
"""Strengths of the linear field, for sources of unit variance. The forecasts pick one: generalised cross-validation on
the rows, which share observations and a misfit of the linear field, picks strengths whose forecasts are useless."""
_GAUSS = np.array([0.5 - np.sqrt(3) / 6, 0.5 + np.sqrt(3) / 6])

_Rows = tuple[FloatArray, FloatArray, FloatArray]  # features (row, source), slopes (row, d), weights (row,)


class DecayChoice(NamedTuple):
    """How well each path lets a linear field forecast one interval ahead.

    ``gamma`` is None where the smoothing spline forecasts best.
    """

    gamma: float | None  # chosen
    best_gamma: float  # best of the bridged paths, per unit of time
    gammas: FloatArray  # (tried,) increasing, per unit of time
    errors: FloatArray  # (tried, fold) mean squared error over variance, of variables that move
    strength: float  # of the ridge that forecast best at the best rate
    spline_errors: FloatArray  # (fold,) the same with rows along the spline, shrunk towards the best rate


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
    ground. Rates 0, .25, .5, 1, 2, 4 per median
    interval are tried, then a factor of 2^.5 to both sides of the best.

    Parameters
    ----------
    times : sequence of arrays (knot_k,)
        Increasing.
    states : sequence of arrays (knot_k, d)
        nan is missing; a test forecast then starts from the last value seen.
    moves : array (d,) of bool
        False is constant: the variable may drive others, is held, and has no error.
    inputs : array (trajectory, m), default None
        Constant inputs, sources like the states.
    groups : array (trajectory,) of int, default None
        Trajectories of a group stay together. None is one group each.
    n_folds : int, default 4
        Groups k, k + n_folds, ... make fold k; at most as many as there are groups.

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
    fold = group % min(n_folds, len(names))
    parts = [_Part.build(times, states, given, fold == k, moves) for k in range(int(fold.max()) + 1)]
    tried: dict[float, FloatArray] = {}
    strengths: dict[float, float] = {}

    def attempt(gammas: Sequence[float]) -> float:
        for gamma in gammas:
            tried[gamma], strengths[gamma] = _best(np.stack([part.bridged(gamma / unit) for part in parts], axis=1))
        return min(tried, key=lambda gamma: float(tried[gamma].mean()))

    best = attempt(GRID)
    if best > 0:
        best = attempt([best / REFINE, best * REFINE])
    gammas = sorted(tried)
    spline_errors, _ = _best(np.stack([part.spline(best / unit) for part in parts], axis=1))
    better = float(tried[best].mean()) <= float(spline_errors.mean())
    return DecayChoice(
        gamma=best / unit if better else None,
        best_gamma=best / unit,
        gammas=np.array(gammas) / unit,
        errors=np.stack([tried[gamma] for gamma in gammas]),
        strength=strengths[best],
        spline_errors=spline_errors,
    )


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
            carried = _carry(z[k])[:-1]
            starts.append(np.concatenate([carried, np.broadcast_to(u[k], (len(carried), len(u[k])))], axis=1))
            ends.append(z[k][1:])
            lengths.append(np.diff(times[k]))
        return cls(
            [times[k] for k in chosen],
            [z[k] for k in chosen],
            u[~test],
            moves,
            np.concatenate(starts),
            np.concatenate(ends),
            np.concatenate(lengths),
        )

    def bridged(self, gamma: float) -> FloatArray:  # (strength,)
        """Errors with rows along bridged paths."""
        return self._errors([bridge_rows(t, x, gamma) for t, x in zip(self.times, self.states, strict=True)], gamma)

    def spline(self, gamma: float) -> FloatArray:  # (strength,)
        """Errors with rows along the smoothing spline, two Gauss nodes each."""
        smoothed = smooth(self.times, self.states, moves=self.moves)
        rows = [_spline_rows(t, x) for t, x in zip(smoothed.knots, smoothed.states, strict=True)]
        return self._errors(rows, gamma)

    def _errors(self, rows: list[_Rows], gamma: float) -> FloatArray:
        u = [np.broadcast_to(self.inputs[k], (len(r[1]), self.inputs.shape[1])) for k, r in enumerate(rows)]
        features = np.concatenate([np.concatenate([r[0] for r in rows]), np.concatenate(u)], axis=1)
        features, slopes = np.nan_to_num(features), np.nan_to_num(np.concatenate([r[1] for r in rows]))
        production = (slopes + gamma * features[:, : slopes.shape[1]])[:, self.moves]
        ends = self.ends[:, self.moves]
        seen = ~np.isnan(ends)
        out = []
        for field in ridge_fields(features, production, np.concatenate([r[2] for r in rows]), RIDGE):
            with np.errstate(over="ignore", invalid="ignore"):
                error = (field.simulate(self.starts, self.lengths, gamma, self.moves) - ends)[seen] ** 2
            out.append(float(error.mean()) if np.isfinite(error).all() else float("inf"))
        return np.array(out)


def _best(errors: FloatArray) -> tuple[FloatArray, float]:
    """Errors of the strength that is best on average, and that strength; (strength, fold) to (fold,)."""
    place = int(np.argmin(errors.mean(axis=1)))
    return np.asarray(errors[place]), RIDGE[place]


def bridge_rows(times: FloatArray, states: FloatArray, gamma: float) -> _Rows:
    """Interval rows of one trajectory for a linear field: weighted mean of the path, its slope, and precision.

    The production of a row has the noise of two observations, (x_k+1 - x_k e^{-gamma h}) over
    (1 - e^{-gamma h}) / gamma; the weight is the reciprocal of its variance.
    """
    rows = bridge(times, states, gamma)
    h = np.diff(times)
    length = h if gamma == 0 else -np.expm1(-gamma * h) / gamma
    weights = length**2 / (1.0 + np.exp(-2.0 * gamma * h))
    return np.einsum("kl,kld->kd", rows.node_weights, rows.node_states), rows.slopes, weights


def _spline_rows(knots: FloatArray, states: FloatArray) -> _Rows:
    h = np.diff(knots)
    between, _ = path(knots, states, (knots[:-1, None] + h[:, None] * _GAUSS).ravel())
    features = between.reshape(len(h), 2, states.shape[1]).mean(axis=1)
    return features, np.diff(states, axis=0) / h[:, None], h**2


def _carry(states: FloatArray) -> FloatArray:
    """Replace what is missing by the last value seen, or by the mean, 0, before the first."""
    out = states.copy()
    out[0] = np.nan_to_num(out[0])
    for k in range(1, len(out)):
        out[k] = np.where(np.isnan(out[k]), out[k - 1], out[k])
    return out


class LinearField(NamedTuple):
    """z' = constant + readout V'(z - center) - gamma z for what moves: decay plus a field of low rank r."""

    center: FloatArray  # (source,)
    basis: FloatArray  # (source, r)
    readout: FloatArray  # (moving, r)
    constant: FloatArray  # (moving,)

    def simulate(self, starts: FloatArray, lengths: FloatArray, gamma: float, moves: BoolArray) -> FloatArray:
        """Runge-Kutta from (row, source) over (row,), giving (row, moving).

        Runge-Kutta commutes with linear maps, so steps are taken in the r coordinates that production reads; Simpson's
        rule on them gives the decay-weighted integral of production.
        """
        own = self.basis[: len(moves)][moves]
        still = (starts - self.center) @ self.basis - starts[:, : len(moves)][:, moves] @ own
        matrix, drift = self.readout.T @ own, self.constant @ own
        step = (lengths / N_STEPS)[:, None]
        half, whole = np.exp(-0.5 * gamma * step), np.exp(-gamma * step)

        def slope(w: FloatArray) -> FloatArray:
            return np.asarray(drift + w @ matrix - gamma * (w - still))

        start = starts[:, : len(moves)][:, moves]
        w = still + start @ own
        total = np.zeros_like(w)
        for _ in range(N_STEPS):
            first = slope(w)
            second = slope(w + 0.5 * step * first)
            third = slope(w + 0.5 * step * second)
            middle = w + 0.25 * step * (first + second)
            fourth = slope(w + step * third)
            after = w + step / 6.0 * (first + 2.0 * second + 2.0 * third + fourth)
            total = whole * total + step / 6.0 * (whole * w + 4.0 * half * middle + after)
            w = after
        length = lengths if gamma == 0 else -np.expm1(-gamma * lengths) / gamma
        decayed = np.exp(-gamma * lengths)[:, None] * start
        return np.asarray(decayed + length[:, None] * self.constant + total @ self.readout.T)


def ridge_fields(
    features: FloatArray, production: FloatArray, weights: FloatArray, strengths: Sequence[float]
) -> list[LinearField]:
    """Ridge of the production of what moves on the sources, one field for every strength.

    Parameters
    ----------
    features : array (row, source)
        Sources of unit variance.
    production : array (row, moving)
        Slope plus gamma times the mean state.
    weights : array (row,)
    strengths : sequence of float
        Added to the weighted covariance of the features.

    Returns
    -------
    list of LinearField
    """
    w = (weights / weights.sum())[:, None]
    center, constant = (w * features).sum(axis=0), (w * production).sum(axis=0)
    z, s = np.sqrt(w) * (features - center), np.sqrt(w) * (production - constant)
    if len(z) <= z.shape[1]:
        values, left = np.linalg.eigh(z @ z.T)
        keep = values > 1e-12 * values[-1]
        values, left = values[keep], left[:, keep]
        basis = z.T @ left / np.sqrt(values)
    else:
        values, basis = np.linalg.eigh(z.T @ z)
        keep = values > 1e-12 * values[-1]
        values, basis = values[keep], basis[:, keep]
        left = z @ basis / np.sqrt(values)
    load = np.sqrt(values)[:, None] * (left.T @ s)  # (r, d)
    return [LinearField(center, basis, (load / (values + strength)[:, None]).T, constant) for strength in strengths]
