"""The classical Runge-Kutta scheme with a fixed step per trajectory, and its cubic interpolant."""

from __future__ import annotations

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
    leaves no trace in the graph of the gradient: the step is taken again with that trajectory put back to its
    initial state, so that the neighbours' values and gradients, also those with respect to shared weights,
    are what they are without it.

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
    failed: torch.Tensor | None = None
    states, slopes, x = [x0], [], x0
    for k in range(n_steps):
        t = clock + k * step
        now = _safe_step(slope, t, x, x0, step, index, failed)
        broken = _broken(now.slope, now.state, bound)
        if broken.any():
            failed = broken if failed is None else failed | broken
            now = _safe_step(slope, t, x, x0, step, index, failed)
        x = now.state
        states.append(_blank(now.state, failed))
        slopes.append(_blank(now.slope, failed))
    t = clock + n_steps * step
    last = evaluate(slope, t, _restart(x, x0, failed), index)
    broken = _broken(last, x, bound)
    if broken.any():
        failed = broken if failed is None else failed | broken
        last = evaluate(slope, t, _restart(x, x0, failed), index)
    slopes.append(_blank(last, failed))
    return Nodes(torch.stack(states), torch.stack(slopes))


def take_step(
    slope: Slope, t: torch.Tensor, x: torch.Tensor, step: torch.Tensor, index: torch.Tensor
) -> Step:  # t (trajectory,), x (model, trajectory, state), step (trajectory,)
    """Take one Runge-Kutta step of every trajectory."""
    return _step(slope, t, x, step, step[:, None], index)


def _step(
    slope: Slope, t: torch.Tensor, x: torch.Tensor, step: torch.Tensor, h: torch.Tensor, index: torch.Tensor
) -> Step:  # h broadcasts with x: the step by which states move, 0 for those that stay
    k1 = evaluate(slope, t, x, index)
    k2 = evaluate(slope, t + 0.5 * step, x + 0.5 * h * k1, index)
    k3 = evaluate(slope, t + 0.5 * step, x + 0.5 * h * k2, index)
    k4 = evaluate(slope, t + step, x + h * k3, index)
    return Step(k1, x + h / 6.0 * (k1 + 2.0 * (k2 + k3) + k4))


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
    return interpolate(nodes, k, row, u, step[:, None, None, None]).permute(2, 0, 1, 3)


def interpolate(
    nodes: Nodes, cell: torch.Tensor, row: torch.Tensor, u: torch.Tensor, h: torch.Tensor | float
) -> torch.Tensor:
    """Evaluate the Hermite cubic of trajectory `row` in step `cell` at the place u in [0, 1] inside it.

    cell and row are integer tensors that broadcast to some shape (*shape,), u is (*shape, 1, 1), h broadcasts
    with u; the result is (*shape, model, state).
    """
    return (
        (1.0 + 2.0 * u) * (1.0 - u) ** 2 * nodes.states[cell, :, row]
        + u**2 * (3.0 - 2.0 * u) * nodes.states[cell + 1, :, row]
        + h * u * (1.0 - u) ** 2 * nodes.slopes[cell, :, row]
        - h * u**2 * (1.0 - u) * nodes.slopes[cell + 1, :, row]
    )


def _safe_step(
    slope: Slope,
    t: torch.Tensor,
    x: torch.Tensor,
    x0: torch.Tensor,
    step: torch.Tensor,
    index: torch.Tensor,
    failed: torch.Tensor | None,  # (model, trajectory, 1)
) -> Step:
    """Take a step in which failed trajectories stay at their initial state, where the slope is finite."""
    if failed is None:
        return take_step(slope, t, x, step, index)
    return _step(slope, t, _restart(x, x0, failed), step, torch.where(failed, 0.0, step[:, None]), index)


def _restart(x: torch.Tensor, x0: torch.Tensor, failed: torch.Tensor | None) -> torch.Tensor:
    return x if failed is None else torch.where(failed, x0, x)


def _broken(slope: torch.Tensor, state: torch.Tensor, bound: float) -> torch.Tensor:  # (model, trajectory, 1)
    with torch.no_grad():
        fine = slope.isfinite() & state.isfinite() & (state.abs() <= bound)
        return ~fine.all(dim=-1, keepdim=True)


def _blank(value: torch.Tensor, failed: torch.Tensor | None) -> torch.Tensor:
    return value if failed is None else torch.where(failed, torch.nan, value)
