"""What reads the selected sources: own or shared decay, lines, networks or curves; held-out windows decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from skode._amounts import Amounts
from skode._capacity import can_decide, clearly_lower, held_out_squares
from skode._curve_fits import curve_prices, hill_field
from skode._dynamics import Dynamics
from skode._memory import release
from skode._parallel import one_torch_thread
from skode._problem import Problem
from skode._refit import Refit, refit
from skode._typing import BoolArray, FloatArray, Weights
from skode.fields import PackedField
from skode.objectives import Rows

DECAYS = (1.0, 0.01)
"""Weight decay of networks on offer, in units of the estimator's: data that are nearly clean want hardly any."""
RIDGES = (0.01, 0.03, 0.1, 0.3)
"""Prices of lines on offer beside none. Lines that describe other curves feed each other, and errors grow with time."""


class Candidate(NamedTuple):
    """What reads the sources, what of it is fitted, and how strongly it is held."""

    field: PackedField
    free: tuple[str, ...]
    prices: Mapping[str, float]
    fixed: torch.Tensor  # (target, slot) of bool, columns that stay as they are


class Readers(NamedTuple):
    """Least squares on one support; what does not change from fit to fit."""

    dynamics: Dynamics  # of a packed field
    problem: Problem
    weight_decay: float
    n_iter: int
    decay: torch.Tensor  # (target,) rate that all share, in standard units
    own: torch.Tensor  # (target, slot) of bool, the column of the variable itself, unless it is required
    shared: torch.Tensor  # (target, slot) of bool, the same where it decays at the shared rate and does nothing else
    drawn: Weights  # (1, ...) from which fits begin
    amounts: Amounts | None  # of the sources, where all of them are amounts

    @classmethod
    def draw(
        cls,
        dynamics: Dynamics,
        problem: Problem,
        *,
        decay: FloatArray,
        support: BoolArray,
        amounts: Amounts | None,
        required: BoolArray | None,
        weight_decay: float,
        seed: int,
        n_iter: int,
    ) -> Readers:
        """Draw weights; a decay at the shared rate was no one's choice, and raw targets would bias it: it is set.

        Parameters
        ----------
        dynamics : Dynamics
            Of a packed field.
        problem : Problem
        decay : array (target,)
            Rate that all share, in standard units.
        support : array (target, source) of bool
            Selected. A variable that was not selected for itself decays at the shared rate.
        amounts : Amounts or None
            Of the sources, where all of them are amounts.
        required : array (target, source) of bool or None
            A variable that must drive itself has a rate of its own: the shared one may be 0.
        weight_decay : float
        seed : int
        n_iter : int
        """
        field, device = _packed(dynamics), problem.matching.device
        drawn = field.init(torch.Generator().manual_seed(seed), n_models=1, dtype=torch.float64, device=device)
        diagonal = torch.eye(*support.shape, dtype=torch.bool)
        if required is not None:
            diagonal &= ~torch.as_tensor(required)
        own = field.to_columns(diagonal).to(device)
        shared = field.to_columns(diagonal & ~torch.as_tensor(support)).to(device)
        rate = torch.as_tensor(decay, device=device)
        return cls(dynamics, problem, weight_decay, n_iter, rate, own, own, drawn, amounts).sharing(shared)

    @property
    def field(self) -> PackedField:
        """That of the dynamics."""
        return _packed(self.dynamics)

    @property
    def linear(self) -> tuple[str, ...]:
        """Tensors of the linear part."""
        return ("K", f"b{len(self.field.hidden)}")

    def sharing(self, shared: torch.Tensor) -> Readers:
        """The same with other columns at the shared rate; those that were there keep what they have."""
        rate = -self.decay.unsqueeze(-1).expand(shared.shape)
        drawn = dict(self.drawn)
        for name in self.field.entries:
            held = rate if name == "K" else torch.zeros_like(rate)
            drawn[name] = torch.where(shared.unsqueeze(1), held.unsqueeze(1), self.drawn[name])
        return self._replace(shared=shared, drawn=drawn)

    def fit(self, rows: Rows, start: Weights, kind: Candidate, n_iter: int) -> Refit:
        """Fit to rows from given weights; those before have left memory behind that this one cannot use."""
        release()
        return refit(
            kind.field,
            rows,
            start,
            scale=self.problem.matching.double(),
            prices=kind.prices,
            free=kind.free,
            fixed=kind.fixed,
            n_iter=n_iter,
        )

    def read(self, start: Weights, kind: Candidate) -> Reading:
        """Fit to the rows that are not held out, and forecast the windows that are, if there are enough to decide."""
        fitted = self.fit(self.problem.rows, start, kind, self.n_iter)
        if not can_decide(self.problem):
            return Reading(self, kind, fitted, fitted.loss.new_empty(0, len(fitted.loss)))
        with one_torch_thread():
            dynamics = replace(self.dynamics, field=kind.field)
            return Reading(self, kind, fitted, held_out_squares(dynamics, fitted.weights, self.problem)[0])

    def lines(self, ridge: float = 0.0) -> Reading:
        """Lines, at a price."""
        start = {k: value if k in self.linear else torch.zeros_like(value) for k, value in self.drawn.items()}
        return self.read(start, Candidate(self.field, self.linear, {"K": ridge}, self.shared))

    def networks(self, lines: Refit) -> list[Reading]:
        """Networks, held more and then less strongly, that begin with given lines."""
        start = {**self.drawn, **{name: lines.weights[name] for name in self.linear}}
        held = [name for name in start if name != "K" and not name.startswith("b")]
        found = []
        for factor in DECAYS:
            prices = dict.fromkeys(held, factor * self.weight_decay)
            found.append(self.read(start, Candidate(self.field, tuple(start), prices, self.shared)))
            start = found[-1].fitted.weights
        return found

    def curves(self, lines: Refit) -> list[Reading]:
        """Hill's functions and their products, of sources that are amounts, held less and more strongly."""
        if self.amounts is None:
            return []
        field = hill_field(self.field, self.amounts, self.field.parents)
        start = field.init(torch.Generator(), n_models=1, dtype=torch.float64, device=self.decay.device)
        shared, own = (
            field.to_columns(self.field.to_wide(columns.double())) > 0 for columns in (self.shared, self.own)
        )
        slopes = field.to_columns(self.field.to_wide(lines.weights["K"].squeeze(-2)))
        start["K"] = (slopes * own).unsqueeze(-2)
        found = []
        for prices in curve_prices(self.weight_decay):
            found.append(self.read(start, Candidate(field, tuple(start), prices, shared)))
            start = found[-1].fitted.weights
        return found


