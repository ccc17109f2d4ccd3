"""Training for hundreds to thousands of variables: select by convex problems, then refit small networks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import scipy.sparse
import torch

from skode._amounts import amounts_of, are_amounts
from skode._bridge import bridge_nodes
from skode._dynamics import Dynamics
from skode._memory import release
from skode._prepared import Course, Prepared
from skode._problem import Problem, every_row
from skode._readers import Readers, choose_readers
from skode._reading_search import search_further
from skode._rematch import rematch
from skode._screen import Screen, screen
from skode._train import StageReport, Trained
from skode._typing import BoolArray, FloatArray
from skode.fields import PackedField


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
    n_iter: int  # steps of least squares from a drawn start; half of them from a fit to nearly the same rows
    tol: float  # loss of the zero model that a last step may gain for the fit to count as converged
    seed: int
    further: bool  # whether sources are searched once more through curves
    device: torch.device
    report: Callable[[str], None]


class Chosen(NamedTuple):
    """What is kept of a screening: its rows, the largest part of it, are not."""

    support: BoolArray  # (d, source)
    alphas: FloatArray  # (d,) strength at which the support stands
    levels: list[scipy.sparse.csr_array]  # (d, source) at every strength of the path
    evidence: FloatArray | None  # (d, source)
    n_selected: int  # edges before they were searched once more


class Additive(NamedTuple):
    """A trained field, and the rows that it was trained on."""

    trained: Trained
    prepared: Prepared
    problem: Problem
    chosen: Chosen


def train_additive(prepared: Prepared, request: Request, build: Callable[[Prepared], Problem]) -> Additive:
    """Select the sources of every target as for a linear field, then let held-out windows decide what reads them.

    1. *select*: bridged rows, denoised where noise is found, and the adaptive lasso (see ``screen``).
    2. *refit*: on the support, by least squares, rates of decay of one's own or shared, lines, networks or curves, as
       held-out windows are forecast better (see ``_readers``). Sources may be searched once more through curves
       (see ``search_further``). Then once more on all rows.
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
        trust=_trust(prepared),
    )
    prepared = _with_rows(prepared, found)
    release()
    problem = build(prepared)
    field = _field(prepared, found, request)
    n_edges = float(found.support.sum())
    history["select"] = _report(found.residual, n_edges, 1, began)
    request.report(history["select"].line("select"))
    began = time.perf_counter()
    decay = found.rate / np.where(prepared.scales.moving, prepared.scales.rate, np.inf)
    dynamics = Dynamics(field, prepared.scales, time_dependent=False)
    readers = Readers.draw(
        dynamics,
        problem,
        decay=decay,
        support=found.support,
        amounts=amounts_of(prepared) if are_amounts(prepared) else None,
        required=request.required,
        weight_decay=request.weight_decay,
        seed=request.seed,
        n_iter=request.n_iter,
    )
    reading, support, evidence = choose_readers(readers), found.support, found.evidence
    if request.further:
        further = search_further(reading, support, request.allowed, request.required)
        reading, support, evidence = (reading, support, evidence) if further is None else further
        n_edges = float(support.sum())
    field, dynamics = reading.kind.field, replace(dynamics, field=reading.kind.field)
    fitted = reading.go_on(every_row(prepared, problem.matching.double()), reading.fitted)
    history["refit"] = _report(fitted.loss[problem.moving], n_edges, fitted.n_iter, began, fitted.gain <= request.tol)
    request.report(history["refit"].line("refit"))
    release()
    if found.gamma is not None:
        began = time.perf_counter()
        nodes_at = np.concatenate([bridge_nodes(t, found.quadrature.shape[1]) for t in times])
        prepared = rematch(prepared, observed, found.path, nodes_at, found.gamma, dynamics, fitted.weights)
        fitted = reading.go_on(every_row(prepared, problem.matching.double()), fitted)
        loss = fitted.loss[problem.moving]
        history["rematch"] = _report(loss, n_edges, fitted.n_iter, began, fitted.gain <= request.tol)
        request.report(history["rematch"].line("rematch"))
    pilot = torch.as_tensor(found.scores, device=request.device).unsqueeze(0)
    alpha_max = torch.as_tensor([found.alpha_max])
    trained = Trained(field, fitted.weights, fitted.weights, pilot, history, alpha_max)
    return Additive(
        trained, prepared, problem, Chosen(support, found.alphas, found.levels, evidence, int(found.support.sum()))
    )


def _observed(course: Course) -> FloatArray:
    """Observations, the state that the user gave at elapsed time 0 among them.  # (knot, d)"""
    out = course.observed.copy()
    here, given = out[course.given], course.start[: out.shape[1]]
    out[course.given] = np.where(np.isnan(here), given, here)
    return out


def _trust(prepared: Prepared) -> FloatArray | None:
    """Mean observation weight of the ends of every interval, in units of the mean; None where all are alike."""
    ends = []
    for course in prepared.courses:
        weight = course.weights.max(axis=1)
        weight = np.where(weight > 0, weight, weight[weight > 0].mean() if weight.any() else 1.0)
        ends.append(0.5 * (weight[:-1] + weight[1:]))
    found = np.concatenate(ends)
    return None if np.ptp(found) < 1e-9 * found.mean() else found / found.mean()


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
        nodes=np.concatenate([found.nodes, rest]) if len(rest) else found.nodes,
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
