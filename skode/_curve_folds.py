"""Curves on folds: whether they forecast what is left out better than networks, and how sure their edges are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from skode._capacity import FEWEST, lead
from skode._confidence import probability, run_labels
from skode._curve_fits import STEPS, CurveFits, curve_weights, with_parents
from skode._curves import Curves, again, bare_curves, window_errors
from skode._fit import SetUp, Specification, set_up
from skode._fold_products import Part
from skode._prepare import prepare
from skode._problem import every_row
from skode._steady import SteadyRows
from skode._typing import FloatArray, Weights
from skode.fields import AbstractField


class Rival(NamedTuple):
    """Networks that were fitted to a fold."""

    setup: SetUp  # of the fold, with held-out windows
    field: AbstractField
    weights: Weights


def lead_on_folds(curves: Curves, rivals: Iterable[Rival]) -> float:
    """Refit curves on every fold, and forecast the windows of what it leaves out as networks do.

    The sources of both were chosen on all data.

    Parameters
    ----------
    curves : Curves
    rivals : iterable of Rival
        Networks, fold by fold.

    Returns
    -------
    float
        By how many standard errors over the windows of all folds the errors of curves are lower; minus infinity where
        folds have too few windows to tell.
    """
    errors = []
    for (prepared, dynamics, problem), field, weights in rivals:
        like = bare_curves(dynamics.field, prepared)
        fits = CurveFits(like, problem.rows, problem.matching, curves.prices)
        own = with_parents(like, curves.fits)
        refitted = curve_weights(own, fits.fit([again(fit) for fit in curves.fits], STEPS))
        ours = window_errors(dynamics, own, refitted, problem)
        errors.append(torch.cat([ours, window_errors(dynamics, field, weights, problem)]))
    enough = sum(some.shape[1] for some in errors) >= FEWEST
    return float(lead(*torch.cat(errors, dim=1))) if enough else -np.inf


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
    whole = [again(fit) for fit in curves.fits]
    edges = [(k, j) for k, fit in enumerate(whole) for j in fit.parents]
    less = [whole[k]._replace(parents=tuple(i for i in whole[k].parents if i != j)) for k, j in edges]
    for train_part, test_part in folds:
        prepared, dynamics, problem = set_up(train_part, spec, steady)
        test = prepare(test_part, order=spec.order, time_dependent=spec.time_dependent, scales=prepared.scales)
        like, prices = bare_curves(field, prepared), curves.prices
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
