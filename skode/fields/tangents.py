"""Equations of targets as functions of one flat parameter vector, with derivatives: what least squares needs."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch

from skode._typing import Weights
from skode.fields._activations import ACTIVATIONS
from skode.fields._folding import Folding

ENTRIES = ("W0", "K", "P", "R")
"""Tensors of per-target networks that read the sources."""


@dataclass(frozen=True)
class AbstractNets(ABC):
    """Equations of some targets of a packed field that are alike, as functions of flat parameters.

    Parameters
    ----------
    n_slots : int
        Parents of every target.
    """

    n_slots: int

    @property
    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Shape of every tensor of one target, in the order of the flat vector."""

    @property
    @abstractmethod
    def entries(self) -> frozenset[str]:
        """Tensors whose last axis is the parents."""

    @abstractmethod
    def linear(self) -> torch.Tensor:
        """Marks the entries in which slopes are linear, the others given.  # (entry,) of bool"""

    @abstractmethod
    def __call__(self, flat: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
        """Slopes.

        Parameters
        ----------
        flat : tensor  # (target, entry)
        read : tensor  # (target, slot, sample)

        Returns
        -------
        tensor  # (target, sample)
        """

    @abstractmethod
    def mean_design(
        self, flat: torch.Tensor, read: torch.Tensor, quadrature: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Weighted sums over nodes of what the ``linear`` entries multiply, and of all that is left, if anything.

        Parameters
        ----------
        flat, read, quadrature
            As for ``mean_tangents``.

        Returns
        -------
        tensor  # (target, linear entry, interval)
        tensor or None  # (target, interval)
        """

    @abstractmethod
    def mean_tangents(
        self, flat: torch.Tensor, read: torch.Tensor, quadrature: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Weighted sums of the slopes over the nodes of every interval, and their derivatives by the parameters.

        Intervals are the last axis: every pass is over contiguous memory, and the product of the derivatives with
        themselves is one of long rows.

        Parameters
        ----------
        flat : tensor  # (target, entry)
        read : tensor  # (target, slot, node, interval)
        quadrature : tensor  # (target | 1, node, interval)

        Returns
        -------
        tensor  # (target, interval)
        tensor  # (target, entry, interval)
        """

    @property
    def n_entries(self) -> int:
        """Parameters of one target."""
        return sum(map(math.prod, self.shapes.values()))

    def flat(self, weights: Weights, targets: torch.Tensor) -> torch.Tensor:
        """Parameters of some targets of model 0.  # (target, entry)"""
        rows = [weights[name][0, targets, :, : shape[1]].flatten(1) for name, shape in self.shapes.items()]
        return torch.cat(rows, dim=1)

    def put(self, weights: Weights, targets: torch.Tensor, flat: torch.Tensor) -> None:
        """Write parameters back into model 0; changes weights."""
        for name, value in self.split(flat).items():
            weights[name][0, targets, :, : value.shape[-1]] = value.to(weights[name].dtype)

    def split(self, flat: torch.Tensor) -> Weights:
        """Named views.  # (target, out, in)"""
        pieces = torch.split(flat, [math.prod(shape) for shape in self.shapes.values()], dim=1)
        return {
            name: piece.reshape(flat.shape[0], *shape)
            for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)
        }

    def marks(self, *names: str) -> torch.Tensor:
        """1 where an entry of the flat vector belongs to one of the named tensors.  # (entry,)"""
        parts = [torch.full((math.prod(shape),), float(name in names)) for name, shape in self.shapes.items()]
        return torch.cat(parts).double()

    def outside(self, columns: torch.Tensor) -> torch.Tensor:
        """0 where an entry reads one of the marked columns, else 1.  # (target, slot) to (target, entry)"""
        parts = []
        for name, (n_out, n_in) in self.shapes.items():
            if name in self.entries:
                parts.append((~columns).double().unsqueeze(1).expand(-1, n_out, -1).flatten(1))
            else:
                parts.append(torch.ones(len(columns), n_out * n_in, dtype=torch.float64, device=columns.device))
        return torch.cat(parts, dim=1)


@dataclass(frozen=True)
class TargetNets(AbstractNets):
    """Networks of some targets of a packed field that have the same number of parents.

    Parameters
    ----------
    n_slots : int
        Parents of every target.
    hidden : tuple of int
    activation : str
    n_bilinear : int
    """

    hidden: tuple[int, ...]
    activation: str
    n_bilinear: int

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        widths = (self.n_slots, *self.hidden, 1)
        out = {}
        for k, (fan_in, fan_out) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            out[f"W{k}"], out[f"b{k}"] = (fan_out, fan_in), (1, fan_out)
        out["K"] = (1, self.n_slots)
        if self.n_bilinear:
            out["P"] = out["R"] = (self.n_bilinear, self.n_slots)
        return out

    @property
    def entries(self) -> frozenset[str]:
        return frozenset(ENTRIES)

    def __call__(self, flat: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
        return self._forward(self.folding.fold(self.split(flat)), read)[0]

    def linear(self) -> torch.Tensor:
        last = len(self.hidden)
        return self.marks(f"W{last}", f"b{last}", "K") > 0

    def mean_design(
        self, flat: torch.Tensor, read: torch.Tensor, quadrature: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        w, last = self.split(flat), len(self.hidden)
        folded, wide, q = self.folding.fold(w), read.flatten(2), quadrature.unsqueeze(1)
        core, total = by_node(self._layers(folded, wide)[-1][0], quadrature), over_nodes(q)
        factors = self.folding.factors(last)
        found = {
            f"W{last}": over_nodes(q * core).mul_(factors.gain).add_(total, alpha=factors.shift),
            f"b{last}": total.expand(len(flat), -1, -1),
            "K": over_nodes(q * read),
        }
        design = torch.cat([found[name] for name in self.shapes if name in found], dim=1)
        if not self.n_bilinear:
            return design, None
        products = ((w["P"] @ wide) * (w["R"] @ wide)).sum(1)
        return design, over_nodes(quadrature * by_node(products, quadrature))

    def mean_tangents(
        self, flat: torch.Tensor, read: torch.Tensor, quadrature: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        w = self.split(flat)
        folded = self.folding.fold(w)
        n_targets, _, n_nodes, n_intervals = read.shape
        slopes, layers = self._forward(folded, read.flatten(2))
        q = quadrature.unsqueeze(1)  # (target | 1, 1, node, interval)
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        out = flat.new_empty(n_targets, flat.shape[1], n_intervals)
        found = dict(zip(self.shapes, torch.split(out, sizes, dim=1), strict=True))
        total = over_nodes(q)  # (target | 1, 1, interval)

        def outer(name: str, left: torch.Tensor, right: torch.Tensor) -> None:
            """Sum over nodes of products, node by node: nothing is as large as all nodes together."""
            into = found[name].view(n_targets, left.shape[1], right.shape[1], n_intervals)
            torch.mul(left[:, :, None, 0], right[:, None, :, 0], out=into)
            for node in range(1, n_nodes):
                into.addcmul_(left[:, :, None, node], right[:, None, :, node])

        last = len(self.hidden)
        found["K"].copy_(over_nodes(q * read))
        found[f"b{last}"].copy_(total)
        factors = self.folding.factors(last)
        found[f"W{last}"].copy_(
            over_nodes(q * by_node(layers[-1][0], quadrature)) * factors.gain + factors.shift * total
        )
        delta = folded[
            f"W{last}"
        ].mT  # derivative by what a layer gives: (target, unit, 1), then (target, unit, sample)
        for k in range(last - 1, -1, -1):
            delta = ACTIVATIONS[self.activation].pull(delta.expand_as(layers[k][1]), layers[k][1])
            weighted = q * by_node(delta, quadrature)
            factors = self.folding.factors(k)
            biases = over_nodes(weighted)
            torch.mul(biases, factors.bias, out=found[f"b{k}"])
            outer(f"W{k}", weighted, by_node(layers[k - 1][0], quadrature) if k else read)
            if factors.gain != 1.0:
                found[f"W{k}"].mul_(factors.gain)
            if factors.shift:
                wide = found[f"W{k}"].view(n_targets, biases.shape[1], -1, n_intervals)
                wide.add_(biases.unsqueeze(2), alpha=factors.shift)
            if k:
                delta = folded[f"W{k}"].mT @ delta
        if self.n_bilinear:
            for name, other in (("P", "R"), ("R", "P")):
                outer(name, q * by_node(w[other] @ read.flatten(2), quadrature), read)
        return over_nodes(q * by_node(slopes.unsqueeze(1), quadrature)).squeeze(1), out

    @cached_property
    def folding(self) -> Folding:
        """What takes the factors around the activation's core into the weights."""
        return Folding(ACTIVATIONS[self.activation], len(self.hidden))

    def _forward(self, w: Weights, read: torch.Tensor) -> tuple[torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]]]:
        """Slopes (target, sample) at folded weights, and of every hidden layer its core and what ``pull`` needs."""
        layers, last = self._layers(w, read), len(self.hidden)
        slopes = torch.baddbmm(torch.baddbmm(w[f"b{last}"].mT, w[f"W{last}"], layers[-1][0]), w["K"], read).squeeze(1)
        if self.n_bilinear:
            slopes = slopes + ((w["P"] @ read) * (w["R"] @ read)).sum(1)
        return slopes, layers

    def _layers(self, w: Weights, read: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        layers, below, activation = [], read, ACTIVATIONS[self.activation]
        for k in range(len(self.hidden)):
            below, kept = activation.apply(torch.baddbmm(w[f"b{k}"].mT, w[f"W{k}"], below))
            layers.append((below, kept))
        return layers


def by_node(values: torch.Tensor, quadrature: torch.Tensor) -> torch.Tensor:
    """Samples by node and interval, as the quadrature has them.  # (..., sample) to (..., node, interval)"""
    return values.view(*values.shape[:-1], *quadrature.shape[-2:])


def over_nodes(values: torch.Tensor) -> torch.Tensor:
    """Sum over the nodes, one after the other: far faster than a reduction of three entries that lie apart.

    Parameters
    ----------
    values : tensor  # (..., node, interval)

    Returns
    -------
    tensor  # (..., interval)
    """
    first, *others = values.unbind(-2)
    total = first.clone()
    for other in others:
        total += other
    return total
