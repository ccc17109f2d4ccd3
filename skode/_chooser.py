"""The sources of what moves, chosen on rows along a path; rows are mixed first where noise ties them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from skode._independent_rows import independent_rows
from skode._interval_rows import Followed
from skode._typing import BoolArray, FloatArray
from skode.convex import Known, Selection, row_means, select_sources, spread


@dataclass(frozen=True)
class Chooser:
    """What all choices on the same trajectories have in common."""

    times: Sequence[FloatArray]
    inputs: FloatArray  # (trajectory, m)
    moves: BoolArray  # (d,)
    complete: bool  # nothing that moves was ever missing
    alphas: FloatArray  # (alpha,) falling
    allowed: BoolArray | None  # (d, source)
    trust: FloatArray | None  # (interval,)

    def choose(self, followed: Followed, *, alpha: float | None = None, known: Known | None = None) -> Selection:
        """Choose by the extended BIC, or at a given strength.

        Parameters
        ----------
        followed : Followed
        alpha : float, default None
        known : Known, default None
            What the choice before taught.

        Returns
        -------
        Selection
            Of what moves, (moving, source).
        """
        rows, moves = followed.rows, self.moves
        weights, quadrature, noise = self.trusted(rows.weights), rows.quadrature, followed.noise[moves] ** 2
        production = (rows.slopes + followed.rate * row_means(rows.nodes, rows.quadrature))[:, moves]
        if followed.gamma is not None and noise.any() and self.complete:
            process = float(followed.process[moves].mean() / noise.mean())
            shares, weights, noisy = independent_rows(self.times, followed.gamma, process, self.trust)
            noise = noise * noisy
            quadrature, production = shares @ spread(quadrature), shares @ production
        nodes = self.sources(followed)
        return select_sources(
            nodes,
            quadrature,
            production,
            weights if weights.ndim == 1 else weights[:, moves],
            alphas=self.alphas,
            alpha=alpha,
            allowed=None if self.allowed is None else self.allowed[moves],
            noise=None if followed.gamma is None else noise,
            freedom=None if followed.freedom is None else followed.freedom[moves],
            own=np.flatnonzero(moves),
            peers=np.arange(nodes.shape[2]) < len(moves),
            known=known,
        )

    def sources(self, followed: Followed) -> FloatArray:
        """States and inputs at the nodes.  # (interval, node, source)"""
        nodes, m = followed.rows.nodes, self.inputs.shape[1]
        if m == 0:
            return nodes
        return np.concatenate([nodes, np.repeat(self.inputs[followed.owner][:, None], nodes.shape[1], axis=1)], axis=2)

    def trusted(self, weights: FloatArray) -> FloatArray:
        """Weights of rows, as far as the user trusts them.  # (interval,) or (interval, d)"""
        return weights if self.trust is None else weights * self.trust.reshape(-1, *[1] * (weights.ndim - 1))
