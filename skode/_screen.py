"""Screening: from observed trajectories to the sources of every variable, without a solver in the loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse

from skode._bridge import bridge
from skode._chooser import Chooser
from skode._interval_rows import follow, follow_edges
from skode._typing import AnyArray, BoolArray, FloatArray, IntArray

N_PASSES = 4
"""Times that noisy states are smoothed along the edges that were found, and these chosen again. ``selection.py``, whose
table is SELECTION.md, compares other numbers."""


class Screen(NamedTuple):
    """Sources of every variable, a linear field on them, and rows along the path.

    The field is least squares on these rows, mixed where noise ties them (``independent_rows``). It is
    slope = intercepts + coefficients z in standard units of the states per unit of the given time, decay included. A
    source is a state or an input, d + m of them. Rows of variables that do not move are zero.
    """

    support: BoolArray  # (d, source)
    coefficients: FloatArray  # (d, source) least squares on the support, less gamma on the diagonal
    intercepts: FloatArray  # (d,)
    scores: AnyArray  # (d, source) ranking of all pairs, >= 0; 0 where nothing is allowed; of ``ranking_type``
    alphas: FloatArray  # (d,) strength at which the support stands; 0 for what does not move
    gamma: float | None  # decay rate of the bridged path; None is the smoothing spline
    rate: float  # decay that production was freed of, per unit of time
    noise: FloatArray  # (d,) standard deviation of observations, 0 where none is found
    nodes: FloatArray  # (interval, node, source) along the denoised path
    quadrature: FloatArray  # (interval, node) weights of the nodes in the mean over an interval
    slopes: FloatArray  # (interval, d) that the mean of the field over an interval should meet
    weights: FloatArray  # (interval,), or (interval, d) where values are missing
    path: list[FloatArray]  # (knot_k, d) denoised states, none missing
    levels: list[scipy.sparse.csr_array]  # (d, source) float32 coefficients at every strength, of the first choice
    alpha_max: float  # strength from which on nothing has a source
    residual: FloatArray  # (d,) mean square that the linear field leaves, as a share of that of its intercept
    evidence: FloatArray | None  # (d, source) rise of the extended BIC without an edge; None for a given strength


def screen(
    times: Sequence[FloatArray],
    states: Sequence[FloatArray],
    *,
    moves: BoolArray,
    inputs: FloatArray | None = None,
    groups: IntArray | None = None,
    alphas: FloatArray,
    alpha: float | None = None,
    allowed: BoolArray | None = None,
    trust: FloatArray | None = None,
    n_passes: int = N_PASSES,
) -> Screen:
    """Find the sources of every variable with a linear field, for few or thousands of variables.

    1. Choose the path between observations: bridged with one decay rate for all, or the smoothing spline, by
       forecasts of held-out trajectories (``choose_decay``). Fewer than four groups are cut into blocks of time; if
       these are fewer than four, the rate is that at which variables relax to their means, without folds.
    2. Along a bridged path, look for noise in the residuals of a ridge field, and if there is some pull the states
       towards its forecasts (``denoise``). Targets stay those of the raw states: noise in a target averages out, noise
       in a source biases, and a smoothed target is that of the model. Noise in the starts of forecasts makes decay look
       faster, and smoothing slower: if there is noise, the rate is chosen again along the smoothed path, and both
       steps are repeated with the geometric mean of the two.
    3. Select the sources of production = slope + rate x state (``select_sources``), by lines, by splines if these do
       better, and once more with cheaper edges of hubs if there are any. Every source has its price, a variable itself
       among them; what all variables share, decay, is in the target instead and costs nothing.
       Where there is noise and nothing is missing, rows are mixed so that theirs is independent (``independent_rows``).
    4. If there is noise and no strength is given, smooth the observations once more, along a field with the edges that
       were found and a ridge field beside them (``follow_edges``): better edges make better paths, and these better
       edges. Choose again, with the prices, the functions and the number of independent rows of the choice before, and
       repeat.

    Parameters
    ----------
    times : sequence of arrays (knot_k,)
        Increasing, in any unit, different for each trajectory.
    states : sequence of arrays (knot_k, d)
        In standard units; nan is missing.
    moves : array (d,) of bool
        False is constant: replaced by its mean in each trajectory, may be a source. So is a variable that no trajectory
        has two observations of.
    inputs : array (trajectory, m), default None
        Constant inputs in standard units.
    groups : array (trajectory,) of int, default None
        Trajectories that must stay together. None is one group each.
    alphas : array (alpha,)
        Falling strengths.
    alpha : float, default None
        The support is that of the adaptive path at exactly this strength. None is the extended BIC's choice.
    allowed : array (d, source) of bool, default None
        False never enters. A variable's own decay at the shared rate is no edge and stays.
    trust : array (interval,), default None
        Factors on the weights of rows, as a user's sample weights make them. None is 1.
    n_passes : int, default 4
        Times that step 4 is done.

    Returns
    -------
    Screen

    Examples
    --------
    >>> import numpy as np
    >>> from skode.datasets import make_hill_network
    >>> data = make_hill_network(12, 60, 6, dt=1.0, n_edges=16, random_state=0)
    >>> every = np.concatenate(data.states)
    >>> states = [(x - every.mean(axis=0)) / every.std(axis=0) for x in data.states]
    >>> found = screen(data.times, states, moves=np.ones(12, dtype=bool), alphas=np.geomspace(1, 0.005, 16))
    >>> other = ~np.eye(12, dtype=bool)
    >>> true, kept = data.adjacency & other, found.support & other
    >>> int(true.sum()), int((true & kept).sum()), float(found.noise.max())
    (16, 16, 0.0)
    """
    given = np.zeros((len(times), 0)) if inputs is None else inputs
    d = len(moves)
    moves = moves & np.any([(~np.isnan(x)).sum(axis=0) >= 2 for x in states], axis=0)
    states = _with_means(states, moves)
    if not moves.any():
        return _still(times, states, given)
    unit = _units(states, moves)
    states = [x / unit for x in states]
    followed = follow(times, states, moves=moves, inputs=given, groups=groups)
    complete = not any(np.isnan(x[:, moves]).any() for x in states)
    chooser = Chooser(times, given, moves, complete, alphas, allowed, trust)
    found = chooser.choose(followed, alpha=alpha)
    levels, alpha_max = found.path, found.alpha_max
    if alpha is None and followed.gamma is not None and followed.noise.any():
        for _ in range(n_passes):
            edges, known = scipy.sparse.csr_array(found.coefficients), found.known
            del found  # matrices of all pairs
            followed = follow_edges(times, states, followed, edges, moves=moves, inputs=given)
            found = chooser.choose(followed, known=known)
    rows, rate = followed.rows, followed.rate
    nodes = chooser.sources(followed)
    unit = np.append(unit, np.ones(given.shape[1]))
    coefficients = _whole(found.coefficients / unit, moves)
    coefficients[moves, np.flatnonzero(moves)] -= rate
    return Screen(
        support=_whole(found.support, moves),
        coefficients=coefficients,
        intercepts=_whole(found.intercepts, moves),
        scores=_whole(found.scores, moves),
        alphas=_whole(found.alphas, moves),
        gamma=followed.gamma,
        rate=rate,
        noise=followed.noise,
        nodes=nodes * unit,
        quadrature=rows.quadrature,
        slopes=np.where(moves, rows.slopes, 0.0),
        weights=chooser.trusted(rows.weights),
        path=[x * unit[:d] for x in followed.states],
        levels=[_whole_rows(coefficients, moves) for coefficients in levels],
        alpha_max=float(alpha_max.max(initial=0.0)),
        residual=_whole(found.residual, moves),
        evidence=None if found.evidence is None else _whole(found.evidence, moves),
    )


def _whole(values: AnyArray, moves: BoolArray) -> AnyArray:
    """Rows of what moves among those of all variables.  # (moving, ...) to (d, ...)"""
    if moves.all():
        return values
    out = np.zeros((len(moves), *values.shape[1:]), dtype=values.dtype)
    out[moves] = values
    return out