def _packed(dynamics: Dynamics) -> PackedField:
    assert isinstance(dynamics.field, PackedField)
    return dynamics.field


class Reading(NamedTuple):
    """A fit to the rows that are not held out, and how it forecasts those that are."""

    readers: Readers
    kind: Candidate
    fitted: Refit
    squares: torch.Tensor  # (window, target) of held-out windows; no window if there are too few

    @property
    def errors(self) -> torch.Tensor:
        """Errors of forecasts over all targets.  # (window,)"""
        return self.squares[:, self.readers.problem.moving].sum(-1).sqrt()

    @property
    def left(self) -> float:
        """Squared errors as a share of those of states that stay where windows start."""
        problem, windows = self.readers.problem, self.readers.problem.held_windows
        assert windows is not None
        stay = windows.weights * (windows.targets - windows.start[:, None, : windows.targets.shape[-1]]) ** 2
        all_of_it = (stay.double() / problem.shooting.double()).sum(1)[:, problem.moving].sum()
        return float(self.squares[:, problem.moving].sum() / all_of_it.clamp_min(1e-30))

    def go_on(self, rows: Rows, fitted: Refit) -> Refit:
        """Fit to all rows, from a fit to a part of them or to rows that were nearly the same."""
        return self.readers.fit(rows, fitted.weights, self.kind, max(1, self.readers.n_iter // 2))

    def ahead_of(self, other: Reading) -> bool:
        """Whether it forecasts clearly better."""
        return bool(clearly_lower(self.errors, other.errors))

    def unless(self, others: Sequence[Reading]) -> Reading:
        """Itself, or the best of the others where that is ahead."""
        if not others:
            return self
        best = min(others, key=lambda other: float(other.errors.mean().nan_to_num(torch.inf)))
        return best if best.ahead_of(self) else self

    def bettered(self) -> Reading:
        """Lines as they are, or whichever of lines at a price, networks and curves is ahead of them.

        Networks that are ahead must be ahead of curves, too: beyond the data curves go on as amounts do.
        """
        readers, priced = self.readers, map(self.readers.lines, RIDGES)
        curves = self.unless(readers.curves(self.fitted))
        best = self.unless([*priced, *readers.networks(self.fitted)])
        return best if curves is self else curves.unless([best])


def choose_readers(readers: Readers) -> Reading:
    """Fit what may read the sources to the rows that are not held out, and keep what is not plain only on evidence.

    1. Lines; lines that have a price, networks held more and less strongly, and curves if sources are amounts.
    2. The same with other decays, if lines forecast better with them. Noise in a variable's observations is in its
       slopes and in itself as a source, and what a line makes of a product looks like decay too: rows support rates
       that forecasts do not. On offer are: all share the rate; all but those whose own held-out windows are forecast
       better without. The one whose lines forecast better is tried, unless what was found before is clearly ahead of
       these lines. What lines gain networks may lose by it: the two ways are compared at their ends.

    Better is by more than 1.64 standard errors of the paired differences between forecasts of held-out windows.
    Interval rows would not do: denoised sources and raw targets share noise, which a network can learn. One decision
    serves all targets, as in ``narrow``, but for whose decay is shared.

    Parameters
    ----------
    readers : Readers
        With decays as selected.

    Returns
    -------
    Reading
    """
    selected = readers.lines()
    if not can_decide(readers.problem):
        return selected
    best = selected.bettered()
    if torch.equal(readers.own, readers.shared):
        return best
    together = readers.sharing(readers.own).lines()
    own_better = clearly_lower(selected.squares.T, together.squares.T).unsqueeze(-1)
    apart = readers.sharing(torch.where(own_better, readers.shared, readers.own)).lines()
    other = min(together, apart, key=lambda one: float(one.errors.mean()))
    return best.unless([other.bettered()]) if other.ahead_of(selected) and not best.ahead_of(other) else best
