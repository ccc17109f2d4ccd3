"""Undo what a scaler in front of the estimator did to t and x0, where the data say exactly what it was."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from skode._layout import Layout
from skode._trajectories import same_state
from skode._typing import FloatArray

EXACT = 1e-6
"""Largest residual of a learned map, in standard deviations of the state."""
FINGERPRINT = 1e-4
"""How near to mean 0 and sd 1 a column is that a scaler has centred."""
REMEDY = (
    "Fit without the scaler (the estimator standardises by itself), or keep a row with t = 0 and y = x0 "
    "for every trajectory, as from_trajectories writes them."
)


@dataclass(frozen=True, eq=False)
class Alignment:
    """The affine map from what X says to elapsed time and states in the units of y.

    t becomes ``t - time_origin`` and x0 becomes ``scale * x0 + shift``. The unit of time stays that of X.

    Parameters
    ----------
    time_origin : float
        Value of X's first column at which the state is x0.
    scale, shift : ndarray of shape (d,), or (0,) when X is time only
        Slope and offset per state variable.
    """

    time_origin: float
    scale: FloatArray
    shift: FloatArray

    @classmethod
    def identity(cls, layout: Layout) -> Alignment:
        """Make the alignment that changes nothing."""
        d = 0 if layout.time_only else layout.n_states
        return cls(0.0, np.ones(d), np.zeros(d))

    @property
    def is_identity(self) -> bool:
        """Whether X is left as it is."""
        return self.time_origin == 0 and bool((self.scale == 1).all()) and bool((self.shift == 0).all())

    def apply(self, X: FloatArray) -> FloatArray:
        """Return X with aligned times and initial states; X itself is not changed.

        Parameters
        ----------
        X : ndarray of shape (n_rows, n_columns)

        Returns
        -------
        ndarray of shape (n_rows, n_columns)
        """
        if self.is_identity:
            return X
        aligned = X.copy()
        aligned[:, 0] -= self.time_origin
        states = slice(1, 1 + len(self.scale))
        aligned[:, states] = self.scale * aligned[:, states] + self.shift
        return aligned


class _Signs(NamedTuple):
    """What looks scaled."""

    possible: bool  # something does: worth trying to learn the map
    in_x: bool  # X does while y does not
    in_y: bool  # y does while X does not


def learn_alignment(
    X: FloatArray, y: FloatArray, layout: Layout, *, sample_weight: FloatArray | None = None
) -> Alignment:
    """Find the origin of time, and the map from x0 to states from the rows that tie at the smallest t.

    - X is time only: the origin is the smallest t.
    - Some row has t = 0 and y = x0 (not 0), or neither X nor y looks scaled and no t is 0: identity.
    - At the smallest t, ``y_i = a_i x0_i + b_i`` with a_i > 0 holds to 1e-6 standard deviations for every
      variable (two distinct values each, three if nothing looks scaled; a_i = 1 for a column that is
      constant in X), and some rows have larger t: that map, with the smallest t as the origin.
    - Otherwise: identity, with a warning that names the remedy.

    X looks scaled when t has mean 0 and sd 1, when about half of t is negative, or when every x0 column that
    varies has mean 0 and sd 1, or largest absolute value 1, while y has not. y looks scaled when its columns
    have mean 0 and sd 1, as TransformedTargetRegressor makes them, while those of x0 have not. Where both
    do the map is tried, but nothing is said when it does not hold.

    Parameters
    ----------
    X : ndarray of shape (n_rows, layout.n_columns)
        Finite.
    y : ndarray of shape (n_rows, d)
        NaN where not observed.
    layout : Layout
        Meaning of the columns of X.
    sample_weight : ndarray of shape (n_rows,), default=None
        Rows of weight zero are used only to recognise a scaler, which may have seen them.

    Returns
    -------
    Alignment

    Raises
    ------
    ValueError
        If X looks scaled and t is constant: the scaler has destroyed the elapsed time.

    Warns
    -----
    UserWarning
        If X looks scaled and the map cannot be learned, or X has velocities or start times, which rows that
        tie say nothing about.

    Examples
    --------
    >>> import numpy as np
    >>> t, x0 = np.array([0.0, 0.0, 1.0, 1.0]), np.array([2.0, 6.0, 2.0, 6.0])
    >>> y = np.where(t == 0, x0, 3.0)[:, None]
    >>> X = np.column_stack([t, x0])
    >>> scaled = (X - X.mean(axis=0)) / X.std(axis=0)
    >>> alignment = learn_alignment(scaled, y, Layout.infer(2, 1))
    >>> alignment.time_origin, alignment.scale, alignment.shift
    (-1.0, array([2.]), array([4.]))
    >>> alignment.apply(scaled)[:, 1]
    array([2., 6., 2., 6.])
    """
    used = np.isfinite(y).any(axis=1)
    if sample_weight is not None:
        used &= sample_weight > 0
    rows, targets = X[used], y[used]
    identity = Alignment.identity(layout)
    if not len(rows):
        return identity
    t = rows[:, 0]
    if layout.time_only:
        return Alignment(float(t.min()), identity.scale, identity.shift)
    # an anchor at the origin of the states says nothing: MaxAbsScaler leaves it where it is
    moved = (t == 0) & rows[:, layout.initial].any(axis=1)
    if moved.any() and same_state(rows[:, layout.initial], targets)[moved].any():
        return identity
    signs = _signs(X, y, layout, sample_weight)
    if not (signs.possible or t.min() == 0):
        return identity
    # two points fit any line: without a scaler's marks a third must agree
    learned = _from_ties(rows, targets, layout, n_distinct=2 if signs.possible else 3)
    if learned is not None:
        if signs.in_x:
            _warn_about_the_rest(layout)
        return learned
    if not (signs.in_x or signs.in_y):
        return identity
    if signs.in_x and len(t) > 1 and np.ptp(t) == 0:
        raise ValueError(
            f"t, the first column of X, must be elapsed time in its own units; got the constant {t[0]:g} in "
            "an X that looks scaled, so that the elapsed time is lost. Fit without the scaler: the "
            "estimator standardises by itself."
        )
    warnings.warn(
        "X must hold elapsed times and initial states in the units of y; got columns that look scaled and "
        f"no rows from which the scaling could be learned, so they are taken as they are. {REMEDY}",
        UserWarning,
        stacklevel=3,
    )
    return identity


def _from_ties(X: FloatArray, y: FloatArray, layout: Layout, *, n_distinct: int) -> Alignment | None:
    """Learn the map from the rows at the smallest t, or return None where it is not exact."""
    t, initial = X[:, 0], X[:, layout.initial]
    tied = t == t.min()
    fixed = np.ptp(initial, axis=0) == 0
    if tied.all() or (n_distinct > 2 and fixed.all()):
        return None
    scale, shift = np.ones(layout.n_states), np.zeros(layout.n_states)
    for i in range(layout.n_states):
        observed = tied & np.isfinite(y[:, i])
        order = np.lexsort((y[observed, i], initial[observed, i]))
        x, states = initial[observed, i][order], y[observed, i][order]
        if not len(x):
            return None
        if 1 + np.count_nonzero(np.diff(x)) >= n_distinct:
            scale[i] = (states[-1] - states[0]) / (x[-1] - x[0])
            shift[i] = states[0] - scale[i] * x[0]
        elif fixed[i]:
            shift[i] = states[0] - x[0]
        else:
            return None
        tolerance = EXACT * np.nanstd(y[:, i]) + 1e-12 * np.abs(states).max()
        if scale[i] <= 0 or np.abs(scale[i] * x + shift[i] - states).max() > tolerance:
            return None
    return Alignment(float(t.min()), scale, shift)


def _signs(X: FloatArray, y: FloatArray, layout: Layout, sample_weight: FloatArray | None) -> _Signs:
    """Look for what scalers leave behind, in all rows alike and in the rows as they are weighted."""
    weightings = [np.ones(len(X))] if sample_weight is None else [np.ones(len(X)), sample_weight]
    t, initial = X[:, :1], X[:, layout.initial]
    initial = initial[:, np.ptp(initial, axis=0) > 0]
    y = y[:, np.nanmax(y, axis=0) > np.nanmin(y, axis=0)]
    clock = 0.25 <= float(np.mean(t < 0)) <= 0.75 or any(_centred(t, w) for w in weightings)
    x0_centred = any(_centred(initial, w) for w in weightings)
    y_centred = any(_centred(y, w) for w in weightings)
    x0_bounded, y_bounded = _bounded(initial), _bounded(y)
    x0_alone = (x0_centred and not _centred(y, tolerance=0.1)) or (x0_bounded and not _bounded(y, 0.1))
    y_alone = y_centred and not _centred(initial, tolerance=0.1)
    return _Signs(
        possible=clock or x0_centred or y_centred or x0_bounded or y_bounded,
        in_x=clock or x0_alone,
        in_y=y_alone,
    )


def _centred(table: FloatArray, weights: FloatArray | None = None, tolerance: float = FINGERPRINT) -> bool:
    """Tell whether every column has weighted mean 0 and standard deviation 1, up to the tolerance."""
    observed = ~np.isnan(table)
    share = observed * (1.0 if weights is None else weights[:, None])
    total = np.maximum(share.sum(axis=0), np.finfo(float).tiny)
    filled = np.where(observed, table, 0.0)
    mean = (share * filled).sum(axis=0) / total
    deviation = np.sqrt((share * (filled - mean) ** 2).sum(axis=0) / total)
    fits = (np.abs(mean) <= tolerance) & (np.abs(deviation - 1) <= tolerance)
    return bool(fits.all()) and fits.size > 0


def _bounded(table: FloatArray, tolerance: float = 1e-9) -> bool:
    """Tell whether every column has largest absolute value 1, up to the tolerance."""
    return table.shape[1] > 0 and bool((np.abs(np.nanmax(np.abs(table), axis=0) - 1) <= tolerance).all())


def _warn_about_the_rest(layout: Layout) -> None:
    """Warn that velocities and start times stay as a scaler left them."""
    if not (layout.has_velocity or layout.start_time):
        return
    what = " and ".join(
        name for name, there in [("velocities", layout.has_velocity), ("start times", layout.start_time)] if there
    )
    warnings.warn(
        f"Initial {what} must be in the units of y and t; got an X that looks scaled, from which only t and "
        "x0 can be aligned. Fit without the scaler: the estimator standardises by itself.",
        UserWarning,
        stacklevel=4,
    )
