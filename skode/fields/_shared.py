"""One network for all targets at given weights: all of its arithmetic, forwards and backwards."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch

from skode._typing import Weights
from skode.fields._activations import ACTIVATIONS
from skode.fields._affine import Affine, bias_gradient
from skode.fields._bound import AbstractBoundField, Evaluated, Tensors
from skode.fields._chain import ByMaps, Chain, Gradient, Maps
from skode.fields._folding import Folding


class BoundShared(AbstractBoundField):
    """The arithmetic of ``SharedField``; samples are the last axis of everything inside.

    Parameters
    ----------
    weights : dict of tensors  # (model, ...), others among them
    activation : str
    n_hidden : int
        Number of hidden layers.
    linear_skip : bool
    """

    def __init__(self, weights: Weights, activation: str, n_hidden: int, *, linear_skip: bool) -> None:
        self.activation = ACTIVATIONS[activation]
        self.folding, self.n_layers = Folding(self.activation, n_hidden), n_hidden + 1
        self.folded = self.folding.fold(weights)
        self.skip = [Affine(weights["K"])] if linear_skip else []

    @cached_property
    def layers(self) -> list[Affine]:
        """The maps, for whoever does not go by ``chain``."""
        return [Affine(self.folded[f"W{k}"], self.folded[f"b{k}"].flatten(1)) for k in range(self.n_layers)]

    def evaluate(self, z: torch.Tensor) -> Evaluated:
        h = z.mT  # (model | 1, source, sample)
        inputs, memo = [h], []
        for layer in self.layers[:-1]:
            h, kept = self.activation.apply(layer(h))
            inputs.append(h)
            memo.append(kept)
        slopes = self.layers[-1](h)
        for skip in self.skip:
            slopes += skip(inputs[0])
        return Evaluated(slopes.mT, tuple(inputs), tuple(memo))

    def deltas(self, memo: Tensors, cotangent: torch.Tensor) -> Tensors:
        found = [cotangent.mT]
        for layer, kept in zip(self.layers[:0:-1], memo[::-1], strict=True):
            found.append(self.activation.pull(layer.pull(found[-1]), kept))
        return tuple(found[::-1])  # one per layer

    def source_gradient(self, deltas: Tensors) -> torch.Tensor:
        gradient = self.layers[0].pull(deltas[0])
        for skip in self.skip:
            gradient += skip.pull(deltas[-1])
        return gradient.mT

    def weight_gradient(self, inputs: Tensors, deltas: Tensors) -> Weights:
        found = {}
        for k, (layer, delta, h) in enumerate(zip(self.layers, deltas, inputs, strict=True)):
            found[f"W{k}"] = layer.weight_gradient(delta, h)
            found[f"b{k}"] = bias_gradient(delta).unsqueeze(-2)
        for skip in self.skip:
            found["K"] = skip.weight_gradient(deltas[-1], inputs[0])
        return self.folding.pull(found)

    def chain(
        self, known: Callable[[], torch.Tensor], n: int, gain: torch.Tensor, names: tuple[str, ...], *, keep: bool
    ) -> Chain | None:
        named = ((self.folded[f"W{k}"], self.folded[f"b{k}"].mT) for k in range(self.n_layers))
        *hidden, last = [torch.cat(both, dim=-1) for both in named]
        maps = Maps(self.activation, hidden, last, self.skip[0].matrix if self.skip else None, gain)
        if not maps.pay_on_arrays(n):
            return None

        def collect(by: ByMaps) -> Gradient:
            found = {} if by.skip is None else {"K": by.skip}
            for k, matrix in enumerate(by.matrices):
                found[f"W{k}"], found[f"b{k}"] = matrix[..., :-1], matrix[..., -1:].mT
            found = self.folding.pull(found)
            return tuple(found.get(name) for name in names)

        return Chain(maps, known(), collect, keep=keep)
