"""What the gated penalties share: parameters of gates beside the weights."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch

from skode._typing import Weights
from skode.fields import AbstractField
from skode.penalties._base import AbstractPenalty, Noise
from skode.penalties._compatibility import field_kind, resolve_gates
from skode.penalties.gates import EDGE, GateLayout


@dataclass(frozen=True)
class AbstractGated(AbstractPenalty):
    """A price on hard-concrete gates; see ``skode.penalties.gates`` for the gates themselves.

    Parameters
    ----------
    gates : {"weight", "edge", "unit"} or None, default=None
        What a gate multiplies; None is "edge" on per-target fields and "weight" on shared ones.
    drop_rate : float, default=0.2
        Where gates start: sigmoid(log a) = 1 - drop_rate. At 0.2 the deterministic gate is 0.86 and a sampled
        one is open with probability 0.95, so that the fit can warm up before gates are pressed.
    """

    gates: str | None = None
    drop_rate: float = 0.2

    def __post_init__(self) -> None:
        if self.gates not in (None, "weight", "edge", "unit"):
            raise ValueError(
                f"gates must be None, 'weight', 'edge' or 'unit'; got {self.gates!r}. "
                "Leave it out for the default of the field."
            )
        if not 0 < self.drop_rate < 11 / 12:
            raise ValueError(
                "drop_rate must lie between 0 and 11/12, where all gates would start closed; "
                f"got {self.drop_rate}. Use 0.2."
            )

    @classmethod
    def with_gates(cls, gates: str) -> AbstractPenalty:
        return cls(gates=gates)

    def layout(self, field: AbstractField) -> GateLayout:
        """Where the gates sit on this field; raises ValueError if they cannot."""
        kind = resolve_gates(self.name, field_kind(field), self.gates)
        assert kind is not None
        return GateLayout(kind)

    def init(self, field: AbstractField, weights: Weights) -> Weights:
        return {**weights, **self.layout(field).init(field, weights, self.drop_rate)}

    def noise(self, field: AbstractField, params: Weights, generator: torch.Generator) -> Noise | None:
        return self.layout(field).noise(field, params, generator)

    def weights(self, field: AbstractField, params: Weights, noise: Noise | None = None) -> Weights:
        return self.layout(field).multiply(field, params, noise)

    @abstractmethod
    def smooth(self, field: AbstractField, params: Weights, *, prices: torch.Tensor | None = None) -> torch.Tensor: ...

    def holds_edges(self, field: AbstractField) -> bool:
        return self.layout(field).kind == "edge"

    def hold(self, field: AbstractField, params: Weights, edges: torch.Tensor) -> None:
        least = math.log((1 - self.drop_rate) / self.drop_rate)
        log_alpha = params[EDGE]  # (model, target, 1, variable)
        log_alpha.copy_(torch.where(edges.unsqueeze(-2), log_alpha.clamp_min(least), log_alpha))

    def value(self, field: AbstractField, params: Weights) -> torch.Tensor:
        return self.smooth(field, params)
