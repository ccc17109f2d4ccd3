"""Networks at samples that never meet, in numpy: a call of torch takes longer than a small network's arithmetic."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from skode._typing import AnyArray, FloatArray
from skode.fields._activations import ACTIVATIONS

AtPoints = Callable[[FloatArray], Any]
"""(out) -> None: puts slopes into out (sample, target)."""
Edges = tuple[tuple[float, ...], tuple[float, ...]]
"""Lowest and highest value of every source."""
LARGEST = 2**17
"""Entries of the first layers of all networks from which on the arithmetic takes longer than the calls."""


class AbstractPoints(ABC):
    """A field at given weights, every sample by itself: its slopes do not depend on which others are there."""

    @property
    @abstractmethod
    def n_entries(self) -> int:
        """Numbers that one sample needs room for."""

    @abstractmethod
    def open(self, z: FloatArray) -> AtPoints:
        """The slopes at samples as a function with memory of its own, for one thread.

        Parameters
        ----------
        z : array (sample, source + 1)
            Read at every call; the last column is 1.
        """


class PointNets(AbstractPoints):
    """Networks at given weights, every sample by itself.

    out = gain * (c + K z + W_L s(... s(W_0 z + b_0)) + sum_q (P_q . z)(R_q . z))

    All that reads the sources is one product, biases among it, but for P and R, which read them as far as ``edges``;
    and all that adds up to slopes is another: zeros between the networks cost less than a call for each. Products are
    of a matrix and a vector, sample after sample, so that a sample's slopes are the same to the last bit, whichever
    others are there. They are those of the torch fields up to rounding.

    Parameters
    ----------
    weights : dict of arrays  # (net, ...)
        One net for every target, or one for all.
    activation : str
    n_hidden : int
        Number of hidden layers, one or more.
    gain : array (target,)
        Factor of every slope.
    edges : pair of tuple of float, optional
        Lowest and highest value of every source that products read.
    """

    def __init__(
        self,
        weights: dict[str, AnyArray],
        activation: str,
        n_hidden: int,
        gain: FloatArray,
        edges: Edges | None = None,
    ) -> None:
        self.edges = None if edges is None else [np.append(edge, 1.0) for edge in edges]
        self.act = ACTIVATIONS[activation].in_place
        w = {name: np.asarray(value, dtype=np.float64) for name, value in weights.items()}
        n_nets, width, n_sources = w["W0"].shape
        unit = gain.reshape(n_nets, -1, 1)  # (net, output, 1)
        left, right = (w.get(name, np.zeros((n_nets, 0, n_sources))) for name in ("P", "R"))
        last = w[f"W{n_hidden}"]
        skip = _with_bias(unit * w.get("K", np.zeros((*last.shape[:2], n_sources))), unit * w[f"b{n_hidden}"].mT)
        hidden = _with_bias(w["W0"], w["b0"].mT)
        # The order in which what is added up at the end stands together: linear part, last hidden layer, products.
        parts = [hidden, skip] if n_hidden > 1 else [skip, hidden]
        self.entering, self.factors = (
            np.concatenate([part.reshape(-1, n_sources + 1) for part in some])
            for some in (parts, [_with_bias(left), _with_bias(right)])
        )
        self.n_products, self.n_linear = left[..., 0].size, gain.size
        self.first = (n_nets, width)
        self.middle = [(w[f"W{k}"], w[f"b{k}"].mT.copy()) for k in range(1, n_hidden)]
        sums = [np.eye(gain.size), _diagonal(unit * last), _diagonal(unit * np.ones((n_nets, 1, left.shape[1])))]
        self.leaving = np.concatenate(sums, axis=1)

    @property
    def n_entries(self) -> int:
        return int(len(self.entering) + len(self.factors) + self.leaving.shape[1])

    def open(self, z: FloatArray) -> AtPoints:
        entering, factors, leaving, middle = self.entering, self.factors, self.leaving, self.middle
        act, edges, n_linear, q = self.act, self.edges, self.n_linear, self.n_products
        n_first = self.first[0] * self.first[1]
        before = n_first if middle else 0  # entries in front of the linear part
        flat = np.empty((len(z), before + leaving.shape[1]))
        entered, added = flat[:, : len(entering)], flat[:, before:]
        hidden = flat[:, :n_first] if middle else added[:, n_linear : n_linear + n_first]
        products = added[:, added.shape[1] - q :]
        top = added[:, n_linear : added.shape[1] - q].reshape(len(z), self.first[0], -1, 1)  # of the last hidden layer
        column = hidden.reshape(len(z), *self.first, 1)  # (sample, net, unit, 1)
        held = z if edges is None else np.empty_like(z)
        both = np.empty((len(z), 2 * q))
        read, put, sums, seen, factor = (part[..., None] for part in (z, entered, added, held, both))

        def slopes(out: FloatArray) -> None:
            np.matmul(entering, read, out=put)
            act(hidden)
            if q:
                if edges is not None:
                    np.clip(z, *edges, out=held)
                np.matmul(factors, seen, out=factor)
                np.multiply(both[:, :q], both[:, q:], out=products)
            if middle:
                h = column
                for matrix, bias in middle:
                    h = matrix @ h
                    h += bias
                    act(h)
                top[:] = h
            np.matmul(leaving, sums, out=out[..., None])

        return slopes


def point_nets(
    weights: dict[str, AnyArray], activation: str, n_hidden: int, gain: FloatArray, edges: Edges | None = None
) -> PointNets | None:
    """Networks as ``PointNets`` takes them; None where they are too large to be faster so."""
    return PointNets(weights, activation, n_hidden, gain, edges) if weights["W0"].size <= LARGEST else None


def _with_bias(rows: FloatArray, bias: FloatArray | float = 0.0) -> FloatArray:
    """Rows (net, row, source) that also read the one at the end of z."""
    return np.concatenate([rows, np.broadcast_to(bias, (*rows.shape[:2], 1))], axis=2)


def _diagonal(blocks: FloatArray) -> FloatArray:
    """Blocks (net, row, column) on the diagonal of one matrix."""
    n, rows, columns = blocks.shape
    matrix = np.zeros((n, rows, n, columns))
    matrix[np.arange(n), :, np.arange(n)] = blocks
    return matrix.reshape(n * rows, n * columns)
