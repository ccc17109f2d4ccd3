"""A linear skip that decides which sources the network may see: LassoNet."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from skode._typing import Weights
from skode.fields import AbstractField
from skode.penalties._base import AbstractPenalty, per_price


@dataclass(frozen=True)
class LassoNet(AbstractPenalty):
    """A price on the linear skip, and a network that sees a source only as far as the skip does.

    per-target field:  value = sum_ij |K_ij|,               |W_i,h,j| <= M |K_ij|
    residual field:    value = sqrt(n_targets) sum_j |K_:j|_2,   |W_h,j| <= M |K_:j|_2

    where W is the first layer (and the bilinear factors, where the field has them). On the residual field all
    targets share the hidden units, so a source is kept or dropped for all of them together; on the per-target
    field edges are cut one by one. The proximal map solves price and constraint together (``hier_prox``),
    with one step per group, 1 / sqrt(mean of the squared metric over the group). Sources that belong to one
    variable are treated separately. On the residual field adaptive factors are averaged over targets.

    Scale: a target's zero-model loss is 1 and sources are standardised, so 2 leaves nothing of a linear
    field. The network can amplify by up to M, hence the much larger bound of ``zero_alpha``.

    Parameters
    ----------
    M : float, default=10.0
        Hierarchy: how far the network may exceed the skip. 0 gives a linear field, infinity no constraint.
    readout_bound : float, default=1.5
        Largest absolute weight after the first layer, so that the network cannot buy with its later layers
        what the constraint denies it; ``math.inf`` switches the clip off, as in the paper.

    Examples
    --------
    >>> import torch
    >>> from skode.fields import SharedField
    >>> from skode.penalties import LassoNet
    >>> field = SharedField(2, 2, (3,), "tanh", (0, 1), linear_skip=True)
    >>> weights = field.init(torch.Generator().manual_seed(0), n_models=1, dtype=torch.float64,
    ...                      device=torch.device("cpu"))
    >>> weights["K"] += 0.01
    >>> unit_steps = {name: torch.ones_like(tensor) for name, tensor in weights.items()}
    >>> LassoNet(M=2.0).prox(field, weights, alpha=torch.tensor([0.1]), metric=unit_steps, adaptive=None)
    >>> bool((weights["W0"].abs() <= 2 * weights["K"].norm(dim=-2, keepdim=True) + 1e-12).all())
    True

    References
    ----------
    "LassoNet: A Neural Network with Feature Sparsity", 2021, arXiv 1907.12207, algorithm 3 (HIER-PROX) and
    its version for groups. We differ in the metric (Adam instead of plain descent), the weight
    sqrt(n_targets), which makes one alpha serve both fields, and the clip of later layers.
    """

    M: float = 10.0
    readout_bound: float = 1.5

    def __post_init__(self) -> None:
        if not (self.M >= 0 and math.isfinite(self.M)):
            raise ValueError(f"M must be finite and not negative; got {self.M}. Use 10.")
        if not self.readout_bound > 0:
            raise ValueError(
                f"readout_bound must be positive; got {self.readout_bound}. Use 1.5, or math.inf for no bound."
            )

    @property
    def name(self) -> str:
        return "lassonet"

    def prox(
        self,
        field: AbstractField,
        params: Weights,
        *,
        alpha: torch.Tensor,
        metric: Weights,
        adaptive: torch.Tensor | None,
    ) -> None:
        bounded = [name for name in field.entries if name != "K"]
        squares = torch.cat([metric[name].square() for name in field.entries], dim=-2)
        step = squares.mean(-2).rsqrt()  # (model, [target,] source)
        price = step * alpha.reshape(-1, *[1] * (step.ndim - 1)) * self._weight(field)
        if adaptive is not None:
            factors = field.to_sources(adaptive)
            price = price * (factors if field.per_target else factors.mean(-2))
        inner = torch.cat([params[name] for name in bounded], dim=-2).mT  # (model, [target,] source, row)
        skip, inner = hier_prox(params["K"].mT, inner, price=price, M=self.M)
        params["K"].copy_(skip.mT)
        sizes = [params[name].shape[-2] for name in bounded]
        for name, piece in zip(bounded, torch.split(inner.mT, sizes, dim=-2), strict=True):
            params[name].copy_(piece)
        for name in field.chain[1:]:
            params[name].clamp_(-self.readout_bound, self.readout_bound)

    def value(self, field: AbstractField, params: Weights) -> torch.Tensor:
        norms: torch.Tensor = torch.linalg.vector_norm(params["K"], dim=-2)  # (model, [target,] source)
        return self._weight(field) * norms.flatten(1).sum(1)

    def zero_alpha(self, field: AbstractField) -> float:
        if "P" in field.entries:
            return math.inf
        gain = math.prod(self.readout_bound * width for width in field.hidden)
        return 2 * (1 + self.M * gain * self._weight(field))

    def critical_alpha(
        self, field: AbstractField, gradient: Weights, *, prices: torch.Tensor | None = None
    ) -> torch.Tensor:
        skip: torch.Tensor = torch.linalg.vector_norm(gradient["K"], dim=-2)  # (model, [target,] source)
        inner = torch.stack([gradient[name].abs().sum(-2) for name in field.entries if name != "K"]).sum(0)
        strength = (skip + self.M * inner) / self._weight(field)  # (model, [target,] source)
        return per_price(strength, None if prices is None else field.to_sources(prices)).flatten(1).amax(1)

    def _weight(self, field: AbstractField) -> float:
        return 1.0 if field.per_target else math.sqrt(field.n_targets)


def hier_prox(
    skip: torch.Tensor, inner: torch.Tensor, *, price: torch.Tensor, M: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Solve the hierarchical proximal problem of every group exactly, by sorting.

    minimise over b, W:  |b - skip|^2 / 2 + |W - inner|^2 / 2 + price |b|_2   subject to  |W|_inf <= M |b|_2

    Given B = |b|_2 the best W clips ``inner`` at M B and the best b points along ``skip``. The optimality
    condition in B is piecewise linear; if the m largest of |inner| are clipped its solution is
    B_m = max(0, |skip| - price + M (sum of the m largest)) / (1 + m M^2), and the right m is the first one
    for which the next entry is not clipped.

    Parameters
    ----------
    skip : tensor  # (..., target)
    inner : tensor  # (..., row)
    price : tensor  # (...), >= 0
    M : float

    Returns
    -------
    b : tensor  # (..., target)
    W : tensor  # (..., row)

    Examples
    --------
    >>> import torch
    >>> from skode.penalties.lassonet import hier_prox
    >>> hier_prox(torch.tensor([2.0]), torch.tensor([5.0, 0.1]), price=torch.tensor(0.5), M=0.0)
    (tensor([1.5000]), tensor([0., 0.]))

    References
    ----------
    "LassoNet: A Neural Network with Feature Sparsity", 2021, arXiv 1907.12207, algorithm 3.
    """
    size = torch.linalg.vector_norm(skip, dim=-1, keepdim=True)
    ordered = inner.abs().sort(dim=-1, descending=True).values
    zero = torch.zeros_like(size)
    clipped_sum = torch.cat([zero, ordered.cumsum(-1)], dim=-1)  # (..., row + 1), the m largest
    m = torch.arange(clipped_sum.shape[-1], dtype=inner.dtype, device=inner.device)
    norms = (size - price.unsqueeze(-1) + M * clipped_sum).clamp_min(0) / (1 + m * M**2)
    following = torch.cat([ordered, zero], dim=-1)
    n_clipped = (following > M * norms).long().sum(-1, keepdim=True)
    norm = norms.gather(-1, n_clipped)
    # Where the skip is exactly zero every direction is equally good.
    even = torch.full_like(skip, skip.shape[-1] ** -0.5)
    direction = torch.where(size > 0, skip / torch.where(size > 0, size, 1.0), even)
    bound = M * norm
    return norm * direction, inner.clamp(-bound, bound)
