"""Where the parts meet: trajectories become a fitted model, and a fitted model answers rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from skode._batch import Batch
from skode._dynamics import Dynamics, Slope, source_variables, tensor
from skode._prepare import Prepared, prepare
from skode._problem import Problem, build_problem
from skode._scales import Scales
from skode._start_velocity import StartVelocity, fit_start_velocity
from skode._steady import SteadyRows
from skode._train import Options, Trained, train
from skode._trajectories import Trajectories
from skode._typing import AnyArray, BoolArray, FloatArray, IntArray, Weights
from skode.fields import AbstractField, PerTargetField, SharedField
from skode.integrate import halve_step, integrate, trace
from skode.penalties import AbstractPenalty
from skode.recipe import RECIPES, Stage

BOX = 10.0
"""How far predictions may leave the training box: this many times its half-width from its centre."""
PREDICTION_TOLERANCE = 1e-4
"""Largest change of a predicted state, in standard deviations, when the step is halved, over a training window."""
WINDOW = 5
"""Intervals per training window: long enough to average noise, too short for errors to grow far."""
SIGN_AGREEMENT = 0.9
"""|mean J| / mean |J| from which an edge has a sign."""


@dataclass(frozen=True)
class Specification:
    """What to fit, in terms that no user data enter."""

    penalty: AbstractPenalty
    field: str
    hidden: tuple[int, ...]
    activation: str
    n_bilinear: int
    widen: bool
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
    refit: bool
    device: torch.device
    dtype: torch.dtype
    report: Callable[[str], None]


@dataclass(frozen=True)
class Fitted:
    """One fitted model: numpy arrays and plain data only.

    Parameters
    ----------
    field : AbstractField
    scales : Scales
    time_dependent : bool
    weights : dict of arrays
        Effective weights, without the model axis.
    start_velocity : StartVelocity or None
        Map from initial positions and inputs to initial velocities, where X does not give them.
    start : array (s,)
        Standard state at elapsed time 0 of the first trajectory, for X that is time only.
    step : float
        Step of the prediction grid, in standard time.
    method : str
    matrix, scores, effect : array (d, variable)
        Dependencies as the estimator reports them.
    sign : int array (d, variable)
    alpha_max : float
    status : str
        "converged", "max_iter" or "diverged".
    n_iter : int
    history : dict
        Per stage: loss, n_edges, status, n_iter and seconds.
    """

    field: AbstractField
    scales: Scales
    time_dependent: bool
    weights: dict[str, AnyArray]
    start_velocity: StartVelocity | None
    start: FloatArray
    step: float
    method: str
    matrix: FloatArray
    scores: FloatArray
    effect: FloatArray
    sign: IntArray
    alpha_max: float
    status: str
    n_iter: int
    history: dict[str, dict[str, Any]]

    @property
    def dynamics(self) -> Dynamics:
        """The differential equation."""
        return Dynamics(self.field, self.scales, self.time_dependent)

    def torch_weights(self, device: torch.device) -> Weights:
        """Weights in float64, with a model axis of one."""
        return {
            name: torch.as_tensor(value, dtype=torch.float64, device=device).unsqueeze(0)
            for name, value in self.weights.items()
        }

    def derivative(self, states: FloatArray, inputs: FloatArray, clock: FloatArray) -> FloatArray:
        """Right-hand side at samples, all in user units.  # (sample, d)"""
        weights = self.torch_weights(torch.device("cpu"))
        like = next(iter(weights.values()))
        d, scales = self.field.n_targets, self.scales
        x = scales.standard_start(states[:, :d], states[:, d:] if scales.order == 2 else None)
        z = self.dynamics.sources(
            tensor(x, like).unsqueeze(0),
            tensor(scales.standard_inputs(inputs), like),
            tensor(scales.standard_clock(clock), like).unsqueeze(0),
        )
        with torch.no_grad():
            slopes: FloatArray = self.field(weights, z)[0].numpy()
        return slopes * scales.slope_unit()


class Questions(NamedTuple):
    """Rows to predict, tied to their distinct starts."""

    times: FloatArray  # (row,) elapsed, user units
    trajectory: IntArray  # (row,)
    start: FloatArray  # (trajectory, s) standard
    inputs: FloatArray  # (trajectory, m) standard
    origin: FloatArray  # (trajectory,) standard clock


