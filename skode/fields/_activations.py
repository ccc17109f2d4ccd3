"""Elementwise nonlinearities with derivatives written by hand: overwriting what they get, and keeping little."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import expit

from skode._typing import FloatArray


class Activation(NamedTuple):
    """A nonlinearity s(x) = outer * core(inner * x) + shift.

    ``apply(x)`` gives core(x) and what ``pull`` needs of it, and may overwrite x; ``pull(cotangent, kept)`` gives
    cotangent * core'(x), ``pull_into(cotangent, kept, out)`` writes it where it is wanted; the cotangent may be one row
    for all. With ``keeps_output`` core(x) takes the place of x, and is what is kept. ``plain`` is s for those who
    differentiate by autograd, ``in_place`` is s in numpy and overwrites x. A network whose weights take in the three
    factors needs the core alone (see ``Folding``).
    """

    plain: Callable[[torch.Tensor], torch.Tensor]
    apply: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
    pull: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    in_place: Callable[[FloatArray], Any]
    inner: float = 1.0
    outer: float = 1.0
    shift: float = 0.0
    keeps_output: bool = False

    def pull_into(self, cotangent: torch.Tensor, kept: torch.Tensor, out: torch.Tensor) -> None:
        """Write cotangent * core'(x) into ``out``."""
        if self.pull is _pull_sigmoid:
            torch.ops.aten.sigmoid_backward.grad_input(cotangent, kept, grad_input=out)
        else:
            out.copy_(self.pull(cotangent, kept))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """s(x), differentiable."""
        return self.plain(x)

    def core(self, x: torch.Tensor) -> torch.Tensor:
        """core(x), differentiable."""
        return (self.plain(x / self.inner) - self.shift) / self.outer


def _sigmoid(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    h = x.sigmoid_()
    return h, h


def _pull_sigmoid(cotangent: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    pulled: torch.Tensor = torch.ops.aten.sigmoid_backward(cotangent, h)  # cotangent (1 - h) h in one pass
    return pulled


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


def _elu_in_place(x: FloatArray) -> None:
    np.copyto(x, np.expm1(np.minimum(x, 0.0)), where=x < 0.0)


def _silu_in_place(x: FloatArray) -> None:
    np.multiply(x, expit(x), out=x)


def _softplus_in_place(x: FloatArray) -> None:
    np.copyto(x, np.log1p(np.exp(np.minimum(x, 20.0))), where=x <= 20.0)  # the identity from there on, as in torch


ACTIVATIONS: dict[str, Activation] = {
    # tanh x = 2 sigmoid(2x) - 1: a sixth of the time of tanh on a CPU, once the factors are in the weights.
    "tanh": Activation(
        torch.tanh,
        _sigmoid,
        _pull_sigmoid,
        lambda x: np.tanh(x, out=x),
        inner=2.0,
        outer=2.0,
        shift=-1.0,
        keeps_output=True,
    ),
    "elu": Activation(torch.nn.functional.elu, _elu, _pull_elu, _elu_in_place, keeps_output=True),
    "relu": Activation(torch.relu, _relu, _pull_relu, lambda x: np.maximum(x, 0.0, out=x), keeps_output=True),
    "silu": Activation(torch.nn.functional.silu, _silu, _pull_silu, _silu_in_place),
    "softplus": Activation(torch.nn.functional.softplus, _softplus, _pull_softplus, _softplus_in_place),
}
"""Elementwise nonlinearities by the names that users type."""
