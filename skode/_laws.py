"""Polynomial laws, found through the solver: all monomials at once, then the few that explain the data."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from skode._capacity import can_decide
from skode._dynamics import Dynamics, tensor
from skode._fit import WINDOW, SetUp, Specification, starts_of
from skode._law_terms import Candidates, Teacher, candidates_of, distilled, matched
from skode._law_windows import (
    FINEST,
    LEAST_NOISE,
    MOST_SOLVED,
    as_many_as_pay,
    evenly,
    n_steps_for,
    nearer,
    shooting_of,
    thinned,
)
from skode._problem import forecasts, in_double
from skode._shooting import LOST, Fit, Shooting
from skode._term_search import TermSearch, criterion
from skode._typing import BoolArray, Weights
from skode.fields import AbstractField, PolynomialField

DEGREES = (1, 2, 3)
"""Degrees of laws on offer."""
MARGIN = 10.0
"""By how much products of more factors must lower the criterion: a chance of one in some hundred and fifty."""
SPARSE = 0.5
"""Share of the terms on offer up to which a law is one. Laws that are there have .1 to .4 of them (chaotic, ecological
and chemical systems), expansions of sines and exponentials .6 to .8."""
MOST_COLUMNS = 500
"""Coefficients of all monomials of all targets up to which they are fitted at once."""
MOST_WIDE, WIDE_DEGREE = 1500, 2
"""Coefficients among which terms are chosen once more, where networks read only some of the sources, and their degree.
Products of any three of six variables find what a few bad windows suggest (van der Pol, F1 .96 -> .79)."""
LOOSE, TIED, TIGHT = 1.0, 0.3, 0.1
"""Standard deviations of the jump from the end of a window to the start of the next, in those of the noise: while all
monomials are fitted, while terms are chosen, and at the end. Tight from the start, solutions that diverge are caught
where they are; never tight, windows forget what came before them."""
DATA_PER_COLUMN = 3
"""Observations that there must be for each of them."""
WORSE = -1.0
"""Standard errors by which windows may be farther from a law than from the field from which it begins."""
ROUNDS = 5
"""Most times that terms are chosen and fitted."""
TRIES = 3
"""How often windows are looked through for those that solutions do not follow."""


class Law(NamedTuple):
    """A polynomial law, fitted."""

    field: PolynomialField
    weights: Weights  # (1, ...), float64
    shooting: Shooting
    fit: Fit
    criterion: float  # per observation
    n_offered: int  # terms that were on offer, prior knowledge apart
    n_iter: int
    seconds: float

    @property
    def n_terms(self) -> int:
        """Terms of all targets."""
        return int((self.fit.coefficients != 0).sum())

    @property
    def degree(self) -> int:
        """Most factors of any term."""
        return self.field.degree

    @property
    def share(self) -> float:
        """Of the terms on offer, those that it has."""
        return self.n_terms / self.n_offered

    def support(self) -> BoolArray:
        """Which sources every target reads.  # (target, source)"""
        return (self.field.paths(self.weights)[0] > 0).cpu().numpy()


