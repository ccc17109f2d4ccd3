"""Training for hundreds to thousands of variables: select by convex problems, then refit small networks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from skode._bridge import bridge_nodes
from skode._capacity import EVIDENCE, FEWEST
from skode._dynamics import Dynamics
from skode._prepare import Course, Prepared
from skode._problem import Problem, every_row
from skode._refit import Refit, refit
from skode._rematch import rematch
from skode._screen import Screen, screen
from skode._train import StageReport, Trained
from skode._typing import BoolArray, FloatArray
from skode.fields import PackedField
from skode.objectives import Rows, matching_errors

DECAYS = (1.0, 0.01)
"""Weight decay of networks on offer, in units of the estimator's: data that are nearly clean want hardly any."""
N_REMATCH = 2
"""How often rows are taken anew along the fitted field's own path; the second time changes little."""


@dataclass(frozen=True)
class Request:
    """What to train."""

    alphas: FloatArray  # (level,) falling, for the path of the selection
    alpha: float | None  # the strength at which supports are taken; None is the extended BIC
    allowed: BoolArray | None  # (target, source)
    required: BoolArray | None  # (target, source)
    hidden: tuple[int, ...]
    activation: str
    n_bilinear: int
    weight_decay: float
    seed: int
    device: torch.device
    report: Callable[[str], None]


class Additive(NamedTuple):
    """A trained field, and the rows that it was trained on."""

    trained: Trained
    prepared: Prepared
    problem: Problem
    screened: Screen


def train_additive(prepared: Prepared, request: Request, build: Callable[[Prepared], Problem]) -> Additive:
    """Select the sources of every target as for a linear field, then let held-out rows decide what reads them.

    1. *select*: bridged rows, denoised where noise is found, and the adaptive lasso (see ``screen``).
    2. *refit*: on the support, linear and networks under more and less weight decay, by least squares; a richer one
       only if it is better on held-out rows by more than two standard errors; then once more on all rows.
    3. *rematch*: rows along the path that the fitted field takes, and a refit from where it was.

    Parameters
    ----------
    prepared : Prepared
    request : Request
    build : callable
        Prepared data to a problem.

    Returns
    -------
    Additive
    """
    history: dict[str, StageReport] = {}
    began = time.perf_counter()
    times, observed = [course.times for course in prepared.courses], [_observed(course) for course in prepared.courses]
    found = screen(
        times,
        observed,
        moves=prepared.scales.moving,
        inputs=prepared.inputs,
        groups=prepared.groups,
        alphas=request.alphas,
        alpha=request.alpha,
        allowed=request.allowed,
    )
    prepared = _with_rows(prepared, found)
    problem = build(prepared)
    field = _field(prepared, found, request)
    history["select"] = _report(found.residual, found.support.sum(), 1, began)
    began = time.perf_counter()
    chosen, fitted = _choose(field, prepared, problem, request)
    history["refit"] = _report(fitted.loss, found.support.sum(), fitted.n_iter, began, fitted.converged)
    if found.gamma is not None:
        began = time.perf_counter()
        dynamics = Dynamics(field, prepared.scales, time_dependent=False)
        nodes_at = np.concatenate([bridge_nodes(t, found.quadrature.shape[1]) for t in times])
        for _ in range(N_REMATCH):
            prepared = rematch(prepared, observed, found.path, nodes_at, found.gamma, dynamics, fitted.weights)
            rows = every_row(prepared, fitted.weights["K"])
            fitted = refit(
                field,
                rows,
                fitted.weights,
                scale=problem.matching.double(),
                weight_decay=chosen.weight_decay,
                free=chosen.free,
            )
        history["rematch"] = _report(fitted.loss, found.support.sum(), fitted.n_iter, began, fitted.converged)
    for name, said in history.items():
        request.report(said.line(name))
    pilot = torch.as_tensor(found.scores, device=request.device).unsqueeze(0)
    alpha_max = torch.as_tensor([found.alpha_max])
    trained = Trained(field, fitted.weights, fitted.weights, pilot, history, alpha_max)
    return Additive(trained, prepared, problem, found)


def _observed(course: Course) -> FloatArray:
    """Observations, the state that the user gave at elapsed time 0 among them.  # (knot, d)"""
    out = course.observed.copy()
    here, given = out[course.given], course.start[: out.shape[1]]
    out[course.given] = np.where(np.isnan(here), given, here)
    return out


