"""Which terms of a polynomial law are on offer, and the coefficients with which they begin."""

from __future__ import annotations

from math import comb
from typing import NamedTuple

import numpy as np
import torch

from skode._fit import SetUp, Specification
from skode._typing import BoolArray, Weights
from skode.fields import AbstractField, PolynomialField, monomials
from skode.objectives import Rows

FAR = 10.0
"""Standard deviations from zero from which on data know nothing of it: monomials are about their mean then."""
STILL = 1e-9
"""Standard deviation below which a source never varies."""
RIDGE = 1e-5
"""Relative, where monomials are fitted to a field at the data."""
MOST_ROWS = 2000
"""Intervals to whose slopes monomials are matched."""
UNLIKE = 0.4
"""Share of a slope, in the root mean square, that monomials may miss of the field from which they begin."""


class Candidates(NamedTuple):
    """Monomials on offer, and which target may have which."""

    field: PolynomialField
    columns: torch.Tensor  # (column, 2), target and term
    n_offered: int  # terms that would be on offer without prior knowledge


def candidates_of(opened: BoolArray, degree: int, setup: SetUp, spec: Specification, most: int) -> Candidates | None:
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


def distilled(candidates: Candidates, teacher: Teacher, knots: torch.Tensor) -> torch.Tensor | None:
    """Least squares of monomials to another field at the data, None where that leaves much of any slope.

    Returns
    -------
    tensor  # (target, term)
    """
    with torch.no_grad():
        slopes = teacher.field.bind(teacher.weights).evaluate(knots).slopes[0]
    values = candidates.field.values(knots[0])
    out = _least_squares(candidates, values, slopes, torch.ones_like(slopes))
    targets = sorted(set(candidates.columns[:, 0].tolist()))
    left = (slopes - values @ out.mT).square().mean(dim=0)[targets]
    return out if bool((left <= UNLIKE**2 * slopes.square().mean(dim=0)[targets]).all()) else None


def matched(candidates: Candidates, rows: Rows) -> torch.Tensor:
    """Least squares of monomials to the mean slopes over intervals, along smoothed paths.  # (target, term)

    Of many intervals some are read, taken evenly.
    """
    n = len(rows.slopes)
    rows = rows.select(torch.arange(0, n, -(-n // MOST_ROWS), device=rows.slopes.device))
    values = candidates.field.values(rows.sources.double())  # (row, node, term)
    means = (values * rows.quadrature.double().unsqueeze(-1)).sum(dim=1)
    return _least_squares(candidates, means, rows.slopes.double(), rows.weights.double())


def _least_squares(
    candidates: Candidates, values: torch.Tensor, slopes: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Coefficients (target, term) of values (sample, term) to slopes and weights (sample, target)."""
    field, columns = candidates.field, candidates.columns
    out = values.new_zeros(field.n_targets, len(field.terms))
    for target in sorted(set(columns[:, 0].tolist())):
        mine = columns[columns[:, 0] == target, 1]
        share = weights[:, target] / weights[:, target].sum().clamp_min(1e-30)
        root, some, slope = share.sqrt(), values[:, mine], slopes[:, target]
        centre, level = share @ some, share @ slope
        unit = root[:, None] * (some - centre)
        size = unit.square().sum(0).sqrt()
        bare = size <= STILL * (share @ some.square()).sqrt()  # the constant
        unit, size = torch.where(bare, 0.0, unit / size), torch.where(bare, 1.0, size)
        gram = unit.mT @ unit + RIDGE * torch.eye(len(mine), dtype=unit.dtype, device=unit.device)
        out[target, mine] = torch.linalg.solve(gram, unit.mT @ (root * (slope - level))) / size
        out[target, field.terms.index(())] = level - out[target, mine] @ centre
    return out


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
