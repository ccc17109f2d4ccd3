"""Refit on a support that is known: every target is a small least-squares problem of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from skode._typing import Weights
from skode.fields import PackedField
from skode.fields.tangents import TargetNets
from skode.least_squares import levenberg_marquardt
from skode.objectives import Rows

CHUNK_ENTRIES, CHUNK_TARGETS = 1e7, 32
"""Entries of the derivative by the parameters that are held at a time, some 80 MB; and targets that stop together."""


class Refit(NamedTuple):
    """A packed field after least squares."""

    weights: Weights  # (1, ...), float64
    loss: torch.Tensor  # (target,), matching loss without the decay term
    gain: float  # largest of the last steps' gains, over targets
    n_iter: int


def refit(
    field: PackedField,
    rows: Rows,
    start: Weights,
    *,
    scale: torch.Tensor,
    weight_decay: float,
    free: tuple[str, ...] | None = None,
    fixed: torch.Tensor | None = None,
    n_iter: int = 30,
    tol: float = 1e-3,
) -> Refit:
    """Minimise the matching loss of every target, plus weight decay, by Levenberg-Marquardt.

    Targets with the same number of parents are one batch, and batches are cut so that their derivatives fit into
    memory: nothing grows with the square of the number of variables.

    Parameters
    ----------
    field : PackedField
    rows : Rows
    start : dict of tensors  # (1, ...)
    scale : tensor  # (target,), from ``matching_scale``
    weight_decay : float
        Price of the squared weights of a target; biases and the linear skip, which bend nothing, are free.
    free : tuple of str, optional
        Tensors that may change; the others stay as they are. All by default.
    fixed : bool tensor  # (target, slot), optional
        Columns of a target that stay as they are.
    n_iter : int
    tol : float

    Returns
    -------
    Refit
    """
    weights = {name: value.double().clone() for name, value in start.items()}
    sources, quadrature = rows.sources.double(), rows.quadrature.double()
    share = rows.weights.double() / (rows.weights.double().sum(0).clamp_min(1e-30) * scale.double())
    loss = torch.zeros(field.n_targets, dtype=torch.float64, device=sources.device)
    gain, n_done = 0.0, 0
    for targets, parents in _chunks(field, rows):
        nets = TargetNets(parents.shape[1], field.hidden, field.activation, field.n_bilinear)
        read = sources[:, :, parents].movedim(2, 0)  # (target, interval, node, slot)
        problem = _Matching(nets, read, quadrature, rows.slopes.double()[:, targets].T, share[:, targets].T.sqrt())
        held = [name for name in nets.shapes if name != "K" and not name.startswith("b")]
        open_entries = torch.ones_like(nets.marks()) if free is None else nets.marks(*free)
        if fixed is not None:
            open_entries = open_entries * nets.outside(fixed[targets, : nets.n_slots])
        solved = levenberg_marquardt(
            problem.residuals,
            problem.linearise,
            nets.flat(weights, targets),
            decay=weight_decay * nets.marks(*held),
            free=open_entries,
            n_iter=n_iter,
            tol=tol,
        )
        nets.put(weights, targets, solved.theta)
        loss[targets] = problem.residuals(solved.theta).square().sum(-1)
        gain, n_done = max(gain, float(solved.gain.max())), max(n_done, solved.n_iter)
    return Refit(weights, loss, gain, n_done)


class _Matching(NamedTuple):
    """Residuals of the interval rows of some targets."""

    nets: TargetNets
    read: torch.Tensor  # (target, interval, node, slot)
    quadrature: torch.Tensor  # (interval, node)
    slopes: torch.Tensor  # (target, interval)
    root: torch.Tensor  # (target, interval), square roots of the rows' shares in the loss

    def residuals(self, theta: torch.Tensor) -> torch.Tensor:
        """What the mean over every interval leaves.  # (target, interval)"""
        values = self.nets(theta, self.read.flatten(1, 2)).view(self.read.shape[:-1])
        return self.root * (self.slopes - (values * self.quadrature).sum(-1))

    def linearise(self, theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Residuals, and the means' derivatives by the parameters (target, interval, entry)."""
        mean, tangents = self.nets.mean_tangents(theta, self.read, self.quadrature)
        return self.root * (self.slopes - mean), self.root.unsqueeze(-1) * tangents


def _chunks(field: PackedField, rows: Rows) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Targets with as many parents as each other, and their parents (target, slot)."""
    device = rows.sources.device
    sizes = torch.tensor([len(some) for some in field.parents], device=device)
    for size in sorted(set(sizes.tolist())):
        targets = torch.nonzero(sizes == size)[:, 0]
        entries = (size + 2) * (sum(field.hidden) + 1 + 2 * field.n_bilinear) * len(rows.quadrature)
        for chunk in torch.split(targets, max(1, min(CHUNK_TARGETS, int(CHUNK_ENTRIES / entries)))):
            parents = torch.tensor([field.parents[int(i)] for i in chunk], dtype=torch.long, device=device)
            yield chunk, parents.view(len(chunk), size)
