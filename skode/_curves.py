"""Hill's curves in place of networks, where sources are amounts and folds are forecast better with them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from skode._amounts import amounts_of, are_amounts
from skode._batch import Batch
from skode._calm import calm
from skode._capacity import FEWEST, can_decide, clearly_lower, forecast_errors
from skode._confidence import CERTAIN, probability, run_labels
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
from skode._finish import finish
from skode._fit import SetUp, Specification, fitted_model, options_of, set_up
from skode._fitted import Fitted
from skode._fold_products import MOST, Part, set_up_fold
from skode._parts import train_in_parts
from skode._predict import choose_step
from skode._prepare import prepare
from skode._prepared import Prepared
from skode._problem import Problem, every_row
from skode._steady import SteadyRows
from skode._train import StageReport, Trained
from skode._typing import BoolArray, FloatArray, Weights
from skode.fields import AbstractField, HillField
from skode.penalties import NoPenalty
from skode.recipe import AFRESH

MOST_ROWS = 800
"""Interval rows by which sets of sources are compared; more are thinned evenly."""


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
    like = _bare(dynamics.field, prepared)
    every = every_row(prepared, problem.matching.double())
    thin = torch.arange(0, len(every.slopes), -(-len(every.slopes) // MOST_ROWS), device=every.slopes.device)
    rows, offered = every.select(thin), curve_prices(spec.weight_decay)
    at_rest = int((prepared.interval_trajectory < 0).sum())
    n_data = np.minimum(prepared.independent_slopes + at_rest, len(rows.slopes))
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
            fits = CurveFits(like, problem.rows, problem.matching, some).fit([_again(fit) for fit in found], STEPS)
            every_error.append(window_errors(dynamics, field, curve_weights(field, fits), problem))
        best = min(range(len(offered)), key=lambda k: float(every_error[k].mean()))
        best = best if bool(clearly_lower(every_error[best], than=every_error[SEARCHED])) else SEARCHED
        prices, errors = offered[best], every_error[best]
    found = CurveFits(like, every, problem.matching, prices).fit([_again(fit) for fit in found], STEPS)
    return Curves(field, found, curve_weights(field, found), prices, errors, time.perf_counter() - began)


def curves_instead(
    setup: SetUp,
    start: Weights,
    mask: Weights,
    folds: Sequence[Part],
    spec: Specification,
    seed: int,
    steady: SteadyRows | None,
) -> Curves | None:
    """Curves where folds are forecast clearly better with them, and held-out windows no worse.

    The folds compare refits to rows. What the solver makes of networks afterwards sets another bar: the windows that
    these set aside must not be forecast better by them than by curves that have not seen them either.

    Parameters
    ----------
    setup : SetUp
        Of a field with one network per target.
    start : dict of tensors  # (1, ...)
        Weights from which networks go on.
    mask : dict of tensors  # (1, ...)
        1 where a weight of the networks may differ from zero.
    folds : sequence of pairs of Trajectories
        Those to fit and those to test on.
    spec : Specification
    seed : int
    steady : SteadyRows or None
        Used in every fold.

    Returns
    -------
    Curves or None
    """
    _, dynamics, problem = setup
    support = (dynamics.field.paths(mask)[0] > 0).cpu().numpy()
    curves = search_curves(setup, [support], spec)
    if curves is None or not better_on_folds(curves, mask, folds, spec, seed, steady):
        return None
    if can_decide(problem):
        networks = finish(dynamics, problem, start, mask, spec, seed, folds=folds, steady=steady)
        theirs = window_errors(dynamics, networks.field, networks.weights, problem)
        if float(theirs.mean()) < float(curves.errors.mean()):
            return None
    spec.report(curve_report(curves).line("curves"))
    return curves


def fitted_curves(
    curves: Curves,
    prepared: Prepared,
    problem: Problem,
    spec: Specification,
    *,
    pilot: torch.Tensor,
    alpha_max: torch.Tensor,
) -> Fitted:
    """The model of curves; less of them where forecasts of the training data run away (see ``calm``).

    Parameters
    ----------
    curves : Curves
    prepared : Prepared
    problem : Problem
    spec : Specification
    pilot : tensor  # (1, target, variable)
        Ranking of edges, to which the dependencies of the fitted field are added.
    alpha_max : tensor  # (1,)
    """
    history = {"curves": curve_report(curves)}
    trained = Trained(curves.field, curves.weights, curves.weights, pilot, history, alpha_max)
    near = calm(trained, prepared, problem, partial(choose_step, problem=problem))
    return fitted_model(near.trained, prepared, problem, spec, None, near.own)


def curve_report(curves: Curves) -> StageReport:
    """What the search did, as a stage."""
    return StageReport(
        loss=np.array([[sum(fit.loss for fit in curves.fits)]]),
        n_edges=np.array([float(sum(len(fit.parents) for fit in curves.fits))]),
        converged=np.ones(1, dtype=bool),
        failed=np.zeros(1, dtype=bool),
        n_iter=STEPS,
        seconds=curves.seconds,
    )


def _bare(field: AbstractField, prepared: Prepared) -> HillField:
    """Curves of the amounts of prepared data, without parents yet."""
    return hill_field(field, amounts_of(prepared), [()] * field.n_targets)


def better_on_folds(
    curves: Curves, mask: Weights, folds: Sequence[Part], spec: Specification, seed: int, steady: SteadyRows | None
) -> bool:
    """Refit curves and networks on every fold, and forecast the windows of what it leaves out.

    Networks may use bilinear units where that is better on these very windows. Curves are better if they lower errors
    by more than 1.64 standard errors over the windows of all folds, as in ``narrow``.

    Parameters
    ----------
    curves : Curves
    mask : dict of tensors  # (1, ...)
        1 where a weight of the networks may differ from zero.
    folds : sequence of pairs of Trajectories
        Those to fit and those to test on.
    spec : Specification
    seed : int
    steady : SteadyRows or None
        Used in every fold.

    Returns
    -------
    bool
        False where folds have too few windows to tell.
    """
    errors = []
    for part in folds[:MOST]:
        prepared, dynamics, problem = set_up_fold(part, spec, steady)
        if problem.held_windows is None:
            continue
        batch, options = Batch.single(0.0, seed), options_of(spec, (AFRESH,))
        trained = train_in_parts(dynamics, NoPenalty(), problem, batch, options, frozen=mask)
        like = _bare(dynamics.field, prepared)
        fits = CurveFits(like, problem.rows, problem.matching, curves.prices)
        field = with_parents(like, curves.fits)
        weights = curve_weights(field, fits.fit([_again(fit) for fit in curves.fits], STEPS))
        errors.append(
            torch.cat(
                [
                    window_errors(dynamics, field, weights, problem),
                    window_errors(dynamics, trained.field, trained.weights, problem),
                ]
            )
        )
    enough = sum(some.shape[1] for some in errors) >= FEWEST
    return enough and bool(clearly_lower(*torch.cat(errors, dim=1)))


def window_errors(dynamics: Dynamics, field: AbstractField, weights: Weights, problem: Problem) -> torch.Tensor:
    """Errors of forecasts of held-out windows with another field.  # (1, window)"""
    return forecast_errors(Dynamics(field, dynamics.scales, dynamics.time_dependent), weights, problem)


