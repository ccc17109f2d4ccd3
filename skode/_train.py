"""Run the stages of a recipe for a batch of models that share their data."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from skode._batch import Batch
from skode._capacity import can_widen, narrow, widen, widened
from skode._dynamics import Dynamics
from skode._problem import Problem
from skode._stage import Options, StageLosses
from skode._threads import few_threads
from skode._typing import FloatArray, Weights
from skode.fields import AbstractField, PerTargetField
from skode.objectives import matching_loss
from skode.penalties import AbstractPenalty, NoPenalty
from skode.solvers import prox_adam

ADAPTIVE_FLOOR = 0.02
"""Smallest Jacobian share in the adaptive prices, which bounds them by 50."""


class StageReport(NamedTuple):
    """What one stage did, per model."""

    loss: FloatArray  # (check, model)
    n_edges: FloatArray  # (model,)
    converged: FloatArray  # (model,)
    failed: FloatArray  # (model,)
    n_iter: int
    seconds: float


class Trained(NamedTuple):
    """Effective weights after the last stage, and how they came about."""

    field: AbstractField  # as it was given, or with the bilinear units that were chosen
    weights: Weights
    params: Weights  # what the solver moved: weights, and gates where there are any
    pilot: torch.Tensor  # (model, target, variable), RMS Jacobian before anything was cut
    history: dict[str, StageReport]
    alpha_max: torch.Tensor  # (model,)


def train(
    dynamics: Dynamics,
    penalty: AbstractPenalty,
    problem: Problem,
    batch: Batch,
    options: Options,
    *,
    start: Weights | None = None,
    frozen: Weights | None = None,
) -> Trained:
    """Run every stage in turn; a stage starts where the one before ended.

    Parameters
    ----------
    dynamics : Dynamics
    penalty : AbstractPenalty
    problem : Problem
    batch : Batch
    options : Options
    start : dict of tensors, optional
        Parameters to go on from, as ``Trained.params`` holds them; drawn from the seeds by default.
    frozen : dict of tensors  # (model | 1, ...), optional
        1 where an entry of the weights may differ from zero, from the first stage on.

    Returns
    -------
    Trained
    """
    field = dynamics.field
    alpha = torch.as_tensor(batch.alphas, dtype=options.dtype, device=options.device)
    params = penalty.init(field, initial_weights(field, batch, options)) if start is None else start
    weights = penalty.weights(field, params)
    if frozen is None:
        frozen = {name: torch.ones_like(value[:1]) for name, value in weights.items()}
    else:
        params = {name: value * frozen[name] if name in frozen else value for name, value in params.items()}
    alpha_max = critical_alpha(field, penalty, problem, weights)
    adaptive: torch.Tensor | None = None
    pilot = rms_jacobian(field, weights, problem)
    history: dict[str, StageReport] = {}
    for stage in options.recipe:
        began = time.perf_counter()
        if stage.press == "adaptive":
            effective = penalty.weights(field, params)
            pilot = pilot + rms_jacobian(field, effective, problem)
            adaptive = adaptive_prices(rms_jacobian(field, effective, problem))
        if stage.frozen and not isinstance(penalty, NoPenalty):
            params = empty_where(field, penalty.weights(field, params), alpha >= alpha_max)
            frozen = {name: (value != 0).to(value.dtype) for name, value in params.items()}
            penalty = NoPenalty()
        wide = None
        if stage.widens and options.widen and isinstance(field, PerTargetField) and can_widen(field, problem):
            wide = widen(field, params, frozen, initial_weights(widened(field), batch, options))
            field, params, frozen = wide
            dynamics, alpha = replace(dynamics, field=field), torch.cat([alpha, alpha])
        losses = StageLosses(stage, dynamics, penalty, problem, alpha, adaptive, frozen, options)
        params = losses.start(params)
        with few_threads(field, problem, len(alpha)):
            solved = prox_adam(
                losses.loss,
                params,
                n_iter=max(1, round(stage.share * options.max_iter)),
                learning_rate=options.learning_rate * stage.rate,
                prox=losses.prox if stage.press != "none" else None,
                validate=losses.held_out if losses.can_validate else None,
                rates=rate_of,
                tol=options.tol,
                unit=float(len(problem.moving)),
            )
        params = losses.finish(solved.params)
        if wide is not None:
            field, params, frozen = narrow(wide, params, problem)
            dynamics, alpha = replace(dynamics, field=field), alpha.chunk(2)[0]
        if stage.name == "warm":
            pilot = 1e-3 * rms_jacobian(field, penalty.weights(field, params), problem)
            alpha_max = critical_alpha(field, penalty, problem, params)
        paths = field.by_variable(field.paths(penalty.weights(field, params)))
        report = StageReport(
            loss=solved.losses.double().cpu().numpy(),
            n_edges=(paths > 0).sum((-2, -1)).double().cpu().numpy(),
            converged=(solved.converged | (not stage.settles)).cpu().numpy(),
            failed=solved.failed.cpu().numpy(),
            n_iter=solved.n_iter,
            seconds=time.perf_counter() - began,
        )
        history[stage.name] = report
        options.report(
            f"{stage.name}: loss {np.median(report.loss[-1]):.4g}, "
            f"{np.median(report.n_edges):.0f} edges, {report.seconds:.1f} s"
        )
    weights = empty_where(field, penalty.weights(field, params), alpha >= alpha_max)
    return Trained(field, weights, params, pilot, history, alpha_max)


def initial_weights(field: AbstractField, batch: Batch, options: Options) -> Weights:
    """Draw the weights of every model from its own seed."""
    draws = [
        field.init(torch.Generator().manual_seed(int(seed)), n_models=1, dtype=options.dtype, device=options.device)
        for seed in batch.seeds
    ]
    return {name: torch.cat([draw[name] for draw in draws]) for name in draws[0]}


def rate_of(name: str) -> float:
    """Gates move ten times as fast as weights: log a must travel some four units to close."""
    return 10.0 if name.endswith("log_alpha") else 1.0


def mask_of(field: AbstractField, frozen: Weights, support: torch.Tensor) -> Weights:
    """Zero the columns of all first-layer tensors outside the support."""
    by_source = field.to_sources(support).unsqueeze(-2)
    return {
        name: value * by_source.to(value.dtype) if name in field.entries else value for name, value in frozen.items()
    }


def rms_jacobian(field: AbstractField, weights: Weights, problem: Problem) -> torch.Tensor:
    """Root mean square over the data of every target's derivatives.  # (model, target, variable)"""
    jacobian = field.jacobian(weights, problem.knots)
    return field.by_variable(jacobian.square().mean(dim=1)).sqrt()


