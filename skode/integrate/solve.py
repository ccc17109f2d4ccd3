"""Solutions at given times: Runge-Kutta steps in one batch, or torchdiffeq trajectory by trajectory."""

from __future__ import annotations

from typing import Protocol, TypeVar

import torch
import torchdiffeq

from skode.integrate.buckets import share_out
from skode.integrate.runge_kutta import Nodes, Slope, hermite, rk4

FIXED = ("euler", "midpoint", "heun2", "heun3", "explicit_adams", "implicit_adams")
ADAPTIVE = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")
METHODS = ("rk4", *ADAPTIVE, *FIXED)
MAX_STEPS = 20_000


AnySlope = TypeVar("AnySlope", bound=Slope)
SlopeOf = TypeVar("SlopeOf", contravariant=True)


class March(Protocol[SlopeOf]):
    """A way to take Runge-Kutta steps: ``rk4`` for any slope, ``rk4_adjoint`` for those that pull gradients back."""

    def __call__(
        self,
        slope: SlopeOf,
        x0: torch.Tensor,
        step: torch.Tensor,
        n_steps: int,
        *,
        origin: torch.Tensor | None = None,
        index: torch.Tensor | None = None,
    ) -> Nodes:
        """Take all steps."""


def integrate(
    slope: AnySlope,
    x0: torch.Tensor,
    times: torch.Tensor,
    *,
    method: str = "rk4",
    n_steps: int = 20,
    origin: torch.Tensor | None = None,
    rtol: float = 1e-6,
    atol: float = 1e-8,
    march: March[AnySlope] = rk4,
) -> torch.Tensor:
    """Solve dx/dt = slope from x0 and return the states at every time, differentiably.

    `"rk4"` takes `n_steps` steps from 0 to the latest time of each trajectory and as many to its earliest
    negative time, all trajectories and models in one batch, with cubic Hermite interpolation between the
    steps. Where many trajectories are much shorter than the longest they take fewer (see `share_out`). Every
    other method is handed to torchdiffeq, one model and one trajectory at a time, so that no two ever share an
    error norm or a step size.

    Parameters
    ----------
    slope : callable (t, x, index) -> dx/dt
        t (model, trajectory), x (model, trajectory, state), index (trajectory,) the positions of these
        trajectories among those of `x0`; dx/dt like x. With torchdiffeq x is one trajectory, repeated over
        the models.
    x0 : tensor, shape (model, trajectory, state)
        States at elapsed time 0.
    times : tensor, shape (trajectory, time)
        Elapsed times: both signs, any order, repeated or not. Pad short trajectories by repeating a time.
    method : str, default "rk4"
        One of `METHODS`.
    n_steps : int, default 20
        Steps of the longest trajectory and direction, of "rk4" and the other fixed-step methods.
    origin : tensor, shape (trajectory,), default None
        What the field's clock shows at x0; None is 0.
    rtol, atol : float, default 1e-6 and 1e-8
        Tolerances of the adaptive methods, atol in the units of the states.
    march : callable, default rk4
        How "rk4" takes its steps: `rk4` leaves the gradient to autograd, `rk4_adjoint` gives the same faster.

    Returns
    -------
    tensor, shape (model, trajectory, time, state)
        nan where a trajectory failed ("rk4": from the failed step on; torchdiffeq: that direction of that
        trajectory).

    Raises
    ------
    ValueError
        If the method is unknown, `n_steps` is below 1 or the shapes do not fit.

    References
    ----------
    .. [1] Chen, "torchdiffeq", 2018, https://github.com/rtqichen/torchdiffeq.

    Examples
    --------
    >>> import torch
    >>> x0 = torch.ones(1, 1, 1, dtype=torch.float64)
    >>> times = torch.tensor([[1.0, -1.0, 0.0]], dtype=torch.float64)
    >>> integrate(lambda t, x, index: -x, x0, times).flatten().round(decimals=4).tolist()
    [0.3679, 2.7183, 1.0]
    """
    _check(x0, times, method, n_steps)
    clock = torch.zeros_like(times[:, 0]) if origin is None else origin
    out = x0[:, :, None, :].expand(-1, -1, times.shape[1], -1)
    for sign in (1.0, -1.0):
        ahead = sign * times > 0.0  # (trajectory, time)
        active = torch.nonzero(ahead.any(dim=1))[:, 0]
        if len(active) == 0:
            continue
        wanted = torch.where(ahead, times, 0.0)[active]
        span = sign * (sign * wanted).amax(dim=1)
        solved = []
        if method == "rk4":
            buckets = share_out(span, wanted, n_steps, n_models=x0.shape[0])
            for some, n in buckets:
                mine, step = active[some], span[some] / n
                nodes = march(slope, x0[:, mine], step, n, origin=clock[mine], index=mine)
                solved.append(_unpadded(nodes, step, wanted[some]))
            part = torch.cat(solved, dim=1)
            active = torch.cat([active[some] for some, _ in buckets])
        else:
            options: dict[str, object] = {"max_num_steps": MAX_STEPS}
            for i, trajectory in enumerate(active):
                if method in FIXED:
                    options = {"step_size": float(span[i].abs()) / n_steps}
                solved.append(_one(slope, x0, trajectory, wanted[i], clock[trajectory], method, rtol, atol, options))
            part = torch.stack(solved, dim=1)
        part = torch.where(ahead[active][..., None], part, out[:, active])
        out = out.index_copy(1, active, part)
    return out


