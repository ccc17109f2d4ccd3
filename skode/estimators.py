"""The estimator: a thin shell over ``fit_batch``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy.typing as npt

from skode._base import AbstractNODERegressor
from skode._batch import Batch
from skode._fit import Specification, fit_batch
from skode._fitted import Fitted
from skode._parameters import specify
from skode._steady import SteadyRows, SteadyStates
from skode._trajectories import Trajectories
from skode.penalties import AbstractPenalty
from skode.prior import PriorKnowledge


class SparseNODERegressor(AbstractNODERegressor):
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
    field : {"auto", "per_target", "additive", "shared", "residual"}, default="auto"
        Right-hand side: one small network per target; one network for all targets as in the paper (``"shared"``);
        or that with a linear skip (``"residual"``). Only networks per target can cut an edge without touching
        another. ``"additive"`` is for hundreds to thousands of variables: the sources of every target are selected
        as if each acted by itself, by convex problems along paths that a shared decay bridges between observations,
        and only they enter the target's equation: lines, a network, or Hill's functions and their products where no
        source goes below zero, whichever forecasts held-out windows. It is fitted by least squares in float64:
        ``learning_rate``, ``dtype`` and ``initial_state`` play no part. Where forecasts of the training data run
        away, what other variables do to a target is weakened, all alike (stage "calm" of ``history_``). "auto" is
        ``"additive"`` from 64 sources on, where the other settings allow it, and ``"per_target"`` below.
    gates : {"weight", "edge", "unit"} or None, default=None
        What a gate of ``"l0"`` and ``"pathreg"`` multiplies; None is "edge" on per-target fields and "weight"
        elsewhere. "unit" is the published code's choice and cannot express a graph.
    hidden_layer_sizes : int, sequence of int or None, default=None
        Widths of the hidden layers; None is (16,) per target, (8,) for additive fields, and (64, 64) for a
        network that all share.
    activation : {"tanh", "silu", "elu", "relu", "softplus"}, default="tanh"
        Elementwise nonlinearity; the default is bounded, so that forecasts far from the data stay tame.
    n_bilinear : int or "auto", default="auto"
        Products of two linear forms per target, beside the network: exact for quadratic laws (chemistry, fluids,
        ecology). Outside the data they would run away: in a fitted per-target field they read states as far as
        the training box widened by half, and its edge beyond. With "auto" the refit of a per-target field
        tries none and four, on the same support, and keeps the four if forecasts of held-out windows improve by more
        than 1.64 standard errors; where they improve by less, ``SparseNODERegressorCV`` asks the folds. A positive
        number needs ``field="per_target"``.
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
    max_iter : int, default=1600
        Optimiser iterations over all stages.
    learning_rate : float, default=0.01
        Peak step of Adam, which falls along a cosine in every stage.
    weight_decay : float or "auto", default="auto"
        Price of the sum of squared weights of each target, in units of its data loss. It keeps networks smooth
        where data are few or noisy. "auto" is 1e-3 until the support is known; the last stage of a per-target field
        then takes the price at which noise and weights explain each target best (its evidence).
    tol : float, default=1e-3
        Training has converged if over the last tenth of the pressed and refitted stages the loss changed by less
        than this share of the loss of the model that predicts no change.
    refit : bool, default=True
        Whether the support is refitted without penalty. False keeps the shrunken weights.
    device : str, default="auto"
        ``"cpu"``, ``"cuda"``, or ``"auto"``: CUDA where there is one. Resolved in ``fit``.
    dtype : {"float32", "float64"}, default="float32"
        Precision of training; smoothing and prediction always use float64.
    prior : PriorKnowledge or None, default=None
        What is known of edges beforehand: allowed, forbidden, required, more or less likely, and their signs. It
        holds in every stage of training, and takes ``field="per_target"``.
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
    identifiability_ : ndarray of the same shape
        How well the data tell an edge from its alternatives, in [0, 1]: 1 where the source moves by itself, 0 where
        the other sources determine it along the data, or it never moves. With u_j the share of source j that the
        others cannot predict in trajectories left out, it is min(1, u_j / (2 c_j)), where c_j = 0.005 plus twice the
        share of noise (at most 0.01), halved along a closed curve; 0 for targets that never move.
    alpha_max_ : float
        Strength from which on the graph is empty, free edges of a prior aside.
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
        field: str = "auto",
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
        max_iter: int = 1600,
        learning_rate: float = 0.01,
        weight_decay: float | str = "auto",
        tol: float = 1e-3,
        refit: bool = True,
        device: str = "auto",
        dtype: str = "float32",
        prior: PriorKnowledge | None = None,
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
        self.prior = prior
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
        DivergedPredictionWarning
            If forecasts of the training data leave its range, after training on longer windows too.
        IdentifiabilityWarning
            Once, with the reasons, where the data cannot tell edges apart.
        """
        reading = self._read(X, y, sample_weight, groups, steady_states)
        fitted = self._solve(reading.specification, reading.trajectories, reading.steady, reading.seed)
        return self._keep(fitted, reading)

    def _solve(
        self, specification: Specification, trajectories: Trajectories, steady: SteadyRows | None, seed: int
    ) -> Fitted:
        return fit_batch(trajectories, specification, Batch.single(float(self.alpha), seed), steady)[0]

    def _specify(self) -> Specification:
        return specify(self.get_params(deep=False))
