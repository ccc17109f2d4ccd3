"""The classical Runge-Kutta scheme with a fixed step per trajectory, and its cubic interpolant."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch

Slope: TypeAlias = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""slope(t, x, index) -> dx/dt (model, trajectory, state), where t is (model, trajectory), x is
(model, trajectory, state) and index (trajectory,) says which trajectories these are among the caller's."""

BOUND = 1e12


class Nodes(NamedTuple):
    """States and slopes on the grid of each trajectory; nan from the step on in which a trajectory failed."""

    states: torch.Tensor  # (node, model, trajectory, state)
    slopes: torch.Tensor  # (node, model, trajectory, state)


class Step(NamedTuple):
    """One step: the slope at its start and the state at its end."""

    slope: torch.Tensor  # (model, trajectory, state)
    state: torch.Tensor  # (model, trajectory, state)


def rk4(
    slope: Slope,
    x0: torch.Tensor,
    step: torch.Tensor,
    n_steps: int,
    *,
    origin: torch.Tensor | None = None,
    index: torch.Tensor | None = None,
    bound: float = BOUND,
) -> Nodes:
    r"""Take `n_steps` steps of the classical Runge-Kutta scheme, each trajectory with its own step.

    .. math:: x_{k+1} = x_k + h (k_1 + 2 k_2 + 2 k_3 + k_4) / 6

    A trajectory that becomes non-finite, or larger than `bound`, is nan from there on, and its failed step
    leaves no trace in the graph of the gradient: all steps are taken again with that trajectory put back to its
    initial state from the failed step on, so that the neighbours' values and gradients, also those with respect
    to shared weights, are what they are without it.

    Parameters
    ----------
    slope : callable (t, x, index) -> dx/dt
        See `Slope`. It must treat trajectories separately and be finite at x0.
    x0 : tensor, shape (model, trajectory, state)
        Initial states.
    step : tensor, shape (trajectory,)
        Length of a step in units of time; negative steps integrate backwards.
    n_steps : int
        Number of steps, at least 1.
    origin : tensor, shape (trajectory,), default None
        What the field's clock shows at x0; None is 0.
    index : integer tensor, shape (trajectory,), default None
        Which trajectories these are, handed to `slope`; None is 0, 1, ...
    bound : float, default 1e12
        Largest absolute value that a state may have, in the units of the state.

    Returns
    -------
    Nodes
        (states, slopes) at elapsed times 0, step, ..., n_steps * step.

    References
    ----------
    .. [1] Hairer, Norsett & Wanner, "Solving Ordinary Differential Equations I", 1993, section II.1.

    Examples
    --------
    >>> import torch
    >>> x0 = torch.ones(1, 2, 1, dtype=torch.float64)
    >>> nodes = rk4(lambda t, x, index: -x, x0, torch.tensor([0.1, 0.2], dtype=torch.float64), 10)
    >>> nodes.states[-1].flatten().round(decimals=4).tolist()
    [0.3679, 0.1353]
    """
    clock = torch.zeros_like(step) if origin is None else origin
    index = torch.arange(x0.shape[-2], device=x0.device) if index is None else index
    nodes = walk(slope, x0, step, n_steps, clock, index, None)
    failed = failed_steps(nodes, bound)
    if failed is None:
        return nodes
    return blank(walk(slope, x0, step, n_steps, clock, index, failed), failed)


def walk(
    slope: Slope,
    x0: torch.Tensor,
    step: torch.Tensor,
    n_steps: int,
    clock: torch.Tensor,
    index: torch.Tensor,
    failed: torch.Tensor | None,
) -> Nodes:
    """Take all steps; a trajectory stays at x0, where the slope is finite, from step ``failed`` (model, trajectory) on.

    The slope is called 4 n_steps + 1 times, in the order of the stages.
    """
    states, slopes, x, h = [x0], [], x0, step[:, None]
    for k in range(n_steps):
        if failed is not None:
            x, h = restart(x, x0, failed, k), moving(step, failed, k)
        now = _step(slope, clock + k * step, x, step, h, index)
        x = now.state
        states.append(now.state)
        slopes.append(now.slope)
    if failed is not None:
        x = restart(x, x0, failed, n_steps)
    slopes.append(evaluate(slope, clock + n_steps * step, x, index))
    return Nodes(_stacked(states), _stacked(slopes))


def _stacked(parts: list[torch.Tensor]) -> torch.Tensor:
    """One after the other in memory, with the axes of each in the order in which it has them."""
    if parts[-1].mT.is_contiguous():  # fields put trajectories on the last axis
        return torch.stack([part.mT for part in parts]).mT
    return torch.stack(parts)


@torch.no_grad()
def failed_steps(nodes: Nodes, bound: float) -> torch.Tensor | None:
    """First step of every trajectory (model, trajectory) that starts with a bad slope or ends in a bad state.

    None where there is none: one look at the end, not one per step, so that a GPU need not be waited for. Step n,
    after the last, is its slope alone; n + 1 stands for never.
    """
    low, high = nodes.states.mT.aminmax()  # in the order in which they lie in memory
    lowest, highest, total = torch.stack((low, high, nodes.slopes.mT.sum())).tolist()
    if -bound <= lowest and highest <= bound and math.isfinite(total):  # false for nan
        return None
    bad = ~nodes.slopes.isfinite().all(dim=-1)  # (node, model, trajectory)
    bad[:-1] |= ~(nodes.states[1:].abs() <= bound).all(dim=-1)  # true for nan
    if not bool(bad.any()):
        return None
    return torch.where(bad.any(dim=0), bad.to(torch.uint8).argmax(dim=0), len(bad))


