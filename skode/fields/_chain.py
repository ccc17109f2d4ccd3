"""Layers on numpy arrays, at all stages of a solve: a call of torch takes longer than the arithmetic of small ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from skode._typing import AnyArray
from skode.fields._activations import Activation

LARGEST = 2**18
"""Multiplications of a model's largest matrix product up to which arrays are used. Larger ones numpy's BLAS (OpenBLAS)
shares out among threads, which on a busy machine wait for each other up to fifty times longer than they work; and there
is little to gain: solves of 1000 to 5000 values per layer are 1.4 to 3 times as fast, of 13,000 to 25,000 1.0 to 1.3.
The number of models does not count, so that a model's numbers do not depend on which others are there."""
BLOCK = 1024
"""Samples (trajectories times stages) for which the weights' gradient is formed at a time: what stays in cache."""


class Layer(NamedTuple):
    """An affine map, or the gradient by it."""

    matrix: torch.Tensor  # (model, row, source)
    offset: torch.Tensor  # (model, row, trajectory | 1)


Gradient = tuple[torch.Tensor | None, ...]
Collect = Callable[[list[Layer], torch.Tensor | None], Gradient]
"""What a slope makes of the gradient by every map, and by the skip if there is one: that by each of its weights."""


class Maps(NamedTuple):
    """slope = gain (W_L h_L + c_L + K z), or h_L without a last map, with h_0 = z and h_k+1 = core(W_k h_k + c_k)."""

    activation: Activation
    hidden: list[Layer]
    last: Layer | None = None
    skip: torch.Tensor | None = None  # (model, row, source)
    gain: torch.Tensor | None = None  # (row,), where there is a last map

    @property
    def all(self) -> list[Layer]:
        """Every map, in order."""
        return self.hidden if self.last is None else [*self.hidden, self.last]

    def pay_on_arrays(self, n_trajectories: int) -> bool:
        """Whether there is a ``Chain`` for these, and it is faster than calls of torch."""
        matrices = [layer.matrix for layer in self.all] + ([] if self.skip is None else [self.skip])
        largest = max(matrix[0].numel() for matrix in matrices) * n_trajectories
        return self.activation.keeps_output and matrices[0].device.type == "cpu" and largest <= LARGEST


