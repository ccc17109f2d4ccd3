"""Many observations of a solution as few: all that a sum of squared errors has to know of them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence

from skode.integrate.buckets import share_out
from skode.integrate.runge_kutta import Nodes, hermite

PRODUCTS = 64
"""Multiplications per observation and state up to which a matrix product is faster than an interpolant, which gathers
four numbers for each (one core)."""
SHARE = 1.3
"""Most rows per observation, where targets were not observed together."""
ENTRIES = 2**22
"""Entries of the interpolants of some trajectories at a time, 32 MB."""


class Compressed(NamedTuple):
    """Sums of a solution's nodes in place of its values at observation times; the last one is where the solve ends.

    The weighted sum of squared errors of a target is that of ``mask`` times (row - ``targets``), plus ``rest``.
    All rows of a solution that fails are nan.
    """

    step: torch.Tensor  # (trajectory,)
    readout: torch.Tensor  # (trajectory, row, 2 * node), of the states at the nodes and of the slopes there
    unit: torch.Tensor  # (trajectory, row), what a row is of a state that is one for ever
    clock: torch.Tensor  # (trajectory, row), what a row is of elapsed time
    targets: torch.Tensor  # (trajectory, row, target)
    mask: torch.Tensor  # (trajectory, row, target), 1 where a row belongs to a target
    rest: torch.Tensor  # (target,)
    total: torch.Tensor  # (target,), sum of the weights of all observations

    def read(self, nodes: Nodes) -> torch.Tensor:
        """Rows of a solution that was solved with these steps.  # (model, trajectory, row, state)"""
        values = torch.cat([nodes.states, nodes.slopes]).transpose(0, 2)  # (trajectory, model, 2 * node, state)
        # A product for every model: one for all would round by how many there are.
        return torch.stack([torch.bmm(self.readout, own) for own in values.unbind(1)])


@torch.no_grad()
def compress(
    times: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, n_steps: int, *, n_models: int = 1
) -> Compressed | None:
    r"""Replace observations by sums over the grid of the solve, no more of them than the grid has numbers.

    The interpolant is linear in the states and slopes at the nodes, Z, so that with H for its weights and a thin
    decomposition :math:`\sqrt W H = Q R`, where there are more observations than numbers,

    .. math:: \|\sqrt W (H Z - y)\|^2 = \|R Z - Q' \sqrt W y\|^2 + \|\sqrt W y\|^2 - \|Q' \sqrt W y\|^2

    for whatever Z, to rounding. Targets with equal weights share R; others have rows of their own. What a loss and
    its gradient cost then grows no more with the number of observations; and where these are few, one product reads
    them all, forwards and backwards.

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
        None where it would not pay (long grids, targets that were seldom observed together), for times of both signs,
        and where short trajectories take fewer steps (see ``share_out``).

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
    n_rows = min(size, n_times)  # of targets that were observed together
    most = min(int(SHARE * n_times / n_rows), int(PRODUCTS * n_times / (n_rows * size)))
    if not most or bool((times < 0.0).any()):
        return None
    span = times.amax(dim=1)
    if not bool((span > 0.0).any()):
        return None
    if len(share_out(span, times, n_steps, n_models=n_models)) > 1:
        return None
    found = _kinds(weights.double().sqrt(), most)
    if found is None:
        return None
    kinds, belongs = found
    n_kinds, step = kinds.shape[1], span.double() / n_steps
    clock = torch.cat([times, span.unsqueeze(1)], dim=1).double()
    readout = kinds.new_zeros(n_trajectories, n_kinds * n_rows + 1, size)
    short, rest = kinds.new_zeros(*readout.shape[:2], n_targets), kinds.new_zeros(n_targets)
    mask = torch.zeros_like(short)
    for some in torch.split(torch.arange(n_trajectories, device=times.device), max(1, ENTRIES // (n_times * size))):
        places = hermite(_identity(n_steps, len(some), kinds), step[some], clock[some])[0]  # (some, time + 1, number)
        readout[some, -1] = places[:, -1]
        for k in range(n_kinds):
            rows = slice(k * n_rows, (k + 1) * n_rows)
            root = kinds[some, k].unsqueeze(-1)
            mine = (belongs[some] == k).to(root.dtype).unsqueeze(1)  # (some, 1, target)
            seen, values = root * places[:, :-1], root * targets[some].double() * mine
            if size < n_times:
                q, seen = torch.linalg.qr(seen)
                rest += values.square().sum((0, 1))
                values = q.mT @ values
                rest -= values.square().sum((0, 1))
            readout[some, rows], short[some, rows], mask[some, rows] = seen, values, mine
    even, nodes = readout[..., : n_steps + 1], torch.arange(n_steps + 1, dtype=kinds.dtype, device=kinds.device)
    time = step[:, None] * (even @ nodes) + readout[..., n_steps + 1 :].sum(-1)
    total = weights.double().sum((0, 1))
    parts = (step, readout, even.sum(-1), time, short, mask, rest.clamp_min(0.0), total)
    return Compressed(*(part.to(targets.dtype) for part in parts))


def _kinds(root: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Weights that targets share, and which of them each target has; None if there are too many in any trajectory.

    Parameters
    ----------
    root : tensor  # (trajectory, time, target)
    most : int

    Returns
    -------
    tensor  # (trajectory, kind, time)
    tensor of int  # (trajectory, target)
    """
    if bool((root == root[..., :1]).all()):
        return root[..., 0].unsqueeze(1), torch.zeros_like(root[:, 0], dtype=torch.long)
    found = []
    for own in root:
        distinct, place = torch.unique(own, dim=1, return_inverse=True)
        if distinct.shape[1] > most:
            return None
        found.append((distinct.mT, place))
    kinds = pad_sequence([distinct for distinct, _ in found], batch_first=True)
    return kinds, torch.stack([place for _, place in found])


def _identity(n_steps: int, n_trajectories: int, like: torch.Tensor) -> Nodes:
    """Solutions whose states are the numbers at their own nodes.  # (node, 1, trajectory, 2 * node)"""
    eye = torch.eye(2 * (n_steps + 1), dtype=like.dtype, device=like.device)
    return Nodes(*(half[:, None, None].expand(-1, 1, n_trajectories, -1) for half in eye.chunk(2)))
