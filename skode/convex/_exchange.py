"""One target: sources dropped and added while the extended BIC falls, each source a group of functions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from skode._typing import BoolArray, FloatArray, IntArray
from skode.convex._refit import RESIDUAL_FLOOR, ebic
from skode.convex.select import EBIC_GAMMA

ENTRY = 2.0
"""What a source must explain to come in, in units of what one must explain to stay: what is at the margin stays where
the convex problem put it."""
TINY = 1e-9


class Features(NamedTuple):
    """Means over intervals of the functions of every source, uncorrelated and of unit variance for each source."""

    values: FloatArray  # (row, source, function), 0 for functions that depend on the others
    rank: IntArray  # (source,) functions that do not


class Target(NamedTuple):
    """Scalar products of one target's candidates, slopes in units of their root mean square."""

    gram: FloatArray  # (candidate, function, candidate, function)
    cross: FloatArray  # (candidate, function)
    rank: IntArray  # (candidate,)
    n_sources: int
    n_rows: float
    prices: FloatArray  # (candidate,) relative to what a source costs if all are alike

    @classmethod
    def build(
        cls,
        features: Features,
        slopes: FloatArray,
        weights: FloatArray,
        some: IntArray,
        n_sources: int,
        n_rows: float,
        prices: FloatArray | None = None,
    ) -> Target:
        """Multiply for some of the sources; ``prices`` are theirs."""
        x = features.values[:, some]
        root = np.sqrt(weights)
        x = root[:, None, None] * (x - np.einsum("k,ksm->sm", weights, x))
        y = root * (slopes - weights @ slopes)
        size = float(np.sqrt(y @ y))
        flat = x.reshape(len(x), -1)
        gram = flat.T @ flat
        gram[np.diag_indices_from(gram)] += TINY
        m = x.shape[2]
        cross = (flat.T @ (y / size if size > 0 else y)).reshape(-1, m)
        gram = gram.reshape(len(some), m, len(some), m)
        own = np.ones(len(some)) if prices is None else prices
        return cls(gram, cross, features.rank[some], n_sources, n_rows, own)

    def criterion(self, sources: list[int], residual: float) -> float:
        """Extended BIC; as ``ebic``, with every function of a source as a parameter."""
        size = len(sources)
        more = float(self.rank[sources].sum()) - size if sources else 0.0
        value = ebic(
            np.array(max(residual, RESIDUAL_FLOOR)),
            np.array(float(size)),
            n_rows=np.array(self.n_rows),
            n_sources=self.n_sources,
            gamma=EBIC_GAMMA,
            price=float(self.prices[sources].mean()) if sources else 1.0,
        )
        return float(value) + more * float(np.log(self.n_rows))

    def value_of(self, start: BoolArray) -> tuple[list[int], float]:
        """The start as it is, and its criterion."""
        sources = np.flatnonzero(start).tolist()
        return sources, self.criterion(sources, self.residual(sources))

    def residual(self, sources: list[int]) -> float:
        """Share of the mean square that these sources leave."""
        if not sources:
            return 1.0
        block, right = self._block(sources)
        return float(1.0 - right @ np.linalg.solve(block, right))

    def exchange(self, start: BoolArray, least: float, most: int) -> tuple[list[int], float]:
        """Drop and add sources while the criterion falls; the sources and their criterion."""
        sources = np.flatnonzero(start).tolist()
        sources, residual, value = self._dropped(sources, self.residual(sources), least)
        for _ in range(2 * most):
            if len(sources) >= min(most, len(self.rank)):
                break
            gains = self._gains(sources)
            some = np.flatnonzero(gains >= ENTRY * least)
            if len(some) == 0:
                break
            paid = self.prices[sources].sum() + self.prices[some]
            new = int(some[self._best(residual - gains[some], len(sources) + 1, paid)])
            after = residual - float(gains[new])
            if self.criterion([*sources, new], after) >= value - 1e-9 * abs(value):
                break
            sources, residual, value = self._dropped([*sources, new], after, least)
        return sources, value

    def _best(self, residual: FloatArray, size: int, paid: FloatArray) -> int:
        """Of several supports of one size the one with the least criterion, functions not counted.

        Parameters
        ----------
        residual : array (support,)
        size : int
        paid : array (support,)
            Sum of the prices of their sources.
        """
        value = ebic(
            np.maximum(residual, RESIDUAL_FLOOR),
            np.full(len(residual), float(size)),
            n_rows=np.array(self.n_rows),
            n_sources=self.n_sources,
            gamma=EBIC_GAMMA,
            price=paid / max(size, 1),
        )
        return int(np.lexsort((residual, value))[0])

    def _dropped(self, sources: list[int], residual: float, least: float) -> tuple[list[int], float, float]:
        """Drop sources that explain too little, then those without which the criterion falls most."""
        value = self.criterion(sources, residual)
        while sources:
            losses = self._losses(sources)
            worst = int(np.argmin(losses))
            if losses[worst] >= least:
                paid = self.prices[sources].sum() - self.prices[sources]
                worst = self._best(residual + losses, len(sources) - 1, paid)
            rest = [*sources[:worst], *sources[worst + 1 :]]
            after = residual + float(losses[worst])
            if (there := self.criterion(rest, after)) >= value and losses[worst] >= least:
                break
            sources, residual, value = rest, after, there
        return sources, residual, value

    def evidence(self) -> FloatArray:
        """Rise of the criterion without each of the candidates, when all are in.  # (candidate,)"""
        every = list(range(len(self.rank)))
        residual = self.residual(every)
        with_all = self.criterion(every, residual)
        rests = [[*every[:k], *every[k + 1 :]] for k in every]
        without = zip(rests, self._losses(every), strict=True)
        return np.array([self.criterion(rest, residual + float(loss)) - with_all for rest, loss in without])

    def _losses(self, sources: list[int]) -> FloatArray:
        """What the residual rises by without each of the sources.  # (source,)"""
        block, right = self._block(sources)
        n, m = len(sources), self.cross.shape[1]
        inverse = np.linalg.inv(block)
        found = (inverse @ right).reshape(n, m, 1)
        own = inverse.reshape(n, m, n, m)[np.arange(n), :, np.arange(n)]  # (source, m, m)
        losses: FloatArray = (found * np.linalg.solve(own, found)).sum(axis=(1, 2))
        return losses

    def _gains(self, sources: list[int]) -> FloatArray:
        """What the residual falls by with each of the candidates; 0 for those that are in.  # (candidate,)"""
        n, m = self.cross.shape
        every = np.arange(n)
        left, own = self.cross, self.gram[every, :, every]
        if sources:
            block, right = self._block(sources)
            to_all = self.gram[sources].reshape(len(block), n * m)
            found = np.linalg.solve(block, np.column_stack([right, to_all]))
            left = left - (found[:, 0] @ to_all).reshape(n, m)
            own = own - np.einsum("rsm,rsn->smn", to_all.reshape(-1, n, m), found[:, 1:].reshape(-1, n, m))
        own = own + 1e-6 * np.eye(m)
        gains: FloatArray = (left * np.linalg.solve(own, left[:, :, None])[:, :, 0]).sum(axis=1)
        gains[sources] = 0.0
        return gains

    def _block(self, sources: list[int]) -> tuple[FloatArray, FloatArray]:
        size = len(sources) * self.cross.shape[1]
        return self.gram[np.ix_(sources, range(self.cross.shape[1]), sources, range(self.cross.shape[1]))].reshape(
            size, size
        ), self.cross[sources].ravel()
