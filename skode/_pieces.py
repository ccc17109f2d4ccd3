"""Smooth trajectories that are pieces of longer series: each by itself, with what the whole series tell of noise."""

from __future__ import annotations

import numpy as np

from skode._chains import Chains
from skode._typing import BoolArray, FloatArray
from skode.smooth import Smooth, smooth

Piece = tuple[FloatArray, FloatArray, FloatArray]
"""Times, states and weights of one trajectory, as ``_knots.with_start`` gives them."""


def smooth_pieces(
    pieces: list[Piece], inputs: FloatArray, chains: Chains, *, moves: BoolArray | None, kinks: bool
) -> Smooth:
    """Smooth every trajectory; noise, freedom and movement are those of whole series where trajectories hang together.

    Nothing smooths across the end of a piece: an input that changes there bends the path in a way that nobody knows
    beforehand. But pieces of one or two intervals tell nothing of noise, and whole series do. What inputs add to slopes
    is taken off the states first, as far as it is proportional to them: its size is that of the bends where they
    change. What is left of the bends counts as noise.

    Parameters
    ----------
    pieces : list of (times, states, weights)
    inputs : array (trajectory, m)
    chains : Chains
    moves : bool array (d,) or None
        Which variables move; None is found from the series.
    kinks : bool
        Whether slopes jump with inputs, as they do in equations of order 1.

    Returns
    -------
    Smooth
        Knots and states of the pieces.

    References
    ----------
    "Spline Models for Observational Data", 1990, doi 10.1137/1.9781611970128, chapter 9 (partial splines).

    Examples
    --------
    >>> import numpy as np
    >>> from skode._chains import Chains
    >>> rng = np.random.default_rng(0)
    >>> inputs = rng.standard_normal((400, 1))
    >>> path = np.cumsum(0.5 * np.append(0.0, inputs)) + 0.1 * rng.standard_normal(401)
    >>> pieces = [(np.arange(2.0), path[k : k + 2, None], np.ones(2)) for k in range(400)]
    >>> alone = Chains(np.full(400, -1), np.arange(400), np.zeros(400, dtype=int))
    >>> chained = Chains(np.append(np.arange(1, 400), -1), np.zeros(400, dtype=int), np.arange(400))
    >>> smooth_pieces(pieces, inputs, alone, moves=None, kinks=True).noise
    array([nan])
    >>> smooth_pieces(pieces, inputs, chained, moves=None, kinks=True).noise.round(1)
    array([0.1])
    """
    if not (chains.after >= 0).any():
        return smooth(*_columns(pieces), moves=moves)
    times, states, weights, pushes = _series(pieces, inputs, chains)
    if moves is None:
        moves = smooth(times, states, weights).moves
    if kinks:
        effect = _effect(times, states, pushes)
        states = [table - push @ effect for table, push in zip(states, pushes, strict=True)]
    whole = smooth(times, states, weights, moves=moves)
    return smooth(*_columns(pieces), moves=moves)._replace(noise=whole.noise, dof=whole.dof)


def _columns(pieces: list[Piece]) -> tuple[list[FloatArray], list[FloatArray], list[FloatArray]]:
    times, states, weights = (list(column) for column in zip(*pieces, strict=True))
    return times, states, weights


def _series(
    pieces: list[Piece], inputs: FloatArray, chains: Chains
) -> tuple[list[FloatArray], list[FloatArray], list[FloatArray], list[FloatArray]]:
    """Times, states, weights and integrals of inputs of every series; what ends a piece and starts the next, once."""
    series: list[list[tuple[FloatArray, FloatArray, FloatArray, FloatArray]]] = []
    for k in chains.order:
        times, states, weights = pieces[k]
        if chains.place[k] == 0:
            series.append([(times, states, weights, times[:, None] * inputs[k])])
            continue
        clock, push = series[-1][-1][0][-1], series[-1][-1][3][-1]
        on = slice(1, None)
        series[-1].append((clock + times[on], states[on], weights[on], push + times[on, None] * inputs[k]))
    joined = [[np.concatenate(column) for column in zip(*parts, strict=True)] for parts in series]
    times, states, weights, pushes = (list(column) for column in zip(*joined, strict=True))
    return times, states, weights, pushes


def _effect(times: list[FloatArray], states: list[FloatArray], pushes: list[FloatArray]) -> FloatArray:
    """How much inputs add to slopes, by least squares on bends of states and of integrals of inputs.  # (m, d)"""
    effect = np.zeros((pushes[0].shape[1], states[0].shape[1]))
    for variable in range(effect.shape[1]):
        bends = []
        for t, table, push in zip(times, states, pushes, strict=True):
            seen = np.isfinite(table[:, variable])
            bends.append(_bends(t[seen], np.column_stack([push[seen], table[seen, variable]])))
        every = np.concatenate(bends)
        effect[:, variable] = np.linalg.lstsq(every[:, :-1], every[:, -1], rcond=None)[0]
    return effect


def _bends(times: FloatArray, values: FloatArray) -> FloatArray:
    """Changes of slope, divided by what one unit of noise in values makes of them."""
    apart = np.diff(times) > 0
    keep = np.append(True, apart) if len(times) else np.zeros(0, dtype=bool)
    inverse = 1.0 / np.diff(times[keep])[:, None]
    slopes = np.diff(values[keep], axis=0) * inverse
    noise = np.sqrt(inverse[1:] ** 2 + inverse[:-1] ** 2 + (inverse[1:] + inverse[:-1]) ** 2)
    return np.asarray(np.diff(slopes, axis=0) / noise)
