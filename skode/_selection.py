"""The path over strengths, and the choice of a support for every target by cross-validation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from skode._batch import Batch
from skode._capacity import can_decide
from skode._compact import compact
from skode._confidence import edge_confidence
from skode._dependencies import find_dependencies
from skode._dynamics import Dynamics
from skode._finish import finish
from skode._fit import (
    Specification,
    constraints_of,
    fit_additive,
    forecasting_model,
    options_of,
    set_up,
    start_velocity_of,
)
from skode._fitted import Fitted
from skode._folds import Folds
from skode._overrule import overruled
from skode._parts import train_in_parts
from skode._prepare import Prepared, prepare
from skode._problem import Problem, every_row
from skode._steady import SteadyRows
from skode._train import Trained, empty_where, initial_weights
from skode._trajectories import Trajectories
from skode._typing import AnyArray, FloatArray, IntArray, Weights
from skode.convex import EBIC_GAMMA, SHARE_OF_ROWS, ebic
from skode.fields import AbstractField
from skode.objectives import matching_loss
from skode.penalties import NoPenalty
from skode.recipe import AFRESH, REFIT, STAGED, Stage

TOLERANCE = 0.02
"""A smaller support may lose this share of the best held-out loss on top of one standard error."""
CERTAIN = 0.5
"""Confidence below which an edge lowers no held-out loss."""
PLAIN = 0.02
"""Strength of the plain estimator, which stands in where nothing can be held out."""
LARGE = 1e6
"""Held-out loss of a refit that is not finite."""


class Path(NamedTuple):
    """What the penalty leaves at every strength."""

    alphas: FloatArray  # (level,), falling: edges come in one after another
    trained: Trained
    masks: Weights  # (level, ...), 1 where a weight is not zero
    n_edges: IntArray  # (level, target)


class Selected(NamedTuple):
    """What the cross-validated estimator keeps."""

    fitted: Fitted
    matrices: list[Any]  # dependencies at every level, pressed but not refitted, as ``compact`` keeps them
    alphas: FloatArray  # (level,)
    level: IntArray  # (target,) chosen
    losses: FloatArray  # (fold, level, target), held-out; 0 for targets that do not move
    n_edges: IntArray  # (level, target)
    best_level: int  # the one level that would serve all targets best
    fold_kind: str


def select(
    trajectories: Trajectories,
    specification: Specification,
    *,
    alphas: FloatArray,
    folds: Folds,
    selection: str | int,
    seed: int,
    steady: SteadyRows | None = None,
    confident: bool = True,
) -> Selected:
    """Run the path, score every level by masked refits on folds, choose per target, refit.

    1. On all data: warm up, pilot and press with every strength at once, one batch on the model axis. The supports
       along the path are the candidates.
    2. On every fold: smooth, scale and refit every level under its mask, without penalty; the held-out matching
       loss is kept per target.
    3. Choose a level for every target; a field whose targets share weights gets one level for all.
    4. With "one_se", refit on that choice and on the plain estimator's side by side: a target whose held-out windows
       are forecast clearly better with the latter takes it.
    5. Drop every edge in turn and refit on the folds: that is the confidence of edges, and with "one_se" a target loses
       its least certain edge if held-out intervals lose nothing without it; not where windows have decided.
    6. Refit the combination on all data, and finish through the solver (see ``finish``).

    The last refit goes on from the networks that the press left at the plain estimator's strength. Networks that start
    afresh on the same support forecast worse (FitzHugh-Nagumo .069 to .050), as they have trained for half as long; and
    those of the stronger strengths that targets choose are worse still: the penalty has bent them further.

    Parameters
    ----------
    trajectories : Trajectories
    specification : Specification
    alphas : array (level,)
    folds : Folds
    selection : {"one_se", "best", "ebic"} or int
        "ebic" takes the least extended BIC of refits on all data, and needs no folds. An integer asks for that many
        edges in all: the level of the path whose number is nearest. Without folds every rule but these two takes the
        level nearest to the plain estimator's default strength.
    seed : int
    steady : SteadyRows, optional
        Used in every fold.
    confident : bool, default=True
        Whether to find out how sure the edges are, which takes another refit on every fold.

    Returns
    -------
    Selected
    """
    spec = specification
    if spec.field == "additive":
        return _select_additive(trajectories, spec, np.sort(alphas)[::-1].copy(), selection, seed, steady)
    prepared, dynamics, problem = set_up(trajectories, spec, steady)
    field = dynamics.field
    path = run_path(dynamics, problem, spec, np.sort(alphas)[::-1].copy(), seed)
    parts = [(trajectories, trajectories)] if selection == "ebic" else folds.parts
    losses = np.zeros((len(parts), *path.n_edges.shape))
    for k, (train_part, test_part) in enumerate(parts):
        losses[k] = _fold_losses(train_part, test_part, path, field, spec, seed, steady)
    losses = np.where(prepared.scales.moving, losses, 0.0)
    if selection == "ebic":
        losses = information(losses, path.n_edges, prepared)
    best, level = _levels(losses, path, selection, per_target=field.per_target)
    usual = _usual_level(path.alphas)
    start = _start(path, usual, initial_weights(field, Batch.single(0.0, seed), options_of(spec, REFIT)))
    mask, fixed = _combine(path.masks, level, per_target=field.per_target), np.zeros(len(level), dtype=bool)
    if selection == "one_se" and folds.parts and field.per_target and can_decide(problem):
        other = _combine(path.masks, np.full_like(level, usual), per_target=True)
        fixed = overruled(dynamics, problem, start, mask, other, spec, seed)
        level = np.where(fixed, usual, level)
        mask = _combine(path.masks, level, per_target=True)
    confidence = None
    if confident and field.per_target:
        edges = (field.by_variable(field.paths(mask))[0] > 0).cpu().numpy()
        confidence = edge_confidence(folds, mask, edges, spec, seed, steady)
        if selection == "one_se" and folds.parts:
            mask = prune(field, mask, np.where(fixed[:, None], 1.0, confidence))
    refitted = finish(dynamics, problem, start, mask, spec, seed)
    refitted = refitted._replace(pilot=_ranking(path, problem, field), alpha_max=path.trained.alpha_max[:1])
    fitted = forecasting_model(refitted, prepared, problem, spec, start_velocity_of(spec, prepared))
    if confidence is not None:
        fitted = replace(fitted, confidence=np.where(fitted.matrix > 0, confidence, 0.0))
    matrices = [
        compact(find_dependencies(field, one, path.trained.pilot[k], prepared, problem).matrix)
        for k, one in enumerate(_levels_apart(path.trained.weights))
    ]
    return Selected(fitted, matrices, path.alphas, level, losses, path.n_edges, best, folds.kind)


def prune(field: AbstractField, mask: Weights, confidence: FloatArray) -> Weights:
    """Cut the least certain edge of every target, if folds forecast no worse without it.

    One edge, since confidence drops one at a time: of two that stand in for each other, either may go and not both.

    Parameters
    ----------
    field : AbstractField
    mask : dict of tensors  # (1, target, row, source)
    confidence : array (target, variable)
        0 where there is no edge.

    Returns
    -------
    dict of tensors, of the same shapes
    """
    some = mask["K"]
    open_edges = field.by_variable(field.paths(mask))[0] > 0
    certain = torch.where(open_edges, torch.as_tensor(confidence, dtype=some.dtype, device=some.device), 1.0)
    least, place = certain.min(dim=-1)
    keep = torch.ones_like(certain).scatter(-1, place.unsqueeze(-1), (least >= CERTAIN).to(some.dtype).unsqueeze(-1))
    columns = field.to_sources(keep).unsqueeze(-2)  # (target, 1, source)
    return {name: value * columns if name in field.entries else value for name, value in mask.items()}


def _select_additive(
    trajectories: Trajectories,
    spec: Specification,
    alphas: FloatArray,
    selection: str | int,
    seed: int,
    steady: SteadyRows | None,
) -> Selected:
    """Levels by the extended BIC, or one level for all targets that gives about so many edges."""
    fitted, chosen = fit_additive(trajectories, spec, None, seed, steady, alphas)
    path = chosen.levels
    n_edges = np.array([np.diff(coefficients.indptr) for coefficients in path])
    if isinstance(selection, int):
        wanted = int(np.argmin(np.abs(n_edges.sum(axis=1) - selection)))
        fitted, chosen = fit_additive(trajectories, spec, float(alphas[wanted]), seed, steady, alphas)
    level = np.abs(np.log(np.maximum(alphas, 1e-12)[:, None] / np.maximum(chosen.alphas, 1e-12))).argmin(axis=0)
    best = int(np.argmin(np.abs(n_edges.sum(axis=1) - chosen.support.sum())))
    matrices = [compact(np.abs(coefficients.toarray())) for coefficients in path]
    losses = np.zeros((0, len(alphas), len(level)))
    return Selected(fitted, matrices, alphas, level, losses, n_edges, best, "none")


def _levels_apart(weights: Weights) -> list[Weights]:
    """The weights of every level as those of one model, in double precision."""
    n_levels = len(next(iter(weights.values())))
    return [{name: value[k : k + 1].double() for name, value in weights.items()} for k in range(n_levels)]


def run_path(dynamics: Dynamics, problem: Problem, spec: Specification, alphas: FloatArray, seed: int) -> Path:
    """Pilot and press at every strength, as the plain estimator does at one.

    A pilot that is stronger than the press that follows would settle what the press is to decide: what it cuts pays the
    highest adaptive price and does not come back, so that weak edges would lack along the whole path. Strengths that
    the pilot stage clips to the same value share a pilot.

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
    early: tuple[Stage, ...] = tuple(stage for stage in STAGED if stage.press != "adaptive" and not stage.frozen)
    press = tuple(stage for stage in STAGED if stage.press == "adaptive")
    mild, own = np.unique(np.minimum(alphas, min(stage.most for stage in early)), return_inverse=True)
    pilots = Batch(mild, np.full(len(mild), seed))
    pilot = train_in_parts(dynamics, spec.penalty, problem, pilots, options_of(spec, early))
    start = {name: value[own] for name, value in pilot.params.items()}
    batch = Batch(alphas, np.full(len(alphas), seed))
    trained = train_in_parts(dynamics, spec.penalty, problem, batch, options_of(spec, press), start=start)
    top = pilot.alpha_max[own]
    beyond = torch.as_tensor(alphas, dtype=top.dtype, device=top.device) >= top
    trained = trained._replace(
        weights=empty_where(dynamics.field, trained.weights, beyond, constraints_of(spec)),
        pilot=trained.pilot + pilot.pilot[own],
        alpha_max=top,
    )
    masks = {name: (value != 0).to(value.dtype) for name, value in trained.weights.items()}
    paths = dynamics.field.by_variable(dynamics.field.paths(trained.weights))
    n_edges = (paths > 0).sum(-1).cpu().numpy().astype(np.int64)
    return Path(alphas, trained, masks, n_edges)


