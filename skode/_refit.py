"""Refit on a support that is known: every target is a small least-squares problem of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch

from skode._parallel import on_threads
from skode._typing import Weights
from skode.fields import PackedField
from skode.fields.tangents import AbstractNets, over_nodes
from skode.least_squares import levenberg_marquardt
from skode.objectives import Rows

CHUNK_ENTRIES = 3e5
"""Entries of the derivatives by the parameters that are held at a time by every thread, some 2 MB: what stays in cache
is read and written several times as fast, and fewer targets wait for the slowest of them."""

JITTER = 1e-9
"""Relative, on the diagonal of linear problems: parents that repeat each other share."""


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
    prices: Mapping[str, float],
    free: tuple[str, ...] | None = None,
    fixed: torch.Tensor | None = None,
    n_iter: int = 30,
    tol: float = 1e-3,
) -> Refit:
    """Minimise the matching loss of every target, plus prices, by Levenberg-Marquardt and variable projection.

    Targets whose equations are alike are batches, on as many threads as torch may use: nothing grows with the
    square of the number of variables. Linear parts are solved for given the others, after every step (variable
    projection).

    Parameters
    ----------
    field : PackedField
    rows : Rows
    start : dict of tensors  # (1, ...)
    scale : tensor  # (target,), from ``matching_scale``
    prices : dict of float
        Price of the squared entries of a tensor; those that are not named are free.
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
    sources = rows.sources.permute(2, 1, 0).contiguous()  # (source, node, interval)
    total = rows.weights.double().sum(0).clamp_min(1e-30) * scale.double()
    loss = torch.zeros(field.n_targets, dtype=torch.float64, device=sources.device)
    open_names = tuple(weights) if free is None else free

    def solve(chunk: _Chunk) -> tuple[float, int]:
        nets, targets, slots = chunk
        root = (rows.weights[:, targets].double() / total[targets]).sqrt().T
        decay = sum((price * nets.marks(name) for name, price in prices.items()), start=nets.marks()).to(root)
        open_entries = nets.marks(*open_names).to(root).expand(len(targets), -1)
        if fixed is not None:
            open_entries = open_entries * nets.outside(fixed[targets, : nets.n_slots])
        problem = Matching(
            nets,
            field.read(sources, slots),
            rows.quadrature.double().T * root.unsqueeze(1),
            rows.slopes[:, targets].double().T * root,
            nets.linear().to(sources.device),
            decay,
            open_entries,
        )
        flat = nets.flat(weights, targets)
        if not bool((open_entries[:, ~problem.linear] > 0).any()):  # what bends stays as it is
            flat, left = problem.settle(flat)
            gain, n_steps = 0.0, 1
        else:
            solved = levenberg_marquardt(
                problem.residuals,
                problem.linearise,
                flat,
                decay=decay,
                free=open_entries,
                settle=problem.settle,
                n_iter=n_iter,
                tol=tol,
            )
            flat, left = solved.theta, problem.residuals(solved.theta)
            gain, n_steps = float(solved.gain.max()), solved.n_iter
        nets.put(weights, targets, flat)
        loss[targets] = left.square().sum(-1)
        return gain, n_steps

    gains, n_done = zip(*on_threads(solve, _chunks(field, rows)), strict=True)
    return Refit(weights, loss, max(gains), max(n_done))


class _Chunk(NamedTuple):
    """Targets that are alike."""

    nets: AbstractNets
    targets: torch.Tensor  # (target,)
    slots: torch.Tensor  # (target, slot), where they read


class Matching(NamedTuple):
    """Residuals of the interval rows of some targets, times the square roots of the rows' shares in the loss."""

    nets: AbstractNets
    read: torch.Tensor  # (target, slot, node, interval)
    quadrature: torch.Tensor  # (target, node, interval), times the roots
    slopes: torch.Tensor  # (target, interval), times the roots
    linear: torch.Tensor  # (entry,) of bool
    decay: torch.Tensor  # (entry,)
    free: torch.Tensor  # (target, entry), 0 for what stays as it is

    def residuals(self, theta: torch.Tensor) -> torch.Tensor:
        """What the mean over every interval leaves.  # (target, interval)"""
        values = self.nets(theta, self.read.flatten(2)).view(self.quadrature.shape)
        return self.slopes - over_nodes(values * self.quadrature)

    def linearise(self, theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Residuals, and the means' derivatives by the parameters (target, interval, entry)."""
        mean, tangents = self.nets.mean_tangents(theta, self.read, self.quadrature)
        return self.slopes - mean, tangents.mT

    def settle(self, theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Ridge regression for the linear entries, the others given, and what it leaves (target, interval)."""
        design, products = self.nets.mean_design(theta, self.read, self.quadrature)
        rest = self.slopes if products is None else self.slopes - products
        now, free, decay = theta[:, self.linear], self.free[:, self.linear], self.decay[self.linear]
        rest = rest - ((now * (1.0 - free)).unsqueeze(1) @ design).squeeze(1)
        design = design * free.unsqueeze(-1)
        gram = design @ design.mT
        diagonal = gram.diagonal(dim1=-2, dim2=-1)
        diagonal += decay + JITTER * diagonal + 1e-13 + (1.0 - free)
        root, _ = torch.linalg.cholesky_ex(gram)
        found = torch.cholesky_solve(design @ rest.unsqueeze(-1), root)
        settled = theta.clone()
        settled[:, self.linear] = torch.where(free > 0, found.squeeze(-1), now)
        return settled, rest - (found.mT @ design).squeeze(1)


def _chunks(field: PackedField, rows: Rows) -> Iterator[_Chunk]:
    """Targets that are alike, as many as fit."""
    device = rows.sources.device
    for nets, targets, slots in field.alike():
        some = max(1, int(CHUNK_ENTRIES / (nets.n_entries * len(rows.quadrature))))
        for chunk, read in zip(torch.split(targets, some), torch.split(slots, some), strict=True):
            yield _Chunk(nets, chunk.to(device), read.to(device))
