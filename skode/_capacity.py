"""Bilinear units where they earn their keep: refit every target with and without, and let held-out rows decide."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch

from skode._problem import Problem
from skode._typing import Weights
from skode.fields import AbstractField, PerTargetField
from skode.objectives import matching_errors

N_BILINEAR = 4
"""Products of linear forms on offer: with the linear skip, enough for a quadratic law of a few variables."""
EVIDENCE = 2.0
"""Standard errors by which held-out errors must fall before a target gets bilinear units."""


class Wide(NamedTuple):
    """Two models for each: without and with bilinear units, side by side on the model axis."""

    field: PerTargetField
    params: Weights  # (2 * model, ...)
    frozen: Weights  # (2 * model, ...)


def widen(field: PerTargetField, params: Weights, frozen: Weights, generator: torch.Generator) -> Wide:
    """Double the model axis; the second half may use bilinear units on the edges that it has.

    Parameters
    ----------
    field : PerTargetField
        Without bilinear units.
    params, frozen : dict of tensors  # (model, ...)
    generator : torch.Generator
        Source of the initial bilinear factors.

    Returns
    -------
    Wide
    """
    some = params["K"]
    n_models = some.shape[0]
    wide = replace(field, n_bilinear=N_BILINEAR)
    drawn = wide.init(generator, n_models=1, dtype=some.dtype, device=some.device)
    open_edges = field.by_variable(field.paths(params)) > 0
    columns = field.to_sources(open_edges).unsqueeze(-2).to(some.dtype)  # (model, target, 1, source)
    doubled = {name: torch.cat([value, value]) for name, value in params.items()}
    masks = {name: torch.cat([value.expand_as(params[name])] * 2) for name, value in frozen.items()}
    for name in ("P", "R"):
        mask = columns.expand(-1, -1, N_BILINEAR, -1)
        masks[name] = torch.cat([torch.zeros_like(mask), mask])
        doubled[name] = masks[name] * drawn[name]
    assert all(value.shape[0] == 2 * n_models for value in doubled.values())
    return Wide(wide, doubled, masks)


def narrow(wide: Wide, params: Weights, problem: Problem) -> Wide:
    """Keep, target by target, the better half of the model axis.

    Bilinear units are kept where they lower the held-out error of the interval rows by more than two standard
    errors of the paired differences.

    Parameters
    ----------
    wide : Wide
    params : dict of tensors  # (2 * model, ...), after training
    problem : Problem

    Returns
    -------
    Wide
        With the model axis as before; without bilinear units if no target keeps them.
    """
    rows = problem.held_rows
    assert rows is not None
    with torch.no_grad():
        plain, bilinear = matching_errors(wide.field, params, rows).chunk(2)  # (model, row, target)
    gain = (plain - bilinear).double()
    error = gain.std(dim=1) / gain.shape[1] ** 0.5
    keep = (gain.mean(dim=1) > EVIDENCE * error) & torch.isfinite(gain).all(dim=1)  # (model, target)

    def merge(value: torch.Tensor) -> torch.Tensor:
        without, with_units = value.chunk(2)
        return torch.where(keep.view(*keep.shape, *[1] * (value.ndim - 2)), with_units, without)

    merged = {name: merge(value) for name, value in params.items()}
    frozen = {name: merge(value) for name, value in wide.frozen.items()}
    if bool(keep.any()):
        return Wide(wide.field, merged, frozen)
    plain_field = replace(wide.field, n_bilinear=0)
    names = [name for name in merged if name not in ("P", "R")]
    return Wide(plain_field, {n: merged[n] for n in names}, {n: frozen[n] for n in names})


def can_widen(field: AbstractField, problem: Problem) -> bool:
    """Whether there are targets to widen one by one, and held-out rows to decide by."""
    return isinstance(field, PerTargetField) and field.n_bilinear == 0 and problem.held_rows is not None
