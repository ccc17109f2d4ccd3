"""Solve many small quadratic problems with absolute values at once, on given active sets."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from skode._typing import BoolArray, FloatArray

JITTER = 1e-10
"""Added to the diagonal of a block, relative to it: equal columns share, instead of dividing by zero."""


class Active(NamedTuple):
    """Coefficients of b problems on m places each; unused places are padding."""

    coefficients: FloatArray  # (b, m), 0 where unused
    signs: FloatArray  # (b, m), 0 where the coefficient is free or unused
    used: BoolArray  # (b, m)


def minimise(
    blocks: FloatArray, cross: FloatArray, price: FloatArray, start: Active, *, max_iter: int
) -> tuple[Active, BoolArray]:
    r"""Minimise 1/2 b'Gb - c'b + sum_j p_j |b_j| over the used places of every problem, by feature-sign search.

    Solve for given signs, and move there along the segment as far as the objective falls: it is a piecewise
    quadratic, whose exact minimum over the segment is found among the zeros that are crossed. What arrives at
    zero leaves the set, what passes through changes its sign. Places that enter at zero must move towards
    their sign, or they leave again. The objective falls in every round, and there are finitely many sign
    patterns.

    Parameters
    ----------
    blocks : array (b, m, m)
    cross, price : arrays (b, m)
        A price of 0 makes a coefficient free.
    start : Active
        New places have coefficient 0 and the sign of their correlation.
    max_iter : int
        Rounds after which a problem is given up.

    Returns
    -------
    active : Active
    converged : array (b,) of bool

    References
    ----------
    .. [1] Lee, Battle, Raina & Ng, "Efficient sparse coding algorithms", NIPS 2006, algorithm 1. We add many
       places at a time, and solve all problems in one batched call.
    """
    beta, sign, used = start.coefficients.copy(), start.signs.copy(), start.used.copy()
    m = beta.shape[1]
    diagonal = np.einsum("bmm->bm", blocks)
    todo = np.arange(len(beta))
    for _ in range(max_iter):
        if len(todo) == 0:
            break
        b, s, u, p = beta[todo], sign[todo], used[todo], price[todo]
        system = np.where(u[:, :, None] & u[:, None, :], blocks[todo], 0.0)
        system[:, np.arange(m), np.arange(m)] = np.where(u, diagonal[todo] * (1 + JITTER) + 1e-300, 1.0)
        aim = np.linalg.solve(system, np.where(u, cross[todo] - p * s, 0.0)[:, :, None])[:, :, 0]
        move = aim - b
        wrong = u & (b == 0) & (move * s < 0)
        stuck = wrong.any(axis=1)
        crossing = u & (b != 0) & (aim * s < 0)
        step = np.where(stuck, 0.0, _step(b, move, crossing, p, system))
        full = ~stuck & ~crossing.any(axis=1)
        new = np.where(full[:, None], aim, b + step[:, None] * move)
        with np.errstate(divide="ignore", invalid="ignore"):
            arrived = crossing & (np.abs(b / -move - step[:, None]) <= 1e-12) & ~stuck[:, None]
        drop = arrived | wrong
        new[drop | ~u] = 0.0
        s = np.where(drop, 0.0, np.where(stuck[:, None] | (s == 0), s, np.where(new != 0, np.sign(new), s)))
        beta[todo], sign[todo], used[todo] = new, s, u & ~drop
        todo = todo[~full]
    converged = np.ones(len(beta), dtype=np.bool_)
    converged[todo] = False
    return Active(beta, sign, used), converged


def _step(b: FloatArray, move: FloatArray, crossing: BoolArray, price: FloatArray, system: FloatArray) -> FloatArray:
    """Minimise along the segment; (b,) in [0, 1].

    The slope at a share t of the way is -(1 - t) q + J(t): q = move' G move, and J grows by 2 p_j |move_j| at each
    zero crossed. It rises with t, so its root is the smallest of max(t_i, 1 - J_i / q) over the zeros t_i.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        at = np.where(crossing, b / -move, np.inf)
    order = np.argsort(at, axis=1)
    at = np.take_along_axis(at, order, axis=1)
    jump = np.cumsum(np.take_along_axis(np.where(crossing, 2.0 * price * np.abs(move), 0.0), order, axis=1), axis=1)
    curvature = np.einsum("bm,bmn,bn->b", move, system, move)[:, None]
    root = np.maximum(at, 1.0 - jump / np.maximum(curvature, 1e-300))
    return np.asarray(np.minimum(root.min(axis=1), 1.0))
