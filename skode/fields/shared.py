"""One network for all targets: the field of the paper, and the same with a linear skip."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from skode._typing import AnyArray, FloatArray, Weights
from skode.fields._base import AbstractField, normal
from skode.fields._bound import differentiable
from skode.fields._points import PointNets, point_nets
from skode.fields._shared import BoundShared


@dataclass(frozen=True)
class SharedField(AbstractField):
    """Multilayer perceptron sources -> hidden -> ... -> targets, shared by all targets.

    F(z) = W_L s(... s(W_0 z + b_0) ...) + b_L [+ K z]

    Every hidden unit serves all targets, so removing a source from one target only takes a zero in the
    product of the layers, not in one matrix: weight gates and the path penalty exist for this field.

    Parameters
    ----------
    linear_skip : bool, default=False
        Add K z. This is the residual field that LassoNet needs.

    References
    ----------
    "Sparsity in Continuous-Depth Neural Networks", 2022, arXiv 2210.14672, section 2.
    "LassoNet: A Neural Network with Feature Sparsity", 2021, arXiv 1907.12207, equation 1 (the skip).
    """

    linear_skip: bool = False

    @property
    def per_target(self) -> bool:
        return False

    @property
    def entries(self) -> tuple[str, ...]:
        return ("W0", "K") if self.linear_skip else ("W0",)

    def init(self, generator: torch.Generator, *, n_models: int, dtype: torch.dtype, device: torch.device) -> Weights:
        widths = (self.n_sources, *self.hidden, self.n_targets)
        weights: Weights = {}
        for k, (fan_in, fan_out) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            scale = fan_in**-0.5 if k < len(self.hidden) else 0.3 * fan_in**-0.5
            weights[f"W{k}"] = normal(generator, (n_models, fan_out, fan_in), scale, dtype, device)
            spread = 0.5 if k < len(self.hidden) else 0.0
            weights[f"b{k}"] = normal(generator, (n_models, 1, fan_out), spread, dtype, device)
        if self.linear_skip:
            shape = (n_models, self.n_targets, self.n_sources)
            weights["K"] = torch.zeros(shape, dtype=dtype, device=device)
        return weights

    def __call__(self, weights: Weights, z: torch.Tensor) -> torch.Tensor:
        return differentiable(self.bind, weights, z)

    def bind(self, weights: Weights) -> BoundShared:
        return BoundShared(weights, self.activation, len(self.hidden), linear_skip=self.linear_skip)

    def at_points(self, weights: dict[str, AnyArray], gain: FloatArray) -> PointNets | None:
        one = {name: value[None] for name, value in weights.items()}  # one network for all targets
        return point_nets(one, self.activation, len(self.hidden), gain)

    def paths(self, weights: Weights) -> torch.Tensor:
        product = weights["W0"].abs()
        for name in self.chain[1:]:
            product = weights[name].abs() @ product
        return product + weights["K"].abs() if self.linear_skip else product
