"""The last fit on a support that is settled: networks that go on, or bilinear units that start afresh."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from skode._batch import Batch
from skode._capacity import can_widen, clearly_lower, forecast_errors
from skode._dynamics import Dynamics
from skode._fit import Specification, options_of
from skode._fold_products import Part, better_on_folds
from skode._parts import train_in_parts
from skode._problem import Problem
from skode._steady import SteadyRows
from skode._train import Trained
from skode._typing import Weights
from skode.fields import PerTargetField
from skode.penalties import NoPenalty
from skode.recipe import AFRESH, REFIT


def finish(
    dynamics: Dynamics,
    problem: Problem,
    start: Weights,
    mask: Weights,
    specification: Specification,
    seed: int,
    *,
    folds: Sequence[Part] = (),
    steady: SteadyRows | None = None,
) -> Trained:
    """Refit on a support, and finish through the solver.

    Networks go on from ``start``. Bilinear units start afresh, and so does the network beside which they are judged, as
    both must have trained alike. Networks that have trained for longer set a bar that is not the units' own: next to
    them the units must not be clearly worse, but need not be clearly better again (of Lotka-Volterra and a food web
    that lost them so, errors were .114 in place of .030, .077 in place of .033). Where units are refused, the network
    beside them is kept if it forecasts better: the press may leave networks that no refit mends (Hastings-Powell, .54
    in place of .24).

    Units that do better on the windows that the fit sets aside, but not clearly, are judged once more on the folds,
    which have five times as many (see ``better_on_folds``).

    Parameters
    ----------
    dynamics : Dynamics
    problem : Problem
    start : dict of tensors  # (1, ...)
        Weights from which networks go on.
    mask : dict of tensors  # (1, ...)
        1 where a weight may differ from zero.
    specification : Specification
    seed : int
    folds : sequence of pairs of Trajectories
        Those to fit and those to test on; none are asked without them.
    steady : SteadyRows, optional
        Used in every fold.

    Returns
    -------
    Trained
    """
    spec, field, batch = specification, dynamics.field, Batch.single(0.0, seed)
    options = options_of(replace(spec, widen=False), REFIT[:1])
    fitted = train_in_parts(dynamics, NoPenalty(), problem, batch, options, start=start, frozen=mask)
    if spec.widen and isinstance(field, PerTargetField) and can_widen(field, problem):
        options = options_of(spec, (AFRESH,))
        afresh = train_in_parts(dynamics, NoPenalty(), problem, batch, options, frozen=mask)
        if afresh.field == field and afresh.gains is not None and float(afresh.gains.mean()) > 0.0:
            if better_on_folds(folds, mask, spec, seed, steady):
                options = replace(options, products="taken")
                afresh = train_in_parts(dynamics, NoPenalty(), problem, batch, options, frozen=mask)
        wide = replace(dynamics, field=afresh.field)
        standing = forecast_errors(dynamics, fitted.weights, problem)
        other = forecast_errors(wide, afresh.weights, problem)
        products = afresh.field != field
        if bool(~clearly_lower(standing, than=other) if products else other.mean() < standing.mean()):
            dynamics, fitted = wide, afresh
            mask = {name: (value != 0).to(value.dtype) for name, value in afresh.weights.items()}
    options = options_of(spec, REFIT[1:])
    finished = train_in_parts(dynamics, NoPenalty(), problem, batch, options, start=fitted.params, frozen=mask)
    return finished._replace(history={**fitted.history, **finished.history})