def _whole_rows(coefficients: scipy.sparse.csr_array, moves: BoolArray) -> scipy.sparse.csr_array:
    """The same for sparse rows.  # (moving, source) to (d, source)"""
    counts = np.zeros(len(moves), dtype=np.int64)
    counts[moves] = np.diff(coefficients.indptr)
    bounds = np.append(0, np.cumsum(counts))
    shape = (len(moves), coefficients.shape[1])
    return scipy.sparse.csr_array((coefficients.data.astype(np.float32), coefficients.indices, bounds), shape=shape)


def _with_means(states: Sequence[FloatArray], moves: BoolArray) -> list[FloatArray]:
    """Replace constant variables by their mean in each trajectory, 0 where never seen."""
    out = []
    for x in states:
        still = x[:, ~moves]
        seen = ~np.isnan(still)
        mean = np.where(seen, still, 0.0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
        x = x.copy()
        x[:, ~moves] = mean
        out.append(x)
    return out


def _still(times: Sequence[FloatArray], states: list[FloatArray], inputs: FloatArray) -> Screen:
    """Answer where nothing moves."""
    d, n = states[0].shape[1], sum(len(t) - 1 for t in times)
    none = np.zeros((d, d + inputs.shape[1]))
    nothing = np.zeros(none.shape, dtype=np.bool_)
    nodes = [bridge(t, x, 0.0) for t, x in zip(times, states, strict=True)]
    z = np.concatenate([r.node_states for r in nodes])
    u = np.repeat(inputs, [len(t) - 1 for t in times], axis=0)[:, None]
    z = np.concatenate([z, np.broadcast_to(u, (*z.shape[:2], u.shape[2]))], axis=2)
    q = np.concatenate([r.node_weights for r in nodes])
    zero = np.zeros(d)
    return Screen(
        nothing, none, zero, none, zero, 0.0, 0.0, zero, z, q, np.zeros((n, d)), np.ones(n), states, [], 0.0, zero, none
    )


def _units(states: Sequence[FloatArray], moves: BoolArray) -> FloatArray:
    """Standard deviation of constant variables, whose means over noisy observations vary less; 1 for all others."""
    spread = np.array([x[0] for x in states])[:, ~moves].std(axis=0)
    unit = np.ones(len(moves))
    unit[~moves] = np.where(spread > 1e-9, spread, 1.0)
    return unit
