"""Levenberg-Marquardt for many small least-squares problems at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

Residuals = Callable[[torch.Tensor], torch.Tensor]
"""(theta (problem, entry)) -> residuals (problem, row)"""
Linearise = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""(theta) -> residuals (problem, row), and their derivatives (problem, row, entry)"""

Settle = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""(theta) -> theta at the best of the entries that enter linearly, and residuals there"""
STUCK = 1e6
"""Damping at which a refused step says that nothing is left to gain; refusals before only say that it was long."""


class Minimum(NamedTuple):
    """Where the problems ended."""

    theta: torch.Tensor  # (problem, entry)
    loss: torch.Tensor  # (problem,)
    converged: torch.Tensor  # (problem,)
    gain: torch.Tensor  # (problem,) of the last step
    n_iter: int


def levenberg_marquardt(
    residuals: Residuals,
    linearise: Linearise,
    theta: torch.Tensor,
    *,
    decay: torch.Tensor,
    free: torch.Tensor | None = None,
    settle: Settle | None = None,
    n_iter: int = 50,
    tol: float = 1e-5,
) -> Minimum:
    r"""Minimise |residuals|^2 + sum_j decay_j theta_j^2 for each problem by itself.

    .. math:: (J^T J + D + \mu \, diag(J^T J + D)) \, \delta = J^T r - D \theta, \qquad D = diag(decay)

    with residuals r = y - f(theta) and J = df/dtheta. A step is taken by the problems whose objective it lowers;
    their damping mu falls to a third, that of the others rises fivefold. A trial that is not finite is a trial that
    lowers nothing.

    Parameters
    ----------
    residuals, linearise : callable
        ``linearise`` also returns df/dtheta, which is minus the derivative of the residuals.
    theta : tensor  # (problem, entry)
    decay : tensor  # (entry,) or (problem, entry), >= 0
    free : tensor  # (entry,) or (problem, entry), optional
        0 for entries that stay as they are.
    settle : callable, optional
        Solves for the entries in which the residuals are linear, the others given (variable projection): after every
        step, so that steps need only be right in the others.
    n_iter : int
    tol : float
        A problem is done once two steps in a row, taken or refused, gain less than this share of its objective. It then
        stays where it is, so that its answer does not depend on the problems beside it.

    Returns
    -------
    Minimum

    References
    ----------
    "An Algorithm for Least-Squares Estimation of Nonlinear Parameters", 1963, doi 10.1137/0111030.
    "Algorithms for Separable Nonlinear Least Squares Problems", 1980, doi 10.1137/1022057, algorithm 2 (``settle``).

    Examples
    --------
    >>> import torch
    >>> t = torch.linspace(0, 1, 20, dtype=torch.float64)
    >>> y = 2.0 * torch.exp(-3.0 * t)
    >>> def slopes(theta):
    ...     e = torch.exp(-theta[:, 1:] * t)
    ...     return y - theta[:, :1] * e, torch.stack([e, -theta[:, :1] * t * e], dim=-1)
    >>> start = torch.ones(1, 2, dtype=torch.float64)
    >>> found = levenberg_marquardt(lambda theta: slopes(theta)[0], slopes, start, decay=torch.zeros(2))
    >>> found.theta.round(decimals=4).tolist()
    [[2.0, 3.0]]
    """
    decay = decay.to(theta)
    open_entries = torch.ones_like(theta) if free is None else free.to(theta).expand_as(theta)
    damping = torch.full_like(theta[:, :1], 1e-2)
    idle = torch.zeros_like(theta[:, 0])
    settle = settle or (lambda theta: (theta, residuals(theta)))
    theta, left = settle(theta)
    loss = _objective(left, theta, decay)
    n_done, gain, moved = 0, torch.full_like(loss, torch.inf), True
    while n_done < n_iter and not bool((idle >= 2).all()):
        n_done += 1
        if moved:  # else the derivatives are still those of theta
            r, jacobian = linearise(theta)
            bend = (jacobian.mT @ jacobian) * open_entries.unsqueeze(-1) * open_entries.unsqueeze(-2)
            bend.diagonal(dim1=-2, dim2=-1).add_(decay)
            gradient = ((r.unsqueeze(-2) @ jacobian).squeeze(-2) - decay * theta) * open_entries
        curvature = bend.clone()
        diagonal = curvature.diagonal(dim1=-2, dim2=-1)
        diagonal += damping * diagonal.clamp_min(1e-10) + 1e-13
        root, _ = torch.linalg.cholesky_ex(curvature)
        trial = theta + torch.cholesky_solve(gradient.unsqueeze(-1), root).squeeze(-1) * open_entries
        trial, left = settle(trial)
        there = _objective(left, trial, decay)
        going = idle < 2  # a problem that is done stays where it is, whatever the others still do
        better = going & (there < loss)
        gain = torch.where(going, torch.where(better, loss - there, 0.0), gain)
        small = gain < tol * loss
        theta = torch.where(better.unsqueeze(-1), trial, theta)
        loss = torch.where(better, there, loss)
        damping = torch.where(better.unsqueeze(-1), (damping / 3).clamp_min(1e-9), damping * 5)
        idle_now = torch.where(small & (better | (damping[:, 0] > STUCK)), idle + 1, torch.zeros_like(idle))
        idle = torch.where(going, idle_now, idle)
        moved = bool(better.any())
    return Minimum(theta, loss, (idle >= 2) & loss.isfinite(), gain, n_done)


def _objective(residuals: torch.Tensor, theta: torch.Tensor, decay: torch.Tensor) -> torch.Tensor:
    value = residuals.square().sum(-1) + (decay * theta.square()).sum(-1)
    return torch.where(value.isfinite(), value, torch.inf)
