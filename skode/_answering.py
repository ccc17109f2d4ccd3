"""What all estimators of the package can do once fitted: predict, simulate, hand out the graph, be pickled."""

from __future__ import annotations

import warnings
from copy import copy
from typing import Any, Self

import networkx as nx
import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from skode._alignment import Alignment
from skode._compact import compact, expand
from skode._driven import changing_inputs, drive
from skode._equations import equations
from skode._fitted import Fitted
from skode._layout import Layout
from skode._parameters import available_device
from skode._predict import Answers, predict_batch
from skode._question_checks import check_questions
from skode._questions import as_questions
from skode._typing import FloatArray
from skode._validation import as_numbers, explained
from skode.builders import make_questions
from skode.exceptions import DivergedPredictionWarning
from skode.fields import PolynomialField
from skode.graph import build_graph
from skode.metrics import r2

_OF_FITTED = {"dependency_matrix_": "matrix", "dependency_scores_": "scores"}
"""Attributes that are arrays of the fitted model."""


class FittedNODERegressor(RegressorMixin, BaseEstimator):
    """A fitted field behind the interface of scikit-learn."""

    device: str
    state_names_: tuple[str, ...]
    input_names_: tuple[str, ...]
    n_states_: int
    n_inputs_: int
    identifiability_: FloatArray
    _fitted: Fitted
    _layout: Layout
    _alignment: Alignment
    _one_dimensional: bool

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

    def _table(self, X: Any, remedy: str, **options: Any) -> FloatArray:
        """Validate X as scikit-learn does; every refusal says what must hold and what to do."""
        with explained("X must be a table of numbers, one row per question [ t | x0 | u ], as in fit", remedy):
            table: FloatArray = validate_data(self, X, dtype=np.float64, ensure_all_finite=False, **options)
        check_questions(table, names=getattr(self, "feature_names_in_", None))
        return table

    def predict(self, X: Any, return_status: bool = False) -> Any:
        """Predict the states that rows ask for.

        Every row is answered as if it had been asked alone, to the last bit, on a time grid fixed in ``fit``.
        Predictions are always finite: a trajectory that fails or leaves the training box widened tenfold is held at the
        edge.

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
        return _told(predict_batch(self._fitted, as_questions(X, self._layout, self._fitted), device))

    def equations(self, precision: int = 3) -> list[str]:
        """The fitted law, one line per state, where it is a polynomial (see ``SparseNODERegressorCV``).

        Predictions follow it as far as the box of the training data widened by half; beyond, products stand still.

        Parameters
        ----------
        precision : int, default=3
            Significant digits of coefficients.

        Returns
        -------
        list of str
            In the units of y and of time, with the names of states and inputs; a source that stays far from zero is
            measured from its mean, as in ``(x0 - 293)``.

        Raises
        ------
        ValueError
            If the equations are read by networks or curves, which no line can hold.
        """
        check_is_fitted(self)
        if not isinstance(self._fitted.field, PolynomialField):
            raise ValueError(
                "equations() must be asked of a fit that took a polynomial law; got one whose equations are read by "
                f"{type(self._fitted.field).__name__}. Use predict_derivative for slopes, dependency_matrix_ for edges."
            )
        return equations(self._fitted, (*self.state_names_, *self.input_names_), precision)

    def simulate(self, x0: npt.ArrayLike, t: npt.ArrayLike, inputs: npt.ArrayLike | None = None) -> FloatArray:
        """Simulate trajectories from initial states.

        Parameters
        ----------
        x0 : array-like of shape (n_trajectories, d), (d,), or (n_trajectories, 2 d) with initial velocities
        t : array-like of shape (n_times,) or (n_trajectories, n_times)
            Elapsed times. Where inputs change they start at 0 or later and do not fall.
        inputs : array-like of shape (n_trajectories, m), (m,) or (n_trajectories, n_times, m), default=None
            Constant inputs; or inputs that change, of which those at one time hold until the next, as in
            ``from_trajectories`` (for one x0 of shape (d,) also of shape (n_times, m)). The start time first, which
            does not change, where ``time_origin="input"``.

        Returns
        -------
        ndarray of shape (n_trajectories, n_times, d)

        Raises
        ------
        ValueError
            If shapes disagree, or if inputs change and the field's clock restarts whenever they do
            (``time_dependent=True`` with ``time_origin="zero"``).

        Warns
        -----
        DivergedPredictionWarning
            Once, where trajectories are held at the edge (see ``predict``).

        Examples
        --------
        >>> import numpy as np
        >>> from skode import SparseNODERegressor, from_trajectories
        >>> t = np.arange(40) * 0.1
        >>> u = np.sin(t)[:, None]
        >>> level = np.zeros((40, 1))
        >>> for k in range(39):  # dx/dt = u - x, the input held for .1
        ...     level[k + 1] = u[k] + (level[k] - u[k]) * np.exp(-0.1)
        >>> X, y, groups = from_trajectories([level], t, inputs=[u])
        >>> model = SparseNODERegressor(max_iter=400, tol=1, random_state=0).fit(X, y, groups=groups)
        >>> model.simulate(level[0], t, inputs=u).shape
        (1, 40, 1)
        """
        check_is_fitted(self)
        layout = self._layout
        start, times = np.atleast_2d(as_numbers(x0, "x0")), as_numbers(t, "t")
        if not times.size:
            raise ValueError(f"t must hold some times; got shape {times.shape}. Pass the elapsed times to simulate to.")
        driven = None if inputs is None else changing_inputs(as_numbers(inputs, "inputs"), start, times)
        given = inputs if driven is None else driven[:, 0]
        X = np.asarray(make_questions(start, times, given), dtype=np.float64)
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
        answers = self._answer(X) if driven is None else self._drive(X.reshape(len(start), -1, X.shape[1]), driven)
        return answers.states.reshape(len(start), -1, layout.n_states)

    def _drive(self, X: FloatArray, inputs: FloatArray) -> Answers:
        """Answer questions (trajectory, time, column) under inputs (trajectory, time, m) that change."""
        layout, fitted, times = self._layout, self._fitted, X[:, :, 0]
        if (times[:, 0] < 0).any() or (np.diff(times, axis=1) < 0).any():
            raise ValueError(
                f"t must start at 0 or later and not fall where inputs change; got times from {times.min():g} to "
                f"{times.max():g} in another order. Sort them, with their inputs."
            )
        if fitted.time_dependent and not layout.start_time:
            raise ValueError(
                "Inputs may only change if the field's clock goes on when they do; got time_origin='zero', whose clock "
                "restarts. Fit with time_origin='input' and from_trajectories(..., absolute_time=True)."
            )
        n_before = 1 if layout.start_time else 0
        if (inputs[:, :, :n_before] != inputs[:, :1, :n_before]).any():
            raise ValueError(
                "The start time, first of the inputs, must be one for all times of a trajectory; got one that changes. "
                "Repeat the time of x0."
            )
        first = as_questions(X[:, 0], layout, fitted)
        start, origin = first.start[first.trajectory], inputs[:, 0, :n_before].sum(axis=1)
        return _told(drive(fitted, start, origin, times, inputs[:, :, n_before:], available_device(self.device)))

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


def _told(answers: Answers) -> Answers:
    """The answers, after a warning if any are held."""
    if answers.held.any():
        rows = np.flatnonzero(answers.held)
        first = float(np.nanmin(np.abs(answers.failed_at)))
        shown = ", ".join(map(str, rows[:10])) + (", ..." if len(rows) > 10 else "")
        warnings.warn(
            f"Predictions should stay within ten times the training box; {len(rows)} rows ({shown}) left it or "
            f"failed, the first after t = {first:g}, and are held at its edge. Ask for shorter times, or "
            "start closer to the training data.",
            DivergedPredictionWarning,
            stacklevel=4,
        )
    return answers
