"""Names of the variables: what they are, and whether X and y agree about them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

from skode._layout import Layout


class VariableNames(NamedTuple):
    """Names of the variables of the graph."""

    states: tuple[str, ...]
    inputs: tuple[str, ...]


def check_names(x_names: Sequence[str] | None, y_names: Sequence[str] | None, layout: Layout) -> None:
    """Compare the names of the x0 columns with those of y, common prefixes and suffixes aside.

    Parameters
    ----------
    x_names : sequence of str of length layout.n_columns, or None
        Column names of X.
    y_names : sequence of str of length d, or None
        Column names of y.
    layout : Layout
        Meaning of the columns of X.

    Raises
    ------
    ValueError
        If the x0 columns are y's columns in another order.

    Warns
    -----
    UserWarning
        If they merely differ.
    """
    if x_names is None or y_names is None or layout.time_only:
        return
    given = [str(name) for name in x_names[layout.initial]]
    wanted = [str(name) for name in y_names]
    if len(given) == 1 and wanted[0] in given[0]:
        return
    initial, states = (_core(given), _core(wanted)) if len(given) > 1 else (given, wanted)
    if initial == states or given == wanted:
        return
    if sorted(initial) == sorted(states) or sorted(given) == sorted(wanted):
        raise ValueError(
            f"The initial states in X must stand in the order of y's columns, {wanted}; got {given}. "
            "Reorder the columns of X, or build X with from_trajectories."
        )
    warnings.warn(
        f"The initial states in X should be named like y's columns, {wanted}; got {given}, taken in this "
        "order. Check the order, or rename the columns.",
        UserWarning,
        stacklevel=3,
    )


def variable_names(
    x_names: Sequence[str] | None,
    y_names: Sequence[str] | None,
    layout: Layout,
    *,
    time_node: bool = False,
) -> VariableNames:
    """Name the nodes of the graph.

    Parameters
    ----------
    x_names : sequence of str of length layout.n_columns, or None
        Column names of X, of which the inputs' are used; u0, u1, ... without.
    y_names : sequence of str of length d, or None
        Column names of y; x0, x1, ... without.
    layout : Layout
        Meaning of the columns of X.
    time_node : bool, default=False
        Whether the graph has a node "t".

    Returns
    -------
    VariableNames

    Raises
    ------
    ValueError
        If two nodes would have the same name.

    Examples
    --------
    >>> variable_names(None, ["prey", "predator"], Layout(2, 1))
    VariableNames(states=('prey', 'predator'), inputs=('u0',))
    """
    states = [f"x{i}" for i in range(layout.n_states)] if y_names is None else [str(name) for name in y_names]
    inputs = [f"u{j}" for j in range(layout.n_inputs)]
    if x_names is not None:
        inputs = [str(name) for name in x_names[layout.inputs]]
    every = [*states, *inputs, *(["t"] if time_node else [])]
    twice = sorted({name for name in every if every.count(name) > 1})
    if twice:
        raise ValueError(
            f"States{', inputs and time (t)' if time_node else ' and inputs'} must have different names; got "
            f"{', '.join(twice)} more than once. Rename the columns of X or y."
        )
    return VariableNames(tuple(states), tuple(inputs))


def _core(names: list[str]) -> list[str]:
    """Strip what all names begin with and all names end with."""
    prefix = _n_common(names)
    names = [name[prefix:] for name in names]
    suffix = _n_common([name[::-1] for name in names])
    return [name[: len(name) - suffix] for name in names]


def _n_common(names: list[str]) -> int:
    """Count the characters with which all names begin."""
    columns = [len(set(letters)) == 1 for letters in zip(*names, strict=False)]
    return columns.index(False) if False in columns else len(columns)
