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
from skode._typing import FloatArray, IntArray, Weights
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
    masks, place = distinct(path.masks) if dynamics.field.per_target else (path.masks, None)
    problem = problem._replace(held_rows=None, held_windows=None)
    test = prepare(test_part, order=spec.order, time_dependent=spec.time_dependent, scales=prepared.scales)
    n_models = len(next(iter(masks.values())))
    # One set of initial weights for all levels: differences between levels are then differences of supports.
    batch = Batch(np.zeros(n_models), np.full(n_models, seed))
    trained = train_in_parts(dynamics, NoPenalty(), problem, batch, options_of(spec, (AFRESH,)), frozen=masks)
    with torch.no_grad():
        rows = every_row(test, problem.matching)
        loss = matching_loss(dynamics.field, trained.weights, rows, problem.matching)
    losses: FloatArray = loss.double().cpu().numpy()
    losses = losses if place is None else np.take_along_axis(losses, place, axis=0)
    # What never moved in training, or was never seen in the test part, tells nothing of any level.
    seen = prepared.scales.moving & np.isfinite(test_part.states[test_part.times != 0]).any(axis=0)
    return np.where(seen, np.nan_to_num(losses, nan=LARGE, posinf=LARGE), 0.0)


def distinct(masks: Weights) -> tuple[Weights, IntArray]:
    """Put the different masks of every target on as few models as hold them.

    Targets with networks of their own do not meet in training: one whose support is the same at two strengths would be
    fitted twice.

    Parameters
    ----------
    masks : dict of tensors  # (level, target, ...)

    Returns
    -------
    dict of tensors  # (model, target, ...)
        Targets with fewer masks than others repeat their first.
    array (level, target) of int
        The model that holds the mask of a level.

    Examples
    --------
    >>> import torch
    >>> from skode._held_out import distinct
    >>> masks = {"K": torch.tensor([[0, 0], [0, 1], [1, 1]])}  # three strengths, two targets
    >>> some, place = distinct(masks)
    >>> some["K"].tolist(), place.tolist()
    ([[0, 0], [1, 1]], [[0, 0], [0, 1], [1, 1]])
    """
    flat = torch.cat([value.flatten(2) if value.ndim > 2 else value.unsqueeze(2) for value in masks.values()], dim=2)
    levels, places = [], []
    for own in flat.cpu().numpy().swapaxes(0, 1):  # (level, entry) of one target
        _, first, place = np.unique(own, axis=0, return_index=True, return_inverse=True)
        order = first.argsort()
        levels.append(first[order])
        places.append(order.argsort()[place.ravel()])
    some = np.zeros((max(map(len, levels)), len(levels)), dtype=np.int64)
    for target, level in enumerate(levels):
        some[: len(level), target] = level
    index = torch.as_tensor(some, device=flat.device)
    return {name: value[index, torch.arange(len(levels))] for name, value in masks.items()}, np.stack(places, axis=1)
