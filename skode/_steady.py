"""Steady states as evidence: where a system rests, its unclamped variables have slope zero."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from skode._layout import Layout
from skode._typing import BoolArray, FloatArray
from skode._validation import as_numbers


@dataclass(frozen=True, eq=False)
class SteadyStates:
    """States in which a system rests, some variables of which may be held by an experimenter.

    In every row f_i(x, u) = 0 for each variable i that is not clamped; a clamped variable's own equation says
    nothing. A knock-out is a row in which the gene is clamped at zero, wild type is a row without clamps.

    Parameters
    ----------
    states : array-like of shape (n_rows, d)
        In the units of y; no missing values.
    clamped : array-like of bool of shape (n_rows, d), default=None
        True where a variable was held; None means nowhere.
    inputs : array-like of shape (n_rows, m), default=None
        Constant inputs; needed if X has inputs.

    Examples
    --------
    >>> import numpy as np
    >>> from skode import SteadyStates
    >>> knockouts = SteadyStates(np.array([[0.0, 0.7], [0.9, 0.0]]), clamped=np.eye(2, dtype=bool))
    """

    states: npt.ArrayLike
    clamped: npt.ArrayLike | None = None
    inputs: npt.ArrayLike | None = None


@dataclass(frozen=True, eq=False)
class SteadyRows:
    """Validated steady states."""

    states: FloatArray  # (row, d)
    clamped: BoolArray  # (row, d)
    inputs: FloatArray  # (row, m)


def check_steady(steady: object, layout: Layout, *, time_dependent: bool) -> SteadyRows | None:
    """Turn what a user gave into arrays of the right shapes, or refuse it in words.

    Parameters
    ----------
    steady : SteadyStates or None
    layout : Layout
    time_dependent : bool

    Returns
    -------
    SteadyRows or None

    Raises
    ------
    TypeError
        If it is something else.
    ValueError
        If shapes or values do not fit, or the field depends on time.
    """
    if steady is None:
        return None
    if not isinstance(steady, SteadyStates):
        raise TypeError(
            f"steady_states must be None or a SteadyStates; got {type(steady).__name__}. "
            "Wrap the array: SteadyStates(states, clamped=mask)."
        )
    if time_dependent:
        raise ValueError(
            "steady_states need a field that does not depend on time; got time_dependent=True. "
            "Leave steady_states out: a system under a clock does not rest."
        )
    d, m = layout.n_states, layout.n_inputs
    states = as_numbers(steady.states, "SteadyStates.states", finite=False)
    if states.ndim != 2 or states.shape[1] != d or not np.isfinite(states).all():
        raise ValueError(
            f"SteadyStates.states must be finite with shape (n_rows, {d}); got shape {states.shape}"
            f"{'' if np.isfinite(states).all() else ' with missing or infinite values'}. "
            "Give one column per column of y and drop incomplete rows."
        )
    clamped = np.zeros(states.shape, bool) if steady.clamped is None else np.asarray(steady.clamped, bool)
    if clamped.shape != states.shape:
        raise ValueError(
            f"SteadyStates.clamped must have the shape of the states, {states.shape}; got {clamped.shape}. "
            "Mark every held variable of every row with True."
        )
    inputs = np.zeros((len(states), 0))
    if steady.inputs is not None:
        inputs = as_numbers(steady.inputs, "SteadyStates.inputs")
    if inputs.shape != (len(states), m):
        raise ValueError(
            f"SteadyStates.inputs must have shape {(len(states), m)}, one column per input of X; "
            f"got {inputs.shape}. Give the inputs under which each state was reached."
        )
    return SteadyRows(states, clamped, inputs)
