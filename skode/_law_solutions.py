"""Solutions of polynomial laws along windows, and their derivatives by starts and coefficients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from skode.fields import PolynomialField
from skode.objectives import Windows

FARTHEST = 50.0
"""Standard units at which solutions are held, so that a law that runs away is bad and not infinite."""
ROUNDING = 1e-9
"""Steps by which an observation may be beside the end of one and still be there."""


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
        Target and term of every coefficient by which derivatives are asked for, target after target.

    Returns
    -------
    tensor  # (window, time, target)
    tensor  # (window, time, target, target + column); empty if no columns are named
    """
    times, inputs, x = windows.times, windows.inputs, start
    step = times[:, -1] / n_steps
    h, hh = step[:, None], step[:, None, None]
    place = times / step.clamp_min(1e-30)[:, None]
    place = torch.where((place - place.round()).abs() < ROUNDING, place.round(), place)
    cell = (place.ceil() - 1.0).clamp(0.0, n_steps - 1.0)
    inside = place - cell
    d, steps = len(rate), coefficients * rate[:, None]
    states = x.new_empty(*times.shape, d)
    tangents = tangent = x.new_empty(0)
    forced: list[_Forced] = []
    window, time = (place <= 0.0).nonzero(as_tuple=True)
    states[window, time] = x[window]
    if columns is not None:
        n, forced = d + len(columns), _forced(columns, rate)
        tangents = x.new_empty(*times.shape, d, n)
        tangent = torch.eye(d, n, dtype=x.dtype, device=x.device).repeat(len(x), 1, 1)
        tangents[window, time] = tangent[window]

    def speed(x: torch.Tensor) -> _Speed:
        z = torch.cat([x, inputs], dim=-1)
        if columns is None:
            values = field.values(z)
            return _Speed(values @ steps.mT, values, values)
        values, derivatives = field.with_derivatives(z)
        return _Speed(values @ steps.mT, values, steps @ derivatives[..., :d])

    first = speed(x)
    for k in range(n_steps):
        second = speed(x + 0.5 * h * first.slope)
        third = speed(x + 0.5 * h * second.slope)
        fourth = speed(x + h * third.slope)
        total = first.slope + 2.0 * (second.slope + third.slope) + fourth.slope
        after = (x + h / 6.0 * total).clamp(-FARTHEST, FARTHEST)
        last = speed(after)
        window, time = ((cell == k) & (inside == 1.0)).nonzero(as_tuple=True)
        states[window, time] = after[window]
        within, when = ((cell == k) & (inside > 0.0) & (inside < 1.0)).nonzero(as_tuple=True)
        shares = _hermite(inside[within, when].unsqueeze(-1), h[within])
        states[within, when] = _mixed(shares, [part[within] for part in (x, after, first.slope, last.slope)])
        if columns is not None:
            turned = _turned(tangent, (first, second, third, fourth), hh, forced)
            tangents[window, time] = turned[window]
            if len(within):
                speeds = [part[within] for part in (tangent, turned)]
                speeds += [_speed_of(one, at, within, forced) for one, at in zip(speeds, (first, last), strict=True)]
                tangents[within, when] = _mixed([share.unsqueeze(-1) for share in shares], speeds)
            tangent = turned
        x, first = after, last
    return states, tangents


class _Speed(NamedTuple):
    """dx/dt at some states, and what its derivatives are made of; monomials stand for all where none are asked for."""

    slope: torch.Tensor  # (window, target)
    values: torch.Tensor  # (window, term), monomials
    jacobian: torch.Tensor  # (window, target, target)


class _Forced(NamedTuple):
    """Columns of one target: a coefficient speeds up its target alone."""

    target: int
    rate: torch.Tensor
    terms: torch.Tensor  # (column,)
    place: slice  # among derivatives


def _forced(columns: torch.Tensor, rate: torch.Tensor) -> list[_Forced]:
    """Columns of every target that has some, which lie side by side."""
    targets, d = columns[:, 0].contiguous(), len(rate)
    found = []
    for target in sorted(set(targets.tolist())):
        low, high = torch.searchsorted(targets, torch.tensor([target, target + 1], device=rate.device)).tolist()
        found.append(_Forced(target, rate[target], columns[low:high, 1], slice(d + low, d + high)))
    return found


def _turned(
    tangent: torch.Tensor, stages: tuple[_Speed, _Speed, _Speed, _Speed], hh: torch.Tensor, forced: list[_Forced]
) -> torch.Tensor:
    r"""Derivatives after a step, of which every stage has its share.

    .. math:: T' = T + \sum_s P_s (J_s T + F_s), \qquad P_4 = h / 6, \quad P_s = b_s h + c_{s+1} h P_{s+1} J_{s+1}

    The P_s are of states alone, and few, so that the many columns of T are read once.
    """
    one = torch.eye(tangent.shape[1], dtype=hh.dtype, device=hh.device)
    shares = [hh / 6.0 * one]
    for weight, reach, later in zip((3.0, 3.0, 6.0), (1.0, 0.5, 0.5), stages[:0:-1], strict=True):
        shares.append(hh / weight * one + reach * hh * (shares[-1] @ later.jacobian))
    shares.reverse()
    across = one + sum(share @ at.jacobian for share, at in zip(shares, stages, strict=True))
    turned = across @ tangent
    every, values = torch.stack(shares, dim=-1), torch.stack([at.values for at in stages], dim=1)
    for own in forced:  # (window, target, stage) @ (window, stage, column)
        turned[..., own.place] += (own.rate * every[:, :, own.target]) @ values[:, :, own.terms]
    return turned


def _speed_of(tangent: torch.Tensor, at: _Speed, window: torch.Tensor, forced: list[_Forced]) -> torch.Tensor:
    """dT/dt of some windows."""
    out = at.jacobian[window] @ tangent
    for own in forced:
        out[:, own.target, own.place] += own.rate * at.values[window][:, own.terms]
    return out


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