class Answers(NamedTuple):
    """Predicted states."""

    states: FloatArray  # (row, d), user units
    failed_at: FloatArray  # (trajectory,), user units; nan where nothing failed
    held: BoolArray  # (row,)


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
    prepared = prepare(trajectories, order=spec.order, time_dependent=spec.time_dependent, steady=steady)
    field = make_field(spec, trajectories.n_states, trajectories.n_inputs)
    spec.penalty.check(field)
    dynamics = Dynamics(field, prepared.scales, spec.time_dependent)
    problem = problem_of(spec, prepared)
    trained = train(dynamics, spec.penalty, problem, batch, options_of(spec, recipe_of(spec)))
    head = start_velocity_of(spec, prepared)
    return [fitted_model(model, trained, prepared, problem, spec, head) for model in range(batch.n_models)]


def start_velocity_of(spec: Specification, prepared: Prepared) -> StartVelocity | None:
    """The map from positions to initial velocities, where one is needed."""
    return fit_start_velocity(prepared) if spec.velocity_inferred else None


def make_field(spec: Specification, n_states: int, n_inputs: int) -> AbstractField:
    """The right-hand side that a specification names."""
    variables = source_variables(n_states, n_inputs, order=spec.order, time_dependent=spec.time_dependent)
    if spec.field == "per_target":
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


def options_of(spec: Specification, recipe: tuple[Stage, ...]) -> Options:
    """What the stages need to know of a specification."""
    return Options(
        recipe=recipe,
        max_iter=spec.max_iter,
        learning_rate=spec.learning_rate,
        tol=spec.tol,
        weight_decay=spec.weight_decay,
        widen=spec.widen,
        method=spec.method,
        window=WINDOW,
        initial_exact=spec.initial_exact,
        device=spec.device,
        dtype=spec.dtype,
        report=spec.report,
    )


def problem_of(spec: Specification, prepared: Prepared) -> Problem:
    """Prepared data as tensors, where and how a specification wants them."""
    return build_problem(
        prepared, window=WINDOW, refine_start=not spec.initial_exact, dtype=spec.dtype, device=spec.device
    )


def fitted_model(
    model: int,
    trained: Trained,
    prepared: Prepared,
    problem: Problem,
    spec: Specification,
    head: StartVelocity | None,
) -> Fitted:
    """One model of a trained batch, as numpy arrays and plain data."""
    dynamics = Dynamics(trained.field, prepared.scales, spec.time_dependent)
    weights = {name: value[model : model + 1].double() for name, value in trained.weights.items()}
    dependencies = _dependencies(dynamics.field, weights, trained.pilot[model], prepared, problem)
    failed = any(bool(report.failed[model]) for report in trained.history.values())
    done = all(bool(report.converged[model]) for report in trained.history.values())
    return Fitted(
        field=dynamics.field,
        scales=prepared.scales,
        time_dependent=dynamics.time_dependent,
        weights={name: value[0].cpu().numpy() for name, value in weights.items()},
        start_velocity=head,
        start=prepared.courses[0].path[prepared.courses[0].given],
        step=_choose_step(dynamics, weights, problem),
        method=spec.method,
        matrix=dependencies.matrix,
        scores=dependencies.scores,
        effect=dependencies.effect,
        sign=dependencies.sign,
        alpha_max=float(trained.alpha_max[model]),
        status="diverged" if failed else "converged" if done else "max_iter",
        n_iter=sum(report.n_iter for report in trained.history.values()),
        history={
            name: {
                "loss": report.loss[:, model],
                "n_edges": int(report.n_edges[model]),
                "n_iter": report.n_iter,
                "converged": bool(report.converged[model]),
                "seconds": report.seconds,
            }
            for name, report in trained.history.items()
        },
    )


class _Dependencies(NamedTuple):
    matrix: FloatArray
    scores: FloatArray
    effect: FloatArray
    sign: IntArray


def _dependencies(
    field: AbstractField, weights: Weights, pilot: torch.Tensor, prepared: Prepared, problem: Problem
) -> _Dependencies:
    """Jacobians over the data, in units of sd(source) and sd(slope).

    matrix_ij = RMS of (d f_i / d x_j) sd(x_j) / sd(dx_i/dt), 0 without a path. With velocities a variable has two
    parts; magnitudes add in squares, and sign and effect are those of the larger part.
    """
    jacobian = field.jacobian(weights, problem.knots.double())[0]  # (sample, target, source)
    slope_sd = tensor(prepared.slope_sd, jacobian)
    moving = slope_sd > 1e-9
    spread = tensor(prepared.knot_sources.std(axis=0), jacobian)
    varies = spread > 1e-9
    scaled = jacobian * varies / torch.where(moving, slope_sd, torch.inf)[:, None]
    open_paths = field.by_variable(field.paths(weights)[0]) > 0
    rms = scaled.square().mean(0)  # (target, source)
    matrix = torch.where(open_paths, field.by_variable(rms).sqrt(), 0.0)
    mean, size = scaled.mean(0), scaled.abs().mean(0)
    signed = torch.where(mean.abs() >= SIGN_AGREEMENT * size, mean.sign(), 0.0)
    largest = _largest_source(field, rms)
    effect = torch.where(open_paths, mean.gather(-1, largest), 0.0)
    sign = torch.where(open_paths, signed.gather(-1, largest), 0.0)
    early = pilot.double() / torch.where(moving, slope_sd, torch.inf)[:, None]
    return _Dependencies(
        matrix=matrix.cpu().numpy(),
        scores=(matrix + early).cpu().numpy(),
        effect=effect.cpu().numpy(),
        sign=sign.cpu().numpy().astype(np.int64),
    )


