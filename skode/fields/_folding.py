"""A network that only needs the core of its activation: the factors around the core are taken into the weights."""

from __future__ import annotations

from typing import NamedTuple

import torch

from skode._typing import Weights
from skode.fields._activations import Activation


class Factors(NamedTuple):
    """What a layer's derivatives by its own weights are, in terms of those by the weights on the core."""

    gain: float = 1.0  # of the matrix
    bias: float = 1.0  # of the bias
    shift: float = 0.0  # what the derivative by the core's bias adds to that by the matrix


class Folding:
    """Between the weights W0, b0, ..., WL, bL of a network and those of the same network on the activation's core.

    With s(x) = a core(c x) + e, layer k reads a core + e in place of s, and hands c times its sum to the next:

    W_k -> c_k a_k W_k,   b_k -> c_k (b_k + e_k W_k 1)

    where a_0 = 1 and e_0 = 0, because the first layer reads the sources, and c_L = 1, because the last gives slopes.
    An activation that is its own core leaves weights and gradients as they are.

    Parameters
    ----------
    activation : Activation
    n_hidden : int
        Number of hidden layers.
    """

    def __init__(self, activation: Activation, n_hidden: int) -> None:
        a = activation
        idle = a.inner == a.outer == 1.0 and a.shift == 0.0
        # Of every layer: the factor of the weights, that of the bias, and the shift of what it reads.
        self.layers = (
            []
            if idle
            else [
                (
                    f"W{k}",
                    f"b{k}",
                    (a.outer if k else 1.0) * (a.inner if k < n_hidden else 1.0),
                    a.inner if k < n_hidden else 1.0,
                    (a.shift if k else 0.0) * (a.inner if k < n_hidden else 1.0),
                )
                for k in range(n_hidden + 1)
            ]
        )

    def factors(self, layer: int) -> Factors:
        """The factors of one layer."""
        return Factors(*self.layers[layer][2:]) if self.layers else Factors()

    def fold(self, weights: Weights) -> Weights:
        """Weights on the core.

        Parameters
        ----------
        weights : dict of tensors  # W (..., out, in), b (..., 1, out), others among them
        """
        out = dict(weights)
        for matrix, bias, gain, bias_gain, shift in self.layers:
            out[matrix] = _times(weights[matrix], gain)
            out[bias] = _times(weights[bias], bias_gain)
            if shift:
                out[bias] = torch.add(out[bias], weights[matrix].sum(-1).unsqueeze(-2), alpha=shift)
        return out

    def pull(self, gradient: Weights) -> Weights:
        """Gradient by the weights, from that by the weights on the core."""
        out = dict(gradient)
        for matrix, bias, gain, bias_gain, shift in self.layers:
            out[matrix] = _times(gradient[matrix], gain)
            out[bias] = _times(gradient[bias], bias_gain)
            if shift:
                out[matrix] = torch.add(out[matrix], gradient[bias].mT, alpha=shift)
        return out


def _times(values: torch.Tensor, factor: float) -> torch.Tensor:
    """The product, without a pass where it changes nothing."""
    return values if factor == 1.0 else values * factor
