"""What the plain estimator gives at every strength, found in one batch."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from skode._batch import Batch
from skode._fit import fit_batch
from skode._steady import SteadyStates
from skode._strengths import strengths
from skode._typing import FloatArray
from skode.estimators import SparseNODERegressor
from skode.metrics import r2


class PathLevel(NamedTuple):
    """One strength of a path.

    Parameters
    ----------
    alpha : float
    dependency_matrix : ndarray of shape (d, d + m [+ 1])
    n_edges : int
    error : float
        1 - R2 of the predictions of the rows that were fitted.
    estimator : SparseNODERegressor
        Fitted, with this alpha.
    """

    alpha: float
    dependency_matrix: FloatArray
    n_edges: int
    error: float
    estimator: SparseNODERegressor


def regularization_path(
    X: Any,
    y: Any,
    *,
    alphas: npt.ArrayLike | None = None,
    n_alphas: int = 10,
    sample_weight: npt.ArrayLike | None = None,
    groups: npt.ArrayLike | None = None,
    steady_states: SteadyStates | None = None,
    estimator: SparseNODERegressor | None = None,
) -> list[PathLevel]:
    """Fit the estimator at every strength at once, side by side on the model axis.

    Level k is ``estimator.set_params(alpha=alphas[k]).fit(X, y)``: nothing is handed from level to level, so that a
    path explains what ``GridSearchCV`` over alpha sees. ``SparseNODERegressorCV`` chooses along a warm-started one.

    Parameters
    ----------
    X, y, sample_weight, groups, steady_states
        As in ``SparseNODERegressor.fit``.
    alphas : array-like of float or None, default=None
        Dimensionless strengths; None is ``n_alphas`` values from 1 to 0.005, evenly spaced in the logarithm.
    n_alphas : int, default=10
        Length of the default grid.
    estimator : SparseNODERegressor or None, default=None
        All other settings; left as it is. None is ``SparseNODERegressor(random_state=0)``.

    Returns
    -------
    list of PathLevel
        One per strength, the strongest first.

    Raises
    ------
    ValueError, TypeError
        For arguments or data that cannot work.

    Warns
    -----
    ConvergenceWarning
        Once, with the strengths at which training did not settle.

    Examples
    --------
    >>> from skode import SparseNODERegressor, from_trajectories, regularization_path
    >>> from skode.datasets import make_dense_linear
    >>> system = make_dense_linear(n_variables=3, n_trajectories=8, n_times=12, random_state=0)
    >>> X, y, groups = from_trajectories(system.states, system.times)
    >>> quick = SparseNODERegressor(max_iter=200, tol=1, random_state=0)
    >>> path = regularization_path(X, y, alphas=[100, 0.001], groups=groups, estimator=quick)
    >>> [level.n_edges for level in path]
    [0, 9]
    >>> path[1].error < path[0].error
    True

    References
    ----------
    "Regularization Paths for Generalized Linear Models via Coordinate Descent", 2010, doi 10.18637/jss.v033.i01
    (paths over a logarithmic grid; here levels run in parallel instead of one after another).
    """
    grid = strengths(alphas, n_alphas)
    if estimator is None:
        estimator = SparseNODERegressor(random_state=0)
    elif not isinstance(estimator, SparseNODERegressor):
        raise TypeError(
            f"estimator must be a SparseNODERegressor or None; got {type(estimator).__name__}. "
            "Pass SparseNODERegressor(...) with the settings to keep."
        )
    first = clone(estimator).set_params(alpha=float(grid[0]))
    reading = first._read(X, y, sample_weight, groups, steady_states)
    batch = Batch(grid, np.full(len(grid), reading.seed))
    models = fit_batch(reading.trajectories, reading.specification, batch, reading.steady)
    levels = []
    for alpha, fitted in zip(grid, models, strict=True):
        level = first._twin(fitted).set_params(alpha=float(alpha))
        error = 1.0 - r2(y, level.predict(X), sample_weight=sample_weight)
        levels.append(PathLevel(float(alpha), fitted.matrix, int((fitted.matrix > 0).sum()), float(error), level))
    unsettled = [f"{level.alpha:.3g}" for level in levels if level.estimator.status_ != "converged"]
    if unsettled:
        warnings.warn(
            f"Training should settle at every strength; got fits that did not at alpha = {', '.join(unsettled)}. "
            "Raise max_iter or tol of the estimator.",
            ConvergenceWarning,
            stacklevel=2,
        )
    return levels