def choose(losses: FloatArray, n_edges: IntArray, selection: str) -> int:
    """Pick one level from held-out losses.

    Parameters
    ----------
    losses : array (fold, level)
    n_edges : array (level,)
    selection : {"one_se", "best", "ebic"}
        The fewest edges among the levels whose mean paired difference to the best is within one standard error
        plus 2 % of the best loss; or the best (of losses, or of information criteria).

    Returns
    -------
    int

    Examples
    --------
    >>> import numpy as np
    >>> from skode._selection import choose
    >>> losses = np.array([[1.0, 0.50, 0.47], [1.0, 0.50, 0.52]])
    >>> choose(losses, np.array([0, 2, 5]), "one_se"), choose(losses, np.array([0, 2, 5]), "best")
    (1, 2)
    """
    mean = losses.mean(axis=0)
    best = int(np.lexsort((n_edges, mean))[0])
    if selection in ("best", "ebic"):
        return best
    difference = losses - losses[:, best : best + 1]
    error = difference.std(axis=0, ddof=min(1, len(losses) - 1)) / np.sqrt(len(losses))
    candidates = np.flatnonzero(difference.mean(axis=0) <= error + TOLERANCE * mean[best])
    return int(candidates[np.lexsort((mean[candidates], n_edges[candidates]))[0]])


