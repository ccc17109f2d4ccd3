"""Polynomial laws fitted through the solver: Gauss-Newton, in which the start of every window is eliminated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import inf
from typing import NamedTuple

import torch

from skode._law_solutions import solve_law
from skode.fields import PolynomialField
from skode.objectives import Windows

WIDE = 100.0
"""Standard deviation, in those of the noise, by which free starts may leave the smoothed path they are given."""
EXACT = 1e-6
"""The same where the start is known."""
STEEPEST = 1e5
"""Derivatives of solutions are held there: a window that says so depends on everything, and tells nothing."""
MOST_ENTRIES = 2**22
"""Entries of derivatives of solutions that are held at a time, 32 MB."""
LOST = 8.0
"""Mean squares of a window, in medians of all windows, from which on its solution is beside the data."""
STEPS, SHORTER = 12, 6
"""Most steps of Gauss and Newton, and most times that one is damped more."""
SETTLED = 1e-5
"""Share of its sum of squares below which a step has nothing left to gain."""


class Linear(NamedTuple):
    """The sum of squares about a point, for a step s of coefficients: rest - 2 right . s + s . gram s.

    Starts follow as ``newton - answer @ s``.
    """

    gram: torch.Tensor  # (part, column, column)
    right: torch.Tensor  # (part, column)
    rest: torch.Tensor  # (part,)
    newton: torch.Tensor  # (window, target)
    answer: torch.Tensor  # (window, target, column)


class Fit(NamedTuple):
    """A law, where its windows start, and its sum of squares."""

    coefficients: torch.Tensor  # (target, term)
    start: torch.Tensor  # (window, target)
    squares: float = inf


@dataclass(frozen=True)
class Shooting:
    """Windows of trajectories, each with a start of its own and tied to the next.

    Parameters
    ----------
    windows : Windows
        In float64, of states that are all observed at some time.
    rate : tensor  # (target,)
        dx/dt = rate * F
    sd : tensor  # (target,), of an observation
    n_steps : int
        Runge-Kutta steps per window.
    used : tensor of bool  # (window,)
        Others are beside the data, and count for nothing.
    tie : float
        Standard deviation of the jump from the end of a window to the start of the next, in those of the noise.
    """

    windows: Windows
    rate: torch.Tensor
    sd: torch.Tensor
    n_steps: int
    used: torch.Tensor
    tie: float = 1.0

    @classmethod
    def of(cls, windows: Windows, rate: torch.Tensor, sd: torch.Tensor, n_steps: int) -> Shooting:
        """All windows in use."""
        return cls(windows, rate, sd, n_steps, torch.ones_like(windows.after, dtype=torch.bool))

    def along(self, windows: Windows) -> Shooting:
        """The same along other windows, all in use."""
        return replace(self, windows=windows, used=torch.ones_like(windows.after, dtype=torch.bool))

    @property
    def n_lost(self) -> int:
        """Observations of windows that are not used."""
        return int((self.windows.weights[~self.used] > 0).sum())

    @property
    def n_data(self) -> int:
        """Observations that count."""
        return int(self.counts.sum())

    @cached_property
    def counts(self) -> torch.Tensor:
        """Observations of every target that count.  # (target,)"""
        return (self.roots > 0).sum((0, 1))

    @cached_property
    def roots(self) -> torch.Tensor:
        """Root weights of observations, in units of the noise.  # (window, time, target)"""
        weights = self.windows.weights
        n = (weights > 0).sum((0, 1)).clamp_min(1)
        root = (weights * n / weights.sum((0, 1)).clamp_min(1e-30)).sqrt() / self.sd
        last = self.windows.times == self.windows.times[:, -1:]  # the window after sees that too
        return root * (self.used[:, None] & ~(last & self.tied[:, None])).unsqueeze(-1)

    @cached_property
    def tied(self) -> torch.Tensor:
        """Whether a window is tied to the one that follows it.  # (window,)"""
        after = self.windows.after
        return (after >= 0) & self.used & self.used[after.clamp_min(0)]

    @cached_property
    def held(self) -> torch.Tensor:
        """Precision with which starts are held where they are given.  # (window, target)"""
        free = self.windows.spread > 0
        return (torch.where(free, WIDE, EXACT) * self.sd) ** -2

    @cached_property
    def places(self) -> list[torch.Tensor]:
        """First windows of all series, then second ones, and so on; the longest series first."""
        after = self.windows.after
        follows = torch.zeros(len(after), dtype=torch.bool, device=after.device)
        follows[after[after >= 0]] = True
        series = []
        for first in (~follows).nonzero()[:, 0].tolist():
            one = [first]
            while int(after[one[-1]]) >= 0:
                one.append(int(after[one[-1]]))
            series.append(one)
        series.sort(key=len, reverse=True)
        return [
            torch.tensor([one[place] for one in series if len(one) > place], device=after.device)
            for place in range(len(series[0]) if series else 0)
        ]

    def apart(self, most: int) -> Shooting:
        """Without ties after every so many windows of a series."""
        after = self.windows.after.clone()
        for place in range(most - 1, len(self.places), most):
            after[self.places[place]] = -1
        return replace(self, windows=self.windows._replace(after=after))

    def without_lost(self, field: PolynomialField, fit: Fit) -> Shooting:
        """Without windows in which the best start still leaves the solution beside the data."""
        every = replace(self, used=torch.ones_like(self.used))
        errors, _ = every.errors(field, every.fit(field, fit, moves=False))
        count = (self.windows.weights > 0).sum((1, 2))
        mean = errors.square().sum((1, 2)) / count.clamp_min(1)
        return replace(self, used=mean <= LOST * mean[count > 0].median())

    def reweighted(self, field: PolynomialField, fit: Fit, least: float) -> Shooting:
        """With the noise that a law leaves, ``least`` or more; smoothing may take all of it for movement."""
        errors, _ = self.errors(field, fit)
        sd = self.sd * (errors.square().sum((0, 1)) / self.counts.clamp_min(1)).sqrt().clamp_min(1e-30)
        return replace(self, sd=torch.where(self.counts > 0, sd.clamp_min(least), self.sd))

    def mean_log_square(self, field: PolynomialField, fit: Fit, least: float) -> float:
        """Logarithm of the mean square that a law leaves of a target, the mean over observations: any noise may be its.

        Mean squares are ``least`` ** 2 or more.
        """
        errors, jumps = self.errors(field, fit)
        squares = (errors.square().sum((0, 1)) + jumps.square().sum(0)) * self.sd**2 / self.counts.clamp_min(1)
        return float((self.counts * squares.clamp_min(least**2).log()).sum() / self.counts.sum())

    def errors(self, field: PolynomialField, fit: Fit) -> tuple[torch.Tensor, torch.Tensor]:
        """What a law misses, in units of the noise: observations (window, time, target), and starts (window, target).

        A start is missed by the end of the window before it.
        """
        states, _ = solve_law(field, fit.coefficients, self.rate, fit.start, self.windows, self.n_steps)
        return self._missed(states, fit.start)

    def fit(self, field: PolynomialField, begin: Fit, *, moves: bool = True, n_iter: int = STEPS) -> Fit:
        """Gauss and Newton, with the damping of Levenberg and Marquardt, from where a law is.

        A step that does not lower the sum of squares is tried again, coefficients damped more and starts half as far.

        Parameters
        ----------
        field : PolynomialField
        begin : Fit
            Coefficients that are zero stay zero.
        moves : bool
            Whether coefficients move, or starts alone.
        n_iter : int

        Returns
        -------
        Fit
        """
        columns = begin.coefficients.nonzero() if moves else begin.coefficients.new_zeros(0, 2, dtype=torch.long)
        now, damping = begin._replace(squares=self._squares(field, begin)), 1e-3
        for _ in range(n_iter):
            linear = self.linearised(field, now, columns)
            gram, right = linear.gram[0], linear.right[0]
            before = now.squares
            for tries in range(SHORTER):
                held = gram + damping * torch.diag(gram.diagonal() + 1e-12)
                step = torch.cholesky_solve(right[:, None], torch.linalg.cholesky_ex(held)[0])[:, 0]
                moved = now.coefficients.clone()
                moved[columns[:, 0], columns[:, 1]] += step
                trial = Fit(moved, now.start + 0.5**tries * linear.newton - linear.answer @ step)
                trial = trial._replace(squares=self._squares(field, trial))
                if trial.squares < now.squares:
                    now, damping = trial, max(damping / 5.0, 1e-9)
                    break
                damping *= 10.0
            if not before - now.squares > SETTLED * before:
                break
        return now

    def linearised(self, field: PolynomialField, fit: Fit, columns: torch.Tensor, *, apart: bool = False) -> Linear:
        """The sum of squares as a quadratic function of coefficients, for the best starts that go with them.

        A window knows its own start through its observations and through where it ends; eliminated from the first
        window of a series to the last, each start leaves what it knows to the next.

        Parameters
        ----------
        field : PolynomialField
        fit : Fit
        columns : tensor of int  # (column, 2)
            Target and term of every coefficient that is asked for.
        apart : bool
            Whether series are parts by themselves, in the order of ``places[0]``; else all are one.
        """
        windows, d, n = self.windows, len(self.rate), len(columns)
        new = fit.start.new_zeros
        own, cross, slope = torch.diag_embed(self.held), new(len(fit.start), d, n), self.held * 0.0
        slope += self.held * (windows.start - fit.start)
        n_parts = len(self.places[0]) if apart else 1
        gram, right, rest = new(n_parts, n, n), new(n_parts, n), new(n_parts)
        ends, by_start, by_column = new(len(fit.start), d), new(len(fit.start), d, d), new(len(fit.start), d, n)
        part_of = self._part_of(apart)
        rest.index_add_(0, part_of, (self.held * (windows.start - fit.start) ** 2).sum(-1))
        size = max(1, MOST_ENTRIES // (windows.times.shape[1] * d * (d + n)))
        for some in torch.split(torch.arange(len(fit.start), device=part_of.device), size):
            given = fit.coefficients, self.rate, fit.start[some], Windows(*(part[some] for part in windows))
            states, tangents = solve_law(field, *given, self.n_steps, columns)
            tangents.nan_to_num_(nan=0.0).clamp_(-STEEPEST, STEEPEST)
            root = self.roots[some]
            missed = root * (windows.targets[some] - states)
            last = tangents[:, -1].clone()
            tangents *= root.unsqueeze(-1)
            flat, left = tangents.flatten(1, 2), missed.flatten(1).unsqueeze(-1)
            own[some] += flat[..., :d].mT @ flat[..., :d]
            cross[some] += flat[..., :d].mT @ flat[..., d:]
            slope[some] += (flat[..., :d].mT @ left).squeeze(-1)
            ends[some], by_start[some], by_column[some] = states[:, -1], last[..., :d], last[..., d:]
            _add(gram, right, rest, part_of[some], flat[..., d:], left)
        tie = 1.0 / (self.tie * self.sd)
        pulled = windows.after.clamp_min(0)
        jump = torch.where(self.tied[:, None], tie * (fit.start[pulled] - ends), 0.0)
        to_next = torch.where(self.tied[:, None, None], tie[:, None] * by_start, 0.0)
        known = torch.where(self.tied[:, None, None], tie[:, None] * by_column, 0.0)
        own += to_next.mT @ to_next
        cross += to_next.mT @ known
        slope += (to_next.mT @ jump.unsqueeze(-1)).squeeze(-1)
        _add(gram, right, rest, part_of, known, jump.unsqueeze(-1))
        own[pulled[self.tied]] += torch.diag(tie**2)
        cross[pulled[self.tied]] -= tie[:, None] * known[self.tied]
        slope[pulled[self.tied]] -= tie * jump[self.tied]
        upper = -to_next.mT * tie  # what a start and the next share
        return self._eliminated(own, cross, slope, upper, part_of, gram, right, rest)

    def _eliminated(
        self,
        own: torch.Tensor,
        cross: torch.Tensor,
        slope: torch.Tensor,
        upper: torch.Tensor,
        part_of: torch.Tensor,
        gram: torch.Tensor,
        right: torch.Tensor,
        rest: torch.Tensor,
    ) -> Linear:
        """Block elimination of starts, one place of all series after the other, and back again."""
        d, roots = own.shape[-1], torch.empty_like(own)
        for place, here in enumerate(self.places):
            roots[here] = torch.linalg.cholesky_ex(own[here])[0]
            both = torch.cat([cross[here], slope[here].unsqueeze(-1), upper[here]], dim=-1)
            solved = torch.linalg.solve_triangular(roots[here], both, upper=False)
            _add(gram, right, rest, part_of[here], solved[..., : -d - 1], solved[..., -d - 1 : -d], sign=-1.0)
            if place + 1 < len(self.places):
                follow = self.places[place + 1]
                part = solved[: len(follow)]
                less = part[..., -d:].mT @ part
                own[follow] -= less[..., -d:]
                cross[follow] -= less[..., : -d - 1]
                slope[follow] -= less[..., -d - 1]
        newton, answer = torch.empty_like(slope), torch.empty_like(cross)
        later: torch.Tensor | None = None
        for here in reversed(self.places):
            both = torch.cat([slope[here].unsqueeze(-1), cross[here]], dim=-1)
            if later is not None:
                both[: len(later)] -= upper[here[: len(later)]] @ torch.cat(
                    [newton[later].unsqueeze(-1), answer[later]], dim=-1
                )
            solved = torch.cholesky_solve(both, roots[here])
            newton[here], answer[here] = solved[..., 0], solved[..., 1:]
            later = here
        return Linear(gram, right, rest, newton, answer)

    def _part_of(self, apart: bool) -> torch.Tensor:
        """Part that every window belongs to.  # (window,)"""
        part = torch.zeros(len(self.used), dtype=torch.long, device=self.used.device)
        for here in self.places if apart else ():
            part[here] = torch.arange(len(here), device=part.device)
        return part

    def _squares(self, field: PolynomialField, fit: Fit) -> float:
        errors, jumps = self.errors(field, fit)
        moved = self.held * (fit.start - self.windows.start) ** 2
        return float(errors.square().sum() + jumps.square().sum() + moved.sum())

    def _missed(self, states: torch.Tensor, start: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        jumps = (start[self.windows.after.clamp_min(0)] - states[:, -1]) / (self.tie * self.sd)
        return self.roots * (self.windows.targets - states), jumps * self.tied[:, None]


def _add(
    gram: torch.Tensor,
    right: torch.Tensor,
    rest: torch.Tensor,
    part: torch.Tensor,
    rows: torch.Tensor,
    left: torch.Tensor,
    *,
    sign: float = 1.0,
) -> None:
    """Add products of rows (window, row, column) and of what is left (window, row, 1) to the part of every window."""
    if len(rest) == 1:
        rows, left = rows.flatten(0, 1), left.flatten(0, 1)
        gram[0] += sign * (rows.mT @ rows)
        right[0] += sign * (rows.mT @ left).squeeze(-1)
        rest[0] += sign * left.square().sum()
    else:
        gram.index_add_(0, part, sign * (rows.mT @ rows))
        right.index_add_(0, part, sign * (rows.mT @ left).squeeze(-1))
        rest.index_add_(0, part, sign * left.square().sum((1, 2)))
