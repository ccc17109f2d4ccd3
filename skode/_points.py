"""The fitted equation along trajectories that never meet, in numpy."""

from __future__ import annotations

import numpy as np

from skode._dynamics import Dynamics
from skode._typing import AnyArray, FloatArray, IntArray
from skode.fields import AbstractPoints
from skode.integrate import NumpySteps

BLOCK_ENTRIES = 2**15
"""Entries of hidden layers that are held at a time, 256 KB: what stays in cache."""


class PointsSlope:
    """dx/dt of some trajectories, with memory of its own: one for each thread.

    Parameters
    ----------
    nets : AbstractPoints
        The field times its rate.
    speed : array (d,) or None
        dq/dt for one unit of velocity, for order 2.
    inputs : array (trajectory, m), standard
    origin : array (trajectory,)
        Standard clock at elapsed time 0.
    tick : float or None
        Standard clock per unit of standard time; None for fields that do not see it.
    n_states : int
    """

    def __init__(
        self,
        nets: AbstractPoints,
        speed: FloatArray | None,
        inputs: FloatArray,
        origin: FloatArray,
        tick: float | None,
        n_states: int,
    ) -> None:
        self.origin, self.tick, self.speed = origin, tick, speed
        n, m = inputs.shape
        self.sources = np.ones((n, n_states + m + (tick is not None) + 1))  # the last column carries the biases
        self.sources[:, n_states : n_states + m] = inputs
        self.state = self.sources[:, :n_states]
        self.field = nets.open(self.sources)

    def __call__(self, t: float, out: FloatArray) -> None:
        """Put dx/dt at elapsed time t into ``out``."""
        if self.tick is not None:
            self.sources[:, -2] = self.origin + self.tick * t
        if self.speed is None:
            self.field(out)
        else:
            d = len(self.speed)
            np.multiply(self.state[:, d:], self.speed, out=out[:, :d])
            self.field(out[:, d:])


class PointsDynamics:
    """The equation at fitted weights, ready for any trajectories.

    Parameters
    ----------
    dynamics : Dynamics
    nets : AbstractPoints
        The field times its rate.
    """

    def __init__(self, dynamics: Dynamics, nets: AbstractPoints) -> None:
        scales = dynamics.scales
        self.nets, self.n_states, self.speed = nets, dynamics.n_states, dynamics.speed
        self.tick = scales.time_unit / scales.clock_sd if dynamics.time_dependent else None
        self.block = max(1, BLOCK_ENTRIES // nets.n_entries)

    def steps(self, inputs: FloatArray, origin: FloatArray) -> NumpySteps:
        """What steps along the trajectories with these inputs.

        Parameters
        ----------
        inputs : array (trajectory, m), standard
        origin : array (trajectory,)
            Standard clock at elapsed time 0.
        """

        def along(index: IntArray) -> PointsSlope:
            return PointsSlope(self.nets, self.speed, inputs[index], origin[index], self.tick, self.n_states)

        return NumpySteps(along, self.block)


def points_dynamics(dynamics: Dynamics, weights: dict[str, AnyArray]) -> PointsDynamics | None:
    """The equation in numpy; None for fields that are no faster so.

    Parameters
    ----------
    dynamics : Dynamics
    weights : dict of arrays
        Without the model axis.
    """
    nets = dynamics.field.at_points(weights, dynamics.scales.rate)
    return None if nets is None else PointsDynamics(dynamics, nets)
