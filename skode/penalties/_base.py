"""What a penalty is: a way to read parameters as weights, and a price on them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

from skode._typing import Weights
from skode.fields import AbstractField
from skode.penalties._compatibility import field_kind, resolve_gates

Noise = dict[str, torch.Tensor]


@dataclass(frozen=True)
class AbstractPenalty(ABC):
    """A price on the parameters of a field, in units of one target's data loss.

    The strength alpha is not part of a penalty: it is a (model,) vector of the batch, so that paths and
    searches never rebuild penalties. The objective of a model is

        sum_i loss_i(weights) + alpha * value(params)

    where loss_i is the data loss of target i divided by its zero-model loss. Every penalty is a sum over
    targets too, so that alpha says what a target pays, whatever the number of targets.

    There are three families, told apart by what they implement: smooth (``smooth`` enters the gradient),
    proximal (``prox`` follows each step), and gated (``init`` adds gate parameters, ``noise`` draws them, and
    ``weights`` multiplies).
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """The word by which estimators know this penalty."""

    @property
    def exact_zeros(self) -> bool:
        """Whether the fitted weights have exact zeros, so that the graph is sparse without a threshold."""
        return True

    @property
    def gates(self) -> str | None:
        """Kind of gates asked for; None for the default of the field, or for a penalty without gates."""
        return None

    @classmethod
    def with_gates(cls, gates: str) -> AbstractPenalty:
        """Build this penalty with a kind of gates; only gated penalties can.

        Parameters
        ----------
        gates : {"weight", "edge", "unit"}
        """
        raise ValueError(f"{cls.__name__} has no gates, so gates must be None; got {gates!r}. Leave gates out.")

    def check(self, field: AbstractField) -> None:
        """Raise ValueError if this penalty cannot act on the field, naming a combination that works.

        Parameters
        ----------
        field : AbstractField
        """
        resolve_gates(self.name, field_kind(field), self.gates)

    def init(self, field: AbstractField, weights: Weights) -> Weights:
        """Parameters that the solver optimises: the weights, and gate parameters where there are any."""
        return dict(weights)

    def noise(self, field: AbstractField, params: Weights, generator: torch.Generator) -> Noise | None:
        """Draw the randomness of one solve; None where there is none."""
        return None

    def weights(self, field: AbstractField, params: Weights, noise: Noise | None = None) -> Weights:
        """Effective weights of the field; ``noise=None`` gives the deterministic ones used after training."""
        return params

    def smooth(
        self, field: AbstractField, params: Weights, *, prices: torch.Tensor | None = None
    ) -> torch.Tensor | None:
        """Differentiable part of the penalty, before alpha.

        Parameters
        ----------
        field : AbstractField
        params : dict of tensors
        prices : tensor or None  # (target, variable)
            Factor on the price of each edge, on fields of one network per target; None is all ones.

        Returns
        -------
        tensor or None  # (model,)
        """
        return None

    def prox(  # noqa: B027 (most penalties have no proximal map)
        self,
        field: AbstractField,
        params: Weights,
        *,
        alpha: torch.Tensor,
        metric: Weights,
        adaptive: torch.Tensor | None,
    ) -> None:
        """Apply the proximal map in place; nothing for penalties without one.

        Parameters
        ----------
        params : dict of tensors, changed in place
        alpha : tensor  # (model,)
        metric : dict of tensors
            Inverse step of every parameter entry: sqrt(second moment) / learning rate for Adam, 1 / step for
            plain descent. Same shapes as ``params``.
        adaptive : tensor or None  # (model, target, variable)
            Factor on the price of each edge; None is all ones.
        """

    def holds_edges(self, field: AbstractField) -> bool:
        """Whether ``hold`` can keep single edges open."""
        return True

    def hold(  # noqa: B027 (an edge that costs nothing is not cut where weights are priced)
        self, field: AbstractField, params: Weights, edges: torch.Tensor
    ) -> None:
        """Keep edges open; changes params.

        Parameters
        ----------
        field : AbstractField
        params : dict of tensors, changed in place
        edges : bool tensor  # (target, variable)
        """

    @abstractmethod
    def value(self, field: AbstractField, params: Weights) -> torch.Tensor:
        """The whole penalty, before alpha, for reports and stopping rules.

        Returns
        -------
        tensor  # (model,)
        """

    def zero_alpha(self, field: AbstractField) -> float:
        """Give an alpha from which on the empty model is certainly optimal, infinity if unknown.

        A bound, usually far above the alpha at which the last edge goes. It takes for granted that the loss
        of target i is mean((y_i - F_i)^2) / mean(y_i^2) for centred y, that sources have mean square 1, that
        the activation has slopes of at most 1, and that gates are deterministic.

        Parameters
        ----------
        field : AbstractField
        """
        return math.inf

    def critical_alpha(
        self, field: AbstractField, gradient: Weights, *, prices: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Give the alpha from which on the empty model is chosen, ``alpha_max_`` of the estimators.

        Penalties with a proximal map answer with the smallest alpha at which the empty model is a stationary
        point; for the others it is ``zero_alpha``.

        Parameters
        ----------
        field : AbstractField
        gradient : dict of tensors
            Gradient of the data loss by ``field.entries`` where all of them are zero.
        prices : tensor or None  # (target, variable)
            Factor on the price of each edge; what costs nothing is left out.

        Returns
        -------
        tensor  # (model,)
        """
        some = next(iter(gradient.values()))
        cheapest = 1.0 if prices is None else float(prices[prices > 0].amin()) if bool((prices > 0).any()) else math.inf
        bound = self.zero_alpha(field) / cheapest
        return torch.full((some.shape[0],), bound, dtype=some.dtype, device=some.device)


def per_price(values: torch.Tensor, prices: torch.Tensor | None) -> torch.Tensor:
    """Divide by prices; 0 where something costs nothing.

    Parameters
    ----------
    values : tensor  # (model, target, variable | source)
    prices : tensor or None  # (target, variable | source)

    Returns
    -------
    tensor, of the shape of ``values``
    """
    if prices is None:
        return values
    return torch.where(prices > 0, values / torch.where(prices > 0, prices, 1.0), 0.0)
