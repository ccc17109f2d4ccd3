"""Smooth trajectories that are pieces of longer series: each by itself, with what the whole series tell of noise."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from skode._chains import Chains
from skode._knots import nearest_knot
from skode._typing import BoolArray, FloatArray
from skode.smooth import Smooth, path, smooth

Piece = tuple[FloatArray, FloatArray, FloatArray]
"""Times, states and weights of one trajectory, as ``_knots.with_start`` gives them."""
BENDS_PER_INPUT = 10
"""Fewest bends for every input with which effects are estimated: they would take noise for theirs."""


class Smoothed(NamedTuple):
    """What smoothing found."""

    whole: Smooth  # knots and states are those of the pieces
    slopes: list[FloatArray]  # (knot, d) of the smooth paths


def smooth_pieces(
    pieces: list[Piece],
    inputs: FloatArray,
    chains: Chains,
    *,
    moves: BoolArray | None,
    order: int,
    bent: BoolArray,
    even: bool = False,
) -> Smoothed:
    """Smooth pieces that hang together as one.

    In equations of order 1 nothing smooths across a change of an input or a jump of the clock: it bends the path in a
    way that nobody knows beforehand. Where most of what is left are single intervals, which tell nothing of noise,
    freedom and movement, whole series do. What inputs add to slopes is taken off the states first, as far as it is
    proportional to them: its size is that of the bends where they change. What is left of the bends counts as noise,
    and all of them do where there are not ten bends to every input. In equations of order 2 such a change bends the
    velocity, and paths go on.

    Parameters
    ----------
    pieces : list of (times, states, weights)
    inputs : array (trajectory, m)
    chains : Chains
    moves : bool array (d,) or None
        Which variables move; None is found from the series.
    order : 1 or 2
    bent : bool array (trajectory,)
        Whether the field changes where a trajectory ends.
    even : bool, default=False
        Whether bends cost the same at all times (see ``smooth``).

    Returns
    -------
    Smoothed

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
    >>> every = np.ones(400, dtype=bool)
    >>> alone = Chains(np.full(400, -1), np.arange(400), np.zeros(400, dtype=int))
    >>> chained = Chains(np.append(np.arange(1, 400), -1), np.zeros(400, dtype=int), np.arange(400))
    >>> smooth_pieces(pieces, inputs, alone, moves=None, order=1, bent=every).whole.noise
    array([nan])
    >>> smooth_pieces(pieces, inputs, chained, moves=None, order=1, bent=every).whole.noise.round(1)
    array([0.1])
    """
    runs = chains if order == 2 else chains.cut(bent)
    times, states, weights = _series(pieces, runs)
    sizes = np.array([len(clock) for clock in times])
    if len(times) == len(np.unique(chains.series)) or sizes[sizes > 2].sum() >= sizes.sum() / 2:
        found = smooth(times, states, weights, moves=moves, even=even)
        shared = len(times) - len(np.unique(chains.series))  # levels of runs that start where others end
        return _cut(found._replace(dof=found.dof - shared), pieces, runs)
    told = _along(*_series(pieces, chains), _pushes(pieces, inputs, chains), moves)
    found = smooth(times, states, weights, moves=told.moves, even=even)
    return _cut(found._replace(noise=told.noise, dof=told.dof), pieces, runs)


def _series(pieces: list[Piece], chains: Chains) -> tuple[list[FloatArray], list[FloatArray], list[FloatArray]]:
    """Times, states and weights of every series; what ends a piece and starts the next, once."""
    begin = chains.before(np.array([times[-1] for times, _, _ in pieces]))
    parts: list[list[Piece]] = []
    for k in chains.order:
        times, states, weights = pieces[k]
        if chains.place[k] == 0:
            parts.append([(times, states, weights)])
        else:
            parts[-1].append((begin[k] + times[1:], states[1:], weights[1:]))
    joined = [[np.concatenate(column) for column in zip(*part, strict=True)] for part in parts]
    return [part[0] for part in joined], [part[1] for part in joined], [part[2] for part in joined]


def _pushes(pieces: list[Piece], inputs: FloatArray, chains: Chains) -> list[FloatArray]:
    """Integrals of the inputs along every series, at its rows.  # (row, m) each"""
    parts: list[list[FloatArray]] = []
    for k in chains.order:
        own = pieces[k][0][:, None] * inputs[k]
        if chains.place[k] == 0:
            parts.append([own])
        else:
            parts[-1].append(parts[-1][-1][-1] + own[1:])
    return [np.concatenate(part) for part in parts]


def _along(
    times: list[FloatArray],
    states: list[FloatArray],
    weights: list[FloatArray],
    pushes: list[FloatArray],
    moves: BoolArray | None,
) -> Smooth:
    """Smooth whole series, less what inputs add to slopes."""
    moves = smooth(times, states, weights).moves if moves is None else moves
    effect = np.where(moves, _effect(times, states, pushes), 0.0)
    return smooth(times, [x - push @ effect for x, push in zip(states, pushes, strict=True)], weights, moves=moves)


def _cut(found: Smooth, pieces: list[Piece], runs: Chains) -> Smoothed:
    """Knots, states and slopes of every piece, from those of the runs that they were smoothed in."""
    slopes = [path(knots, states, knots)[1] for knots, states in zip(found.knots, found.states, strict=True)]
    clock = runs.before(np.array([times[-1] for times, _, _ in pieces]))
    out = []
    for run, begin, (times, _, _) in zip(runs.series, clock, pieces, strict=True):
        first, last = nearest_knot(begin + times[[0, -1]], found.knots[run])
        mine = slice(int(first), int(last) + 1)
        out.append((found.knots[run][mine] - begin, found.states[run][mine], slopes[run][mine]))
    whole = found._replace(knots=[part[0] for part in out], states=[part[1] for part in out])
    return Smoothed(whole, [part[2] for part in out])


def _effect(times: list[FloatArray], states: list[FloatArray], pushes: list[FloatArray]) -> FloatArray:
    """How much inputs add to slopes, by least squares on bends of states and of integrals of inputs.  # (m, d)"""
    d, m = states[0].shape[1], pushes[0].shape[1]
    effect = np.zeros((m, d))
    seen = [np.isfinite(table) for table in states]
    whole = np.logical_and.reduce([table.all(axis=0) for table in seen])
    for some in [np.flatnonzero(whole), *np.flatnonzero(~whole)[:, None]]:
        if not len(some):
            continue
        bends = []
        for t, table, push, known in zip(times, states, pushes, seen, strict=True):
            rows = known[:, some[0]]
            bends.append(_bends(t[rows], np.column_stack([push[rows], table[np.ix_(rows, some)]])))
        every = np.concatenate(bends)
        if len(every) >= BENDS_PER_INPUT * m:
            effect[:, some] = np.linalg.lstsq(every[:, :m], every[:, m:], rcond=None)[0]
    return effect


def _bends(times: FloatArray, values: FloatArray) -> FloatArray:
    """Changes of slope, divided by what one unit of noise in values makes of them."""
    apart = np.diff(times) > 0
    keep = np.append(True, apart) if len(times) else np.zeros(0, dtype=bool)
    inverse = 1.0 / np.diff(times[keep])[:, None]
    slopes = np.diff(values[keep], axis=0) * inverse
    noise = np.sqrt(inverse[1:] ** 2 + inverse[:-1] ** 2 + (inverse[1:] + inverse[:-1]) ** 2)
    return np.asarray(np.diff(slopes, axis=0) / noise)
