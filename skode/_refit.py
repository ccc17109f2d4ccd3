"""Refit on a support that is known: every target is a small least-squares problem of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from skode._parallel import on_threads
from skode._typing import Weights
from skode.fields import PackedField
from skode.fields.tangents import TargetNets, over_nodes
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
    weight_decay: float,
    ridge: float = 0.0,
    free: tuple[str, ...] | None = None,
    fixed: torch.Tensor | None = None,
    n_iter: int = 30,
    tol: float = 1e-3,
) -> Refit:
    """Minimise the matching loss of every target, plus weight decay, by Levenberg-Marquardt and variable projection.

    Targets with the same number of parents are batches, on as many threads as torch may use: nothing grows with the
    square of the number of variables. Linear parts are solved for given the others, after every step (variable
    projection).

    Parameters
    ----------
    field : PackedField
    rows : Rows
    start : dict of tensors  # (1, ...)
    scale : tensor  # (target,), from ``matching_scale``
    weight_decay : float
        Price of the squared weights of a target; biases are free, and so is the linear skip, which bends nothing.
    ridge : float
        Price of the squared linear skip, in standard units.
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
    sources = rows.sources.permute(2, 1, 0).double().contiguous()  # (source, node, interval)
    total = rows.weights.double().sum(0).clamp_min(1e-30) * scale.double()
    loss = torch.zeros(field.n_targets, dtype=torch.float64, device=sources.device)
    open_names = tuple(weights) if free is None else free
    line = set(open_names) <= {"K", f"b{len(field.hidden)}"}

    def solve(chunk: tuple[torch.Tensor, torch.Tensor]) -> tuple[float, int]:
        targets, parents = chunk
        nets = TargetNets(parents.shape[1], field.hidden, field.activation, field.n_bilinear)
        root = (rows.weights[:, targets].double() / total[targets]).sqrt().T
        held = [name for name in nets.shapes if name != "K" and not name.startswith("b")]
        decay = weight_decay * nets.marks(*held) + ridge * nets.marks("K")
        open_entries = nets.marks(*open_names).expand(len(targets), -1)
        if fixed is not None:
            open_entries = open_entries * nets.outside(fixed[targets, : nets.n_slots])
        problem = _Matching(
            nets,
            sources[parents],
            rows.quadrature.double().T * root.unsqueeze(1),
            rows.slopes[:, targets].double().T * root,
            nets.linear(),
            decay,
            open_entries,
        )
        flat = nets.flat(weights, targets)
        if line:  # the networks stay as they are, and what is left to find is linear
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


class _Matching(NamedTuple):
    """Residuals of the interval rows of some targets, times the square roots of the rows' shares in the loss."""

    nets: TargetNets
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


def _chunks(field: PackedField, rows: Rows) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Targets with as many parents as each other, and their parents (target, slot)."""
    device = rows.sources.device
    sizes = torch.tensor([len(some) for some in field.parents], device=device)
    for size in sorted(set(sizes.tolist())):
        targets = torch.nonzero(sizes == size)[:, 0]
        entries = (size + 2) * (sum(field.hidden) + 1 + 2 * field.n_bilinear) * len(rows.quadrature)
        for chunk in torch.split(targets, max(1, int(CHUNK_ENTRIES / entries))):
            parents = torch.tensor([field.parents[int(i)] for i in chunk], dtype=torch.long, device=device)
            yield chunk, parents.view(len(chunk), size)
