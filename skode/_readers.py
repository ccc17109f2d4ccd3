"""What reads the selected sources: own or shared decay, how strong lines, or networks; held-out windows decide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

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

    def lines(self, drawn: Weights, weight_decay: float, ridge: float = 0.0) -> tuple[Candidate, Refit]:
        """Fit lines to the rows that are not held out."""
        kind = Candidate(self.linear, weight_decay, ridge)
        start = {name: value if name in self.linear else torch.zeros_like(value) for name, value in drawn.items()}
        return kind, self.fit(self.problem.rows, start, kind, self.n_iter)

    def go_on(self, rows: Rows, fitted: Refit, kind: Candidate) -> Refit:
        """Fit to all rows, from a fit to a part of them or to rows that were nearly the same."""
        return self.fit(rows, fitted.weights, kind, max(1, self.n_iter // 2))


def choose_decays(readers: Readers, drawn: Weights, dynamics: Dynamics, weight_decay: float) -> tuple[Readers, Weights]:
    """Let variables that were selected for themselves decay at the shared rate, if lines then forecast better.

    Noise in a variable's observations is in its slopes and in itself as a source, and what a line makes of a product
    looks like decay too: rows support rates that forecasts do not. The others on offer are: all share the rate; all but
    those whose own held-out windows are forecast better without by more than 1.64 standard errors. The better one of
    these replaces what was selected where it forecasts held-out windows better by as much.

    Parameters
    ----------
    readers : Readers
        As selected.
    drawn : dict of tensors  # (1, ...)
    dynamics : Dynamics
    weight_decay : float

    Returns
    -------
    readers : Readers
    drawn : dict of tensors  # (1, ...)
    """
    moving = readers.problem.moving
    if torch.equal(readers.own, readers.shared) or not can_decide(readers.problem):
        return readers, drawn

    def attempt(shared: torch.Tensor) -> tuple[tuple[Readers, Weights], torch.Tensor]:
        other = readers.sharing(shared, drawn)
        return other, _squares(dynamics, other[0].lines(other[1], weight_decay)[1], readers.problem)

    _, selected = attempt(readers.shared)
    every, together = attempt(readers.own)
    alone = torch.zeros(len(readers.own), dtype=torch.bool, device=readers.own.device)
    gain = together - selected
    alone[moving] = (gain.mean(0) > EVIDENCE * gain.std(0) / len(gain) ** 0.5)[moving]
    some, mixed = attempt(torch.where(alone.unsqueeze(-1), readers.shared, readers.own))
    errors = [squares[:, moving].sum(-1).sqrt() for squares in (selected, together, mixed)]
    other, error = (every, errors[1]) if errors[1].mean() <= errors[2].mean() else (some, errors[2])
    return other if bool(clearly_lower(error, errors[0])) else (readers, drawn)


def choose_readers(
    readers: Readers, drawn: Weights, dynamics: Dynamics, weight_decay: float
) -> tuple[Candidate, Refit]:
    """Fit lines and networks to the rows that are not held out, and keep the richer or stricter only on evidence.

    First, lines without a price or the best of those that have one; then these lines or the better of the networks,
    held more and less strongly. What comes second must forecast held-out windows better by more than 1.64 standard
    errors of the paired differences, over all targets. Interval rows would not do: denoised sources and raw targets
    share noise, which a network can learn. One decision serves all targets, as in ``narrow``.

    Parameters
    ----------
    readers : Readers
    drawn : dict of tensors  # (1, ...)
    dynamics : Dynamics
    weight_decay : float

    Returns
    -------
    Candidate
    Refit
    """
    chosen = readers.lines(drawn, weight_decay)
    if not can_decide(readers.problem):
        return chosen
    priced = [readers.lines(drawn, weight_decay, ridge) for ridge in RIDGES]
    chosen = _better(chosen, priced, dynamics, readers.problem)
    kind, now = chosen[0], {**drawn, **{name: chosen[1].weights[name] for name in readers.linear}}
    networks = []
    for factor in DECAYS:
        rich = Candidate(tuple(drawn), factor * weight_decay, kind.ridge)
        networks.append((rich, readers.fit(readers.problem.rows, now, rich, readers.n_iter)))
        now = networks[-1][1].weights
    return _better(chosen, networks, dynamics, readers.problem)


_Fit: TypeAlias = tuple[Candidate, Refit]


def _better(first: _Fit, others: Sequence[_Fit], dynamics: Dynamics, problem: Problem) -> _Fit:
    """The best of the others where it forecasts held-out windows clearly better than the first, else that."""
    errors = [_squares(dynamics, fitted, problem)[:, problem.moving].sum(-1).sqrt() for _, fitted in others]
    best = min(range(len(others)), key=lambda k: float(errors[k].mean().nan_to_num(torch.inf)))
    before = _squares(dynamics, first[1], problem)[:, problem.moving].sum(-1).sqrt()
    return others[best] if bool(clearly_lower(errors[best], before)) else first


def _squares(dynamics: Dynamics, fitted: Refit, problem: Problem) -> torch.Tensor:
    """Squared errors of forecasts of held-out windows.  # (window, target)"""
    with one_torch_thread():
        return held_out_squares(dynamics, fitted.weights, problem)[0]
