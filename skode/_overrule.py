"""Two supports for every target: forecasts of held-out windows may overrule what held-out intervals chose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from skode._batch import Batch
from skode._capacity import can_decide, held_out_squares
from skode._confidence import probability
from skode._dynamics import Dynamics
from skode._fit import Specification, options_of
from skode._parts import train_in_parts
from skode._problem import Problem
from skode._typing import BoolArray, Weights
from skode.penalties import NoPenalty
from skode.recipe import REFIT

SURE = 0.99
"""Probability of better forecasts from which on the second support of a target wins. Not .95: there are many targets,
and each is one more chance to be wrong. Of fifteen targets on mass action and Van der Pol that differed, .99 found the
two that lacked true edges, and .98 also one whose second support was merely larger."""


def overruled(
    dynamics: Dynamics,
    problem: Problem,
    start: Weights,
    first: Weights,
    second: Weights,
    specification: Specification,
    seed: int,
) -> BoolArray:
    r"""Refit on two supports side by side, and say for which targets the second forecasts held-out windows better.

    .. math:: P(T > -mean(g) / se(g)) > .99, \quad g = |e_{first}| - |e_{second}|

    over windows, with |e| the root of a target's squared errors over the times of a window and T of Student. The loss
    of an interval is mostly noise of the smoothed slope, and a network with more sources fits more of it, so that on
    folds a target may do better without a weak but true edge. Over a window the noise averages out, and what is missing
    adds up. Windows are few: the first support stays unless they are sure, and where they are too few to tell.

    Parameters
    ----------
    dynamics : Dynamics
        Of a field with one network per target.
    problem : Problem
    start : dict of tensors  # (1, ...)
        Weights from which both refits go on.
    first, second : dict of tensors  # (1, ...)
        1 where a weight may differ from zero.
    specification : Specification
    seed : int

    Returns
    -------
    bool array (target,)
    """
    if not can_decide(problem) or all(torch.equal(value, second[name]) for name, value in first.items()):
        return np.zeros(dynamics.field.n_targets, dtype=bool)
    twice = {name: torch.cat([value, value]) for name, value in start.items()}
    masks = {name: torch.cat([value, second[name]]) for name, value in first.items()}
    options = options_of(replace(specification, widen=False), REFIT[:1])
    batch = Batch(np.zeros(2), np.full(2, seed))
    trained = train_in_parts(dynamics, NoPenalty(), problem, batch, options, start=twice, frozen=masks)
    errors = held_out_squares(dynamics, trained.weights, problem).sqrt().cpu().numpy()  # (2, window, target)
    won: BoolArray = probability(errors[0] - errors[1]) > SURE
    return won
