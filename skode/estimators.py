"""The estimator: a thin shell over ``fit_batch`` and ``predict_batch``."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Self

import networkx as nx
import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from skode._alignment import Alignment, learn_alignment
from skode._batch import Batch
from skode._fit import Answers, Fitted, fit_batch, make_field, predict_batch
from skode._layout import Layout
from skode._names import check_names, variable_names
from skode._parameters import resolve_device, specify
from skode._questions import as_questions
from skode._steady import SteadyStates, check_steady
from skode._trajectories import as_trajectories
from skode._typing import FloatArray
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
from skode.exceptions import DivergedPredictionWarning
from skode.graph import build_graph
from skode.metrics import r2
from skode.penalties import AbstractPenalty


class SparseNODERegressor(RegressorMixin, BaseEstimator):
    """Sparse neural ordinary differential equation: forecasts trajectories and finds what drives what.

    Learns dx/dt = f(x, u, t) from trajectories, few or many, short or long, irregular, noisy and with gaps, under
    a penalty that removes dependencies, so that the fitted f is a forecaster and a graph.

    A row of X asks "starting in state x0 under constant inputs u, where is the system after time t?", and the row
    of y is the answer::

        X = [ t | x0_1 ... x0_d | u_1 ... u_m ]        y = [ x_1(t) ... x_d(t) ]

    ``from_trajectories`` and ``from_frame`` build both. X of one column is time only: one trajectory whose
    initial state is estimated.

    Training minimises, for every target i, the data loss divided by the loss of the model that predicts no
    change, plus alpha times the penalty. ``training="staged"`` regresses the integral form along smoothed
    trajectories (no solver in the loop), presses the penalty twice, cuts what is zero, refits the rest without
    penalty, and finishes through the solver on short windows. ``training="trajectory"`` trains through the solver
    from x0 with the penalty on from the start, as in the paper.

    Parameters
    ----------
    penalty : {"group_lasso", "l1", "l0", "pathreg", "lassonet"}, AbstractPenalty or None, default="group_lasso"
        What is made sparse. None is the dense neural ODE. ``"group_lasso"`` removes edges one by one, and exactly.
        ``"l1"`` has no exact zeros: its graph is dense.
    alpha : float, default=0.02
        Strength, dimensionless; 0 is dense, ``alpha_max_`` and above give no edges. A target pays about alpha
        for each edge, in units of the variance of its slope. The useful range is 0.005 to 0.4 for
        ``"group_lasso"``; other penalties document theirs.
    field : {"per_target", "shared", "residual"}, default="per_target"
        Right-hand side: one small network per target; one network for all targets as in the paper; or that
        with a linear skip. Only the first can cut an edge without touching another.
    gates : {"weight", "edge", "unit"} or None, default=None
        What a gate of ``"l0"`` and ``"pathreg"`` multiplies; None is "edge" on per-target fields and "weight"
        elsewhere. "unit" is the published code's choice and cannot express a graph.
    hidden_layer_sizes : int, sequence of int or None, default=None
        Widths of the hidden layers; None is (16,) per target and (64, 64) for a network that all share.
    activation : {"tanh", "silu", "elu", "relu", "softplus"}, default="tanh"
        Elementwise nonlinearity; the default is bounded, so that forecasts far from the data stay tame.
    n_bilinear : int or "auto", default="auto"
        Products of two linear forms per target, beside the network: exact for quadratic laws (chemistry, fluids,
        ecology), and prone to run away outside the data elsewhere. With "auto" the refit tries every target of a
        per-target field with none and with four, on the same support, and keeps the four where held-out rows
        improve by more than two standard errors. A positive number needs ``field="per_target"``.
    order : {1, 2}, default=1
        2 fits d2q/dt2 = f(q, dq/dt, u, t); y holds positions.
    time_dependent : bool, default=False
        Whether f sees time; the graph then has a node "t".
    time_origin : {"zero", "input"}, default="zero"
        Which time: elapsed since x0, or counted from a start time in the first column after the states.
    initial_state : {"refine", "observed"}, default="refine"
        Whether training may correct the initial states, which carry the noise of observations, or takes them
        as exact. Predictions always start from what X says.
    initial_velocity : {"given", "inferred"}, default="given"
        For ``order=2``: X holds v0 after the initial positions, or v0 is learned from positions and inputs.
    method : str, default="rk4"
        Integration scheme: ``"rk4"`` is one batch of fixed steps, chosen by step halving; the others
        (``"dopri5"``, ``"implicit_adams"``, ...) are those of torchdiffeq, one trajectory at a time.
    training : {"staged", "trajectory"}, default="staged"
        See above.
    max_iter : int, default=2000
        Optimiser iterations over all stages.
    learning_rate : float, default=0.01
        Peak step of Adam, which falls along a cosine in every stage.
    weight_decay : float, default=1e-3
        Price of the sum of squared weights of each target, in units of its data loss. It keeps networks smooth
        where data are few.
    tol : float, default=1e-3
        Training has converged if over the last tenth of the pressed and refitted stages the loss changed by less
        than this share of the loss of the model that predicts no change.
    refit : bool, default=True
        Whether the support is refitted without penalty. False keeps the shrunken weights.
    device : str, default="auto"
        ``"cpu"``, ``"cuda"``, or ``"auto"``: CUDA where there is one. Resolved in ``fit``.
    dtype : {"float32", "float64"}, default="float32"
        Precision of training; smoothing and prediction always use float64.
    random_state : int, RandomState instance or None, default=None
        Seed of the initial weights.
    verbose : int, default=0
        1 logs a line per stage to the logger "skode".

    Attributes
    ----------
    dependency_matrix_ : ndarray of shape (d, d + m [+ 1])
        Row = target, column = source (states, inputs, time). RMS over the data of df_i/dx_j, in units of
        sd(x_j) / sd(dx_i/dt); exactly 0 where the fitted field has no path.
    dependency_scores_ : ndarray of the same shape
        A dense ranking of all pairs, for AUROC and AUPRC.
    alpha_max_ : float
        Strength from which on the graph is empty.
    history_ : dict
        Per stage of training: loss, number of edges, iterations, convergence and seconds.
    n_iter_ : int
        Optimiser iterations run.
    status_ : {"converged", "max_iter", "diverged"}
    state_names_, input_names_ : tuple of str
    n_states_, n_inputs_ : int
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Only where X has string column names.

    Examples
    --------
    >>> from skode import SparseNODERegressor, from_trajectories
    >>> from skode.datasets import make_lotka_volterra
    >>> system = make_lotka_volterra(n_trajectories=6, n_times=25, random_state=0)
    >>> X, y, groups = from_trajectories(system.states, system.times)
    >>> model = SparseNODERegressor(max_iter=400, tol=1, random_state=0).fit(X, y, groups=groups)
    >>> model.predict(X[:3]).shape
    (3, 2)
    >>> sorted(model.get_dependency_graph().nodes)
    ['x0', 'x1']

    References
    ----------
    "Sparsity in Continuous-Depth Neural Networks", 2022, arXiv 2210.14672.
    "Neural graphical modelling in continuous-time: consistency guarantees and algorithms", 2022, arXiv 2105.02522.
    """

    def __init__(
        self,
        penalty: str | AbstractPenalty | None = "group_lasso",
        alpha: float = 0.02,
        *,
        field: str = "per_target",
        gates: str | None = None,
        hidden_layer_sizes: int | Sequence[int] | None = None,
        activation: str = "tanh",
        n_bilinear: int | str = "auto",
        order: int = 1,
        time_dependent: bool = False,
        time_origin: str = "zero",
        initial_state: str = "refine",
        initial_velocity: str = "given",
        method: str = "rk4",
        training: str = "staged",
        max_iter: int = 2000,
        learning_rate: float = 0.01,
        weight_decay: float = 1e-3,
        tol: float = 1e-3,
        refit: bool = True,
        device: str = "auto",
        dtype: str = "float32",
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.penalty = penalty
        self.alpha = alpha
        self.field = field
        self.gates = gates
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.n_bilinear = n_bilinear
        self.order = order
        self.time_dependent = time_dependent
        self.time_origin = time_origin
        self.initial_state = initial_state
        self.initial_velocity = initial_velocity
        self.method = method
        self.training = training
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.tol = tol
        self.refit = refit
        self.device = device
        self.dtype = dtype
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: npt.ArrayLike | None = None,
        groups: npt.ArrayLike | None = None,
        steady_states: SteadyStates | None = None,
    ) -> Self:
        """Fit the field and its graph.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_rows, 1 + d + m), or (n_rows, 1)
            Questions: time, initial states, inputs. Build them with ``from_trajectories``.
        y : array-like or DataFrame of shape (n_rows, d) or (n_rows,)
            States at those times; NaN where a variable was not observed.
        sample_weight : array-like of shape (n_rows,), default=None
            Weights of rows; 2 counts as a row given twice, 0 as a row not given.
        groups : array-like of shape (n_rows,), default=None
            Rows of one group are never separated by the inner hold-out.
        steady_states : SteadyStates, default=None
            States of rest as extra evidence: f_i = 0 for every variable that was not clamped.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            For arguments or data that cannot work; the message says what must hold, what was given and what
            to do.

        Warns
        -----
        ConvergenceWarning
            If iterations ran out, or the fit diverged and the last finite weights were kept.
        """
        specification = specify(self.get_params(deep=False))
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
        specification.penalty.check(make_field(specification, layout.n_states, layout.n_inputs))
        x_names = [str(name) for name in getattr(self, "feature_names_in_", [])] or None
        check_names(x_names, y_names, layout)
        names = variable_names(x_names, y_names, layout, time_node=specification.time_dependent)
        steady = check_steady(steady_states, layout, time_dependent=specification.time_dependent)
        alignment = learn_alignment(X, y, layout, sample_weight=weights)
        X = alignment.apply(X)
        check_dynamics(X[weights > 0, 0])
        warn_backwards(X[weights > 0, 0])
        trajectories = as_trajectories(X, y, layout=layout, sample_weight=weights, groups=labels)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        batch = Batch.single(float(self.alpha), seed)
        (fitted,) = fit_batch(trajectories, specification, batch, steady)
        return self._keep(fitted, layout, alignment, names.states, names.inputs)

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

    def _keep(
        self,
        fitted: Fitted,
        layout: Layout,
        alignment: Alignment,
        state_names: tuple[str, ...],
        input_names: tuple[str, ...],
    ) -> Self:
        """Store the fitted state."""
        self._fitted, self._layout, self._alignment = fitted, layout, alignment
        self.state_names_, self.input_names_ = state_names, input_names
        self.n_states_, self.n_inputs_ = layout.n_states, layout.n_inputs
        self.dependency_matrix_ = fitted.matrix
        self.dependency_scores_ = fitted.scores
        self.alpha_max_ = fitted.alpha_max
        self.history_ = fitted.history
        self.n_iter_ = fitted.n_iter
        self.status_ = fitted.status
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
        return self

    def predict(self, X: Any, return_status: bool = False) -> Any:
        """Predict the states that rows ask for.

        Every row is answered as if it had been asked alone, on a time grid fixed in ``fit``. Predictions are
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
        device = resolve_device("auto" if self.device != "cpu" else "cpu")
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
            raise ValueError(
                f"t must hold some times; got shape {times.shape}. Pass the elapsed times to simulate to."
            )
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
            (the entry), ``effect`` (signed mean) and ``sign`` (+1, -1, or 0 where it changes over the data).
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
        )

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
