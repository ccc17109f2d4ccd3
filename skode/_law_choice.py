"""Polynomial laws in place of networks, where windows that are held out follow them as well."""

from __future__ import annotations

from functools import cache, partial
from typing import NamedTuple

import numpy as np
import torch

from skode._amounts import nothing_of
from skode._capacity import EVIDENCE
from skode._confidence import probability
from skode._dynamics import Dynamics
from skode._fit import SetUp, Specification, calm_model
from skode._fitted import Fitted
from skode._law_windows import nearer
from skode._laws import SPARSE, WORSE, Law, search_law, settled
from skode._predict import choose_step
from skode._prepared import Prepared
from skode._problem import forecasts, in_double
from skode._reach import HORIZON, Forecasts, forecast
from skode._scales import BOX, WIDER, near_box
from skode._train import StageReport, Trained
from skode._typing import FloatArray, Weights
from skode.fields import AbstractField, PolynomialField, hold
from skode.objectives import Windows

FEW = 2
"""Terms per equation, on average, up to which a law is one whatever their share: one variable has few to offer."""
CUBIC = 1.0
"""Standard errors that are asked of laws with products of three. Those that are there (van der Pol, FitzHugh-Nagumo,
Rabinovich-Fabrikant, the Brusselator) had 1.4 to 4.8, a curve of straight pieces (Chua) -.5."""
WORST = 1.25
"""Errors of a law's forecasts of the training data, in those of the networks, from which on it goes astray. Where noise
throws starts out of a basin that is small, those of true laws were 1.0 to 1.1 times as large; of one that was broken by
the last fit 2.3 times."""
FEWEST_MIXED = 40
"""Windows from unseen starts."""
WINDOWS = 2
"""Windows that are one piece of evidence: ten intervals of well sampled paths, as everywhere."""


def law_instead(setup: SetUp, networks: Trained, spec: Specification) -> Law | None:
    """The sparse polynomial law of the data, if windows that are held out follow it as well as the networks.

    Forecasts from observed starts cannot tell: their errors are those of the starts. What is compared is how far
    windows are from any solution, from the start that suits them best. Where both are level, within a standard error,
    the law is taken, which says the same with a hundredth of the parameters. With products of three it must be better
    by one, since these also follow what saturates, as far as there are data and no further; and if more than half of
    all terms on offer take part, it is no law but an expansion, and must be clearly better.

    Parameters
    ----------
    setup : SetUp
    networks : Trained
        After the last stage.
    spec : Specification

    Returns
    -------
    Law or None
    """
    problem = setup.problem
    law = search_law(setup, networks.field, networks.weights, spec)
    if law is None or problem.held_windows is None:
        return None
    if spec.rules is not None and bool((spec.rules.required & ~law.support()).any()):
        return None
    theirs = networks.field, {name: value.double() for name, value in networks.weights.items()}
    held = in_double(problem.held_windows)
    if nearer((law.field, law.weights), theirs, held, law.shooting.sd, setup) < _asked(law):
        return None
    law = settled(law, setup, spec)
    if _astray(law, networks, setup):
        return None
    spec.report(_report(law).line("law"))
    return law


def _asked(law: Law) -> float:
    """Standard errors by which held-out windows must be nearer to a law than to networks."""
    n_targets = int(law.fit.coefficients.ne(0).any(dim=1).sum())
    if law.degree > 1 and law.share > SPARSE and law.n_terms > FEW * n_targets:
        return EVIDENCE
    return CUBIC if law.degree > 2 else WORSE


def _astray(law: Law, networks: Trained, setup: SetUp) -> bool:
    """Whether forecasts of the training data leave their range, and err more than those of the networks for that.

    That they leave it is no fault by itself: noise in a start may throw a state to where the true law leads away too.
    A law with products of three must not leave it more often than networks from unseen starts either, every state of
    which is that of another observation: phase oscillators, whose sines they follow, were lost between the data.
    """
    prepared, problem = setup.prepared, setup.problem
    windows = forecasts(prepared, HORIZON, problem.knots.double())
    own = _Forecaster.of(law, setup)
    seen, theirs = own(windows), cache(partial(_Forecaster.of, networks, setup))
    if seen.strays > 0 and seen.error > WORST * theirs()(windows).error:
        return True
    unseen = _mixed(windows, problem.knots[0])
    strays = own(unseen).strays if law.degree > 2 else 0
    return strays > 0 and strays > theirs()(unseen).strays


class _Forecaster(NamedTuple):
    """A field as predictions use it."""

    dynamics: Dynamics
    weights: Weights
    step: float
    prepared: Prepared

    @classmethod
    def of(cls, one: Law | Trained, setup: SetUp) -> _Forecaster:
        """Of a law or of networks."""
        dynamics = Dynamics(_held(one.field, setup.prepared), setup.prepared.scales, time_dependent=False)
        weights = {name: value.double() for name, value in one.weights.items()}
        return cls(dynamics, weights, choose_step(dynamics, weights, setup.problem), setup.prepared)

    def __call__(self, windows: Windows) -> Forecasts:
        """Forecasts of windows; solutions may leave the data and come back."""
        return forecast(self.dynamics, self.weights, windows, self.prepared, self.step, back=True)


