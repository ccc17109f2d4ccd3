"""Simulate under inputs that change: one solve from every change to the next, where the one before ended."""

from __future__ import annotations

import numpy as np
import torch

from skode._fitted import Fitted
from skode._predict import Answers, Questions, solve_batch
from skode._typing import FloatArray


def changing_inputs(inputs: FloatArray, start: FloatArray, times: FloatArray) -> FloatArray | None:
    """Read the inputs of a simulation.

    Parameters
    ----------
    inputs : array (trajectory, m), (m,) or (trajectory, time, m); for one trajectory also (time, m)
    start : array (trajectory, column)
    times : array (time,) or (trajectory, time)

    Returns
    -------
    array (trajectory, time, m), or None where inputs are constant

    Raises
    ------
    ValueError
        If inputs that change are not one row per trajectory and time.
    """
    n, n_times = len(start), times.shape[-1] if times.ndim else 1
    if n == 1 and inputs.ndim == 2 and len(inputs) == n_times > 1:
        return inputs[None]
    if inputs.ndim < 3:
        return None
    if inputs.ndim > 3 or inputs.shape[:2] != (n, n_times):
        raise ValueError(
            f"inputs that change must have shape ({n}, {n_times}, m), for {n} initial states and {n_times} times; got "
            f"{inputs.shape}. Pass one row of inputs per initial state and time."
        )
    return inputs


def drive(
    fitted: Fitted,
    start: FloatArray,
    origin: FloatArray,
    times: FloatArray,
    inputs: FloatArray,
    device: torch.device,
) -> Answers:
    """Follow trajectories whose inputs are constant from one of their times to the next.

    Every trajectory is answered as if it were alone: its grid begins anew where its own inputs change. One that fails
    stays where it was held.

    Parameters
    ----------
    fitted : Fitted
    start : array (trajectory, s)
        Standard states at elapsed time 0.
    origin : array (trajectory,)
        Clock of the field at elapsed time 0, user units.
    times : array (trajectory, time)
        Elapsed, not negative, not falling; user units.
    inputs : array (trajectory, time, m)
        Those at one time hold until the next; the first also before. User units.
    device : torch.device

    Returns
    -------
    Answers
        Rows are trajectory by trajectory.
    """
    scales, (n, n_times) = fitted.scales, times.shape
    changed = np.zeros((n, n_times), dtype=np.int64)
    changed[:, 1:] = (inputs[:, 1:] != inputs[:, :-1]).any(axis=2)
    reign = changed.cumsum(axis=1)  # which of its inputs a trajectory has from a time on
    answered = np.concatenate([reign[:, :1], reign[:, :-1]], axis=1)  # what brings it there
    states, held = np.empty((n, n_times, start.shape[1])), np.zeros((n, n_times), dtype=bool)
    failed_at = np.full(n, np.nan)
    since, here = np.zeros(n), start.copy()
    for number in range(int(answered.max(initial=0)) + 1):
        some = np.flatnonzero((answered == number).any(axis=1))
        first = (reign[some] == number).argmax(axis=1)  # time at which it came to hold
        if number:
            since[some], here[some] = times[some, first], states[some, first]
        row, column = np.nonzero(answered[some] == number)
        place = some[row], column
        asked = Questions(
            times=times[place] - since[place[0]],
            trajectory=row,
            start=here[some],
            inputs=scales.standard_inputs(inputs[some, first]),
            origin=scales.standard_clock(origin[some] + since[some]),
        )
        solved = solve_batch(fitted, asked, device)
        before = np.isfinite(failed_at[place[0]])
        states[place] = np.where(before[:, None], here[place[0]], solved.states)
        held[place] = before | solved.held
        failed_at[some] = np.fmin(failed_at[some], since[some] + solved.failed_at * scales.time_unit)
    return Answers(scales.user_states(states.reshape(n * n_times, -1)), failed_at, held.ravel())
