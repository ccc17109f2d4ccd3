"""Prior knowledge of the graph: what a user knows of edges before the fit, and what it means for every pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import networkx as nx
import numpy as np

from skode._typing import BoolArray, FloatArray, IntArray
from skode._validation import as_numbers

FORMS = "an array of shape (targets, sources), a data frame with variable names, or a networkx DiGraph"


@dataclass(frozen=True, eq=False)
class PriorKnowledge:
    """What is known of the edges of the graph; it changes the fit, not only the picture.

    Every field is None, or one of

    - an array of shape (d, d + m [+ 1]), ``[target, source]`` as ``dependency_matrix_``: sources are the states, then
      the inputs, then time where the field sees it;
    - a data frame of the same meaning, rows named by targets and columns by sources, in any order;
    - a ``networkx.DiGraph`` on the names of variables, an edge j -> i for "j drives i".

    Names are those of the fitted graph (columns of y and of the inputs; x0, x1, ..., u0, ... and "t" otherwise). A
    data frame or a graph may name a part of the variables: nothing is said of the others.

    Parameters
    ----------
    allowed : array of 0 and 1, DataFrame, DiGraph or None, default=None
        Edges that may exist; the others never open. A graph allows its edges and no others among its nodes. Self
        edges stay open whatever is said here, since gene networks are drawn without them and yet every
        gene decays; ``forbidden`` closes them.
    forbidden : array of 0 and 1, DataFrame, DiGraph or None, default=None
        Edges that never open: their entries of ``dependency_matrix_`` and ``dependency_scores_`` are exactly 0.
    required : array of 0 and 1, DataFrame, DiGraph or None, default=None
        Edges that pay no price and are never cut, whatever ``alpha`` is. How strong they are is for the data to say:
        into a variable that never moves, or under a sign that the data contradict, that is nothing.
    weights : array of float, DataFrame, DiGraph (edge attribute ``weight``) or None, default=None
        Factors on the price of edges, at least 0: below 1 for what is likely, above 1 for what is not, 0 for
        free. A free edge is kept as a required one is.
    signs : array of +1, -1 and 0, DataFrame, DiGraph (edge attribute ``sign``) or None, default=None
        The sign of df_i / dx_j everywhere, inside the data and outside; 0 says nothing. With ``order=2`` it holds for
        the position and for the velocity of the source.

    Notes
    -----
    Fields of one network per target only; of these ``field="additive"`` takes neither weights nor signs. Signs take one
    hidden layer of a monotone activation: the field is F_i(z) = c_i + k_i . z + sum_h v_ih s(w_ih . z + b_ih), so that
    all v_ih w_ihj and k_ij of sign s_ij make the derivative of that sign wherever the state is. After every step what
    has the wrong sign is set
    to 0. A signed source has no part in bilinear units, whose derivative takes both signs.

    Examples
    --------
    >>> import networkx as nx
    >>> from skode import PriorKnowledge, SparseNODERegressor, from_trajectories
    >>> from skode.datasets import make_lotka_volterra
    >>> system = make_lotka_volterra(n_trajectories=6, n_times=25, random_state=0)
    >>> X, y, groups = from_trajectories(system.states, system.times)
    >>> known = nx.DiGraph()
    >>> known.add_edge("x0", "x1", sign=1)  # prey feed predators
    >>> prior = PriorKnowledge(signs=known, forbidden=[[0, 0], [0, 1]])
    >>> model = SparseNODERegressor(prior=prior, max_iter=200, tol=1, random_state=0).fit(X, y, groups=groups)
    >>> float(model.dependency_matrix_[1, 1]), model.get_dependency_graph()["x0"]["x1"]["sign"]
    (0.0, 1)

    References
    ----------
    "Robust data-driven incorporation of prior knowledge into the inference of dynamic regulatory networks", 2013,
    doi 10.1093/bioinformatics/btt099 (prices of likely edges are lowered).
    "Monotonic Networks", 1997, Advances in Neural Information Processing Systems 10 (signs of weights make a network
    monotone).
    """

    allowed: Any = None
    forbidden: Any = None
    required: Any = None
    weights: Any = None
    signs: Any = None


@dataclass(frozen=True)
class EdgeRules:
    """What prior knowledge says of every pair.

    Parameters
    ----------
    closed : bool array (target, variable)
        Edges that never open.
    required : bool array (target, variable)
    prices : array (target, variable)
        Factor on the price of every edge; 0 where it is free, as required ones are.
    signs : int array (target, variable)
        +1, -1, or 0 where the sign is free.
    """

    closed: BoolArray
    required: BoolArray
    prices: FloatArray
    signs: IntArray


def check_prior(prior: Any) -> PriorKnowledge | None:
    """Refuse what is neither None nor prior knowledge.

    Raises
    ------
    TypeError
    """
    if prior is None or isinstance(prior, PriorKnowledge):
        return prior
    raise TypeError(
        f"prior must be None or PriorKnowledge; got {type(prior).__name__}. "
        "Wrap it, for example as PriorKnowledge(allowed=...)."
    )


def edge_rules(prior: PriorKnowledge, targets: Sequence[str], sources: Sequence[str]) -> EdgeRules:
    """Read prior knowledge in the terms of one data set.

    Parameters
    ----------
    prior : PriorKnowledge
    targets : sequence of str
        Names of the states.
    sources : sequence of str
        Names of the states, the inputs and time.

    Returns
    -------
    EdgeRules

    Raises
    ------
    ValueError, TypeError
        For wrong shapes, unknown names, values that are not allowed, and contradictions.

    Examples
    --------
    >>> rules = edge_rules(PriorKnowledge(forbidden=[[0, 1], [0, 0]]), ["a", "b"], ["a", "b"])
    >>> rules.closed.tolist()
    [[False, True], [False, False]]
    """
    names = _Names(tuple(targets), tuple(sources))
    matrix = {
        field.name: _READERS[field.name](getattr(prior, field.name), names, f"prior.{field.name}")
        for field in fields(prior)
        if getattr(prior, field.name) is not None
    }
    shape = (len(targets), len(sources))
    diagonal = np.eye(*shape, dtype=bool)
    closed = (matrix.get("allowed", np.ones(shape)) == 0) & ~diagonal
    closed |= matrix.get("forbidden", np.zeros(shape)) == 1
    required = matrix.get("required", np.zeros(shape)) == 1
    both = np.argwhere(required & closed)
    if len(both):
        i, j = both[0]
        raise ValueError(
            f"An edge must not be both required and closed (forbidden, or not allowed); got {len(both)} such edges, "
            f"the first {sources[j]} -> {targets[i]}. Drop it from prior.required, or allow it."
        )
    prices = np.where(required, 0.0, matrix.get("weights", np.ones(shape)))
    return EdgeRules(closed, required, prices, matrix.get("signs", np.zeros(shape)).astype(np.int64))


@dataclass(frozen=True)
class _Names:
    """Names of the rows and of the columns."""

    targets: tuple[str, ...]
    sources: tuple[str, ...]

    def row(self, name: Any, what: str) -> int:
        """The row of a target."""
        if name in self.targets:
            return self.targets.index(name)
        kind = "no state, and only states can be driven" if name in self.sources else "not a variable"
        raise ValueError(
            f"{what} must name targets among the states {_listed(self.targets)}; got {name!r}, {kind}. "
            "Rename it, or leave it out."
        )

    def column(self, name: Any, what: str) -> int:
        """The column of a source."""
        if name in self.sources:
            return self.sources.index(name)
        raise ValueError(
            f"{what} must name sources among the variables {_listed(self.sources)}; got {name!r}. "
            "Rename it, or leave it out."
        )


def _read(
    given: Any, names: _Names, what: str, *, neutral: float, absent: float | None, label: str | None
) -> FloatArray:
    """Bring an array, a data frame or a graph to one matrix; ``neutral`` where nothing is said.

    ``absent`` is the value of an edge that a graph has not, though it names both ends; ``label`` is the attribute
    that holds the value of an edge that it has, None for 1.
    """
    if isinstance(given, nx.Graph):
        return _from_graph(given, names, what, neutral=neutral, absent=absent, label=label)
    columns = getattr(given, "columns", None)
    values = as_numbers(given, what)
    if columns is None:
        shape = (len(names.targets), len(names.sources))
        if values.shape != shape:
            raise ValueError(
                f"{what} must have shape {shape}, one row per target and one column per source "
                f"({_listed(names.sources)}); got shape {values.shape}. Fill entries of which nothing is known "
                f"with {neutral:g}, or name variables in a data frame."
            )
        return values
    rows, places = list(given.index), list(columns)
    for axis, labels in (("rows", rows), ("columns", places)):
        if len(set(labels)) < len(labels):
            raise ValueError(
                f"{what} must name every variable once in its {axis}; got {labels}. Drop the repeated {axis}."
            )
    out = np.full((len(names.targets), len(names.sources)), neutral)
    at = np.ix_([names.row(name, what) for name in rows], [names.column(name, what) for name in places])
    out[at] = values
    return out


def _from_graph(
    graph: nx.Graph[Any], names: _Names, what: str, *, neutral: float, absent: float | None, label: str | None
) -> FloatArray:
    """Read a graph on variable names."""
    if not graph.is_directed() or graph.is_multigraph():
        raise TypeError(
            f"{what} must be {FORMS}; got a {type(graph).__name__}. Convert it to a DiGraph: one edge j -> i says "
            "that j drives i."
        )
    out = np.full((len(names.targets), len(names.sources)), neutral)
    columns = [names.column(node, what) for node in graph.nodes]
    if absent is not None:
        rows = [names.row(node, what) for node in graph.nodes if node in names.targets]
        out[np.ix_(rows, columns)] = absent
    for source, target, attributes in graph.edges(data=True):
        if label is not None and label not in attributes:
            raise ValueError(
                f"{what} must have the attribute {label!r} on every edge; got none on {source} -> {target}. "
                f"Set it, as in graph.add_edge(source, target, {label}=1)."
            )
        value = 1.0 if label is None else float(as_numbers(attributes[label], f"{what} ({label} of edges)"))
        out[names.row(target, what), names.column(source, what)] = value
    return out


def _choices(given: Any, names: _Names, what: str, *, absent: float | None, neutral: float) -> FloatArray:
    """A matrix of 0 and 1."""
    matrix = _read(given, names, what, neutral=neutral, absent=absent, label=None)
    return _among(matrix, np.isin(matrix, (0, 1)), what, "0 and 1")


def _weights(given: Any, names: _Names, what: str) -> FloatArray:
    matrix = _read(given, names, what, neutral=1.0, absent=None, label="weight")
    return _among(matrix, matrix >= 0, what, "factors >= 0")


def _signs(given: Any, names: _Names, what: str) -> FloatArray:
    matrix = _read(given, names, what, neutral=0.0, absent=None, label="sign")
    return _among(matrix, np.isin(matrix, (-1, 0, 1)), what, "+1, -1 and 0")


def _among(matrix: FloatArray, fine: BoolArray, what: str, allowed: str) -> FloatArray:
    if not fine.all():
        raise ValueError(f"{what} must hold only {allowed}; got {matrix[~fine][0]:g}. Replace it.")
    return matrix


_READERS: dict[str, Callable[[Any, _Names, str], FloatArray]] = {
    "allowed": lambda given, names, what: _choices(given, names, what, neutral=1.0, absent=0.0),
    "forbidden": lambda given, names, what: _choices(given, names, what, neutral=0.0, absent=None),
    "required": lambda given, names, what: _choices(given, names, what, neutral=0.0, absent=None),
    "weights": _weights,
    "signs": _signs,
}
"""How every field of ``PriorKnowledge`` is read."""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
