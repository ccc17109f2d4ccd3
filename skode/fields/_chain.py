"""Layers on numpy arrays, at all stages of a solve: a call of torch takes longer than the arithmetic of small ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
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


Gradient = tuple[torch.Tensor | None, ...]


class Maps(NamedTuple):
    """slope = gain (W_L [h_L; 1] + K z), or h_L without a last map, with h_0 = z and h_k+1 = core(W_k [h_k; 1]).

    An offset is added to what the first map gives.
    """

    activation: Activation
    hidden: list[torch.Tensor]  # (model, row, source + 1)
    last: torch.Tensor | None = None  # (model, row, source + 1)
    skip: torch.Tensor | None = None  # (model, row, source)
    gain: torch.Tensor | None = None  # (row,), where there is a last map
    offset: torch.Tensor | None = None  # (model, row, trajectory)

    @property
    def all(self) -> list[torch.Tensor]:
        """The matrix of every map, in order."""
        return self.hidden if self.last is None else [*self.hidden, self.last]

    def pay_on_arrays(self, n_trajectories: int) -> bool:
        """Whether there is a ``Chain`` for these, and it is faster than calls of torch."""
        largest = max(matrix.shape[1] * (matrix.shape[2] - 1) for matrix in self.all)
        largest = largest if self.skip is None else max(largest, self.skip[0].numel())
        on_cpu = self.hidden[0].device.type == "cpu"
        return self.activation.keeps_output and on_cpu and largest * n_trajectories <= LARGEST


class ByMaps(NamedTuple):
    """Gradient by every map, and by skip and offset where there are these."""

    matrices: list[torch.Tensor]  # (model, row, source + 1)
    skip: torch.Tensor | None  # (model, row, source)
    offset: torch.Tensor | None  # (model, row, trajectory)


Collect = Callable[[ByMaps], Gradient]
"""What a slope makes of the gradient by its maps: that by each of its weights."""


class Chain:
    """Maps with activations between them, whose values at every stage go to memory that is there beforehand.

    Sources z are the state and what is known before the solve: inputs, or the time. Samples are the last axis of
    everything inside; what a map reads ends with a row of ones. Arrays of one model have no axis for it, as products
    take half as long to call then.

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
        (n_stages, n_known, n), (n_models, _, n_read) = known.shape, maps.all[0].shape
        self.n_stages, self.n_states, self.single = n_stages, n_read - 1 - n_known, n_models == 1
        self.product = np.dot if self.single else np.matmul
        rows = [n_read - 1, *(matrix.shape[1] for matrix in maps.all)]
        places = [n_stages, *[n_stages if keep else 1] * (len(rows) - 2), n_stages]
        # What every map reads, and the slopes: (stage | 1, model, row + 1, trajectory)
        empty = partial(np.empty, dtype=_array(known).dtype)
        self.memory = [empty((p, n_models, r + 1, n)) for p, r in zip(places, rows, strict=True)]
        for part in self.memory:
            part[:, :, -1] = 1.0
        self.memory[0][:, :, self.n_states : -1] = _array(known)[:, None]
        filled = [part[:, :, :-1] for part in self.memory]
        self.sources = self.at_stages(filled[0])
        self.states = self.at_stages(filled[0][:, :, : self.n_states]) if n_known else self.sources
        # What every map reads, and where its values go, at every stage
        self.inputs = [self.at_stages(part) for part in self.memory[:-1]]
        self.values = [self.at_stages(part) for part in filled[1:]]
        self.slopes = self.values[-1]
        # Calls of torch for what overwrites itself: in float64 numpy's tanh takes three times as long.
        self.hidden = [torch.from_numpy(part) for part in filled[1 : len(maps.hidden) + 1]]
        self.overwritten = [list(part.unbind()) * (n_stages // len(part)) for part in self.hidden]
        scaled = [] if maps.last is None else [_times(maps.gain, maps.last)]
        self.matrices = [self.bare(matrix) for matrix in [*maps.hidden, *scaled]]
        self.offset = None if maps.offset is None else self.bare(maps.offset)
        self.skip = None if maps.skip is None else self.bare(_times(maps.gain, maps.skip))
        self.scratch = np.empty_like(self.slopes[0])

    def evaluate(self, stage: int) -> None:
        """Fill in the slope at the stage's state."""
        product, apply, out = self.product, self.maps.activation.apply, self.slopes[stage]
        for k, tensors in enumerate(self.overwritten):
            out = self.values[k][stage]
            product(self.matrices[k], self.inputs[k][stage], out)
            if k == 0 and self.offset is not None:
                np.add(out, self.offset, out)
            apply(tensors[stage])
        if self.maps.last is not None:
            out = self.slopes[stage]
            product(self.matrices[-1], self.inputs[-1][stage], out)
        if self.skip is not None:
            product(self.skip, self.sources[stage], self.scratch)
            np.add(out, self.scratch, out)

    def adjoint(self, *, wanted: bool) -> ChainAdjoint:
        """What carries gradients back, once all stages have been evaluated."""
        return ChainAdjoint(self, wanted=wanted)

    def at_stages(self, memory: AnyArray) -> list[AnyArray]:
        """An array for every stage; all have the same where there is one place."""
        return list(memory[:, 0] if self.single else memory) * (self.n_stages // len(memory))

    def bare(self, values: torch.Tensor) -> AnyArray:
        """With entries in order, and no axis for a single model."""
        return _array(values)[0] if self.single else _array(values)


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
        maps, bare = chain.maps, chain.bare
        self.wanted, self.collect, self.product, self.activation = wanted, chain.collect, chain.product, maps.activation
        self.read, self.n_stages = chain.memory[:-1], chain.n_stages
        n = self.read[0].shape[-1]
        self.size = min(max(1, BLOCK // n), self.n_stages)
        # What cotangents become before every map, for a block of stages: (stage, model, row, trajectory)
        empty = partial(np.empty, dtype=self.read[0].dtype)
        self.memory = [empty((self.size, *matrix.shape[:2], n)) for matrix in maps.all]
        self.deltas = [list(part[:, 0] if chain.single else part) for part in self.memory]
        self.hidden = [(kept, torch.from_numpy(block)) for kept, block in zip(chain.hidden, self.memory, strict=False)]
        self.one = maps.all[0].new_ones(1)
        # As wide as what it multiplies: broadcasting takes longer than the product.
        wide = None if maps.last is None else np.ones_like(self.deltas[-1][0])
        self.gain = wide if wide is None or maps.gain is None else maps.gain.numpy()[:, None] * wide
        through = [bare(matrix[..., :-1].mT) for matrix in maps.all[1:]]
        scratch = [np.empty_like(deltas[0]) for deltas in self.deltas]
        self.inner = list(zip(through, scratch, self.deltas, strict=False))[::-1]
        self.first = bare(maps.all[0][..., : chain.n_states].mT)
        self.skip = None if maps.skip is None else bare(maps.skip[..., : chain.n_states].mT)
        self.scratch = np.empty_like(chain.states[0])
        self.products = [torch.zeros_like(matrix.mT) for matrix in maps.all]
        self.by_skip = None if maps.skip is None else torch.zeros_like(maps.skip.mT)
        self.by_offset = None if maps.offset is None else np.zeros_like(self.memory[0][0])

    def pull(self, stage: int, cotangent: AnyArray, out: AnyArray) -> None:
        """Write the gradient by the stage's state, and take in what is due to the weights; stages go down by one.

        Parameters
        ----------
        stage : int
        cotangent : array
            As the slopes of the chain.
        out : array
            As its states.
        """
        place, product = stage % self.size, self.product
        if place == self.size - 1 or stage == self.n_stages - 1:
            self._open(stage - place, place + 1)
        last = delta = self.deltas[-1][place]
        np.multiply(cotangent, delta if self.gain is None else self.gain, delta)
        for matrix, scratch, deltas in self.inner:
            product(matrix, delta, scratch)
            delta = deltas[place]
            np.multiply(scratch, delta, delta)
        product(self.first, delta, out)
        if self.skip is not None:
            product(self.skip, last, self.scratch)
            np.add(out, self.scratch, out)
        if place == 0 and self.wanted:
            self._close(stage, min(self.size, self.n_stages - stage))

    def weight_gradient(self) -> Gradient:
        """By every weight, once all stages have been pulled through."""
        by_skip = None if self.by_skip is None else self.by_skip.mT
        by_offset = None if self.by_offset is None else torch.from_numpy(self.by_offset)
        return self.collect(ByMaps([product.mT for product in self.products], by_skip, by_offset))

    def _open(self, first: int, n_stages: int) -> None:
        """Put the derivatives of the activations in a block where its deltas are going to be."""
        for kept, block in self.hidden:
            self.activation.pull_into(self.one, kept[first : first + n_stages], out=block[:n_stages])

    def _close(self, first: int, n_stages: int) -> None:
        """Add the gradient by the weights of a block."""
        read = [_side_by_side(part[first : first + n_stages]) for part in self.read]
        for k, block in enumerate(self.memory):
            delta = _side_by_side(block[:n_stages]).mT
            self.products[k].baddbmm_(read[k], delta)  # this order of the factors is the fast one
        if self.by_skip is not None:
            self.by_skip.baddbmm_(read[0][:, :-1], delta)
        if self.by_offset is not None:
            self.by_offset += np.add.reduce(self.memory[0][:n_stages], axis=0)


def _side_by_side(values: AnyArray) -> torch.Tensor:
    """All stages next to each other.  # (model, row, stage and trajectory)"""
    return torch.from_numpy(values).permute(1, 2, 0, 3).flatten(2)


def _times(gain: torch.Tensor | None, values: torch.Tensor) -> torch.Tensor:
    """Every row by its gain, if it has one."""
    return values if gain is None else gain.unsqueeze(-1) * values


def _array(values: torch.Tensor) -> AnyArray:
    """With its entries in order."""
    return values.detach().contiguous().numpy()
