"""How sure a selected edge is: what held-out data lose when it is dropped, against what chance would lose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.special import stdtr

from skode._fit import Specification, options_of, set_up
from skode._folds import Folds
from skode._prepare import prepare
from skode._prepared import Prepared
from skode._problem import every_row
from skode._steady import SteadyRows
from skode._supports import Supports, fit_supports
from skode._trajectories import Trajectories
from skode._typing import BoolArray, FloatArray, IntArray, Weights
from skode.fields import AbstractField, PerTargetField
from skode.recipe import AFRESH

RUN = 10
"""Intervals that count as one piece of evidence: the errors of neighbours are not independent."""
FEWEST = 4
"""Runs of held-out data below which there is no confidence."""
CERTAIN = 0.5
"""Confidence below which an edge lowers no held-out loss."""


def edge_confidence(
    folds: Folds,
    mask: Weights,
    edges: BoolArray,
    spec: Specification,
    seed: int,
    steady: SteadyRows | None,
) -> FloatArray:
    """Drop every selected edge in turn, refit on every fold, and weigh the rise of the held-out loss.

    confidence_ij = P(T > -mean(rise) / se(rise)),    rise = held-out loss without j -> i, less that with it

    over runs of ten intervals of all folds (more where paths are oversampled), T of Student with one degree of freedom
    less than runs. An edge that is there by chance lowers no held-out loss. The targets of the field are apart, so one
    model drops one edge of every target: a fold takes as many models as the richest target has edges, and one more.

    Parameters
    ----------
    folds : Folds
    mask : dict of tensors  # (1, target, row, source), the selected support
    edges : bool array (target, variable)
    spec : Specification
    seed : int
    steady : SteadyRows or None

    Returns
    -------
    array (target, variable)
        In [0, 1]; 0 where there is no edge, 0.5 where nothing could be held out.

    References
    ----------
    "Distribution-Free Predictive Inference for Regression", 2018, doi 10.1080/01621459.2017.1307116, section 6
    (leave-one-covariate-out).
    """
    if not folds.parts or not edges.any():
        return np.where(edges, 0.5, 0.0)
    some = torch.as_tensor(edges, device=spec.device)
    rises = [_rises(*part, mask, some, spec, seed, steady) for part in folds.parts]
    return np.where(edges, probability(np.concatenate(rises)), 0.0)


def probability(rises: FloatArray) -> FloatArray:
    """Probability that the mean rise is positive: Student's t of the mean over its standard error.

    Parameters
    ----------
    rises : array (run, ...)
        Rise of the held-out loss, one entry per run of rows.

    Returns
    -------
    array (...)
        0.5 where nothing rose or fell, and where there are too few runs.

    Examples
    --------
    >>> import numpy as np
    >>> probability(np.array([[1.0, 1.0], [2.0, -1.0], [1.5, 0.5], [1.0, -0.5]])).round(2).tolist()
    [0.99, 0.5]
    """
    if len(rises) < FEWEST:
        return np.full(rises.shape[1:], 0.5)
    error = rises.std(axis=0, ddof=1) / np.sqrt(len(rises))
    t = np.where(error > 0, rises.mean(axis=0) / np.where(error > 0, error, 1.0), 0.0)
    inside: FloatArray = stdtr(len(rises) - 1, t)
    return inside


def prune(field: AbstractField, mask: Weights, confidence: FloatArray) -> Weights:
    """Cut the least certain edge of every target, if folds forecast no worse without it.

    One edge, since confidence drops one at a time: of two that stand in for each other, either may go and not both.

    Parameters
    ----------
    field : AbstractField
    mask : dict of tensors  # (1, target, row, source)
    confidence : array (target, variable)
        0 where there is no edge.

    Returns
    -------
    dict of tensors, of the same shapes
    """
    some = mask["K"]
    open_edges = field.by_variable(field.paths(mask))[0] > 0
    certain = torch.where(open_edges, torch.as_tensor(confidence, dtype=some.dtype, device=some.device), 1.0)
    least, place = certain.min(dim=-1)
    keep = torch.ones_like(certain).scatter(-1, place.unsqueeze(-1), (least >= CERTAIN).to(some.dtype).unsqueeze(-1))
    columns = field.to_sources(keep).unsqueeze(-2)  # (target, 1, source)
    return {name: value * columns if name in field.entries else value for name, value in mask.items()}


def _rises(
    train_part: Trajectories,
    test_part: Trajectories,
    mask: Weights,
    edges: torch.Tensor,
    spec: Specification,
    seed: int,
    steady: SteadyRows | None,
) -> FloatArray:
    """Rise of the held-out loss of every run of rows and edge.  # (run, target, variable)"""
    if spec.rules is not None:  # what is required goes for once
        spec = replace(spec, rules=replace(spec.rules, required=np.zeros_like(spec.rules.required)))
    prepared, dynamics, problem = set_up(train_part, spec, steady)
    problem = problem._replace(rows=every_row(prepared, problem.matching), held_rows=None, held_windows=None)
    test = prepare(test_part, order=spec.order, time_dependent=spec.time_dependent, scales=prepared.scales)
    field = dynamics.field
    assert isinstance(field, PerTargetField)
    target, dropped = edges.nonzero(as_tuple=True)
    every = torch.arange(len(edges), device=edges.device)
    keep = torch.ones(len(every) + len(target), edges.shape[1], dtype=torch.bool, device=edges.device)
    keep[len(every) + torch.arange(len(target), device=edges.device), dropped] = False
    owner, columns = torch.cat([every, target]), field.to_sources(keep).unsqueeze(-2)  # (net, 1, source)
    masks = {
        name: value[0, owner] * columns if name in field.entries else value[0, owner] for name, value in mask.items()
    }
    networks = fit_supports(dynamics, field, problem, Supports(owner, masks), options_of(spec, (AFRESH,)), seed)
    errors = networks.errors(every_row(test, problem.matching)).double().cpu().numpy()
    label = run_labels(test)
    sums = np.zeros((int(label.max(initial=-1)) + 1, len(owner)))
    np.add.at(sums, label, errors)
    rise, place = sums[:, len(every) :] - sums[:, target.cpu().numpy()], (target.cpu().numpy(), dropped.cpu().numpy())
    out = np.zeros((len(sums), *edges.shape))
    out[:, *place] = np.nan_to_num(rise, nan=0.0, posinf=0.0, neginf=0.0)
    return out


def run_labels(test: Prepared) -> IntArray:
    """Number of the run of neighbouring intervals that a row belongs to."""
    label = np.stack([test.interval_series, test.interval_place // (RUN * test.oversampling)])
    runs: IntArray = np.unique(label, axis=1, return_inverse=True)[1].astype(np.int64)
    return runs
