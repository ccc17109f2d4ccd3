"""Expected number of open gates."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch

from skode._typing import Weights
from skode.fields import AbstractField
from skode.penalties._gated import AbstractGated
from skode.penalties.gates import OPEN_AT_LEAST


@dataclass(frozen=True)
class L0(AbstractGated):
    """A price on the expected number of open gates, counted in edges.

    value = n_targets n_variables / n_gates * sum over gates of P(gate is open)

    With edge gates this is the expected number of open edges. With other gates the factor makes a fully open
    edge, that is an n_targets n_variables-th part of all gates, cost 1: on a per-target field each target
    pays for its own gates, on a shared field all targets share the bill. The expectation is exact and nothing
    is sampled.

    Scale: a target's zero-model loss is 1, so with edge gates alpha = 0.05 keeps an edge that explains
    more than about a twentieth of its target's variance. ``zero_alpha`` tells from where on nothing is left.

    Parameters
    ----------
    gates : {"weight", "edge", "unit"} or None, default=None
        What a gate multiplies; None is "edge" on per-target fields and "weight" on shared ones.
    drop_rate : float, default=0.2
        Where gates start: sigmoid(log a) = 1 - drop_rate.

    Examples
    --------
    >>> import torch
    >>> from skode.fields import PerTargetField
    >>> from skode.penalties import L0
    >>> field = PerTargetField(2, 2, (3,), "tanh", (0, 1))
    >>> weights = field.init(torch.Generator().manual_seed(0), n_models=1, dtype=torch.float64,
    ...                      device=torch.device("cpu"))
    >>> params = L0().init(field, weights)
    >>> sorted(set(params) - set(weights))
    ['edge.log_alpha']
    >>> L0().value(field, params).round(decimals=2)
    tensor([3.8100], dtype=torch.float64)

    References
    ----------
    "Learning Sparse Neural Networks through L0 Regularization", 2018, arXiv 1712.01312. We
    differ in the unit of the price (edges, not gates), in gates per edge, and in drawing gates once per
    solve.
    """

    @property
    def name(self) -> str:
        return "l0"

    def smooth(self, field: AbstractField, params: Weights, *, prices: torch.Tensor | None = None) -> torch.Tensor:
        layout = self.layout(field)
        probabilities = layout.probabilities(field, params)
        if prices is not None:
            probabilities = layout.price_edges(field, probabilities, prices)
        total = torch.stack([value.flatten(1).sum(1) for value in probabilities.values()]).sum(0)
        n_gates = sum(prod(value.shape[1:]) for value in probabilities.values())
        return total * (field.n_targets * field.n_variables / n_gates)

    def zero_alpha(self, field: AbstractField) -> float:
        layout = self.layout(field)
        template = field.init(
            torch.Generator().manual_seed(0), n_models=1, dtype=torch.float32, device=torch.device("cpu")
        )
        n_gates = sum(gate.numel() for gate in layout.init(field, template, self.drop_rate).values())
        gate_price = OPEN_AT_LEAST * field.n_targets * field.n_variables / n_gates
        # A target that is not empty has an open gate of its own; gates per unit serve all targets together,
        # and then at least one gate per layer is open.
        n_shared = field.n_targets / len(field.chain) if layout.kind == "unit" else 1
        return n_shared / gate_price
