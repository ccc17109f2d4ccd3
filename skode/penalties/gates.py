"""Hard-concrete gates: random switches whose chance of being open has a gradient.

A gate with parameter a (stored as log a) and a uniform draw u is

    s = sigmoid((log u - log(1 - u) + log a) / beta),    z = clip(s (zeta - gamma) + gamma, 0, 1)

with gamma = -0.1, zeta = 1.1 and beta = 2/3, so that z is exactly 0 or exactly 1 with positive probability,
and

    P(z > 0) = sigmoid(log a - beta log(-gamma / zeta)).

Without a draw the gate is z = clip(sigmoid(log a) (zeta - gamma) + gamma, 0, 1), exactly zero if and only if
sigmoid(log a) <= 1/12.

References
----------
"Learning Sparse Neural Networks through L0 Regularization", 2018, arXiv 1712.01312.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from skode._typing import Weights
from skode.fields import AbstractField

GAMMA, ZETA, BETA = -0.1, 1.1, 2.0 / 3.0
"""Ends of the stretched interval, and temperature."""

CLOSED_LOG_ALPHA = math.log(-GAMMA / ZETA)
"""log a at and below which the deterministic gate is closed: sigmoid(log a) = 1/12."""

OPEN_AT_LEAST = 1 / (1 + math.exp(-(1 - BETA) * CLOSED_LOG_ALPHA))
"""P(z > 0) of a gate on the edge of closing: what every gate that stays open costs at least, about 0.31."""

SUFFIX = ".log_alpha"
"""Gate parameters are called after the tensor that they multiply: "W0.log_alpha"."""

EDGE = "edge" + SUFFIX
"""Name of the gate parameter of all edges."""


def open_probability(log_alpha: torch.Tensor) -> torch.Tensor:
    """Probability that a sampled gate is not zero, exactly.

    Examples
    --------
    >>> import torch
    >>> from skode.penalties.gates import open_probability
    >>> open_probability(torch.tensor([-20.0, 20.0])).round()
    tensor([0., 1.])
    """
    return torch.sigmoid(log_alpha - BETA * CLOSED_LOG_ALPHA)


def deterministic_gate(log_alpha: torch.Tensor) -> torch.Tensor:
    """Gate used after training, in [0, 1], with exact zeros and ones."""
    return (torch.sigmoid(log_alpha) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def sampled_gate(log_alpha: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Gate for given uniform draws; differentiable in ``log_alpha`` where it is neither zero nor one."""
    stretched = torch.sigmoid((torch.logit(uniform) + log_alpha) / BETA) * (ZETA - GAMMA) + GAMMA
    return stretched.clamp(0, 1)


@dataclass(frozen=True)
class GateLayout:
    """Where the gates sit on the weights of a field.

    Parameters
    ----------
    kind : {"weight", "edge", "unit"}
        "weight": one gate per entry of every weight matrix (biases have none). "edge": one per (target,
        variable) of a per-target field, shared by all first-layer entries of that edge. "unit": one per input
        unit of every layer, as in the published code of PathReg; their products have rank one, so they select
        sources but cannot express a graph.
    """

    kind: str

    def init(self, field: AbstractField, weights: Weights, drop_rate: float) -> Weights:
        """Gate parameters for weights of this field, all equal: log a = log((1 - drop_rate) / drop_rate)."""
        lead = weights[field.chain[0]]
        level = math.log((1 - drop_rate) / drop_rate)
        return {
            name: torch.full(shape, level, dtype=lead.dtype, device=lead.device)
            for name, shape in self._shapes(field, weights).items()
        }

    def noise(self, field: AbstractField, params: Weights, generator: torch.Generator) -> Weights:
        """Uniform draws for one solve, the same for every model: a batch equals its models one by one."""
        draws = {}
        for name in self._shapes(field, params):
            log_alpha = params[name]
            uniform = torch.rand((1, *log_alpha.shape[1:]), generator=generator, dtype=torch.float64)
            # An exact 0 or 1 (also after rounding to float32) would give an infinite logit.
            draws[name] = uniform.clamp(1e-6, 1 - 1e-6).to(dtype=log_alpha.dtype, device=log_alpha.device)
        return draws

    def multiply(self, field: AbstractField, params: Weights, noise: Weights | None) -> Weights:
        """Weights times gates, without the gate parameters."""
        gates = {
            name: deterministic_gate(params[name]) if noise is None else sampled_gate(params[name], noise[name])
            for name in self._shapes(field, params)
        }
        factors = self._spread(field, gates)
        return {
            name: tensor * factors[name] if name in factors else tensor
            for name, tensor in params.items()
            if not name.endswith(SUFFIX)
        }

    def probabilities(self, field: AbstractField, params: Weights) -> Weights:
        """Open probability of every gate, by parameter name."""
        return {name: open_probability(params[name]) for name in self._shapes(field, params)}

    def price_edges(self, field: AbstractField, values: Weights, prices: torch.Tensor) -> Weights:
        """Multiply values of gates by the price of their edge; gates that serve several edges keep theirs.

        Parameters
        ----------
        field : AbstractField
            One network per target.
        values : dict of tensors
            By the name of the gate parameter.
        prices : tensor  # (target, variable)

        Returns
        -------
        dict of tensors, of the same shapes
        """
        if self.kind == "edge":
            return {EDGE: values[EDGE] * prices.unsqueeze(-2)}
        by_source = field.to_sources(prices).unsqueeze(-2)  # (target, 1, source)
        own = {name + SUFFIX for name in field.entries}
        return {name: value * by_source if name in own else value for name, value in values.items()}

    def open_share(self, field: AbstractField, params: Weights) -> torch.Tensor:
        """Expected number of open paths of every edge divided by the number of its paths; exact, no sampling.

        A path is open if all gates on it are. Gates of different layers are independent, so this is a product
        of probability matrices, P_L ... P_1, plus the skip; in a product (P z)(R z) every pair is a path.

        Returns
        -------
        tensor  # (model, target, variable), in [0, 1]
        """
        probabilities = self.probabilities(field, params)
        if self.kind == "edge":
            return probabilities[EDGE].squeeze(-2)
        open_paths = self._paths(field, self._spread(field, probabilities), params)
        all_paths = self._paths(field, {}, params)
        return open_paths / all_paths

    def _paths(self, field: AbstractField, factors: Weights, params: Weights) -> torch.Tensor:
        matrices = {
            name: factors[name].expand_as(params[name]) if name in factors else torch.ones_like(params[name])
            for name in _gated(field)
        }
        return field.by_variable(field.paths(matrices))

    def _shapes(self, field: AbstractField, params: Weights) -> dict[str, torch.Size]:
        """Shape of every gate parameter, by name."""
        if self.kind == "edge":
            return {EDGE: torch.Size((params["W0"].shape[0], field.n_targets, 1, field.n_variables))}
        if self.kind == "unit":
            return {
                name + SUFFIX: torch.Size((*params[name].shape[:-2], 1, params[name].shape[-1])) for name in field.chain
            }
        return {name + SUFFIX: params[name].shape for name in _gated(field)}

    def _spread(self, field: AbstractField, gates: Weights) -> Weights:
        """Values of gates as factors of weight tensors, by the name of the tensor."""
        if self.kind == "edge":
            by_source = field.to_sources(gates[EDGE])  # (model, target, 1, source)
            return {name: by_source for name in field.entries}
        return {name.removesuffix(SUFFIX): value for name, value in gates.items()}


def _gated(field: AbstractField) -> tuple[str, ...]:
    """Every weight matrix of the field, each once."""
    return tuple(dict.fromkeys((*field.chain, *field.entries)))
