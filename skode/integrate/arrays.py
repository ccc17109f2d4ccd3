"""Runge-Kutta steps and their adjoint on numpy arrays, for solves whose time is mostly calls."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import torch

from skode._typing import AnyArray
from skode.integrate.runge_kutta import Nodes


class Stages(NamedTuple):
    """The stages of a solve, four for every step and one at the end."""

    clock: torch.Tensor  # (trajectory,) at the start
    step: torch.Tensor  # (trajectory,)
    n_steps: int

    @property
    def n_stages(self) -> int:
        """How many there are."""
        return 4 * self.n_steps + 1

    def times(self) -> torch.Tensor:
        """When the slope is evaluated.  # (stage, trajectory)"""
        halves = torch.arange(2 * self.n_steps + 1, dtype=self.step.dtype, device=self.step.device).div_(2.0)
        return self.clock + halves.repeat_interleave(2)[1:, None] * self.step


class ArraySlope(Protocol):
    """A right-hand side with memory for its states and slopes at every stage of a solve, which it keeps.

    Trajectories are the last axis of all arrays, and those of a single model may have no axis for it. Whoever has
    filled in ``states[stage]`` calls ``evaluate(stage)`` and finds ``slopes[stage]``.
    """

    states: list[AnyArray]  # (model, state, trajectory) or (state, trajectory), of every stage
    slopes: list[AnyArray]  # alike

    def evaluate(self, stage: int) -> None:
        """Fill in the slope of a stage."""

    def adjoint(self, *, wanted: bool) -> ArrayAdjoint:
        """What carries gradients back, by the weights too if ``wanted``, once all stages have been evaluated."""


class ArrayAdjoint(Protocol):
    """Gradients through the stages of a solve, from the last to the first."""

    def pull(self, stage: int, cotangent: AnyArray, out: AnyArray) -> None:
        """Write the gradient by the stage's state into ``out``, and take in what is due to the weights."""

    def weight_gradient(self) -> tuple[torch.Tensor | None, ...]:
        """By every weight, once all stages have been pulled through."""


class _Lengths(NamedTuple):
    """Steps of every entry of the state, and fractions of them: broadcasting takes longer than the product."""

    full: AnyArray  # (model, state, trajectory)
    half: AnyArray
    sixth: AnyArray


class ArrayTape:
    """The steps of a slope on arrays, and what their gradient needs; see ``rk4_adjoint`` for the formulas.

    Parameters
    ----------
    slope : ArraySlope
        At 4 ``n_steps`` + 1 stages.
    x0 : tensor  # (model, trajectory, state)
    step : tensor  # (trajectory,)
    n_steps : int
    """

    def __init__(self, slope: ArraySlope, x0: torch.Tensor, step: torch.Tensor, n_steps: int) -> None:
        self.slope, self.step, self.n_steps = slope, step, n_steps
        self.shape = x0.mT.shape  # (model, state, trajectory)
        self.x0: AnyArray = x0.detach().mT.reshape(slope.states[0].shape).contiguous().numpy()
        self.lengths = self._lengths(None, 0)

    @np.errstate(all="ignore")
    def walk(self, failed: torch.Tensor | None) -> Nodes:
        """Take all steps; a trajectory stays at x0 from step ``failed`` (model, trajectory) on."""
        x, k, evaluate = self.slope.states, self.slope.slopes, self.slope.evaluate
        nodes = np.empty((2, self.n_steps + 1, *self.x0.shape), self.x0.dtype)
        h = self.lengths
        np.copyto(x[0], self.x0)
        for step in range(self.n_steps + 1):
            i = 4 * step
            np.copyto(nodes[0, step], x[i])
            if failed is not None:
                np.copyto(x[i], self.x0, where=self._stopped(failed, step))
            evaluate(i)
            np.copyto(nodes[1, step], k[i])
            if step == self.n_steps:
                break
            h = h if failed is None else self._lengths(failed, step)
            for stage, length in zip((i + 1, i + 2, i + 3), (h.half, h.half, h.full), strict=True):
                np.multiply(length, k[stage - 1], out=x[stage])
                np.add(x[stage], x[i], out=x[stage])
                evaluate(stage)
            new = x[i + 4]
            np.add(k[i + 1], k[i + 2], out=new)
            np.add(new, new, out=new)
            np.add(new, k[i], out=new)
            np.add(new, k[i + 3], out=new)
            np.multiply(new, h.sixth, out=new)
            np.add(new, x[i], out=new)
        nodes = nodes.reshape(2, self.n_steps + 1, *self.shape)
        return Nodes(*(torch.from_numpy(part).mT for part in nodes))

    @np.errstate(all="ignore")
    def pull(
        self, by_states: torch.Tensor, by_slopes: torch.Tensor, failed: torch.Tensor | None, *, wanted: bool
    ) -> tuple[torch.Tensor, tuple[torch.Tensor | None, ...]]:
        """Gradient by x0, and by every weight if ``wanted``, from those by states and slopes of the nodes."""
        shape = self.n_steps + 1, *self.x0.shape
        at_states, at_slopes = (by.mT.contiguous().numpy().reshape(shape) for by in (by_states, by_slopes))
        adjoint, h = self.slope.adjoint(wanted=wanted), self.lengths
        pull = adjoint.pull
        by_x, found, cotangent = (np.empty_like(self.x0) for _ in range(3))
        sixth, third = np.empty_like(self.x0), np.empty_like(self.x0)
        pull(4 * self.n_steps, at_slopes[self.n_steps], by_x)
        np.add(by_x, at_states[self.n_steps], out=by_x)
        for step in range(self.n_steps - 1, -1, -1):
            h = h if failed is None else self._lengths(failed, step)
            i = 4 * step
            np.multiply(h.sixth, by_x, out=sixth)
            np.add(sixth, sixth, out=third)
            pull(i + 3, sixth, found)
            np.add(by_x, found, out=by_x)
            for stage, length, share in zip(
                (i + 2, i + 1, i), (h.full, h.half, h.half), (third, third, sixth), strict=True
            ):
                np.multiply(length, found, out=cotangent)
                np.add(cotangent, share, out=cotangent)
                if stage == i:
                    np.add(cotangent, at_slopes[step], out=cotangent)
                pull(stage, cotangent, found)
                np.add(by_x, found, out=by_x)
            np.add(by_x, at_states[step], out=by_x)
        return torch.from_numpy(by_x.reshape(self.shape)).mT, adjoint.weight_gradient() if wanted else ()

    def _stopped(self, failed: torch.Tensor, step: int) -> AnyArray:
        """Which entries of the state stay at x0 in a step."""
        return (failed <= step).unsqueeze(1).expand(self.shape).numpy().reshape(self.x0.shape)

    def _lengths(self, failed: torch.Tensor | None, step: int) -> _Lengths:
        full = np.empty_like(self.x0)
        full[...] = self.step.numpy()
        if failed is not None:
            full[self._stopped(failed, step)] = 0.0
        return _Lengths(full, full / 2.0, full / 6.0)
