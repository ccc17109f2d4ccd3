"""Polynomial laws: a few monomials for every target, as chemistry, ecology and mechanics write them down."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations_with_replacement

import numpy as np
import torch

from skode._typing import AnyArray, FloatArray, IntArray, Weights
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
    not about the mean of the data. Where there are edges, products read sources that are held between these: beyond,
    where nothing was seen, they would grow as powers, and a forecast that strays be lost in no time.

    Parameters
    ----------
    terms : tuple of tuple of int
        Sources of every monomial; those of all targets together.
    gain, shift : tuple of float, one per source
        From standard units to a.
    low, high : tuple of float, one per source
        Edges in standard units; none where they are empty.
    """

    terms: tuple[Term, ...] = ()
    gain: tuple[float, ...] = ()
    shift: tuple[float, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    @property
    def per_target(self) -> bool:
        return True

    @property
    def chain(self) -> tuple[str, ...]:
        return ()

    @property
    def entries(self) -> tuple[str, ...]:
        return ()

    @property
    def degree(self) -> int:
        """Most factors of any monomial."""
        return max(map(len, self.terms), default=0)

    @cached_property
    def table(self) -> IntArray:
        """Places among ``read`` sources that every monomial multiplies.  # (factor, term)"""
        degree, one = max(self.degree, 1), self.n_sources
        rows = []
        for term in self.terms:
            places = term if len(term) < 2 else tuple(one + 1 + source for source in term)
            rows.append((*places, *(one,) * degree)[:degree])
        return np.ascontiguousarray(np.array(rows, dtype=np.int64).reshape(-1, degree).T)

    @property
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
        read = self.read(z)
        return torch.stack([read[..., place] for place in self._table(z.device)])

    def read(self, z: torch.Tensor) -> torch.Tensor:
        """Sources as they are measured, a one, and sources between the edges.  # (..., source + 1 + source)"""
        gain, shift = torch.tensor([self.gain, self.shift], dtype=z.dtype, device=z.device)
        return torch.cat([gain * z + shift, torch.ones_like(z[..., :1]), gain * self._held(z) + shift], dim=-1)

    def with_derivatives(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Every monomial (sample, term), and its derivatives by the sources (sample, term, source).

        Parameters
        ----------
        z : tensor  # (sample, source)
        """
        factors, table, n = self.factors(z), self._table(z.device), self.n_sources
        by_place = z.new_zeros(len(z), len(self.terms), 2 * n + 1)
        for k, place in enumerate(table):
            others = torch.cat([factors[:k], factors[k + 1 :]]).prod(dim=0)
            by_place.scatter_add_(2, place.view(1, -1, 1).expand(len(z), -1, 1), others.unsqueeze(-1))
        inside = (self._held(z) == z).to(z.dtype).unsqueeze(1)
        gain = torch.tensor(self.gain, dtype=z.dtype, device=z.device)
        return factors.prod(dim=0), gain * (by_place[..., :n] + inside * by_place[..., n + 1 :])

    def _table(self, device: torch.device) -> torch.Tensor:
        return torch.from_numpy(self.table).to(device)

    def _held(self, z: torch.Tensor) -> torch.Tensor:
        if not self.low:
            return z
        low, high = torch.tensor([self.low, self.high], dtype=z.dtype, device=z.device)
        return torch.minimum(torch.maximum(z, low), high)

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
        return PolynomialPoints(self, np.asarray(weights["C"], dtype=np.float64) * gain[:, None])


class PolynomialPoints(AbstractPoints):
    """A polynomial law at given coefficients, every sample by itself.

    Parameters
    ----------
    field : PolynomialField
    coefficients : array (target, term)
        Times the factor of every slope.
    """

    def __init__(self, field: PolynomialField, coefficients: FloatArray) -> None:
        self.coefficients, self.places = coefficients, list(field.table)
        self.gain, self.shift = np.array([*field.gain, 1.0]), np.array([*field.shift, 0.0])
        self.edges = (np.array(field.low), np.array(field.high)) if field.low else None

    @property
    def n_entries(self) -> int:
        return int(2 * self.coefficients.shape[1] + 2 * len(self.gain))

    def open(self, z: FloatArray) -> AtPoints:
        n = len(self.gain)
        read = np.empty((len(z), 2 * n - 1))
        measured, held, sources = read[:, :n], read[:, n:], z[:, : n - 1]
        terms, factor = np.empty((2, len(z), self.coefficients.shape[1]))
        column = terms[..., None]

        def slopes(out: FloatArray) -> None:
            np.multiply(z, self.gain, out=measured)
            np.add(measured, self.shift, out=measured)
            if self.edges is None:
                np.copyto(held, measured[:, :-1])
            else:
                np.clip(sources, *self.edges, out=held)
                np.multiply(held, self.gain[:-1], out=held)
                np.add(held, self.shift[:-1], out=held)
            np.take(read, self.places[0], axis=1, out=terms)
            for place in self.places[1:]:
                np.take(read, place, axis=1, out=factor)
                np.multiply(terms, factor, out=terms)
            np.matmul(self.coefficients, column, out=out[..., None])  # sample after sample: the same to the last bit

        return slopes
