"""Bilinear units judged on folds, which have more held-out windows than a fit sets aside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import torch

from skode._batch import Batch
from skode._capacity import clearly_lower
from skode._fit import WINDOW, SetUp, Specification, options_of, set_up, starts_of
from skode._parts import train_in_parts
from skode._prepare import prepare
from skode._problem import can_forecast, forecasts
from skode._steady import SteadyRows
from skode._train import Trained
from skode._trajectories import Trajectories
from skode._typing import Weights
from skode.penalties import NoPenalty
from skode.recipe import AFRESH

MOST = 5
"""Folds that are asked; those of a splitter may be many, and hold out the same windows again and again."""
Part: TypeAlias = tuple[Trajectories, Trajectories]
"""Trajectories to fit and those to test on."""


def better_on_folds(
    folds: Sequence[Part], mask: Weights, specification: Specification, seed: int, steady: SteadyRows | None
) -> bool:
    """Refit on every fold with bilinear units and without, and forecast the windows of what it leaves out.

    Units are better if they lower errors by more than 1.64 standard errors over the windows of all folds, as in
    ``narrow``.

    Parameters
    ----------
    folds : sequence of pairs of Trajectories
        Those to fit and those to test on.
    mask : dict of tensors  # (1, ...)
        1 where a weight may differ from zero.
    specification : Specification
    seed : int
    steady : SteadyRows or None
        Used in every fold.

    Returns
    -------
    bool
        False where folds have too few windows to tell.
    """
    refitted = fresh_on_folds(folds, mask, specification, seed, steady)
    gains = [trained.gains[0] for _, trained in refitted if trained.gains is not None]
    if not gains:
        return False
    every = torch.cat(gains)
    return bool(clearly_lower(-every, than=torch.zeros_like(every)))


def fresh_on_folds(
    folds: Sequence[Part], mask: Weights, spec: Specification, seed: int, steady: SteadyRows | None
) -> Iterator[tuple[SetUp, Trained]]:
    """Fresh networks on a support, trained on every fold that has windows to test them on (see ``set_up_fold``)."""
    for part in folds[:MOST]:
        setup = set_up_fold(part, spec, steady)
        if setup.problem.held_windows is not None:
            options, batch = options_of(spec, (AFRESH,)), Batch.single(0.0, seed)
            yield setup, train_in_parts(setup.dynamics, NoPenalty(), setup.problem, batch, options, frozen=mask)


def set_up_fold(part: Part, spec: Specification, steady: SteadyRows | None) -> SetUp:
    """What training on the first part starts from, all windows of the second held out, if it has any."""
    train_part, test_part = part
    prepared, dynamics, problem = set_up(train_part, spec, steady)
    test = prepare(test_part, order=spec.order, time_dependent=spec.time_dependent, scales=prepared.scales)
    some = can_forecast(test, WINDOW)
    windows = forecasts(test, WINDOW, problem.rows.slopes, starts_of(spec)) if some else None
    return SetUp(prepared, dynamics, problem._replace(held_windows=windows))
