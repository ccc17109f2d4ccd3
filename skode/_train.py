"""Run the stages of a recipe for a batch of models that share their data."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from skode._batch import Batch
from skode._capacity import Wide, can_widen, narrow, widen, widened
from skode._constraints import Constraints
from skode._dynamics import Dynamics
from skode._problem import Problem
from skode._stage import SHIFT, Options, StageLosses
from skode._threads import few_threads
from skode._typing import FloatArray, Weights
from skode.fields import AbstractField, PerTargetField
from skode.objectives import matching_loss
from skode.penalties import AbstractPenalty, NoPenalty
from skode.quasi_newton import lbfgs
from skode.recipe import Stage
from skode.solvers import Solved, prox_adam

ADAM_PER_EVALUATION = 3
"""Iterations of Adam in place of which L-BFGS evaluates the loss once; it is nearer to the minimum then."""
ROUNDS = 3
"""How often windows are tried whose end solutions did not reach."""
PATIENCE = 10
"""Checks of the last stage, half of all, without a better forecast of what is held out, after which a model is done."""
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

    def line(self, name: str) -> str:
        """One line for a log."""
        return f"{name}: loss {np.median(self.loss[-1]):.4g}, {np.median(self.n_edges):.0f} edges, {self.seconds:.1f} s"


class Trained(NamedTuple):
    """Effective weights after the last stage, and how they came about."""

    field: AbstractField  # as it was given, or with the bilinear units that were chosen
    weights: Weights
    params: Weights  # what the solver moved: weights, and gates where there are any
    pilot: torch.Tensor  # (model, target, variable), RMS Jacobian before anything was cut
    history: dict[str, StageReport]
    alpha_max: torch.Tensor  # (model,)
    gains: torch.Tensor | None = None
    """By how much bilinear units lowered the errors of held-out windows, where these were asked.  # (model, window)"""

    def only(self, model: int) -> Trained:
        """One of the models."""
        one = slice(model, model + 1)
        reports = {
            name: report._replace(
                loss=report.loss[:, one],
                n_edges=report.n_edges[one],
                converged=report.converged[one],
                failed=report.failed[one],
            )
            for name, report in self.history.items()
        }
        return Trained(
            self.field,
            {name: value[one] for name, value in self.weights.items()},
            {name: value[one] for name, value in self.params.items()},
            self.pilot[one],
            reports,
            self.alpha_max[one],
            None if self.gains is None else self.gains[one],
        )


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
    weights, known = penalty.weights(field, params), options.constraints
    if frozen is None:
        frozen = {name: torch.ones_like(value[:1]) for name, value in weights.items()}
    if known is not None:
        params, frozen = known.start(field, params), known.mask(field, frozen)
    params = {name: value * frozen[name] if name in frozen else value for name, value in params.items()}
    alpha_max = critical_alpha(field, penalty, problem, weights, known)
    adaptive: torch.Tensor | None = None
    pilot = rms_jacobian(field, penalty.weights(field, params), problem)
    history: dict[str, StageReport] = {}
    gains: torch.Tensor | None = None
    for stage in options.recipe:
        began = time.perf_counter()
        if stage.press == "adaptive":
            rms = rms_jacobian(field, penalty.weights(field, params), problem)
            pilot, adaptive = pilot + rms, adaptive_prices(rms)
        if stage.frozen and not isinstance(penalty, NoPenalty):
            params = empty_where(field, penalty.weights(field, params), alpha >= alpha_max, known)
            frozen = {name: (value != 0).to(value.dtype) for name, value in params.items()}
            frozen = frozen if known is None else known.mask(field, frozen)
            penalty = NoPenalty()
        if (
            stage.widens
            and options.products != "none"
            and isinstance(field, PerTargetField)
            and can_widen(field, problem)
        ):
            wide = widen(field, params, frozen, initial_weights(widened(field), batch, options))
            wide = wide if known is None else _constrained(wide, known)
            twice = StageLosses(
                stage,
                replace(dynamics, field=wide.field),
                penalty,
                problem,
                alpha.repeat(2),
                adaptive,
                wide.frozen,
                options,
            )
            solved = _solve(twice, wide.params)
            taken = options.products == "taken"
            field, params, frozen, chosen, gains = narrow(wide, solved.params, problem, dynamics, taken=taken)
            dynamics, solved = replace(dynamics, field=field), _only(solved, params, chosen)
        else:
            losses = StageLosses(stage, dynamics, penalty, problem, alpha, adaptive, frozen, options)
            solved = _solve(losses, params)
            params = solved.params
        if stage.name == "warm":
            pilot = 1e-3 * rms_jacobian(field, penalty.weights(field, params), problem)
            alpha_max = critical_alpha(field, penalty, problem, params, known)
        history[stage.name] = _report(stage, solved, field, penalty.weights(field, params), began)
        options.report(history[stage.name].line(stage.name))
    weights = empty_where(field, penalty.weights(field, params), alpha >= alpha_max, known)
    return Trained(field, weights, params, pilot, history, alpha_max, gains)


def _solve(losses: StageLosses, params: Weights) -> Solved:
    """Run the solver on one stage; models with windows that were cut go on, each by itself."""
    solved = _solve_from(losses, losses.start(params))
    more = [_go_on(losses, solved, model) for model, cut in enumerate(losses.cut_share) if cut]
    return solved._replace(n_iter=solved.n_iter + max(more, default=0))


