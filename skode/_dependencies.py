"""Who drives whom: Jacobians of a fitted field over the data."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from skode._dynamics import tensor
from skode._prepared import Prepared
from skode._problem import Problem
from skode._typing import AnyArray, FloatArray, Weights, ranking_type
from skode.fields import AbstractField

SIGN_AGREEMENT = 0.9
"""|mean J| / mean |J| from which an edge has a sign."""


CHUNK_ENTRIES = 2.5e5
"""Entries of Jacobians that are held at a time."""


class Dependencies(NamedTuple):
    matrix: FloatArray
    scores: AnyArray  # of ``ranking_type``
    effect: FloatArray
    sign: AnyArray  # of int8


def find_dependencies(
    field: AbstractField, weights: Weights, pilot: torch.Tensor, prepared: Prepared, problem: Problem
) -> Dependencies:
    """Jacobians over the data, in units of sd(source) and sd(slope).

    matrix_ij = RMS of (d f_i / d x_j) sd(x_j) / sd(dx_i/dt), 0 without a path. With velocities a variable has two
    parts; magnitudes add in squares, and sign and effect are those of the larger part.
    """
    knots = problem.knots.double()
    slope_sd = tensor(prepared.slope_sd, knots)
    moving = slope_sd > 1e-9
    varies = (tensor(prepared.knot_sources.std(axis=0), knots) > 1e-9).double().expand(field.n_targets, -1)
    own_unit = torch.where(moving, slope_sd, torch.inf)[:, None]
    mean, size, rms = _moments(field, weights, knots, field.to_columns(varies) / own_unit)
    signed = torch.where(mean.abs() >= SIGN_AGREEMENT * size, mean.sign(), 0.0).to(torch.int8)
    if field.variable_of_source == tuple(range(field.n_sources)):  # all in columns: few, where they are packed
        opened = field.to_columns(field.paths(weights)[0]) > 0
        matrix, effect, sign = (field.to_wide(part.where(opened, 0)) for part in (rms.sqrt(), mean, signed))
    else:
        paths = field.paths(weights)[0]
        mean, signed, rms = (field.to_wide(part) for part in (mean, signed, rms))
        opened, largest = field.by_variable(paths) > 0, _largest_source(field, rms)
        whole = (field.by_variable(rms).sqrt(), mean.gather(-1, largest), signed.gather(-1, largest))
        matrix, effect, sign = (part.where(opened, 0) for part in whole)
    kind = torch.float32 if ranking_type(tuple(matrix.shape)) == np.float32 else torch.float64
    scores = (pilot.to(kind) / own_unit.to(kind)).add_(matrix)
    return Dependencies(
        matrix=matrix.cpu().numpy(),
        scores=scores.cpu().numpy(),
        effect=effect.cpu().numpy(),
        sign=sign.cpu().numpy(),
    )


def _moments(
    field: AbstractField, weights: Weights, knots: torch.Tensor, unit: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean, mean size and mean square of derivatives in units (target, column) over the knots, a few at a time."""
    total = torch.zeros(3, *unit.shape, dtype=unit.dtype, device=unit.device)
    for some in torch.split(knots, max(1, int(CHUNK_ENTRIES / unit.numel())), dim=1):
        scaled = field.column_jacobian(weights, some)[0] * unit  # (sample, target, column)
        total += torch.stack([scaled.sum(0), scaled.abs().sum(0), scaled.square().sum(0)])
    mean, size, square = total / knots.shape[1]
    return mean, size, square


def _largest_source(field: AbstractField, rms: torch.Tensor) -> torch.Tensor:
    """For every variable the source through which it acts most.  # (target, variable)"""
    owner = torch.tensor(field.variable_of_source, device=rms.device)
    columns = []
    for variable in range(field.n_variables):
        mine = torch.nonzero(owner == variable)[:, 0]
        columns.append(mine[rms[:, mine].argmax(-1)])
    return torch.stack(columns, dim=-1)
