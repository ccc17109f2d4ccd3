"""What held-out data say of every support of a path: masked refits on folds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from skode._batch import Batch
from skode._fit import Specification, options_of, set_up
from skode._parts import train_in_parts
from skode._path import Path
from skode._prepare import prepare
from skode._problem import every_row
from skode._steady import SteadyRows
from skode._supports import Networks, distinct, fit_supports
from skode._trajectories import Trajectories
from skode._typing import FloatArray, IntArray, Weights
from skode.fields import PerTargetField
from skode.objectives import matching_loss
from skode.penalties import NoPenalty
from skode.recipe import AFRESH

LARGE = 1e6
"""Held-out loss of a refit that is not finite."""


class HeldOut(NamedTuple):
    """Refits of the levels of a path."""

    losses: FloatArray  # (pair, level, target)
    refits: list[Refits]  # of every pair; none of fields that share weights


class Refits(NamedTuple):
    """Networks that were fitted to one part."""

    networks: Networks
    place: IntArray  # (level, target), which of them a target has at a level

    def at(self, level: IntArray) -> Weights:
        """Weights of the field with a level for every target.  # (1, target, ...)"""
        chosen = self.place[level, np.arange(len(level))]
        return {name: value[:, chosen] for name, value in self.networks.weights.items()}


def held_out(
    parts: Sequence[tuple[Trajectories, Trajectories]],
    path: Path,
    spec: Specification,
    seed: int,
    steady: SteadyRows | None,
) -> HeldOut:
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
    HeldOut
        Losses are 0 for targets that do not move in the first part, or are not seen in the second.
    """
    found = [_of_pair(*pair, path, spec, seed, steady) for pair in parts]
    losses = np.array([some for some, _ in found]).reshape(-1, *path.n_edges.shape)
    return HeldOut(losses, [refits for _, refits in found if refits is not None])


def _of_pair(
    train_part: Trajectories,
    test_part: Trajectories,
    path: Path,
    spec: Specification,
    seed: int,
    steady: SteadyRows | None,
) -> tuple[FloatArray, Refits | None]:
    """The losses of one pair (level, target), and the networks of targets that have their own."""
    prepared, dynamics, problem = set_up(train_part, spec, steady)
    field, problem = dynamics.field, problem._replace(held_rows=None, held_windows=None)
    test = prepare(test_part, order=spec.order, time_dependent=spec.time_dependent, scales=prepared.scales)
    rows, options, refits = every_row(test, problem.matching), options_of(spec, (AFRESH,)), None
    # One set of initial weights for all levels: differences between levels are then differences of supports.
    if isinstance(field, PerTargetField):
        supports, place = distinct(path.masks)
        refits = Refits(fit_supports(dynamics, field, problem, supports, options, seed), place)
        losses = refits.networks.losses(rows, problem.matching).double().cpu().numpy()[place]
    else:
        batch = Batch(np.zeros(len(path.n_edges)), np.full(len(path.n_edges), seed))
        trained = train_in_parts(dynamics, NoPenalty(), problem, batch, options, frozen=path.masks)
        with torch.no_grad():
            losses = matching_loss(field, trained.weights, rows, problem.matching).double().cpu().numpy()
    # What never moves in training, or is never seen in the test part, tells nothing of any level.
    seen = prepared.scales.moving & np.isfinite(test_part.states[test_part.times != 0]).any(axis=0)
    return np.where(seen, np.nan_to_num(losses, nan=LARGE, posinf=LARGE), 0.0), refits
