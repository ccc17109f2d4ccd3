"""Per-target networks that read only the parents they have: the field for hundreds to thousands of variables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch.nn.functional import pad

from skode._typing import Weights
from skode.fields._activations import ACTIVATIONS
from skode.fields._base import AbstractField
from skode.fields._bound import AbstractBoundField
from skode.fields._packed import BoundPacked
from skode.fields.per_target import draw_nets, path_weights
from skode.fields.tangents import ENTRIES, AbstractNets, TargetNets


@dataclass(frozen=True)
class PackedField(AbstractField):
    """The per-target field on a support that is known, without the columns of absent edges.

    F_i(z) = c_i + k_i . z_pa(i) + net_i(z_pa(i)) + sum_q (P_iq . z_pa(i))(R_iq . z_pa(i))

    Target i has one column for each of its parents pa(i). Targets with few parents are padded with columns that
    are always zero, so that all of them are one batch; cost and memory grow with d times the largest number of
    parents, not with d squared.

    Parameters
    ----------
    parents : tuple of tuple of int
        Sources of every target.
    n_bilinear : int, default=0
        As in ``PerTargetField``.
    """

    parents: tuple[tuple[int, ...], ...] = ()
    n_bilinear: int = 0

    @property
    def per_target(self) -> bool:
        return True

    @property
    def entries(self) -> tuple[str, ...]:
        return ENTRIES if self.n_bilinear else ENTRIES[:2]

    @cached_property
    def n_slots(self) -> int:
        """Columns per target: the largest number of parents."""
        return max(1, max(len(some) for some in self.parents))

    @cached_property
    def _table(self) -> torch.Tensor:
        rest = (self.n_sources,) * self.n_slots
        return torch.tensor([(*some, *rest)[: self.n_slots] for some in self.parents])

    def _index(self, device: torch.device) -> torch.Tensor:
        """Source of every column; padding reads a source after the last, which is zero.  # (target, slot)"""
        return self._table.to(device)

    def _read(self, z: torch.Tensor) -> torch.Tensor:
        """Sources of every target's columns.  # (model | 1, target, sample, slot)"""
        return pad(z, (0, 1))[..., self._index(z.device)].transpose(1, 2)

    def nets(self, target: int) -> AbstractNets:
        """The equation of a target; alike are those whose nets are equal."""
        return TargetNets(len(self.parents[target]), self.hidden, self.activation, self.n_bilinear)

    def alike(self) -> Iterator[tuple[AbstractNets, torch.Tensor, torch.Tensor]]:
        """Targets (target,) that are alike, and where among ``expanded`` sources they read (target, slot)."""
        found: dict[AbstractNets, list[int]] = {}
        for target in range(self.n_targets):
            found.setdefault(self.nets(target), []).append(target)
        for nets, targets in sorted(found.items(), key=lambda some: some[0].n_slots):
            slots = torch.tensor([self.slots(i) for i in targets], dtype=torch.long)
            yield nets, torch.tensor(targets), slots.view(len(targets), nets.n_slots)

    def slots(self, target: int) -> tuple[int, ...]:
        """Where among ``expanded`` sources a target reads."""
        return self.parents[target]

    def expanded(self, sources: torch.Tensor) -> torch.Tensor:
        """Sources (source, ...), and whatever else equations read of them (source, ...) after these."""
        return sources

    def read(self, sources: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        """Some of the ``expanded`` sources, in float64, where not all are worth their memory.

        Parameters
        ----------
        sources : tensor  # (source, ...)
        slots : tensor of int  # (target, slot)

        Returns
        -------
        tensor  # (target, slot, ...)
        """
        return sources[slots].double()

    def init(self, generator: torch.Generator, *, n_models: int, dtype: torch.dtype, device: torch.device) -> Weights:
        lead = (n_models, self.n_targets)
        weights = draw_nets(generator, lead, self.n_slots, self.hidden, self.n_bilinear, dtype, device)
        used = (self._index(device) < self.n_sources).to(dtype).unsqueeze(-2)
        return {name: value * used if name in self.entries else value for name, value in weights.items()}

    def __call__(self, weights: Weights, z: torch.Tensor) -> torch.Tensor:
        return self._slopes(weights, self._read(z)).transpose(1, 2)

    def bind(self, weights: Weights) -> AbstractBoundField:
        return BoundPacked(self.__call__, weights, self.parents, self.activation, self.hidden, self.entries)

    def _slopes(self, weights: Weights, read: torch.Tensor) -> torch.Tensor:
        first = torch.cat([weights[name] for name in self.entries], dim=-2)  # (model, target, row, slot)
        return combine(weights, read @ first.mT, self.hidden, self.activation, self.n_bilinear)

    def paths(self, weights: Weights) -> torch.Tensor:
        return self.to_wide(path_weights(weights, self.chain, self.n_bilinear))

    def to_wide(self, values: torch.Tensor) -> torch.Tensor:
        index = self._index(values.device).expand(values.shape)
        out = torch.zeros(*values.shape[:-1], self.n_sources + 1, dtype=values.dtype, device=values.device)
        return out.scatter(-1, index, values)[..., :-1]

    def to_columns(self, values: torch.Tensor) -> torch.Tensor:
        index = self._index(values.device).expand(*values.shape[:-1], -1)
        found = values.gather(-1, index.clamp_max(self.n_sources - 1))  # padding would copy all that is wide
        return torch.where(index < self.n_sources, found, torch.zeros_like(found))

    def jacobian(self, weights: Weights, z: torch.Tensor) -> torch.Tensor:
        return self.to_wide(self.column_jacobian(weights, z))

    def column_jacobian(self, weights: Weights, z: torch.Tensor) -> torch.Tensor:
        read = self._read(z.detach().expand(weights["K"].shape[0], -1, -1)).clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(self._slopes(weights, read).sum(), read)
        return gradient.transpose(1, 2)


def combine(
    weights: Weights, rows: torch.Tensor, hidden: tuple[int, ...], activation: str, n_bilinear: int
) -> torch.Tensor:
    """Slopes from the first product of per-target networks.

    Parameters
    ----------
    weights : dict of tensors  # (model, target, ...)
    rows : tensor  # (model, target, sample, row)
        Sources times the rows of W0, K, P and R, in this order.
    hidden : tuple of int
    activation : str
    n_bilinear : int

    Returns
    -------
    tensor  # (model, target, sample)
    """
    bend = ACTIVATIONS[activation]
    n_hidden, last = hidden[0], len(hidden)
    linear = rows[..., n_hidden]
    h = bend(rows[..., :n_hidden] + weights["b0"])
    for k in range(1, last):
        h = bend(h @ weights[f"W{k}"].mT + weights[f"b{k}"])
    slopes = (h * weights[f"W{last}"]).sum(dim=-1) + linear + weights[f"b{last}"].squeeze(-1)
    if n_bilinear:
        left, right = rows[..., n_hidden + 1 :].chunk(2, dim=-1)
        slopes = slopes + (left * right).sum(dim=-1)
    return slopes
