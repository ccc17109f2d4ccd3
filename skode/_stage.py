"""The callables that one stage of training hands to the solver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from skode._alike import Alike, together, who_are_alike
from skode._constraints import Constraints
from skode._curvature import MatchingCurvature, start_curvature
from skode._dynamics import Dynamics, tensor
from skode._problem import Problem
from skode._scales import widened_box
from skode._typing import Weights
from skode.fields import PerTargetField
from skode.integrate import Compressed, double_step
from skode.objectives import (
    Rows,
    Windows,
    matching_loss,
    seam_loss,
    solve_windows,
    window_ends,
    window_errors,
    window_loss,
    window_starts,
)
from skode.penalties import AbstractPenalty
from skode.quasi_newton import Precondition
from skode.recipe import Stage

MINIBATCH = 512
"""Rows per iteration of matching; up to twice as many are used all at once."""
STEP_TOLERANCE = 1e-3
"""Root mean square error of states, in standard deviations, that the steps of a training solve may leave.

What they add to the loss is its square: a hundredth of what noise of 1 % leaves. With twice as much a field that is
chaotic learns to make up for it, and forecasts that are longer than windows tell."""
LARGEST_GRID = 16
"""Most steps per observation in a training solve."""
FIRST = 5
"""Intervals of a window, if it is well sampled, on which the steps of its solve are chosen."""
TRIES = 3
"""How often steps are chosen for windows that are cut, and windows cut that are too long for these."""
STIFFNESS = 5.0
"""How much more a jump between two windows costs than an error of the same size at an observation."""
SHIFT = "start.shift"
"""Name of the corrections of window starts among the parameters of a stage."""


Products = Literal["none", "offered", "taken"]
"""Whether bilinear units are offered, to be kept where forecasts are better with them, or taken without asking."""


@dataclass(frozen=True)
class Options:
    """How to train: everything that is the same for all models of a batch."""

    recipe: tuple[Stage, ...]
    max_iter: int
    learning_rate: float
    tol: float
    weight_decay: float
    by_evidence: bool  # whether the last stage takes the decay that the evidence asks for
    products: Products  # what becomes of bilinear units in a refit that widens
    constraints: Constraints | None  # what is known of edges beforehand
    method: str
    initial_exact: bool
    device: torch.device
    dtype: torch.dtype
    report: Callable[[str], None]


class StageLosses:
    """The callables that one stage hands to the solver.

    Parameters
    ----------
    stage : Stage
    dynamics : Dynamics
    penalty : AbstractPenalty
    problem : Problem
    alpha : tensor  # (model,)
    adaptive : tensor or None  # (model, target, variable)
    frozen : dict of tensors  # (model | 1, ...), 1 where an entry may differ from zero
    options : Options
    """

    def __init__(
        self,
        stage: Stage,
        dynamics: Dynamics,
        penalty: AbstractPenalty,
        problem: Problem,
        alpha: torch.Tensor,
        adaptive: torch.Tensor | None,
        frozen: Weights,
        options: Options,
    ) -> None:
        self.stage, self.dynamics, self.penalty, self.problem = stage, dynamics, penalty, problem
        self.alpha, self.adaptive, self.frozen, self.options = alpha, adaptive, frozen, options
        self.strength = alpha.clamp_max(stage.most)
        self.shuffle = torch.Generator().manual_seed(0)
        self.alike: list[Alike] = []
        self.cut_share: list[float] = []  # of every model, share of the times of its windows that do not count
        self.weight_decay: float | torch.Tensor = options.weight_decay
        self.n_checks = 0

    def only(self, model: int) -> StageLosses:
        """The same stage for one of the models."""
        one = slice(model, model + 1)
        frozen = {name: value if len(value) == 1 else value[one] for name, value in self.frozen.items()}
        adaptive = None if self.adaptive is None else self.adaptive[one]
        given = self.stage, self.dynamics, self.penalty, self.problem
        return StageLosses(*given, self.alpha[one], adaptive, frozen, self.options)

    @property
    def can_validate(self) -> bool:
        """Whether there are held-out data that this stage can be stopped by."""
        return self.stage.objective != "trajectory" and self.problem.held_rows is not None

    def start(self, params: Weights) -> Weights:
        """Parameters with which the stage begins; windows add corrections of their starts."""
        params = {**params, **self._masked(params)}
        if self.stage.objective == "match":
            return params
        windows = self.problem.windows if self.stage.objective == "windows" else self.problem.trajectories
        self.alike = self._alike(params, windows)
        if not self.stage.corrects or (self.stage.objective == "trajectory" and self.options.initial_exact):
            return params
        n_models = self.alpha.shape[0]
        return {**params, SHIFT: torch.zeros_like(windows.start).expand(n_models, -1, -1).clone()}

    def finish(self, params: Weights) -> Weights:
        """Parameters of the field alone, the support applied."""
        kept = {name: value for name, value in params.items() if name != SHIFT}
        return {**kept, **self._masked(kept)}  # gates are no weights, and stay

    def loss(self, params: Weights, iteration: int) -> torch.Tensor:
        """Sum over the moving targets of their data loss, plus the differentiable penalty.  # (model,)

        Entries outside the support are zero in ``start``, and the solver leaves them alone.
        """
        one = {name: value[:1] for name, value in params.items()}
        # One draw of the gates serves all models: a model's fit does not depend on which others run beside it.
        noise = self.penalty.noise(self.dynamics.field, one, self.shuffle)
        effective = self.penalty.weights(self.dynamics.field, params, noise)
        weights = {name: effective[name] for name in self.frozen}
        total = self._data_loss(weights, params.get(SHIFT))[:, self.problem.moving].sum(-1)
        if self.stage.press != "none":
            smooth = self.penalty.smooth(self.dynamics.field, params, prices=self._prices())
            total = total if smooth is None else total + self.strength * smooth
        return total

    def decay(self, name: str) -> float | torch.Tensor:
        """Price of the squares of a parameter: weight matrices pay, biases are free."""
        field = self.dynamics.field
        return self.weight_decay if name in field.chain or name in field.entries else 0.0

    def prox(self, params: Weights, metric: Weights) -> None:
        """The penalty's proximal map at this stage's strength, then what is known beforehand; changes params."""
        field, known = self.dynamics.field, self.options.constraints
        if self.stage.press != "none":
            prices = self._prices()
            if prices is not None:
                prices = prices.expand(len(self.alpha), -1, -1) if self.adaptive is None else prices * self.adaptive
            else:
                prices = self.adaptive
            self.penalty.prox(field, params, alpha=self.strength, metric=metric, adaptive=prices)
        if known is not None:
            if bool(known.free.any()):
                self.penalty.hold(field, params, known.free)
            known.project(field, params)

    def curvature(self, params: Weights) -> Precondition | None:
        """What L-BFGS starts from; None where the stage or the field leaves the loss to Adam.

        With it goes the weight decay of the stage, where that is left to the evidence.
        """
        field, problem, known = self.dynamics.field, self.problem, self.options.constraints
        smooth = self.stage.press == "none" and (known is None or not bool(known.signs.any()))
        if not (self.stage.second_order and smooth and isinstance(field, PerTargetField)):
            return None
        weights = {name: value for name, value in params.items() if name != SHIFT}
        matching = MatchingCurvature(
            field,
            weights,
            self.frozen,
            problem.rows,
            problem.matching,
            self.options.weight_decay,
            problem.freedom if self.options.by_evidence else None,
        )
        self.weight_decay = matching.weight_decay[..., None, None].to(self.alpha.dtype)
        if SHIFT not in params:
            return matching

        def bends(weights: Weights, start: torch.Tensor, who: Alike) -> torch.Tensor:
            def solve(some: torch.Tensor) -> torch.Tensor:
                return self._solved(weights, who.windows, some, who.n_steps, None)

            return start_curvature(solve, start, who.windows, problem.shooting, STIFFNESS)

        starts = together(bends, self.alike, self._masked(weights), self._starts(problem.windows, params[SHIFT]))

        def inverse(gradient: Weights) -> Weights:
            moved = matching({name: value for name, value in gradient.items() if name != SHIFT})
            return {name: gradient[SHIFT] / starts if name == SHIFT else moved[name] for name in gradient}

        return inverse

    @property
    def steps_aside(self) -> bool:
        """Whether anything follows the steps of the solver."""
        return self.stage.press != "none" or self.options.constraints is not None

    def held_out(self, params: Weights) -> torch.Tensor:
        """Held-out loss; where the penalty is on, the latest check always wins.  # (model,), or (model, window)"""
        self.n_checks += 1
        weights = self.finish(self.penalty.weights(self.dynamics.field, params))
        problem = self.problem
        assert problem.held_rows is not None and problem.held_windows is not None
        if self.stage.objective == "windows":
            states = self._solutions(weights, problem.held_windows, self._starts(problem.held_windows, None))
            errors = window_errors(states, problem.held_windows, problem.shooting)[..., problem.moving]
            return errors.sum(-1).nan_to_num(nan=torch.inf)
        loss = matching_loss(self.dynamics.field, weights, problem.held_rows, problem.matching)
        total = loss[:, problem.moving].sum(-1).nan_to_num(nan=torch.inf)
        if self.stage.press == "none":
            return total
        return torch.where((self.alpha > 0) & total.isfinite(), -float(self.n_checks), total)

    def _prices(self) -> torch.Tensor | None:
        known = self.options.constraints
        return None if known is None else known.prices

    def _masked(self, weights: Weights) -> Weights:
        return {name: value * self.frozen[name] for name, value in weights.items() if name in self.frozen}

    def _data_loss(self, weights: Weights, shift: torch.Tensor | None) -> torch.Tensor:
        problem = self.problem
        if self.stage.objective == "match":
            return matching_loss(self.dynamics.field, weights, self._minibatch(problem.rows), problem.matching)
        if self.stage.objective == "windows":
            return self._window_loss(weights, problem.windows, problem.shooting, shift)
        return self._window_loss(weights, problem.trajectories, problem.whole, shift)

    def _window_loss(
        self, weights: Weights, windows: Windows, scale: torch.Tensor, shift: torch.Tensor | None
    ) -> torch.Tensor:
        """Loss of all models, side by side those that ask for equal steps.  # (model, target)"""
        start = self._starts(windows, shift)

        def loss(weights: Weights, some: torch.Tensor, who: Alike) -> torch.Tensor:
            states = self._solved(weights, who.windows, some, who.n_steps, who.rows)
            data = window_loss(states, who.windows, scale, who.rows)
            if not self.ties:
                return data
            return data + STIFFNESS * seam_loss(window_ends(states, who.rows), some, who.windows, scale)

        return together(loss, self.alike, weights, start)

    @property
    def ties(self) -> bool:
        """Whether windows are tied at their seams.

        Starts that stay as they are would tell of their own noise there, and nothing follows a whole trajectory.
        """
        return self.stage.objective == "windows" and self.stage.corrects

    def _starts(self, windows: Windows, shift: torch.Tensor | None) -> torch.Tensor:
        return window_starts(windows, shift, self.alpha.shape[0])

    def _solutions(self, weights: Weights, windows: Windows, start: torch.Tensor) -> torch.Tensor:
        """Solutions of all models at the observation times.  # (model, window, time, state)"""

        def solve(weights: Weights, some: torch.Tensor, who: Alike) -> torch.Tensor:
            return self._solved(weights, windows, some, who.n_steps, None)

        return together(solve, self.alike, weights, start)

    def _alike(self, params: Weights, windows: Windows) -> list[Alike]:
        """Choose steps for every model, and cut its windows where its solutions leave the box of predictions.

        What comes after says little of where a field that runs away should turn back, and would hold up all else. A
        field that runs away everywhere is left as it is, and fails.
        """
        weights = self._masked(self.penalty.weights(self.dynamics.field, params))
        n_steps, n_times, self.cut_share = [], [], []
        size = windows.after.new_full((len(windows.start),), windows.times.shape[1])
        for model in range(len(self.alpha)):
            own = {name: value[model : model + 1] for name, value in weights.items()}
            n, seen = self._grid(own, windows), size
            if self.stage.objective == "windows":
                seen = self._inside(own, windows, n)
                for _ in range(TRIES if bool((seen > 1).any()) and bool((seen < size).any()) else 0):
                    cut = windows.cut(seen)
                    n, before = self._grid(own, cut), seen
                    seen = torch.minimum(seen, self._inside(own, cut, n))
                    if torch.equal(seen, before):
                        break
            self.cut_share.append(1.0 - float(seen.sum() / size.sum()))
            n_steps.append(n)
            n_times.append(seen if bool((seen > 1).any()) else size)
        compressed = self.options.method == "rk4"
        return who_are_alike(n_steps, torch.stack(n_times), windows, compressed=compressed, ends=self.ties)

    @torch.no_grad()
    def _inside(self, weights: Weights, windows: Windows, n_steps: int) -> torch.Tensor:
        """How many times of every window one model's solution stays in the box; the first always counts."""
        states = solve_windows(self.dynamics, weights, windows, windows.start.unsqueeze(0), n_steps=n_steps)[0]
        low, high = (tensor(edge, states) for edge in widened_box(self.dynamics.scales))
        inside = ((states >= low) & (states <= high)).all(dim=-1)
        inside[:, 0] = True
        return inside.long().cumprod(dim=1).sum(dim=1)

    def _solved(
        self, weights: Weights, windows: Windows, start: torch.Tensor, n_steps: int, rows: Compressed | None
    ) -> torch.Tensor:
        method = self.options.method
        return solve_windows(self.dynamics, weights, windows, start, n_steps=n_steps, method=method, compressed=rows)

    def _minibatch(self, rows: Rows) -> Rows:
        n_rows = rows.slopes.shape[0]
        if n_rows <= 2 * MINIBATCH or self.stage.second_order:
            return rows
        return rows.select(torch.randint(n_rows, (MINIBATCH,), generator=self.shuffle).to(rows.slopes.device))

    def _grid(self, weights: Weights, windows: Windows) -> int:
        """Steps per solve of one model: as many as states need to stand still, at first one per datum.

        Of long windows the first part tells: a solution that later runs away never stands still.
        """
        n_intervals = windows.times.shape[1] - 1
        short = FIRST * self.problem.oversampling
        if self.stage.objective == "windows" and n_intervals > short:
            first = windows._replace(times=windows.times[:, : short + 1])
            return -(-self._grid(weights, first) * n_intervals // short)
        n_times = max(2, -(-n_intervals // self.problem.oversampling))
        slope = self.dynamics.slope(weights, windows.inputs, windows.origin).value
        start, most = windows.start.unsqueeze(0), LARGEST_GRID * max(2, n_intervals)
        return double_step(slope, start, windows.times, STEP_TOLERANCE, n_steps=n_times, max_steps=most).n_steps
