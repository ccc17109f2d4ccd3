"""The path over strengths: what the penalty leaves at every one of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from skode._batch import Batch
from skode._compact import compact
from skode._dependencies import find_dependencies
from skode._dynamics import Dynamics
from skode._fit import Specification, constraints_of, options_of
from skode._parts import train_in_parts
from skode._prepared import Prepared
from skode._problem import Problem
from skode._train import Trained, empty_where
from skode._typing import FloatArray, IntArray, Weights
from skode.recipe import STAGED


class Path(NamedTuple):
    """What the penalty leaves at every strength."""

    alphas: FloatArray  # (level,), falling: edges come in one after another
    trained: Trained
    masks: Weights  # (level, ...), 1 where a weight is not zero
    n_edges: IntArray  # (level, target)

    def support(self, level: IntArray) -> Weights:
        """The mask of every target from its own level; of the first for all where they share weights.  # (1, ...)"""
        if not self.trained.field.per_target:
            return {name: value[level[:1]] for name, value in self.masks.items()}
        index, target = torch.as_tensor(level), torch.arange(len(level))
        return {name: value[index, target].unsqueeze(0) for name, value in self.masks.items()}

    def start(self, level: int, drawn: Weights) -> Weights:
        """The weights of one level; what is closed is as it was drawn, or products could not begin.  # (1, ...)"""
        weights = self.trained.only(level).weights
        return {name: torch.where(value != 0, value, drawn[name]) for name, value in weights.items()}

    def ranking(self, problem: Problem) -> torch.Tensor:
        """Dense score: mean RMS Jacobian over the levels, the pilot breaking ties.  # (1, target, variable)"""
        field = self.trained.field
        jacobian = field.jacobian(self.trained.weights, problem.knots)
        rms = field.by_variable(jacobian.square().mean(dim=1)).sqrt()
        return rms.mean(dim=0, keepdim=True) + self.trained.pilot[:1] * 0.1

    def matrices(self, prepared: Prepared, problem: Problem) -> list[Any]:
        """Dependencies at every level, as ``compact`` keeps them."""
        matrices = []
        for k in range(len(self.alphas)):
            weights = {name: value.double() for name, value in self.trained.only(k).weights.items()}
            found = find_dependencies(self.trained.field, weights, self.trained.pilot[k], prepared, problem)
            matrices.append(compact(found.matrix))
        return matrices


def run_path(dynamics: Dynamics, problem: Problem, spec: Specification, alphas: FloatArray, seed: int) -> Path:
    """Pilot and press at every strength, as the plain estimator does at one.

    A pilot that is stronger than the press that follows would settle what the press is to decide: what it cuts pays the
    highest adaptive price and does not come back, so that weak edges would lack along the whole path. Strengths that
    the pilot stage clips to the same value share a pilot, and all of them share what comes before the penalty.

    Parameters
    ----------
    dynamics : Dynamics
    problem : Problem
    spec : Specification
    alphas : array (level,)
    seed : int

    Returns
    -------
    Path
    """
    warm = tuple(stage for stage in STAGED if stage.press == "none" and not stage.frozen)
    mild_press = tuple(stage for stage in STAGED if stage.press == "uniform")
    press = tuple(stage for stage in STAGED if stage.press == "adaptive")
    warmed = train_in_parts(dynamics, spec.penalty, problem, Batch.single(0.0, seed), options_of(spec, warm))
    mild, own = np.unique(np.minimum(alphas, min(stage.most for stage in mild_press)), return_inverse=True)
    pilots = Batch(mild, np.full(len(mild), seed))
    start = {name: value.expand(len(mild), *value.shape[1:]) for name, value in warmed.params.items()}
    pilot = train_in_parts(dynamics, spec.penalty, problem, pilots, options_of(spec, mild_press), start=start)
    start = {name: value[own] for name, value in pilot.params.items()}
    batch = Batch(alphas, np.full(len(alphas), seed))
    trained = train_in_parts(dynamics, spec.penalty, problem, batch, options_of(spec, press), start=start)
    top = warmed.alpha_max.expand(len(alphas))
    beyond = torch.as_tensor(alphas, dtype=top.dtype, device=top.device) >= top
    trained = trained._replace(
        weights=empty_where(dynamics.field, trained.weights, beyond, constraints_of(spec)),
        pilot=trained.pilot + warmed.pilot,
        alpha_max=top,
    )
    masks = {name: (value != 0).to(value.dtype) for name, value in trained.weights.items()}
    paths = dynamics.field.by_variable(dynamics.field.paths(trained.weights))
    n_edges = (paths > 0).sum(-1).cpu().numpy().astype(np.int64)
    return Path(alphas, trained, masks, n_edges)
