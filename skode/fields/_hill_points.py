"""Hill's functions and their products at samples that never meet, in numpy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.special

from skode._typing import FloatArray, IntArray
from skode.fields._points import AbstractPoints, AtPoints


class HillPoints(AbstractPoints):
    """Curves at given weights, every sample by itself: one pass over all curves, one over all terms.

    Parameters
    ----------
    terms : sequence of (target, height, curves)
        What is added up to slopes; ``curves`` are numbers of curves whose product is meant. Targets in rising order,
        and of one target a term of several curves after that of all but the last.
    source : array (curve,)
        What every curve reads.
    steepness, middle : array (curve,)
        h = 1 / (1 + exp(-steepness (log(amount) - middle)))
    own, constant : array (target,)
        Factor of the target's own state, and what is always added.
    gain, shift : array (source,)
        From standard units to amounts.
    fewest : float
        Least amount.
    rate : array (target,)
        Factor of every slope.
    """

    def __init__(
        self,
        terms: Sequence[tuple[int, float, tuple[int, ...]]],
        *,
        source: IntArray,
        steepness: FloatArray,
        middle: FloatArray,
        own: FloatArray,
        constant: FloatArray,
        gain: FloatArray,
        shift: FloatArray,
        fewest: float,
        rate: FloatArray,
    ) -> None:
        self.source, self.steepness, self.middle = source, steepness, middle
        self.gain, self.shift, self.fewest = gain, shift, fewest
        self.own, self.constant = own * rate, constant * rate
        # Products are made size by size: a product of k curves is one of k - 1 times another curve.
        ordered = sorted(range(len(terms)), key=lambda k: len(terms[k][2]))
        place = {terms[k][2]: at for at, k in enumerate(ordered)}
        sizes = np.array([len(terms[k][2]) for k in ordered], dtype=np.int64)
        self.n_terms = len(ordered)
        self.passes = []
        for size in range(1, int(sizes.max(initial=0)) + 1):
            some = np.flatnonzero(sizes == size)
            curves = [terms[ordered[k]][2] for k in some]
            before = np.array([place[c[:-1]] for c in curves] if size > 1 else [], dtype=np.int64)
            self.passes.append((slice(int(some[0]), int(some[-1]) + 1), before, np.array([c[-1] for c in curves])))
        target = np.array([terms[k][0] for k in ordered], dtype=np.int64)
        self.by_target = np.argsort(target, kind="stable")
        self.height = np.array([terms[k][1] for k in ordered])[self.by_target] * rate[target[self.by_target]]
        self.told, self.first = np.unique(target[self.by_target], return_index=True)

    @property
    def n_entries(self) -> int:
        return max(1, 2 * self.n_terms + len(self.source) + len(self.gain))

    def open(self, z: FloatArray) -> AtPoints:
        n_targets = len(self.own)
        sources, states = z[:, : len(self.gain)], z[:, :n_targets]
        amounts, curves = np.empty(sources.shape), np.empty((len(z), len(self.source)))
        terms, ordered = np.empty((len(z), self.n_terms)), np.empty((len(z), self.n_terms))

        def slopes(out: FloatArray) -> None:
            np.multiply(sources, self.gain, out=amounts)
            np.add(amounts, self.shift, out=amounts)
            np.maximum(amounts, self.fewest, out=amounts)
            np.log(amounts, out=amounts)
            np.take(amounts, self.source, axis=1, out=curves)
            np.subtract(curves, self.middle, out=curves)
            np.multiply(curves, self.steepness, out=curves)
            scipy.special.expit(curves, out=curves)
            for some, before, curve in self.passes:
                terms[:, some] = curves[:, curve]
                if len(before):
                    terms[:, some] *= terms[:, before]
            np.multiply(states, self.own, out=out)
            np.add(out, self.constant, out=out)
            if self.n_terms:
                np.take(terms, self.by_target, axis=1, out=ordered)
                np.multiply(ordered, self.height, out=ordered)
                out[:, self.told] += np.add.reduceat(ordered, self.first, axis=1)

        return slopes
