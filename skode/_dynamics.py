"""From a field and its scales to a differential equation in standard units."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from skode._scales import Scales
from skode._typing import FloatArray, Weights
from skode.fields import AbstractField

Slope = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(t, x, index) -> dx/dt; t (model, trajectory), x (model, trajectory, state), index (trajectory,)."""


@dataclass(frozen=True)
class Dynamics:
    """The equation that a field defines: order 1, order 2, with inputs and with time.

    Order 1: dx/dt = rate F(x, u, t). Order 2, with x = (q, v): dq/dt = v, dv/dt = rate F(q, v, u, t). Everything is
    in standard units.

    Parameters
    ----------
    field : AbstractField
    scales : Scales
    time_dependent : bool
        Whether the field sees its clock.
    """

    field: AbstractField
    scales: Scales
    time_dependent: bool

    @property
    def n_states(self) -> int:
        """Width of the state of the equation: d, or 2 d for order 2."""
        return self.field.n_targets * self.scales.order

    def sources(self, x: torch.Tensor, inputs: torch.Tensor, clock: torch.Tensor) -> torch.Tensor:
        """Put states, inputs and clock side by side, as the field reads them.

        Parameters
        ----------
        x : tensor  # (model, sample, state)
        inputs : tensor  # (sample, input)
        clock : tensor  # (model, sample), standard clock; read only by time-dependent fields

        Returns
        -------
        tensor  # (model, sample, source)
        """
        parts = [x]
        if inputs.shape[-1]:
            parts.append(inputs.expand(x.shape[0], -1, -1))
        if self.time_dependent:
            parts.append(clock.expand(x.shape[:-1]).unsqueeze(-1))
        return torch.cat(parts, dim=-1) if len(parts) > 1 else x

    def slope(self, weights: Weights, inputs: torch.Tensor, origin: torch.Tensor) -> Slope:
        """Right-hand side for the integrator.

        Parameters
        ----------
        weights : dict of tensors  # (model, ...)
        inputs : tensor  # (trajectory, input), standard
        origin : tensor  # (trajectory,), standard clock at elapsed time 0

        Returns
        -------
        callable (t, x, index) -> dx/dt, all in standard units
        """
        like = next(iter(weights.values()))
        s = self.scales
        tick = s.time_unit / s.clock_sd
        d = self.field.n_targets
        rate = torch.as_tensor(s.rate, dtype=like.dtype, device=like.device)
        if s.velocity_sd is None:

            def first_order(t: torch.Tensor, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
                z = self.sources(x, inputs[index], origin[index] + tick * t)
                return self.field(weights, z) * rate

            return first_order
        held = np.where(s.moving, s.velocity_sd * s.time_unit / s.state_sd, 0.0)  # a constant state stays at x0
        speed = torch.as_tensor(held, dtype=like.dtype, device=like.device)

        def second_order(t: torch.Tensor, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
            z = self.sources(x, inputs[index], origin[index] + tick * t)
            return torch.cat([x[..., d:] * speed, self.field(weights, z) * rate], dim=-1)

        return second_order


def source_variables(n_states: int, n_inputs: int, *, order: int, time_dependent: bool) -> tuple[int, ...]:
    """Graph variable of every source: positions and velocities share theirs; inputs and time follow."""
    states = list(range(n_states)) * order
    return tuple(states + list(range(n_states, n_states + n_inputs + int(time_dependent))))


def tensor(values: FloatArray, like: torch.Tensor) -> torch.Tensor:
    """Numpy to torch, in the dtype and on the device of ``like``."""
    return torch.as_tensor(np.ascontiguousarray(values), dtype=like.dtype, device=like.device)