def _unpadded(nodes: Nodes, step: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """Interpolate up to the last time that differs from the one before; the rest repeats it."""
    changes = (times[:, 1:] != times[:, :-1]).any(dim=0)
    n_used = 1 + int(changes.nonzero()[-1]) + 1 if bool(changes.any()) else 1
    found = hermite(nodes, step, times[:, :n_used])
    n_rest = times.shape[1] - n_used
    return torch.cat([found, found[:, :, -1:].expand(-1, -1, n_rest, -1)], dim=2) if n_rest else found


def _one(
    slope: Slope,
    x0: torch.Tensor,  # (model, trajectory, state)
    trajectory: torch.Tensor,  # ()
    wanted: torch.Tensor,  # (time,) of one sign, or 0
    clock: torch.Tensor,  # ()
    method: str,
    rtol: float,
    atol: float,
    options: dict[str, object],
) -> torch.Tensor:  # (model, time, state)
    """Solve one trajectory by torchdiffeq, model after model."""
    n_models = x0.shape[0]
    index = trajectory[None]
    distinct, place = torch.unique(wanted.abs(), return_inverse=True)
    direction = -1.0 if bool((wanted < 0.0).any()) else 1.0
    distinct = torch.cat([distinct.new_zeros(1), distinct[distinct > 0.0]])
    place = place if bool((wanted == 0.0).any()) else place + 1
    grid = direction * distinct
    if method in ADAPTIVE:
        options = {**options, "step_t": grid[1:]}  # step onto the times: dense output loses digits
    solved = []
    for model in range(n_models):

        def alone(t: torch.Tensor, x: torch.Tensor, model: int = model) -> torch.Tensor:
            everywhere = x.expand(n_models, 1, -1)
            return slope((clock + t).expand(n_models, 1), everywhere, index)[model, 0]

        start = x0[model, trajectory]
        try:
            states = torchdiffeq.odeint(alone, start, grid, rtol=rtol, atol=atol, method=method, options=options)
        except AssertionError:  # torchdiffeq's word for a blow-up: underflow of the step, or too many steps
            states = torch.full((len(distinct), len(start)), torch.nan, dtype=x0.dtype, device=x0.device)
        solved.append(states[place])
    return torch.stack(solved)


def _check(x0: torch.Tensor, times: torch.Tensor, method: str, n_steps: int) -> None:
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}. Choose one of them.")
    if n_steps < 1:
        raise ValueError(f"n_steps must be at least 1; got {n_steps}. Ask for one step or more.")
    if x0.ndim != 3 or times.ndim != 2 or times.shape[0] != x0.shape[1] or times.shape[1] == 0:
        raise ValueError(
            "x0 must be (model, trajectory, state) and times (trajectory, time) with one time or more; got "
            f"{tuple(x0.shape)} and {tuple(times.shape)}. Add the missing axes."
        )
