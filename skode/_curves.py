"""Fields of Hill's curves, and the search for what every target reads through them, where sources are amounts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from skode._amounts import amounts_of, are_amounts
from skode._capacity import can_decide, clearly_lower, forecast_errors
from skode._confidence import CERTAIN
from skode._curve_fits import (
    SEARCHED,
    STEPS,
    Candidate,
    CurveFit,
    CurveFits,
    curve_prices,
    curve_weights,
    hill_field,
    with_parents,
)
from skode._curve_search import CurveSearch
from skode._dynamics import Dynamics
from skode._fit import SetUp, Specification
from skode._prepared import Prepared
from skode._problem import Problem, every_row
from skode._typing import BoolArray, FloatArray, Weights
from skode.fields import AbstractField, HillField

MOST_ROWS = 800
"""Interval rows by which sets of sources are compared; more are thinned evenly."""
MOST_DATA = 150.0
"""Independent data that count: what curves and smooth paths leave of many more is their own error, and other sources
explain some of it."""


class Curves(NamedTuple):
    """A field of curves, fitted."""

    field: HillField
    fits: list[CurveFit]  # of all targets that move
    weights: Weights  # (1, ...), float64
    prices: Mapping[str, float]
    errors: torch.Tensor  # (1, window) of held-out windows, by fits to the other rows; no window if there are too few
    seconds: float


def search_curves(setup: SetUp, supports: Sequence[BoolArray], spec: Specification) -> Curves | None:
    """Search what every target reads through curves; None where sources are no amounts, or nothing moves.

    A search begins at the target alone, and at each of some supports, since steps that add a source or two do not
    leave every set that is wrong.

    Parameters
    ----------
    setup : SetUp
        Of a field with one network per target.
    supports : sequence of bool arrays (target, source)
    spec : Specification

    Returns
    -------
    Curves or None
    """
    began, (prepared, dynamics, problem) = time.perf_counter(), setup
    if not (len(problem.moving) and are_amounts(prepared)):
        return None
    like = bare_curves(dynamics.field, prepared)
    every = every_row(prepared, problem.matching.double())
    thin = torch.arange(0, len(every.slopes), -(-len(every.slopes) // MOST_ROWS), device=every.slopes.device)
    rows, offered = every.select(thin), curve_prices(spec.weight_decay)
    at_rest = int((prepared.interval_trajectory < 0).sum())
    n_data = np.minimum(prepared.independent_slopes + at_rest, min(len(rows.slopes), MOST_DATA))
    nothing, rules = np.zeros((like.n_targets, like.n_sources), dtype=bool), spec.rules
    search = CurveSearch(
        CurveFits(like, rows, problem.matching, offered[SEARCHED]),
        n_data,
        ~nothing if rules is None else ~rules.closed,
        nothing if rules is None else rules.required,
    )
    alone = np.eye(*nothing.shape, dtype=bool)
    starts = [(int(i), np.flatnonzero(some[i]).tolist()) for some in (alone, *supports) for i in problem.moving]
    found = search.run(starts)
    field, prices = with_parents(like, found), offered[SEARCHED]
    errors = problem.matching.new_empty(1, 0)
    if can_decide(problem):
        every_error = []
        for some in offered:
            fits = CurveFits(like, problem.rows, problem.matching, some).fit([again(fit) for fit in found], STEPS)
            every_error.append(window_errors(dynamics, field, curve_weights(field, fits), problem))
        best = min(range(len(offered)), key=lambda k: float(every_error[k].mean()))
        best = best if bool(clearly_lower(every_error[best], than=every_error[SEARCHED])) else SEARCHED
        prices, errors = offered[best], every_error[best]
    found = CurveFits(like, every, problem.matching, prices).fit([again(fit) for fit in found], STEPS)
    return Curves(field, found, curve_weights(field, found), prices, errors, time.perf_counter() - began)


def pruned(curves: Curves, confidence: FloatArray, prepared: Prepared, problem: Problem, spec: Specification) -> Curves:
    """Without the least certain edge of every target that folds forecast no worse without it (see ``prune``).

    Parameters
    ----------
    curves : Curves
    confidence : array (target, source)
    prepared : Prepared
    problem : Problem
    spec : Specification
    """
    required, doubted = None if spec.rules is None else spec.rules.required, {}
    for k, fit in enumerate(curves.fits):
        some = [j for j in fit.parents if required is None or not required[fit.target, j]]
        least = min(some, key=lambda j, own=confidence[fit.target]: float(own[j]), default=None)  # type: ignore[misc]
        if least is not None and confidence[fit.target, least] < CERTAIN:
            left = tuple(j for j in fit.parents if j != least)
            doubted[k] = Candidate(fit.target, left, fit.bends)
    if not doubted:
        return curves
    rows = every_row(prepared, problem.matching.double())
    ready = CurveFits(curves.field, rows, problem.matching, curves.prices)
    refitted = dict(zip(doubted, ready.fit(list(doubted.values()), STEPS), strict=True))
    fits = [refitted.get(k, fit) for k, fit in enumerate(curves.fits)]
    field = with_parents(curves.field, fits)
    return curves._replace(field=field, fits=fits, weights=curve_weights(field, fits))


def bare_curves(field: AbstractField, prepared: Prepared) -> HillField:
    """Curves of the amounts of prepared data, without parents yet."""
    return hill_field(field, amounts_of(prepared), [()] * field.n_targets)


def window_errors(dynamics: Dynamics, field: AbstractField, weights: Weights, problem: Problem) -> torch.Tensor:
    """Errors of forecasts of held-out windows with another field.  # (1, window)"""
    return forecast_errors(Dynamics(field, dynamics.scales, dynamics.time_dependent), weights, problem)


def again(fit: CurveFit) -> Candidate:
    """The same parents and curves, to be fitted to other rows."""
    return Candidate(fit.target, fit.parents, fit.bends)
