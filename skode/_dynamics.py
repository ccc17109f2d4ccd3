"""From a field and its scales to a differential equation in standard units."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from skode._scales import Scales
from skode._typing import FloatArray, Weights
from skode.fields import AbstractBoundField, AbstractField
from skode.integrate import AbstractSlope, ArraySlope, SlopeStage, Stages


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

    @property
    def speed(self) -> FloatArray | None:
        """For order 2, dq/dt in standard units for one unit of standard velocity; a constant state stays at x0."""
        s = self.scales
        return None if s.velocity_sd is None else np.where(s.moving, s.velocity_sd * s.time_unit / s.state_sd, 0.0)

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

    def slope(self, weights: Weights, inputs: torch.Tensor, origin: torch.Tensor) -> RightHandSide:
        """Right-hand side for the integrator.

        Parameters
        ----------
        weights : dict of tensors  # (model, ...)
        inputs : tensor  # (trajectory, input), standard
        origin : tensor  # (trajectory,), standard clock at elapsed time 0
        """
        return RightHandSide(self, weights, inputs, origin)


class RightHandSide(AbstractSlope):
    """A field at given weights as a right-hand side: (t, x, index) -> dx/dt, all in standard units.

    Parameters
    ----------
    dynamics : Dynamics
    weights : dict of tensors  # (model, ...)
    inputs : tensor  # (trajectory, input), standard
    origin : tensor  # (trajectory,), standard clock at elapsed time 0
    """

    def __init__(self, dynamics: Dynamics, weights: Weights, inputs: torch.Tensor, origin: torch.Tensor) -> None:
        self.dynamics, self.named, self.inputs, self.origin = dynamics, weights, inputs, origin
        s, like = dynamics.scales, next(iter(weights.values()))
        self.tick = s.time_unit / s.clock_sd
        self.autonomous = not (dynamics.time_dependent or s.n_inputs)  # sources are states
        self.rate = tensor(s.rate, like)
        self.speed = None if dynamics.speed is None else tensor(dynamics.speed, like)

    def along(self, inputs: torch.Tensor, origin: torch.Tensor) -> RightHandSide:
        """The same field along other trajectories.

        Parameters
        ----------
        inputs : tensor  # (trajectory, input), standard
        origin : tensor  # (trajectory,), standard clock at elapsed time 0
        """
        other = copy(self)
        other.inputs, other.origin = inputs, origin
        return other

    @cached_property
    def bound(self) -> AbstractBoundField:
        """The field at its weights, outside the graph."""
        return self.dynamics.field.bind({name: value.detach() for name, value in self.named.items()})

    @property
    def weights(self) -> tuple[torch.Tensor, ...]:
        return tuple(self.named.values())

    def __call__(self, t: torch.Tensor, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return self._with_velocities(x, self.dynamics.field(self.named, self._sources(t, x, index)))

    def evaluate(self, t: torch.Tensor, x: torch.Tensor, index: torch.Tensor) -> SlopeStage:
        slopes, inputs, memo = self.bound.evaluate(self._sources(t, x, index))
        return SlopeStage(self._with_velocities(x, slopes), inputs, memo)

    def value(self, t: torch.Tensor, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """dx/dt outside the graph, for those who need no gradient."""
        return self.evaluate(t, x, index).slope

    def pull(
        self, memo: tuple[torch.Tensor, ...], cotangent: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        d = self.dynamics.field.n_targets
        by_slopes = cotangent if self.speed is None else cotangent[..., -d:]
        deltas = self.bound.deltas(memo, by_slopes * self.rate)
        by_x = self.bound.source_gradient(deltas)
        by_x = by_x if self.autonomous else by_x[..., : cotangent.shape[-1]]
        if self.speed is not None:
            by_x[..., d:] += cotangent[..., :d] * self.speed
        return by_x, deltas

    def weight_gradient(
        self, inputs: tuple[torch.Tensor, ...], deltas: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor | None, ...]:
        found = self.bound.weight_gradient(inputs, deltas)
        return tuple(found.get(name) for name in self.named)

    def on_arrays(self, stages: Stages, index: torch.Tensor, *, keep: bool) -> ArraySlope | None:
        if self.speed is not None:
            return None

        def known() -> torch.Tensor:
            if self.autonomous:
                return stages.step.new_empty(stages.n_stages, 0, len(index))
            t = stages.times()
            return self._sources(t, t.new_empty(*t.shape, 0), index).mT

        return self.bound.chain(known, len(index), self.rate, tuple(self.named), keep=keep)

    def _sources(self, t: torch.Tensor, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        if self.autonomous:
            return x
        inputs = self.inputs[index] if self.inputs.shape[-1] else self.inputs
        clock = self.origin[index] + self.tick * t if self.dynamics.time_dependent else t
        return self.dynamics.sources(x, inputs, clock)

    def _with_velocities(self, x: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
        slopes = slopes * self.rate
        if self.speed is None:
            return slopes
        return torch.cat([x[..., self.dynamics.field.n_targets :] * self.speed, slopes], dim=-1)


def source_variables(n_states: int, n_inputs: int, *, order: int, time_dependent: bool) -> tuple[int, ...]:
    """Graph variable of every source: positions and velocities share theirs; inputs and time follow."""
    states = list(range(n_states)) * order
    return tuple(states + list(range(n_states, n_states + n_inputs + int(time_dependent))))


def tensor(values: FloatArray, like: torch.Tensor) -> torch.Tensor:
    """Numpy to torch, in the dtype and on the device of ``like``."""
    return torch.as_tensor(np.ascontiguousarray(values), dtype=like.dtype, device=like.device)
