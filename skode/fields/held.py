"""The field of a fitted model: its products go no further than the data."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from skode._typing import AnyArray, FloatArray, Weights
from skode.fields._base import AbstractField
from skode.fields._bound import ByAutograd, Evaluated
from skode.fields._points import PointNets, point_nets
from skode.fields.per_target import PerTargetField
from skode.fields.polynomial import PolynomialField


@dataclass(frozen=True)
class HeldField(PerTargetField):
    """One network per target, whose products read sources that are held between two edges.

    F_i(z) = c_i + k_i . z + net_i(z) + sum_q (P_iq . h)(R_iq . h),  h = z cut at ``low`` and ``high``

    Between the edges it is the ``PerTargetField`` of the same weights. Beyond them, where nothing was seen, products
    would grow as squares, and a forecast that strays be lost in no time.

    Parameters
    ----------
    low, high : tuple of float, one per source
        Edges; infinite for sources that are not held.
    """

    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    def __call__(self, weights: Weights, z: torch.Tensor) -> torch.Tensor:
        return replace(_plain(self), n_bilinear=0)(_without_products(weights), z) + _products(weights, z, self.edges(z))

    def edges(self, like: torch.Tensor) -> torch.Tensor:
        """``low`` and ``high``, in the dtype and on the device of ``like``.  # (2, source)"""
        return torch.tensor([self.low, self.high], dtype=like.dtype, device=like.device)

    def bind(self, weights: Weights) -> BoundHeld:  # type: ignore[override]
        return BoundHeld(self, weights)

    def at_points(self, weights: dict[str, AnyArray], gain: FloatArray) -> PointNets | None:
        return point_nets(weights, self.activation, len(self.hidden), gain, (self.low, self.high))

    def jacobian(self, weights: Weights, z: torch.Tensor) -> torch.Tensor:
        return AbstractField.jacobian(self, weights, z)


class BoundHeld(ByAutograd):
    """A held field at given weights, for predictions; gradients go through autograd.

    Parameters
    ----------
    field : HeldField
    weights : dict of tensors  # (model, target, ...)
    """

    def __init__(self, field: HeldField, weights: Weights) -> None:
        super().__init__(field.__call__, weights)
        self.edges = field.edges(weights["K"])
        self.rest = replace(_plain(field), n_bilinear=0).bind(_without_products(self.weights))

    def evaluate(self, z: torch.Tensor) -> Evaluated:
        slopes = self.rest.evaluate(z).slopes + _products(self.weights, z, self.edges)
        return Evaluated(slopes, (), (z.mT,))


def hold(field: AbstractField, low: FloatArray, high: FloatArray) -> AbstractField:
    """A field of networks or monomials, its products held between two edges (source,).

    Other fields are left as they are, and monomials that are held already.
    """
    if isinstance(field, PolynomialField):
        return field if field.low else replace(field, low=tuple(low.tolist()), high=tuple(high.tolist()))
    if not (type(field) is PerTargetField and field.n_bilinear):
        return field
    return HeldField(**vars(field), low=tuple(low.tolist()), high=tuple(high.tolist()))


def _plain(field: HeldField) -> PerTargetField:
    """The same, not held."""
    return PerTargetField(**{name: value for name, value in vars(field).items() if name not in ("low", "high")})


def _without_products(weights: Weights) -> Weights:
    return {name: value for name, value in weights.items() if name not in ("P", "R")}


def _products(weights: Weights, z: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
    """What the bilinear units add to the slopes.  # (model, sample, target)"""
    held = torch.minimum(torch.maximum(z, edges[0]), edges[1]).mT.unsqueeze(1)  # (model | 1, 1, source, sample)
    return ((weights["P"] @ held) * (weights["R"] @ held)).sum(dim=2).mT
