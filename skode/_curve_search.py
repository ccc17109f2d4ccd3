"""Which sources a target reads through Hill's functions: steps from set to set by the extended BIC."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import inf, isfinite, log

import numpy as np

from skode._curve_fits import STEPS, Candidate, CurveFit, CurveFits, own_first
from skode._typing import BoolArray, FloatArray
from skode.convex import EBIC_GAMMA, RESIDUAL_FLOOR, ebic
from skode.fields.hill import JOINT, PAIRS

FEW = 4
"""Steps of least squares for every set that is tried; the two best go on."""
NEW, TOGETHER, INSTEAD = 6, 4, 3
"""Sources that are tried beside those of a set; of these any two of the best at once, since regulators that only act
together explain nothing alone; and sources that are tried in place of every one of a set."""
ROUNDS = 20
"""Most moves from where a search begins."""
HOPELESS = 10.0
"""Rise of the criterion in a short fit from which on a longer one is not tried."""


@dataclass(frozen=True)
class CurveSearch:
    r"""Moves from set to set for every target, until none lowers the criterion

    .. math:: N \log(loss) + \nu \log N + 2 \gamma \log \binom{S - 1}{k}

    with N independent data, S sources, k parents beside the target itself and :math:`\nu` the parameters that the data
    determine.

    Parameters
    ----------
    fits : CurveFits
    n_data : array (target,)
        Independent data.
    allowed, required : bool array (target, source)
    """

    fits: CurveFits
    n_data: FloatArray
    allowed: BoolArray
    required: BoolArray

    def criterion(self, fit: CurveFit) -> float:
        """The extended BIC of one fit."""
        n_others, n_data = len(set(fit.parents) - {fit.target}), max(float(self.n_data[fit.target]), 2.0)
        value = ebic(
            np.array(max(fit.loss, RESIDUAL_FLOOR)),
            np.array(float(n_others)),
            n_rows=np.array(n_data),
            n_sources=self.fits.n_sources - 1,
            gamma=EBIC_GAMMA,
        )
        found = float(value) + (fit.n_determined - n_others) * log(n_data)
        return found if isfinite(found) else inf

    def run(self, starts: Sequence[tuple[int, Sequence[int]]]) -> list[CurveFit]:
        """Search from every start; of those of one target the best end counts, and those that meet go on as one.

        Parameters
        ----------
        starts : sequence of (target, parents)
            Parents that are not allowed are left out, required ones put in.

        Returns
        -------
        list of CurveFit, one per target that has a start, in their order
        """
        begin = [Candidate(target, self._ordered(target, some), {}) for target, some in starts]
        now = self.fits.fit(begin, STEPS)
        going = list(range(len(now)))
        for _ in range(ROUNDS):
            moved = self._move(now, going, {k: list(self._neighbours(now[k])) for k in going})
            stuck = [k for k in going if k not in moved]
            going = sorted([*moved, *self._move(now, stuck, self._exchanges(now, stuck))])
            going = self._apart(now, going)
            if not going:
                break
        best: dict[int, CurveFit] = {}
        for fit in now:
            other = best.get(fit.target)
            best[fit.target] = fit if other is None or self.criterion(fit) < self.criterion(other) else other
        return list(best.values())

    def _apart(self, now: Sequence[CurveFit], going: Sequence[int]) -> list[int]:
        """Those still going whose set no other search holds with a better fit."""
        best: dict[tuple[int, tuple[int, ...]], int] = {}
        for k in sorted(range(len(now)), key=lambda k: self.criterion(now[k])):
            best.setdefault((now[k].target, now[k].parents), k)
        return [k for k in going if best[now[k].target, now[k].parents] == k]

    def _move(self, now: list[CurveFit], going: Sequence[int], moves: dict[int, list[Candidate]]) -> list[int]:
        """Try moves, and make the best of every search that lowers its criterion; changes ``now``."""
        owner = [k for k in going for _ in moves[k]]
        quick = self.fits.fit([one for k in going for one in moves[k]], FEW)
        tried: dict[int, list[CurveFit]] = {k: [] for k in going}
        for k, fit in zip(owner, quick, strict=True):
            if self.criterion(fit) < self.criterion(now[k]) + HOPELESS:
                tried[k].append(fit)
        finals = [(k, fit) for k in going for fit in sorted(tried[k], key=self.criterion)[:2]]
        again = [Candidate(fit.target, fit.parents, fit.bends) for _, fit in finals]
        moved = []
        for (k, _), fit in zip(finals, self.fits.fit(again, STEPS), strict=True):
            if self.criterion(fit) < self.criterion(now[k]) - 1e-6:
                now[k] = fit
                moved.append(k)
        return sorted(set(moved))

    def _neighbours(self, fit: CurveFit) -> Iterator[Candidate]:
        """One or two sources more, or one less."""
        new = self.fits.promising(fit, self._others(fit), NEW)
        for more in (*((j,) for j in new), *combinations(new[:TOGETHER], 2)):
            yield self._changed(fit, (*fit.parents, *more))
        if fit.target not in fit.parents and fit.target < self.fits.n_sources and self.allowed[fit.target, fit.target]:
            yield self._changed(fit, (fit.target, *fit.parents))
        for j in fit.parents:
            if not self.required[fit.target, j]:
                yield self._changed(fit, [k for k in fit.parents if k != j])

    def _exchanges(self, now: list[CurveFit], stuck: Sequence[int]) -> dict[int, list[Candidate]]:
        """Another source in place of one, or four of more."""
        places = [
            (k, j) for k in stuck for j in now[k].parents if j != now[k].target and not self.required[now[k].target, j]
        ]
        without = [self._changed(now[k], [i for i in now[k].parents if i != j]) for k, j in places]
        moves: dict[int, list[Candidate]] = {k: [] for k in stuck}
        for (k, j), fit in zip(places, self.fits.fit(without, FEW), strict=True):
            others = [i for i in self._others(fit) if i != j]
            for i in self.fits.promising(fit, others, INSTEAD):
                moves[k].append(self._changed(fit, (*fit.parents, i)))
        for k in stuck:
            others = [j for j in now[k].parents if j != now[k].target]
            if JOINT < len(others) <= PAIRS:  # of no more than four sources all products are on offer
                own = set(now[k].parents) - set(others)
                moves[k] += [self._changed(now[k], (*own, *some)) for some in combinations(others, JOINT)]
        return moves

    def _others(self, fit: CurveFit) -> list[int]:
        """Sources that may have a curve and have none."""
        free = self.allowed[fit.target].copy()
        free[list(fit.parents)] = False
        free[fit.target] = False
        return [int(j) for j in np.flatnonzero(free)]

    def _changed(self, fit: CurveFit, parents: Sequence[int]) -> Candidate:
        return Candidate(fit.target, self._ordered(fit.target, parents), fit.bends)

    def _ordered(self, target: int, parents: Sequence[int]) -> tuple[int, ...]:
        """What is allowed of them and what is required, the target itself first."""
        some = {int(j) for j in parents if self.allowed[target, j]} | set(
            np.flatnonzero(self.required[target]).tolist()
        )
        return own_first(target, some)
