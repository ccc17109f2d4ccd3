"""The discrete adjoint of the Runge-Kutta scheme: exact gradients of its steps, without a graph."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch

from skode.integrate.runge_kutta import BOUND, Nodes, blank, failed_steps, lost, moving, rk4, walk

Tensors = tuple[torch.Tensor, ...]
BLOCK = 1024
"""Samples (trajectories times stages) for which the weights' gradient is formed at a time."""


class SlopeStage(NamedTuple):
    """A slope, and what its gradient needs."""

    slope: torch.Tensor  # (model, trajectory, state)
    inputs: Tensors  # (model | 1, ..., trajectory), what ``weight_gradient`` reads beside the deltas
    memo: Tensors  # what ``pull`` reads


class AbstractSlope(ABC):
    """A right-hand side dx/dt = f(t, x; weights) that can pull gradients back through itself.

    The gradient by the weights is asked for once per solve, with inputs and deltas of all stages side by side on the
    last axis.
    """

    @property
    @abstractmethod
    def weights(self) -> Tensors:
        """All that gradients are taken by, besides the state."""

    @abstractmethod
    def __call__(self, t: torch.Tensor, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """dx/dt in the graph of autograd; a ``Slope``."""

    @abstractmethod
    def evaluate(self, t: torch.Tensor, x: torch.Tensor, index: torch.Tensor) -> SlopeStage:
        """dx/dt without a graph."""

    @abstractmethod
    def pull(self, memo: Tensors, cotangent: torch.Tensor) -> tuple[torch.Tensor, Tensors]:
        """Gradient by x (model, trajectory, state), and deltas (model, ..., trajectory) for ``weight_gradient``."""

    @abstractmethod
    def weight_gradient(self, inputs: Tensors, deltas: Tensors) -> tuple[torch.Tensor | None, ...]:
        """Gradient by every tensor of ``weights``, given what all stages kept."""


class _Solve(torch.autograd.Function):
    """All steps as one node of the graph."""

    @staticmethod
    def forward(
        ctx: Any,
        slope: AbstractSlope,
        step: torch.Tensor,
        n_steps: int,
        clock: torch.Tensor,
        index: torch.Tensor,
        bound: float,
        x0: torch.Tensor,
        *weights: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        stages: list[SlopeStage] = []

        def recorded(t: torch.Tensor, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
            stages.append(slope.evaluate(t, x, index))
            return stages[-1].slope

        x0 = x0.mT.contiguous().mT  # bound fields put trajectories on the last axis
        nodes = walk(recorded, x0, step, n_steps, clock, index, None)
        failed = failed_steps(nodes, bound)
        if failed is not None:
            stages.clear()
            nodes = blank(walk(recorded, x0, step, n_steps, clock, index, failed), failed)
        ctx.slope, ctx.step, ctx.n_steps, ctx.failed, ctx.stages = slope, step, n_steps, failed, stages
        return nodes.states, nodes.slopes

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, by_states: torch.Tensor, by_slopes: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        slope: AbstractSlope = ctx.slope
        stages: list[SlopeStage] = ctx.stages
        failed, n_steps, h = ctx.failed, ctx.n_steps, ctx.step[:, None]
        if failed is not None:
            lost_states, lost_slopes = lost(failed, n_steps + 1)
            by_states, by_slopes = by_states.masked_fill(lost_states, 0.0), by_slopes.masked_fill(lost_slopes, 0.0)
        by_states, by_slopes = (by.mT.contiguous().mT for by in (by_states, by_slopes))
        gradient = _WeightGradient(slope, wanted=any(ctx.needs_input_grad[7:]))

        def pull(stage: SlopeStage, cotangent: torch.Tensor) -> torch.Tensor:
            by_x, deltas = slope.pull(stage.memo, cotangent)
            gradient.add(stage.inputs, deltas)
            return by_x

        by_x = by_states[n_steps] + pull(stages[-1], by_slopes[n_steps])
        for k in range(n_steps - 1, -1, -1):
            if failed is not None:
                h = moving(ctx.step, failed, k)
            k1, k2, k3, k4 = stages[4 * k : 4 * k + 4]
            sixth, half = h * by_x / 6.0, 0.5 * h
            third = 2.0 * sixth
            by_4 = pull(k4, sixth)
            by_3 = pull(k3, torch.addcmul(third, h, by_4))
            by_2 = pull(k2, torch.addcmul(third, half, by_3))
            by_1 = pull(k1, torch.addcmul(sixth, half, by_2).add_(by_slopes[k]))
            by_x = by_x + by_4 + by_3 + by_2 + by_1
            by_x += by_states[k]
        return *[None] * 6, by_x, *gradient.total()


class _WeightGradient:
    """Collects inputs and deltas of many stages, and takes one matrix product per layer for all of them.

    Stages wait until they make a block: large enough for a matrix product to be fast, small enough for the cache.
    """

    def __init__(self, slope: AbstractSlope, *, wanted: bool) -> None:
        self.slope, self.wanted = slope, wanted
        self.inputs: list[Tensors] = []
        self.deltas: list[Tensors] = []
        self.sums: list[torch.Tensor | None] = [None] * len(slope.weights)

    def add(self, inputs: Tensors, deltas: Tensors) -> None:
        """Take in a stage."""
        if not self.wanted:
            return
        self.inputs.append(inputs)
        self.deltas.append(deltas)
        if len(self.deltas) * deltas[0].shape[-1] >= BLOCK:
            self._close()

    def total(self) -> list[torch.Tensor | None]:
        """The gradient by every weight; None where the slope does not read it."""
        if self.deltas:
            self._close()
        return self.sums

    def _close(self) -> None:
        new = self.slope.weight_gradient(_side_by_side(self.inputs), _side_by_side(self.deltas))
        self.sums = [b if a is None else a if b is None else a + b for a, b in zip(self.sums, new, strict=True)]
        self.inputs, self.deltas = [], []


def _side_by_side(parts: list[Tensors]) -> Tensors:
    """Put the tensors of all stages next to each other on the last axis."""
    return tuple(torch.cat(tensors, dim=-1) for tensors in zip(*parts, strict=True))


def rk4_adjoint(
    slope: AbstractSlope,
    x0: torch.Tensor,
    step: torch.Tensor,
    n_steps: int,
    *,
    origin: torch.Tensor | None = None,
    index: torch.Tensor | None = None,
    bound: float = BOUND,
) -> Nodes:
    r"""Do what ``rk4`` does, with gradients that are carried back by hand.

    With L the gradient by x_{k+1}, the stages k_1, ..., k_4 at x_1, ..., x_4 and J' c the pull of the slope,

    .. math:: c_4 = h L / 6,\; c_3 = h L / 3 + h J_4' c_4,\; c_2 = h L / 3 + h J_3' c_3 / 2,\;
              c_1 = h L / 6 + h J_2' c_2 / 2

    and the gradient by x_k is L + J_1' c_1 + ... + J_4' c_4: the derivative of the steps themselves, not an
    approximation of it by another solve. Failed trajectories leave no trace, as in ``rk4``. Memory is linear in
    steps x trajectories: four times per step what the slope keeps.

    Parameters
    ----------
    slope : AbstractSlope
    x0, step, n_steps, origin, index, bound
        As for ``rk4``. Gradients are taken by x0 and by the weights of the slope, not by steps and origins.

    Returns
    -------
    Nodes

    References
    ----------
    .. [1] Hager, "Runge-Kutta methods in optimal control and the transformed adjoint system", 2000,
       doi 10.1007/s002110000178 (the adjoint of the discrete scheme).
    """
    clock = torch.zeros_like(step) if origin is None else origin
    index = torch.arange(x0.shape[-2], device=x0.device) if index is None else index
    if not torch.is_grad_enabled():  # no stage is asked for again, so none is kept

        def value(t: torch.Tensor, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
            return slope.evaluate(t, x, index).slope

        return rk4(value, x0.mT.contiguous().mT, step, n_steps, origin=clock, index=index, bound=bound)
    return Nodes(*_Solve.apply(slope, step, n_steps, clock, index, bound, x0, *slope.weights))  # type: ignore[no-untyped-call]
