"""What all estimators of the package share: reading X and y, predicting, and handing out the graph."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import copy
from typing import Any, NamedTuple, Self

import networkx as nx
import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from skode._alignment import learn_alignment
from skode._compact import compact, expand
from skode._fit import Specification, make_field, resolve_field
from skode._fitted import Fitted
from skode._identifiability import identifiability
from skode._layout import Layout
from skode._names import check_names, variable_names
from skode._parameters import available_device, with_prior
from skode._predict import Answers, predict_batch
from skode._prepare import prepare
from skode._questions import as_questions
from skode._steady import SteadyRows, check_steady
from skode._trajectories import Trajectories, as_trajectories
from skode._typing import FloatArray, IntArray
from skode._validation import (
    BUILDER,
    as_numbers,
    check_dynamics,
    check_groups,
    check_not_raw,
    check_not_times,
    check_questions,
    check_targets,
    check_weights,
    explained,
    warn_backwards,
)
from skode.builders import make_questions
from skode.exceptions import DivergedPredictionWarning, IdentifiabilityWarning
from skode.graph import build_graph
from skode.metrics import r2

_OF_FITTED = {"dependency_matrix_": "matrix", "dependency_scores_": "scores"}
"""Attributes that are arrays of the fitted model."""


class Reading(NamedTuple):
    """What ``fit`` makes of its arguments."""

    specification: Specification
    trajectories: Trajectories
    steady: SteadyRows | None
    seed: int
    tie: Callable[[IntArray], Trajectories]  # some rows of X and y, tied as all of them are


class AbstractNODERegressor(RegressorMixin, BaseEstimator, ABC):
    """A fitted field behind the interface of scikit-learn; subclasses decide how it is found."""

    @abstractmethod
    def fit(self, X: Any, y: Any) -> Self:
        """Fit the field and its graph."""

    @abstractmethod
    def _solve(
        self, specification: Specification, trajectories: Trajectories, steady: SteadyRows | None, seed: int
    ) -> Fitted:
        """Fit the field to trajectories that have been read; stores nothing."""

    def _read(self, X: Any, y: Any, sample_weight: Any, groups: Any, steady_states: Any) -> Reading:
        """Check every argument and tie the rows into trajectories; stores names, layout and alignment."""
        specification = self._specify()
        check_not_raw(X)
        if y is None:
            raise ValueError(
                f"y must be the states at the times in X; got None: {type(self).__name__} requires y to be passed, "
                "but the target y is None. Build X and y with from_trajectories."
            )
        y_names = _column_names(y)
        X = self._table(X, BUILDER, ensure_min_samples=2)
        with explained("y must be a table of numbers, one row per row of X and one column per state", BUILDER):
            y = check_array(
                y,
                ensure_2d=False,
                dtype=np.float64,
                ensure_all_finite=False,
                input_name="y",
                estimator=self,
            )
        if len(y) != len(X):
            raise ValueError(
                f"X and y must have the same number of rows; got {len(X)} and {len(y)}: inconsistent numbers of "
                "samples. Build both with one call of from_trajectories."
            )
        self._one_dimensional = y.ndim == 1
        y = y[:, None] if y.ndim == 1 else y
        weights = check_weights(sample_weight, len(X))
        labels = check_groups(groups, len(X))
        check_targets(y, sample_weight=weights, names=y_names)
        check_not_times(X, y)
        layout = self._layout_of(X.shape[1], y.shape[1])
        default_width = self.hidden_layer_sizes is None
        specification = resolve_field(specification, layout, self.prior, default_width=default_width)
        field = make_field(specification, layout.n_states, layout.n_inputs)
        specification.penalty.check(field)
        x_names = [str(name) for name in getattr(self, "feature_names_in_", [])] or None
        check_names(x_names, y_names, layout)
        names = variable_names(x_names, y_names, layout, time_node=specification.time_dependent)
        specification = with_prior(specification, self.prior, field, names)
        steady = check_steady(steady_states, layout, time_dependent=specification.time_dependent)
        alignment = learn_alignment(X, y, layout, sample_weight=weights)
        X = alignment.apply(X)
        used = (weights > 0) & np.isfinite(y).any(axis=1)
        check_dynamics(X[used, 0])
        warn_backwards(X[weights > 0, 0])

        def tie(rows: IntArray) -> Trajectories:
            some = None if labels is None else labels[rows]
            return as_trajectories(X[rows], y[rows], layout=layout, sample_weight=weights[rows], groups=some)

        trajectories = tie(np.arange(len(X)))
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self._layout, self._alignment = layout, alignment
        self.state_names_, self.input_names_ = names.states, names.inputs
        self.n_states_, self.n_inputs_ = layout.n_states, layout.n_inputs
        return Reading(specification, trajectories, steady, seed, tie)

    @abstractmethod
    def _specify(self) -> Specification:
        """Check the constructor arguments."""

    def _table(self, X: Any, remedy: str, **options: Any) -> FloatArray:
        """Validate X as scikit-learn does; every refusal says what must hold and what to do."""
        with explained("X must be a table of numbers, one row per question [ t | x0 | u ], as in fit", remedy):
            table: FloatArray = validate_data(self, X, dtype=np.float64, ensure_all_finite=False, **options)
        check_questions(table, names=getattr(self, "feature_names_in_", None))
        return table

    def _layout_of(self, n_columns: int, n_states: int) -> Layout:
        return Layout.infer(
            n_columns,
            n_states,
            order=self.order,
            initial_velocity=self.initial_velocity,
            time_dependent=self.time_dependent,
            time_origin=self.time_origin,
        )

    def _keep(self, fitted: Fitted, reading: Reading) -> Self:
        """Store the fitted state, and say so if training did not settle or the data cannot tell edges apart."""
        self._store(fitted)
        self._tell_apart(fitted, reading)
        if fitted.status == "diverged":
            warnings.warn(
                "Training must stay finite; a stage diverged and the last finite weights were kept. "
                "Lower learning_rate, or fit fewer or shorter trajectories.",
                ConvergenceWarning,
                stacklevel=3,
            )
        elif fitted.status == "max_iter":
            still = [name for name, report in fitted.history.items() if not report["converged"]]
            warnings.warn(
                f"Training should settle within max_iter={self.max_iter} iterations; the loss still moved in "
                f"stage {', '.join(still)}. Raise max_iter or tol.",
                ConvergenceWarning,
                stacklevel=3,
            )
        if fitted.n_strays:
            warnings.warn(
                f"Forecasts of the training data should stay near it; got {fitted.n_strays} from observed starts that "
                "left its range, widened by half, within 80 intervals. Others will do so too: ask for shorter times, "
                "fit more trajectories, or raise weight_decay.",
                DivergedPredictionWarning,
                stacklevel=3,
            )
        return self

    def _tell_apart(self, fitted: Fitted, reading: Reading) -> None:
        """Store how well the data tell edges from each other, and warn where they cannot."""
        spec = reading.specification
        prepared = prepare(
            reading.trajectories, order=spec.order, time_dependent=spec.time_dependent, steady=reading.steady
        )
        found = identifiability(prepared, fitted.field.variable_of_source)
        self.identifiability_ = found.matrix
        reasons = found.reasons((*self.state_names_, *self.input_names_, "t"))
        if reasons:
            warnings.warn(
                f"Trajectories should tell every edge from its alternatives; got {'; '.join(reasons)}. "
                "Start from more and other states, vary the inputs, or add steady_states; edges of these "
                "variables are uncertain (identifiability_).",
                IdentifiabilityWarning,
                stacklevel=4,
            )

    def _store(self, fitted: Fitted) -> None:
        """Store the fitted state."""
        self._fitted = fitted
        self.dependency_matrix_ = fitted.matrix
        self.dependency_scores_ = fitted.scores
        self.alpha_max_ = fitted.alpha_max
        self.history_ = fitted.history
        self.n_iter_ = fitted.n_iter
        self.status_ = fitted.status

    def __getstate__(self) -> dict[str, Any]:
        """State for pickle: large matrices without their zeros, and none twice."""
        state = {name: compact(value) for name, value in super().__getstate__().items()}
        fitted = state.get("_fitted")
        for name, kept in _OF_FITTED.items():
            if fitted is not None and self.__dict__.get(name) is getattr(fitted, kept):
                del state[name]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = {name: expand(value) for name, value in state.items()}
        fitted = state.get("_fitted")
        shared = {} if fitted is None else {name: getattr(fitted, kept) for name, kept in _OF_FITTED.items()}
        super().__setstate__({**shared, **state})

    def _twin(self, fitted: Fitted) -> Self:
        """Another estimator with the same settings and data, and its own fitted state; warns of nothing."""
        twin = copy(self)
        twin._store(fitted)
        return twin

    def predict(self, X: Any, return_status: bool = False) -> Any:
        """Predict the states that rows ask for.

        Every row is answered as if it had been asked alone, on a time grid fixed in ``fit``; up to rounding, which
        chaotic equations amplify far beyond the time at which they can be forecast. Predictions are
        always finite: a trajectory that fails or leaves the training box widened tenfold is held at the edge.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_rows, n_features_in_)
        return_status : bool, default=False
            Also return 0 for every sound row and 1 for every row that is held.

        Returns
        -------
        ndarray of shape (n_rows, d), or (n_rows,) if y had one axis; float64
        ndarray of int of shape (n_rows,), if ``return_status``

        Warns
        -----
        DivergedPredictionWarning
            Once, with the rows that are held and the earliest time at which it happened.
        """
        check_is_fitted(self)
        X = self._table(X, "Build X with make_questions(x0, t), or as in fit.", reset=False)
        answers = self._answer(self._alignment.apply(X))
        states = answers.states[:, 0] if self._one_dimensional else answers.states
        return (states, answers.held.astype(np.int64)) if return_status else states

    def _answer(self, X: FloatArray) -> Answers:
        device = available_device(self.device)
        answers = predict_batch(self._fitted, as_questions(X, self._layout, self._fitted), device)
        if answers.held.any():
            rows = np.flatnonzero(answers.held)
            first = float(np.nanmin(np.abs(answers.failed_at)))
            shown = ", ".join(map(str, rows[:10])) + (", ..." if len(rows) > 10 else "")
            warnings.warn(
                f"Predictions should stay within ten times the training box; {len(rows)} rows ({shown}) left it or "
                f"failed, the first after t = {first:g}, and are held at its edge. Ask for shorter times, or "
                "start closer to the training data.",
                DivergedPredictionWarning,
                stacklevel=3,
            )
        return answers

    def simulate(self, x0: npt.ArrayLike, t: npt.ArrayLike, inputs: npt.ArrayLike | None = None) -> FloatArray:
        """Simulate trajectories from initial states.

        Parameters
        ----------
        x0 : array-like of shape (n_trajectories, d), (d,), or (n_trajectories, 2 d) with initial velocities
        t : array-like of shape (n_times,) or (n_trajectories, n_times)
            Elapsed times.
        inputs : array-like of shape (n_trajectories, m) or (m,), default=None
            Constant inputs, the start time first where ``time_origin="input"``.

        Returns
        -------
        ndarray of shape (n_trajectories, n_times, d)
        """
        check_is_fitted(self)
        layout = self._layout
        start, times = np.atleast_2d(as_numbers(x0, "x0")), as_numbers(t, "t")
        if not times.size:
            raise ValueError(f"t must hold some times; got shape {times.shape}. Pass the elapsed times to simulate to.")
        X = np.asarray(make_questions(start, times, inputs), dtype=np.float64)
        if X.shape[1] != layout.n_columns and not layout.time_only:
            raise ValueError(
                f"x0 and inputs must have {layout.n_columns - 1} columns together, as X has after t in fit; got "
                f"{X.shape[1] - 1}. Give {layout.n_states} states"
                f"{' and as many velocities' if layout.has_velocity else ''}, then every input."
            )
        if layout.time_only:
            raise ValueError(
                "simulate needs a model that was fitted with initial states; got one fitted on time only. "
                "Use predict with times, or fit with X from from_trajectories."
            )
        states = self._answer(X).states
        return states.reshape(len(start), -1, layout.n_states)

    def score(self, X: Any, y: Any, sample_weight: npt.ArrayLike | None = None) -> float:
        """Return R2 over the finite entries of y, averaged over variables; ``r2_score`` where y is complete.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_rows, n_features_in_)
        y : array-like or DataFrame of shape (n_rows, d) or (n_rows,)
        sample_weight : array-like of shape (n_rows,), default=None

        Returns
        -------
        float
        """
        return r2(y, self.predict(X), sample_weight=sample_weight)

    def predict_derivative(
        self, states: npt.ArrayLike, inputs: npt.ArrayLike | None = None, t: npt.ArrayLike | None = None
    ) -> FloatArray:
        """Evaluate the fitted right-hand side.

        Parameters
        ----------
        states : array-like of shape (n_samples, d), or (n_samples, 2 d) for ``order=2``: positions, velocities
        inputs : array-like of shape (n_samples, m) or (m,), default=None
            Needed if the model has inputs.
        t : array-like of shape (n_samples,) or float, default=None
            Time on the field's clock; needed for ``time_dependent=True``.

        Returns
        -------
        ndarray of shape (n_samples, d)
            dx/dt, or d2q/dt2 for ``order=2``, in units of y per (squared) unit of t.
        """
        check_is_fitted(self)
        return self._fitted.derivative(*self._samples(states, inputs, t))

    def _samples(
        self, states: npt.ArrayLike, inputs: npt.ArrayLike | None, t: npt.ArrayLike | None
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        d, m, order = self.n_states_, self.n_inputs_, self._layout.order
        x = np.atleast_2d(as_numbers(states, "states"))
        if x.ndim != 2 or x.shape[1] != d * order:
            raise ValueError(
                f"states must have shape (n_samples, {d * order}); got {x.shape}. Give "
                f"{'positions, then velocities' if order == 2 else 'one column per state'}."
            )
        u = np.zeros((1, 0)) if inputs is None else np.atleast_2d(as_numbers(inputs, "inputs"))
        if u.ndim != 2 or u.shape[1] != m or u.shape[0] not in (1, len(x)):
            raise ValueError(
                f"inputs must have shape ({len(x)}, {m}) or ({m},); got {'none' if inputs is None else u.shape}. "
                "Give the inputs that were columns of X in fit."
            )
        if (t is None) == self._fitted.time_dependent:
            raise ValueError(
                f"t must be given exactly if time_dependent=True; got t={'None' if t is None else 'values'} and "
                f"time_dependent={self._fitted.time_dependent}. {'Pass' if t is None else 'Leave out'} t."
            )
        clock = as_numbers(0.0 if t is None else t, "t")
        if clock.shape not in [(), (1,), (len(x),)]:
            raise ValueError(
                f"t must be a number or have shape ({len(x)},); got shape {clock.shape}. Give one time per sample."
            )
        clock = np.broadcast_to(clock, (len(x),))
        return x, np.broadcast_to(u, (len(x), m)), clock

    def get_dependency_graph(self, threshold: float = 0.0, max_edges: int | None = None) -> nx.DiGraph[str]:
        """Export the graph: an edge j -> i for every dependency of target i on source j.

        Parameters
        ----------
        threshold : float, default=0.0
            Keep entries of ``dependency_matrix_`` above it.
        max_edges : int or None, default=None
            Keep at most so many, the strongest.

        Returns
        -------
        networkx.DiGraph
            Every variable is a node with attribute ``kind`` ("state", "input" or "time"). Edges have ``weight``
            (the entry), ``effect`` (signed mean) and ``sign`` (+1, -1, or 0 where it changes over the data); and
            ``confidence``, where the estimator cross-validates.
            All values are plain Python, so that GraphML, GEXF, GML and JSON exports work.
        """
        check_is_fitted(self)
        time_node = ("t",) if self._fitted.time_dependent else ()
        return build_graph(
            self.dependency_matrix_,
            effect=self._fitted.effect,
            sign=self._fitted.sign,
            names=[*self.state_names_, *self.input_names_, *time_node],
            kinds=["state"] * self.n_states_ + ["input"] * self.n_inputs_ + ["time"] * len(time_node),
            threshold=threshold,
            max_edges=max_edges,
            confidence=self._confidence(),
        )

    def _confidence(self) -> FloatArray | None:
        """How sure every edge is, lowered where the data cannot tell; None where the fit does not say."""
        found = self._fitted.confidence
        return None if found is None else found * self.identifiability_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        # Static regression tables are no flow: a flow gives y = x0 at t = 0 whatever the table says.
        tags.regressor_tags.poor_score = True
        return tags


def _column_names(table: Any) -> list[str] | None:
    """Names of the columns of a data frame, or of a series; None for arrays."""
    columns = getattr(table, "columns", None)
    if columns is not None:
        return [str(name) for name in columns] if all(isinstance(name, str) for name in columns) else None
    name = getattr(table, "name", None)
    return [name] if isinstance(name, str) else None
