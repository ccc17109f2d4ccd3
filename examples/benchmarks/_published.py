"""The published PathReg, written anew from its description, with what it does and what it leaves undone.

As in the single-cell experiment of "Sparsity in Continuous-Depth Neural Networks" (2022, arXiv 2210.14672) and the
notebook that goes with it: one network d-100-100-d with an ELU after the first layer only; one hard-concrete gate per
input unit of each layer, redrawn at every evaluation of the field; dopri5 at tolerance 1e-3, one trajectory after
another; Adam at 1e-2 whose rate is halved by ReduceLROnPlateau (patience 20), stepped on the loss of every
iteration; x0 is taken as exact; every variable is scaled to [0, 1] by its extremes, and time by the longest span.

    loss = sum_k MSE_k + lambda mean(|W3| |W2| |W1|) + 0.1 lambda mean(Z3 Z2 Z1)

where Z_l holds the probabilities that gates are open. Two choices are kinder than the original: gates are deterministic
when the graph is read and when a forecast is made, and the ranking weighs paths by open gates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torchdiffeq import odeint

GAMMA, ZETA, TEMPERATURE = -0.1, 1.1, 2 / 3
DROP_RATES = (0.2, 0.5, 0.5)
STRENGTH = 0.01


class GatedLayer(nn.Module):
    """A linear layer whose inputs pass hard-concrete gates."""

    def __init__(self, n_in: int, n_out: int, drop_rate: float) -> None:
        super().__init__()
        self.linear = nn.Linear(n_in, n_out)
        odds = np.log(1 - drop_rate) - np.log(drop_rate)
        self.log_alpha = nn.Parameter(torch.full((n_in,), odds) + 0.01 * torch.randn(n_in))

    def gates(self, noisy: bool) -> torch.Tensor:
        """Gate of every input unit, drawn or at its mode."""
        logit = self.log_alpha
        if noisy:
            u = torch.rand_like(logit).clamp(1e-6, 1 - 1e-6)
            logit = (logit + u.log() - (1 - u).log()) / TEMPERATURE
        return (torch.sigmoid(logit) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)

    def open(self) -> torch.Tensor:
        """Probability that each gate is not zero, one column per input unit.  # (out, in)"""
        p = torch.sigmoid(self.log_alpha - TEMPERATURE * float(np.log(-GAMMA / ZETA)))
        return p.expand_as(self.linear.weight)


class PublishedField(nn.Module):
    """The right-hand side; ``noisy`` says whether gates are drawn."""

    def __init__(self, d: int, hidden: int) -> None:
        super().__init__()
        sizes = [(d, hidden), (hidden, hidden), (hidden, d)]
        self.layers = nn.ModuleList(GatedLayer(*size, p) for size, p in zip(sizes, DROP_RATES, strict=True))
        self.noisy = True

    def forward(self, _: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """dx/dt."""
        for k, layer in enumerate(self.layers):
            x = layer.linear(x * layer.gates(self.noisy))
            x = nn.functional.elu(x) if k == 0 else x
        return x

    def penalty(self) -> torch.Tensor:
        """The L1 term sees ungated weights, as published."""
        w1, w2, w3 = (layer.linear.weight.abs() for layer in self.layers)
        z1, z2, z3 = (layer.open() for layer in self.layers)
        return (w3 @ w2 @ w1).mean() + 0.1 * (z3 @ z2 @ z1).mean()

    @torch.no_grad()
    def paths(self) -> np.ndarray:
        """Strength of all paths from input to output, deterministic gates.  # (target, source)"""
        w1, w2, w3 = (layer.linear.weight.abs() * layer.gates(False) for layer in self.layers)
        return (w3 @ w2 @ w1).numpy()


class Published(NamedTuple):
    """The trained model."""

    field: PublishedField
    low: np.ndarray
    width: np.ndarray
    span: float

    @property
    def open_paths(self) -> np.ndarray:
        """Graph: wherever a path is open."""
        return self.field.paths()

    @property
    def scores(self) -> np.ndarray:
        """Ranking by the strength of paths."""
        return self.field.paths()

    @torch.no_grad()
    def derivative(self, x: np.ndarray) -> np.ndarray:
        """dx/dt in the units of the data, gates at their modes.  # (sample, d)"""
        self.field.noisy = False
        z = torch.as_tensor((x - self.low) / self.width, dtype=torch.float32)
        return self.field(torch.zeros(()), z).numpy() * self.width / self.span

    @torch.no_grad()
    def simulate(self, x0: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Forecast; a trajectory that cannot be solved stays at its start.  # (trajectory, time, d)"""
        self.field.noisy = False
        t = torch.as_tensor(times / self.span, dtype=torch.float32)
        out = []
        for start in x0:
            z = torch.as_tensor((start - self.low) / self.width, dtype=torch.float32)
            try:
                path = odeint(self.field, z, t, rtol=1e-3, atol=1e-3, method="dopri5")
            except AssertionError:  # "underflow in dt": the solution blows up
                path = z.expand(len(t), -1)
            out.append(path.nan_to_num().clamp(-10, 11).numpy() * self.width + self.low)
        return np.stack(out)


def fit_published(
    states: list[np.ndarray],
    times: list[np.ndarray],
    *,
    n_iter: int,
    seed: int,
    hidden: int = 100,
    watch: Callable[[Published], bool] | None = None,
) -> Published:
    """Train as published.

    Parameters
    ----------
    states : list of arrays (time, d)
    times : list of arrays (time,), first 0
    n_iter : int
        5000 as published; its learning rate is at its floor long before.
    seed : int
    hidden : int, default=100
    watch : callable or None, default=None
        Sees the model after every iteration, and ends the training by False. What it forecasts changes nothing.

    Returns
    -------
    Published
    """
    every = np.concatenate(states)
    low, width = every.min(0), np.ptp(every, axis=0)
    width = np.where(width > 0, width, 1.0)
    span = max(float(t[-1] - t[0]) for t in times)
    z = [torch.as_tensor((s - low) / width, dtype=torch.float32) for s in states]
    t = [torch.as_tensor((s - s[0]) / span, dtype=torch.float32) for s in times]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        field = PublishedField(every.shape[1], hidden)
        model = Published(field, low, width, span)
        optimiser = torch.optim.Adam(field.parameters(), lr=1e-2)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, factor=0.5, patience=20)
        for _ in range(n_iter):
            field.noisy = True
            optimiser.zero_grad()
            loss = STRENGTH * field.penalty()
            for path, clock in zip(z, t, strict=True):
                solved = odeint(field, path[0], clock, rtol=1e-3, atol=1e-3, method="dopri5")
                loss = loss + (solved - path).square().mean()
            loss.backward()
            optimiser.step()
            schedule.step(loss.detach())
            if watch is not None and not watch(model):
                break
    return model
