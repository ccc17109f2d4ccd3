"""Choosing the strength and the support: the cross-validated estimator, and splits for trajectories."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import check_cv

from skode._base import AbstractNODERegressor, Reading
from skode._fit import Specification
from skode._folds import Folds, make_folds
from skode._forecast_split import ForecastSplit
from skode._parameters import specify
from skode._selection import Selected, select
from skode._steady import SteadyStates
from skode._typing import FloatArray
from skode.penalties import AbstractPenalty

__all__ = ["ForecastSplit", "SparseNODERegressorCV"]

STRONGEST, WEAKEST = 0.4, 0.005
"""Ends of the default grid: hardly any edge survives the first, hardly any is removed by the second."""


class SparseNODERegressorCV(AbstractNODERegressor):
    """``SparseNODERegressor`` that chooses the support of every target by cross-validation over trajectories.

    One warm-started path over the strengths gives the candidate supports. On every fold each candidate is refitted
    without penalty under its frozen mask, and the held-out loss is kept per target. Every target then takes
    the smallest support that is as good as the best within one standard error, and the combination is refitted on all
    data. Weak but true edges survive a choice by held-out loss where a threshold would cut them.

    Parameters
    ----------
    penalty, field, gates, hidden_layer_sizes, activation, n_bilinear, order, time_dependent, time_origin, \