def adaptive_prices(rms: torch.Tensor) -> torch.Tensor:
    """Prices of edges for the second stage: the less an edge did in the first, the more it pays.

    a_ij = 1 / max(J_ij / max_j J_ij, 0.02)

    References
    ----------
    "The Adaptive Lasso and Its Oracle Properties", 2006, doi 10.1198/016214506000000735, equation 4; Jacobians take
    the place of coefficients.
    """
    share = rms / rms.amax(dim=-1, keepdim=True).clamp_min(1e-30)
    return 1 / share.clamp_min(ADAPTIVE_FLOOR)


def empty_where(field: AbstractField, weights: Weights, empty: torch.Tensor) -> Weights:
    """Cut every edge of the models for which ``empty`` holds."""
    out = dict(weights)
    for name in field.entries:
        value = out[name]
        out[name] = torch.where(empty.view(-1, *[1] * (value.ndim - 1)), torch.zeros_like(value), value)
    return out


def critical_alpha(field: AbstractField, penalty: AbstractPenalty, problem: Problem, weights: Weights) -> torch.Tensor:
    """Strength from which the field without edges, at its best constants, is a stationary point.  # (model,)

    It takes the gradient of the matching loss by the first-layer tensors at zero, the later layers being as they
    are in ``weights``.
    """
    zeros = {name: torch.zeros_like(weights[name]).requires_grad_(True) for name in field.entries}
    rows = problem.rows
    mean = (rows.weights * rows.slopes).sum(0) / rows.weights.sum(0).clamp_min(1e-30)
    empty = {**weights, **zeros}
    constant = field(empty, rows.sources[:1, 0].unsqueeze(0)).detach()  # (model, 1, target)
    centred = rows._replace(slopes=rows.slopes - mean + constant)
    loss = matching_loss(field, empty, centred, problem.matching)[:, problem.moving].sum()
    gradient = torch.autograd.grad(loss, list(zeros.values()), allow_unused=True, materialize_grads=True)
    return penalty.critical_alpha(field, dict(zip(zeros, gradient, strict=True)))
