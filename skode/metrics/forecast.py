"""Forecast errors that know about missing values: NaN in ``y_true`` is an entry that was not observed.

Every figure is formed per variable over its observed rows and then averaged over variables with equal weight,
so that a variable with many missing values counts as much as any other. Inf in ``y_pred`` (a baseline that
blew up) is an infinite error; NaN in ``y_pred`` is refused, because leaving it out would reward a model for
not answering.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from skode.metrics._observed import (
    centred,
    mean_over_variables,
    normalised_mse,
    observe,
    one_per_variable,
    root_normalised_mse,
    scale_of,
    squared_error,
    two_axes,
)


def mse(y_true: ArrayLike, y_pred: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
    """Mean squared error over the observed entries, averaged over variables.

    Parameters
    ----------
    y_true : array-like of shape (n_rows, d) or (n_rows,)
        Observed states; NaN where a variable was not observed.
    y_pred : array-like of the same shape
        Predicted states, without NaN.
    sample_weight : array-like of shape (n_rows,), default=None
        Weights of the rows; None weights them equally.

    Returns
    -------
    float
        In squared units of the states; ``nan`` where nothing was observed.

    Raises
    ------
    ValueError
        If shapes differ, ``y_pred`` holds NaN, ``y_true`` holds inf, or weights are negative.

    Examples
    --------
    >>> import numpy as np
    >>> from skode.metrics import mse
    >>> mse([[1.0, np.nan], [2.0, 5.0]], [[1.0, 0.0], [4.0, 4.0]])
    1.5
    """
    return mean_over_variables(squared_error(observe(y_true, y_pred, sample_weight)))


def r2(y_true: ArrayLike, y_pred: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
    """Coefficient of determination over the observed entries, averaged over variables.

    Per variable 1 - sum w (y - p)^2 / sum w (y - mean y)^2; where y does not vary, 1 for a perfect answer and
    0 for any other. Equal to scikit-learn's ``r2_score`` (``multioutput="uniform_average"``) where nothing is
    missing. Variables with fewer than two observations are left out; ``nan`` where that leaves none.
    Parameters and errors as in :func:`mse`.

    Examples
    --------
    >>> import numpy as np
    >>> from skode.metrics import r2
    >>> r2([1.0, 2.0, np.nan, 3.0], [1.0, 2.0, 9.0, 2.0])
    0.5
    """
    data = observe(y_true, y_pred, sample_weight)
    residual = np.sum(data.weights * data.errors**2, axis=0)
    spread = np.sum(data.weights * centred(data) ** 2, axis=0)
    score = np.where(residual > 0, 0.0, 1.0)
    varies = spread > 0
    score[varies] = 1.0 - residual[varies] / spread[varies]
    score[np.count_nonzero(data.weights, axis=0) < 2] = np.nan
    return mean_over_variables(score)


def nrmse(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    scale: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Root mean squared error in units of each variable's standard deviation.

    sqrt( mean over variables j of  mean (y_j - p_j)^2 / sd_j^2 ); 0 is perfect, 1 is as good as the mean of
    the test data. With complete data and the default scale it equals sqrt(1 - R2). Variables that never move
    have no scale and are left out; ``nan`` where none moves.

    Parameters
    ----------
    y_true, y_pred, sample_weight
        As in :func:`mse`.
    scale : array-like of shape (d,) or scalar, in units of the states, default=None
        Standard deviations to divide by, for example those of the training states; None takes those of
        ``y_true``.

    Returns
    -------
    float
        Dimensionless.

    Examples
    --------
    >>> from skode.metrics import nrmse
    >>> nrmse([1.0, 3.0], [1.0, 1.0], scale=2.0)
    0.7071067811865476
    """
    data = observe(y_true, y_pred, sample_weight)
    return root_normalised_mse(data, scale_of(data, scale))


def skill(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    y_baseline: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Skill against another forecast: the share of its normalised squared error that the model removes.

    1 - NRMSE(model)^2 / NRMSE(baseline)^2: 1 is perfect, 0 is no better than the baseline, below 0 is worse.
    Against a perfect baseline it is 0 for a perfect model and -inf for any other.

    Parameters
    ----------
    y_true, y_pred, sample_weight
        As in :func:`mse`.
    y_baseline : array-like of the shape of ``y_true``
        The other forecast.

    References
    ----------
    Murphy, "Skill scores based on the mean square error and their relationships to the correlation
    coefficient", 1988, doi:10.1175/1520-0493(1988)116<2417:SSBOTM>2.0.CO;2.

    Examples
    --------
    >>> from skode.metrics import skill
    >>> skill([1.0, 2.0], [1.0, 1.5], [1.0, 1.0])
    0.75
    """
    answered = observe(y_true, y_pred, sample_weight)
    scale = scale_of(answered, None)
    model = normalised_mse(answered, scale)
    baseline = normalised_mse(observe(y_true, y_baseline, sample_weight), scale)
    if baseline == 0:
        return 0.0 if model == 0 else float("-inf")
    return float(1.0 - model / baseline)


def persistence_skill(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    initial: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Skill against persistence, the forecast that the system stays where it started.

    Parameters
    ----------
    y_true, y_pred, sample_weight
        As in :func:`mse`.
    initial : array-like of the shape of ``y_true``
        Initial state x0 of every row, columns 1 to d of X.

    Examples
    --------
    >>> from skode.metrics import persistence_skill
    >>> persistence_skill([1.0, 2.0], [1.0, 2.0], initial=[0.0, 0.0])
    1.0
    """
    return skill(y_true, y_pred, initial, sample_weight=sample_weight)


def mean_skill(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    training_mean: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Skill against the mean of the training states, the forecast that knows nothing of time or start.

    Parameters
    ----------
    y_true, y_pred, sample_weight
        As in :func:`mse`.
    training_mean : array-like of shape (d,) or scalar, in units of the states
        Mean of each variable over the training rows.

    Examples
    --------
    >>> from skode.metrics import mean_skill
    >>> mean_skill([1.0, 3.0], [2.0, 3.0], training_mean=2.0)
    0.5
    """
    shape = two_axes(y_true, "y_true").shape
    mean = one_per_variable(training_mean, shape[1], "training_mean")
    return skill(y_true, y_pred, np.broadcast_to(mean, shape), sample_weight=sample_weight)
