"""What reads the selected sources: own or shared decay, lines or networks; held-out windows decide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from skode._capacity import EVIDENCE, can_decide, clearly_lower, held_out_squares
from skode._dynamics import Dynamics
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
    """What may bend, and how strongly it is held."""

    free: tuple[str, ...]
    weight_decay: float
    ridge: float = 0.0


class Readers(NamedTuple):
    """Least squares on one support; what does not change from fit to fit."""

    field: PackedField
    problem: Problem
    decay: torch.Tensor  # (target,) rate that all share, in standard units
    own: torch.Tensor  # (target, slot) of bool, the column of the variable itself
    shared: torch.Tensor  # (target, slot) of bool, the same where it decays at the shared rate and does nothing else
    n_iter: int

    @classmethod
    def draw(
        cls, field: PackedField, problem: Problem, decay: FloatArray, support: BoolArray, *, seed: int, n_iter: int
    ) -> tuple[Readers, Weights]:
        """Initial weights; a decay at the shared rate was no one's choice, and raw targets would bias it: it is set.

        Parameters
        ----------
        field : PackedField
        problem : Problem
        decay : array (target,)
            Rate that all share, in standard units.
        support : array (target, source) of bool
            Selected. A variable that was not selected for itself decays at the shared rate.
        seed : int
        n_iter : int
        """
        device = problem.matching.device
        weights = field.init(torch.Generator().manual_seed(seed), n_models=1, dtype=torch.float64, device=device)
        diagonal = torch.eye(*support.shape, dtype=torch.bool)
        own = field.to_columns(diagonal).to(device)
        shared = field.to_columns(diagonal & ~torch.as_tensor(support)).to(device)
        return cls(field, problem, torch.as_tensor(decay, device=device), own, shared, n_iter).sharing(shared, weights)

    @property
    def linear(self) -> tuple[str, ...]:
        """Tensors of the linear part."""
        return ("K", f"b{len(self.field.hidden)}")

    def sharing(self, shared: torch.Tensor, weights: Weights) -> tuple[Readers, Weights]:
        """The same with other columns at the shared rate, and weights in which they are."""
        rate = -self.decay.unsqueeze(-1).expand(shared.shape)
        kept = dict(weights)
        for name in self.field.entries:
            held = rate if name == "K" else torch.zeros_like(rate)
            kept[name] = torch.where(shared.unsqueeze(1), held.unsqueeze(1), weights[name])
        return self._replace(shared=shared), kept

    def fit(self, rows: Rows, start: Weights, kind: Candidate, n_iter: int) -> Refit:
        """Fit to rows from given weights."""
        return refit(
            self.field,
            rows,
            start,
            scale=self.problem.matching.double(),
            weight_decay=kind.weight_decay,
            ridge=kind.ridge,
            free=kind.free,
            fixed=self.shared,
            n_iter=n_iter,
        )


class Reading(NamedTuple):
    """A fit to the rows that are not held out, and how it forecasts those that are."""

    readers: Readers
    kind: Candidate
    fitted: Refit
    squares: torch.Tensor  # (window, target) of held-out windows; none if there are too few

    @property
    def errors(self) -> torch.Tensor:
        """Errors of forecasts over all targets.  # (window,)"""
        return self.squares[:, self.readers.problem.moving].sum(-1).sqrt()

    def go_on(self, rows: Rows, fitted: Refit) -> Refit:
        """Fit to all rows, from a fit to a part of them or to rows that were nearly the same."""
        return self.readers.fit(rows, fitted.weights, self.kind, max(1, self.readers.n_iter // 2))

    def unless(self, others: Sequence[Reading]) -> Reading:
        """Itself, or the best of the others where that forecasts clearly better."""
        best = min(others, key=lambda other: float(other.errors.mean().nan_to_num(torch.inf)))
        return best if bool(clearly_lower(best.errors, self.errors)) else self


def choose_readers(readers: Readers, drawn: Weights, dynamics: Dynamics, weight_decay: float) -> Reading:
    """Fit what may read the sources to the rows that are not held out, and keep what is not plain only on evidence.

    1. Lines; lines that have a price, and networks held more and less strongly.
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
    drawn : dict of tensors  # (1, ...)
    dynamics : Dynamics
    weight_decay : float

    Returns
    -------
    Reading
    """
    problem = readers.problem

    def read(now: Readers, start: Weights, kind: Candidate) -> Reading:
        fitted = now.fit(problem.rows, start, kind, now.n_iter)
        with one_torch_thread():
            squares = (
                held_out_squares(dynamics, fitted.weights, problem)[0] if can_decide(problem) else torch.empty(0, 0)
            )
        return Reading(now, kind, fitted, squares)

    def lines(now: Readers, weights: Weights, ridge: float = 0.0) -> Reading:
        start = {name: value if name in now.linear else torch.zeros_like(value) for name, value in weights.items()}
        return read(now, start, Candidate(now.linear, weight_decay, ridge))

    def road(first: Reading, weights: Weights) -> Reading:
        now = first.readers
        others = [lines(now, weights, ridge) for ridge in RIDGES]
        start = {**weights, **{name: first.fitted.weights[name] for name in now.linear}}
        for factor in DECAYS:
            others.append(read(now, start, Candidate(tuple(weights), factor * weight_decay)))
            start = others[-1].fitted.weights
        return first.unless(others)

    selected = lines(readers, drawn)
    if not can_decide(problem):
        return selected
    best = road(selected, drawn)
    if torch.equal(readers.own, readers.shared):
        return best
    every = readers.sharing(readers.own, drawn)
    together = lines(*every)
    gain = (together.squares - selected.squares)[:, problem.moving]
    alone = torch.zeros(len(readers.own), 1, dtype=torch.bool, device=readers.own.device)
    alone[problem.moving, 0] = gain.mean(0) > EVIDENCE * gain.std(0) / len(gain) ** 0.5
    some = readers.sharing(torch.where(alone, readers.shared, readers.own), drawn)
    apart = lines(*some)
    other, weights = (together, every[1]) if together.errors.mean() <= apart.errors.mean() else (apart, some[1])
    if bool(clearly_lower(best.errors, other.errors)) or not bool(clearly_lower(other.errors, selected.errors)):
        return best
    return best.unless([road(other, weights)])
