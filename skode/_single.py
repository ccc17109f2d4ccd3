"""The fitted equation along one trajectory, in numpy."""

from __future__ import annotations

import numpy as np

from skode._dynamics import Dynamics
from skode._typing import AnyArray, FloatArray
from skode.fields import PointNets


class SingleSlope:
    """dx/dt of one trajectory, with memory of its own: one for each thread.

    Parameters
    ----------
    nets : PointNets
        The field times its rate.
    speed : array (d,) or None
        dq/dt for one unit of velocity, for order 2.
    inputs : array (m,), standard
    origin : float
        Standard clock at elapsed time 0.
    tick : float or None
        Standard clock per unit of standard time; None for fields that do not see it.
    n_states : int
    """

    def __init__(
        self,
        nets: PointNets,
        speed: FloatArray | None,
        inputs: FloatArray,
        origin: float,
        tick: float | None,
        n_states: int,
    ) -> None:
        self.origin, self.tick, self.speed = origin, tick, speed
        self.sources = np.ones(n_states + len(inputs) + (tick is not None) + 1)  # the last entry carries the biases
        self.sources[n_states : n_states + len(inputs)] = inputs
        self.state = self.sources[:n_states]
        self.field = nets.open()

    def __call__(self, t: float, out: FloatArray) -> None:
        """Put dx/dt at elapsed time t into ``out``."""
        if self.tick is not None:
            self.sources[-2] = self.origin + self.tick * t
        if self.speed is None:
            self.field(self.sources, out)
        else:
            d = len(self.speed)
            np.multiply(self.state[d:], self.speed, out=out[:d])
            self.field(self.sources, out[d:])


class SingleDynamics:
    """The equation at fitted weights, ready for one trajectory at a time.

    Parameters
    ----------
    dynamics : Dynamics
    nets : PointNets
        The field times its rate.
    """

    def __init__(self, dynamics: Dynamics, nets: PointNets) -> None:
        scales = dynamics.scales
        self.nets, self.n_states, self.speed = nets, dynamics.n_states, dynamics.speed
        self.tick = scales.time_unit / scales.clock_sd if dynamics.time_dependent else None

    def along(self, inputs: FloatArray, origin: float) -> SingleSlope:
        """The slope along one trajectory.

        Parameters
        ----------
        inputs : array (m,), standard
        origin : float
            Standard clock at elapsed time 0.
        """
        return SingleSlope(self.nets, self.speed, inputs, origin, self.tick, self.n_states)


def single_dynamics(dynamics: Dynamics, weights: dict[str, AnyArray]) -> SingleDynamics | None:
    """The equation for one trajectory at a time; None for fields that are no faster so.

    Parameters
    ----------
    dynamics : Dynamics
    weights : dict of arrays
        Without the model axis.
    """
    nets = dynamics.field.at_point(weights, dynamics.scales.rate)
    return None if nets is None else SingleDynamics(dynamics, nets)