def search_law(setup: SetUp, field: AbstractField, weights: Weights, spec: Specification) -> Law | None:
    """The sparse law of least criterion; None where data do not suffice, or no law follows them.

    1. All monomials of the sources that a target may read are fitted to the field that is there, at the data, and
       then to the observations, through the solver. The field has forgotten most of the noise and of what smoothing
       bends; a law that begins near it has not far to go.
    2. The sum of squares about this law, starts eliminated, is a quadratic function of all coefficients: terms are
       chosen by the extended BIC among observations, whose errors are independent (see ``TermSearch``).
    3. What was chosen is fitted, and terms are chosen again about it, until they stay; at last among those of all
       sources, since networks may have missed some.

    So first with single sources. If products of two lower the criterion about what is found, it is done once more with
    these, and so with three. Windows that are held out take no part in fits, but in the choice of the degree; the field
    that is imitated may have been stopped by them.

    Parameters
    ----------
    setup : SetUp
    field : AbstractField
        Fitted to the same data.
    weights : dict of tensors  # (1, ...)
    spec : Specification

    Returns
    -------
    Law or None
    """
    prepared, dynamics, problem = setup
    if not (can_decide(problem) and len(problem.moving)) or prepared.scales.order > 1 or dynamics.time_dependent:
        return None
    began = time.perf_counter()
    weights = {name: value.double() for name, value in weights.items()}
    shooting = shooting_of(setup, Dynamics(field, prepared.scales, time_dependent=False), weights)
    opened = (field.paths(weights)[0] > 0).cpu().numpy()
    most, best = min(MOST_COLUMNS, shooting.n_data // DATA_PER_COLUMN), None
    for degree in DEGREES:
        if best is not None and best.share <= SPARSE:
            opened = opened | best.support()
        candidates = candidates_of(opened, degree, setup, spec, most)
        if candidates is None or (best is not None and _suffices(best, candidates)):
            break
        law = _law(setup, shooting, candidates, Teacher(field, weights))
        if law is None:
            continue
        every = candidates_of(np.ones_like(opened), degree, setup, spec, MOST_WIDE) if degree <= WIDE_DEGREE else None
        if every is not None and len(every.columns) > len(candidates.columns) and law.share <= SPARSE:
            law = _wider(law, every)
        lower = best is None or law.criterion < best.criterion - MARGIN / shooting.n_data
        best = law if lower and (best is None or _as_near(law, best, setup)) else best
    return None if best is None else best._replace(seconds=time.perf_counter() - began)


def settled(law: Law, setup: SetUp, spec: Specification) -> Law:
    """The same terms, fitted to the windows of all data, as many as are read."""
    every = forecasts(setup.prepared, WINDOW, law.fit.start, starts_of(spec))
    shooting = thinned(replace(law.shooting, tie=LOOSE).along(every))
    shooting, fit = _followed(law.field, shooting, Fit(law.fit.coefficients, shooting.windows.start))
    shooting = replace(shooting, tie=TIGHT)
    fit = shooting.fit(law.field, fit)
    return law._replace(shooting=shooting, fit=fit, weights={"C": fit.coefficients.unsqueeze(0)})


def _law(setup: SetUp, shooting: Shooting, candidates: Candidates, teacher: Teacher) -> Law | None:
    """Fit all candidates, choose among them, and fit those.

    None where these monomials follow the data less well than the teacher or lose too many windows. Products that the
    teacher's slopes do not suit, or that solutions are lost with from there, begin once more at the slopes of the
    smoothed paths: networks may be what is wrong.
    """
    shooting = as_many_as_pay(replace(shooting, tie=LOOSE), len(candidates.columns))
    begin = distilled(candidates, teacher, setup.problem.knots.double())
    full = None if begin is None else _full(setup, shooting, candidates, teacher, begin)
    if candidates.field.degree > 1 and (full is None or full.lost or full.score < 0.0):
        again = _full(setup, shooting, candidates, teacher, matched(candidates, setup.problem.rows))
        full = max([again] if full is None else [full, again], key=lambda one: (not one.lost, one.score))
    if full is None or full.lost or full.score < WORSE:
        return None
    shooting, fit, best = full.shooting, full.fit, None
    for round_ in range(1, ROUNDS + 1):
        now = _choose(candidates, shooting, fit, first=round_ == 1)
        if now is None or (best is not None and now.criterion >= best.criterion - 1e-9):
            break
        best, fit, before = now, now.fit, fit
        if bool(((fit.coefficients != 0) == (before.coefficients != 0)).all()):
            break
    return None if best is None else _as_law(candidates, shooting, best, candidates.n_offered, round_)


class Full(NamedTuple):
    """All monomials, fitted."""

    shooting: Shooting  # in which their noise is that of the observations
    fit: Fit
    score: float  # standard errors by which windows are nearer to them than to the teacher

    @property
    def lost(self) -> bool:
        """Whether they are beside more data than they follow."""
        return self.shooting.n_lost > self.shooting.n_data


def _full(setup: SetUp, shooting: Shooting, candidates: Candidates, teacher: Teacher, begin: torch.Tensor) -> Full:
    """Fit all candidates from given coefficients."""
    field = candidates.field
    shooting, fit = _followed(field, shooting, Fit(begin, shooting.windows.start))
    shooting = shooting.reweighted(field, fit, LEAST_NOISE)
    law, weights = Dynamics(field, setup.prepared.scales, time_dependent=False), {"C": fit.coefficients.unsqueeze(0)}
    n_steps = n_steps_for(law, weights, shooting.windows.select(shooting.used), shooting.sd, setup)
    score = nearer((field, weights), teacher, evenly(shooting.windows, MOST_SOLVED), shooting.sd, setup)
    return Full(replace(shooting, tie=TIED, n_steps=n_steps), fit, score)


def _as_law(candidates: Candidates, shooting: Shooting, chosen: Chosen, n_offered: int, n_iter: int) -> Law:
    """What was chosen, without the terms that no target has."""
    coefficients = chosen.fit.coefficients
    used = coefficients.ne(0.0).any(dim=0)
    fit = chosen.fit._replace(coefficients=coefficients[:, used])
    field, weights = candidates.field.only(used), {"C": fit.coefficients.unsqueeze(0)}
    return Law(field, weights, shooting, fit, chosen.criterion, n_offered, n_iter, 0.0)


def _as_near(law: Law, than: Law, setup: SetUp) -> bool:
    """Whether windows that are held out are no farther from a law than from another."""
    assert setup.problem.held_windows is not None
    held = in_double(setup.problem.held_windows)
    return nearer((law.field, law.weights), (than.field, than.weights), held, law.shooting.sd, setup) >= 0.0


def _wider(law: Law, candidates: Candidates) -> Law:
    """Choose once more among terms of all sources, about a law that was chosen among those of some."""
    begin = law.fit._replace(coefficients=_spread(law, candidates))
    before = best = _judged(candidates, law.shooting, begin)
    rounds = 0
    for _ in range(ROUNDS):
        now = _choose(candidates, law.shooting, best.fit, first=False)
        if now is None or now.criterion >= best.criterion - MARGIN / law.shooting.n_data:
            break
        best, rounds = now, rounds + 1
    if best is before:
        return law
    found = _as_law(candidates, law.shooting, best, law.n_offered, law.n_iter + rounds)
    return found._replace(criterion=law.criterion + best.criterion - before.criterion)


class Chosen(NamedTuple):
    """Terms that were chosen, fitted."""

    fit: Fit
    criterion: float  # per observation


def _choose(candidates: Candidates, shooting: Shooting, fit: Fit, *, first: bool) -> Chosen | None:
    """Choose terms about a law, and fit them; None where it is lost."""
    columns, field = candidates.columns, candidates.field
    search = _about(candidates, shooting, fit)
    if search is None:
        return None
    here = None if first else fit.coefficients[columns[:, 0], columns[:, 1]].nonzero()[:, 0].tolist()
    terms = search.run(here)
    if terms == here:  # nothing to fit that is not fitted
        return _judged(candidates, shooting, fit)
    coefficients, which = torch.zeros_like(fit.coefficients), columns[terms]
    coefficients[which[:, 0], which[:, 1]] = tensor(search.coefficients(terms), coefficients)
    used = coefficients.ne(0.0).any(dim=0)
    few, some = field.only(used), Fit(coefficients[:, used], fit.start)
    some = shooting.fit(few, shooting.fit(few, some, moves=False))
    if not np.isfinite(some.squares):
        return None
    coefficients[:, used] = some.coefficients
    return _judged(candidates, shooting, some._replace(coefficients=coefficients))


def _judged(candidates: Candidates, shooting: Shooting, fit: Fit) -> Chosen:
    """The criterion of a fit; observations of windows that are lost miss as much as would have them lost."""
    n_data, n_lost, size = shooting.n_data, shooting.n_lost, int((fit.coefficients != 0).sum())
    every, used = n_data + n_lost, fit.coefficients.ne(0.0).any(dim=0)
    few = fit._replace(coefficients=fit.coefficients[:, used])
    missed = shooting.mean_log_square(candidates.field.only(used), few, FINEST) + np.log(
        (n_data + LOST * n_lost) / every
    )
    return Chosen(fit, missed + criterion(1.0, size, len(candidates.columns), every) / every)


def _about(candidates: Candidates, shooting: Shooting, fit: Fit) -> TermSearch | None:
    """What every candidate explains about a law; None where its solutions are lost."""
    columns = candidates.columns
    linear = shooting.linearised(candidates.field, fit, columns)
    gram, right = linear.gram[0].cpu().numpy(), linear.right[0].cpu().numpy()
    here = fit.coefficients[columns[:, 0], columns[:, 1]].cpu().numpy()
    total = float(linear.rest[0]) + 2.0 * right @ here + here @ gram @ here
    if not (np.isfinite(total) and np.isfinite(gram).all()):
        return None
    return TermSearch(gram, right + gram @ here, total, shooting.n_data)


def _suffices(law: Law, candidates: Candidates) -> bool:
    """Whether products of more factors would not lower the criterion about a law."""
    if not set(law.field.terms) <= set(candidates.field.terms):
        return False
    coefficients = _spread(law, candidates)
    search = _about(candidates, law.shooting, law.fit._replace(coefficients=coefficients))
    if search is None:
        return False
    columns = candidates.columns
    here = coefficients[columns[:, 0], columns[:, 1]].nonzero()[:, 0].tolist()
    return search.value(search.run(here)) > search.value(here) - MARGIN


def _spread(law: Law, candidates: Candidates) -> torch.Tensor:
    """The coefficients of a law among those of all candidates, which hold its terms.  # (target, term)"""
    place = {term: k for k, term in enumerate(candidates.field.terms)}
    out = law.fit.coefficients.new_zeros(len(law.fit.coefficients), len(place))
    out[:, [place[term] for term in law.field.terms]] = law.fit.coefficients
    return out


def _followed(field: PolynomialField, shooting: Shooting, fit: Fit) -> tuple[Shooting, Fit]:
    """Fit a law, without the windows that its solutions do not follow."""
    fit = shooting.fit(field, fit, moves=False)
    for _ in range(TRIES):
        before, shooting = shooting.used, shooting.without_lost(field, fit)
        fit = shooting.fit(field, fit)
        if bool((before == shooting.used).all()):
            break
    return shooting, fit