initial_state, initial_velocity, method, max_iter, learning_rate, weight_decay, tol, device, dtype, random_state, verbose
        As in ``SparseNODERegressor``; the penalty must have exact zeros, and training is staged.
    alphas : array-like of float or None, default=None
        Strengths of the path; None is ``n_alphas`` values from 0.4 to 0.005, evenly spaced in the logarithm. Strengths
        are dimensionless, so one grid serves all data sets.
    n_alphas : int, default=10
        Length of the default grid.
    cv : int, splitter, iterable or None, default=None
        Folds. An integer (None is 4) means whole groups, or contiguous blocks of time where there are fewer
        groups than folds; a splitter or an iterable of (train, test) means rows, as in scikit-learn.
    selection : {"one_se", "best"} or int, default="one_se"
        The smallest support within one standard error (of the paired differences to the best over folds) plus 2 %;
        the support of least held-out loss; or the level of the path with about so many edges.

    Attributes
    ----------
    alpha_ : float
        The one strength of the path that would serve all targets best.
    alphas_ : ndarray of shape (n_alphas,)
        Strengths of the path, falling.
    target_alphas_ : ndarray of shape (d,)
        The strength whose support each target took.
    path_ : list of dict
        Per strength: ``alpha``, ``held_out_loss``, ``n_edges``, ``dependency_matrix``.
    cv_results_ : dict of ndarray
        In the form of scikit-learn's searches; scores are minus the held-out loss. ``fold_kind`` says whether
        folds were "groups", "blocks" or "rows".
    dependency_matrix_, dependency_scores_, alpha_max_, history_, n_iter_, status_, ...
        As in ``SparseNODERegressor``.

    Examples
    --------
    >>> from skode import SparseNODERegressorCV, from_trajectories
    >>> from skode.datasets import make_dense_linear
    >>> system = make_dense_linear(n_variables=3, n_trajectories=8, n_times=12, random_state=0)
    >>> X, y, groups = from_trajectories(system.states, system.times)
    >>> model = SparseNODERegressorCV(n_alphas=3, max_iter=300, tol=1, random_state=0).fit(X, y, groups=groups)
    >>> len(model.path_), model.predict(X[:2]).shape
    (3, (2, 3))

    References
    ----------
    "The Adaptive Lasso and Its Oracle Properties", 2006, doi 10.1198/016214506000000735 (the two stages).
    "The Elements of Statistical Learning", 2009, section 7.10 (the one-standard-error rule).
    """

    def __init__(
        self,
        penalty: str | AbstractPenalty | None = "group_lasso",
        *,
        alphas: npt.ArrayLike | None = None,
        n_alphas: int = 10,
        cv: Any = None,
        selection: str | int = "one_se",
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
        max_iter: int = 2000,
        learning_rate: float = 0.01,
        weight_decay: float = 1e-3,
        tol: float = 1e-3,
        device: str = "auto",
        dtype: str = "float32",
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.penalty = penalty
        self.alphas = alphas
        self.n_alphas = n_alphas
        self.cv = cv
        self.selection = selection
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
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.tol = tol
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
        """Run the path, choose by cross-validation, refit.

        Parameters
        ----------
        X, y, sample_weight, groups, steady_states
            As in ``SparseNODERegressor.fit``. Groups are never separated by a fold; steady states are used in all.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            For arguments or data that cannot work.
        """
        alphas = self._grid()
        reading = self._read(X, y, sample_weight, groups, steady_states)
        if not reading.specification.penalty.exact_zeros:
            raise ValueError(
                "penalty must have exact zeros for supports to be compared; got "
                f"penalty={reading.specification.penalty.name!r}. Use 'group_lasso', 'lassonet', 'l0' or 'pathreg'."
            )
        selected = select(
            reading.trajectories,
            reading.specification,
            alphas=alphas,
            folds=self._folds(reading, X, y, groups),
            selection=self._rule(),
            seed=reading.seed,
            steady=reading.steady,
        )
        self._report(selected)
        return self._keep(selected.fitted)

    def _specify(self) -> Specification:
        own = {name: value for name, value in self.get_params(deep=False).items() if name in _SHARED}
        return specify({**own, "alpha": 0.0, "training": "staged", "refit": True})

    def _grid(self) -> FloatArray:
        if self.alphas is None:
            if not isinstance(self.n_alphas, numbers.Integral) or self.n_alphas < 2:
                raise ValueError(f"n_alphas must be an integer >= 2; got {self.n_alphas!r}. Use 10, or give alphas.")
            return np.geomspace(STRONGEST, WEAKEST, int(self.n_alphas))
        alphas = np.unique(np.asarray(self.alphas, dtype=np.float64))[::-1]
        if alphas.ndim != 1 or len(alphas) < 2 or not (np.isfinite(alphas) & (alphas >= 0)).all():
            raise ValueError(
                f"alphas must hold at least two different finite numbers >= 0; got {self.alphas!r}. "
                "Leave alphas at None for the default grid."
            )
        return alphas

    def _rule(self) -> str | int:
        rule = self.selection
        if isinstance(rule, numbers.Integral) and not isinstance(rule, bool) and rule >= 0:
            return int(rule)
        if isinstance(rule, str) and rule in ("one_se", "best"):
            return rule
        raise ValueError(f"selection must be 'one_se', 'best' or a number of edges >= 0; got {rule!r}. Use 'one_se'.")

    def _folds(self, reading: Reading, X: Any, y: Any, groups: Any) -> Folds:
        if self.cv is None or (isinstance(self.cv, numbers.Integral) and not isinstance(self.cv, bool)):
            n_folds = 4 if self.cv is None else int(self.cv)
            if n_folds < 2:
                raise ValueError(f"cv must be at least 2 folds; got {self.cv!r}. Use 4.")
            return make_folds(reading.trajectories, n_folds)
        parts = [
            (reading.tie(np.asarray(train)), reading.tie(np.asarray(test)))
            for train, test in check_cv(self.cv).split(X, y, groups)
        ]
        return Folds(parts, "rows")

    def _report(self, selected: Selected) -> None:
        """Store the path and the results of cross-validation."""
        loss = selected.losses.sum(axis=-1)  # (fold, level)
        mean = -loss.mean(axis=0)
        self.alphas_ = selected.alphas
        self.alpha_ = float(selected.alphas[selected.best_level])
        self.target_alphas_ = selected.alphas[selected.level]
        self.cv_results_ = {
            "param_alpha": selected.alphas,
            "params": [{"alpha": float(alpha)} for alpha in selected.alphas],
            **{f"split{k}_test_score": -fold for k, fold in enumerate(loss)},
            "mean_test_score": mean,
            "std_test_score": loss.std(axis=0),
            "rank_test_score": (mean[None, :] > mean[:, None]).sum(axis=1) + 1,
            "fold_kind": np.full(len(mean), selected.fold_kind),
        }
        self.path_ = [
            {
                "alpha": float(alpha),
                "held_out_loss": float(-score),
                "n_edges": int((model.matrix > 0).sum()),
                "dependency_matrix": model.matrix,
            }
            for alpha, score, model in zip(selected.alphas, mean, selected.path, strict=True)
        ]


_SHARED = (
    "penalty field gates hidden_layer_sizes activation n_bilinear order time_dependent time_origin initial_state "
    "initial_velocity method max_iter learning_rate weight_decay tol device dtype random_state verbose"
).split()
"""Constructor arguments that mean what they mean in ``SparseNODERegressor``."""
