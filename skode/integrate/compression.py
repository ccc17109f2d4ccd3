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
    """Sums of a solution's nodes in place of its values at observation times, of all trajectories one after the other.

    The weighted sum of squared errors of a target is that of ``mask`` times (row - ``targets``), plus ``rest``.
    All rows of a solution that fails are nan.
    """

    step: torch.Tensor  # (trajectory,)
    readout: torch.Tensor  # (trajectory, place, 2 * node), of the states at the nodes and of the slopes there
    kept: torch.Tensor | None  # (row,) places that are rows, counted through all trajectories; None where all are
    ends: bool  # whether the states at the end of every solve follow the rows
    owner: torch.Tensor  # (row + end,) trajectory
    unit: torch.Tensor  # (row + end,), what a row is of a state that is one for ever
    clock: torch.Tensor  # (row + end,), what a row is of elapsed time
    targets: torch.Tensor  # (row, target)
    mask: torch.Tensor | None  # (row, target), 1 where a row belongs to a target; None where it is 1 everywhere
    rest: torch.Tensor  # (target,)
    total: torch.Tensor  # (target,), sum of the weights of all observations

    def read(self, nodes: Nodes) -> torch.Tensor:
        """Rows of a solution that was solved with these steps, and its ends.  # (model, row + end, state)"""
        values = torch.cat([nodes.states, nodes.slopes]).transpose(0, 2)  # (trajectory, model, 2 * node, state)
        # A product for every model: one for all would round by how many there are.
        rows = torch.stack([torch.bmm(self.readout, own) for own in values.unbind(1)]).flatten(1, 2)
        rows = rows if self.kept is None else rows.index_select(1, self.kept)
        return torch.cat([rows, nodes.states[-1]], dim=1) if self.ends else rows


@torch.no_grad()
def compress(
    times: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
    n_steps: int,
    *,
    ends: bool = False,
    n_models: int = 1,
) -> Compressed | None:
    r"""Replace observations by sums over the grid of the solve, no more of them than the grid has numbers.

    The interpolant is linear in the states and slopes at the nodes, Z, so that with H for its weights and a thin
    decomposition :math:`\sqrt W H = Q R`, where there are more observations than numbers,

    .. math:: \|\sqrt W (H Z - y)\|^2 = \|R Z - Q' \sqrt W y\|^2 + \|\sqrt W y\|^2 - \|Q' \sqrt W y\|^2

    for whatever Z, to rounding. Targets with equal weights share R; others have rows of their own. What a loss and
    its gradient cost then grows no more with the number of observations; and where these are few, one product reads
    them all, forwards and backwards. A trajectory that nobody observed has no rows, and may fail.

    Parameters
    ----------
    times : tensor, shape (trajectory, time)
        Elapsed times, not negative; short trajectories repeat their last.
    targets : tensor, shape (trajectory, time, target)
    weights : tensor, shape (trajectory, time, target)
        Not negative; 0 where nothing was observed.
    n_steps : int
        Steps of every solve.
    ends : bool, default False
        Whether the states at the end of every solve are asked for as well.
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
    >>> found.targets.shape, found.total.tolist()  # ten numbers per trajectory and state
    (torch.Size([20, 3]), [200.0, 200.0, 200.0])
    """
    n_trajectories, n_times = times.shape
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
    step = span.double() / n_steps
    padded = _sums(times.double(), targets.double(), *found, step, n_steps)
    # A row of zeros, as of a time at which nothing was seen, or of targets that no one has, tells nothing.
    tells = ((padded.readout != 0).any(-1) & padded.mask.any(-1)).flatten()
    kept = tells.nonzero()[:, 0]
    readout, short, mask = (part.flatten(0, 1)[kept] for part in padded[:3])
    rest = padded.rest + padded.targets.flatten(0, 1)[~tells].square().sum(0)
    owner = kept // padded.readout.shape[1]
    even, nodes = readout[:, : n_steps + 1], torch.arange(n_steps + 1, dtype=step.dtype, device=step.device)
    unit, clock = even.sum(-1), step[owner] * (even @ nodes) + readout[:, n_steps + 1 :].sum(-1)
    if ends:
        owner = torch.cat([owner, torch.arange(n_trajectories, device=step.device)])
        unit, clock = torch.cat([unit, torch.ones_like(step)]), torch.cat([clock, span.double()])
    dtype = targets.dtype
    return Compressed(
        step.to(dtype),
        padded.readout.to(dtype),
        None if bool(tells.all()) else kept,
        ends,
        owner,
        unit.to(dtype),
        clock.to(dtype),
        short.to(dtype),
        None if bool((mask == 1.0).all()) else mask.to(dtype),
        rest.clamp_min(0.0).to(dtype),
        weights.double().sum((0, 1)).to(dtype),
    )


class _Sums(NamedTuple):
    """As many rows for every trajectory, not all of which tell something."""

    readout: torch.Tensor  # (trajectory, place, 2 * node)
    targets: torch.Tensor  # (trajectory, place, target)
    mask: torch.Tensor  # (trajectory, place, target)
    rest: torch.Tensor  # (target,)


def _sums(
    times: torch.Tensor,  # (trajectory, time)
    targets: torch.Tensor,  # (trajectory, time, target)
    kinds: torch.Tensor,  # (trajectory, kind, time)
    belongs: torch.Tensor,  # (trajectory, target)
    step: torch.Tensor,  # (trajectory,)
    n_steps: int,
) -> _Sums:
    """Decompose the weighted interpolant of every trajectory and kind of weights."""
    (n_trajectories, n_times, n_targets), size, n_kinds = targets.shape, 2 * (n_steps + 1), kinds.shape[1]
    n_rows = min(size, n_times)
    readout = kinds.new_zeros(n_trajectories, n_kinds * n_rows, size)
    short, rest = kinds.new_zeros(*readout.shape[:2], n_targets), kinds.new_zeros(n_targets)
    mask = torch.zeros_like(short)
    for some in torch.split(torch.arange(n_trajectories, device=times.device), max(1, ENTRIES // (n_times * size))):
        places = hermite(_identity(n_steps, len(some), kinds), step[some], times[some])[0]  # (some, time, number)
        for k in range(n_kinds):
            rows = slice(k * n_rows, (k + 1) * n_rows)
            root = kinds[some, k].unsqueeze(-1)
            mine = (belongs[some] == k).to(root.dtype).unsqueeze(1)  # (some, 1, target)
            seen, values = root * places, root * targets[some] * mine
            if size < n_times:
                q, seen = torch.linalg.qr(seen)
                rest += values.square().sum((0, 1))
                values = q.mT @ values
                rest -= values.square().sum((0, 1))
            readout[some, rows], short[some, rows], mask[some, rows] = seen, values, mine
    return _Sums(readout, short, mask, rest)


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
