"""Packed networks at given weights: targets with as many parents as each other, one small product each."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from skode._typing import Weights
from skode.fields._activations import ACTIVATIONS
from skode.fields._bound import AbstractBoundField, ByAutograd, Evaluated, Tensors
from skode.fields._folding import Folding

MOST_ENTRIES = 2e5
"""Entries of hidden layers that are held at a time: what stays in cache."""
SAMPLES = 64
"""Samples at a time for which a target's product is worth its call: with 16, four fifths of the time are calls."""


class _Batch(NamedTuple):
    """Targets with the same number of parents, their weights folded."""

    targets: torch.Tensor  # (target,)
    parents: torch.Tensor  # (target, slot)
    weights: Weights  # (model, target, ...)


class BoundPacked(AbstractBoundField):
    """The arithmetic of ``PackedField``: nothing is computed for columns that a target does not have.

    Networks whose last layer is zero, as those of a fit that stayed linear, are left out. Gradients go through
    autograd: packed fields are fitted without a solver.

    Parameters
    ----------
    function : callable (weights, z) -> slopes
        The field, for gradients.
    weights : dict of tensors  # (model, target, ...)
    parents : tuple of tuple of int
    activation : str
    hidden : tuple of int
    entries : tuple of str
        Tensors that read the sources.
    """

    def __init__(
        self,
        function: Callable[[Weights, torch.Tensor], torch.Tensor],
        weights: Weights,
        parents: tuple[tuple[int, ...], ...],
        activation: str,
        hidden: tuple[int, ...],
        entries: tuple[str, ...],
    ) -> None:
        self.gradients = ByAutograd(function, weights)
        self.activation, self.last, self.n_targets = ACTIVATIONS[activation], len(hidden), len(parents)
        self.width = sum(hidden) + 1
        some = weights["K"]
        folded = Folding(self.activation, self.last).fold(weights)
        flat = (weights[f"W{self.last}"] == 0).flatten(2).all(dim=-1).all(dim=0).cpu()  # (target,) no network
        self.flat_bias = weights[f"b{self.last}"]
        sizes = torch.tensor([len(own) for own in parents])
        self.batches = []
        for size in sorted(set(sizes.tolist())):
            for bent in (True, False):
                alike = torch.nonzero((sizes == size) & (flat != bent))[:, 0]
                few = max(1, int(MOST_ENTRIES / (SAMPLES * self.width)))
                for targets in torch.split(alike, few) if len(alike) else ():
                    columns = torch.tensor([parents[int(i)] for i in targets], dtype=torch.long).view(
                        len(targets), size
                    )
                    chosen = targets.to(some.device)
                    source = folded if bent else {n: weights[n] for n in (*entries[1:], f"b{self.last}")}
                    mine = {
                        name: value[:, chosen, ..., :size] if name in entries else value[:, chosen]
                        for name, value in source.items()
                    }
                    self.batches.append(_Batch(chosen, columns.to(some.device), mine))

    def evaluate(self, z: torch.Tensor) -> Evaluated:
        with torch.no_grad():
            wide = z.mT.contiguous()  # (model | 1, source, sample)
            n_models = self.flat_bias.shape[0]
            slopes = z.new_empty(n_models, self.n_targets, z.shape[-2])
            for batch in self.batches:
                step = max(1, int(MOST_ENTRIES / max(1, n_models * len(batch.targets) * self.width)))
                for begin in range(0, z.shape[-2], max(step, 16)):
                    part = slice(begin, begin + max(step, 16))
                    slopes[:, batch.targets, part] = self._slopes(batch, wide[..., part])
        return Evaluated(slopes.mT, (), (z.mT,))

    def _slopes(self, batch: _Batch, wide: torch.Tensor) -> torch.Tensor:
        """Slopes of one batch of targets.  # (model, target, sample)"""
        w, read = batch.weights, wide[:, batch.parents]  # (model | 1, target, slot, sample)
        total = w["K"] @ read + w[f"b{self.last}"]
        if "W0" in w:
            below = read
            for k in range(self.last):
                below, _ = self.activation.apply(w[f"W{k}"] @ below + w[f"b{k}"].mT)
            total += w[f"W{self.last}"] @ below
        if "P" in w:
            total += ((w["P"] @ read) * (w["R"] @ read)).sum(dim=-2, keepdim=True)
        return total.squeeze(-2)

    def deltas(self, memo: Tensors, cotangent: torch.Tensor) -> Tensors:
        return self.gradients.deltas(memo, cotangent)

    def source_gradient(self, deltas: Tensors) -> torch.Tensor:
        return self.gradients.source_gradient(deltas)

    def weight_gradient(self, inputs: Tensors, deltas: Tensors) -> Weights:
        return self.gradients.weight_gradient(inputs, deltas)
