"""What held-out data say of every support of a path: masked refits on folds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from skode._batch import Batch
from skode._fit import Specification, options_of, set_up
from skode._parts import train_in_parts
from skode._path import Path
from skode._prepare import prepare
from skode._problem import every_row
from skode._steady import SteadyRows
from skode._trajectories import Trajectories
from skode._typing import FloatArray
from skode.objectives import matching_loss
from skode.penalties import NoPenalty
from skode.recipe import AFRESH

LARGE = 1e6
"""Held-out loss of a refit that is not finite."""


def held_out_losses(
    parts: Sequence[tuple[Trajectories, Trajectories]],
    path: Path,
    spec: Specification,
    seed: int,
    steady: SteadyRows | None,
) -> FloatArray:
    """Refit every level of a path on the first of every two parts, without penalty; the matching loss on the second.

    Parameters
    ----------
    parts : sequence of pairs of Trajectories
        Those to fit and those to test on.
    path : Path
    spec : Specification
    seed : int
    steady : SteadyRows or None

    Returns
    -------
    array (pair, level, target)
        0 for targets that do not move in the first part, or are not seen in the second.
    """
    losses = np.zeros((len(parts), *path.n_edges.shape))
    for k, (train_part, test_part) in enumerate(parts):
        losses[k] = _fold_losses(train_part, test_part, path, spec, seed, steady)
    return losses


def _fold_losses(
    train_part: Trajectories,
    test_part: Trajectories,
    path: Path,
    spec: Specification,
    seed: int,
    steady: SteadyRows | None,
) -> FloatArray:
    """The losses of one pair.  # (level, target)"""
    prepared, dynamics, problem = set_up(train_part, spec, steady)
    problem = problem._replace(held_rows=None, held_windows=None)
    test = prepare(test_part, order=spec.order, time_dependent=spec.time_dependent, scales=prepared.scales)
    n_levels = len(path.alphas)
    # One set of initial weights for all levels: differences between levels are then differences of supports.
    batch = Batch(np.zeros(n_levels), np.full(n_levels, seed))
    trained = train_in_parts(dynamics, NoPenalty(), problem, batch, options_of(spec, (AFRESH,)), frozen=path.masks)
    with torch.no_grad():
        rows = every_row(test, problem.matching)
        loss = matching_loss(dynamics.field, trained.weights, rows, problem.matching)
    losses: FloatArray = loss.double().cpu().numpy()
    # What never moved in training, or was never seen in the test part, tells nothing of any level.
    seen = prepared.scales.moving & np.isfinite(test_part.states[test_part.times != 0]).any(axis=0)
    return np.where(seen, np.nan_to_num(losses, nan=LARGE, posinf=LARGE), 0.0)