def _go_on(every: StageLosses, solved: Solved, model: int) -> int:
    """Solve again for one model as long as it follows its windows further than before; changes ``solved``.

    A model that runs away in most of its windows to the end has failed.

    Returns
    -------
    int
        Iterations.
    """
    losses, before, n_iter = every.only(model), every.cut_share[model], 0
    begin = losses.start({name: value[model : model + 1] for name, value in solved.params.items()})
    for _ in range(ROUNDS - 1):
        now = losses.cut_share[0]
        if now >= before:
            break
        again = _solve_from(losses, begin)
        n_iter += again.n_iter
        if bool(again.failed[0]):  # the round before stands
            break
        for name, value in again.params.items():
            solved.params[name][model] = value[0]
        solved.converged[model] = again.converged[0]
        before, begin = now, losses.start(again.params)
    solved.failed[model] |= losses.cut_share[0] > 0.5
    return n_iter


def _solve_from(losses: StageLosses, begin: Weights) -> Solved:
    """Run the solver on one stage once; its parameters come back with the support applied."""
    stage, options, problem = losses.stage, losses.options, losses.problem
    n_iter = max(1, round(stage.share * options.max_iter))
    validate = losses.held_out if losses.can_validate else None
    unit = float(len(problem.moving))
    with few_threads(losses.dynamics.field, problem, len(losses.alpha)):
        curvature = losses.curvature(begin)
        if curvature is None:
            solved = prox_adam(
                losses.loss,
                begin,
                n_iter=n_iter,
                learning_rate=options.learning_rate * stage.rate,
                prox=losses.prox if losses.steps_aside else None,
                validate=validate,
                rates=rate_of,
                decay=losses.decay,
                free=losses.frozen,
                tol=options.tol,
                unit=unit,
            )
        else:
            solved = lbfgs(
                losses.loss,
                begin,
                n_iter=max(1, n_iter // ADAM_PER_EVALUATION),
                precondition=curvature,
                decay=losses.decay,
                validate=validate,
                tol=options.tol,
                unit=unit,
                patience=PATIENCE,
            )
    return solved._replace(params=losses.finish(solved.params))


def _only(solved: Solved, params: Weights, chosen: torch.Tensor) -> Solved:
    """What the solver said of the chosen models alone."""
    return solved._replace(
        params=params,
        losses=solved.losses[:, chosen],
        converged=solved.converged[chosen],
        failed=solved.failed[chosen],
    )


def _report(stage: Stage, solved: Solved, field: AbstractField, weights: Weights, began: float) -> StageReport:
    """Put what a stage did into numpy."""
    paths = field.by_variable(field.paths(weights))
    return StageReport(
        loss=solved.losses.double().cpu().numpy(),
        n_edges=(paths > 0).sum((-2, -1)).double().cpu().numpy(),
        converged=(solved.converged | (not stage.settles)).cpu().numpy(),
        failed=solved.failed.cpu().numpy(),
        n_iter=solved.n_iter,
        seconds=time.perf_counter() - began,
    )


def initial_weights(field: AbstractField, batch: Batch, options: Options) -> Weights:
    """Draw the weights of every model from its own seed."""
    draws = [
        field.init(torch.Generator().manual_seed(int(seed)), n_models=1, dtype=options.dtype, device=options.device)
        for seed in batch.seeds
    ]
    return {name: torch.cat([draw[name] for draw in draws]) for name in draws[0]}


def rate_of(name: str) -> float:
    """Learning rate relative to that of weights.

    Gates move ten times as fast, because log a must travel some four units to close; starts of windows, whose unit
    is the noise, five times.
    """
    return 10.0 if name.endswith("log_alpha") else 5.0 if name == SHIFT else 1.0


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


def empty_where(
    field: AbstractField, weights: Weights, empty: torch.Tensor, known: Constraints | None = None
) -> Weights:
    """Cut every edge that is not free of the models for which ``empty`` holds."""
    out = dict(weights)
    for name in field.entries:
        value = out[name]
        cut = empty.view(-1, *[1] * (value.ndim - 1))
        if known is not None:
            cut = cut & ~field.to_sources(known.free).unsqueeze(-2)
        out[name] = torch.where(cut, torch.zeros_like(value), value)
    return out


def _constrained(wide: Wide, known: Constraints) -> Wide:
    """What is known of edges, on the doubled model axis."""
    frozen = known.mask(wide.field, wide.frozen)
    # The half without bilinear units stays without them.
    frozen = {name: mask * wide.frozen[name] if name in ("P", "R") else mask for name, mask in frozen.items()}
    params = known.start(wide.field, wide.params)
    return wide._replace(params={name: value * frozen[name] for name, value in params.items()}, frozen=frozen)


def critical_alpha(
    field: AbstractField,
    penalty: AbstractPenalty,
    problem: Problem,
    weights: Weights,
    known: Constraints | None = None,
) -> torch.Tensor:
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
    steepness = dict(zip(zeros, gradient, strict=True))
    if known is None:
        return penalty.critical_alpha(field, steepness)
    opened = known.mask(field, {name: torch.ones_like(value) for name, value in steepness.items()})
    steepness = {name: value * opened[name] for name, value in steepness.items()}
    return penalty.critical_alpha(field, steepness, prices=known.prices)
