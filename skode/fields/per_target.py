"""One small network per target: the field that can cut one edge without touching another."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from skode._typing import AnyArray, FloatArray, Weights
from skode.fields._base import AbstractField, normal
from skode.fields._bound import differentiable
from skode.fields._per_target import BoundPerTarget
from skode.fields._points import PointNets, point_nets


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
        lead = (n_models, self.n_targets)
        return draw_nets(generator, lead, self.n_sources, self.hidden, self.n_bilinear, dtype, device)

    def __call__(self, weights: Weights, z: torch.Tensor) -> torch.Tensor:
        return differentiable(self.bind, weights, z)

    def bind(self, weights: Weights) -> BoundPerTarget:
        return BoundPerTarget(weights, self.activation, len(self.hidden), self.entries)

    def at_points(self, weights: dict[str, AnyArray], gain: FloatArray) -> PointNets | None:
        return point_nets(weights, self.activation, len(self.hidden), gain)

    def paths(self, weights: Weights) -> torch.Tensor:
        return path_weights(weights, self.chain, self.n_bilinear)

    def jacobian(self, weights: Weights, z: torch.Tensor) -> torch.Tensor:
        return self.bind(weights).jacobian(z)


def draw_nets(
    generator: torch.Generator,
    lead: tuple[int, int],
    n_columns: int,
    hidden: tuple[int, ...],
    n_bilinear: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Weights:
    """Initial weights of (model, target) networks that read so many columns; the linear skip starts at zero."""
    widths = (n_columns, *hidden, 1)
    weights: Weights = {}
    for k, (fan_in, fan_out) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        last = k == len(hidden)
        scale = 0.3 * fan_in**-0.5 if last else fan_in**-0.5
        weights[f"W{k}"] = normal(generator, (*lead, fan_out, fan_in), scale, dtype, device)
        weights[f"b{k}"] = normal(generator, (*lead, 1, fan_out), 0.0 if last else 0.5, dtype, device)
    weights["K"] = torch.zeros((*lead, 1, n_columns), dtype=dtype, device=device)
    if n_bilinear:
        for name in ("P", "R"):
            weights[name] = normal(generator, (*lead, n_bilinear, n_columns), 0.3 * n_columns**-0.5, dtype, device)
    return weights


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
