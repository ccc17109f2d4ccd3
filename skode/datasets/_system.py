"""What a simulated data set is, and the one routine that makes it from a known law."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from scipy.integrate import solve_ivp

from skode._typing import AnyArray, BoolArray, FloatArray

Law: TypeAlias = Callable[[float, FloatArray, FloatArray | None], FloatArray]
"""A right-hand side ``f(t, x, u)``: x (..., state) and u (..., input) or None give (..., state)."""

Seed: TypeAlias = int | np.random.Generator | np.random.RandomState | None


@dataclass(frozen=True, eq=False)
class SimulatedSystem:
    """Trajectories of a known system, as observed and without noise, with the graph that made them.

    The layout of the lists is what ``skode.from_trajectories`` takes.

    Attributes
    ----------
    name : str
        Which system this is.
    states : list of ndarray of shape (n_times_k, n_variables)
        One array per trajectory: what an observer sees, with noise and with NaN where a value is missing. For
        a second order system these are the positions.
    times : list of ndarray of shape (n_times_k,)
        Observation times of each trajectory; the first is 0, the rest increase strictly.
    velocities : list of ndarray or None
        Observed velocities, second order systems only, with noise and NaN as in ``states``.
    inputs : ndarray of shape (n_trajectories, n_inputs) or None
        Inputs, constant along each trajectory.
    names, input_names : tuple of str
        Names of the variables and of the inputs.
    adjacency : bool ndarray of shape (n_variables, n_variables + n_inputs)
        ``adjacency[i, j]`` (target, source) is True iff variable (or input) j appears in the law of variable
        i. For a second order system: iff the acceleration of i depends on the position or the velocity of j.
        Where ``self_edges`` is False the diagonal is False by convention although every variable decays by
        itself.
    self_edges : bool
        Whether the diagonal of ``adjacency`` is part of the truth, to be kept in comparisons.
    clean_states, clean_velocities : as ``states`` and ``velocities``
        The same values before noise and gaps.
    slope : callable
        The law ``f(t, x, u)``, vectorised over leading axes. First order: x (..., n_variables) to dx/dt of
        the same shape. Second order: x = (positions, velocities), shape (..., 2 n_variables), to (velocities,
        accelerations).
    order : {1, 2}
        Order of the differential equation.
    signs : ndarray of the shape of ``adjacency``, or None
        +1 where the source activates, -1 where it represses, 0 without an edge; None where a sign depends on
        the state.
    """

    name: str
    states: list[FloatArray]
    times: list[FloatArray]
    velocities: list[FloatArray] | None
    inputs: FloatArray | None
    names: tuple[str, ...]
    input_names: tuple[str, ...]
    adjacency: BoolArray
    self_edges: bool
    clean_states: list[FloatArray]
    clean_velocities: list[FloatArray] | None
    slope: Law
    order: int = 1
    signs: AnyArray | None = None

    @property
    def n_trajectories(self) -> int:
        """Number of trajectories."""
        return len(self.states)

    @property
    def n_variables(self) -> int:
        """Number of variables, velocities and inputs not counted."""
        return len(self.names)

    @property
    def n_inputs(self) -> int:
        """Number of inputs."""
        return len(self.input_names)


class Streams(NamedTuple):
    """Independent random streams, so that (say) more noise leaves the law and the starts as they were."""

    law: np.random.Generator
    starts: np.random.Generator
    times: np.random.Generator
    noise: np.random.Generator
    gaps: np.random.Generator


def open_streams(random_state: Seed) -> Streams:
    """Derive the random streams of one data set from a seed, or from five draws of a generator."""
    if isinstance(random_state, np.random.RandomState):  # numpy before 2.2 does not turn it into a Generator
        random_state = random_state.randint(2**31)
    seeds = np.random.default_rng(random_state).integers(2**63, size=len(Streams._fields))
    return Streams(*(np.random.default_rng(int(seed)) for seed in seeds))


@dataclass(frozen=True)
class Sampling:
    """How a system is observed; checks its arguments.

    Parameters
    ----------
    n_trajectories : int
        Number of trajectories, at least 1.
    n_times : int
        Observations per trajectory, at least 2.
    dt : float
        Time between observations on the regular grid 0, dt, ..., (n_times - 1) dt.
    noise : float, default=0.0
        Standard deviation of Gaussian noise as a fraction of each variable's standard deviation over the
        clean data. The first observation is noisy too.
    irregular : bool or float, default=False
        False: the regular grid. True: time 0 and n_times - 1 times uniform over the same span, different in
        every trajectory. A fraction in (0, 1]: the regular grid, of which each trajectory keeps time 0 and a
        random share.
    missing : float, default=0.0
        Share in [0, 1) of the values after the first observation of each trajectory that are replaced by NaN,
        at random. The first observation stays complete, because a trajectory starts there.
    """

    n_trajectories: int
    n_times: int
    dt: float
    noise: float = 0.0
    irregular: bool | float = False
    missing: float = 0.0

    def __post_init__(self) -> None:
        _require(self.n_trajectories >= 1, "n_trajectories must be at least 1", self.n_trajectories)
        _require(self.n_times >= 2, "n_times must be at least 2", self.n_times)
        _require(np.isfinite(self.dt) and self.dt > 0, "dt must be a positive number", self.dt)
        _require(np.isfinite(self.noise) and self.noise >= 0, "noise must be a fraction of at least 0", self.noise)
        _require(0 <= self.missing < 1, "missing must be a share in [0, 1)", self.missing)
        if not isinstance(self.irregular, (bool, np.bool_)):
            rule = "irregular must be True, False or the share of the grid to keep, in (0, 1]"
            _require(0 < self.irregular <= 1, rule, self.irregular)

    @property
    def span(self) -> float:
        """Time of the last observation on the regular grid."""
        return self.dt * (self.n_times - 1)

    def draw_times(self, rng: np.random.Generator) -> FloatArray:
        """Draw the observation times of one trajectory."""
        grid = self.dt * np.arange(self.n_times, dtype=np.float64)
        if isinstance(self.irregular, (bool, np.bool_)):
            return (
                np.concatenate(([0.0], np.sort(rng.uniform(0.0, self.span, self.n_times - 1))))
                if self.irregular
                else grid
            )
        n_kept = max(2, round(float(self.irregular) * self.n_times))
        kept = 1 + rng.choice(self.n_times - 1, n_kept - 1, replace=False)
        return grid[np.concatenate(([0], np.sort(kept)))]


def simulate(
    slope: Law,
    starts: FloatArray,  # (trajectory, state)
    sampling: Sampling,
    streams: Streams,
    *,
    name: str,
    adjacency: BoolArray,  # (target, source)
    names: tuple[str, ...] | None = None,
    inputs: FloatArray | None = None,  # (trajectory, input)
    self_edges: bool = True,
    signs: AnyArray | None = None,
    order: int = 1,
    stiff: bool = False,
) -> SimulatedSystem:
    """Solve a law from given starts, observe it, and pack the result with its truth.

    Each trajectory is solved by itself with scipy's ``solve_ivp`` (DOP853, or LSODA where ``stiff``; rtol
    1e-8).

    Raises
    ------
    RuntimeError
        If the solver gives up on a trajectory.
    """
    n_variables = adjacency.shape[0]
    names = tuple(f"x{i}" for i in range(n_variables)) if names is None else names
    times = [sampling.draw_times(streams.times) for _ in starts]
    clean = [
        _solve(slope, start, t, sampling.span, None if inputs is None else inputs[k], stiff=stiff, name=name)
        for k, (start, t) in enumerate(zip(starts, times, strict=True))
    ]
    observed = _add_noise(clean, sampling.noise, streams.noise)
    gaps = _draw_gaps([len(t) for t in times], n_variables, sampling.missing, streams.gaps)

    def block(paths: list[FloatArray], number: int, masks: list[BoolArray] | None = None) -> list[FloatArray]:
        parts = [path[:, number * n_variables : (number + 1) * n_variables].copy() for path in paths]
        return parts if masks is None else [np.where(m, np.nan, p) for m, p in zip(masks, parts, strict=True)]

    return SimulatedSystem(
        name=name,
        states=block(observed, 0, gaps),
        times=times,
        velocities=block(observed, 1, gaps) if order == 2 else None,
        inputs=inputs,
        names=names,
        input_names=() if inputs is None else tuple(f"u{j}" for j in range(inputs.shape[1])),
        adjacency=adjacency,
        self_edges=self_edges,
        clean_states=block(clean, 0),
        clean_velocities=block(clean, 1) if order == 2 else None,
        slope=slope,
        order=order,
        signs=signs,
    )


def settle(slope: Law, states: FloatArray, duration: float, step: float) -> FloatArray:
    """Carry all states at once towards the attractor by Runge-Kutta steps; accuracy is not the point."""
    with np.errstate(over="ignore", invalid="ignore"):  # what blows up is reported when it is solved
        for _ in range(round(duration / step)):
            a = slope(0.0, states, None)
            b = slope(0.0, states + step / 2 * a, None)
            c = slope(0.0, states + step / 2 * b, None)
            e = slope(0.0, states + step * c, None)
            states = states + step / 6 * (a + 2 * b + 2 * c + e)
    return states


def check_size(what: str, given: int, smallest: int) -> None:
    """Raise a ValueError unless a count is at least the smallest that makes sense."""
    _require(given >= smallest, f"{what} must be at least {smallest}", given)


def _require(holds: bool | np.bool_, rule: str, given: object) -> None:
    if not holds:
        raise ValueError(f"{rule}; got {given!r}. Pass a value inside that range.")


def _solve(
    slope: Law,
    start: FloatArray,
    times: FloatArray,
    span: float,
    u: FloatArray | None,
    *,
    stiff: bool,
    name: str,
) -> FloatArray:
    if not np.isfinite(start).all():
        raise RuntimeError(_unsolved(name, span, "it blew up on the way to its attractor"))
    with np.errstate(over="ignore", invalid="ignore"):
        solution = solve_ivp(
            lambda t, x: slope(t, x, u),
            (0.0, span),
            start,
            method="LSODA" if stiff else "DOP853",
            t_eval=np.minimum(times, span),
            rtol=1e-8,
            atol=1e-10,
        )
    if not (solution.success and np.isfinite(solution.y).all()):
        raise RuntimeError(_unsolved(name, span, f"the solver stopped with: {solution.message}"))
    return np.ascontiguousarray(solution.y.T, dtype=np.float64)


def _unsolved(name: str, span: float, what: str) -> str:
    return (
        f"every trajectory of {name} must have a solution up to t = {span:g}; {what}. "
        "Use fewer or closer times, or milder parameters."
    )


def _add_noise(paths: list[FloatArray], noise: float, rng: np.random.Generator) -> list[FloatArray]:
    scale = noise * np.concatenate(paths).std(axis=0)
    return [path + scale * rng.standard_normal(path.shape) for path in paths]


def _draw_gaps(lengths: list[int], n_variables: int, missing: float, rng: np.random.Generator) -> list[BoolArray]:
    later = [n_times - 1 for n_times in lengths]
    n_values = sum(later) * n_variables
    flat = np.zeros(n_values, dtype=np.bool_)
    flat[rng.permutation(n_values)[: round(missing * n_values)]] = True
    blocks = np.split(flat.reshape(-1, n_variables), np.cumsum(later)[:-1])
    return [np.concatenate((np.zeros((1, n_variables), dtype=np.bool_), block)) for block in blocks]
