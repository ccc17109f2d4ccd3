"""Trajectories of very different lengths: short ones take fewer steps than long ones."""

from __future__ import annotations

from typing import NamedTuple

import torch

OVERHEAD = 80
"""Trajectories whose arithmetic takes as long as calling for a step does (10 variables, 16 hidden units, one core)."""


class Bucket(NamedTuple):
    """Trajectories that take their steps together."""

    some: torch.Tensor  # (trajectory in bucket,)
    n_steps: int


def share_out(span: torch.Tensor, times: torch.Tensor, n_steps: int, *, n_models: int = 1) -> list[Bucket]:
    """Sort trajectories into buckets by the number of steps that they need.

    A trajectory with a share s of the longest span, and of the most times, needs n_steps / 2^k steps, with the largest
    k for which 2^-k >= s: its steps are no longer than those of the longest, and no fewer for its times. A
    bucket of its own costs the calls for its steps; it is made where it saves more arithmetic than that. On a GPU,
    which a step rarely fills, all take their steps together.

    Parameters
    ----------
    span : tensor, shape (trajectory,)
        Signed length.
    times : tensor, shape (trajectory, time)
        Repeated times count once, if they follow each other.
    n_steps : int
        Steps of the longest.
    n_models : int, default 1

    Returns
    -------
    list of Bucket
        Longest first; every trajectory is in one of them.

    Examples
    --------
    >>> import torch
    >>> span = torch.cat([torch.tensor([64.0]), torch.ones(1000)])
    >>> [(len(some), n) for some, n in share_out(span, span[:, None] * torch.tensor([0.5, 1.0]), 64)]
    [(1001, 64)]
    >>> times = torch.arange(65.0).repeat(1001, 1).minimum(span[:, None])
    >>> [(len(some), n) for some, n in share_out(span, times, 64)]
    [(1, 64), (1000, 1)]
    """
    everyone = torch.arange(len(span), device=span.device)
    if span.device.type != "cpu" or n_steps == 1:
        return [Bucket(everyone, n_steps)]
    length, count = span.abs(), (times[:, 1:] != times[:, :-1]).sum(dim=1)
    share = torch.maximum(length / length.max(), count / count.max().clamp_min(1))
    halvings = (-share.log2()).floor().clamp(0, n_steps.bit_length() - 1).long()
    buckets: list[Bucket] = []
    waiting = everyone[:0]
    for k in sorted(set(halvings.tolist()), reverse=True):  # shortest first
        waiting = torch.cat([everyone[halvings == k], waiting])
        own = -(-n_steps // 2**k)
        longer = halvings[halvings < k]
        if not len(longer):
            buckets.append(Bucket(waiting, n_steps))
        elif n_models * len(waiting) * (-(-n_steps // 2 ** int(longer.max())) - own) > OVERHEAD * own:
            buckets.append(Bucket(waiting, own))
            waiting = everyone[:0]
    return buckets[::-1]
