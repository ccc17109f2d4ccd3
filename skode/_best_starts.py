"""How far windows are from any solution of an equation: errors that noise in a start has no part in."""

from __future__ import annotations

import torch

from skode._dynamics import Dynamics
from skode._typing import Weights
from skode.objectives import Windows, solve_windows

ROUNDS = 5
"""Steps of Gauss and Newton; a start that was observed is near the best one."""
NUDGE = 1e-4
"""Standard units by which starts are moved for derivatives."""
FAR = 1e3
"""Standard units at which a solution that fails is put."""
LEAST = 0.05
"""Error of a window, in units of the noise, below which it is none: as few observations as states are met exactly."""
DAMPING = 1e-3
"""Relative, at first; ten times as much after a step that was none."""


@torch.no_grad()
def best_start_errors(
    dynamics: Dynamics, weights: Weights, windows: Windows, sd: torch.Tensor, n_steps: int
) -> torch.Tensor:
    """Root of the squared errors of every window from the start that suits it best, in units of the noise.

    Forecasts from observed starts err by the noise of these starts more than by all that two good fields differ in.
    Starts that were given as exact are free here as well.

    Parameters
    ----------
    dynamics : Dynamics
        Of order 1.
    weights : dict of tensors  # (1, ...), float64
    windows : Windows
        In float64.
    sd : tensor  # (target,), of an observation
    n_steps : int
        Runge-Kutta steps per window.

    Returns
    -------
    tensor  # (window,)
    """
    root = windows.weights.sqrt() / sd
    n, d = windows.start.shape
    nudges = torch.cat([torch.zeros_like(root[:1, 0]), NUDGE * torch.eye(d, dtype=root.dtype, device=root.device)])
    index = torch.arange(n, device=root.device).repeat(len(nudges))
    several = Windows(*(part[index] for part in windows))

    def missed(start: torch.Tensor) -> torch.Tensor:
        """Errors from starts (nudge, window, state).  # (nudge, window, observation)"""
        some = windows if len(start) == 1 else several
        states = solve_windows(dynamics, weights, some, start.flatten(0, 1).unsqueeze(0), n_steps=n_steps)
        states = states.nan_to_num(nan=FAR).clamp(-FAR, FAR).view(len(start), *root.shape)
        return (root * (windows.targets - states)).flatten(2)

    start, damping = windows.start, windows.start.new_full((n, 1), DAMPING)
    for _ in range(ROUNDS):
        nudged = missed(start + nudges[:, None])
        left = nudged[0]
        tangents = ((left - nudged[1:]) / NUDGE).permute(1, 2, 0)  # (window, observation, state)
        bend = tangents.mT @ tangents
        bend += torch.diag_embed(damping * bend.diagonal(dim1=1, dim2=2) + 1e-12)
        step = torch.linalg.lstsq(bend, tangents.mT @ left.unsqueeze(-1)).solution.squeeze(-1)
        trial = missed((start + step)[None])[0]
        better = (trial.square().sum(1) < left.square().sum(1)).unsqueeze(1)
        start, left = torch.where(better, start + step, start), torch.where(better, trial, left)
        damping = torch.where(better, damping / 5.0, damping * 10.0)
    return left.square().sum(1).sqrt()


def z_score(errors: torch.Tensor, than: torch.Tensor) -> float:
    """By how many standard errors paired errors are smaller on average, in the logarithm; 0 if they are all the same.

    Parameters
    ----------
    errors, than : tensor  # (window,)
    """
    gain = (than.clamp_min(LEAST) / errors.clamp_min(LEAST)).log()
    error = float(gain.std()) / len(gain) ** 0.5
    return float(gain.mean()) / error if error > 0 else 0.0
