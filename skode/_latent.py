"""Wide states of a shared network, solved in the few dimensions through which the network sees them."""

from __future__ import annotations

import torch

from skode._dynamics import Dynamics
from skode._typing import Weights
from skode.fields import ACTIVATIONS, Activation, Affine, ByMaps, Chain, Folding, Gradient, Maps, SharedField, Tensors
from skode.integrate import AbstractSlope, ArraySlope, Compressed, SlopeStage, Stages, integrate, rk4_adjoint


def latent_pays(dynamics: Dynamics) -> bool:
    """Whether ``solve_latent`` applies, and has less to do than a solve of the states.

    At every stage a sample passes the outer layers, d (h_1 + h_L) products, or what takes their place, h_1 h_L.
    Measured, the two are level where these are about equal; twice is asked for.
    """
    field = dynamics.field
    if not isinstance(field, SharedField) or field.linear_skip or dynamics.scales.order > 1:
        return False
    first, last = field.hidden[0], field.hidden[-1]
    return field.n_targets * (first + last) >= 2 * first * last


def solve_latent(
    dynamics: Dynamics,
    weights: Weights,
    inputs: torch.Tensor,
    origin: torch.Tensor,
    start: torch.Tensor,
    times: torch.Tensor,
    *,
    n_steps: int,
    compressed: Compressed | None = None,
) -> torch.Tensor:
    r"""Solution at the observation times of a shared network of order 1, by the integral of its last hidden layer.

    With g the hidden layers, dx/dt = r (V g(W x + w t + b) + c) has x = x0 + r (V s + c t), where

    .. math:: ds/dt = g(W r V s + (W r c + w) t + W x0 + b), \; s(0) = 0,

    which is again a network, whose state is as wide as its last hidden layer. Runge-Kutta steps, their cubic
    interpolant and sums of it commute with affine maps, so that this is the solution that the steps of the states have,
    to rounding. Solutions that fail (see ``rk4``) do so where s does; of rows all are nan then.

    Parameters
    ----------
    dynamics : Dynamics
        One for which ``latent_pays``.
    weights : dict of tensors  # (model, ...)
    inputs : tensor  # (trajectory, input), standard
    origin : tensor  # (trajectory,), standard clock at elapsed time 0
    start : tensor  # (model, trajectory, state)
    times : tensor  # (trajectory, time)
    n_steps : int
        Steps of the Runge-Kutta grid.
    compressed : Compressed, optional
        Of these trajectories, for as many steps: rows take the place of states at observation times.

    Returns
    -------
    tensor  # (model, trajectory, time, state), or (model, row + end, state)
    """
    activation, n_hidden, d = ACTIVATIONS[dynamics.field.activation], len(dynamics.field.hidden), start.shape[-1]
    slope = dynamics.slope(weights, inputs, origin)
    folded = Folding(activation, n_hidden).fold(weights)
    first, bias = folded["W0"], folded["b0"].mT  # (model, unit, source), (model, unit, 1)
    last = torch.cat([folded[f"W{n_hidden}"], folded[f"b{n_hidden}"].mT], dim=-1)
    lift = slope.rate.unsqueeze(-1) * last  # (model, state, unit + 1), from [s; t] to x - x0
    feedback, drift = (first[..., :d] @ lift).tensor_split([-1], dim=-1)
    if dynamics.time_dependent:
        drift = drift + slope.tick * first[..., -1:]
    offset = torch.baddbmm(bias, first, dynamics.sources(start, inputs, origin).mT)
    between = [(folded[f"W{k}"], folded[f"b{k}"]) for k in range(1, n_hidden)]

    latent = Latent(activation, feedback, drift, offset, between)
    zero = start.new_zeros(*start.shape[:-1], feedback.shape[-1])
    if compressed is None:
        clock, stays = times, start.repeat_interleave(times.shape[1], dim=1)
        s = integrate(latent, zero, clock, n_steps=n_steps, march=rk4_adjoint)
    else:
        clock, stays = compressed.clock, start.index_select(1, compressed.owner) * compressed.unit.unsqueeze(-1)
        s = compressed.read(rk4_adjoint(latent, zero, compressed.step, n_steps))
    failed = s[..., :1].isnan()  # all of s is, then
    some_failed = bool(failed.any())
    s = torch.where(failed, 0.0, s) if some_failed else s  # 0 times nan would be nan, in the gradient too
    integral = torch.cat([s, clock.expand(s.shape[:-1]).unsqueeze(-1)], dim=-1)
    states = stays.baddbmm_(integral.flatten(1, -2), lift.mT).view(*s.shape[:-1], d)
    return torch.where(failed, torch.nan, states) if some_failed else states


