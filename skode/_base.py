"""What all estimators of the package do to fit: read X and y, and say what training and the data leave open."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array

from skode._alignment import learn_alignment
from skode._answering import FittedNODERegressor
from skode._fit import Specification, make_field, resolve_field
from skode._fitted import Fitted
from skode._identifiability import identifiability
from skode._layout import Layout
from skode._memory import release
from skode._names import check_names, variable_names
from skode._parameters import with_prior
from skode._prepare import prepare
from skode._question_checks import check_dynamics, check_not_raw, check_not_times, check_targets, warn_backwards
from skode._steady import SteadyRows, check_steady
from skode._trajectories import Trajectories, as_trajectories
from skode._typing import IntArray
from skode._validation import BUILDER, check_groups, check_weights, explained
from skode.exceptions import DivergedPredictionWarning, IdentifiabilityWarning


class Reading(NamedTuple):
    """What ``fit`` makes of its arguments."""

    specification: Specification
    trajectories: Trajectories
    steady: SteadyRows | None
    seed: int
    tie: Callable[[IntArray], Trajectories]  # some rows of X and y, tied as all of them are


class AbstractNODERegressor(FittedNODERegressor, ABC):
    """Reads X and y, fits and tells how it went; subclasses decide how the field is found."""

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
        release()
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


def _column_names(table: Any) -> list[str] | None:
    """Names of the columns of a data frame, or of a series; None for arrays."""
    columns = getattr(table, "columns", None)
    if columns is not None:
        return [str(name) for name in columns] if all(isinstance(name, str) for name in columns) else None
    name = getattr(table, "name", None)
    return [name] if isinstance(name, str) else None