def _with_rows(prepared: Prepared, found: Screen) -> Prepared:
    """Interval rows of the selection; steady states keep theirs, padded to as many nodes."""
    n = len(found.slopes)
    rate = np.where(prepared.scales.moving, prepared.scales.rate, np.inf)
    more = found.nodes.shape[1] - prepared.nodes.shape[1]
    rest = np.concatenate([prepared.nodes[n:], np.repeat(prepared.nodes[n:, -1:], more, axis=1)], axis=1)
    quadrature = np.pad(prepared.quadrature[n:], ((0, 0), (0, more)))
    unit = prepared.slope_weights[:n].mean() / max(float(found.weights.mean()), 1e-300)
    weights = np.broadcast_to(found.weights.reshape(n, -1), found.slopes.shape) * unit
    return replace(
        prepared,
        nodes=np.concatenate([found.nodes, rest]),
        quadrature=np.concatenate([found.quadrature, quadrature]),
        slopes=np.concatenate([found.slopes / rate, prepared.slopes[n:]]),
        slope_weights=np.concatenate([weights, prepared.slope_weights[n:]]),
    )


def _field(prepared: Prepared, found: Screen, request: Request) -> PackedField:
    """A network per target on the sources that were selected, its own decay among them."""
    d, n_sources = found.support.shape
    support = found.support | (found.coefficients != 0)
    if request.required is not None:
        support = support | request.required
    support = support & prepared.scales.moving[:, None]
    parents = tuple(tuple(np.flatnonzero(row).tolist()) for row in support)
    return PackedField(
        d,
        n_sources,
        request.hidden,
        request.activation,
        tuple(range(n_sources)),
        parents=parents,
        n_bilinear=request.n_bilinear,
    )


class _Candidate(NamedTuple):
    """What may bend, and how strongly it is held."""

    free: tuple[str, ...]
    weight_decay: float


def _choose(field: PackedField, prepared: Prepared, problem: Problem, request: Request) -> tuple[_Candidate, Refit]:
    """Fit from simple to rich, keep the richer only on evidence, and fit what was chosen to all rows.

    The richer must lower the error of held-out rows, summed over targets, by more than two standard errors of the
    paired differences. One decision serves all targets, as in ``narrow``.
    """
    scale = problem.matching.double()
    drawn = field.init(
        torch.Generator().manual_seed(request.seed), n_models=1, dtype=torch.float64, device=scale.device
    )
    linear = ("K", f"b{len(field.hidden)}")
    simplest = _Candidate(linear, request.weight_decay)
    start = {name: value if name in linear else torch.zeros_like(value) for name, value in drawn.items()}
    best = refit(field, problem.rows, start, scale=scale, weight_decay=simplest.weight_decay, free=linear)
    chosen, rows = simplest, problem.held_rows
    if rows is not None and len(rows.slopes) >= FEWEST:
        held = Rows(*(part.double() for part in rows))
        errors = _held_errors(field, best, held, problem)
        now = {**drawn, **{name: best.weights[name] for name in linear}}
        for factor in DECAYS:
            rich = _Candidate(tuple(drawn), factor * request.weight_decay)
            fitted = refit(field, problem.rows, now, scale=scale, weight_decay=rich.weight_decay)
            now, found = fitted.weights, _held_errors(field, fitted, held, problem)
            gain = errors - found
            if bool(gain.mean() > EVIDENCE * gain.std() / len(gain) ** 0.5):
                best, chosen, errors = fitted, rich, found
    every = every_row(prepared, scale)
    return chosen, refit(field, every, best.weights, scale=scale, weight_decay=chosen.weight_decay, free=chosen.free)


def _held_errors(field: PackedField, fitted: Refit, held: Rows, problem: Problem) -> torch.Tensor:
    """Squared error of every held-out row, summed over targets.  # (row,)"""
    with torch.no_grad():
        errors = matching_errors(field, fitted.weights, held)[0]
    return (errors[:, problem.moving] / problem.matching[problem.moving]).sum(-1)


def _report(
    loss: torch.Tensor | FloatArray, n_edges: float, n_iter: int, began: float, done: bool = True
) -> StageReport:
    """What a stage did, for one model."""
    return StageReport(
        loss=np.full((1, 1), float(loss.sum())),
        n_edges=np.array([float(n_edges)]),
        converged=np.array([done]),
        failed=np.array([False]),
        n_iter=n_iter,
        seconds=time.perf_counter() - began,
    )
