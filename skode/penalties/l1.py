"""Sum of absolute path weights: C-NODE."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from skode._typing import Weights
from skode.fields import AbstractField
from skode.penalties._base import AbstractPenalty


@dataclass(frozen=True)
class L1(AbstractPenalty):
    """A price on the product of absolute weights along all paths from a source to a target.

    value = sum_ij (|W_L| ... |W_1|)_ij [+ |K|_ij + bilinear paths]

    With an activation of slope at most 1 the entry (i, j) bounds |dF_i / dz_j|, so pressing it presses the
    dependence itself. The subgradient at zero is taken as zero; entries become small but not exactly zero,
    hence ``exact_zeros`` is False and the graph needs the Jacobian as a score.

    Scale: on standardised sources an entry of 1 can explain a whole target, whose zero-model loss is 1. From
    alpha = 2 on the empty model is optimal (``zero_alpha``), since |y - F|^2 >= |y|^2 - 2 |y| |F| and |F_i|
    is at most the sum over j of path weights times |z_j|.

    Examples
    --------
    >>> import torch
    >>> from skode.fields import SharedField
    >>> from skode.penalties import L1
    >>> field = SharedField(1, 2, (1,), "tanh", (0, 1))
    >>> W0, W1 = torch.tensor([[[2.0, -1.0]]]), torch.tensor([[[-3.0]]])
    >>> L1().value(field, {"W0": W0, "W1": W1})
    tensor([9.])

    References
    ----------
    "Beyond Predictions in Neural ODEs: Identification and Interventions", 2021, arXiv 2106.12430
    (C-NODE). The paper takes the mean over (target, source); we take the sum, equal up to the constant number
    of entries, so that alpha means the same for every number of variables.
    """

    @property
    def name(self) -> str:
        return "l1"

    @property
    def exact_zeros(self) -> bool:
        return False

    def smooth(self, field: AbstractField, params: Weights, *, prices: torch.Tensor | None = None) -> torch.Tensor:
        paths = field.paths(params)
        return (paths if prices is None else paths * field.to_sources(prices)).sum((-2, -1))

    def value(self, field: AbstractField, params: Weights) -> torch.Tensor:
        return self.smooth(field, params)

    def zero_alpha(self, field: AbstractField) -> float:
        return math.inf if "P" in field.entries else 2.0
