"""One small network per target: the field that can cut one edge without touching another."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from skode._typing import Weights
from skode.fields._base import ACTIVATIONS, AbstractField, normal


@dataclass(frozen=True)
class PerTargetField(AbstractField):
    """A network with linear skip, and optional bilinear units, for each target; all targets are one batch.

    F_i(z) = c_i + k_i . z + net_i(z) + sum_q (P_iq . z)(R_iq . z)

    Whatever target i knows of source j passes through column j of k_i, of the first layer of net_i, and of
    P_i and R_i. Setting these columns to zero removes the edge j -> i and nothing else.

    Parameters
    ----------
    n_bilinear : int, default=0
        Number of products of two linear forms per target. Exact for quadratic systems.

    References
    ----------
    "Neural graphical modelling in continuous-time", 2022, arXiv 2105.02522, equation 4 (one network per
    target).
    """

    n_bilinear: int = 0

    @property
    def per_target(self) -> bool:
        return True

    @property
    def entries(self) -> tuple[str, ...]:
        return ("W0", "K", "P", "R") if self.n_bilinear else ("W0", "K")

    def init(self, generator: torch.Generator, *, n_models: int, dtype: torch.dtype, device: torch.device) -> Weights:
        widths = (self.n_sources, *self.hidden, 1)
        lead = (n_models, self.n_targets)
        weights: Weights = {}
        for k, (fan_in, fan_out) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            last = k == len(self.hidden)
            scale = 0.3 * fan_in**-0.5 if last else fan_in**-0.5
            weights[f"W{k}"] = normal(generator, (*lead, fan_out, fan_in), scale, dtype, device)
            weights[f"b{k}"] = normal(generator, (*lead, 1, fan_out), 0.0 if last else 0.5, dtype, device)
        weights["K"] = torch.zeros((*lead, 1, self.n_sources), dtype=dtype, device=device)
        if self.n_bilinear:
            shape = (*lead, self.n_bilinear, self.n_sources)
            weights["P"] = normal(generator, shape, 0.3 * self.n_sources**-0.5, dtype, device)
            weights["R"] = normal(generator, shape, 0.3 * self.n_sources**-0.5, dtype, device)
        return weights

    def __call__(self, weights: Weights, z: torch.Tensor) -> torch.Tensor:
        # Every first-layer row of every target reads the same z: one matrix product serves them all.
        first = self._first(weights)
        rows = z @ first.flatten(1, 2).mT
        rows = rows.reshape(*rows.shape[:-1], self.n_targets, first.shape[-2])
        return self._combine(weights, rows.transpose(1, 2)).transpose(1, 2)

    def _first(self, weights: Weights) -> torch.Tensor:
        return torch.cat([weights[name] for name in self.entries], dim=-2)  # (model, target, row, source)

    def _combine(self, weights: Weights, rows: torch.Tensor) -> torch.Tensor:
        return combine(weights, rows, self.hidden, self.activation, self.n_bilinear)

    def paths(self, weights: Weights) -> torch.Tensor:
        return path_weights(weights, self.chain, self.n_bilinear)

    def jacobian(self, weights: Weights, z: torch.Tensor) -> torch.Tensor:
        # One copy of z per target, so that a single backward pass gives every row of the Jacobian.
        z = z.expand(weights["K"].shape[0], -1, -1).detach()
        copies = z.unsqueeze(1).expand(-1, self.n_targets, -1, -1).clone().requires_grad_(True)
        slopes = self._combine(weights, copies @ self._first(weights).mT)
        (gradient,) = torch.autograd.grad(slopes.sum(), copies)
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


def path_weights(weights: Weights, chain: tuple[str, ...], n_bilinear: int) -> torch.Tensor:
    """Sum over paths of products of absolute weights.  # (model, target, column)"""
    product = weights[chain[0]].abs()
    for name in chain[1:]:
        product = weights[name].abs() @ product  # (model, target, out, column)
    total = (product + weights["K"].abs()).squeeze(-2)
    if n_bilinear:
        left, right = weights["P"].abs(), weights["R"].abs()
        total = total + (left * right.sum(dim=-1, keepdim=True)).sum(dim=-2)
        total = total + (right * left.sum(dim=-1, keepdim=True)).sum(dim=-2)
    return total
