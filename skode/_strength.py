"""How strongly pieces of trajectories are smoothed: one strength per variable, by pooled cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from skode._bends import Bends, Curve, find_bends, own_bends
from skode._spline import AbstractGrid, BandedGrid, SpectralGrid
from skode._typing import BoolArray, FloatArray, IntArray

N_STRENGTHS = 60
ROBUST = 0.5  # 1 is plain generalised cross-validation
LONG_SERIES = 300  # knots; beyond this the banded form is cheaper than the spectral one
ROUNDS = 2  # of smoothing again where paths bend unevenly


class Piece(NamedTuple):
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


class Choice(NamedTuple):
    """Strengths of all variables, and what they say."""

    noise: FloatArray  # (d,)
    dof: FloatArray  # (d,)
    strengths: FloatArray  # (d,)
    score: FloatArray  # (d,) of cross-validation; nan where nothing can be smoothed
    n_data: FloatArray  # (d,) observations


def on_grids(pieces: list[Piece], stiffness: Sequence[FloatArray | None]) -> list[Piece]:
    """The same with their grids, each made once for all pieces that share it up to shift and scale.

    Parameters
    ----------
    pieces : list of Piece
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


def follow_bends(
    pieces: list[Piece], chosen: Choice, knots: list[FloatArray], moves: BoolArray
) -> tuple[list[Piece], Choice]:
    """Smooth again with penalties that follow when paths bend, as far as cross-validation prefers it.

    First by the time since a trajectory began, then every trajectory by its own bends too.

    Returns
    -------
    list of Piece
        The same object if nothing is better.
    Choice
    """
    bends: Bends | None = None

    def again(amounts: Sequence[FloatArray]) -> tuple[list[Piece], Choice, float]:
        left = iter(amounts)
        stiffer = on_grids(pieces, [None if piece.grid is None else 1.0 / next(left) for piece in pieces])
        other = choose(stiffer, knots, len(moves))
        return stiffer, other, _gain(chosen, other, moves)

    for _ in range(ROUNDS):
        curves = _curves(pieces, chosen)
        found = find_bends(curves, moves, float(chosen.dof[moves].sum()))
        if found is None:
            break
        stiffer, other, gain = again([found.at(curve.middles) for curve in curves])
        if not gain > (0.0 if bends else found.price(float(chosen.n_data[moves].sum()))):
            break
        pieces, chosen, bends = stiffer, other, found
    stiffer, other, gain = again(own_bends(_curves(pieces, chosen), moves, bends, chosen.dof))
    return (stiffer, other) if gain > 0.0 else (pieces, chosen)


def _curves(pieces: list[Piece], chosen: Choice) -> list[Curve]:
    """The smoothed paths of all pieces that have a grid."""
    return [
        Curve(piece.variables, piece.knots, piece.fit(chosen.strengths)) for piece in pieces if piece.grid is not None
    ]


def choose(pieces: list[Piece], knots: list[FloatArray], n_variables: int) -> Choice:
    """Choose strengths by pooled cross-validation."""
    curved = [piece for piece in pieces if piece.grid is not None]
    n_knots, n_curved = np.zeros((2, n_variables))
    for piece in pieces:
        n_knots[piece.variables] += len(piece.knots)
        n_curved[piece.variables] += len(piece.knots) * (piece.grid is not None)
    if not curved:
        nothing = np.full(n_variables, np.nan)
        return Choice(nothing, n_knots, nothing, nothing, n_knots)
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
    return Choice(noise, n_knots - freedom[chosen], strengths[best], score[chosen], n_knots)


def _gain(before: Choice, after: Choice, moves: BoolArray) -> float:
    """Rise of the log-likelihood, as far as scores are mean squares of prediction errors."""
    with np.errstate(invalid="ignore", divide="ignore"):
        gain = before.n_data / 2 * np.log(before.score / after.score)
    return float(gain[moves & np.isfinite(gain)].sum())
