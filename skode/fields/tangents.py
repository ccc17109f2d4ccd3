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
        return {name: piece.view(-1, *shape) for (name, shape), piece in zip(self.shapes.items(), pieces, strict=True)}

    def marks(self, *names: str) -> torch.Tensor:
        """1 where an entry of the flat vector belongs to one of the named tensors.  # (entry,)"""
        parts = [torch.full((math.prod(shape),), float(name in names)) for name, shape in self.shapes.items()]
        return torch.cat(parts).double()

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

    def tangents(self, flat: torch.Tensor, read: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Slopes (target, sample), and their derivatives by the parameters (target, sample, entry)."""
        w = self.split(flat)
        slopes, layers = self._forward(w, read)
        last = len(self.hidden)
        found = {"K": read, f"b{last}": torch.ones_like(slopes)[..., None], f"W{last}": layers[-1][0]}
        back = w[f"W{last}"].expand(-1, read.shape[1], -1)  # derivative by the activations of a layer
        for k in range(last - 1, -1, -1):
            below = layers[k - 1][0] if k else read
            delta = back * layers[k][1]
            found[f"b{k}"] = delta
            found[f"W{k}"] = (delta.unsqueeze(-1) * below.unsqueeze(-2)).flatten(-2)
            back = delta @ w[f"W{k}"]
        if self.n_bilinear:
            for name, other in (("P", "R"), ("R", "P")):
                found[name] = ((read @ w[other].mT).unsqueeze(-1) * read.unsqueeze(-2)).flatten(-2)
        return slopes, torch.cat([found[name] for name in self.shapes], dim=-1)

    def _forward(self, w: Weights, read: torch.Tensor) -> tuple[torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]]]:
        """Slopes, and of every hidden layer its activations and their slopes."""
        layers, below, activation = [], read, ACTIVATIONS[self.activation]
        for k in range(len(self.hidden)):
            below, kept = activation.apply(below @ w[f"W{k}"].mT + w[f"b{k}"])
            layers.append((below, activation.pull(torch.ones_like(below), kept)))
        last = len(self.hidden)
        slopes = (below @ w[f"W{last}"].mT + w[f"b{last}"] + read @ w["K"].mT).squeeze(-1)
        if self.n_bilinear:
            slopes = slopes + ((read @ w["P"].mT) * (read @ w["R"].mT)).sum(-1)
        return slopes, layers
