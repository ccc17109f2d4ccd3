"""Polynomial laws, found through the solver: all monomials at once, then the few that explain the data."""

from __future__ import annotations

import time
from dataclasses import replace
from math import comb
from typing import NamedTuple

import numpy as np
import torch

from skode._best_starts import best_start_errors, z_score
from skode._capacity import can_decide, forecast_errors
from skode._dynamics import Dynamics, tensor
from skode._fit import WINDOW, SetUp, Specification, starts_of
from skode._problem import forecasts, in_double
from skode._shooting import LOST, Fit, Shooting
from skode._term_search import TermSearch
from skode._typing import BoolArray, Weights
from skode.fields import AbstractField, PolynomialField, monomials
from skode.integrate import double_step
from skode.objectives import Windows

DEGREES = (1, 2, 3)
"""Degrees of laws on offer."""
MARGIN = 10.0
"""By how much products of more factors must lower the criterion: a chance of one in some hundred and fifty."""
SPARSE = 0.5
"""Share of the terms on offer up to which a law is one. Laws that are there have .1 to .4 of them (chaotic, ecological
and chemical systems), expansions of sines and exponentials .6 to .8."""
FAR = 10.0
"""Standard deviations from zero from which on data know nothing of it: monomials are about their mean then."""
STILL = 1e-9
"""Standard deviation below which a source never varies."""
MOST_COLUMNS = 500
"""Coefficients of all monomials of all targets up to which they are fitted at once."""
LOOSE, TIED, TIGHT = 1.0, 0.3, 0.1
"""Standard deviations of the jump from the end of a window to the start of the next, in those of the noise: while all
monomials are fitted, while terms are chosen, and at the end. Tight from the start, solutions that diverge are caught
where they are; never tight, windows forget what came before them."""
DATA_PER_COLUMN = 3
"""Observations that there must be for each of them."""
MOST_WINDOWS, FEWEST_WINDOWS, MOST_WORK = 400, 60, 5e8
"""Windows that are read; of more, series are cut into runs and thinned evenly. Fewer, but not fewer than 60, where one
pass over derivatives by all coefficients would multiply more often than this: some seconds on one core."""
RUN = 8
"""Windows of such a run."""
LEAST_NOISE = 2e-3
"""Standard deviations of a state below which its noise is no more than errors of solver and smoother."""
STEP_SHARE, FINEST = 0.002, 2e-5
"""What the steps of a solve may leave, in standard deviations of the noise; and the least, in those of states."""
UNLIKE = 0.4
"""Share of a slope, in the root mean square, that monomials may miss of the field from which they begin."""
LARGEST_GRID = 16
"""Most steps per observation."""
MOST_SOLVED = 64
"""Windows on which the number of steps is chosen."""
RIDGE = 1e-5
"""Relative, where monomials are fitted to a field at the data."""
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
    error: float  # of forecasts of held-out windows
    share: float  # of the terms on offer without prior knowledge that it has
    n_iter: int
    seconds: float

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
    3. What was chosen is fitted, and terms are chosen again about it, until they stay.

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
    shooting = _shooting(setup, Dynamics(field, prepared.scales, time_dependent=False), weights)
    opened = (field.paths(weights)[0] > 0).cpu().numpy()
    most, best = min(MOST_COLUMNS, shooting.n_data // DATA_PER_COLUMN), None
    for degree in DEGREES:
        if best is not None and best.share <= SPARSE:
            opened = opened | best.support()
        candidates = _candidates(opened, degree, setup, spec, most)
        if candidates is None or (best is not None and _suffices(best, candidates)):
            break
        law = _law(setup, shooting, candidates, Teacher(field, weights))
        if law is None:
            continue
        lower = best is None or law.criterion < best.criterion - MARGIN / shooting.n_data
        best = law if lower and (best is None or law.error <= best.error) else best
    return None if best is None else best._replace(seconds=time.perf_counter() - began)


def settled(law: Law, setup: SetUp, spec: Specification) -> Law:
    """The same terms, fitted to the windows of all data, as many as are read."""
    every = forecasts(setup.prepared, WINDOW, law.fit.start, starts_of(spec))
    shooting = _thinned(every, law.shooting.rate, law.shooting.sd, law.shooting.n_steps)
    shooting, fit = _followed(law.field, shooting, Fit(law.fit.coefficients, shooting.windows.start))
    fit = replace(shooting, tie=TIGHT).fit(law.field, fit)
    return law._replace(shooting=shooting, fit=fit, weights={"C": fit.coefficients.unsqueeze(0)})


class Candidates(NamedTuple):
    """Monomials on offer, and which target may have which."""

    field: PolynomialField
    columns: torch.Tensor  # (column, 2), target and term
    n_offered: int  # terms that would be on offer without prior knowledge


def _candidates(opened: BoolArray, degree: int, setup: SetUp, spec: Specification, most: int) -> Candidates | None:
    """Monomials of all sources if these are few, else of those that a target reads already; None if they are many."""
    like, moving = setup.dynamics.field, setup.problem.moving.tolist()
    offered = np.ones_like(opened) & (setup.prepared.knot_sources.std(axis=0) > STILL)
    if comb(int(offered[0].sum()) + degree, degree) * len(moving) > most:
        offered &= opened | (np.eye(*opened.shape) > 0)
    n_offered = sum(comb(int(offered[target].sum()) + degree, degree) for target in moving)
    free = offered if spec.rules is None else offered & ~spec.rules.closed
    sources = {target: np.flatnonzero(free[target]).tolist() for target in moving}
    if sum(comb(len(some) + degree, degree) for some in sources.values()) > most:
        return None
    own = {
        target: [tuple(some[k] for k in term) for term in monomials(len(some), degree)]
        for target, some in sources.items()
    }
    terms = sorted({term for some in own.values() for term in some}, key=lambda term: (len(term), term))
    place = {term: k for k, term in enumerate(terms)}
    gain, shift = _units(setup)
    shape = like.n_targets, like.n_sources, (), like.activation, like.variable_of_source
    columns = [(target, place[term]) for target, some in own.items() for term in some]
    return Candidates(
        PolynomialField(*shape, terms=tuple(terms), gain=gain, shift=shift),
        torch.tensor(columns, device=setup.problem.knots.device),
        n_offered,
    )


class Teacher(NamedTuple):
    """A field that was fitted to the data."""

    field: AbstractField
    weights: Weights  # (1, ...), float64


def _law(setup: SetUp, shooting: Shooting, candidates: Candidates, teacher: Teacher) -> Law | None:
    """Fit all candidates, choose among them, and fit those.

    None where these monomials are far from the teacher, follow the data less well or lose too many windows.
    """
    field, scales = candidates.field, setup.prepared.scales
    begin = _distilled(candidates, teacher, setup.problem.knots.double())
    if begin is None:
        return None
    work = shooting.n_steps * field.n_targets**2 * len(candidates.columns)
    most = min(max(int(MOST_WORK / work), FEWEST_WINDOWS), MOST_WINDOWS)
    shooting = _thinned(shooting.windows, shooting.rate, shooting.sd, shooting.n_steps, most)
    shooting, fit = _followed(field, replace(shooting, tie=LOOSE), Fit(begin, shooting.windows.start))
    law, weights = Dynamics(field, scales, time_dependent=False), {"C": fit.coefficients.unsqueeze(0)}
    n_steps = max(shooting.n_steps, _grid(law, weights, shooting.windows.select(shooting.used), setup))
    shooting = replace(shooting, tie=TIED, n_steps=n_steps)
    some, other = _thinned_to(shooting.windows, MOST_SOLVED), Dynamics(teacher.field, scales, time_dependent=False)
    ours, theirs = (
        best_start_errors(one, of, some, shooting.sd, n_steps) for one, of in ((law, weights), (other, teacher.weights))
    )
    if shooting.n_lost > shooting.n_data or z_score(ours, theirs) < WORSE:
        return None
    best: Chosen | None = None
    for round_ in range(1, ROUNDS + 1):
        now = _choose(candidates, shooting, fit, first=round_ == 1)
        if now is None or (best is not None and now.criterion >= best.criterion - 1e-9):
            break
        best, fit, before = now, now.fit, fit
        if bool(((fit.coefficients != 0) == (before.coefficients != 0)).all()):
            break
    if best is None:
        return None
    used = fit.coefficients.ne(0.0).any(dim=0)
    fit = fit._replace(coefficients=fit.coefficients[:, used])
    field, weights = field.only(used), {"C": fit.coefficients.unsqueeze(0)}
    errors = forecast_errors(Dynamics(field, scales, time_dependent=False), weights, setup.problem)
    share = int((fit.coefficients != 0).sum()) / candidates.n_offered
    return Law(field, weights, shooting, fit, best.criterion, float(errors.mean()), share, round_, 0.0)


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
    here = fit.coefficients[columns[:, 0], columns[:, 1]].nonzero()[:, 0].tolist()
    terms = search.run(None if first else here)
    coefficients, which = torch.zeros_like(fit.coefficients), columns[terms]
    coefficients[which[:, 0], which[:, 1]] = tensor(search.coefficients(terms), coefficients)
    used = coefficients.ne(0.0).any(dim=0)
    few, some = field.only(used), Fit(coefficients[:, used], fit.start)
    some = shooting.fit(few, shooting.fit(few, some, moves=False))
    if not np.isfinite(some.squares):
        return None
    coefficients[:, used] = some.coefficients
    # Observations of windows that are lost miss as much as would have them lost.
    n_data, n_lost = shooting.n_data, shooting.n_lost
    squares = some.squares * (1.0 + LOST * n_lost / n_data)
    whole = TermSearch(search.gram, search.right, search.total, n_data + n_lost)
    return Chosen(some._replace(coefficients=coefficients), whole.criterion(squares, len(terms)) / whole.n_data)


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
    place = {term: k for k, term in enumerate(candidates.field.terms)}
    if not set(law.field.terms) <= set(place):
        return False
    coefficients = law.fit.coefficients.new_zeros(len(law.fit.coefficients), len(place))
    coefficients[:, [place[term] for term in law.field.terms]] = law.fit.coefficients
    search = _about(candidates, law.shooting, law.fit._replace(coefficients=coefficients))
    if search is None:
        return False
    columns = candidates.columns
    here = coefficients[columns[:, 0], columns[:, 1]].nonzero()[:, 0].tolist()
    return search.value(search.run(here)) > search.value(here) - MARGIN


def _followed(field: PolynomialField, shooting: Shooting, fit: Fit) -> tuple[Shooting, Fit]:
    """Fit a law, without the windows that its solutions do not follow."""
    fit = shooting.fit(field, fit, moves=False)
    for _ in range(TRIES):
        before, shooting = shooting.used, shooting.without_lost(field, fit)
        fit = shooting.fit(field, fit)
        if bool((before == shooting.used).all()):
            break
    return shooting, fit


def _distilled(candidates: Candidates, teacher: Teacher, knots: torch.Tensor) -> torch.Tensor | None:
    """Least squares of monomials to another field at the data, None where that leaves much of any slope.

    Returns
    -------
    tensor  # (target, term)
    """
    field, columns = candidates.field, candidates.columns
    with torch.no_grad():
        values, slopes = field.values(knots[0]), teacher.field.bind(teacher.weights).evaluate(knots).slopes[0]
    centre, level = values.mean(dim=0), slopes.mean(dim=0)
    unit = values - centre
    size = unit.square().sum(0).sqrt()
    bare = size <= STILL * values.square().sum(0).sqrt()  # the constant
    unit, size = torch.where(bare, 0.0, unit / size), torch.where(bare, 1.0, size)
    out = values.new_zeros(field.n_targets, len(field.terms))
    for target in sorted(set(columns[:, 0].tolist())):
        mine = columns[columns[:, 0] == target, 1]
        some = unit[:, mine]
        gram = some.mT @ some + RIDGE * torch.eye(len(mine), dtype=some.dtype, device=some.device)
        out[target, mine] = torch.linalg.solve(gram, some.mT @ (slopes[:, target] - level[target])) / size[mine]
        out[target, field.terms.index(())] = level[target] - out[target, mine] @ centre[mine]
        left = (slopes[:, target] - values @ out[target]).square().mean()
        if not bool(left <= UNLIKE**2 * slopes[:, target].square().mean()):
            return None
    return out


def _shooting(setup: SetUp, teacher: Dynamics, weights: Weights) -> Shooting:
    """The windows that training reads, and as many steps as they need."""
    problem = setup.problem
    like = problem.knots.double()
    sd = tensor(np.maximum(setup.prepared.noise, LEAST_NOISE), like)
    windows = in_double(problem.windows)
    n_steps = _grid(teacher, weights, windows, setup)
    return _thinned(windows, tensor(setup.prepared.scales.rate, like), sd, n_steps)


def _grid(dynamics: Dynamics, weights: Weights, windows: Windows, setup: SetUp) -> int:
    """Steps per window whose errors are small beside the noise, two per observation or more."""
    some = _thinned_to(windows, MOST_SOLVED)
    noise = np.maximum(setup.prepared.noise, LEAST_NOISE)[setup.prepared.scales.moving]
    n_intervals = max(1, -(-(windows.times.shape[1] - 1) // setup.problem.oversampling))
    found = double_step(
        dynamics.slope(weights, some.inputs, some.origin).value,
        some.start.unsqueeze(0),
        some.times,
        max(STEP_SHARE * float(noise.min()), FINEST),
        n_steps=2 * n_intervals,
        max_steps=LARGEST_GRID * n_intervals,
    )
    return max(found.n_steps, 2 * n_intervals)


def _thinned_to(windows: Windows, most: int) -> Windows:
    """No more than so many windows, taken evenly."""
    n = len(windows.start)
    return windows.select(torch.arange(n, device=windows.start.device) % -(-n // most) == 0)


def _thinned(windows: Windows, rate: torch.Tensor, sd: torch.Tensor, n_steps: int, most: int | None = None) -> Shooting:
    """Windows to fit, about ``MOST_WINDOWS`` or fewer: of more, every so many of all runs."""
    n, every = len(windows.start), Shooting.of(windows, rate, sd, n_steps)
    most = MOST_WINDOWS if most is None else most
    if n <= most:
        return every
    label, n_runs = torch.zeros_like(windows.after), 0
    for place in range(0, len(every.places), RUN):
        size = len(every.places[place])
        for here in every.places[place : place + RUN]:
            label[here] = torch.arange(len(here), device=label.device) + n_runs
        n_runs += size
    keep = (label * most) // n != ((label - 1) * most) // n
    return Shooting.of(windows.select(keep), rate, sd, n_steps)


def _units(setup: SetUp) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Gain and shift from standard units to sources as they are measured, in units of their root mean square.

    Sources that stay far from zero are measured from their mean.
    """
    s, nodes = setup.prepared.scales, setup.prepared.nodes
    zero = np.concatenate([s.state_mean / s.state_sd, s.input_mean / s.input_sd])
    zero = np.where(np.abs(zero) < FAR, zero, 0.0)
    size = np.sqrt(((nodes.reshape(-1, nodes.shape[2]) + zero) ** 2).mean(axis=0))
    size = np.where(size > 1e-6, size, 1.0)
    return tuple((1.0 / size).tolist()), tuple((zero / size).tolist())
