"""Sources of many variables searched once more through Hill's functions: regulators that only act together."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from skode._capacity import can_decide, clearly_lower
from skode._curve_fits import SEARCHED, Candidate, CurveFits, curve_prices, curve_weights, hill_field, with_parents
from skode._curve_search import CurveSearch
from skode._readers import Candidate as Kind
from skode._readers import Reading
from skode._typing import BoolArray, FloatArray
from skode.fields import HillField

SHARE_OF_DATA = 0.7
"""Share of the independent data that counts: neighbouring rows share an observation. With .5 searches of networks of
100 genes stop short of regulators that act together, with 1 a tenth of the edges that they end with is false."""
LITTLE = 0.01
"""Share of the squared errors of standing still that says that hardly anything is left."""
MOST_PAIRS = 25_000
"""Targets times sources up to which searches take half a minute."""


class Further(NamedTuple):
    """A reading of other sources."""

    reading: Reading
    support: BoolArray  # (target, source)
    evidence: FloatArray  # (target, source) rise of the criterion without an edge, at least 0


def search_further(
    reading: Reading, support: BoolArray, allowed: BoolArray | None, required: BoolArray | None
) -> Further | None:
    """Search sources through curves, and take them where held-out windows are forecast clearly better.

    What convex problems select acts by itself; of regulators that only act together one or both may lack. A search
    tries them (see ``CurveSearch``), from what was selected and from nothing. It is not tried where hardly anything is
    left to explain, which is then the error of bridged paths, nor where curves forecast clearly worse on the selected
    sources.

    Parameters
    ----------
    reading : Reading
        What is to be bettered.
    support : bool array (target, source)
        As selected.
    allowed, required : bool array (target, source) or None

    Returns
    -------
    Further or None
    """
    readers, problem = reading.readers, reading.readers.problem
    moving = problem.moving.cpu().numpy()
    few = len(moving) * support.shape[1] <= MOST_PAIRS
    if readers.amounts is None or not (few and can_decide(problem)) or reading.left < LITTLE:
        return None
    if not isinstance(reading.kind.field, HillField):
        curves = readers.curves(readers.lines().fitted)
        if all(bool(clearly_lower(reading.errors, than=other.errors)) for other in curves):
            return None
    like = hill_field(readers.field, readers.amounts, [()] * len(support))
    prices = curve_prices(readers.weight_decay)[SEARCHED]
    search = CurveSearch(
        CurveFits(like, problem.rows, problem.matching, prices),
        SHARE_OF_DATA * problem.freedom.double().cpu().numpy(),
        np.ones_like(support) if allowed is None else allowed,
        np.zeros_like(support) if required is None else required,
    )
    starts = [(int(i), [int(i), *more]) for i in moving for more in ([], np.flatnonzero(support[i]).tolist())]
    found = search.run(starts)
    field = with_parents(like, found)
    start = curve_weights(field, found)
    none = problem.moving.new_zeros(field.n_targets, field.n_slots).bool()
    further = readers.read(start, Kind(field, tuple(start), prices, none))
    if not further.ahead_of(reading):
        return None
    edges = [(fit, j) for fit in found for j in fit.parents]
    less = [Candidate(fit.target, tuple(k for k in fit.parents if k != j), fit.bends) for fit, j in edges]
    evidence, chosen = np.zeros(support.shape), np.zeros_like(support)
    for (fit, j), without in zip(edges, search.fits.fit(less, readers.n_iter), strict=True):
        evidence[fit.target, j] = max(search.criterion(without) - search.criterion(fit), 0.0)
        chosen[fit.target, j] = True
    return Further(further, chosen, evidence)
