"""Which of many linear terms explain data: backwards from all of them, then step by step, by the extended BIC."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from skode._typing import FloatArray
from skode.convex import EBIC_GAMMA, ebic

LEAST = 1e-9
"""Share of the data's sum of squares below which what is left is rounding error."""
JITTER = 1e-10
"""Relative, on the diagonal: terms that others make up."""
DEPENDENT = 1e-7
"""Share of a term's square below which others make it up."""
TOGETHER = 8
"""Terms, the best alone, each of which is tried together with the best beside it."""
ROUNDS = 200
"""Most moves."""


class Chosen(NamedTuple):
    """Terms, and how well they do."""

    terms: list[int]
    criterion: float


def criterion(rest: float, size: int, n_terms: int, n_data: int) -> float:
    """The extended BIC of ``size`` of so many terms that leave so much of so many data."""
    left, k, n = (np.array(float(value)) for value in (rest, size, n_data))
    return float(ebic(left, k, n_rows=n, n_sources=n_terms, gamma=EBIC_GAMMA))


class TermSearch:
    r"""Linear terms and the data that they explain, as scalar products.

    Sets are compared by

    .. math:: N \log(rest) + k \log N + 2 \gamma \log \binom{n}{k}

    with N data, k terms of n.

    Parameters
    ----------
    gram : array (term, term)
    right : array (term,)
        Products of the terms and the data.
    total : float
        Sum of squares of the data.
    n_data : int
    """

    def __init__(self, gram: FloatArray, right: FloatArray, total: float, n_data: int) -> None:
        self.size = np.sqrt(np.maximum(np.diag(gram), 1e-300))
        self.gram = gram / np.outer(self.size, self.size)
        self.gram[np.diag_indices_from(self.gram)] += JITTER
        self.right, self.total, self.n_data = right / self.size, total, n_data

    def coefficients(self, terms: list[int]) -> FloatArray:
        """Least squares of some terms."""
        found: FloatArray = np.linalg.solve(self.gram[np.ix_(terms, terms)], self.right[terms]) / self.size[terms]
        return found

    def criterion(self, rest: float, size: int) -> float:
        """The extended BIC of so many terms that leave so much."""
        return criterion(max(rest, LEAST * self.total), size, len(self.right), self.n_data)

    def value(self, terms: list[int]) -> float:
        """The criterion of some terms."""
        return self.criterion(self._solved(terms)[2], len(terms))

    def run(self, start: list[int] | None = None) -> list[int]:
        """Search from some terms; by default from none, and from the best set on the way from all terms to none."""
        begin = [[], self.backwards()] if start is None else [sorted(start)]
        return min((self._steps(some) for some in begin), key=lambda end: end.criterion).terms

    def backwards(self) -> list[int]:
        """The best of the sets that are left as the term that explains least is dropped, again and again."""
        terms = list(range(len(self.right)))
        inverse, found, rest = self._solved(terms)
        best = Chosen([], np.inf)
        while True:
            here = self.criterion(rest, len(terms))
            best = Chosen(list(terms), here) if here < best.criterion else best
            if not terms:
                return best.terms
            loss = found**2 / np.diag(inverse)
            k = int(np.argmin(loss))
            rest += float(loss[k])
            keep = np.arange(len(terms)) != k
            column, pivot = inverse[keep, k], inverse[k, k]
            found = found[keep] - column * (found[k] / pivot)
            inverse = inverse[np.ix_(keep, keep)] - np.outer(column, column) / pivot
            del terms[k]

    def _steps(self, start: list[int]) -> Chosen:
        now = Chosen(start, self.value(start))
        for _ in range(ROUNDS):
            for moves in (self._single, self._double):
                best = min(moves(now.terms), key=lambda move: move.criterion, default=now)
                if best.criterion < now.criterion - 1e-9:
                    now = best
                    break
            else:
                break
        return now

    def _single(self, terms: list[int]) -> Iterator[Chosen]:
        """One term more, or one less."""
        inverse, found, rest = self._solved(terms)
        yield from self._best_added(terms, inverse, found, rest)
        if terms:
            loss = found**2 / np.diag(inverse)
            k = int(np.argmin(loss))
            yield Chosen(terms[:k] + terms[k + 1 :], self.criterion(rest + float(loss[k]), len(terms) - 1))

    def _double(self, terms: list[int]) -> Iterator[Chosen]:
        """One term in place of another, or two at once."""
        for k in range(len(terms)):
            left = terms[:k] + terms[k + 1 :]
            yield from (some for some in self._best_added(left, *self._solved(left)) if some.terms != terms)
        gain = self._gain(terms, *self._solved(terms)[:2])
        for j in np.argsort(-gain)[:TOGETHER]:
            if gain[j] > 0:
                more = sorted([*terms, int(j)])
                yield from self._best_added(more, *self._solved(more))

    def _best_added(self, terms: list[int], inverse: FloatArray, found: FloatArray, rest: float) -> Iterator[Chosen]:
        gain = self._gain(terms, inverse, found)
        best = int(np.argmax(gain))
        if gain[best] > 0:
            yield Chosen(sorted([*terms, best]), self.criterion(rest - float(gain[best]), len(terms) + 1))

    def _gain(self, terms: list[int], inverse: FloatArray, found: FloatArray) -> FloatArray:
        """What every other term would explain of what some leave; 0 for those that these make up."""
        beside = self.gram[:, terms]
        left = self.right - beside @ found
        own = np.diag(self.gram) - np.einsum("nk,kl,nl->n", beside, inverse, beside, optimize=True)
        gain: FloatArray = np.where(own > DEPENDENT, left**2 / np.maximum(own, DEPENDENT), 0.0)
        gain[terms] = 0.0
        return gain

    def _solved(self, terms: list[int]) -> tuple[FloatArray, FloatArray, float]:
        """Inverse of the products of some terms, their coefficients, and what they leave."""
        inverse = np.linalg.inv(self.gram[np.ix_(terms, terms)])
        found = inverse @ self.right[terms]
        return inverse, found, float(self.total - found @ self.right[terms])
