"""Hill's curves in place of networks, where folds are forecast better with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from skode._capacity import EVIDENCE, can_decide
from skode._curve_fits import STEPS
from skode._curve_folds import Rival, lead_on_folds
from skode._curves import Curves, search_curves, window_errors
from skode._fit import SetUp, Specification, calm_model
from skode._fitted import Fitted
from skode._fold_products import MOST, Part, fresh_on_folds, set_up_fold
from skode._prepared import Prepared
from skode._problem import Problem
from skode._steady import SteadyRows
from skode._train import StageReport, Trained
from skode._typing import Weights

CERTAIN = 4.0
"""Standard errors by which curves must be ahead on folds for no more to be asked. With 2, 5 and 10 % noise ten kinds of
systems of amounts with other laws (an epidemic, reactions, a chemostat, food webs) have -12 to -3, a repressilator,
which finished networks forecast better, 1.2 to 2.6, and networks of genes 3 to 10."""


def curves_instead(
    setup: SetUp,
    networks: Callable[[], Trained],
    mask: Weights,
    folds: Sequence[Part],
    refits: Sequence[Weights],
    spec: Specification,
    seed: int,
    steady: SteadyRows | None,
) -> Curves | None:
    """Curves where folds are forecast clearly better with them, and held-out windows no worse.

    The folds compare refits to rows. Unless they leave no doubt, what the solver makes of networks afterwards sets
    another bar: the windows that these set aside must not be forecast better by them than by curves that were not
    fitted to them either. If the networks that were finished have bilinear units, folds must be forecast clearly better
    than with such units too.

    Parameters
    ----------
    setup : SetUp
        Of a field with one network per target.
    networks : callable
        What the solver makes of the networks.
    mask : dict of tensors  # (1, ...)
        1 where a weight of the networks may differ from zero.
    folds : sequence of pairs of Trajectories
        Those to fit and those to test on.
    refits : sequence of dict of tensors  # (1, ...)
        Weights of the networks on their support, as every fold fits them.
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
    if curves is None or not any(set(fit.parents) - {fit.target} for fit in curves.fits):
        return None  # lines alone are no curves
    ahead = lead_on_folds(curves, _plain(folds, refits, spec, steady))
    if not ahead > EVIDENCE:
        return None
    if ahead < CERTAIN and can_decide(problem):
        finished = networks()
        theirs = window_errors(dynamics, finished.field, finished.weights, problem)
        if float(theirs.mean()) < float(curves.errors.mean()):
            return None
        if finished.field != dynamics.field:
            fresh = fresh_on_folds(folds, mask, spec, seed, steady)
            if not lead_on_folds(curves, (Rival(fold, own.field, own.weights) for fold, own in fresh)) > EVIDENCE:
                return None
    spec.report(curve_report(curves).line("curves"))
    return curves


def _plain(
    folds: Sequence[Part], refits: Sequence[Weights], spec: Specification, steady: SteadyRows | None
) -> Iterator[Rival]:
    """Networks as folds have fitted them, with the windows of what every fold leaves out, if there are any."""
    for part, weights in zip(folds[:MOST], refits, strict=False):
        setup = set_up_fold(part, spec, steady)
        if setup.problem.held_windows is not None:
            yield Rival(setup, setup.dynamics.field, weights)


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
    return calm_model(trained, prepared, problem, spec)


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
