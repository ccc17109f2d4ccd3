"""Who drives whom: Jacobians of a fitted field over the data."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from skode._dynamics import tensor
from skode._prepare import Prepared
from skode._problem import Problem
from skode._typing import FloatArray, IntArray, Weights
from skode.fields import AbstractField

SIGN_AGREEMENT = 0.9
"""|mean J| / mean |J| from which an edge has a sign."""


CHUNK_ENTRIES = 2e6
"""Entries of Jacobians that are held at a time."""


class Dependencies(NamedTuple):
    matrix: FloatArray
    scores: FloatArray
    effect: FloatArray
    sign: IntArray


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
    varies = tensor(prepared.knot_sources.std(axis=0), knots) > 1e-9
    unit = varies / torch.where(moving, slope_sd, torch.inf)[:, None]  # (target, source)
    open_paths = field.by_variable(field.paths(weights)[0]) > 0
    mean, size, rms = _moments(field, weights, knots, unit)
    matrix = torch.where(open_paths, field.by_variable(rms).sqrt(), 0.0)
    signed = torch.where(mean.abs() >= SIGN_AGREEMENT * size, mean.sign(), 0.0)
    largest = _largest_source(field, rms)
    effect = torch.where(open_paths, mean.gather(-1, largest), 0.0)
    sign = torch.where(open_paths, signed.gather(-1, largest), 0.0)
    early = pilot.double() / torch.where(moving, slope_sd, torch.inf)[:, None]
    return Dependencies(
        matrix=matrix.cpu().numpy(),
        scores=(matrix + early).cpu().numpy(),
        effect=effect.cpu().numpy(),
        sign=sign.cpu().numpy().astype(np.int8),
    )


def _moments(
    field: AbstractField, weights: Weights, knots: torch.Tensor, unit: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean, mean size and mean square of scaled derivatives over the knots, a few knots at a time."""
    unit = field.to_columns(unit)
    total = torch.zeros(3, *unit.shape, dtype=unit.dtype, device=unit.device)
    for some in torch.split(knots, max(1, int(CHUNK_ENTRIES / unit.numel())), dim=1):
        scaled = field.column_jacobian(weights, some)[0] * unit  # (sample, target, column)
        total += torch.stack([scaled.sum(0), scaled.abs().sum(0), scaled.square().sum(0)])
    mean, size, square = field.to_wide(total / knots.shape[1])
    return mean, size, square


def _largest_source(field: AbstractField, rms: torch.Tensor) -> torch.Tensor:
    """For every variable the source through which it acts most.  # (target, variable)"""
    if field.variable_of_source == tuple(range(field.n_sources)):
        return torch.arange(field.n_sources, device=rms.device).expand_as(rms)
    owner = torch.tensor(field.variable_of_source, device=rms.device)
    columns = []
    for variable in range(field.n_variables):
        mine = torch.nonzero(owner == variable)[:, 0]
        columns.append(mine[rms[:, mine].argmax(-1)])
    return torch.stack(columns, dim=-1)
