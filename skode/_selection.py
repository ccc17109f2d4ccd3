"""The support of every target, chosen along a path of strengths by cross-validation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch

from skode._batch import Batch
from skode._choice import choose_levels, information, usual_level
from skode._compact import compact
from skode._confidence import edge_confidence, prune
from skode._curve_choice import curves_instead, fitted_curves
from skode._curve_folds import curve_confidence
from skode._curves import pruned
from skode._finish import finish
from skode._fit import Specification, fit_additive, forecasting_model, options_of, set_up, start_velocity_of
from skode._fitted import Fitted
from skode._folds import Folds
from skode._held_out import held_out
from skode._law_choice import fitted_law, law_confidence, law_instead
from skode._overrule import overruled
from skode._path import run_path
from skode._steady import SteadyRows
from skode._train import Trained, initial_weights
from skode._trajectories import Trajectories
from skode._typing import FloatArray, IntArray
from skode.recipe import REFIT


class Selected(NamedTuple):
    """What the cross-validated estimator keeps."""

    fitted: Fitted
    matrices: list[Any]  # dependencies at every level, pressed but not refitted, as ``compact`` keeps them
    alphas: FloatArray  # (level,)
    level: IntArray  # (target,) chosen
    losses: FloatArray  # (fold, level, target), held-out; 0 for targets that do not move
    best_level: int  # the one level that would serve all targets best
    fold_kind: str


def select(
    trajectories: Trajectories,
    specification: Specification,
    *,
    alphas: FloatArray,
    folds: Folds,
    selection: str | int,
    seed: int,
    steady: SteadyRows | None = None,
    confident: bool = True,
) -> Selected:
    """Run the path, score every level by masked refits on folds, choose per target, refit.

    1. On all data: warm up, pilot and press with every strength at once, one batch on the model axis. The supports
       along the path are the candidates.
    2. On every fold: smooth, scale and refit every level under its mask, without penalty; the held-out matching
       loss is kept per target.
    3. Choose a level for every target; a field whose targets share weights gets one level for all.
    4. With "one_se", refit on that choice and on the plain estimator's side by side: a target whose held-out windows
       are forecast clearly better with the latter takes it. Then Hill's curves (``curves_instead``) or a polynomial law
       (``law_instead``) may take the place of all networks, and nothing else follows.
    5. Drop every edge in turn and refit on the folds: that is the confidence of edges, and with "one_se" a target loses
       its least certain edge if held-out intervals lose nothing without it; not where windows have decided.
    6. Refit the combination on all data, and finish through the solver (see ``finish``).

    The last refit goes on from the networks that the press left at the plain estimator's strength. Networks that start
    afresh on the same support forecast worse (FitzHugh-Nagumo .069 to .050), as they have trained for half as long; and
    those of the stronger strengths that targets choose are worse still: the penalty has bent them further.

    Parameters
    ----------
    trajectories : Trajectories
    specification : Specification
    alphas : array (level,)
    folds : Folds
    selection : {"one_se", "best", "ebic"} or int
        "ebic" takes the least extended BIC of refits on all data, and needs no folds. An integer asks for that many
        edges in all: the level of the path whose number is nearest. Without folds every rule but these two takes the
        level nearest to the plain estimator's default strength.
    seed : int
    steady : SteadyRows, optional
        Used in every fold.
    confident : bool, default=True
        Whether to find out how sure the edges are, which takes another refit on every fold.

    Returns
    -------
    Selected
    """
    spec, alphas = specification, np.sort(alphas)[::-1].copy()
    if spec.field == "additive":
        return _select_additive(trajectories, spec, alphas, selection, seed, steady)
    setup = prepared, dynamics, problem = set_up(trajectories, spec, steady)
    field = dynamics.field
    path = run_path(dynamics, problem, spec, alphas, seed)

    parts = [(trajectories, trajectories)] if selection == "ebic" else folds.parts
    held = held_out(parts, path, spec, seed, steady)
    losses = np.where(prepared.scales.moving, held.losses, 0.0)
    if selection == "ebic":
        losses = information(losses, path.n_edges, prepared)
    best, level = choose_levels(losses, alphas, path.n_edges, selection, per_target=field.per_target)

    usual = usual_level(alphas)
    start = path.start(usual, initial_weights(field, Batch.single(0.0, seed), options_of(spec, REFIT)))
    doubted = selection == "one_se" and bool(folds.parts) and field.per_target
    by_windows = np.zeros(len(level), dtype=bool)
    if doubted:
        plain = path.support(np.full_like(level, usual))
        by_windows = overruled(dynamics, problem, start, path.support(level), plain, spec, seed)
        level = np.where(by_windows, usual, level)

    mask, confidence = path.support(level), None
    pilot, alpha_max = path.ranking(problem), path.trained.alpha_max[:1]

    def selected(fitted: Fitted, confidence: FloatArray | None) -> Selected:
        if confidence is not None:
            fitted = replace(fitted, confidence=np.where(fitted.matrix > 0, confidence, 0.0))
        return Selected(fitted, path.matrices(prepared, problem), alphas, level, losses, best, folds.kind)

    judges = [] if selection == "ebic" else folds.parts
    finished = partial(finish, dynamics, problem, start, specification=spec, seed=seed, folds=judges, steady=steady)
    whole: Callable[[], Trained] = cache(partial(finished, mask))
    curves = None
    if doubted and spec.laws:
        refits = [some.at(level) for some in held.refits]
        curves = curves_instead(setup, whole, mask, folds.parts, refits, spec, seed, steady)
    if curves is not None:
        if confident:
            confidence = curve_confidence(curves, folds.parts, spec, steady)
            curves = pruned(curves, confidence, prepared, problem, spec)
        return selected(fitted_curves(curves, prepared, problem, spec, pilot=pilot, alpha_max=alpha_max), confidence)

    if doubted and spec.laws and steady is None:
        law = law_instead(setup, whole(), spec)
        if law is not None:
            confidence = law_confidence(law) if confident else None
            return selected(fitted_law(law, setup, spec, pilot=pilot, alpha_max=alpha_max), confidence)

    if confident and field.per_target:
        edges = (field.by_variable(field.paths(mask))[0] > 0).cpu().numpy()
        confidence = edge_confidence(folds, mask, edges, spec, seed, steady)
        if doubted:
            fewer = prune(field, mask, np.where(by_windows[:, None], 1.0, confidence))
            if any(not torch.equal(value, mask[name]) for name, value in fewer.items()):
                whole = partial(finished, fewer)
    trained = whole()._replace(pilot=pilot, alpha_max=alpha_max)
    fitted = forecasting_model(trained, prepared, problem, spec, start_velocity_of(spec, prepared))
    return selected(fitted, confidence)


def _select_additive(
    trajectories: Trajectories,
    spec: Specification,
    alphas: FloatArray,
    selection: str | int,
    seed: int,
    steady: SteadyRows | None,
) -> Selected:
    """Levels by the extended BIC, or one level for all targets that gives about so many edges."""
    further = not isinstance(selection, int)
    fitted, chosen = fit_additive(trajectories, spec, None, seed, steady, alphas, further=further)
    path = chosen.levels
    n_edges = np.array([np.diff(coefficients.indptr) for coefficients in path])
    if isinstance(selection, int):
        wanted = int(np.argmin(np.abs(n_edges.sum(axis=1) - selection)))
        fitted, chosen = fit_additive(trajectories, spec, float(alphas[wanted]), seed, steady, alphas)
    level = np.abs(np.log(np.maximum(alphas, 1e-12)[:, None] / np.maximum(chosen.alphas, 1e-12))).argmin(axis=0)
    best = int(np.argmin(np.abs(n_edges.sum(axis=1) - chosen.n_selected)))
    matrices = [compact(np.abs(coefficients.toarray())) for coefficients in path]
    losses = np.zeros((0, len(alphas), len(level)))
    return Selected(fitted, matrices, alphas, level, losses, best, "none")
