"""What reads the sources that were selected: own or shared decay, lines or networks; held-out windows decide."""

from __future__ import annotations

from typing import NamedTuple

import torch

from skode._capacity import EVIDENCE, can_decide, clearly_lower, forecast_errors, held_out_squares
from skode._dynamics import Dynamics
from skode._parallel import one_torch_thread
from skode._problem import Problem
from skode._refit import Refit, refit
from skode._typing import BoolArray, FloatArray, Weights
from skode.fields import PackedField
from skode.objectives import Rows

DECAYS = (1.0, 0.01)
"""Weight decay of networks on offer, in units of the estimator's: data that are nearly clean want hardly any."""


class Candidate(NamedTuple):
    """What may bend, and how strongly it is held."""

    free: tuple[str, ...]
    weight_decay: float


class Readers(NamedTuple):
    """Least squares on one support; what does not change from fit to fit."""

    field: PackedField
    problem: Problem
    decay: torch.Tensor  # (target,) rate that all share, in standard units
    own: torch.Tensor  # (target, slot) of bool, the column of the variable itself
    shared: (
        torch.Tensor
    )  # (target, slot) of bool, columns of variables that decay at the shared rate and do nothing else
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
            free=kind.free,
            fixed=self.shared,
            n_iter=n_iter,
        )

    def lines(self, drawn: Weights, weight_decay: float) -> tuple[Candidate, Refit]:
        """Fit lines to the rows that are not held out."""
        kind = Candidate(self.linear, weight_decay)
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
    """Fit lines and networks to the rows that are not held out, and keep the better network only on evidence.

    A network must forecast held-out windows better than lines by more than 1.64 standard errors of the paired
    differences, over all targets; of networks held more and less strongly the one that forecasts better competes.
    Interval rows would not do: denoised sources and raw targets share noise, which a network can learn. One decision
    serves all targets, as in ``narrow``.

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
    problem = readers.problem
    chosen, best = readers.lines(drawn, weight_decay)
    if can_decide(problem):
        now = {**drawn, **{name: best.weights[name] for name in readers.linear}}
        tried = []
        for factor in DECAYS:
            rich = Candidate(tuple(drawn), factor * weight_decay)
            fitted = readers.fit(problem.rows, now, rich, readers.n_iter)
            tried.append((rich, fitted, _errors(dynamics, fitted, problem)))
            now = fitted.weights
        rich, fitted, errors = min(tried, key=lambda one: float(one[2].mean().nan_to_num(torch.inf)))
        if bool(clearly_lower(errors, _errors(dynamics, best, problem))):
            chosen, best = rich, fitted
    return chosen, best


def _squares(dynamics: Dynamics, fitted: Refit, problem: Problem) -> torch.Tensor:
    """Squared errors of forecasts of held-out windows.  # (window, target)"""
    with one_torch_thread():
        return held_out_squares(dynamics, fitted.weights, problem)[0]


def _errors(dynamics: Dynamics, fitted: Refit, problem: Problem) -> torch.Tensor:
    """Errors of forecasts of held-out windows, over all targets.  # (window,)"""
    with one_torch_thread():
        return forecast_errors(dynamics, fitted.weights, problem)[0]