def _mixed(windows: Windows, knots: torch.Tensor) -> Windows:
    """Some tens of windows, each from a start whose states are those of different observations (knot, source)."""
    draw, (n, d) = np.random.default_rng(0), windows.start.shape
    index = torch.arange(max(n, FEWEST_MIXED), device=windows.start.device) % n
    place = torch.as_tensor(draw.integers(len(knots), size=(len(index), d)), device=windows.start.device)
    start = knots[place, torch.arange(d, device=place.device)].to(windows.start)
    return Windows(*(part[index] for part in windows))._replace(start=start)


def _held(field: AbstractField, prepared: Prepared) -> AbstractField:
    """Products of networks, and those of three, read sources near the data alone; other laws are believed beyond.

    Cycles of Lotka and Volterra go as far as they start. What is never below zero but for noise is read from zero on:
    noise puts the start of what is rare below it, where an infection that feeds on itself would grow the wrong way.
    """
    if not isinstance(field, PolynomialField):
        return hold(field, *near_box(prepared.scales, field.n_sources))
    low, high = near_box(prepared.scales, field.n_sources, WIDER if field.degree > 2 else BOX)
    none = nothing_of(prepared)
    low[: len(none)] = np.maximum(low[: len(none)], none)
    return hold(field, low, high)


def law_confidence(law: Law) -> FloatArray:
    """How sure the edges of a law are: drop the terms of each in turn, and fit the others to all data but some.

    confidence_ij = P(T > -mean(rise) / se(rise)),    rise = held-out loss without j -> i, less that with it

    over pieces of two windows, of those that the law was fitted to, each of which is left out in turn (see
    ``edge_confidence``), with the sum of squares as the quadratic function that it is about the law.

    Returns
    -------
    array (target, source)
        In [0, 1]; 0 where there is no edge.

    References
    ----------
    "Distribution-Free Predictive Inference for Regression", 2018, doi 10.1080/01621459.2017.1307116, section 6
    (leave-one-covariate-out).
    """
    shooting, columns = law.shooting.apart(WINDOWS), law.fit.coefficients.nonzero()
    linear = shooting.linearised(law.field, law.fit, columns, apart=True)
    told = linear.gram.diagonal(dim1=1, dim2=2).sum(1) > 0  # pieces that are not lost
    gram, right, rest = linear.gram[told], linear.right[told], linear.rest[told]
    members = law.field.members.to(columns.device)[columns[:, 1]] > 0  # (column, source)
    here = law.fit.coefficients[columns[:, 0], columns[:, 1]]

    def left_out(dropped: torch.Tensor) -> torch.Tensor:
        """Loss of every piece by a law without some columns that is fitted to the other pieces.  # (piece,)"""
        step = torch.zeros_like(right)
        step[:, dropped] = -here[dropped]
        others, kept = gram.sum(0) - gram, ~dropped
        toward = right.sum(0) - right - (others @ step.unsqueeze(-1)).squeeze(-1)
        bend = others[:, kept][:, :, kept]
        bend = bend + torch.diag_embed(1e-9 * bend.diagonal(dim1=1, dim2=2) + 1e-12)
        step[:, kept] = torch.linalg.solve(bend, toward[:, kept])
        return rest - 2.0 * (right * step).sum(-1) + (step * (gram @ step.unsqueeze(-1)).squeeze(-1)).sum(-1)

    opened = law.support()
    edges = np.argwhere(opened)
    whole = left_out(torch.zeros_like(columns[:, 0], dtype=torch.bool))
    rises = [left_out((columns[:, 0] == int(target)) & members[:, int(source)]) - whole for target, source in edges]
    out = np.zeros(opened.shape)
    if rises:
        out[opened] = probability(torch.stack(rises, dim=-1).cpu().numpy())
    return out


def fitted_law(law: Law, setup: SetUp, spec: Specification, *, pilot: torch.Tensor, alpha_max: torch.Tensor) -> Fitted:
    """The model of a law.

    Parameters
    ----------
    law : Law
    setup : SetUp
    spec : Specification
    pilot : tensor  # (1, target, variable)
        Ranking of edges, to which the dependencies of the law are added.
    alpha_max : tensor  # (1,)
    """
    field = _held(law.field, setup.prepared)
    trained = Trained(field, law.weights, law.weights, pilot, {"law": _report(law)}, alpha_max)
    return calm_model(trained, setup.prepared, setup.problem, spec)


def _report(law: Law) -> StageReport:
    """What the search did, as a stage."""
    return StageReport(
        loss=np.array([[law.fit.squares / max(law.shooting.n_data, 1)]]),
        n_edges=np.array([float(law.support().sum())]),
        converged=np.ones(1, dtype=bool),
        failed=np.zeros(1, dtype=bool),
        n_iter=law.n_iter,
        seconds=law.seconds,
    )