class Latent(AbstractSlope):
    """The last hidden layer of a network, fed by its own integral s: ds/dt = g(feedback s + drift t + offset).

    Parameters
    ----------
    activation : Activation
        Only its core is applied.
    feedback : tensor  # (model, unit, state)
    drift : tensor  # (model, unit, 1)
    offset : tensor  # (model, unit, trajectory)
    between : list of (matrix, bias)  # (model, unit, unit), (model, 1, unit)
        The hidden layers after the first.
    """

    def __init__(
        self,
        activation: Activation,
        feedback: torch.Tensor,
        drift: torch.Tensor,
        offset: torch.Tensor,
        between: list[tuple[torch.Tensor, torch.Tensor]],
    ) -> None:
        self.activation, self.between = activation, between
        self.feedback, self.drift, self.offset = feedback, drift, offset
        self.layers = [Affine(matrix, bias.flatten(1)) for matrix, bias in between]
        self.gathered: tuple[torch.Tensor, torch.Tensor] | None = None

    @property
    def weights(self) -> Tensors:
        return self.feedback, self.drift, self.offset, *(tensor for layer in self.between for tensor in layer)

    def __call__(self, t: torch.Tensor, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        h = self.activation.core(self.feedback @ x.mT + self.drift * t.unsqueeze(-2) + self.offset[..., index])
        for matrix, bias in self.between:
            h = self.activation.core(matrix @ h + bias.mT)
        return h.mT

    def evaluate(self, t: torch.Tensor, x: torch.Tensor, index: torch.Tensor) -> SlopeStage:
        clock = t.unsqueeze(-2)
        before = torch.addcmul(self._offset(index), self.drift, clock)
        h, kept = self.activation.apply(before.baddbmm_(self.feedback, x.mT))
        inputs, memo = [index, clock, x.mT], [kept]
        for layer in self.layers:
            inputs.append(h)
            h, kept = self.activation.apply(layer(h))
            memo.append(kept)
        return SlopeStage(h.mT, tuple(inputs), tuple(memo))

    def pull(self, memo: Tensors, cotangent: torch.Tensor) -> tuple[torch.Tensor, Tensors]:
        deltas = [self.activation.pull(cotangent.mT, memo[-1])]
        for layer, kept in zip(self.layers[::-1], memo[-2::-1], strict=True):
            deltas.append(self.activation.pull(layer.pull(deltas[-1]), kept))
        return torch.bmm(self.feedback.mT, deltas[-1]).mT, tuple(deltas[::-1])

    def weight_gradient(self, inputs: Tensors, deltas: Tensors) -> tuple[torch.Tensor | None, ...]:
        index, clock, s, *hidden = inputs
        by_offset = torch.zeros_like(self.offset).index_add_(-1, index, deltas[0])
        found = [torch.bmm(deltas[0], s.mT), torch.bmm(deltas[0], clock.mT), by_offset]
        for layer, delta, h in zip(self.layers, deltas[1:], hidden, strict=True):
            found += [layer.weight_gradient(delta, h), delta.sum(-1).unsqueeze(-2)]
        return tuple(found)

    def on_arrays(self, stages: Stages, index: torch.Tensor, *, keep: bool) -> ArraySlope | None:
        first = torch.cat([self.feedback, self.drift, torch.zeros_like(self.drift)], dim=-1)
        later = [torch.cat([matrix, bias.mT], dim=-1) for matrix, bias in self.between]
        maps = Maps(self.activation, [first, *later])
        if not maps.pay_on_arrays(len(index)):
            return None

        def collect(by: ByMaps) -> Gradient:
            first, *later = by.matrices
            assert by.offset is not None
            by_offset = torch.zeros_like(self.offset).index_add_(-1, index, by.offset)
            found = [first[..., :-2], first[..., -2:-1], by_offset]
            for matrix in later:
                found += [matrix[..., :-1], matrix[..., -1:].mT]
            return tuple(found)

        maps = maps._replace(offset=self.offset[..., index])
        return Chain(maps, stages.times().unsqueeze(1), collect, keep=keep)

    def _offset(self, index: torch.Tensor) -> torch.Tensor:
        """Of some trajectories; all stages of a solve ask for the same."""
        if self.gathered is None or self.gathered[0] is not index:
            self.gathered = index, self.offset[..., index].detach()
        return self.gathered[1]