def information(losses: FloatArray, n_edges: IntArray, prepared: Prepared) -> FloatArray:
    """Extended BIC in place of losses, from refits on all data; every second row counts (see ``convex.select``).

    Parameters
    ----------
    losses : array (1, level, target)
        Matching losses in sample, in units of the zero model's; 0 for targets that do not move.
    n_edges : array (level, target)
    prepared : Prepared

    Returns
    -------
    array (1, level, target)
    """
    effective = SHARE_OF_ROWS * prepared.slope_weights.sum(0) ** 2 / (prepared.slope_weights**2).sum(0)
    n_sources = prepared.nodes.shape[-1]
    values = [
        ebic(np.maximum(loss, 1e-12), size.astype(float), n_rows=effective, n_sources=n_sources, gamma=EBIC_GAMMA)
        for loss, size in zip(losses[0], n_edges, strict=True)
    ]
    return np.where(losses > 0, np.stack(values)[None], 0.0)


def _levels(losses: FloatArray, path: Path, selection: str | int, *, per_target: bool) -> tuple[int, IntArray]:
    """The level that serves all targets, and that of every target."""
    n_targets = losses.shape[-1]
    n_edges = path.n_edges.sum(-1)
    if isinstance(selection, int):
        best = int(np.argmin(np.abs(n_edges - selection)))
    elif not len(losses):
        best = _usual_level(path.alphas)
    else:
        best = choose(losses.sum(-1), n_edges, selection)
        if per_target:
            return best, np.array([choose(losses[..., i], path.n_edges[:, i], selection) for i in range(n_targets)])
    return best, np.full(n_targets, best)


