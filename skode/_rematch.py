"""Interval rows again, along the path that the fitted field itself takes between observations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from skode._bridge import share_of_change
from skode._dynamics import Dynamics, tensor
from skode._parallel import one_torch_thread
from skode._prepared import Prepared
from skode._typing import FloatArray, Weights
from skode.integrate import integrate

N_STEPS = 8
"""Runge-Kutta steps over one interval."""
MOST_ENTRIES, FEWEST_INTERVALS = 2**18, 64
"""Entries of solutions that are held at a time, 2 MB; and intervals with which a step is worth its calls."""


def rematch(
    prepared: Prepared,
    observed: list[FloatArray],
    path: list[FloatArray],
    nodes_at: FloatArray,
    gamma: float,
    dynamics: Dynamics,
    weights: Weights,
) -> Prepared:
    r"""Replace the bridged path inside every interval by the solution of the fitted field, corrected to meet its end.

    With x(s) the solution from the path's state at the start of an interval, r what it misses at the path's state at
    the end, and b(s) the share of a change that is done after s along a bridge (see ``bridge``), rows become

    .. math:: z_l = x(s_l) + b(s_l) r, \qquad
       slope = \sum_l q_l \big( f(x(s_l)) + b'(s_l) r + e'(s_l) + \gamma e(s_l) \big)

    where e(s) bridges what the observations are off the path at both ends. So the shape of the path inside is that of
    the nonlinear law, and observations enter as they are.

    Parameters
    ----------
    prepared : Prepared
        With bridged rows.
    observed : list of arrays (knot, d)
        Observations at the knots of every course, nan where missing.
    path : list of arrays (knot, d)
        Denoised states at the knots of every course.
    nodes_at : array (interval, node)
        Standard time of the nodes, after the start of their interval.
    gamma : float
        Shared decay rate of the bridge, per unit of standard time.
    dynamics : Dynamics
    weights : dict of tensors  # (1, ...)

    Returns
    -------
    Prepared
        An interval whose solution fails keeps its rows.
    """
    d, n = prepared.slopes.shape[1], len(nodes_at)
    like = next(iter(weights.values()))
    knots, off = np.concatenate(path), np.concatenate(observed)
    off -= knots
    off[np.isnan(off)] = 0.0
    ends = np.setdiff1d(np.arange(len(knots)), np.cumsum([0, *map(len, path)]))  # knot at the end of every interval
    h = np.concatenate([np.diff(course.times) for course in prepared.courses])[:, None]
    owner = prepared.interval_trajectory[:n]
    inputs = tensor(prepared.inputs[owner], like)
    right = dynamics.slope(weights, inputs, like.new_zeros(n))
    at = np.concatenate([nodes_at, h], axis=1)
    share, speed = share_of_change(nodes_at, h, gamma)
    rate = np.where(prepared.scales.moving, prepared.scales.rate, np.inf)
    every_node, every_slope = prepared.nodes.copy(), prepared.slopes.copy()
    rows = max(FEWEST_INTERVALS, MOST_ENTRIES // ((N_STEPS + 1) * d))
    for block in (slice(begin, min(begin + rows, n)) for begin in range(0, n, rows)):
        given, nodes = inputs[block], nodes_at[block]
        with torch.no_grad(), one_torch_thread():
            states = integrate(
                right.along(given, like.new_zeros(len(given))).value,
                tensor(knots[ends[block] - 1], like).unsqueeze(0),
                tensor(at[block], like),
                n_steps=N_STEPS,
            )[0]
            at_nodes = states[:, :-1].flatten(0, 1).unsqueeze(0)
            sources = dynamics.sources(at_nodes, given.repeat_interleave(nodes.shape[1], 0), at_nodes[..., 0])
            slopes = right.bound.evaluate(sources).slopes[0].contiguous().view(*nodes.shape, d).cpu().numpy()
        missed = knots[ends[block]] - states[:, -1].cpu().numpy()
        solution = states[:, :-1].cpu().numpy() + share[block, :, None] * missed[:, None]
        quadrature = prepared.quadrature[block]
        before = off[ends[block] - 1]
        change = off[ends[block]] - before
        mean_speed, mean_share = ((quadrature * part[block]).sum(1, keepdims=True) for part in (speed, share))
        residual = mean_speed * (missed + change) + gamma * (before + mean_share * change)
        found = np.einsum("kl,kld->kd", quadrature, slopes) + residual / rate
        fine = np.isfinite(found).all(axis=1) & np.isfinite(solution).all(axis=(1, 2))
        every_node[block, :, :d][fine] = solution[fine]
        every_slope[block][fine] = found[fine]
    return replace(prepared, nodes=every_node, slopes=every_slope)
