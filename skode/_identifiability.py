"""What the data cannot tell: sources that the other sources stand in for, whatever the field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from skode._blas import one_blas_thread
from skode._prepared import Prepared
from skode._typing import FloatArray, IntArray

MOST_ROWS = 400
"""Rows that are looked at; more are thinned evenly."""
MANY = 500
"""Sources from which on a system of equations with one unknown per row is the smaller by far."""
MOST_CURVED = 60
"""Sources up to which curved dependence is looked for; a kernel matrix per source is dear, and rarely fuller."""
N_FOLDS = 4
HIDDEN = 0.005
"""Share of a source's variance that no fit can use, on top of noise: 7 % of its standard deviation."""
LOUDEST = 0.01
"""Share of noise from which on more of it hides no more, since paths are smoothed."""
RIDGES = (1e-6, 1e-3)
KERNELS = ((0.3, 1e-3), (10.0, 1e-5))
"""Squared width in median squared distances, and ridge: a bumpy function, and one close to a polynomial."""
PERIODS = 1.5
"""Length of a pass: enough to meet the whole of a cycle."""


class Identifiability(NamedTuple):
    """How well the data tell edges from each other."""

    matrix: FloatArray  # (target, variable), in [0, 1]
    still: IntArray  # states that never move
    constant: IntArray  # other variables that never change
    copied: IntArray  # variables that another one repeats
    confined: IntArray  # variables that the others determine
    cycle: bool  # whether all trajectories run along one closed curve

    def reasons(self, names: Sequence[str]) -> list[str]:
        """Say in words what the data cannot tell, by the names of variables."""

        def listed(variables: IntArray) -> str:
            shown = ", ".join(names[v] for v in variables[:8])
            return shown + (f" and {len(variables) - 8} more" if len(variables) > 8 else "")

        said = {
            "states that never move": self.still,
            "inputs that never change": self.constant,
            "variables that repeat each other": self.copied,
            "variables that the others determine along the data": self.confined,
        }
        words = [f"{what} ({listed(variables)})" for what, variables in said.items() if len(variables)]
        return [*words, "trajectories that all run along one closed curve"] if self.cycle else words


@one_blas_thread()
def identifiability(prepared: Prepared, variable_of_source: tuple[int, ...]) -> Identifiability:
    """Find sources whose part the other sources could play.

    Let z_j be a source along the smoothed trajectories, of variance 1, and u_j the share of it that the others leave
    unexplained: the mean squared error of predicting z_j in trajectories (or blocks of time) that were left out, by
    linear or kernel ridge regression, whichever does best. Where u_j is so small that noise could hide it, f_i may
    read z_j or what stands for it, and no amount of fitting can tell::

        identifiability_ij = min(1, u_j / (2 c_j)),     c_j = 0.005 + 2 min(noise_j^2, 0.01)

    2 noise^2 is how far a copy with noise of its own is apart. On a closed curve u_j does not tell: a variable has two
    values there for one of another, and yet one of them may be exchanged for a function of all. So trajectories are cut
    into passes of 1.5 periods; where the mean squared distance of a point from the median pass is what noise could
    be, identifiability is at most one half.

    Parameters
    ----------
    prepared : Prepared
    variable_of_source : tuple of int
        Graph variable of every source.

    Returns
    -------
    Identifiability

    References
    ----------
    "Regression Diagnostics: Identifying Influential Data and Sources of Collinearity", 1980,
    doi 10.1002/0471725153, chapter 3 (1 / u_j is the variance inflation factor of a linear model).
    """
    moving = prepared.scales.moving
    d, order = len(moving), prepared.scales.order
    owner = np.asarray(variable_of_source)
    rows = _samples(prepared)
    spread = rows.z.std(axis=0)
    varies = spread > 1e-9
    # A state that stands still is a source like a constant input, if trajectories differ in it by more than noise.
    knots = np.mean([len(course.times) for course in prepared.courses])
    varies[:d] &= moving | (spread[:d] ** 2 > 4 * prepared.noise**2 / knots)
    noise = np.zeros(len(owner))
    noise[:d] = np.where(moving, prepared.noise, 0.0)
    allowance = HIDDEN + 2 * np.minimum(noise**2, LOUDEST)

    taken = np.flatnonzero(varies)
    left, tied = np.full(len(owner), 1.0), np.zeros(len(owner))
    cycle = False
    if len(taken) > 1 and len(rows.z) >= 2 * N_FOLDS:
        z = (rows.z[:, taken] - rows.z[:, taken].mean(axis=0)) / spread[taken]
        left[taken] = unexplained(z, _folds(rows))
        tied[taken] = _largest_correlation(z)
        states = taken < d * order
        if states.sum() > 1:
            apart = _distance_of_passes(rows._replace(z=z[:, states]))
            cycle = bool(apart <= allowance[taken[states]].mean())
    share = np.where(varies, np.minimum(0.5 if cycle else 1.0, left / (2 * allowance)), 0.0)

    # A variable of two sources, position and velocity, is told by the better of them.
    told, copies = np.zeros(owner.max() + 1), np.zeros(owner.max() + 1)
    np.maximum.at(told, owner, share)
    np.maximum.at(copies, owner, tied)
    lost = told < 0.5
    fixed = np.ones(len(told), dtype=bool)
    fixed[owner[varies]] = False
    copied = lost & ~fixed & (1 - copies**2 <= 2 * allowance[: len(told)].max())
    return Identifiability(
        matrix=np.where(moving[:, None], told, 0.0),
        still=np.flatnonzero(~moving),
        constant=np.flatnonzero(fixed[d:]) + d,
        copied=np.flatnonzero(copied),
        confined=np.flatnonzero(lost & ~fixed & ~copied),
        cycle=cycle,
    )