def _usual_level(alphas: FloatArray) -> int:
    """The level nearest to the plain estimator's strength."""
    return int(np.argmin(np.abs(np.log(np.maximum(alphas, 1e-12) / PLAIN))))


def _start(path: Path, level: int, drawn: Weights) -> Weights:
    """The weights of one level; what the press closed is as it was drawn, or products could not begin.  # (1, ...)"""
    weights = {name: value[level : level + 1] for name, value in path.trained.weights.items()}
    return {name: torch.where(value != 0, value, drawn[name]) for name, value in weights.items()}


def _fold_losses(
    train_part: Trajectories,
    test_part: Trajectories,
    path: Path,
    field: AbstractField,
    spec: Specification,
    seed: int,
    steady: SteadyRows | None,
) -> FloatArray:
    """Held-out matching loss of every level and target on one fold.  # (level, target)"""
    prepared, dynamics, problem = set_up(train_part, spec, steady)
    problem = problem._replace(held_rows=None, held_windows=None)
    test = prepare(test_part, order=spec.order, time_dependent=spec.time_dependent, scales=prepared.scales)
    n_levels = len(path.alphas)
    # One set of initial weights for all levels: differences between levels are then differences of supports.
    batch = Batch(np.zeros(n_levels), np.full(n_levels, seed))
    trained = train_in_parts(dynamics, NoPenalty(), problem, batch, options_of(spec, (AFRESH,)), frozen=path.masks)
    with torch.no_grad():
        loss = matching_loss(field, trained.weights, every_row(test, problem.matching), problem.matching)
    losses: FloatArray = loss.double().cpu().numpy()
    # What never moved in training, or was never seen in the test part, tells nothing of any level.
    seen = prepared.scales.moving & np.isfinite(test_part.states[test_part.times != 0]).any(axis=0)
    return np.where(seen, np.nan_to_num(losses, nan=LARGE, posinf=LARGE), 0.0)


def _combine(masks: Weights, level: AnyArray, *, per_target: bool) -> Weights:
    """The mask of every target from its own level.  # (1, ...)"""
    index = torch.as_tensor(level)
    if not per_target:
        return {name: value[level[:1]] for name, value in masks.items()}
    target = torch.arange(len(level))
    return {name: value[index, target].unsqueeze(0) for name, value in masks.items()}


def _ranking(path: Path, problem: Problem, field: AbstractField) -> torch.Tensor:
    """Dense score: mean RMS Jacobian over the path, the pilot breaking ties.  # (1, target, variable)"""
    jacobian = field.jacobian(path.trained.weights, problem.knots)
    rms = field.by_variable(jacobian.square().mean(dim=1)).sqrt()
    return rms.mean(dim=0, keepdim=True) + path.trained.pilot[:1] * 0.1