class Chain:
    """Affine maps with activations between them, whose values at every stage go to memory that is there beforehand.

    Sources z are the state and what is known before the solve: inputs, or the time. Samples are the last axis of
    everything inside.

    Parameters
    ----------
    maps : Maps
        Ones that pay.
    known : tensor  # (stage, source, trajectory)
        Sources after the state.
    collect : Collect
    keep : bool
        Whether a gradient will be asked for.
    """

    def __init__(self, maps: Maps, known: torch.Tensor, collect: Collect, *, keep: bool) -> None:
        self.maps, self.collect = maps, collect
        (n_stages, n_known, n), (n_models, _, n_sources) = known.shape, maps.all[0].matrix.shape
        rows = [n_sources, *(layer.matrix.shape[1] for layer in maps.all)]
        places = [n_stages, *[n_stages if keep else 1] * (len(rows) - 2), n_stages]
        # What every map reads, and the slopes: (stage | 1, model, row, trajectory)
        new = maps.all[0].matrix.new_empty
        self.memory = [new(p, n_models, r, n) for p, r in zip(places, rows, strict=True)]
        self.memory[0][:, :, n_sources - n_known :] = known.unsqueeze(1)
        self.n_states = n_sources - n_known
        self.values = [list(m.numpy()) * (n_stages // len(m)) for m in self.memory]
        self.states: list[AnyArray] = list(self.memory[0][:, :, : self.n_states].numpy())
        self.slopes = self.values[-1]
        # Calls of torch for what overwrites itself: in float64 numpy's tanh takes three times as long.
        hidden = self.memory[1 : len(maps.hidden) + 1]
        self.overwritten = [list(m.unbind()) * (n_stages // len(m)) for m in hidden]
        scaled = [] if maps.last is None else [Layer(*(_times(maps.gain, part) for part in maps.last))]
        self.matrices = [_array(layer.matrix) for layer in [*maps.hidden, *scaled]]
        # As wide as what they are added to: broadcasting takes longer than the sum.
        self.offsets = [_array(layer.offset.expand(-1, -1, n)) for layer in [*maps.hidden, *scaled]]
        self.skip = None if maps.skip is None else _array(_times(maps.gain, maps.skip))
        self.scratch = np.empty_like(self.slopes[0])

    def evaluate(self, stage: int) -> None:
        """Fill in the slope at the stage's state."""
        z = h = self.values[0][stage]
        apply = self.maps.activation.apply
        for k, tensors in enumerate(self.overwritten):
            out = self.values[k + 1][stage]
            np.matmul(self.matrices[k], h, out=out)
            np.add(out, self.offsets[k], out=out)
            apply(tensors[stage])
            h = out
        if self.maps.last is not None:
            out = self.slopes[stage]
            np.matmul(self.matrices[-1], h, out=out)
            np.add(out, self.offsets[-1], out=out)
        if self.skip is not None:
            np.matmul(self.skip, z, out=self.scratch)
            np.add(out, self.scratch, out=out)

    def adjoint(self, *, wanted: bool) -> ChainAdjoint:
        """What carries gradients back, once all stages have been evaluated."""
        return ChainAdjoint(self, wanted=wanted)


class ChainAdjoint:
    """Gradients through a chain, from its last stage to its first.

    Parameters
    ----------
    chain : Chain
        One that keeps its values.
    wanted : bool
        Whether the gradient by the weights is asked for.
    """

    def __init__(self, chain: Chain, *, wanted: bool) -> None:
        maps = chain.maps
        self.wanted, self.collect, self.activation = wanted, chain.collect, maps.activation
        self.read, self.has_last = chain.memory[:-1], maps.last is not None
        self.n_stages, *_, n = chain.memory[0].shape
        self.size = min(max(1, BLOCK // n), self.n_stages)
        # What cotangents become before every map, for a block of stages: (stage, model, row, trajectory)
        self.memory = [m.new_empty(self.size, *m.shape[1:]) for m in chain.memory[1:]]
        self.deltas = [list(m.numpy()) for m in self.memory]
        self.hidden = list(zip(chain.memory[1:], self.memory, strict=True))[: len(maps.hidden)]
        self.one = chain.memory[0].new_ones(1)
        self.gain = _array(_times(maps.gain, torch.ones_like(self.memory[-1][0])))
        through = [_array(layer.matrix.mT) for layer in maps.all[1:]]
        scratch = [np.empty_like(deltas[0]) for deltas in self.deltas]
        self.inner = list(zip(through, scratch, self.deltas, strict=False))[::-1]
        self.first = _array(maps.all[0].matrix[..., : chain.n_states].mT)
        self.skip = None if maps.skip is None else _array(maps.skip[..., : chain.n_states].mT)
        self.scratch = np.empty_like(chain.states[0])
        self.products = [layer.matrix.new_zeros(layer.matrix.mT.shape) for layer in maps.all]
        self.offsets = [torch.zeros_like(m[0]) for m in self.memory]
        self.by_skip = None if maps.skip is None else maps.skip.new_zeros(maps.skip.mT.shape)

    def pull(self, stage: int, cotangent: AnyArray, out: AnyArray) -> None:
        """Write the gradient by the stage's state, and take in what is due to the weights; stages go down by one.

        Parameters
        ----------
        stage : int
        cotangent : array  # (model, row, trajectory)
        out : array  # (model, state, trajectory)
        """
        place = stage % self.size
        if place == self.size - 1 or stage == self.n_stages - 1:
            self._open(stage - place, place + 1)
        last = delta = self.deltas[-1][place]
        np.multiply(cotangent, self.gain if self.has_last else delta, out=delta)
        for matrix, scratch, deltas in self.inner:
            np.matmul(matrix, delta, out=scratch)
            delta = deltas[place]
            np.multiply(scratch, delta, out=delta)
        np.matmul(self.first, delta, out=out)
        if self.skip is not None:
            np.matmul(self.skip, last, out=self.scratch)
            np.add(out, self.scratch, out=out)
        if place == 0 and self.wanted:
            self._close(stage, min(self.size, self.n_stages - stage))

    def weight_gradient(self) -> Gradient:
        """By every weight, once all stages have been pulled through."""
        found = [Layer(matrix.mT, offset) for matrix, offset in zip(self.products, self.offsets, strict=True)]
        return self.collect(found, None if self.by_skip is None else self.by_skip.mT)

    def _open(self, first: int, n_stages: int) -> None:
        """Put the derivatives of the activations in a block where its deltas are going to be."""
        for kept, block in self.hidden:
            self.activation.pull_into(self.one, kept[first : first + n_stages], out=block[:n_stages])

    def _close(self, first: int, n_stages: int) -> None:
        """Add the gradient by the weights of a block."""
        read = [_side_by_side(m[first : first + n_stages]) for m in self.read]
        for k, block in enumerate(self.memory):
            delta = _side_by_side(block[:n_stages]).mT
            self.products[k].baddbmm_(read[k], delta)  # this order of the factors is the fast one
            # In numpy, as torch adds in an order that depends on the number of models.
            self.offsets[k] += torch.from_numpy(np.add.reduce(block[:n_stages].numpy(), axis=0))
        if self.by_skip is not None:
            self.by_skip.baddbmm_(read[0], delta)


def _side_by_side(values: torch.Tensor) -> torch.Tensor:
    """All stages next to each other.  # (model, row, stage and trajectory)"""
    return values.permute(1, 2, 0, 3).flatten(2)


def _times(gain: torch.Tensor | None, values: torch.Tensor) -> torch.Tensor:
    """Every row by its gain, if it has one."""
    return values if gain is None else gain.unsqueeze(-1) * values


def _array(values: torch.Tensor) -> AnyArray:
    """With its entries in order."""
    return values.detach().contiguous().numpy()
