"""Bilinear units where they earn their keep: refit with and without, and let held-out forecasts decide."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch

from skode._dynamics import Dynamics
from skode._problem import Problem
from skode._typing import Weights
from skode.fields import PerTargetField
from skode.objectives import Windows, solve_windows, window_starts

N_BILINEAR = 4
"""Products of linear forms on offer: with the linear skip, enough for a quadratic law of a few variables."""
FEWEST = 6
"""Held-out windows below which there is no deciding: a standard error from six is known to a third."""
EVIDENCE = 1.64
"""Standard errors by which held-out errors must fall before a richer model is taken: one-sided, 5 %."""
STEPS_PER_OBSERVATION = 4
FAR = 1e3
"""Standard units at which a forecast that fails is put."""


class Wide(NamedTuple):
    """Two models for each: without and with bilinear units, side by side on the model axis."""

    field: PerTargetField
    params: Weights  # (2 * model, ...)
    frozen: Weights  # (2 * model, ...)


class Narrow(NamedTuple):
    """One model for each again."""

    field: PerTargetField
    params: Weights  # (model, ...)
    frozen: Weights  # (model, ...)
    chosen: torch.Tensor  # (model,) place on the doubled model axis
    gains: torch.Tensor  # (model, window), by how much bilinear units lower the error of a held-out forecast


def widened(field: PerTargetField) -> PerTargetField:
    """The same field with bilinear units on offer."""
    return replace(field, n_bilinear=N_BILINEAR)


def widen(field: PerTargetField, params: Weights, frozen: Weights, drawn: Weights) -> Wide:
    """Double the model axis; the second half may use bilinear units on the edges that it has.

    Parameters
    ----------
    field : PerTargetField
        Without bilinear units.
    params, frozen : dict of tensors  # (model, ...)
    drawn : dict of tensors  # (model, ...)
        Initial weights of ``widened(field)``.

    Returns
    -------
    Wide
    """
    some = params["K"]
    n_models = some.shape[0]
    open_edges = field.by_variable(field.paths(params)) > 0
    columns = field.to_sources(open_edges).unsqueeze(-2).to(some.dtype)  # (model, target, 1, source)
    masks = {name: torch.cat([value.expand_as(params[name])] * 2) for name, value in frozen.items()}
    for name in ("P", "R"):
        mask = columns.expand(-1, -1, N_BILINEAR, -1)
        masks[name] = torch.cat([torch.zeros_like(mask), mask])
        params = {**params, name: torch.zeros_like(mask)}
    # The second half starts afresh: a network that has already bent itself to a product would leave it no work.
    doubled = {name: torch.cat([value, drawn[name]]) * masks[name] for name, value in params.items()}
    assert all(value.shape[0] == 2 * n_models for value in doubled.values())
    return Wide(widened(field), doubled, masks)


def narrow(wide: Wide, params: Weights, problem: Problem, dynamics: Dynamics, *, taken: bool = False) -> Narrow:
    """Keep the better half of the model axis, model by model.

    Bilinear units are kept where they lower the error of forecasts of held-out windows, over all targets, by more than
    1.64 standard errors of the paired differences. Interval rows would not do: a product that fits them may run
    away. One decision serves all targets: a law is polynomial or it is not, and the sum tells the two apart with
    far fewer windows than any single target.

    Parameters
    ----------
    wide : Wide
    params : dict of tensors  # (2 * model, ...), after training
    problem : Problem
    dynamics : Dynamics
    taken : bool
        Keep bilinear units whatever the windows say.

    Returns
    -------
    Narrow
        With the model axis as before; without bilinear units if no model keeps them.
    """
    plain, bilinear = forecast_errors(replace(dynamics, field=wide.field), params, problem).chunk(2)  # (model, window)
    keep = clearly_lower(bilinear, plain) | taken  # (model,)
    chosen = torch.arange(len(keep), device=keep.device) + len(keep) * keep
    field, names = wide.field, list(params)
    if not bool(keep.any()):
        field, names = replace(wide.field, n_bilinear=0), [name for name in names if name not in ("P", "R")]
    kept = {name: params[name][chosen] for name in names}
    return Narrow(field, kept, {name: wide.frozen[name][chosen] for name in names}, chosen, plain - bilinear)


def clearly_lower(errors: torch.Tensor, than: torch.Tensor) -> torch.Tensor:
    """Whether paired errors are lower by more than 1.64 standard errors on average; False for nan.

    Parameters
    ----------
    errors, than : tensor  # (..., window)

    Returns
    -------
    tensor of bool  # (...)
    """
    return lead(errors, than) > EVIDENCE


def lead(errors: torch.Tensor, than: torch.Tensor) -> torch.Tensor:
    """By how many standard errors paired errors are lower on average; nan where they are the same.

    Parameters
    ----------
    errors, than : tensor  # (..., window)

    Returns
    -------
    tensor  # (...)
    """
    gain = than - errors
    ahead: torch.Tensor = gain.mean(dim=-1) / (gain.std(dim=-1) / gain.shape[-1] ** 0.5)
    return ahead


def forecast_errors(dynamics: Dynamics, weights: Weights, problem: Problem) -> torch.Tensor:
    """Root of the squared errors of forecasts of every held-out window, over all targets; large where a solution fails.

    The root, because a few windows in which any forecast fails would make most of the squares, and of their spread. In
    25 pairs of fits with and without bilinear units, on Lorenz-96, gene, ecological, chemical and chaotic systems, they
    lowered the error on new trajectories by a tenth or more in 16 and raised it so in 6; eleven of the former and none
    of the latter pass 1.64 standard errors of the roots, five and none 2 of the squares.

    Parameters
    ----------
    dynamics : Dynamics
    weights : dict of tensors  # (model, ...)
    problem : Problem
        With windows held out.

    Returns
    -------
    tensor  # (model, window), float64
    """
    squares = held_out_squares(dynamics, weights, problem)
    return squares[..., problem.moving].sum(-1).sqrt()


def held_out_squares(dynamics: Dynamics, weights: Weights, problem: Problem) -> torch.Tensor:
    """Squared errors of forecasts of every held-out window, summed over its times, in units of the zero model's.

    Parameters
    ----------
    dynamics : Dynamics
    weights : dict of tensors  # (model, ...)
    problem : Problem
        With windows held out.

    Returns
    -------
    tensor  # (model, window, target), float64; large where a solution fails
    """
    assert problem.held_windows is not None
    windows = Windows(*(part if part.dtype == torch.long else part.double() for part in problem.held_windows))
    weights = {name: value.double() for name, value in weights.items()}
    n_steps = STEPS_PER_OBSERVATION * max(1, -(-(windows.times.shape[1] - 1) // problem.oversampling))
    n_models = len(next(iter(weights.values())))
    with torch.no_grad():
        states = solve_windows(dynamics, weights, windows, window_starts(windows, None, n_models), n_steps=n_steps)
        states = states.nan_to_num(nan=FAR).clamp(-FAR, FAR)[..., : windows.targets.shape[-1]]
    squares: torch.Tensor = windows.weights * (windows.targets - states) ** 2 / problem.shooting.double()
    return squares.sum(2)


def can_widen(field: PerTargetField, problem: Problem) -> bool:
    """Whether there are no bilinear units yet, and enough held-out windows to decide by."""
    return field.n_bilinear == 0 and can_decide(problem)


def can_decide(problem: Problem) -> bool:
    """Whether there are enough held-out windows to decide by."""
    return problem.held_windows is not None and len(problem.held_windows.start) >= FEWEST