def _largest_source(field: AbstractField, rms: torch.Tensor) -> torch.Tensor:
    """For every variable the source through which it acts most.  # (target, variable)"""
    owner = torch.tensor(field.variable_of_source, device=rms.device)
    columns = []
    for variable in range(field.n_variables):
        mine = torch.nonzero(owner == variable)[:, 0]
        columns.append(mine[rms[:, mine].argmax(-1)])
    return torch.stack(columns, dim=-1)


def _box(scales: Scales) -> FloatArray:
    """Edges of the training box widened tenfold, in standard units; none for constant states.  # (2, s)"""
    centre, half = 0.5 * (scales.low + scales.high), 0.5 * (scales.high - scales.low)
    reach = np.where(np.tile(scales.moving, scales.order), BOX * np.maximum(half, 1.0), np.inf)
    return np.stack([centre - reach, centre + reach])


def _choose_step(dynamics: Dynamics, weights: Weights, problem: Problem) -> float:
    """Step of the prediction grid: halved until the training windows stand still."""
    windows = problem.windows
    like = next(iter(weights.values()))
    n_windows, n_times = windows.times.shape
    slope = dynamics.slope(weights, windows.inputs.to(like), windows.origin.to(like))
    found = halve_step(
        slope,
        windows.start.to(like).unsqueeze(0),
        torch.arange(n_windows, device=like.device).repeat_interleave(n_times),
        windows.times.to(like).flatten(),
        PREDICTION_TOLERANCE,
        step=1.0,
        box=tensor(_box(dynamics.scales), like),
    )
    return found.step


def predict_batch(fitted: Fitted, questions: Questions, device: torch.device) -> Answers:
    """Answer rows, one solve per distinct start, in float64.

    Parameters
    ----------
    fitted : Fitted
    questions : Questions
    device : torch.device

    Returns
    -------
    Answers
    """
    weights = fitted.torch_weights(device)
    like = next(iter(weights.values()))
    slope = fitted.dynamics.slope(weights, tensor(questions.inputs, like), tensor(questions.origin, like))
    x0 = tensor(questions.start, like).unsqueeze(0)
    trajectory = torch.as_tensor(questions.trajectory, device=device)
    times = tensor(questions.times / fitted.scales.time_unit, like)
    traced = trace(slope, x0, trajectory, times, step=fitted.step, box=tensor(_box(fitted.scales), like))
    states = traced.states[0].cpu().numpy()
    if fitted.method != "rk4":
        states = _other_method(fitted, slope, x0, questions, states)
    return Answers(
        states=fitted.scales.user_states(states),
        failed_at=traced.failed_at[0].cpu().numpy() * fitted.scales.time_unit,
        held=traced.held[0].cpu().numpy(),
    )


def _only(slope: Slope, index: torch.Tensor) -> Slope:
    """The slope of one of the trajectories, told apart by its inputs."""
    return lambda t, x, _: slope(t, x, index)


def _other_method(
    fitted: Fitted, slope: Slope, x0: torch.Tensor, questions: Questions, fallback: FloatArray
) -> FloatArray:
    """Solve by torchdiffeq where it succeeds; elsewhere keep what the fixed grid gave."""
    out = fallback.copy()
    box = _box(fitted.scales)
    for k in np.unique(questions.trajectory):
        rows = np.flatnonzero(questions.trajectory == k)
        tau = tensor(questions.times[rows] / fitted.scales.time_unit, x0)
        index = torch.tensor([int(k)], device=x0.device)
        with torch.no_grad():
            solved = integrate(
                _only(slope, index),
                x0[:, index],
                tau.unsqueeze(0),
                method=fitted.method,
                n_steps=max(1, int(np.ceil(float(tau.abs().max()) / fitted.step))),
            )[0, 0]
        states = solved.cpu().numpy()
        fine = np.isfinite(states).all(axis=1) & (states >= box[0]).all(axis=1) & (states <= box[1]).all(axis=1)
        out[rows[fine]] = states[fine]
    return out
