"""The discrete adjoint of the Runge-Kutta scheme: exact gradients of its steps, without a graph."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, Protocol

import torch

from skode.integrate.arrays import ArraySlope, ArrayTape, Stages
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

    def on_arrays(self, stages: Stages, index: torch.Tensor, *, keep: bool) -> ArraySlope | None:
        """The same on numpy arrays, at all stages of a solve; None where that is no faster.

        Parameters
        ----------
        stages : Stages
        index : tensor  # (trajectory,)
        keep : bool
            Whether a gradient will be asked for.
        """
        return None


class _Tape(Protocol):
    """Takes all steps of a solve, and carries gradients back through them."""

    def walk(self, failed: torch.Tensor | None) -> Nodes:
        """Take all steps; a trajectory stays at x0 from step ``failed`` (model, trajectory) on."""

    def pull(
        self, by_states: torch.Tensor, by_slopes: torch.Tensor, failed: torch.Tensor | None, *, wanted: bool
    ) -> tuple[torch.Tensor, tuple[torch.Tensor | None, ...]]:
        """Gradient by x0, and by every weight if ``wanted``, from those by states and slopes of the nodes."""


class _TensorTape:
    """The steps of any slope, in torch."""

    def __init__(
        self,
        slope: AbstractSlope,
        x0: torch.Tensor,
        step: torch.Tensor,
        n_steps: int,
        clock: torch.Tensor,
        index: torch.Tensor,
    ) -> None:
        self.slope, self.step, self.n_steps, self.clock, self.index = slope, step, n_steps, clock, index
        self.x0 = x0.detach().mT.contiguous().mT  # bound fields put trajectories on the last axis
        self.stages: list[SlopeStage] = []

    def walk(self, failed: torch.Tensor | None) -> Nodes:
        self.stages.clear()

        def recorded(t: torch.Tensor, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
            self.stages.append(self.slope.evaluate(t, x, index))
            return self.stages[-1].slope

        return walk(recorded, self.x0, self.step, self.n_steps, self.clock, self.index, failed)

    def pull(
        self, by_states: torch.Tensor, by_slopes: torch.Tensor, failed: torch.Tensor | None, *, wanted: bool
    ) -> tuple[torch.Tensor, tuple[torch.Tensor | None, ...]]:
        stages, n_steps, h = self.stages, self.n_steps, self.step[:, None]
        by_states, by_slopes = (by.mT.contiguous().mT for by in (by_states, by_slopes))
        gradient = _WeightGradient(self.slope, wanted=wanted)

        def pull(stage: SlopeStage, cotangent: torch.Tensor) -> torch.Tensor:
            by_x, deltas = self.slope.pull(stage.memo, cotangent)
            gradient.add(stage.inputs, deltas)
            return by_x

        by_x = by_states[n_steps] + pull(stages[-1], by_slopes[n_steps])
        for k in range(n_steps - 1, -1, -1):
            if failed is not None:
                h = moving(self.step, failed, k)
            k1, k2, k3, k4 = stages[4 * k : 4 * k + 4]
            sixth, half = h * by_x / 6.0, 0.5 * h
            third = 2.0 * sixth
            by_4 = pull(k4, sixth)
            by_3 = pull(k3, torch.addcmul(third, h, by_4))
            by_2 = pull(k2, torch.addcmul(third, half, by_3))
            by_1 = pull(k1, torch.addcmul(sixth, half, by_2).add_(by_slopes[k]))
            by_x = by_x + by_4 + by_3 + by_2 + by_1
            by_x += by_states[k]
        return by_x, tuple(gradient.total())


class _Solve(torch.autograd.Function):
    """All steps as one node of the graph."""

    @staticmethod
    def forward(
        ctx: Any, tape: _Tape, bound: float, x0: torch.Tensor, *weights: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.tape, (nodes, ctx.failed) = tape, _solved(tape, bound)
        return nodes.states, nodes.slopes

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, by_states: torch.Tensor, by_slopes: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        tape: _Tape = ctx.tape
        if ctx.failed is not None:
            lost_states, lost_slopes = lost(ctx.failed, len(by_states))
            by_states, by_slopes = by_states.masked_fill(lost_states, 0.0), by_slopes.masked_fill(lost_slopes, 0.0)
        weights_needed = ctx.needs_input_grad[3:]
        by_x, by_weights = tape.pull(by_states, by_slopes, ctx.failed, wanted=any(weights_needed))
        return None, None, by_x, *(by_weights or [None] * len(weights_needed))


def _solved(tape: _Tape, bound: float) -> tuple[Nodes, torch.Tensor | None]:
    """Take all steps, and take them again without the trajectories that fail."""
    nodes = tape.walk(None)
    failed = failed_steps(nodes, bound)
    return (nodes, None) if failed is None else (blank(tape.walk(failed), failed), failed)


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
    steps x trajectories: four times per step what the slope keeps. Slopes that are faster on numpy arrays say so by
    ``on_arrays``; the steps are then taken there, to the same numbers up to rounding.

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
    keep = torch.is_grad_enabled()
    with torch.no_grad():
        twin = slope.on_arrays(Stages(clock, step, n_steps), index, keep=keep)
    if twin is not None:
        tape: _Tape = ArrayTape(twin, x0, step, n_steps)
        if not keep:
            return _solved(tape, bound)[0]
    elif keep:
        tape = _TensorTape(slope, x0, step, n_steps, clock, index)
    else:  # no stage is asked for again, so none is kept

        def value(t: torch.Tensor, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
            return slope.evaluate(t, x, index).slope

        return rk4(value, x0.mT.contiguous().mT, step, n_steps, origin=clock, index=index, bound=bound)
    return Nodes(*_Solve.apply(tape, bound, x0, *slope.weights))  # type: ignore[no-untyped-call]
