"""From a dependency matrix to a networkx graph."""

from __future__ import annotations

import numbers
from collections.abc import Sequence

import networkx as nx
import numpy as np

from skode._typing import AnyArray, FloatArray


def build_graph(
    matrix: FloatArray,
    *,
    effect: FloatArray,
    sign: AnyArray,
    names: Sequence[str],
    kinds: Sequence[str],
    threshold: float = 0.0,
    max_edges: int | None = None,
    confidence: FloatArray | None = None,
) -> nx.DiGraph[str]:
    """Turn ``matrix[i, j]`` = "j drives i" into edges j -> i. The one place where the direction turns.

    Parameters
    ----------
    matrix : array of shape (d, n_variables)
        Strengths, zero where there is no edge; rows are the first d variables.
    effect : array of shape (d, n_variables)
        Signed mean effect.
    sign : int array of shape (d, n_variables)
        +1, -1, or 0 where the sign changes over the data.
    names : sequence of str of length n_variables
    kinds : sequence of str of length n_variables
        "state", "input" or "time".
    threshold : float, default=0.0
        Keep entries above it.
    max_edges : int or None, default=None
        Keep at most so many, the strongest.
    confidence : array of shape (d, n_variables) or None

    Returns
    -------
    networkx.DiGraph
        Plain Python values only, so that every exporter of networkx takes it.

    Raises
    ------
    TypeError
        If the threshold is no number.
    ValueError
        If the threshold is negative or ``max_edges`` is.

    Examples
    --------
    >>> import numpy as np
    >>> from skode.graph import build_graph
    >>> m = np.array([[0.0, 0.5], [0.2, 0.0]])
    >>> g = build_graph(m, effect=m, sign=np.sign(m).astype(int), names=["a", "b"], kinds=["state"] * 2)
    >>> sorted(g.edges(data="weight"))
    [('a', 'b', 0.2), ('b', 'a', 0.5)]
    """
    if not isinstance(threshold, numbers.Real):
        raise TypeError(f"threshold must be a number >= 0; got {threshold!r}. Use 0.0 to keep every edge.")
    if not float(threshold) >= 0:
        raise ValueError(f"threshold must be a number >= 0; got {threshold!r}. Use 0.0 to keep every edge.")
    if max_edges is not None and (not isinstance(max_edges, (int, np.integer)) or max_edges < 0):
        raise ValueError(f"max_edges must be None or an integer >= 0; got {max_edges!r}. Use None for no limit.")
    graph: nx.DiGraph[str] = nx.DiGraph()
    for name, kind in zip(names, kinds, strict=True):
        graph.add_node(name, kind=kind)
    for target, source in _kept(matrix, threshold, max_edges):
        attributes: dict[str, float | int] = {
            "weight": float(matrix[target, source]),
            "effect": float(effect[target, source]),
            "sign": int(sign[target, source]),
        }
        if confidence is not None:
            attributes["confidence"] = float(confidence[target, source])
        graph.add_edge(names[source], names[target], **attributes)
    return graph


def _kept(matrix: FloatArray, threshold: float, max_edges: int | None) -> AnyArray:
    """Entries (target, source) above the threshold, the strongest first."""
    pairs = np.argwhere(matrix > threshold)
    strongest = np.argsort(-matrix[tuple(pairs.T)], kind="stable")
    return pairs[strongest][:max_edges]
