"""Training for hundreds to thousands of variables: select by convex problems, then refit small networks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from skode._bridge import bridge_nodes
from skode._capacity import EVIDENCE, FEWEST, N_BILINEAR
from skode._dynamics import Dynamics
from skode._prepare import Course, Prepared
from skode._problem import Problem, every_row
from skode._refit import Refit, refit
from skode._rematch import rematch
from skode._screen import Screen, screen
from skode._train import StageReport, Trained
from skode._typing import BoolArray, FloatArray
from skode.fields import PackedField
from skode.objectives import matching_errors

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
    widen: bool
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
    2. *refit*: on the support, linear, a network, and a network with bilinear units, by least squares; the simplest
       that no other beats by more than two standard errors on held-out rows, then once more on all rows.
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
    field, fitted = _choose(field, prepared, problem, found, request)
    history["refit"] = _report(fitted.loss, found.support.sum(), fitted.n_iter, began, fitted.converged)
    if found.gamma is not None:
        began = time.perf_counter()
        dynamics = Dynamics(field, prepared.scales, time_dependent=False)
        nodes_at = np.concatenate([bridge_nodes(t, found.quadrature.shape[1]) for t in times])
        for _ in range(N_REMATCH):
            prepared = rematch(prepared, observed, found.path, nodes_at, found.gamma, dynamics, fitted.weights)
            rows = every_row(prepared, fitted.weights["K"])
            fitted = refit(
                field, rows, fitted.weights, scale=problem.matching.double(), weight_decay=request.weight_decay
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
    n_bilinear = N_BILINEAR if request.widen else request.n_bilinear
    return PackedField(
        d,
        n_sources,
        request.hidden,
        request.activation,
        tuple(range(n_sources)),
        parents=parents,
        n_bilinear=n_bilinear,
    )


def _choose(
    field: PackedField, prepared: Prepared, problem: Problem, found: Screen, request: Request
) -> tuple[PackedField, Refit]:
    """Fit from simple to rich, keep the richer only on evidence, and fit the chosen one to all rows."""
    rows, held, scale = problem.rows, problem.held_rows, problem.matching.double()
    drawn = field.init(
        torch.Generator().manual_seed(request.seed), n_models=1, dtype=torch.float64, device=rows.slopes.device
    )
    offset, bilinear = f"b{len(field.hidden)}", ("P", "R") if field.n_bilinear else ()
    curved = tuple(name for name in drawn if name not in bilinear)
    kinds = [("K", offset), curved] if request.widen or not bilinear else [tuple(drawn)]
    if request.widen:
        kinds.append(tuple(drawn))
    best: Refit | None = None
    errors: torch.Tensor | None = None
    chosen = kinds[0]
    for free in kinds if held is not None and len(held.slopes) >= FEWEST else kinds[:1]:
        start = {name: value if name in free else torch.zeros_like(value) for name, value in drawn.items()}
        fitted = refit(field, rows, start, scale=scale, weight_decay=request.weight_decay, free=free)
        if held is None:
            best = fitted
            continue
        with torch.no_grad():
            wrong = matching_errors(
                field, fitted.weights, held._replace(**{n: v.double() for n, v in held._asdict().items()})
            )
        now = (wrong[0][:, problem.moving] / scale[problem.moving]).sum(-1)  # (row,)
        if errors is not None:
            gain = errors - now
            if not bool(gain.mean() > EVIDENCE * gain.std() / len(gain) ** 0.5):
                continue
        best, errors, chosen = fitted, now, free
    assert best is not None
    if not set(bilinear) <= set(chosen):
        field = replace(field, n_bilinear=0)
    start = {name: value for name, value in best.weights.items() if name not in bilinear or field.n_bilinear}
    every = every_row(prepared, start["K"])
    return field, refit(field, every, start, scale=scale, weight_decay=request.weight_decay, free=chosen)


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
