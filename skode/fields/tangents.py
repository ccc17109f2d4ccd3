"""Per-target networks as functions of one flat parameter vector, with derivatives: what least squares needs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from skode._typing import Weights
from skode.fields._activations import ACTIVATIONS
from skode.fields.packed import PackedField


@dataclass(frozen=True)
class TargetNets:
    """Networks of some targets of a packed field that have the same number of parents.

    Parameters
    ----------
    n_slots : int
        Parents of every target.
    hidden : tuple of int
    activation : str
    n_bilinear : int
    """

    n_slots: int
    hidden: tuple[int, ...]
    activation: str
    n_bilinear: int

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Shape of every tensor of one target, in the order of the flat vector."""
        widths = (self.n_slots, *self.hidden, 1)
        out = {}
        for k, (fan_in, fan_out) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            out[f"W{k}"], out[f"b{k}"] = (fan_out, fan_in), (1, fan_out)
        out["K"] = (1, self.n_slots)
        if self.n_bilinear:
            out["P"] = out["R"] = (self.n_bilinear, self.n_slots)
        return out

    def flat(self, weights: Weights, targets: torch.Tensor) -> torch.Tensor:
        """Parameters of some targets of model 0.  # (target, entry)"""
        rows, columns = {}, set(PackedField.ENTRIES)
        for name, shape in self.shapes.items():
            value = weights[name][0, targets]
            rows[name] = (value[..., : shape[1]] if name in columns else value).flatten(1)
        return torch.cat(list(rows.values()), dim=1)

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
            if name in PackedField.ENTRIES:
                parts.append((~columns).double().unsqueeze(1).expand(-1, n_out, -1).flatten(1))
            else:
                parts.append(torch.ones(len(columns), n_out * n_in, dtype=torch.float64, device=columns.device))
        return torch.cat(parts, dim=1)

    def __call__(self, flat: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
        """Slopes.

        Parameters
        ----------
        flat : tensor  # (target, entry)
        read : tensor  # (target, sample, slot)

        Returns
        -------
        tensor  # (target, sample)
        """
        return self._forward(self.split(flat), read)[0]

    def mean_tangents(
        self, flat: torch.Tensor, read: torch.Tensor, quadrature: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Means of the slopes over the nodes of every interval, and their derivatives by the parameters.

        Parameters
        ----------
        flat : tensor  # (target, entry)
        read : tensor  # (target, interval, node, slot)
        quadrature : tensor  # (interval, node)

        Returns
        -------
        tensor  # (target, interval)
        tensor  # (target, interval, entry)
        """
        w = self.split(flat)
        intervals = read.shape[:-1]
        slopes, layers = self._forward(w, read.flatten(1, 2))
        last = len(self.hidden)
        q = quadrature.unsqueeze(-1)
        layers = [(value.view(*intervals, -1), slope.view(*intervals, -1)) for value, slope in layers]

        def mean(values: torch.Tensor) -> torch.Tensor:
            return (q * values).sum(2)

        def outer(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
            """Mean over nodes of products, node by node: nothing is as large as all nodes together."""
            left = q * left
            total = left[:, :, 0, :, None] * right[:, :, 0, None, :]
            for node in range(1, q.shape[1]):
                total.addcmul_(left[:, :, node, :, None], right[:, :, node, None, :])
            return total.flatten(-2)

        total = quadrature.sum(1)[:, None].expand(*intervals[:2], 1)
        found = {"K": mean(read), f"b{last}": total, f"W{last}": mean(layers[-1][0])}
        back = w[f"W{last}"].unsqueeze(1).expand(*intervals, -1)  # derivative by the activations of a layer
        for k in range(last - 1, -1, -1):
            delta = back * layers[k][1]
            found[f"b{k}"] = mean(delta)
            found[f"W{k}"] = outer(delta, layers[k - 1][0] if k else read)
            back = delta @ w[f"W{k}"].unsqueeze(1)
        if self.n_bilinear:
            for name, other in (("P", "R"), ("R", "P")):
                found[name] = outer(read @ w[other].mT.unsqueeze(1), read)
        mean_slopes = (quadrature * slopes.view(intervals)).sum(-1)
        return mean_slopes, torch.cat([found[name] for name in self.shapes], dim=-1)

    def _forward(self, w: Weights, read: torch.Tensor) -> tuple[torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]]]:
        """Slopes, and of every hidden layer its activations and their slopes."""
        layers, below, activation = [], read, ACTIVATIONS[self.activation]
        for k in range(len(self.hidden)):
            below, slope = activation.tangent(below @ w[f"W{k}"].mT + w[f"b{k}"])
            layers.append((below, slope))
        last = len(self.hidden)
        slopes = (below @ w[f"W{last}"].mT + w[f"b{last}"] + read @ w["K"].mT).squeeze(-1)
        if self.n_bilinear:
            slopes = slopes + ((read @ w["P"].mT) * (read @ w["R"].mT)).sum(-1)
        return slopes, layers
