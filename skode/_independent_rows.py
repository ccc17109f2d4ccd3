"""Rows of one trajectory share observations: mix them so that their noise is independent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse

from skode._bridge import error_growth, produced
from skode._typing import FloatArray

LEAST = 1e-3
"""Share of a row's mean below which an earlier interval is left out of it."""
LONGEST = 256
"""Intervals that are mixed together; longer trajectories are cut, and the two rows at a cut share an observation."""


class Mixed(NamedTuple):
    """Weighted means of the rows of one trajectory each."""

    shares: scipy.sparse.csr_array  # (row, row) >= 0, adding up to 1 over the second
    weights: FloatArray  # (row,)
    noisy: float  # share of the observations' noise in what the weights count as noise, on average


def independent_rows(times: Sequence[FloatArray], gamma: float, process: float, trust: FloatArray | None) -> Mixed:
    r"""Mix every interval's production with those before it, so that no observation's noise enters two rows.

    The production between two observations, in units of the state at its end, is off by
    :math:`e_k = n_{k+1} - e^{-\gamma h_k} n_k + m_k`: noise n of unit variance, and misfit m of the field, ``process``
    times as large per unit of decay-weighted time. With the covariance C of e and its Cholesky factor,
    :math:`C = R R^T`, generalised least squares are least squares of the rows of :math:`R^{-1}`. Those rows are
    positive, so each is a weight times a mean over the interval and earlier ones: what an observation has too much
    one interval has too little, and the mean of both knows better.

    Parameters
    ----------
    times : sequence of arrays (knot_k,)
    gamma : float
        Decay rate of the bridged path.
    process : float
        Misfit per unit of time over the noise of one observation, both as variances.
    trust : array (interval,) or None
        Factors on the precision of every interval; what two intervals share stays in proportion.

    Returns
    -------
    Mixed
        A row of weight w has noise of variance 1 / w, with misfit counted as noise.

    References
    ----------
    Aitken, "On least squares and linear combination of observations", 1936, doi:10.1017/S0370164600014346.
    """
    blocks = list(_blocks(times))
    ends = np.cumsum([len(h) for h in blocks])
    every = np.concatenate(blocks) if blocks else np.zeros(0)
    change = produced(every, gamma) * (1.0 if trust is None else np.sqrt(trust))
    decay, own = np.exp(-gamma * every), process * error_growth(every, gamma)
    observed = 1.0 + decay**2
    total, noisy = change / np.sqrt(observed + own), observed / (observed + own)  # of intervals that stand alone
    alone = np.flatnonzero(np.repeat([len(h) == 1 for h in blocks], [len(h) for h in blocks]))
    row, column, share = [alone], [alone], [np.ones(len(alone))]
    for begin, end in ((end - len(h), end) for h, end in zip(blocks, ends, strict=True) if len(h) > 1):
        part = slice(begin, end)
        shared = decay[begin + 1 : end]
        of_ends = np.diag(observed[part]) - np.diag(shared, 1) - np.diag(shared, -1)
        factor = np.linalg.cholesky(of_ends + np.diag(own[part]))
        inverse = scipy.linalg.solve_triangular(factor, np.eye(end - begin), lower=True)
        noisy[part] = np.einsum("ij,jk,ik->i", inverse, of_ends, inverse, optimize=True)
        mix = inverse * change[part]
        total[part] = mix.sum(axis=1)
        mix /= np.where(total[part] > 0, total[part], 1.0)[:, None]
        here, there = np.nonzero(mix >= LEAST)
        kept = mix[here, there]
        row.append(here + begin)
        column.append(there + begin)
        share.append(kept / np.bincount(here, kept, minlength=end - begin)[here])
    places = np.concatenate(row), np.concatenate(column)
    shares = scipy.sparse.coo_array((np.concatenate(share), places), shape=(len(every), len(every)))
    return Mixed(shares.tocsr(), total**2, float(noisy.mean()))


def _blocks(times: Sequence[FloatArray]) -> Iterator[FloatArray]:
    """Lengths of the intervals that are mixed together."""
    for t in times:
        for begin in range(0, len(t) - 1, LONGEST):
            yield np.diff(t[begin : begin + LONGEST + 1])
