"""Training that goes on where memory is short: fewer models at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from skode._batch import Batch
from skode._dynamics import Dynamics
from skode._problem import Problem
from skode._stage import Options
from skode._train import StageReport, Trained, train
from skode._typing import Weights
from skode.fields import AbstractField, PerTargetField
from skode.penalties import AbstractPenalty


def train_in_parts(
    dynamics: Dynamics,
    penalty: AbstractPenalty,
    problem: Problem,
    batch: Batch,
    options: Options,
    *,
    start: Weights | None = None,
    frozen: Weights | None = None,
) -> Trained:
    """Train all models at once, or half of them at a time, or a quarter, as memory allows.

    Models never mix, so parts give what the whole would; what a part has finished is kept.

    Parameters
    ----------
    dynamics, penalty, problem, batch, options, start, frozen
        As for ``train``.

    Returns
    -------
    Trained

    Raises
    ------
    MemoryError
        If not even one model fits.
    """
    try:
        return train(dynamics, penalty, problem, batch, options, start=start, frozen=frozen)
    except (MemoryError, RuntimeError) as error:
        if not _is_shortage(error):
            raise
        said = str(error).strip().splitlines()[0]
    # Outside of the handler: the error holds the frames, and they hold the memory.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if batch.n_models == 1:
        raise MemoryError(
            f"One model must fit into memory; got {problem.rows.slopes.shape[0]} intervals of "
            f"{dynamics.field.n_sources} sources, and the allocator said: {said}. Fit fewer or thinner "
            "trajectories, lower hidden_layer_sizes, or use device='cpu' if the machine has more memory than its GPU."
        )
    options.report(f"memory is short for {batch.n_models} models at once; half of them at a time")
    middle = batch.n_models // 2
    parts = [
        train_in_parts(
            dynamics,
            penalty,
            problem,
            Batch(batch.alphas[part], batch.seeds[part]),
            options,
            start=_models(start, part),
            frozen=_models(frozen, part),
        )
        for part in (slice(None, middle), slice(middle, None))
    ]
    return _join(*parts)


def _is_shortage(error: Exception) -> bool:
    """Whether an allocator said no; on the CPU torch says it in words alone."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def _models(weights: Weights | None, part: slice) -> Weights | None:
    """Some models; what has one entry is shared by all."""
    if weights is None:
        return None
    return {name: value if len(value) == 1 else value[part] for name, value in weights.items()}


def _join(left: Trained, right: Trained) -> Trained:
    """Both parts on one model axis."""
    field = _wider(left.field, right.field)
    return Trained(
        field,
        _beside(left.weights, right.weights),
        _beside(left.params, right.params),
        torch.cat([left.pilot, right.pilot]),
        {name: _both(report, right.history[name]) for name, report in left.history.items()},
        torch.cat([left.alpha_max, right.alpha_max]),
        None if left.gains is None or right.gains is None else torch.cat([left.gains, right.gains]),
    )


def _wider(left: AbstractField, right: AbstractField) -> AbstractField:
    """The field of both, with bilinear units if one of them has any."""
    if isinstance(left, PerTargetField) and isinstance(right, PerTargetField):
        return replace(left, n_bilinear=max(left.n_bilinear, right.n_bilinear))
    return left


def _beside(left: Weights, right: Weights) -> Weights:
    """Weights of both; units that one part lacks are zero there."""
    names = dict.fromkeys((*left, *right))
    return {name: torch.cat([_of(left, name, right), _of(right, name, left)]) for name in names}


def _of(weights: Weights, name: str, other: Weights) -> torch.Tensor:
    if name in weights:
        return weights[name]
    n_models = len(next(iter(weights.values())))
    return other[name].new_zeros((n_models, *other[name].shape[1:]))


def _both(left: StageReport, right: StageReport) -> StageReport:
    return StageReport(
        loss=np.concatenate([left.loss, right.loss], axis=1),
        n_edges=np.concatenate([left.n_edges, right.n_edges]),
        converged=np.concatenate([left.converged, right.converged]),
        failed=np.concatenate([left.failed, right.failed]),
        n_iter=max(left.n_iter, right.n_iter),
        seconds=left.seconds + right.seconds,
    )
