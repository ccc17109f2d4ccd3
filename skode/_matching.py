"""Squared errors of mean slopes over intervals; of networks that share nothing block by block, gradients included."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch

from skode._typing import Weights
from skode.fields import AbstractField, PerTargetField

BLOCK = 2**19
"""Values of rows that read the sources, of a block and thread: two megabytes in single precision. Networks of a batch
that fill far more than the cache take up to twice as long as they would one by one."""
GIVEN = 7
"""Arguments before the weights."""


def matching_squares(
    field: AbstractField,
    weights: Weights,
    sources: torch.Tensor,
    quadrature: torch.Tensor,
    slopes: torch.Tensor,
    row_weights: torch.Tensor,
) -> torch.Tensor:
    """Sum of w (slope - mean over nodes)^2 over intervals, differentiable by the weights of the field.

    Parameters
    ----------
    field : AbstractField
    weights : dict of tensors  # (model, ...), others among them
    sources : tensor  # (interval, node, source)
    quadrature : tensor  # (interval, node)
    slopes : tensor  # (interval, target), or (model, interval, target)
    row_weights : tensor  # (interval, target)

    Returns
    -------
    tensor  # (model, target)
    """
    if type(field) is not PerTargetField:  # nor one that is held, which reads otherwise
        there = field(weights, sources.flatten(0, 1).unsqueeze(0))  # (model, interval * node, target)
        total: torch.Tensor = _OfSlopes.apply(there, quadrature, slopes, row_weights)  # type: ignore[no-untyped-call]
        return total
    wanted = torch.is_grad_enabled() and any(value.requires_grad for value in weights.values())
    given = field, tuple(weights), wanted, sources, quadrature, slopes, row_weights
    found: torch.Tensor = _OfNetworks.apply(*given, *weights.values())  # type: ignore[no-untyped-call]
    return found


class _OfSlopes(torch.autograd.Function):
    """From the slopes of any field, in a third of the calls that autograd takes."""

    @staticmethod
    def forward(
        ctx: Any, there: torch.Tensor, quadrature: torch.Tensor, slopes: torch.Tensor, row_weights: torch.Tensor
    ) -> torch.Tensor:
        # (model, target, interval, node): as fields make them, so that nothing is copied.
        by_node = there.mT.reshape(there.shape[0], there.shape[2], *quadrature.shape)
        error = _left(by_node, quadrature, slopes.mT)
        weighted = row_weights.mT * error
        ctx.weighted, ctx.quadrature = weighted, quadrature
        return (error * weighted).sum(dim=-1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, cotangent: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        by_mean = ctx.weighted * (-2.0 * cotangent).unsqueeze(-1)
        by_node = _spread(by_mean, ctx.quadrature, by_mean.new_empty(*by_mean.shape, ctx.quadrature.shape[1]))
        return by_node.flatten(-2).mT, None, None, None


def _left(by_node: torch.Tensor, quadrature: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
    """What means over nodes leave of slopes.  # (..., interval)"""
    error = slopes
    for node in (by_node * quadrature).unbind(dim=-1):  # two or so: a sum over the last axis takes longer
        error = error - node
    return error


def _spread(by_mean: torch.Tensor, quadrature: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """Shares of the nodes in a gradient by their mean.  # (..., interval, node)"""
    for node, share in zip(out.unbind(dim=-1), quadrature.unbind(dim=-1), strict=True):
        torch.mul(by_mean, share, out=node)
    return out


class _OfNetworks(torch.autograd.Function):
    """A network bears on its own sum alone: its gradient is known at once, and waits for the factor that comes back."""

    @staticmethod
    def forward(
        ctx: Any,
        field: PerTargetField,
        names: tuple[str, ...],
        wanted: bool,
        sources: torch.Tensor,
        quadrature: torch.Tensor,
        slopes: torch.Tensor,
        row_weights: torch.Tensor,
        *tensors: torch.Tensor,
    ) -> torch.Tensor:
        bound = field.bind(dict(zip(names, tensors, strict=True)))
        z = sources.flatten(0, 1).unsqueeze(0)
        slopes, row_weights = slopes.mT.contiguous(), row_weights.mT.contiguous()  # (..., target, interval)
        n_nets, sums, gradients = bound.n_models * bound.n_targets, [], []
        most = n_nets if z.is_cuda else _fitting(bound.height * z.shape[1], n_nets)
        scratch = z.new_empty(most * bound.height, z.shape[1])
        for some in _blocks(bound.n_models, bound.n_targets, most):
            part = bound.nets(some)
            observed, weight = _of_nets(slopes, some), _of_nets(row_weights, some)
            values, inputs, memo = part.evaluate(z, scratch[: (some.stop - some.start) * bound.height])
            by_node = values.mT.reshape(-1, *quadrature.shape)  # (net, interval, node): as fields make them
            error = _left(by_node, quadrature, observed)
            weighted = weight * error
            sums.append((error * weighted).sum(dim=-1))
            if wanted:
                by_slope = _spread(-2.0 * weighted, quadrature, by_node).view(len(by_node), 1, -1)
                gradients.append(part.net_gradients(inputs, memo, by_slope))
        if wanted:
            whole = gradients[0] if len(gradients) == 1 else tuple(map(torch.cat, zip(*gradients, strict=True)))
            found = bound.collect(whole)
            ctx.gradients = [found.get(name) for name in names]  # gates may be among them
        return torch.cat(sums).view(bound.n_models, bound.n_targets)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, cotangent: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        factor = cotangent[..., None, None]
        needed = ctx.needs_input_grad[GIVEN:]
        pairs = zip(ctx.gradients, needed, strict=True)
        return *[None] * GIVEN, *(None if by is None or not asked else by * factor for by, asked in pairs)


def _of_nets(values: torch.Tensor, some: slice) -> torch.Tensor:
    """Of (model, target, interval), or (target, interval) for all models: (net, interval) of some networks."""
    if values.ndim > 2:
        return values.flatten(0, 1)[some]
    if some.stop <= len(values):
        return values[some]
    return values[torch.arange(some.start, some.stop, device=values.device) % len(values)]


def _fitting(values: int, n_nets: int) -> int:
    """How many networks of so many values each make a block."""
    return min(n_nets, max(1, BLOCK * torch.get_num_threads() // values))


def _blocks(n_models: int, n_targets: int, most: int) -> Iterator[slice]:
    """Networks (model * target,) side by side: whole models, or equal parts of one where a model has more than fit."""
    n_parts = -(-n_targets // most)
    if n_parts == 1:
        step = most // n_targets * n_targets
        yield from (slice(k, min(k + step, n_models * n_targets)) for k in range(0, n_models * n_targets, step))
        return
    edges = [k * n_targets // n_parts for k in range(n_parts + 1)]
    for model in range(n_models):
        first = model * n_targets
        yield from (slice(first + a, first + b) for a, b in pairwise(edges))