def unexplained(z: FloatArray, fold: IntArray) -> FloatArray:
    """Mean squared error of every column, predicted from the others in folds that were left out.

    Parameters
    ----------
    z : array (row, source)
        Of mean 0 and variance 1.
    fold : int array (row,)

    Returns
    -------
    array (source,)

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).standard_normal((200, 2))
    >>> z = np.column_stack([x, x[:, 0] + x[:, 1]]) / [1, 1, 2**0.5]
    >>> bool(unexplained(z, np.arange(200) % 4).max() < 1e-6)
    True
    """
    if len(z) > MOST_ROWS:
        some = np.linspace(0, len(z) - 1, MOST_ROWS).astype(int)
        z, fold = z[some], fold[some]
    best: FloatArray = np.min([_linear(z, fold, ridge) for ridge in RIDGES], axis=0)
    if z.shape[1] > MOST_CURVED:
        return best
    size = (z**2).sum(axis=1)
    square = np.maximum(size[:, None] + size - 2 * z @ z.T, 0.0)
    parts = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in np.unique(fold)]
    for j in range(z.shape[1]):
        others = np.maximum(square - (z[:, None, j] - z[None, :, j]) ** 2, 0.0)
        middle = float(np.median(others))
        for width, ridge in KERNELS:
            kernel = np.exp(-others / max(2 * width * middle, 1e-12))
            best[j] = min(best[j], _curved(kernel, z[:, j], parts, ridge))
    return best


def _linear(z: FloatArray, fold: IntArray, ridge: float) -> FloatArray:
    """Ridge regression of every column on all others at once, from the inverse of their covariance."""
    errors = np.zeros_like(z)
    for k in np.unique(fold):
        train, test = z[fold != k], z[fold == k]
        mean = train.mean(axis=0)
        if z.shape[1] > max(MANY, len(train)):
            errors[fold == k] = _by_rows(train - mean, test - mean, ridge)
            continue
        precision = np.linalg.inv((train - mean).T @ (train - mean) / len(train) + ridge * np.eye(z.shape[1]))
        errors[fold == k] = (test - mean) @ precision / np.diag(precision)
    mse: FloatArray = (errors**2).mean(axis=0)
    return mse


def _largest_correlation(z: FloatArray) -> FloatArray:
    """Of every column with any other, in size.  # (source,)"""
    found: FloatArray = np.asarray(np.corrcoef(z.T))
    found[np.diag_indices_from(found)] -= 1.0
    largest: FloatArray = np.abs(found, out=found).max(axis=0)
    return largest


