"""No penalty at all."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from skode._typing import Weights
from skode.fields import AbstractField
from skode.penalties._base import AbstractPenalty


@dataclass(frozen=True)
class NoPenalty(AbstractPenalty):
    """A price of zero: the dense neural ODE that every sparse one is compared with.

    Examples
    --------
    >>> from skode.penalties import NoPenalty
    >>> NoPenalty().exact_zeros
    False

    References
    ----------
    "Neural Ordinary Differential Equations", 2018, arXiv 1806.07366.
    """

    @property
    def name(self) -> str:
        return "none"

    @property
    def exact_zeros(self) -> bool:
        return False

    def value(self, field: AbstractField, params: Weights) -> torch.Tensor:
        lead = params[field.chain[0]]
        return torch.zeros(lead.shape[0], dtype=lead.dtype, device=lead.device)
