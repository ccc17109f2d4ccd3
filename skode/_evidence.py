"""The weight decay that the evidence asks for, target by target."""

from __future__ import annotations

import torch

ROUNDS = 3
"""Rounds of the fixed point; weights and loss stay as they are, so that two digits stand still after three."""
LEAST, MOST = 1e-5, 1e-2
"""Range of the decay. Below it nothing is smoothed, above it networks are lines."""
JITTER = 1e-9
"""Relative, on the diagonal: entries that neither data nor decay hold."""


def evidence_decay(
    gram: torch.Tensor,
    weights: torch.Tensor,
    decayed: torch.Tensor,
    loss: torch.Tensor,
    freedom: torch.Tensor,
    start: float,
) -> torch.Tensor:
    r"""Price of squared weights at which data and prior explain a target best.

    .. math:: \lambda = \frac{\gamma}{N - \gamma} \frac{L}{|w|^2}, \quad \gamma = tr[A (A + \lambda D)^{-1}]

    with L the data loss and A half its second derivative, D the decayed entries, N the number of independent data, and
    :math:`\gamma` the number of parameters that the data determine. Noise is what the loss leaves, and the spread of
    weights is their own; N - :math:`\gamma` is taken for no less than N / 2, because little is left to tell noise by.

    Parameters
    ----------
    gram : tensor  # (target, entry, entry), A
    weights : tensor  # (target, entry)
    decayed : tensor  # (entry,), 1 for entries that pay
    loss : tensor  # (target,), in the units of A
    freedom : tensor  # (target,), N
    start : float
        Price in the first round, and where the data give none.

    Returns
    -------
    tensor  # (target,), between 1e-5 and 1e-2

    References
    ----------
    "Bayesian Interpolation", 1992, doi 10.1162/neco.1992.4.3.415, section 4.
    "Gauss-Newton Approximation to Bayesian Learning", 1997, doi 10.1109/ICNN.1997.614194.
    """
    squares = (decayed * weights.square()).sum(-1).clamp_min(1e-12)
    price = torch.full_like(loss, start)
    for _ in range(ROUNDS):
        held = gram.clone()
        diagonal = held.diagonal(dim1=-2, dim2=-1)
        diagonal += price.unsqueeze(-1) * decayed + JITTER * (1.0 + diagonal)
        root, _ = torch.linalg.cholesky_ex(held)
        determined = (gram * torch.cholesky_inverse(root)).sum((-2, -1))
        price = determined / torch.maximum(freedom - determined, freedom / 2) * loss / squares
        price = price.nan_to_num(nan=start).clamp(LEAST, MOST)
    return price