def blank(nodes: Nodes, failed: torch.Tensor) -> Nodes:
    """Replace what lies behind a failed step by nan."""
    lost_states, lost_slopes = lost(failed, len(nodes.states))
    return Nodes(torch.where(lost_states, torch.nan, nodes.states), torch.where(lost_slopes, torch.nan, nodes.slopes))


def lost(failed: torch.Tensor, n_nodes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Masks (node, model, trajectory, 1) of the states and of the slopes behind a failed step."""
    node = torch.arange(n_nodes, device=failed.device).view(-1, 1, 1, 1)
    return node > failed.unsqueeze(-1), node >= failed.unsqueeze(-1)


def restart(x: torch.Tensor, x0: torch.Tensor, failed: torch.Tensor, k: int) -> torch.Tensor:
    """Put trajectories that failed in step k, or before, back to x0."""
    return torch.where((failed <= k).unsqueeze(-1), x0, x)


def moving(step: torch.Tensor, failed: torch.Tensor, k: int) -> torch.Tensor:
    """The length by which states move in step k: 0 for those that failed.  # (model, trajectory, 1)"""
    return torch.where((failed <= k).unsqueeze(-1), 0.0, step[:, None])


def take_step(
    slope: Slope, t: torch.Tensor, x: torch.Tensor, step: torch.Tensor, index: torch.Tensor
) -> Step:  # t (trajectory,), x (model, trajectory, state), step (trajectory,)
    """Take one Runge-Kutta step of every trajectory."""
    return _step(slope, t, x, step, step[:, None], index)


def _step(
    slope: Slope, t: torch.Tensor, x: torch.Tensor, step: torch.Tensor, h: torch.Tensor, index: torch.Tensor
) -> Step:  # h broadcasts with x: the step by which states move, 0 for those that stay
    half = 0.5 * h
    middle = t + 0.5 * step
    k1 = evaluate(slope, t, x, index)
    k2 = evaluate(slope, middle, torch.addcmul(x, half, k1), index)
    k3 = evaluate(slope, middle, torch.addcmul(x, half, k2), index)
    k4 = evaluate(slope, t + step, torch.addcmul(x, h, k3), index)
    total = torch.add(k1, k2 + k3, alpha=2.0) + k4
    return Step(k1, torch.addcmul(x, h, total, value=1.0 / 6.0))


def evaluate(slope: Slope, t: torch.Tensor, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Call the slope with times (trajectory,) spread over the models."""
    return slope(t.expand(x.shape[:-1]), x, index)


def hermite(nodes: Nodes, step: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """Interpolate the nodes by the cubic that meets states and slopes at both ends of each step.

    With h the step and u in [0, 1] the place inside it, x(u) = (1 + 2u)(1 - u)^2 x_k + u^2 (3 - 2u) x_k+1
    + h u (1 - u)^2 f_k - h u^2 (1 - u) f_k+1. The error is of order 4, as that of the nodes.

    Parameters
    ----------
    nodes : Nodes
        (node, model, trajectory, state) from `rk4`.
    step : tensor, shape (trajectory,)
        The signed step of each trajectory.
    times : tensor, shape (trajectory, time)
        Elapsed times between 0 and n_steps * step, in any order, repeated or not; those outside are
        extrapolated.

    Returns
    -------
    tensor, shape (model, trajectory, time, state)

    Examples
    --------
    >>> import torch
    >>> step = torch.tensor([0.5], dtype=torch.float64)
    >>> x0 = torch.zeros(1, 1, 1, dtype=torch.float64)
    >>> nodes = rk4(lambda t, x, index: 2.0 * t[..., None], x0, step, 4)  # x = t^2
    >>> hermite(nodes, step, torch.tensor([[0.25, 2.0]], dtype=torch.float64)).flatten().tolist()
    [0.0625, 4.0]
    """
    place = times / torch.where(step == 0.0, torch.ones_like(step), step)[:, None]
    # A time on a node ends the step before it: a trajectory that fails in the next step keeps it.
    cell = (place.ceil() - 1.0).clamp(0.0, nodes.states.shape[0] - 2)
    u = (place - cell)[..., None, None]  # (trajectory, time, 1, 1)
    k = cell.long()
    row = torch.arange(k.shape[0], device=k.device)[:, None]
    h, v = step[:, None, None, None], 1.0 - u
    value = (1.0 + 2.0 * u) * v**2 * nodes.states[k, :, row]  # (trajectory, time, model, state)
    value = torch.addcmul(value, u**2 * (3.0 - 2.0 * u), nodes.states[k + 1, :, row])
    value = torch.addcmul(value, h * u * v**2, nodes.slopes[k, :, row])
    value = torch.addcmul(value, h * u**2 * v, nodes.slopes[k + 1, :, row], value=-1.0)
    return value.permute(2, 0, 1, 3)
