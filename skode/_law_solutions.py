"""Solutions of polynomial laws along windows, and their derivatives by starts and coefficients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from skode.fields import PolynomialField
from skode.objectives import Windows

FARTHEST = 50.0
"""Standard units at which solutions are held, so that a law that runs away is bad and not infinite."""


def solve_law(
    field: PolynomialField,
    coefficients: torch.Tensor,
    rate: torch.Tensor,
    start: torch.Tensor,
    windows: Windows,
    n_steps: int,
    columns: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """States of dx/dt = rate * F at the times of windows, and their derivatives by the start and by some coefficients.

    Derivatives are those of the Runge-Kutta steps' own order, not of their rounding: they solve the equation of first
    variation with the same steps.

    Parameters
    ----------
    field : PolynomialField
    coefficients : tensor  # (target, term)
    rate : tensor  # (target,)
    start : tensor  # (window, target)
    windows : Windows
        Whose times and inputs are read.
    n_steps : int
        Steps per window.
    columns : tensor of int, optional  # (column, 2)
        Target and term of every coefficient by which derivatives are asked for.

    Returns
    -------
    tensor  # (window, time, target)
    tensor  # (window, time, target, target + column); empty if no columns are named
    """
    times, inputs, x = windows.times, windows.inputs, start
    step = times[:, -1] / n_steps
    h, hh = step[:, None], step[:, None, None]
    place = times / step.clamp_min(1e-30)[:, None]
    cell = (place.ceil() - 1.0).clamp(0.0, n_steps - 1.0)
    inside = place - cell
    d, steps = len(rate), coefficients * rate[:, None]
    states = x.new_empty(*times.shape, d)
    n = d + (0 if columns is None else len(columns))
    tangents = x.new_empty(0) if columns is None else x.new_empty(*times.shape, d, n)
    tangent = x.new_zeros(len(x), d, n)
    tangent[:, range(d), range(d)] = 1.0
    forced = x.new_zeros(d, n - d)
    if columns is not None:
        forced[columns[:, 0], torch.arange(len(columns), device=x.device)] = rate[columns[:, 0]]

    def speed(x: torch.Tensor) -> _Speed:
        z = torch.cat([x, inputs], dim=-1)
        if columns is None:
            return _Speed(field.values(z) @ steps.mT, z, z)
        values, derivatives = field.with_derivatives(z)
        return _Speed(values @ steps.mT, steps @ derivatives[..., :d], values[:, columns[:, 1]].unsqueeze(1))

    def turn(at: _Speed, tangent: torch.Tensor) -> torch.Tensor:
        out = at.jacobian @ tangent
        out[..., d:] += forced * at.values
        return out

    first = speed(x)
    for k in range(n_steps):
        second = speed(x + 0.5 * h * first.slope)
        third = speed(x + 0.5 * h * second.slope)
        fourth = speed(x + h * third.slope)
        total = first.slope + 2.0 * (second.slope + third.slope) + fourth.slope
        after = (x + h / 6.0 * total).clamp(-FARTHEST, FARTHEST)
        last = speed(after)
        window, time = (cell == k).nonzero(as_tuple=True)
        shares = _hermite(inside[window, time].unsqueeze(-1), h[window])
        states[window, time] = _mixed(shares, [part[window] for part in (x, after, first.slope, last.slope)])
        if columns is not None:
            t1 = turn(first, tangent)
            t2 = turn(second, tangent + 0.5 * hh * t1)
            t3 = turn(third, tangent + 0.5 * hh * t2)
            t4 = turn(fourth, tangent + hh * t3)
            turned = tangent + hh / 6.0 * (t1 + 2.0 * (t2 + t3) + t4)
            ends = [part[window] for part in (tangent, turned, t1, turn(last, turned))]
            tangents[window, time] = _mixed([share.unsqueeze(-1) for share in shares], ends)
            tangent = turned
        x, first = after, last
    return states, tangents


class _Speed(NamedTuple):
    """dx/dt at some states; what it is differentiated by is only there where derivatives are asked for."""

    slope: torch.Tensor  # (window, target)
    jacobian: torch.Tensor  # (window, target, target)
    values: torch.Tensor  # (window, 1, column), monomials


def _mixed(shares: Sequence[torch.Tensor], parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """The sum of parts times their shares."""
    out = shares[0] * parts[0]
    for share, part in zip(shares[1:], parts[1:], strict=True):
        out = out.addcmul_(share.expand_as(part), part)
    return out


def _hermite(u: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Shares of the states at both ends of a step and of the slopes there, at a place u in it (see ``hermite``)."""
    v = 1.0 - u
    return (1.0 + 2.0 * u) * v**2, u**2 * (3.0 - 2.0 * u), h * u * v**2, -h * u**2 * v