def _by_rows(train: FloatArray, test: FloatArray, ridge: float) -> FloatArray:
    r"""What the inverse of the covariance gives, by a system of equations between rows.

    .. math:: (T'T / n + r)^{-1} = (1 - T'(TT' + n r)^{-1} T) / r
    """
    inner = train @ train.T
    inner[np.diag_indices_from(inner)] += len(train) * ridge
    weights = np.linalg.solve(inner, train)  # (row, source)
    errors: FloatArray = (test - test @ train.T @ weights) / (1.0 - np.einsum("rs,rs->s", train, weights))
    return errors


def _curved(kernel: FloatArray, y: FloatArray, parts: list[tuple[IntArray, IntArray]], ridge: float) -> float:
    """Kernel ridge regression, from the first rows of every part to the second."""
    errors = np.zeros_like(y)
    for train, test in parts:
        mean = y[train].mean()
        inner = kernel[np.ix_(train, train)]
        inner.flat[:: len(train) + 1] += ridge
        factor = cho_factor(inner, overwrite_a=True, check_finite=False)
        solved = cho_solve(factor, y[train] - mean, check_finite=False)
        errors[test] = y[test] - mean - kernel[np.ix_(test, train)] @ solved
    return float((errors**2).mean())


class _Samples(NamedTuple):
    """Sources along the smoothed trajectories, one row per interval, and steady states."""

    z: FloatArray  # (row, source)
    owner: IntArray  # (row,) series, -1 for steady states
    group: IntArray  # (row,) of the series
    place: IntArray  # (row,) place in it


def _samples(prepared: Prepared) -> _Samples:
    """Rows of which every source is known, series by series, then steady states."""
    z, trajectory, owner = prepared.nodes[:, 0], prepared.interval_trajectory, prepared.interval_series
    group = np.where(owner >= 0, prepared.groups[trajectory], -1)
    order = np.lexsort((prepared.interval_place, owner, owner < 0))
    known = order[np.isfinite(z[order]).all(axis=1)]
    return _Samples(z[known], owner[known], group[known], prepared.interval_place[known])


def _folds(rows: _Samples) -> IntArray:
    """Whole groups, or blocks of time where there are too few; every steady state by itself."""
    groups = np.unique(rows.group[rows.owner >= 0])
    length = np.bincount(rows.owner + 1)[rows.owner + 1]
    blocks = rows.place * N_FOLDS // length
    fold = np.searchsorted(groups, rows.group) if len(groups) >= N_FOLDS else blocks
    folds: IntArray = np.where(rows.owner >= 0, fold, rows.place) % N_FOLDS
    return folds if np.ptp(folds) else np.arange(len(folds)) * N_FOLDS // len(folds)


def _distance_of_passes(rows: _Samples) -> float:
    """Mean squared distance, per source, of a point from the median pass; infinite with fewer than three passes."""
    running = rows.owner >= 0
    z, owner, place = rows.z[running], rows.owner[running], rows.place[running]
    above = z > 0
    rises = (above[1:] & ~above[:-1] & (owner[1:] == owner[:-1])[:, None]).sum(axis=0)
    period = len(z) / max(1.0, float(np.median(rises)))
    length = np.bincount(owner)[owner]
    number = np.maximum(1, length // max(1, round(PERIODS * period)))
    label = np.unique(np.stack([owner, place * number // length]), axis=1, return_inverse=True)[1]
    passes = [part for part in np.split(z, np.flatnonzero(np.diff(label)) + 1) if len(part) > 2]
    if len(passes) < 3:
        return float("inf")
    some = np.linspace(0, len(passes) - 1, min(len(passes), 20)).astype(int)
    points = z[np.linspace(0, len(z) - 1, min(len(z), MOST_ROWS)).astype(int)]
    distances = np.stack([_distance_of_path(points, passes[k]) for k in some])  # (pass, point), 0 from one's own
    mean: float = np.median(distances, axis=0).mean() / z.shape[1]
    return mean


def _distance_of_path(points: FloatArray, path: FloatArray) -> FloatArray:
    """Squared distance of points from the nearest of the line segments that join a path."""
    start, step = path[:-1], np.diff(path, axis=0)
    size = np.maximum((step**2).sum(axis=1), 1e-300)
    offset = points[:, None] - start  # (point, segment, source)
    along = np.clip((offset * step).sum(axis=-1) / size, 0, 1)
    distances: FloatArray = ((offset - along[..., None] * step) ** 2).sum(axis=-1).min(axis=1)
    return distances
