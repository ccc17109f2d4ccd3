"""A field with its weights, ready to be called many times, and to pull gradients back in steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from skode._typing import Weights
from skode.fields._chain import Chain

Tensors = tuple[torch.Tensor, ...]


class Evaluated(NamedTuple):
    """Slopes, and what their gradient needs."""

    slopes: torch.Tensor  # (model, sample, target)
    inputs: Tensors  # (model | 1, ..., sample), what ``weight_gradient`` reads beside the deltas
    memo: Tensors  # what ``deltas`` reads


class AbstractBoundField(ABC):
    """A field at given weights, evaluated without a graph.

    A gradient is taken in steps: ``deltas`` says what a cotangent of the slopes becomes at every linear map inside
    the field; from them come ``source_gradient`` and ``weight_gradient``. Inputs and deltas have the samples on their
    last axis, so that those of many calls can be put side by side, and the weights' gradient is asked for once.
    """

    @abstractmethod
    def evaluate(self, z: torch.Tensor) -> Evaluated:
        """Slopes at z.

        Parameters
        ----------
        z : tensor  # (model | 1, sample, source)
        """

    @abstractmethod
    def deltas(self, memo: Tensors, cotangent: torch.Tensor) -> Tensors:
        """What a cotangent (model, sample, target) becomes inside the field.

        Returns
        -------
        tuple of tensors  # (model, ..., sample)
        """

    @abstractmethod
    def source_gradient(self, deltas: Tensors) -> torch.Tensor:
        """Gradient by z.  # (model, sample, source)"""

    @abstractmethod
    def weight_gradient(self, inputs: Tensors, deltas: Tensors) -> Weights:
        """Gradient by the weights that the field reads."""

    def chain(
        self, known: Callable[[], torch.Tensor], n: int, gain: torch.Tensor, names: tuple[str, ...], *, keep: bool
    ) -> Chain | None:
        """The field on numpy arrays at all stages of a solve; None where that is no faster.

        Parameters
        ----------
        known : callable () -> tensor  # (stage, source, trajectory)
            Sources after the state.
        n : int
            Number of trajectories.
        gain : tensor  # (target,)
            Factor of every slope.
        names : tuple of str
            Weights, in the order in which their gradients are returned.
        keep : bool
            Whether a gradient will be asked for.
        """
        return None


class ByAutograd(AbstractBoundField):
    """Any differentiable function of weights and z, its gradients taken by autograd.

    Parameters
    ----------
    function : callable (weights, z) -> slopes
    weights : dict of tensors  # (model, ...)
    """

    def __init__(self, function: Callable[[Weights, torch.Tensor], torch.Tensor], weights: Weights) -> None:
        self.function = function
        self.weights = {name: value.detach() for name, value in weights.items()}

    def evaluate(self, z: torch.Tensor) -> Evaluated:
        with torch.no_grad():
            return Evaluated(self.function(self.weights, z), (), (z.mT,))

    def deltas(self, memo: Tensors, cotangent: torch.Tensor) -> Tensors:
        return memo[0].expand(cotangent.shape[0], -1, -1), cotangent.mT

    def source_gradient(self, deltas: Tensors) -> torch.Tensor:
        z = deltas[0].mT.detach().requires_grad_(True)
        with torch.enable_grad():
            slopes = self.function(self.weights, z)
        return torch.autograd.grad(slopes, z, deltas[1].mT)[0]

    def weight_gradient(self, inputs: Tensors, deltas: Tensors) -> Weights:
        leaves = {name: value.clone().requires_grad_(True) for name, value in self.weights.items()}
        with torch.enable_grad():
            slopes = self.function(leaves, deltas[0].mT)
        found = torch.autograd.grad(
            slopes, list(leaves.values()), deltas[1].mT, allow_unused=True, materialize_grads=True
        )
        return dict(zip(leaves, found, strict=True))


class _Slopes(torch.autograd.Function):
    """A field as one node of the graph."""

    @staticmethod
    def forward(
        ctx: Any,
        bind: Callable[[Weights], AbstractBoundField],
        names: tuple[str, ...],
        z: torch.Tensor,
        *tensors: torch.Tensor,
    ) -> torch.Tensor:
        ctx.bound, ctx.names, ctx.n_given = bind(dict(zip(names, tensors, strict=True))), names, z.shape[0]
        evaluated: Evaluated = ctx.bound.evaluate(z)
        ctx.inputs, ctx.memo = evaluated.inputs, evaluated.memo
        return evaluated.slopes

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, cotangent: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        deltas = ctx.bound.deltas(ctx.memo, cotangent)
        by_source, by_weight = None, {}
        if ctx.needs_input_grad[2]:
            by_source = ctx.bound.source_gradient(deltas)
            by_source = by_source.sum(0, keepdim=True) if ctx.n_given < len(by_source) else by_source
        if any(ctx.needs_input_grad[3:]):
            by_weight = ctx.bound.weight_gradient(ctx.inputs, deltas)
        return None, None, by_source, *(by_weight.get(name) for name in ctx.names)


def differentiable(bind: Callable[[Weights], AbstractBoundField], weights: Weights, z: torch.Tensor) -> torch.Tensor:
    """Slopes in the graph of autograd, with the gradient that the bound field writes itself.

    Parameters
    ----------
    bind : callable weights -> AbstractBoundField
    weights : dict of tensors  # (model, ...)
    z : tensor  # (model | 1, sample, source)

    Returns
    -------
    tensor  # (model, sample, target)
    """
    slopes: torch.Tensor = _Slopes.apply(bind, tuple(weights), z, *weights.values())  # type: ignore[no-untyped-call]
    return slopes
