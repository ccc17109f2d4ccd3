"""One small network per target at given weights: all of its arithmetic, forwards and backwards."""

from __future__ import annotations

import torch

from skode._typing import Weights
from skode.fields._activations import ACTIVATIONS
from skode.fields._affine import Affine, bias_gradient
from skode.fields._bound import AbstractBoundField, Evaluated, Tensors


class BoundPerTarget(AbstractBoundField):
    """The arithmetic of ``PerTargetField``.

    Every first-layer row of every target reads the same z: one matrix product serves them all. Samples are the last
    axis, so that all that follows are products of contiguous blocks, one per model and target.

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
        self.activation = ACTIVATIONS[activation]
        self.shapes = {name: value.shape for name, value in weights.items()}
        self.last = n_hidden
        self.n_models, self.n_targets = weights["K"].shape[:2]
        self.entering = {
            "W0": Affine(weights["W0"].flatten(1, 2), weights["b0"].flatten(1)),
            "K": Affine(weights["K"].flatten(1, 2), weights[f"b{self.last}"].flatten(1)),
        }
        self.bilinear = entries[2:]
        self.entering |= {name: Affine(weights[name].flatten(1, 2)) for name in self.bilinear}
        later = range(1, self.last + 1)
        self.blocks = [weights[f"W{k}"].flatten(0, 1) for k in later]  # (model * target, out, in)
        self.transposed = [block.mT for block in self.blocks]
        self.biases = [weights[f"b{k}"].flatten(0, 1).mT for k in later]  # (model * target, out, 1)

    def evaluate(self, z: torch.Tensor) -> Evaluated:
        z, n_samples = z.mT, z.shape[-2]
        h, kept = self.activation.apply(self.entering["W0"](z))
        h = h.view(self.n_models * self.n_targets, -1, n_samples)
        inputs, memo = [z, h], [kept.view_as(h)]
        for block, bias in zip(self.blocks[:-1], self.biases[:-1], strict=True):
            h, kept = self.activation.apply(torch.baddbmm(bias, block, h))
            inputs.append(h)
            memo.append(kept)
        linear = self.entering["K"](z)  # (model, target, sample); it carries the last bias
        slopes = torch.baddbmm(linear.view(-1, 1, n_samples), self.blocks[-1], h).view(linear.shape)
        if self.bilinear:
            split = (self.n_models, self.n_targets, -1, n_samples)
            left, right = (self.entering[name](z).view(split) for name in self.bilinear)
            slopes += (left * right).sum(dim=-2)
            memo += [left, right]
        return Evaluated(slopes.mT, tuple(inputs), tuple(memo))

    def deltas(self, memo: Tensors, cotangent: torch.Tensor) -> Tensors:
        out = cotangent.mT.contiguous()  # (model, target, sample)
        n_samples = out.shape[-1]
        delta = self.transposed[-1] * out.view(-1, 1, n_samples)
        inner = [self.activation.pull(delta, memo[self.last - 1])]
        for k in range(self.last - 2, -1, -1):
            inner.append(self.activation.pull(torch.bmm(self.transposed[k], inner[-1]), memo[k]))
        found = [inner[-1].view(self.n_models, -1, n_samples), out]
        if self.bilinear:
            left, right = memo[self.last :]
            found += [(other * out.unsqueeze(-2)).flatten(1, 2) for other in (right, left)]
        return *found, *inner[-2::-1]  # those of ``entering``, then of layers 1, 2, ...

    def source_gradient(self, deltas: Tensors) -> torch.Tensor:
        parts = [affine.pull(delta) for affine, delta in zip(self.entering.values(), deltas, strict=False)]
        return sum(parts[1:], parts[0]).mT

    def weight_gradient(self, inputs: Tensors, deltas: Tensors) -> Weights:
        z, *hidden = inputs
        n = len(self.entering)
        found = {
            name: affine.weight_gradient(delta, z)
            for (name, affine), delta in zip(self.entering.items(), deltas[:n], strict=True)
        }
        found["b0"], found[f"b{self.last}"] = bias_gradient(deltas[0]), bias_gradient(deltas[1])
        for k, (delta, h) in enumerate(zip((*deltas[n:], deltas[1]), hidden, strict=True), start=1):
            delta = delta.view(self.n_models * self.n_targets, -1, h.shape[-1])
            found[f"W{k}"] = torch.bmm(delta, h.mT)
            found[f"b{k}"] = bias_gradient(delta)
        return {name: value.reshape(self.shapes[name]) for name, value in found.items()}

    def jacobian(self, z: torch.Tensor) -> torch.Tensor:
        """Derivative of every slope by every source.

        Targets share nothing, so the deltas of all ones hold every row of the Jacobian: they are only not added up.

        Returns
        -------
        tensor  # (model, sample, target, source)
        """
        slopes, _, memo = self.evaluate(z)
        deltas, n_samples = self.deltas(memo, torch.ones_like(slopes)), z.shape[-2]
        rows = torch.zeros((), dtype=z.dtype, device=z.device)
        for affine, delta in zip(self.entering.values(), deltas, strict=False):
            matrix = affine.all_rows.view(self.n_models * self.n_targets, -1, z.shape[-1])
            rows = rows + torch.bmm(delta.view(*matrix.shape[:2], n_samples).mT, matrix)
        return rows.view(self.n_models, self.n_targets, n_samples, -1).transpose(1, 2)
