"""One small network per target at given weights: all of its arithmetic, forwards and backwards."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
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
        self.height = sum(self.heights)
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

    def evaluate(self, z: torch.Tensor, scratch: torch.Tensor | None = None) -> Evaluated:
        """Slopes at z; what reads sources that models share may go to ``scratch`` (row, sample)."""
        z = z.mT
        rows = self.entering(z, scratch).view(self.n_models * self.n_targets, -1, z.shape[-1])
        hidden, linear, *products = rows.split_with_sizes(self.heights, 1)  # the linear part carries the last bias
        h, _ = self.activation.apply(hidden)  # what it keeps is where the rows are
        inputs, memo = [z, h], [rows]
        for block, bias in zip(self.blocks[:-1], self.biases[:-1], strict=True):
            h, kept = self.activation.apply(torch.baddbmm(bias, block, h))
            inputs.append(h)
            memo.append(kept)
        slopes = torch.baddbmm(linear, self.blocks[-1], h)
        if products:
            left, right = products
            slopes += (left * right).sum(dim=1, keepdim=True)
        slopes = slopes.view(self.n_models, self.n_targets, -1)
        return Evaluated(slopes.mT, tuple(inputs), tuple(memo))

    def deltas(self, memo: Tensors, cotangent: torch.Tensor) -> Tensors:
        """What a cotangent becomes; first at the rows that read the sources, as ``backward_rows`` has them."""
        out, rows = cotangent.mT.reshape(self.n_models * self.n_targets, 1, -1), memo[0]
        delta, later = self._later(out, memo)
        entering = self._enter(rows, delta, out, torch.empty_like(rows))
        return entering.view(self.n_models, -1, out.shape[-1]), *later[:-1]  # then of layers 1, 2, ... but the last

    def _later(self, out: torch.Tensor, memo: Tensors) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """What a cotangent becomes at the first hidden layer, and at layers 1, 2, ..., where the last gives it back."""
        later = [out]
        delta = out  # the factors of a single hidden layer wait: they are the same for all samples
        for k in range(self.last - 1, 0, -1):
            back = self.transposed[k] * delta if k == self.last - 1 else torch.bmm(self.transposed[k], delta)
            delta = self.activation.pull(back, memo[k])
            later.append(delta)
        return torch.bmm(self.transposed[0], delta) if self.last > 1 else delta, later[::-1]

    def _enter(self, rows: torch.Tensor, delta: torch.Tensor, out: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
        """Deltas at the rows that read the sources, which may go over these."""
        self.activation.pull_into(delta, rows[:, : self.width], to[:, : self.width])
        if self.heights[2:]:
            torch.mul(rows[:, self.width + 1 :], out, out=to[:, self.width + 1 :])
        to[:, self.width : self.width + 1] = out
        return to

    @cached_property
    def backward_rows(self) -> torch.Tensor:
        """Rows by which deltas go back to the sources.  # (model, target * row, source)

        A product hands each of its factors the other one, so those of P and R stand in each other's place; hidden units
        carry the factors that ``deltas`` leaves out.
        """
        w = self.entering.matrix.view(self.n_models, self.n_targets, self.height, -1)
        hidden, linear, *products = w.split_with_sizes(self.heights, 2)
        hidden = hidden if self.factors is None else hidden * self.factors.mT
        return torch.cat([hidden, linear, *products[::-1]], dim=2).flatten(1, 2)

    def source_gradient(self, deltas: Tensors) -> torch.Tensor:
        return torch.bmm(self.backward_rows.mT, deltas[0]).mT

    def weight_gradient(self, inputs: Tensors, deltas: Tensors) -> Weights:
        (z, *hidden), (entering, *later) = inputs, deltas
        entering = entering.view(self.n_models * self.n_targets, self.height, -1)
        out = entering[:, self.width : self.width + 1]
        return self.collect((*self._by_rows(entering, z), *self._by_later((*later, out), hidden)))

    def net_gradients(self, inputs: Tensors, memo: Tensors, out: torch.Tensor) -> Tensors:
        """What the gradient by the weights is made of; what ``evaluate`` has kept is lost.

        Parameters
        ----------
        inputs, memo : tuple of tensors
            Of ``evaluate``.
        out : tensor  # (model * target, 1, sample), cotangent of the slopes

        Returns
        -------
        tuple of tensors  # (model * target, ...)
        """
        delta, later = self._later(out, memo)
        found = self._by_later(later, inputs[1:])
        return *self._by_rows(self._enter(memo[0], delta, out, memo[0]), inputs[0]), *found

    def _by_rows(self, entering: torch.Tensor, z: torch.Tensor) -> list[torch.Tensor]:
        """Gradient by the rows that read the sources, and by the biases of hidden units and of the linear part."""
        rows = entering.view(self.n_models, -1, entering.shape[-1])
        by_rows = self.entering.weight_gradient(rows, z).reshape(len(entering), self.height, -1)
        return [by_rows, bias_gradient(entering[:, : self.width + 1])]

    def _by_later(self, deltas: Sequence[torch.Tensor], hidden: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Gradient by the matrix and the bias of every later layer, but for the last bias."""
        found = []
        for k, (delta, h) in enumerate(zip(deltas, hidden, strict=True), start=1):
            found.append(torch.bmm(delta, h.mT))
            if k < self.last:
                found.append(bias_gradient(delta))
        return found

    def collect(self, by_net: Tensors) -> Weights:
        """Gradient by the weights, from what ``net_gradients`` says of all networks."""
        by_rows, sums, *later = by_net
        rows = by_rows.view(self.n_models, self.n_targets, self.height, -1).split_with_sizes(self.heights, 2)
        found = dict(zip((*self.entries[:2], *self.entries[:1:-1]), rows, strict=True))
        sums = sums.view(self.n_models, self.n_targets, 1, -1)
        found["b0"], found[f"b{self.last}"] = sums[..., :-1], sums[..., -1:]
        if self.factors is not None:
            found["W0"], found["b0"] = found["W0"] * self.factors.mT, found["b0"] * self.factors
        names = (name for k in range(1, self.last + 1) for name in (f"W{k}", f"b{k}"))
        for name, value in zip(names, later, strict=False):  # the last bias is among the sums
            found[name] = value.view(self.shapes[name])
        return self.folding.pull(found)

    def nets(self, some: slice) -> BoundPerTarget:
        """Some of the networks (model * target,) as those of one model: as good where models share their samples."""
        if some == slice(0, self.n_models * self.n_targets):
            return self
        part = copy(self)
        rows = slice(some.start * self.height, some.stop * self.height)
        part.n_models, part.n_targets = 1, some.stop - some.start
        part.entering = self.entering.rows(rows)
        part.blocks, part.biases = [block[some] for block in self.blocks], [bias[some] for bias in self.biases]
        part.transposed = [block.mT for block in part.blocks]
        return part

    def jacobian(self, z: torch.Tensor) -> torch.Tensor:
        """Derivative of every slope by every source.

        Targets share nothing, so the deltas of all ones hold every row of the Jacobian: they are only not added up.

        Returns
        -------
        tensor  # (model, sample, target, source)
        """
        slopes, _, memo = self.evaluate(z)
        by_target = (self.n_models * self.n_targets, self.height, -1)
        deltas = self.deltas(memo, torch.ones_like(slopes))[0].view(by_target)
        rows = torch.bmm(deltas.mT, self.backward_rows.view(by_target))
        return rows.view(self.n_models, self.n_targets, z.shape[-2], -1).transpose(1, 2)
