"""Choosing the strength and the support: the cross-validated estimator, and splits for trajectories."""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import check_cv

from skode._base import AbstractNODERegressor, Reading
from skode._compact import Level, expand
from skode._fit import Specification
from skode._fitted import Fitted
from skode._folds import Folds, has_dynamics, most_folds
from skode._forecast_split import ForecastSplit
from skode._parameters import specify
from skode._regularization_path import PathLevel, regularization_path
from skode._selection import Selected, select
from skode._steady import SteadyRows, SteadyStates
from skode._strengths import strengths
from skode._trajectories import Trajectories
from skode._typing import IntArray
from skode._validation import explained
from skode.penalties import AbstractPenalty
from skode.prior import PriorKnowledge
from skode.stability import StabilitySelection

__all__ = ["ForecastSplit", "PathLevel", "SparseNODERegressorCV", "StabilitySelection", "regularization_path"]

N_FOLDS = 4
"""Folds where the user asks for no number."""


class SparseNODERegressorCV(AbstractNODERegressor):
    """``SparseNODERegressor`` that chooses the support of every target by cross-validation over trajectories.

    One warm-started path over the strengths gives the candidate supports. On every fold each candidate is refitted
    without penalty under its frozen mask, and the held-out loss is kept per target. Every target then takes
    the smallest support that is as good as the best within one standard error, unless windows that are held out are
    forecast clearly better with that of the plain estimator's strength; and the combination is refitted on all data.
    Weak but true edges survive a choice by held-out loss where a threshold would cut them.

    Where no state or input goes below zero (genes, enzymes, populations), Hill's functions and their products may take
    the place of networks,

        F_i(z) = c_i + k_i z_i + sum over sets S of parents of w_iS prod_(j in S) h_ij,    h = a^n / (a^n + theta^n)

    with amounts a_j in units of what is usual of them, and n and theta for every edge. Sources are then searched
    through these curves, by the extended BIC, from the support that networks have and from none: regulators that act
    only together explain nothing alone.
    Curves are taken if on all folds forecasts of held-out windows are clearly better with them (1.64 standard errors),
    and ``history_`` has a stage "curves".

    Where no curves are taken, the law may be a polynomial of few terms, as in chemistry, ecology and mechanics,

        F_i(x) = sum over monomials m of c_im prod_(j in m) x_j,    of up to three factors.

    All monomials are fitted through the solver, beginning near the networks: those of all sources, or of the sources
    that a target reads where these would be more than 500 or a third of the data. Terms are chosen by the extended BIC
    among observations, with the starts of windows free, single sources before products, and about the mean of states
    that stay ten standard deviations from zero. The law is taken where held-out windows are as near to one of its
    solutions as to those of the networks: within a standard error, one nearer with products of three, and clearly
    nearer if more than half of all terms take part. ``history_`` then has a stage "law", and ``equations()`` writes it
    down. Beyond the box of the training data widened by half, products stand still.

    Both are offered with ``field="auto"``, ``n_bilinear="auto"``, ``selection="one_se"``, equations of order 1 without
    time, and no known signs or weights; laws without ``steady_states``, and curves also by the additive field.

    Parameters
    ----------
    penalty, field, gates, hidden_layer_sizes, activation, n_bilinear, order, time_dependent, time_origin, \
initial_state, initial_velocity, method, max_iter, learning_rate, weight_decay, tol, device, dtype, prior, \
random_state, verbose
        As in ``SparseNODERegressor``; the penalty must have exact zeros, and training is staged.
    alphas : array-like of float or None, default=None
        Strengths of the path; None is ``n_alphas`` values from 1 to 0.005, evenly spaced in the logarithm. Strengths
        are dimensionless, so one grid serves all data sets.
    n_alphas : int, default=10
        Length of the default grid.
    cv : int, splitter, iterable or None, default=None
        Folds. An integer (None is 4) means whole groups, or contiguous blocks of time where there are fewer
        groups than folds; a splitter or an iterable of (train, test) means rows, as in scikit-learn. An integer is
        lowered, with a warning, to what the data allow: a block has at least 4 rows. Where nothing can be
        split every target takes the strength nearest to 0.02, the plain estimator's default.
    selection : {"one_se", "best", "ebic"} or int, default="one_se"
        The smallest support within one standard error (of the paired differences to the best over folds) plus 2 %, or
        that of the level nearest to 0.02 where forecasts of held-out windows are better with a probability of .99;
        the support of least held-out loss; that of the least extended Bayesian information criterion, which needs no
        folds; or the level of the path with about so many edges. The additive field, for many variables, always takes
        "ebic" unless a number is given: folds are too dear there. Its further edges of sources that drive many other
        targets cost less, where sources differ beyond chance, and its sources are searched once more through curves, up
        to some 150 variables; not so if a number is given.

    Attributes
    ----------
    alpha_ : float
        The one strength of the path that would serve all targets best.
    alphas_ : ndarray of shape (n_alphas,)
        Strengths of the path, falling.
    target_alphas_ : ndarray of shape (d,)
        The strength whose support each target took; where curves or a law were taken, that from which
        their search began.
    path_ : list of mappings
        Per strength: ``alpha``, ``held_out_loss``, ``n_edges``, ``dependency_matrix``. A large matrix is kept without
        its zeros, and made anew whenever it is asked for.
    confidence_ : ndarray of shape (d, d + m [+ 1])
        How sure an edge is, in [0, 1]: the probability (of Student's t over runs of ten held-out intervals) that the
        held-out loss of its target rises when the edge is dropped and the others are refitted, times
        ``identifiability_``. 0 where there is no edge; at most 0.5 where nothing is held out, or targets share weights.
        Of a law an edge is dropped with all its terms, and every run of ten intervals that it was fitted to is left
        out in turn.
        For the additive field, 1 / (1 + exp(-rise / 32)) with the rise of the extended BIC without the edge, times the
        same: posterior odds, tempered because both models are wrong; 0.5 if a number of edges is asked for.
    cv_results_ : dict of ndarray
        In the form of scikit-learn's searches; scores are minus the held-out loss. ``fold_kind`` says whether
        folds were "groups", "blocks" or "rows", or "none" (then the scores are nan). With ``selection="ebic"`` scores
        are minus the criterion, summed over targets, and so is ``held_out_loss``.
    dependency_matrix_, dependency_scores_, identifiability_, alpha_max_, history_, n_iter_, status_, ...
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
    "Extended Bayesian information criteria for model selection with large model spaces", 2008,
    doi 10.1093/biomet/asn034.
    "Discovering governing equations from data by sparse identification of nonlinear dynamical systems", 2016, doi
    10.1073/pnas.1517384113 (sparse polynomial laws, from derivatives there, through the solver here).
    "A multiple shooting algorithm for direct solution of optimal control problems", 1984, doi
    10.1016/S1474-6670(17)61205-9 (windows with starts of their own).
    "Biologically informed NeuralODEs for genome-wide regulatory dynamics", 2024, doi 10.1186/s13059-024-03264-0 (sums
    and products of Hill's functions as a field).
    """

    def __init__(
        self,
        penalty: str | AbstractPenalty | None = "group_lasso",
        *,
        alphas: npt.ArrayLike | None = None,
        n_alphas: int = 10,
        cv: Any = None,
        selection: str | int = "one_se",
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
        max_iter: int = 1600,
        learning_rate: float = 0.01,
        weight_decay: float | str = "auto",
        tol: float = 1e-3,
        device: str = "auto",
        dtype: str = "float32",
        prior: PriorKnowledge | None = None,
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
        strengths(self.alphas, self.n_alphas), self._rule()  # refuse what is wrong before data are read
        n_folds = self._n_folds()
        reading = self._read(X, y, sample_weight, groups, steady_states)
        if n_folds is None:
            folds = self._row_folds(reading, X, y, groups)
        else:
            folds = most_folds(reading.trajectories, n_folds)
            self._tell(folds, n_folds)
        selected = self._select(reading.specification, reading.trajectories, reading.steady, reading.seed, folds)
        self._report(selected)
        self._keep(selected.fitted, reading)
        confidence = self._confidence()
        self.confidence_ = np.where(self.dependency_matrix_ > 0, 0.5, 0.0) if confidence is None else confidence
        return self

    def _solve(
        self, specification: Specification, trajectories: Trajectories, steady: SteadyRows | None, seed: int
    ) -> Fitted:
        folds = most_folds(trajectories, self._n_folds() or N_FOLDS)
        return self._select(specification, trajectories, steady, seed, folds, confident=False).fitted

    def _select(
        self,
        specification: Specification,
        trajectories: Trajectories,
        steady: SteadyRows | None,
        seed: int,
        folds: Folds,
        *,
        confident: bool = True,
    ) -> Selected:
        if not specification.penalty.exact_zeros:
            raise ValueError(
                "penalty must have exact zeros for supports to be compared; got "
                f"penalty={specification.penalty.name!r}. Use 'group_lasso', 'lassonet', 'l0' or 'pathreg'."
            )
        if specification.field == "additive":
            folds = folds._replace(parts=[])  # copies of the data that nothing reads
        return select(
            trajectories,
            specification,
            alphas=strengths(self.alphas, self.n_alphas),
            folds=folds,
            selection=self._rule(),
            seed=seed,
            steady=steady,
            confident=confident,
        )

    def _specify(self) -> Specification:
        own = {name: value for name, value in self.get_params(deep=False).items() if name in _SHARED}
        return specify({**own, "alpha": 0.0, "training": "staged", "refit": True})

    def _rule(self) -> str | int:
        rule = self.selection
        if isinstance(rule, numbers.Integral) and not isinstance(rule, bool) and rule >= 0:
            return int(rule)
        if isinstance(rule, str) and rule in ("one_se", "best", "ebic"):
            return rule
        raise ValueError(
            f"selection must be 'one_se', 'best', 'ebic' or a number of edges >= 0; got {rule!r}. Use 'one_se'."
        )

    def _n_folds(self) -> int | None:
        """The number of folds that is asked for; None where a splitter says which rows."""
        if self.cv is None:
            return N_FOLDS
        if isinstance(self.cv, numbers.Real):
            if isinstance(self.cv, bool) or not isinstance(self.cv, numbers.Integral) or self.cv < 2:
                raise ValueError(f"cv must be at least 2 folds, a splitter or None; got {self.cv!r}. Use 4.")
            return int(self.cv)
        return None

    def _tell(self, folds: Folds, asked: int) -> None:
        """Warn where there are fewer folds than a user asked for, or none."""
        if not folds.parts:
            held = "Choosing by cross-validation needs two groups, or a series of 8 rows; got less"
            done = "the support at the strength nearest to 0.02 was taken. Fit more or longer trajectories."
        elif self.cv is not None and len(folds.parts) < asked:
            held = f"The data should allow cv={asked} folds; got enough for {len(folds.parts)}"
            done = "these were used. Lower cv, or fit more or longer trajectories."
        else:
            return
        warnings.warn(f"{held}: {done}", UserWarning, stacklevel=3)

    def _row_folds(self, reading: Reading, X: Any, y: Any, groups: Any) -> Folds:
        """Tie the rows that a splitter chose."""
        remedy = "Use an integer for folds of whole groups, or one of scikit-learn's splitters."
        with explained("cv must be an integer, a splitter, or an iterable of (train, test) with row numbers", remedy):
            splits = list(check_cv(self.cv).split(X, y, groups))
            parts = [tuple(reading.tie(_row_numbers(rows, len(X))) for rows in split) for split in splits]
            if not parts or not all(len(part) == 2 and all(map(has_dynamics, part)) for part in parts):
                raise ValueError("no split, or one of which a part has no row with t > 0")
        return Folds([(train, test) for train, test in parts], "rows")

    def _report(self, selected: Selected) -> None:
        """Store the path and the results of cross-validation."""
        loss = selected.losses.sum(axis=-1)  # (fold, level)
        mean = -loss.mean(axis=0) if len(loss) else np.full(loss.shape[1], np.nan)
        self.alphas_ = selected.alphas
        self.alpha_ = float(selected.alphas[selected.best_level])
        self.target_alphas_ = selected.alphas[selected.level]
        self.cv_results_ = {
            "param_alpha": selected.alphas,
            "params": [{"alpha": float(alpha)} for alpha in selected.alphas],
            **{f"split{k}_test_score": -fold for k, fold in enumerate(loss)},
            "mean_test_score": mean,
            "std_test_score": loss.std(axis=0) if len(loss) else mean,
            "rank_test_score": (mean[None, :] > mean[:, None]).sum(axis=1).astype(np.int32) + 1,
            "fold_kind": np.full(len(mean), selected.fold_kind),
        }
        self.path_ = [
            Level(
                {
                    "alpha": float(alpha),
                    "held_out_loss": float(-score),
                    "n_edges": int((expand(matrix) > 0).sum()),
                    "dependency_matrix": matrix,
                }
            )
            for alpha, score, matrix in zip(selected.alphas, mean, selected.matrices, strict=True)
        ]


_SHARED = (
    "penalty field gates hidden_layer_sizes activation n_bilinear order time_dependent time_origin initial_state "
    "initial_velocity method max_iter learning_rate weight_decay tol device dtype prior random_state verbose"
).split()
"""Constructor arguments that mean what they mean in ``SparseNODERegressor``."""


def _row_numbers(rows: Any, n_rows: int) -> IntArray:
    """Numbers of the rows that a splitter chose, given as numbers or as a mask."""
    try:
        chosen: IntArray = np.arange(n_rows)[np.asarray(rows)]
    except IndexError as error:
        raise ValueError(str(error)) from error
    return chosen
