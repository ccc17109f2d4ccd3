"""Refits on many supports at once, where networks of targets do not meet."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from skode._batch import Batch
from skode._dynamics import Dynamics
from skode._parts import train_in_parts
from skode._problem import Problem
from skode._stage import Options
from skode._train import initial_weights
from skode._typing import IntArray, Weights
from skode.fields import PerTargetField
from skode.objectives import Rows, matching_errors, matching_loss
from skode.penalties import NoPenalty

AT_ONCE = 1024
"""Networks that are trained at a time, which bounds memory: 70 MB per hidden layer of 16 units and 1024 nodes."""


class Supports(NamedTuple):
    """What may differ from zero in networks of some targets; a target may have any number of them."""

    targets: torch.Tensor  # (net,)
    masks: Weights  # (net, ...), 1 where an entry may differ from zero


class Networks(NamedTuple):
    """Networks on supports: a field with one "target" for each."""

    field: PerTargetField
    weights: Weights  # (1, net, ...)
    targets: torch.Tensor  # (net,) whose slope each of them is

    @torch.no_grad()
    def losses(self, rows: Rows, scale: torch.Tensor) -> torch.Tensor:
        """Matching losses.  # (net,)"""
        return matching_loss(self.field, self.weights, of_targets(rows, self.targets), scale[self.targets])[0]

    @torch.no_grad()
    def errors(self, rows: Rows) -> torch.Tensor:
        """Weighted squared errors.  # (interval, net)"""
        return matching_errors(self.field, self.weights, of_targets(rows, self.targets))[0]


def of_targets(rows: Rows, targets: torch.Tensor) -> Rows:
    """Rows whose slopes are those of some targets, which may repeat."""
    return rows._replace(slopes=rows.slopes[:, targets], weights=rows.weights[:, targets])


def fit_supports(
    dynamics: Dynamics, field: PerTargetField, problem: Problem, supports: Supports, options: Options, seed: int
) -> Networks:
    """Train a network on every support, as a recipe of matching stages says.

    Every network starts from the weights that its target has in a fit of the whole field: what differs between the
    supports of a target is then the supports.

    Parameters
    ----------
    dynamics : Dynamics
    field : PerTargetField
        Of the dynamics.
    problem : Problem
        Nothing is held out of it.
    supports : Supports
    options : Options
    seed : int

    Returns
    -------
    Networks
    """
    drawn = initial_weights(field, Batch.single(0.0, seed), options)
    known, trained = options.constraints, []
    for some in torch.split(torch.arange(len(supports.targets), device=supports.targets.device), AT_ONCE):
        targets = supports.targets[some]
        own = replace(field, n_targets=len(targets))
        part = problem._replace(
            rows=of_targets(problem.rows, targets),
            held_rows=None,
            held_windows=None,
            moving=torch.isin(targets, problem.moving).nonzero()[:, 0],
            knots=problem.knots[:, :1],
            matching=problem.matching[targets],
        )
        found = train_in_parts(
            replace(dynamics, field=own),
            NoPenalty(),
            part,
            Batch.single(0.0, seed),
            replace(options, products="none", constraints=None if known is None else known.of(targets)),
            start={name: value[:, targets] for name, value in drawn.items()},
            frozen={name: value[some].unsqueeze(0) for name, value in supports.masks.items()},
        )
        trained.append(found.weights)
    weights = {name: torch.cat([part[name] for part in trained], dim=1) for name in drawn}
    return Networks(replace(field, n_targets=len(supports.targets)), weights, supports.targets)


def distinct(masks: Weights) -> tuple[Supports, IntArray]:
    """The different masks of every target.

    Parameters
    ----------
    masks : dict of tensors  # (level, target, ...)

    Returns
    -------
    Supports
    array (level, target) of int
        Which of them holds the mask of a target at a level.

    Examples
    --------
    >>> import torch
    >>> from skode._supports import distinct
    >>> masks = {"K": torch.tensor([[0, 0], [0, 1], [1, 1]])}  # three strengths, two targets
    >>> some, place = distinct(masks)
    >>> some.targets.tolist(), some.masks["K"].tolist(), place.tolist()
    ([0, 0, 1, 1], [0, 1, 0, 1], [[0, 2], [0, 3], [1, 3]])
    """
    flat = torch.cat([value.flatten(2) if value.ndim > 2 else value.unsqueeze(2) for value in masks.values()], dim=2)
    levels: list[int] = []
    targets: list[int] = []
    places = []
    for target, own in enumerate(flat.cpu().numpy().swapaxes(0, 1)):  # (level, entry)
        _, first, place = np.unique(own, axis=0, return_index=True, return_inverse=True)
        order = first.argsort()
        places.append(len(levels) + order.argsort()[place.ravel()])
        levels.extend(first[order])
        targets.extend([target] * len(first))
    level, owner = (torch.tensor(part, dtype=torch.long, device=flat.device) for part in (levels, targets))
    return Supports(owner, {name: value[level, owner] for name, value in masks.items()}), np.stack(places, axis=1)
