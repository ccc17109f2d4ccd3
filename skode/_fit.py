"""Where the parts meet: trajectories become fitted models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import expit

from skode._additive import Chosen, Request, train_additive
from skode._batch import Batch
from skode._calm import calm
from skode._constraints import Constraints
from skode._dependencies import find_dependencies
from skode._dynamics import Dynamics, source_variables
from skode._fitted import Fitted
from skode._layout import Layout
from skode._memory import release
from skode._parts import train_in_parts
from skode._predict import choose_step
from skode._prepare import prepare
from skode._prepared import Prepared
from skode._problem import Problem, Starts, build_problem
from skode._ranking import rank
from skode._reach import Forecasts, reach
from skode._scales import near_box
from skode._stage import Options
from skode._start_velocity import StartVelocity, fit_start_velocity
from skode._steady import SteadyRows
from skode._strengths import strengths
from skode._train import Trained
from skode._trajectories import Trajectories
from skode._typing import FloatArray
from skode.fields import AbstractField, PerTargetField, SharedField, hold
from skode.penalties import AbstractPenalty
from skode.prior import EdgeRules, PriorKnowledge
from skode.recipe import RECIPES, Stage

WINDOW = 5
"""Intervals per training window: long enough to average noise, too short for errors to grow far."""


@dataclass(frozen=True)
class Specification:
    """What to fit, in terms that no user data enter."""

    penalty: AbstractPenalty
    field: str
    hidden: tuple[int, ...]
    activation: str
    n_bilinear: int
    widen: bool
    laws: bool  # whether Hill's functions or polynomials may take the place of networks
    order: int
    time_dependent: bool
    velocity_inferred: bool
    initial_exact: bool
    method: str
    training: str
    max_iter: int
    learning_rate: float
    tol: float
    weight_decay: float
    by_evidence: bool  # whether the last stage takes the weight decay that the evidence asks for
    refit: bool
    rules: EdgeRules | None  # what is known of edges beforehand; None also until names are known
    device: torch.device
    dtype: torch.dtype
    report: Callable[[str], None]


MANY = 64
"""Sources from which on ``field="auto"`` selects by convex problems: networks that read everything cost d squared."""


ADAM_PER_STEP = 80
"""Iterations of ``max_iter`` that one step of least squares stands for: 20 steps by default. On four Hill networks of
80 genes, of sums, 16 steps forecast as 31 do, to 1 %; on Lorenz-96 with 72 variables the error was 1.8, 1.7, 2.1 and
2.2 after 31, 20, 16 and 10."""
FEW_UNITS = (8,)
"""Default widths of additive fields: networks that read a handful of sources each."""


TEMPER = 16.0
"""Factor by which evidence for edges is weakened: models that are compared are both wrong, and share their errors. On
fourteen sets the likeliest factors were 14 (least squares) and 21 (likelihood); of edges surer than .9 then .93 and
more were true on thirteen, .8 on products of Hill functions at long intervals."""


def resolve_field(
    spec: Specification, layout: Layout, prior: PriorKnowledge | None, *, default_width: bool
) -> Specification:
    """Settle what ``field="auto"`` is for these data: per target, or additive where sources are many."""
    if spec.field != "auto":
        return spec
    plain = spec.order == 1 and not spec.time_dependent and spec.training == "staged" and spec.refit
    unsigned = prior is None or (prior.signs is None and prior.weights is None)
    many = layout.n_states + layout.n_inputs >= MANY
    additive = many and plain and unsigned and spec.penalty.name == "group_lasso"
    if not additive:
        return replace(spec, field="per_target", laws=spec.laws and plain and unsigned)
    return replace(spec, field="additive", hidden=FEW_UNITS if default_width else spec.hidden)


def fit_batch(
    trajectories: Trajectories,
    specification: Specification,
    batch: Batch,
    steady: SteadyRows | None = None,
) -> list[Fitted]:
    """Fit every model of a batch to the same trajectories.

    Parameters
    ----------
    trajectories : Trajectories
    specification : Specification
    batch : Batch
    steady : SteadyRows, optional
        States at which slopes are zero.

    Returns
    -------
    list of Fitted, one per model
    """
    spec = specification
    if spec.field == "additive":
        pairs = zip(batch.alphas, batch.seeds, strict=True)
        return [fit_additive(trajectories, spec, float(alpha), int(seed), steady).fitted for alpha, seed in pairs]
    prepared, dynamics, problem = set_up(trajectories, spec, steady)
    trained = train_in_parts(dynamics, spec.penalty, problem, batch, options_of(spec, recipe_of(spec)))
    head = start_velocity_of(spec, prepared)
    models = [trained.only(model) for model in range(batch.n_models)]
    return [forecasting_model(one, prepared, problem, spec, head) for one in models]


def forecasting_model(
    trained: Trained, prepared: Prepared, problem: Problem, spec: Specification, head: StartVelocity | None
) -> Fitted:
    """One trained model, or what longer windows made of it where its own forecasts leave the data."""
    far = reach(
        trained,
        prepared,
        options_of(spec, recipe_of(spec)),
        time_dependent=spec.time_dependent,
        step=partial(choose_step, problem=problem),
        problem=lambda length: build_problem(
            prepared, window=length, starts="observed", dtype=spec.dtype, device=spec.device
        ),
    )
    return fitted_model(far.trained, prepared, problem, spec, head, far.own)


def calm_model(trained: Trained, prepared: Prepared, problem: Problem, spec: Specification) -> Fitted:
    """A trained model of order 1 without networks through the solver; less of it where it runs away (see ``calm``)."""
    near = calm(trained, prepared, problem, partial(choose_step, problem=problem))
    if "calm" in near.trained.history:
        spec.report(near.trained.history["calm"].line("calm"))
    return fitted_model(near.trained, prepared, problem, spec, None, near.own)


class FittedAdditive(NamedTuple):
    """A model, and the selection that it rests on."""

    fitted: Fitted
    chosen: Chosen


def fit_additive(
    trajectories: Trajectories,
    spec: Specification,
    alpha: float | None,
    seed: int,
    steady: SteadyRows | None = None,
    alphas: FloatArray | None = None,
    *,
    further: bool = False,
) -> FittedAdditive:
    """Fit one model whose sources are selected by convex problems.

    Parameters
    ----------
    trajectories : Trajectories
    spec : Specification
    alpha : float or None
        Strength of the selection; None leaves it to the extended BIC, target by target.
    seed : int
    steady : SteadyRows, optional
    alphas : array (level,), optional
        Strengths of the path, falling.
    further : bool, default=False
        Whether sources are searched once more through curves.
    """
    rules = spec.rules
    request = Request(
        alphas=strengths(None, 16) if alphas is None else alphas,
        alpha=alpha,
        allowed=None if rules is None else ~rules.closed,
        required=None if rules is None else rules.required,
        hidden=spec.hidden,
        activation=spec.activation,
        n_bilinear=spec.n_bilinear,
        weight_decay=spec.weight_decay,
        n_iter=max(2, round(spec.max_iter / ADAM_PER_STEP)),
        tol=spec.tol,
        seed=seed,
        further=further,
        device=spec.device,
        report=spec.report,
    )
    done = train_additive(
        prepare(trajectories, order=1, time_dependent=False, steady=steady),  # without a name: its rows are replaced
        request,
        partial(problem_of, spec),
    )
    release()
    fitted = calm_model(done.trained, done.prepared, done.problem, spec)
    evidence = done.chosen.evidence
    if evidence is not None:
        confidence, edges = np.zeros(fitted.matrix.shape), fitted.matrix > 0
        confidence[edges] = expit(evidence[edges] / (2.0 * TEMPER))
        fitted = replace(fitted, confidence=confidence)
    return FittedAdditive(fitted, done.chosen)


class SetUp(NamedTuple):
    """What training starts from."""

    prepared: Prepared
    dynamics: Dynamics
    problem: Problem


def set_up(trajectories: Trajectories, spec: Specification, steady: SteadyRows | None) -> SetUp:
    """Prepare the data, and make the field that a specification names."""
    only_units = spec.training == "trajectory" and spec.initial_exact  # are taken from smooth paths, not even starts
    prepared = prepare(
        trajectories,
        order=spec.order,
        time_dependent=spec.time_dependent,
        steady=steady,
        even=only_units,
    )
    field = make_field(spec, trajectories.n_states, trajectories.n_inputs)
    spec.penalty.check(field)
    return SetUp(prepared, Dynamics(field, prepared.scales, spec.time_dependent), problem_of(spec, prepared))


def start_velocity_of(spec: Specification, prepared: Prepared) -> StartVelocity | None:
    """The map from positions to initial velocities, where one is needed."""
    return fit_start_velocity(prepared) if spec.velocity_inferred else None


def make_field(spec: Specification, n_states: int, n_inputs: int) -> AbstractField:
    """The right-hand side that a specification names."""
    variables = source_variables(n_states, n_inputs, order=spec.order, time_dependent=spec.time_dependent)
    if spec.field in ("auto", "per_target", "additive"):
        return PerTargetField(
            n_states, len(variables), spec.hidden, spec.activation, variables, n_bilinear=spec.n_bilinear
        )
    return SharedField(
        n_states,
        len(variables),
        spec.hidden,
        spec.activation,
        variables,
        linear_skip=spec.field == "residual",
    )


def recipe_of(spec: Specification) -> tuple[Stage, ...]:
    """Stages of the training; without ``refit`` the penalised weights are final."""
    recipe = RECIPES[spec.training]
    return recipe if spec.refit else tuple(stage for stage in recipe if not stage.frozen)


def constraints_of(spec: Specification) -> Constraints | None:
    """What is known of edges, as tensors."""
    rules = spec.rules
    if rules is None:
        return None
    return Constraints(
        closed=torch.as_tensor(rules.closed, device=spec.device),
        required=torch.as_tensor(rules.required, device=spec.device),
        prices=torch.as_tensor(rules.prices, dtype=spec.dtype, device=spec.device),
        signs=torch.as_tensor(rules.signs, dtype=spec.dtype, device=spec.device),
    )


def options_of(spec: Specification, recipe: tuple[Stage, ...]) -> Options:
    """What the stages need to know of a specification."""
    return Options(
        recipe=recipe,
        max_iter=spec.max_iter,
        learning_rate=spec.learning_rate,
        tol=spec.tol,
        weight_decay=spec.weight_decay,
        by_evidence=spec.by_evidence,
        products="offered" if spec.widen else "none",
        constraints=constraints_of(spec),
        method=spec.method,
        initial_exact=spec.initial_exact,
        device=spec.device,
        dtype=spec.dtype,
        report=spec.report,
    )


def problem_of(spec: Specification, prepared: Prepared) -> Problem:
    """Prepared data as tensors, where and how a specification wants them."""
    return build_problem(prepared, window=WINDOW, starts=starts_of(spec), dtype=spec.dtype, device=spec.device)


def starts_of(spec: Specification) -> Starts:
    """Where the windows of a fit start."""
    return "given" if spec.initial_exact else "refined"


def fitted_model(
    trained: Trained,
    prepared: Prepared,
    problem: Problem,
    spec: Specification,
    head: StartVelocity | None,
    own: Forecasts | None = None,
) -> Fitted:
    """A batch of one trained model, as numpy arrays and plain data."""
    dynamics = Dynamics(trained.field, prepared.scales, spec.time_dependent)
    weights = {name: value.double() for name, value in trained.weights.items()}
    dependencies = find_dependencies(dynamics.field, weights, trained.pilot[0], prepared, problem)
    scores = rank(dependencies.scores, prepared)
    failed = any(bool(report.failed[0]) for report in trained.history.values())
    done = all(bool(report.converged[0]) for report in trained.history.values())
    return Fitted(
        field=hold(dynamics.field, *near_box(prepared.scales, dynamics.field.n_sources)),
        scales=prepared.scales,
        time_dependent=dynamics.time_dependent,
        weights={name: value[0].cpu().numpy() for name, value in weights.items()},
        start_velocity=head,
        start=prepared.courses[0].path[prepared.courses[0].given],
        step=choose_step(dynamics, weights, problem) if own is None else own.step,
        method=spec.method,
        matrix=dependencies.matrix,
        scores=scores if spec.rules is None else np.where(spec.rules.closed, 0.0, scores),
        effect=dependencies.effect,
        sign=dependencies.sign,
        alpha_max=float(trained.alpha_max[0]),
        n_strays=0 if own is None else own.strays,
        status="diverged" if failed else "converged" if done else "max_iter",
        n_iter=sum(report.n_iter for report in trained.history.values()),
        history={
            name: {
                "loss": report.loss[:, 0],
                "n_edges": int(report.n_edges[0]),
                "n_iter": report.n_iter,
                "converged": bool(report.converged[0]),
                "seconds": report.seconds,
            }
            for name, report in trained.history.items()
        },
    )
