"""L-BFGS on problems whose solution is known, and the curvature of the matching loss against autograd."""

from __future__ import annotations

import pytest
import torch

from skode._curvature import DAMPING, MatchingCurvature, start_curvature
from skode._typing import Weights
from skode.fields import PerTargetField
from skode.objectives import Rows, Windows, matching_loss, matching_scale
from skode.quasi_newton import _Memory, lbfgs


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bowl(curvature: torch.Tensor, linear: torch.Tensor):
    symmetric = 0.5 * (curvature + curvature.mT)

    def loss(params: Weights, iteration: int) -> torch.Tensor:
        x = params["x"]
        return 0.5 * (x * (symmetric @ x.unsqueeze(-1)).squeeze(-1)).sum(-1) - (linear * x).sum(-1)

    return loss, symmetric


def positive(n_models: int = 3, n: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    root, linear = draw(n_models, n, n), draw(n_models, n, seed=1)
    scale = torch.logspace(-1, 1, n, dtype=torch.float64)
    return scale[:, None] * (root @ root.mT + torch.eye(n)) * scale, linear


def test_quadratics_reach_their_closed_form_minima() -> None:
    curvature, linear = positive()
    loss, _ = bowl(curvature, linear)
    solved = lbfgs(loss, {"x": torch.zeros_like(linear)}, n_iter=300, memory=30)
    torch.testing.assert_close(solved.params["x"], torch.linalg.solve(curvature, linear), rtol=1e-5, atol=1e-6)
    assert bool(solved.converged.all()) and not bool(solved.failed.any())


def test_the_exact_curvature_finds_a_quadratic_minimum_in_one_step() -> None:
    curvature, linear = positive()
    loss, _ = bowl(curvature, linear)

    def inverse(gradient: Weights) -> Weights:
        return {"x": torch.linalg.solve(curvature, gradient["x"])}

    solved = lbfgs(loss, {"x": torch.zeros_like(linear)}, n_iter=2, precondition=inverse)
    torch.testing.assert_close(solved.params["x"], torch.linalg.solve(curvature, linear), rtol=1e-8, atol=1e-8)


def test_rosenbrock_in_ten_variables_reaches_its_minimum_and_never_rises() -> None:
    def loss(params: Weights, iteration: int) -> torch.Tensor:
        x = params["x"]
        return (100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).sum(-1)

    solved = lbfgs(loss, {"x": torch.linspace(-1.0, 1.5, 10, dtype=torch.float64)[None]}, n_iter=250)
    torch.testing.assert_close(solved.params["x"], torch.ones(1, 10).double(), rtol=0, atol=1e-4)
    assert bool((solved.losses.diff(dim=0) <= 0).all())


def test_neighbours_change_nothing_even_if_they_blow_up() -> None:
    curvature, linear = positive(2)

    def loss(holes: torch.Tensor):
        def value(params: Weights, iteration: int) -> torch.Tensor:
            smooth = bowl(curvature[-len(holes) :], linear[-len(holes) :])[0](params, iteration)
            return torch.where(holes & (iteration % 3 == 1), torch.nan, smooth)

        return value

    alone = lbfgs(loss(torch.tensor([False])), {"x": torch.zeros(1, 12).double()}, n_iter=30)
    beside = lbfgs(loss(torch.tensor([True, False])), {"x": torch.zeros(2, 12).double()}, n_iter=30)
    torch.testing.assert_close(beside.params["x"][1], alone.params["x"][0], rtol=1e-8, atol=1e-10)
    assert bool(beside.params["x"].isfinite().all())
    lost = lbfgs(lambda p, i: p["x"].sum(-1) * torch.nan, {"x": torch.ones(1, 3).double()}, n_iter=5)
    assert bool(lost.failed.all()) and torch.equal(lost.params["x"], torch.ones(1, 3).double())


@pytest.mark.parametrize("n_pairs", [1, 4, 5, 8])
def test_the_memory_gives_the_inverse_that_the_update_of_bfgs_builds_up(n_pairs: int) -> None:
    """H <- (1 - s y' / s'y) H (1 - y s' / s'y) + s s' / s'y, over the last pairs, from the scaled known curvature."""
    n_models, n, size = 3, 6, 4
    root = draw(n_models, n, n)
    known, eye = root @ root.mT + torch.eye(n), torch.eye(n).double()
    memory = _Memory(lambda x: (known @ x.unsqueeze(-1)).squeeze(-1), size, draw(n_models, n))
    pairs, gain = [], torch.ones(n_models).double()
    for k in range(n_pairs):
        step, change, good = draw(n_models, n, seed=2 * k), draw(n_models, n, seed=2 * k + 1), draw(3, seed=k) > -0.5
        change = change * (step * change).sum(1, keepdim=True).sign()
        change[0] *= -1.0 if k == 2 else 1.0  # bends downwards, and is left out
        if k == 3:
            memory.forget(torch.tensor([False, True, False]))
            pairs = [(s, y, g & torch.tensor([True, False, True])) for s, y, g in pairs]
        memory.add(step, change, good)
        good = good & ((step * change).sum(1) > 0)
        length = torch.einsum("ma,mab,mb->m", change, known, change)
        gain = torch.where(good, (step * change).sum(1) / length, gain)
        pairs = [*pairs, (step, change, good)][-size:]
    gradient = draw(n_models, n, seed=99)
    found = memory.direction(gradient)
    for model in range(n_models):
        inverse = gain[model] * known[model]
        for step, change, good in pairs:
            if good[model]:
                s, y = step[model], change[model]
                left = eye - torch.outer(s, y) / (s @ y)
                inverse = left @ inverse @ left.mT + torch.outer(s, s) / (s @ y)
        torch.testing.assert_close(found[model], -inverse @ gradient[model], rtol=1e-9, atol=1e-9)


def test_it_ends_where_the_held_out_loss_was_lowest() -> None:
    curvature, linear = positive(1)
    loss, _ = bowl(curvature, linear)
    start = draw(1, 12, seed=5)
    solved = lbfgs(loss, {"x": start}, n_iter=30, validate=lambda params: (params["x"] - start).abs().sum(-1))
    assert torch.equal(solved.params["x"], start)


def test_a_model_without_better_checks_stands_still_and_its_neighbour_goes_on() -> None:
    curvature, linear = positive(1)
    one, _ = bowl(curvature, linear)
    start = draw(1, 12, seed=5)

    def both(params: Weights, iteration: int) -> torch.Tensor:
        return torch.cat([one({"x": params["x"][k : k + 1]}, iteration) for k in range(2)])

    def held_out(params: Weights) -> torch.Tensor:  # the first model gets worse at every step, the second better
        away = (params["x"] - start).abs().sum(-1)
        return torch.stack([away[0], -away[1]])[:, None].expand(-1, 3) + torch.tensor([0.0, 1e-3, 2e-3])

    options = {"n_iter": 40, "n_checks": 40, "patience": 12}
    pair = lbfgs(both, {"x": start.repeat(2, 1)}, validate=held_out, **options)
    alone = lbfgs(one, {"x": start}, validate=lambda p: held_out({"x": p["x"].repeat(2, 1)})[:1], **options)
    assert alone.n_iter < 20 < pair.n_iter
    torch.testing.assert_close(pair.params["x"][:1], alone.params["x"])
    assert not torch.equal(pair.params["x"][1:], start)


@pytest.mark.parametrize("second", [False, True])
def test_starts_bend_the_loss_by_the_root_of_what_their_windows_grow(second: bool) -> None:
    """x' = r x of every window: the loss bends by the sum of squares of exp(r t), instead of by the start alone."""
    rates, stiffness, d = torch.tensor([0.0, 1.0, 3.0]).double(), 5.0, 2
    times = torch.linspace(0, 1, 5).double()
    n_states = 2 * d if second else d
    start = draw(1, 3, n_states, seed=2)
    windows = Windows(
        start=start[0],
        spread=torch.full((3, n_states), 0.1).double(),
        times=times.expand(3, -1),
        targets=torch.zeros(3, 5, d).double(),
        weights=torch.ones(3, 5, d).double(),
        inputs=torch.zeros(3, 0).double(),
        origin=torch.zeros(3).double(),
        after=torch.tensor([1, -1, -1]),
    )
    scale = torch.tensor([1.0, 4.0]).double()
    grown = torch.exp(rates[:, None] * times)  # (window, time)

    def solve(start: torch.Tensor) -> torch.Tensor:
        return start.unsqueeze(2) * grown[None, :, :, None]

    bends = grown.square().sum(1) + torch.tensor([stiffness, 0, 0]).double() * grown[:, -1].square()
    growth = (bends / (1.0 + stiffness)).clamp_min(1.0)
    own = 2.0 * (1.0 + stiffness) / (15.0 * scale) * 0.1**2
    expected = growth.sqrt()[:, None] * own.repeat(2 if second else 1)
    torch.testing.assert_close(start_curvature(solve, start, windows, scale, stiffness)[0], expected)


VARIABLES = (0, 1, 2, 0)


@pytest.mark.parametrize("n_bilinear", [0, 2])
@pytest.mark.parametrize("hidden", [(4,), (3, 2)])
def test_the_curvature_is_gauss_newton_of_the_matching_loss_on_the_open_entries(
    n_bilinear: int, hidden: tuple[int, ...]
) -> None:
    field = PerTargetField(3, 4, hidden, "tanh", VARIABLES, n_bilinear=n_bilinear)
    generator = torch.Generator().manual_seed(0)
    weights = field.init(generator, n_models=2, dtype=torch.float64, device=torch.device("cpu"))
    frozen = {name: torch.ones_like(value) for name, value in weights.items()}
    for name in field.entries:
        frozen[name][0, 0, :, 1:3] = 0.0
        frozen[name][1, 2, :, 0] = 0.0
    weights = {name: value * frozen[name] for name, value in weights.items()}
    rows = Rows(draw(30, 2, 4), torch.full((30, 2), 0.5).double(), draw(30, 3, seed=3), draw(30, 3, seed=4).abs())
    scale = matching_scale(rows)
    curvature = MatchingCurvature(field, weights, frozen, rows, scale, weight_decay=0.01)

    names = list(weights)
    shapes = [weights[name].shape[2:] for name in names]

    def flat(named: Weights, model: int, target: int) -> torch.Tensor:
        return torch.cat([named[name][model, target].flatten() for name in names])

    residuals = rows._replace(slopes=torch.zeros_like(rows.slopes))
    for model, target in ((0, 0), (1, 2), (1, 0)):
        alone = {name: value[model : model + 1] for name, value in weights.items()}

        def mean(theta: torch.Tensor, alone: Weights = alone, target: int = target) -> torch.Tensor:
            parts = theta.split([shape.numel() for shape in shapes])
            moved = {name: alone[name].clone() for name in names}
            for name, part, shape in zip(names, parts, shapes, strict=True):
                moved[name][0, target] = part.view(shape)
            slopes = field(moved, residuals.sources.flatten(0, 1)[None])[0, :, target]
            return slopes.view(30, 2).mean(1)

        theta = flat(weights, model, target)
        jacobian = torch.autograd.functional.jacobian(mean, theta)
        free = flat(frozen, model, target)
        jacobian = jacobian * free
        share = rows.weights[:, target] / (rows.weights[:, target].sum() * scale[target])
        decayed = torch.cat(
            [
                torch.full((shape.numel(),), float(not name.startswith("b")))
                for name, shape in zip(names, shapes, strict=True)
            ]
        ).double()
        bend = 2 * jacobian.mT @ (share[:, None] * jacobian) + torch.diag(0.02 * decayed + DAMPING)
        gradient = {name: draw(*value.shape, seed=7) for name, value in weights.items()}
        expected = torch.linalg.solve(bend, flat(gradient, model, target) * free) * free
        torch.testing.assert_close(flat(curvature(gradient), model, target), expected, rtol=1e-6, atol=1e-6)
    assert bool((matching_loss(field, weights, rows, scale) > 0).all())