def curve_confidence(
    curves: Curves, folds: Sequence[Part], spec: Specification, steady: SteadyRows | None
) -> FloatArray:
    """How sure the edges of curves are: drop each in turn and refit on every fold (see ``edge_confidence``).

    Returns
    -------
    array (target, source)
        In [0, 1]; 0 where there is no edge, 0.5 where nothing could be held out.
    """
    field, rises = curves.field, []
    whole = [_again(fit) for fit in curves.fits]
    edges = [(k, j) for k, fit in enumerate(whole) for j in fit.parents]
    less = [whole[k]._replace(parents=tuple(i for i in whole[k].parents if i != j)) for k, j in edges]
    for train_part, test_part in folds:
        prepared, dynamics, problem = set_up(train_part, spec, steady)
        test = prepare(test_part, order=spec.order, time_dependent=spec.time_dependent, scales=prepared.scales)
        like, prices = _bare(field, prepared), curves.prices
        scale, double = problem.matching, problem.matching.double()
        found = CurveFits(like, every_row(prepared, double), scale, prices).fit([*whole, *less], STEPS)
        squares = CurveFits(like, every_row(test, double), scale, prices).squares(found).cpu().numpy()
        label = run_labels(test)
        sums = np.zeros((int(label.max(initial=-1)) + 1, len(found)))
        np.add.at(sums, label, squares.T * len(squares.T))
        rises.append(sums[:, len(whole) :] - sums[:, [k for k, _ in edges]])
    out = np.zeros((field.n_targets, field.n_sources))
    certain = probability(np.nan_to_num(np.concatenate(rises))) if rises else np.full(len(edges), 0.5)
    for (k, j), value in zip(edges, certain, strict=True):
        out[curves.fits[k].target, j] = value
    return out


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
    again = dict(zip(doubted, ready.fit(list(doubted.values()), STEPS), strict=True))
    fits = [again.get(k, fit) for k, fit in enumerate(curves.fits)]
    field = with_parents(curves.field, fits)
    return curves._replace(field=field, fits=fits, weights=curve_weights(field, fits))


def _again(fit: CurveFit) -> Candidate:
    """The same parents and curves, to be fitted to other rows."""
    return Candidate(fit.target, fit.parents, fit.bends)
