"""One small network per target at given weights: all of its arithmetic, forwards and backwards."""

from __future__ import annotations

from functools import cached_property

import torch

from skode._typing import Weights
from skode.fields._activations import ACTIVATIONS
from skode.fields._affine import Affine, bias_gradient
from skode.fields._bound import AbstractBoundField, Evaluated, Tensors
from skode.fields._folding import Folding


class BoundPerTarget(AbstractBoundField):
    """The arithmetic of ``PerTargetField``.

    Every row of every target that reads the sources reads the same z: one matrix product serves them all, and one
    each takes the gradients back. Samples are the last axis, so that all that follows are products of contiguous
    blocks, one per model and target.

    Parameters
    ----------
    weights : dict of tensors  # (model, target, ...), others among them
    activation : str
    n_hidden : int
        Number of hidden layers.
    entries : tuple of str
        Tensors that read the sources: W0, K, and the bilinear P and R where there are any.
    """

    def __init__(self, weights: Weights, activation: str, n_hidden: int, entries: tuple[str, ...]) -> None:
        self.activation, self.last, self.entries = ACTIVATIONS[activation], n_hidden, entries
        self.folding = Folding(self.activation, n_hidden)
        self.shapes = {name: value.shape for name, value in weights.items()}
        self.n_models, self.n_targets, self.width, n_sources = weights["W0"].shape
        self.heights = [weights[name].shape[-2] for name in entries]  # rows of a target: hidden units, K, P, R
        folded = self.folding.fold(weights)
        biases = [folded["b0"].squeeze(-2), folded[f"b{n_hidden}"].squeeze(-2)]
        if self.heights[2:]:
            biases.append(biases[0].new_zeros(self.n_models, self.n_targets, sum(self.heights[2:])))
        bias = torch.cat(biases, dim=-1)
        rows = torch.cat([folded[name] for name in entries], dim=-2)
        self.entering = Affine(rows.view(self.n_models, -1, n_sources), bias.flatten(1))
        later = range(1, n_hidden + 1)
        self.blocks = [folded[f"W{k}"].flatten(0, 1) for k in later]  # (model * target, out, in)
        self.transposed = [block.mT for block in self.blocks]
        # Of a single hidden layer, (model, target, 1, unit): what ``deltas`` leaves out.
        self.factors = folded["W1"] if n_hidden == 1 else None
        self.biases = [folded[f"b{k}"].flatten(0, 1).mT for k in later]  # (model * target, out, 1)

    def evaluate(self, z: torch.Tensor) -> Evaluated:
        z = z.mT
        rows = self.entering(z).view(self.n_models * self.n_targets, -1, z.shape[-1])
        hidden, linear, *products = rows.split_with_sizes(self.heights, 1)  # the linear part carries the last bias
        h, kept = self.activation.apply(hidden)
        inputs, memo = [z, h], [kept]
        for block, bias in zip(self.blocks[:-1], self.biases[:-1], strict=True):
            h, kept = self.activation.apply(torch.baddbmm(bias, block, h))
            inputs.append(h)
            memo.append(kept)
        slopes = torch.baddbmm(linear, self.blocks[-1], h)
        if products:
            left, right = products
            slopes += (left * right).sum(dim=1, keepdim=True)
            memo.append(rows[:, self.width + 1 :])
        slopes = slopes.view(self.n_models, self.n_targets, -1)
        return Evaluated(slopes.mT, tuple(inputs), tuple(memo))

    def deltas(self, memo: Tensors, cotangent: torch.Tensor) -> Tensors:
        """What a cotangent becomes; first at the rows that read the sources, as ``backward_rows`` has them."""
        out = cotangent.mT.reshape(self.n_models * self.n_targets, 1, -1)
        entering = out.new_empty(out.shape[0], sum(self.heights), out.shape[-1])
        later: list[torch.Tensor] = []
        delta = out  # the factors of a single hidden layer wait: they are the same for all samples
        for k in range(self.last - 1, 0, -1):
            back = self.transposed[k] * delta if k == self.last - 1 else torch.bmm(self.transposed[k], delta)
            delta = self.activation.pull(back, memo[k])
            later.append(delta)
        if later:
            delta = torch.bmm(self.transposed[0], delta)
        self.activation.pull_into(delta, memo[0], entering[:, : self.width])
        entering[:, self.width : self.width + 1] = out
        for products in memo[self.last :]:
            torch.mul(products, out, out=entering[:, self.width + 1 :])
        return entering.view(self.n_models, -1, out.shape[-1]), *later[::-1]  # then of layers 1, 2, ...

    @cached_property
    def backward_rows(self) -> torch.Tensor:
        """Rows by which deltas go back to the sources.  # (model, target * row, source)

        A product hands each of its factors the other one, so those of P and R stand in each other's place; hidden units
        carry the factors that ``deltas`` leaves out.
        """
        w = self.entering.matrix.view(self.n_models, self.n_targets, sum(self.heights), -1)
        hidden, linear, *products = w.split_with_sizes(self.heights, 2)
        hidden = hidden if self.factors is None else hidden * self.factors.mT
        return torch.cat([hidden, linear, *products[::-1]], dim=2).flatten(1, 2)

    def source_gradient(self, deltas: Tensors) -> torch.Tensor:
        return torch.bmm(self.backward_rows.mT, deltas[0]).mT

    def weight_gradient(self, inputs: Tensors, deltas: Tensors) -> Weights:
        (z, *hidden), (entering, *later) = inputs, deltas
        by_target = (self.n_models, self.n_targets, sum(self.heights), -1)
        rows = self.entering.weight_gradient(entering, z).view(by_target).split_with_sizes(self.heights, 2)
        found = dict(zip((*self.entries[:2], *self.entries[:1:-1]), rows, strict=True))
        entering = entering.view(self.n_models * self.n_targets, by_target[2], -1)
        # Of the rows' biases only those of hidden units and of the linear part are there.
        sums = bias_gradient(entering[:, : self.width + 1]).view(self.n_models, self.n_targets, 1, -1)
        found["b0"], found[f"b{self.last}"] = sums[..., :-1], sums[..., -1:]
        if self.factors is not None:
            found["W0"], found["b0"] = found["W0"] * self.factors.mT, found["b0"] * self.factors
        out = entering[:, self.width : self.width + 1]
        for k, (delta, h) in enumerate(zip((*later, out), hidden, strict=True), start=1):
            found[f"W{k}"] = torch.bmm(delta, h.mT).view(self.shapes[f"W{k}"])
            if k < self.last:
                found[f"b{k}"] = bias_gradient(delta).view(self.shapes[f"b{k}"])
        return self.folding.pull(found)

    def jacobian(self, z: torch.Tensor) -> torch.Tensor:
        """Derivative of every slope by every source.

        Targets share nothing, so the deltas of all ones hold every row of the Jacobian: they are only not added up.

        Returns
        -------
        tensor  # (model, sample, target, source)
        """
        slopes, _, memo = self.evaluate(z)
        by_target = (self.n_models * self.n_targets, sum(self.heights), -1)
        deltas = self.deltas(memo, torch.ones_like(slopes))[0].view(by_target)
        rows = torch.bmm(deltas.mT, self.backward_rows.view(by_target))
        return rows.view(self.n_models, self.n_targets, z.shape[-2], -1).transpose(1, 2)
