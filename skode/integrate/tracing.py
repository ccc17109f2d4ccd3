"""Prediction: rows on a fixed grid of time, always finite, each as if it had been asked alone."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from skode.integrate.runge_kutta import Nodes, Slope, evaluate, interpolate, take_step

PADDING = 8  # trajectories per call are rounded up: a matrix product of one row may round otherwise than of many
ENTRIES = 2**19  # of nodes kept at a time, 4 MB: with very many trajectories, or states, fewer steps
ROW_ENTRIES = 2**17  # of rows interpolated at a time, 1 MB: few enough for the cache
NEVER = torch.iinfo(torch.int64).max


class Traced(NamedTuple):
    """Answers of all rows, and where they are no solutions but the edge of the box."""

    states: torch.Tensor  # (model, row, state), finite
    failed_at: torch.Tensor  # (model, trajectory) elapsed time of the last good state; nan where nothing failed
    held: torch.Tensor  # (model, row) bool, True where the row lies beyond that time


@torch.inference_mode()
def trace(
    slope: Slope,
    x0: torch.Tensor,
    trajectory: torch.Tensor,
    times: torch.Tensor,
    *,
    step: float,
    box: torch.Tensor,
    origin: torch.Tensor | None = None,
    chunk: int = 64,
) -> Traced:
    """Predict rows (trajectory, time) by Runge-Kutta steps on the grid k * step from each origin.

    The grid depends on nothing but `step`, so a row's answer does not depend on the other rows (up to
    rounding of matrix products of another size). Steps are taken in chunks; a trajectory drops out after its
    last row, and memory grows with the rows and one chunk only. A trajectory whose next node is non-finite or
    outside the box is held: rows inside the step in which it leaves are its interpolant cut at the box, all
    later ones the edge of the box where it left (the last good state, if the next is not a number).

    Parameters
    ----------
    slope : callable (t, x, index) -> dx/dt
        t (model, trajectory), x (model, trajectory, state), index (trajectory,) the positions in `x0`, with
        repetitions.
    x0 : tensor, shape (model, trajectory, state)
        States at elapsed time 0. A row at time 0 is answered by x0 whatever the box.
    trajectory : integer tensor, shape (row,)
        Which trajectory each row asks for.
    times : tensor, shape (row,)
        Elapsed times, of both signs, in any order.
    step : float
        Length of a step, positive, in units of time.
    box : tensor, shape (2, state)
        Lower and upper edge of the box that states may not leave.
    origin : tensor, shape (trajectory,), default None
        What the field's clock shows at x0; None is 0.
    chunk : int, default 64
        Largest number of steps kept in memory.

    Returns
    -------
    Traced
        (states, failed_at, held). If a trajectory fails both ways, failed_at is the time nearer to 0.

    Raises
    ------
    ValueError
        If step is not positive and finite.

    Examples
    --------
    >>> import torch
    >>> x0 = torch.ones(1, 1, 1, dtype=torch.float64)
    >>> box = torch.tensor([[-5.0], [5.0]], dtype=torch.float64)
    >>> times = torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64)
    >>> traced = trace(lambda t, x, index: x, x0, torch.tensor([0, 0, 0]), times, step=0.1, box=box)
    >>> traced.states.flatten().round(decimals=4).tolist(), traced.held.tolist()
    ([2.7183, 5.0, 0.3679], [[False, True, False]])
    """
    if not (step > 0.0 and math.isfinite(step)):
        raise ValueError(f"step must be positive and finite; got {step}. Give the length of a step in units of time.")
    clock = x0.new_zeros(x0.shape[1]) if origin is None else origin
    states = x0[:, trajectory]
    failed_at = x0.new_full(x0.shape[:2], torch.nan)
    held = torch.zeros(states.shape[:2], dtype=torch.bool, device=x0.device)
    for sign in (1.0, -1.0):
        rows = torch.nonzero(sign * times > 0.0)[:, 0]
        if len(rows):
            part = _one_way(slope, x0, trajectory[rows], times[rows], sign * step, box, clock, chunk)
            states[:, rows] = part.states
            held[:, rows] = part.held
            nearer = part.failed_at.abs() < failed_at.abs().nan_to_num(nan=math.inf)
            failed_at = torch.where(nearer, part.failed_at, failed_at)
    return Traced(states, failed_at, held)


def _one_way(
    slope: Slope,
    x0: torch.Tensor,
    trajectory: torch.Tensor,
    times: torch.Tensor,  # (row,) all of the sign of step
    step: float,
    box: torch.Tensor,
    clock: torch.Tensor,
    chunk: int,
) -> Traced:
    """Trace rows of one direction, chunk of steps after chunk; step k leads from node k to node k + 1."""
    cell, order = torch.sort((times / step).ceil().long() - 1, stable=True)
    trajectory, place = trajectory[order], times[order] / step
    last = cell.new_full((x0.shape[1],), -1).scatter_reduce(0, trajectory, cell, "amax")
    x = x0.clamp(box[0], box[1])  # where each trajectory stands: at its last node, or at the edge for ever
    failed = torch.where((x != x0).any(dim=-1), -1, NEVER)  # (model, trajectory) the step in which it left the box
    states = x0.new_empty(x0.shape[0], len(times), x0.shape[2])
    held = torch.empty(states.shape[:2], dtype=torch.bool, device=x0.device)
    at_a_time = max(1, ROW_ENTRIES // max(1, x0.shape[0] * x0.shape[2]))
    done = first = 0
    while done < len(times):
        active = torch.nonzero((last >= first) & (failed == NEVER).any(dim=0))[:, 0]
        some = max(1, min(chunk, ENTRIES // max(1, x0.shape[0] * len(active) * x0.shape[2])))
        stop = min(first + some, int(last[active].max()) + 1) if len(active) else int(last.max()) + 1
        end = int(torch.searchsorted(cell, stop))
        if len(active):
            nodes = _walk(slope, x[:, active], active, step, range(first, stop), clock)
            left, now = _leave(nodes, box)
            fresh = failed[:, active] == NEVER
            x[:, active] = torch.where(fresh[..., None], now, x[:, active])
            failed[:, active] = torch.where(fresh & (left < NEVER), left + first, failed[:, active])
        if len(active):
            column = torch.zeros_like(last).index_copy(0, active, torch.arange(len(active), device=active.device))
        for begin in range(done, end, at_a_time):
            rows = slice(begin, min(begin + at_a_time, end))
            asked, inside = trajectory[rows], cell[rows]
            limit, edge = failed[:, asked], x[:, asked]  # (model, row), (model, row, state)
            answer = edge
            if len(active):
                u = (place[rows] - inside)[:, None, None]
                answer = interpolate(nodes, inside - first, column[asked], u, step).transpose(0, 1)
                if bool((inside >= limit).any()):
                    cut = torch.where(answer.isfinite(), answer, edge).clamp(box[0], box[1])
                    answer = torch.where((inside < limit)[..., None], answer, edge)
                    answer = torch.where((inside == limit)[..., None], cut, answer)
            states[:, order[rows]] = answer
            held[:, order[rows]] = inside >= limit
        done, first = end, stop
    failed_at = torch.where(failed < NEVER, failed.clamp(min=0).to(x0.dtype) * step, torch.nan)
    return Traced(states, failed_at, held)


def _walk(slope: Slope, x: torch.Tensor, active: torch.Tensor, step: float, cells: range, clock: torch.Tensor) -> Nodes:
    """Take the steps `cells` of the active trajectories, x (model, active, state)."""
    n_active = len(active)
    filling = torch.arange(-n_active % PADDING, device=x.device) % n_active
    padded = torch.cat([torch.arange(n_active, device=x.device), filling])
    x, index = x[:, padded], active[padded]
    h = torch.full(index.shape, step, dtype=x.dtype, device=x.device)
    states, slopes = x.new_empty(2, len(cells) + 1, x.shape[0], n_active, x.shape[2])  # filled, not stacked: once only
    for k, cell in enumerate(cells):
        states[k] = x[:, :n_active]
        now = take_step(slope, clock[index] + cell * step, x, h, index)
        x, slopes[k] = now.state, now.slope[:, :n_active]
    states[-1] = x[:, :n_active]
    slopes[-1] = evaluate(slope, clock[index] + cells.stop * step, x, index)[:, :n_active]
    return Nodes(states, slopes)


def _leave(nodes: Nodes, box: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the first failing step, (model, active), and the state to go on with or to hold."""
    inside = (nodes.states >= box[0]) & (nodes.states <= box[1]) & nodes.slopes.isfinite()  # False for nan
    if bool(inside.all()):
        return torch.full(nodes.states.shape[1:3], NEVER, device=box.device), nodes.states[-1]
    good = inside.all(dim=-1)
    bad = ~(good[1:] & nodes.slopes[:-1].isfinite().all(dim=-1))  # (step, model, active)
    first = bad.to(torch.uint8).argmax(dim=0)
    ever = bad.any(dim=0)
    take = torch.where(ever, first + 1, len(bad))[None, ..., None].expand(1, *nodes.states.shape[1:])
    before = nodes.states.gather(0, (take - 1).clamp(min=0))[0]
    after = nodes.states.gather(0, take)[0]
    edge = torch.where(after.isnan(), before, after).clamp(box[0], box[1])
    return torch.where(ever, first, NEVER), edge
