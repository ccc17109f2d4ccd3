"""Many observations of a solution as few: all that a sum of squared errors has to know of them."""

from __future__ import annotations

from typing import NamedTuple

import torch

from skode.integrate.buckets import share_out
from skode.integrate.runge_kutta import Nodes, hermite

SHARE = 1.0
"""Most rows per observation. Where there are twice as many rows, wide states take longer than with an interpolant (350
states 1.5 times, one core); with as many a product of all rows is faster than gathering four numbers for each."""


class Compressed(NamedTuple):
    """Sums of a solution's nodes in place of its values at observation times; the last one is where the solve ends.

    The weighted sum of squared errors of a target is that of ``mask`` times (row - ``targets``), plus ``rest``.
    """

    n_steps: int
    step: torch.Tensor  # (trajectory,)
    readout: torch.Tensor  # (trajectory, row, 2 * node), of the states at the nodes and of the slopes there
    unit: torch.Tensor  # (trajectory, row), what a row is of a state that is one for ever
    clock: torch.Tensor  # (trajectory, row), what a row is of elapsed time
    targets: torch.Tensor  # (trajectory, row, target)
    mask: torch.Tensor  # (trajectory, row | 1, target | 1), 1 where a row belongs to a target
    rest: torch.Tensor  # (target,)
    total: torch.Tensor  # (target,), sum of the weights of all observations

    def read(self, nodes: Nodes) -> torch.Tensor:
        """Rows of a solution that was solved with these steps.  # (model, trajectory, row, state)"""
        values = torch.cat([nodes.states, nodes.slopes]).permute(2, 0, 1, 3)  # (trajectory, 2 * node, model, state)
        rows = torch.bmm(self.readout, values.flatten(2)).view(*self.readout.shape[:2], *values.shape[2:])
        return rows.permute(2, 0, 1, 3)


@torch.no_grad()
def compress(
    times: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, n_steps: int, *, n_models: int = 1
) -> Compressed | None:
    r"""Replace observations by as few rows as the grid of the solve has numbers, where that is much fewer.

    The interpolant is linear in the states and slopes at the nodes, Z, so that with H for its weights and a thin
    decomposition :math:`\sqrt W H = Q R`

    .. math:: \|\sqrt W (H Z - y)\|^2 = \|R Z - Q' \sqrt W y\|^2 + \|\sqrt W y\|^2 - \|Q' \sqrt W y\|^2

    for whatever Z, to rounding. Targets with equal weights share R; others have rows of their own. What a loss and
    its gradient cost then grows no more with the number of observations.

    Parameters
    ----------
    times : tensor, shape (trajectory, time)
        Elapsed times, not negative; short trajectories repeat their last.
    targets : tensor, shape (trajectory, time, target)
    weights : tensor, shape (trajectory, time, target)
        Not negative; 0 where nothing was observed.
    n_steps : int
        Steps of every solve.
    n_models : int, default 1

    Returns
    -------
    Compressed or None
        None where it would not pay, for times of both signs, and where short trajectories take fewer steps (see
        ``share_out``).

    Examples
    --------
    >>> import torch
    >>> from skode.integrate import compress
    >>> times = torch.linspace(0.0, 1.0, 100).repeat(2, 1)
    >>> found = compress(times, torch.ones(2, 100, 3), torch.ones(2, 100, 3), 4)
    >>> found.readout.shape, found.total.tolist()  # ten numbers per state, and the end
    (torch.Size([2, 11, 10]), [200.0, 200.0, 200.0])
    """
    n_trajectories, n_times, n_targets = targets.shape
    size = 2 * (n_steps + 1)
    if size > SHARE * n_times or bool((times < 0.0).any()):
        return None
    span = times.amax(dim=1)
    if len(share_out(span, times, n_steps, n_models=n_models)) > 1:
        return None
    root = weights.double().sqrt()
    step = span.double() / n_steps
    kinds = [torch.unique(own, dim=1, return_inverse=True) for own in root]  # (time, kind), (target,)
    most = max(kind.shape[1] for kind, _ in kinds)
    if most * size > SHARE * n_times:
        return None
    shape = (n_trajectories, most * size + 1)
    readout, found = root.new_zeros(*shape, size), root.new_zeros(*shape, n_targets)
    mask, rest = root.new_zeros(*shape, n_targets), root.new_zeros(n_targets)
    identity = _identity(n_steps, root)
    for i, (kind, belongs) in enumerate(kinds):
        clock = torch.cat([times[i].double(), span[i : i + 1].double()]).unsqueeze(0)
        places = hermite(identity, step[i : i + 1], clock)[0, 0]  # (time + 1, 2 * node)
        readout[i, -1] = places[-1]
        for k in range(kind.shape[1]):
            mine = belongs == k
            q, r = torch.linalg.qr(kind[:, k, None] * places[:-1])
            y = kind[:, k, None] * targets[i, :, mine].double()
            rows = slice(k * size, k * size + len(r))
            readout[i, rows], mask[i, rows, mine] = r, 1.0
            short = q.mT @ y
            found[i, rows, mine] = short
            rest[mine] += (y - q @ short).square().sum(dim=0)
    even, nodes = readout[..., : n_steps + 1], torch.arange(n_steps + 1, dtype=root.dtype, device=root.device)
    clock = step[:, None] * (even @ nodes) + readout[..., n_steps + 1 :].sum(-1)
    parts = (step, readout, even.sum(-1), clock, found, mask, rest, weights.double().sum((0, 1)))
    return Compressed(n_steps, *(part.to(targets.dtype) for part in parts))


def _identity(n_steps: int, like: torch.Tensor) -> Nodes:
    """A solution whose states are the numbers at its nodes themselves.  # (node, 1, 1, 2 * node)"""
    eye = torch.eye(2 * (n_steps + 1), dtype=like.dtype, device=like.device)
    return Nodes(*(half[:, None, None] for half in eye.chunk(2)))
