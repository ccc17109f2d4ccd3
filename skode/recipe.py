"""The stages of training, as data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Objective = Literal["match", "windows", "trajectory"]


@dataclass(frozen=True)
class Stage:
    """One call of the solver.

    Parameters
    ----------
    name : str
        Key in ``history_``.
    objective : {"match", "windows", "trajectory"}
        Which data loss: the integral regression, windows through the solver, or whole trajectories.
    share : float
        Share of ``max_iter`` that this stage takes.
    press : {"none", "uniform", "adaptive"}
        Whether the penalty is on, and whether every edge pays the same price.
    most : float
        Largest strength in this stage. The pilot of the adaptive penalty stays mild however large alpha is, so
        that it ranks edges and removes only what is certainly nothing.
    rate : float
        Learning rate relative to the estimator's.
    frozen : bool
        Whether the support is frozen to the non-zeros that earlier stages left, and the penalty is off.
    widens : bool
        Whether targets may get bilinear units in this stage, if forecasts of held-out windows favour them.
    second_order : bool
        Whether L-BFGS minimises the loss on all rows, from the curvature of the matching loss, where nothing but smooth
        terms is asked for and the field has one network per target; else it is Adam. L-BFGS takes a third of the
        iterations.
    settles : bool
        Whether the fit only counts as converged if this stage did.
    corrects : bool
        Whether the starts of windows may be corrected; else they are what was observed.
    """

    name: str
    objective: Objective
    share: float
    press: Literal["none", "uniform", "adaptive"] = "none"
    most: float = float("inf")
    rate: float = 1.0
    frozen: bool = False
    widens: bool = False
    second_order: bool = False
    settles: bool = False
    corrects: bool = True


STAGED: tuple[Stage, ...] = (
    Stage("warm", "match", 0.095),
    Stage("pilot", "match", 0.205, press="uniform", most=0.05),
    Stage("press", "match", 0.245, press="adaptive", settles=True),
    Stage("refit", "match", 0.215, frozen=True, widens=True, settles=True),
    Stage("finish", "windows", 0.24, frozen=True, second_order=True),
)
"""Match in integral form, press twice, cut, refit on the support, finish through the solver."""

REFIT: tuple[Stage, ...] = tuple(stage for stage in STAGED if stage.frozen)
"""What follows once a support is known."""

AFRESH: Stage = replace(REFIT[0], share=0.32)
"""A known support, and networks that have learned nothing yet: the refit takes half as long again.

With the share of ``STAGED`` the supports that folds choose lack weak edges (Van der Pol and a food web: F1 .92 and .93
in place of 1 and .95); with twice as much they are level."""

REACH: dict[int, Stage] = {
    length: Stage(f"windows-{length}", "windows", share, frozen=True, second_order=True, corrects=False)
    for length, share in {10: 0.06, 20: 0.06, 40: 0.12, 80: 0.12}.items()
}
"""Intervals per window of well sampled paths, and the stage: how a fit goes on whose own forecasts leave the range of
the data. A quarter of the finish for the way, and half of it where windows are as long as forecasts."""

TRAJECTORY: tuple[Stage, ...] = (Stage("trajectory", "trajectory", 1.0, press="uniform", settles=True),)
"""Through the solver from x0 with the penalty on from the start, as in the paper."""

RECIPES: dict[str, tuple[Stage, ...]] = {"staged": STAGED, "trajectory": TRAJECTORY}
