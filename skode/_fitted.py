"""One fitted model: numpy arrays and plain data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from skode._compact import compact, expand
from skode._dynamics import Dynamics, RightHandSide, tensor
from skode._points import PointsDynamics, points_dynamics
from skode._scales import Scales, widened_box
from skode._start_velocity import StartVelocity
from skode._typing import AnyArray, FloatArray, Weights
from skode.fields import AbstractField
from skode.integrate import TorchSteps, Walk

BLOCK = {"cpu": 8, "cuda": 1024}
"""Trajectories per call where steps are taken in torch: on a CPU as many as fill one vector of its widest registers,
which matrix products treat alike (of 16 and 32 they do not), on a GPU as many as are hardly slower than one."""
_DERIVED = ("_ready", "_points")
"""What is made of the rest when it is first asked for, and not pickled."""


@dataclass(frozen=True)
class Fitted:
    """One fitted model: numpy arrays and plain data only.

    Parameters
    ----------
    field : AbstractField
    scales : Scales
    time_dependent : bool
    weights : dict of arrays
        Effective weights, without the model axis.
    start_velocity : StartVelocity or None
        Map from initial positions and inputs to initial velocities, where X does not give them.
    start : array (s,)
        Standard state at elapsed time 0 of the first trajectory, for X that is time only.
    step : float
        Step of the prediction grid, in standard time.
    method : str
    matrix, scores, effect : array (d, variable)
        Dependencies as the estimator reports them.
    sign : int array (d, variable)
    confidence : array (d, variable) or None
        Chance that an edge lowers held-out loss, where folds told.
    alpha_max : float
    status : str
        "converged", "max_iter" or "diverged".
    n_iter : int
    history : dict
        Per stage: loss, n_edges, status, n_iter and seconds.
    n_strays : int
        Windows of the training data whose forecasts leave the range of the data.
    """

    field: AbstractField
    scales: Scales
    time_dependent: bool
    weights: dict[str, AnyArray]
    start_velocity: StartVelocity | None
    start: FloatArray
    step: float
    method: str
    matrix: FloatArray
    scores: FloatArray
    effect: FloatArray
    sign: AnyArray
    alpha_max: float
    status: str
    n_iter: int
    history: dict[str, dict[str, Any]]
    confidence: FloatArray | None = None
    n_strays: int = 0

    @property
    def dynamics(self) -> Dynamics:
        """The differential equation."""
        return Dynamics(self.field, self.scales, self.time_dependent)

    @cached_property
    def _ready(self) -> dict[torch.device, RightHandSide]:
        return {}

    def __getstate__(self) -> dict[str, Any]:
        return {name: compact(value) for name, value in self.__dict__.items() if name not in _DERIVED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({name: expand(value) for name, value in state.items()})

    def slope(self, inputs: FloatArray, origin: FloatArray, device: torch.device) -> RightHandSide:
        """The right-hand side for some trajectories, in float64; the weights are made ready once per device.

        Parameters
        ----------
        inputs : array (trajectory, m), standard
        origin : array (trajectory,), standard clock
        device : torch.device
        """
        if device not in self._ready:
            none = torch.zeros(0, dtype=torch.float64, device=device)
            slope = self.dynamics.slope(self.torch_weights(device), none, none)
            slope.bound  # noqa: B018 (made here, outside inference mode, and kept)
            self._ready[device] = slope
        ready = self._ready[device]
        return ready.along(tensor(inputs, ready.rate), tensor(origin, ready.rate))

    @cached_property
    def _points(self) -> PointsDynamics | None:
        return points_dynamics(self.dynamics, self.weights)

    def steps(self, inputs: FloatArray, origin: FloatArray, device: torch.device) -> Walk:
        """What steps along some trajectories, none of which changes a bit of another.

        Parameters
        ----------
        inputs : array (trajectory, m), standard
        origin : array (trajectory,), standard clock
        device : torch.device
        """
        if device.type == "cpu" and self._points is not None:
            return self._points.steps(inputs, origin)
        return TorchSteps(self.slope(inputs, origin, device).value, BLOCK[device.type], device)

    @cached_property
    def box(self) -> FloatArray:
        """Edges of the training box widened tenfold, in standard units; none for constant states.  # (2, s)"""
        return widened_box(self.scales)

    def torch_weights(self, device: torch.device) -> Weights:
        """Weights in float64, with a model axis of one."""
        return {
            name: torch.as_tensor(value, dtype=torch.float64, device=device).unsqueeze(0)
            for name, value in self.weights.items()
        }

    def derivative(self, states: FloatArray, inputs: FloatArray, clock: FloatArray) -> FloatArray:
        """Right-hand side at samples, all in user units.  # (sample, d)"""
        weights = self.torch_weights(torch.device("cpu"))
        like = next(iter(weights.values()))
        d, scales = self.field.n_targets, self.scales
        x = scales.standard_start(states[:, :d], states[:, d:] if scales.order == 2 else None)
        z = self.dynamics.sources(
            tensor(x, like).unsqueeze(0),
            tensor(scales.standard_inputs(inputs), like),
            tensor(scales.standard_clock(clock), like).unsqueeze(0),
        )
        with torch.no_grad():
            slopes: FloatArray = self.field(weights, z)[0].numpy()
        return slopes * scales.slope_unit()
