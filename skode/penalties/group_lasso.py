"""Group lasso on the first layer of one network per target."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from skode._typing import Weights
from skode.fields import AbstractField
from skode.penalties._base import AbstractPenalty, per_price


@dataclass(frozen=True)
class GroupLasso(AbstractPenalty):
    """A price on the Euclidean norm of all that one target reads from one variable.

    value = sum_ij a_ij |w_ij|_2

    where w_ij collects the columns of target i's first layer (hidden units, linear skip, bilinear factors)
    that belong to variable j, and a_ij are the adaptive factors of the second stage (all ones in the first).
    The proximal map in the solver's metric m (inverse steps) shrinks the whole group,

    w_ij <- w_ij max(0, 1 - s_ij alpha a_ij / |w_ij|),    s_ij = 1 / sqrt(mean of m^2 over the group),

    so an edge is cut exactly or not at all. With a metric that is constant on each group this is the exact
    proximal map; with Adam's metric it takes the root mean square of the group's inverse steps, one scalar.

    Only the first layer is priced, so it could shrink for free while the later layers grow. After the map
    every later layer is clipped to |w| <= ``readout_bound``, as a projection.

    Scale: a target's zero-model loss is 1 and sources are standardised, so 0.005 ... 0.4 is a useful grid,
    and an alpha of 2 leaves nothing of a linear field. Hidden units can amplify, at most by the bounded
    readout: from ``zero_alpha`` = 2 sqrt(1 + n_hidden readout_bound^2) (one hidden layer) on certainly
    nothing is left.

    Parameters
    ----------
    readout_bound : float, default=1.5
        Largest absolute weight after the first layer; ``math.inf`` switches the clip off.

    Examples
    --------
    >>> import torch
    >>> from skode.fields import PerTargetField
    >>> from skode.penalties import GroupLasso
    >>> field = PerTargetField(2, 2, (3,), "tanh", (0, 1))
    >>> weights = field.init(torch.Generator().manual_seed(0), n_models=1, dtype=torch.float64,
    ...                      device=torch.device("cpu"))
    >>> unit_steps = {name: torch.ones_like(tensor) for name, tensor in weights.items()}
    >>> GroupLasso().prox(field, weights, alpha=torch.tensor([100.0]), metric=unit_steps, adaptive=None)
    >>> field.paths(weights)
    tensor([[[0., 0.],
             [0., 0.]]], dtype=torch.float64)

    References
    ----------
    "Neural graphical modelling in continuous-time: consistency guarantees and algorithms", 2022, arXiv
    2105.02522 (group and adaptive group lasso). We differ in three points: the skip and
    the bilinear factors belong to the group, the proximal step uses Adam's metric, and the readout is
    clipped.
    """

    readout_bound: float = 1.5

    def __post_init__(self) -> None:
        if not self.readout_bound > 0:
            raise ValueError(
                f"readout_bound must be positive; got {self.readout_bound}. Use 1.5, or math.inf for no bound."
            )

    @property
    def name(self) -> str:
        return "group_lasso"

    def norms(self, field: AbstractField, params: Weights) -> torch.Tensor:
        """Euclidean norm of every group.

        Returns
        -------
        tensor  # (model, target, variable)
        """
        return _squares(field, params).sqrt()

    def prox(
        self,
        field: AbstractField,
        params: Weights,
        *,
        alpha: torch.Tensor,
        metric: Weights,
        adaptive: torch.Tensor | None,
    ) -> None:
        squares = _squares(field, metric)
        n_rows = sum(metric[name].shape[-2] for name in field.entries)
        sizes = n_rows * field.by_variable(squares.new_ones(field.n_sources))
        price = (sizes / squares).sqrt() * alpha[:, None, None]
        price = price if adaptive is None else price * adaptive
        norms = self.norms(field, params)
        # A group of norm zero stays zero whatever its factor; dividing by one there avoids 0 / 0.
        factor = (1 - price / torch.where(norms > 0, norms, 1.0)).clamp_min(0)
        by_source = field.to_sources(factor).unsqueeze(-2)  # (model, target, 1, source)
        for name in field.entries:
            params[name].mul_(by_source)
        for name in field.chain[1:]:
            params[name].clamp_(-self.readout_bound, self.readout_bound)

    def critical_alpha(
        self, field: AbstractField, gradient: Weights, *, prices: torch.Tensor | None = None
    ) -> torch.Tensor:
        return per_price(self.norms(field, gradient), prices).amax((-2, -1))

    def value(self, field: AbstractField, params: Weights) -> torch.Tensor:
        return self.norms(field, params).sum((-2, -1))

    def zero_alpha(self, field: AbstractField) -> float:
        if "P" in field.entries:
            return math.inf
        # Largest sum over first-layer units of what later layers can make of them.
        gain = math.prod(self.readout_bound * width for width in field.hidden)
        widest = max(field.variable_of_source.count(variable) for variable in range(field.n_variables))
        return 2 * math.sqrt(widest * (1 + gain**2 / field.hidden[0]))


def _squares(field: AbstractField, tensors: Weights) -> torch.Tensor:
    """Sum of squares over each group of (model, target, row, source) tensors.  # (model, target, variable)"""
    rows = torch.cat([tensors[name] for name in field.entries], dim=-2)
    return field.by_variable(rows.square().sum(-2))
