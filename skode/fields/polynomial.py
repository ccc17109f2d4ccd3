"""Polynomial laws: a few monomials for every target, as chemistry, ecology and mechanics write them down."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations_with_replacement

import numpy as np
import torch

from skode._typing import AnyArray, FloatArray, Weights
from skode.fields._base import AbstractField
from skode.fields._points import AbstractPoints, AtPoints

Term = tuple[int, ...]
"""Sources that a monomial multiplies, in rising order; one that is squared is named twice, and 1 has none."""


def monomials(n_sources: int, degree: int) -> list[Term]:
    """All monomials up to a degree, the constant first.

    Examples
    --------
    >>> monomials(2, 2)
    [(), (0,), (1,), (0, 0), (0, 1), (1, 1)]
    """
    return [some for k in range(degree + 1) for some in combinations_with_replacement(range(n_sources), k)]


@dataclass(frozen=True)
class PolynomialField(AbstractField):
    r"""Sums of monomials of the sources.

    .. math:: F_i(z) = \sum_m c_{im} \prod_{j \in m} a_j, \qquad a_j = gain_j z_j + shift_j

    Monomials are of sources as the user measures them, but for their units: laws are sparse about the zero of nature,
    not about the mean of the data.

    Parameters
    ----------
    terms : tuple of tuple of int
        Sources of every monomial; those of all targets together.
    gain, shift : tuple of float, one per source
        From standard units to a.
    """

    terms: tuple[Term, ...] = ()
    gain: tuple[float, ...] = ()
    shift: tuple[float, ...] = ()

    @property
    def per_target(self) -> bool:
        return True

    @property
    def chain(self) -> tuple[str, ...]:
        return ()

    @property
    def entries(self) -> tuple[str, ...]:
        return ()

    @cached_property
    def table(self) -> torch.Tensor:
        """Factors of every monomial; a missing one reads a source after the last, which is 1.  # (factor, term)"""
        degree = max((len(term) for term in self.terms), default=1) or 1
        rest = (self.n_sources,) * degree
        return torch.tensor([(*term, *rest)[:degree] for term in self.terms], dtype=torch.long).view(-1, degree).T

    @cached_property
    def members(self) -> torch.Tensor:
        """1 where a source is in a monomial.  # (term, source)"""
        rows = [[float(source in term) for source in range(self.n_sources)] for term in self.terms]
        return torch.tensor(rows, dtype=torch.float64).view(-1, self.n_sources)

    def init(self, generator: torch.Generator, *, n_models: int, dtype: torch.dtype, device: torch.device) -> Weights:
        """No terms; nothing is drawn."""
        return {"C": torch.zeros(n_models, self.n_targets, len(self.terms), dtype=dtype, device=device)}

    def __call__(self, weights: Weights, z: torch.Tensor) -> torch.Tensor:
        return self.values(z) @ weights["C"].mT

    def values(self, z: torch.Tensor) -> torch.Tensor:
        """Every monomial.  # (..., source) to (..., term)"""
        return self.factors(z).prod(dim=0)

    def factors(self, z: torch.Tensor) -> torch.Tensor:
        """What every monomial multiplies.  # (..., source) to (factor, ..., term)"""
        gain, shift = torch.tensor([self.gain, self.shift], dtype=z.dtype, device=z.device)
        a = torch.cat([gain * z + shift, torch.ones_like(z[..., :1])], dim=-1)
        return torch.stack([a[..., factor] for factor in self.table.to(z.device)])

    def with_derivatives(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Every monomial (sample, term), and its derivatives by the sources (sample, term, source).

        Parameters
        ----------
        z : tensor  # (sample, source)
        """
        factors, table = self.factors(z), self.table.to(z.device)
        by_source = z.new_zeros(len(z), len(self.terms), self.n_sources + 1)
        for k, source in enumerate(table):
            others = torch.cat([factors[:k], factors[k + 1 :]]).prod(dim=0)
            by_source.scatter_add_(2, source.view(1, -1, 1).expand(len(z), -1, 1), others.unsqueeze(-1))
        gain = torch.tensor(self.gain, dtype=z.dtype, device=z.device)
        return factors.prod(dim=0), by_source[..., :-1] * gain

    def only(self, terms: torch.Tensor) -> PolynomialField:
        """With some of the terms; ``terms`` is a mask."""
        return replace(self, terms=tuple(t for t, kept in zip(self.terms, terms.tolist(), strict=True) if kept))

    def paths(self, weights: Weights) -> torch.Tensor:
        return weights["C"].abs() @ self.members.to(weights["C"])

    def jacobian(self, weights: Weights, z: torch.Tensor) -> torch.Tensor:
        every = z.expand(len(weights["C"]), -1, -1)
        pairs = zip(weights["C"], every, strict=True)
        return torch.stack([coefficients @ self.with_derivatives(own)[1] for coefficients, own in pairs])

    def at_points(self, weights: dict[str, AnyArray], gain: FloatArray) -> PolynomialPoints:
        return PolynomialPoints(
            np.asarray(weights["C"], dtype=np.float64) * gain[:, None],
            [factor.numpy() for factor in self.table],
            np.array([*self.gain, 1.0]),
            np.array([*self.shift, 0.0]),
        )


class PolynomialPoints(AbstractPoints):
    """A polynomial law at given coefficients, every sample by itself.

    Parameters
    ----------
    coefficients : array (target, term)
        Times the factor of every slope.
    factors : list of int array (term,)
        Sources that every monomial multiplies; the one after the last is 1.
    gain, shift : array (source + 1,)
        From standard units to what is multiplied.
    """

    def __init__(self, coefficients: FloatArray, factors: list[AnyArray], gain: FloatArray, shift: FloatArray) -> None:
        self.coefficients, self.factors, self.gain, self.shift = coefficients, factors, gain, shift

    @property
    def n_entries(self) -> int:
        return int(2 * self.coefficients.shape[1] + len(self.gain))

    def open(self, z: FloatArray) -> AtPoints:
        amounts = np.empty(z.shape)
        terms, factor = np.empty((2, len(z), self.coefficients.shape[1]))
        column = terms[..., None]

        def slopes(out: FloatArray) -> None:
            np.multiply(z, self.gain, out=amounts)
            np.add(amounts, self.shift, out=amounts)
            np.take(amounts, self.factors[0], axis=1, out=terms)
            for source in self.factors[1:]:
                np.take(amounts, source, axis=1, out=factor)
                np.multiply(terms, factor, out=terms)
            np.matmul(self.coefficients, column, out=out[..., None])  # sample after sample: the same to the last bit

        return slopes
