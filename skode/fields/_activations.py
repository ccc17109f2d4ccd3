"""Elementwise nonlinearities with derivatives written by hand: overwriting what they get, and keeping little."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch


class Activation(NamedTuple):
    """A nonlinearity s.

    ``apply(x)`` gives s(x) and what ``pull`` needs of it, and may overwrite x; ``pull(cotangent, kept)`` gives
    cotangent * s'(x). ``plain`` is the same function for those who differentiate by autograd.
    """

    plain: Callable[[torch.Tensor], torch.Tensor]
    apply: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
    pull: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """s(x), differentiable."""
        return self.plain(x)


def _tanh(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    # tanh x = 2 sigmoid(2x) - 1, which takes a third of the time of tanh on a CPU.
    h = x.mul_(2.0).sigmoid_().mul_(2.0).sub_(1.0)
    return h, h


def _pull_tanh(cotangent: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    return torch.addcmul(cotangent, cotangent * h, h, value=-1.0)


def _elu(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    h = torch.nn.functional.elu_(x)
    return h, h


def _pull_elu(cotangent: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    return cotangent * h.clamp_max(0.0).add_(1.0)


def _relu(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    h = x.relu_()
    return h, h


def _pull_relu(cotangent: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    return torch.where(h > 0.0, cotangent, 0.0)


def _silu(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.nn.functional.silu(x), x


def _pull_silu(cotangent: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    share = torch.sigmoid(x)
    return cotangent * share * (1.0 + x * (1.0 - share))


def _softplus(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.nn.functional.softplus(x), x


def _pull_softplus(cotangent: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return cotangent * torch.sigmoid(x)


ACTIVATIONS: dict[str, Activation] = {
    "tanh": Activation(torch.tanh, _tanh, _pull_tanh),
    "elu": Activation(torch.nn.functional.elu, _elu, _pull_elu),
    "relu": Activation(torch.relu, _relu, _pull_relu),
    "silu": Activation(torch.nn.functional.silu, _silu, _pull_silu),
    "softplus": Activation(torch.nn.functional.softplus, _softplus, _pull_softplus),
}
"""Elementwise nonlinearities by the names that users type."""
