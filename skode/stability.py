"""How sure an edge is: the share of half-samples of the trajectories in which it is found."""

from __future__ import annotations

import numbers
import warnings
from dataclasses import replace
from typing import Any, NamedTuple, Self

import networkx as nx
import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, MetaEstimatorMixin, RegressorMixin, clone
from sklearn.utils import check_random_state
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted

from skode._base import AbstractNODERegressor, Reading
from skode._fit import Specification
from skode._folds import halves
from skode._steady import SteadyRows, SteadyStates
from skode._trajectories import Trajectories
from skode._typing import AnyArray, FloatArray
from skode.graph import build_graph

LARGEST_SEED = 2**31 - 1


class Dependencies(NamedTuple):
    """What one fit says of all pairs."""

    matrix: FloatArray  # (target, variable), 0 where there is no edge
    effect: FloatArray  # (target, variable)
    sign: AnyArray  # (target, variable) of int
    sound: bool  # whether training stayed finite


class StabilitySelection(MetaEstimatorMixin, RegressorMixin, BaseEstimator):
    """Keep the edges that are found again and again in half-samples of the trajectories.

    The estimator is fitted once to all data, for predictions, and to both halves of ``n_pairs`` random splits
    of the groups. An edge's confidence is the share of these fits that have it::

        confidence_ij = (1 / 2B) sum over b of [ j drives i in half A_b ] + [ j drives i in half A_b's complement ]

    Half-samples hold whole groups of trajectories; with fewer than four groups they hold blocks of time, each a
    trajectory of its own. They are drawn after rows have been put in canonical order, so that
    neither their order nor repeating a row instead of doubling its weight changes a draw. Every half starts from
    its own initial weights: an edge that comes and goes with the seed is not stable either.

    Parameters
    ----------
    estimator : SparseNODERegressor or SparseNODERegressorCV
        Not fitted and left as it is. With the former the choice of ``alpha`` sets how many edges a half may have;
        the latter chooses anew in every half, on folds of whole groups (or blocks) even if its ``cv`` is a splitter.
        If its ``random_state`` is None it gets one drawn from the one below.
    n_pairs : int, default=10
        Complementary pairs; the number of fits is twice this and one more.
    threshold : float, default=0.7
        Confidence from which on an edge is in the graph, above 0 and at most 1.
    random_state : int, RandomState instance or None, default=None
        Seed of the draws and of the initial weights.
    n_jobs : int or None, default=None
        Fits that run at a time, as in joblib.

    Attributes
    ----------
    confidence_ : ndarray of shape (d, d + m [+ 1])
        Row = target, column = source (states, inputs, time), as in ``dependency_matrix_``. The share of fits times
        ``identifiability_``: an edge that is found each time for want of an alternative in the data is not certain.
    identifiability_ : ndarray of the same shape
        How well the data tell an edge from its alternatives, as in ``SparseNODERegressor``.
    dependency_matrix_ : ndarray of the same shape
        Strength where confidence is at least the threshold, else 0. Strengths are those of the fit to all data, or
        the mean over the halves that have the edge where that fit has it not.
    dependency_scores_ : ndarray of the same shape
        Confidence, ties broken by the scores of the fit to all data.
    estimator_ : SparseNODERegressor or SparseNODERegressorCV
        Fitted to all data; answers ``predict``. Its own graph stays in its ``dependency_matrix_``.
    n_halves_ : int
        Fits that count; those that diverged do not, unless all did.
    state_names_, input_names_ : tuple of str
    n_states_, n_inputs_ : int
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Only where X has string column names.

    Examples
    --------
    >>> from skode import SparseNODERegressor, StabilitySelection, from_trajectories
    >>> from skode.datasets import make_dense_linear
    >>> system = make_dense_linear(n_variables=2, n_trajectories=8, n_times=12, random_state=0)
    >>> X, y, groups = from_trajectories(system.states, system.times)
    >>> base = SparseNODERegressor(max_iter=200, tol=1)
    >>> stable = StabilitySelection(base, n_pairs=2, random_state=0).fit(X, y, groups=groups)
    >>> stable.confidence_.shape, stable.n_halves_, stable.predict(X[:3]).shape
    ((2, 2), 4, (3, 2))

    References
    ----------
    "Stability selection", 2010, doi 10.1111/j.1467-9868.2010.00740.x.
    "Variable selection with error control: another look at stability selection", 2013,
    doi 10.1111/j.1467-9868.2011.01034.x (complementary pairs). Both draw observations; here the unit is
    the trajectory, or a block of time, since neighbouring observations are not independent.
    """

    def __init__(
        self,
        estimator: Any,
        *,
        n_pairs: int = 10,
        threshold: float = 0.7,
        random_state: Any = None,
        n_jobs: int | None = None,
    ) -> None:
        self.estimator = estimator
        self.n_pairs = n_pairs
        self.threshold = threshold
        self.random_state = random_state
        self.n_jobs = n_jobs

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: npt.ArrayLike | None = None,
        groups: npt.ArrayLike | None = None,
        steady_states: SteadyStates | None = None,
    ) -> Self:
        """Fit to all data and to every half.

        Parameters
        ----------
        X, y, sample_weight, groups, steady_states
            As in ``SparseNODERegressor.fit``. Half-samples never separate rows of one group; steady states are used
            in all of them.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            For arguments or data that cannot work.

        Warns
        -----
        UserWarning
            If the data cannot be halved; confidence then is over seeds alone.
        """
        self._check()
        random = check_random_state(self.random_state)
        base = clone(self.estimator)
        if base.random_state is None:
            base.set_params(random_state=random.randint(LARGEST_SEED))
        base.fit(X, y, sample_weight=sample_weight, groups=groups, steady_states=steady_states)
        reader = clone(base)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the fit above has said it all
            reading = reader._read(X, y, sample_weight, groups, steady_states)
        found = self._halves(reader, reading, random)
        self._keep(base, found)
        return self

    def _check(self) -> None:
        if not isinstance(self.estimator, AbstractNODERegressor):
            given = self.estimator
            raise TypeError(
                "estimator must be a SparseNODERegressor or a SparseNODERegressorCV; got "
                f"{f'the class {given.__name__}' if isinstance(given, type) else type(given).__name__}. "
                "Pass one of them; in a pipeline put StabilitySelection last."
            )
        if not isinstance(self.n_pairs, numbers.Integral) or isinstance(self.n_pairs, bool):
            raise TypeError(f"n_pairs must be an integer >= 1; got {self.n_pairs!r}. Pass an int.")
        if self.n_pairs < 1:
            raise ValueError(f"n_pairs must be an integer >= 1; got {self.n_pairs!r}. Use 10.")
        _check_confidence(self.threshold, "threshold")

    def _halves(self, reader: AbstractNODERegressor, reading: Reading, random: Any) -> list[Dependencies]:
        """Fit every half-sample."""
        pairs = halves(reading.trajectories, int(self.n_pairs), int(random.randint(LARGEST_SEED)))
        parts = [half for pair in pairs for half in pair]
        if not parts:
            warnings.warn(
                "Stability selection needs two groups, or a series of 8 rows, that can be halved; got less: "
                "confidence is over initial weights alone. Fit more or longer trajectories.",
                UserWarning,
                stacklevel=4,
            )
            parts = [reading.trajectories] * (2 * int(self.n_pairs))
        seeds = random.randint(LARGEST_SEED, size=len(parts))
        results: list[Dependencies] = Parallel(n_jobs=self.n_jobs)(
            delayed(_fit_half)(reader, reading.specification, part, reading.steady, int(seed))
            for part, seed in zip(parts, seeds, strict=True)
        )
        return [result for result in results if result.sound] or results

    def _keep(self, base: AbstractNODERegressor, found: list[Dependencies]) -> None:
        """Store what the halves agree on."""
        selected = np.stack([half.matrix > 0 for half in found])  # (half, target, variable)
        times = selected.sum(axis=0)
        share = np.maximum(times, 1)
        mine = base.dependency_matrix_ > 0
        fitted = base._fitted
        means = [np.stack([getattr(half, name) for half in found]).sum(axis=0) / share for name in ("matrix", "effect")]
        signs = np.stack([half.sign for half in found]).sum(axis=0)
        agreed = np.where(np.abs(signs) == times, np.sign(signs), 0)
        self.estimator_ = base
        self.n_halves_ = len(found)
        self.identifiability_ = base.identifiability_
        self.confidence_ = times / len(found) * base.identifiability_
        self._strength = np.where(mine, base.dependency_matrix_, means[0])
        self._effect = np.where(mine, fitted.effect, means[1])
        self._sign = np.where(mine, fitted.sign, agreed)
        self.dependency_matrix_ = np.where(self.confidence_ >= self.threshold, self._strength, 0.0)
        scores = base.dependency_scores_
        self.dependency_scores_ = self.confidence_ + 0.5 / len(found) * scores / max(float(scores.max()), 1e-300)
        self.state_names_, self.input_names_ = base.state_names_, base.input_names_
        self.n_states_, self.n_inputs_ = base.n_states_, base.n_inputs_
        self.n_features_in_ = base.n_features_in_
        if hasattr(base, "feature_names_in_"):
            self.feature_names_in_ = base.feature_names_in_

    def predict(self, X: Any, return_status: bool = False) -> Any:
        """Predict with the fit to all data, as ``SparseNODERegressor.predict`` does.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_rows, n_features_in_)
        return_status : bool, default=False
            Also return 0 for every sound row and 1 for every row that is held.

        Returns
        -------
        ndarray of shape (n_rows, d), or (n_rows,) if y had one axis; float64
        ndarray of int of shape (n_rows,), if ``return_status``
        """
        check_is_fitted(self)
        return self.estimator_.predict(X, return_status=return_status)

    def simulate(self, x0: npt.ArrayLike, t: npt.ArrayLike, inputs: npt.ArrayLike | None = None) -> FloatArray:
        """Simulate trajectories with the fit to all data, as ``SparseNODERegressor.simulate`` does.

        Parameters
        ----------
        x0 : array-like of shape (n_trajectories, d), (d,), or (n_trajectories, 2 d) with initial velocities
        t : array-like of shape (n_times,) or (n_trajectories, n_times)
        inputs : array-like of shape (n_trajectories, m) or (m,), default=None

        Returns
        -------
        ndarray of shape (n_trajectories, n_times, d)
        """
        check_is_fitted(self)
        return self.estimator_.simulate(x0, t, inputs)

    def score(self, X: Any, y: Any, sample_weight: npt.ArrayLike | None = None) -> float:
        """Return R2 of ``predict`` over the finite entries of y, averaged over variables.

        Parameters
        ----------
        X : array-like or DataFrame of shape (n_rows, n_features_in_)
        y : array-like or DataFrame of shape (n_rows, d) or (n_rows,)
        sample_weight : array-like of shape (n_rows,), default=None

        Returns
        -------
        float
        """
        check_is_fitted(self)
        return self.estimator_.score(X, y, sample_weight)

    def get_dependency_graph(
        self, threshold: float = 0.0, max_edges: int | None = None, *, confidence: float | None = None
    ) -> nx.DiGraph[str]:
        """Export the stable graph: an edge j -> i for every dependency of target i on source j.

        Parameters
        ----------
        threshold : float, default=0.0
            Keep edges of a strength (``weight``) above it.
        max_edges : int or None, default=None
            Keep at most so many, the strongest.
        confidence : float or None, default=None
            Keep edges of at least this confidence; None is the ``threshold`` of the constructor.

        Returns
        -------
        networkx.DiGraph
            As from ``SparseNODERegressor.get_dependency_graph``; edges also have ``confidence``.
        """
        check_is_fitted(self)
        level = self.threshold if confidence is None else _check_confidence(confidence, "confidence")
        names = [*self.state_names_, *self.input_names_]
        kinds = ["state"] * self.n_states_ + ["input"] * self.n_inputs_
        if len(names) < self.confidence_.shape[1]:
            names, kinds = [*names, "t"], [*kinds, "time"]
        return build_graph(
            np.where(self.confidence_ >= level, self._strength, 0.0),
            effect=self._effect,
            sign=self._sign,
            names=names,
            kinds=kinds,
            threshold=threshold,
            max_edges=max_edges,
            confidence=self.confidence_,
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        # As of the estimators inside: static regression tables are no flow.
        tags.regressor_tags.poor_score = True
        return tags


def _fit_half(
    estimator: AbstractNODERegressor,
    specification: Specification,
    trajectories: Trajectories,
    steady: SteadyRows | None,
    seed: int,
) -> Dependencies:
    """Fit one half-sample, for its edges alone: those of an additive field are there before networks are trained."""
    if specification.field == "additive":
        specification = replace(specification, max_iter=0)
    fitted = estimator._solve(specification, trajectories, steady, seed)
    return Dependencies(fitted.matrix, fitted.effect, fitted.sign, fitted.status != "diverged")


def _check_confidence(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number above 0 and at most 1; got {value!r}. Use 0.7.")
    if not 0 < float(value) <= 1:
        raise ValueError(f"{name} must be a number above 0 and at most 1; got {value!r}. Use 0.7.")
    return float(value)
