"""The path over strengths, and the choice of a support and a capacity for every target by cross-validation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from skode._batch import Batch
from skode._dynamics import Dynamics
from skode._fit import Fitted, Specification, build_options, finish_fitted, make_field, recipe_of
from skode._folds import Folds, make_folds
from skode._prepare import prepare
from skode._problem import Problem, build_problem
from skode._steady import SteadyRows
from skode._train import Trained, initial_weights, train
from skode._trajectories import Trajectories
from skode._typing import FloatArray, IntArray, Weights
from skode.fields import AbstractField
from skode.objectives import matching_loss
from skode.penalties import NoPenalty
from skode.recipe import Stage

TOLERANCE = 0.02
"""A smaller support may lose this share of the best held-out loss on top of one standard error."""
PILOT = 0.05
"""Strength of the pilot stage, which ranks edges for the whole path."""


class Path(NamedTuple):
    """Supports along the strengths."""

    alphas: FloatArray  # (level,), falling
    trained: Trained
    masks: Weights  # (level, ...), 1 where a weight may differ from zero
    n_edges: IntArray  # (level, target)


class Losses(NamedTuple):
    """Held-out losses of masked refits."""

    values: FloatArray  # (fold, level, target)


class Selected(NamedTuple):
    """What the cross-validated estimator keeps."""

    fitted: Fitted
    path: list[Fitted]
    alphas: FloatArray
    level: IntArray  # (target,)
    losses: FloatArray  # (capacity, fold, level, target)
    n_bilinear: IntArray  # (target,)
    alpha: float
    fold_kind: str


def choose(losses: FloatArray, n_edges: IntArray, selection: str) -> int:
    """Pick one level from held-out losses.

    Parameters
    ----------
    losses : array (fold, level)
    n_edges : array (level,)
    selection : {"best", "one_se"}
        The smallest mean loss; or the fewest edges among the levels whose mean paired difference to the best is
        within one standard error plus 2 % of the best loss.

    Returns
    -------
    int

    Examples
    --------
    >>> import numpy as np
    >>> losses = np.array([[1.0, 0.5, 0.49], [1.0, 0.5, 0.51]])
    >>> choose(losses, np.array([0, 2, 5]), "one_se"), choose(losses, np.array([0, 2, 5]), "best")
    (1, 1)
    """
    mean = losses.mean(axis=0)
    best = int(np.lexsort((n_edges, mean))[0])
    if selection == "best":
        return best
    difference = losses - losses[:, best : best + 1]
    error = difference.std(axis=0, ddof=1) / np.sqrt(len(losses)) if len(losses) > 1 else 0.0
    close = difference.mean(axis=0) <= error + TOLERANCE * mean[best]
    candidates = np.flatnonzero(close)
    return int(candidates[np.lexsort((mean[candidates], n_edges[candidates]))[0]])


def select(
    trajectories: Trajectories,
    specification: Specification,
    *,
    alphas: FloatArray,
    n_folds: int,
    selection: str | int,
    capacities: tuple[int, ...],
    seed: int,
    steady: SteadyRows | None = None,
) -> Selected:
    """Run the path, score every level by masked refits on folds, choose per target, and refit.

    1. On all data: warm up and pilot once, then press with every strength at once (one batch on the model axis).
       The distinct supports along the path are the candidates.
    2. On every fold: smooth, scale and refit every level under its frozen mask, for every capacity (number of
       bilinear units); the held-out loss is kept per target, because targets share nothing on a per-target field.
    3. Per target: the level by ``selection``; then the larger capacity only where it is better by more than one
       standard error. Fields whose targets share weights choose one level for all.
    4. Refit the combination on all data, and finish through the solver.

    Parameters
    ----------
    trajectories : Trajectories
    specification : Specification
    alphas : array (level,)
    n_folds : int
    selection : {"one_se", "best"} or int
        An integer asks for about that many edges: the level of the path with the nearest number, for all targets.
    capacities : tuple of int
        Numbers of bilinear units to try, the smallest first.
    seed : int
    steady : SteadyRows, optional
        Used in every fold.

    Returns
    -------
    Selected
    """
    spec = specification
    prepared = prepare(trajectories, order=spec.order, time_dependent=spec.time_dependent, steady=steady)
    base = make_field(replace(spec, n_bilinear=0), trajectories.n_states, trajectories.n_inputs)
    spec.penalty.check(base)
    dynamics = Dynamics(base, prepared.scales, spec.time_dependent)
    problem = build_problem(
        prepared, window=WINDOW, refine_start=not spec.initial_exact, dtype=spec.dtype, device=spec.device
    )
    path = run_path(dynamics, problem, spec, alphas, seed)
