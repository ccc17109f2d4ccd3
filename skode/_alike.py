"""Which models are solved side by side: those with as many steps, along windows that end alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from skode._typing import Weights
from skode.integrate import Compressed, compress
from skode.objectives import Windows


class Alike(NamedTuple):
    """Models that are solved side by side."""

    models: list[int]
    n_steps: int
    windows: Windows  # as far as they have solutions
    rows: Compressed | None  # what stands for their observations; None where it does not pay


Compute = Callable[[Weights, torch.Tensor, Alike], torch.Tensor]
"""(weights, start, who) of some models -> what is asked for  # (model, ...)"""


def who_are_alike(
    n_steps: list[int], n_times: torch.Tensor, windows: Windows, *, compressed: bool, ends: bool
) -> list[Alike]:
    """Put models together, and make what they share.

    Parameters
    ----------
    n_steps : list of int
        Steps of every model per solve.
    n_times : integer tensor  # (model, window)
        Times of every window that count.
    windows : Windows
    compressed : bool
        Whether rows may stand for observations, where it pays.
    ends : bool
        Whether the end of every window is asked for.
    """
    members: dict[tuple[int, bytes], list[int]] = {}
    for model, own in enumerate(n_times):
        members.setdefault((n_steps[model], own.cpu().numpy().tobytes()), []).append(model)
    found = []
    for (n, _), models in members.items():
        own = n_times[models[0]]
        mine = windows if bool((own == windows.times.shape[1]).all()) else windows.cut(own)
        given = mine.times, mine.targets, mine.weights
        found.append(
            Alike(models, n, mine, compress(*given, n, ends=ends, n_models=len(models)) if compressed else None)
        )
    return found


def together(compute: Compute, alike: list[Alike], weights: Weights, start: torch.Tensor) -> torch.Tensor:
    """Compute for all models, those side by side that are alike, and put them in their order.

    Parameters
    ----------
    compute : callable (weights, start, who) -> tensor  # (model, ...)
    alike : list of Alike
    weights : dict of tensors  # (model, ...)
    start : tensor  # (model, window, state)

    Returns
    -------
    tensor  # (model, ...)
    """
    if len(alike) == 1:
        return compute(weights, start, alike[0])
    parts = [
        compute({name: value[who.models] for name, value in weights.items()}, start[who.models], who) for who in alike
    ]
    order = torch.as_tensor(sum((who.models for who in alike), [])).argsort()
    return torch.cat(parts)[order.to(start.device)]
