"""prox_adam on problems whose solution is known: quadratics, the lasso, and models that blow up."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import Lasso

from skode._typing import Weights
from skode.solvers import Flat, Loss, Prox, prox_adam


def zeros(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.float64)


def soft_threshold(alpha: torch.Tensor) -> Prox:
    def prox(params: Weights, metric: Weights) -> None:
        x = params["x"]
        x.copy_(x.sign() * (x.abs() - alpha[:, None] / metric["x"]).clamp_min(0))

    return prox


def test_quadratic_reaches_its_closed_form_minimum() -> None:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(3, 4, 4, generator=generator, dtype=torch.float64)
    curvature = root @ root.mT + torch.eye(4, dtype=torch.float64)
    linear = torch.randn(3, 4, generator=generator, dtype=torch.float64)

    def loss(params: Weights, iteration: int) -> torch.Tensor:
        x = params["x"]
        return 0.5 * (x * (curvature @ x.unsqueeze(-1)).squeeze(-1)).sum(-1) - (linear * x).sum(-1)

    solved = prox_adam(loss, {"x": zeros(3, 4)}, n_iter=2000, learning_rate=0.05)
    expected = torch.linalg.solve(curvature, linear)
    torch.testing.assert_close(solved.params["x"], expected, rtol=0, atol=1e-4)
    assert bool(solved.converged.all())
    assert not bool(solved.failed.any())


def test_lasso_equals_scikit_learn_with_exact_zeros() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 8)) * np.linspace(0.3, 3, 8)
    y = X @ np.array([3.0, 0, 0, -1.0, 0, 0.5, 0, 0]) + 0.1 * rng.normal(size=60)
    alphas = np.array([0.05, 0.3, 1.0])
    data, target = torch.tensor(X), torch.tensor(y)

    def loss(params: Weights, iteration: int) -> torch.Tensor:
        return 0.5 * (params["x"] @ data.mT - target).square().mean(-1)

    solved = prox_adam(
        loss,
        {"x": zeros(3, 8)},
        n_iter=4000,
        learning_rate=0.02,
        prox=soft_threshold(torch.tensor(alphas)),
    )
    for model, alpha in enumerate(alphas):
        expected = Lasso(alpha=alpha, fit_intercept=False, tol=1e-12, max_iter=100_000).fit(X, y).coef_
        found = solved.params["x"][model].numpy()
        np.testing.assert_allclose(found, expected, atol=2e-3)
        np.testing.assert_array_equal(found == 0, expected == 0)


def bowl_with_hole(bad: torch.Tensor) -> Loss:
    """Model losses (x - 1)^2; models marked bad turn to nan once x has moved past 0.2."""

    def loss(params: Weights, iteration: int) -> torch.Tensor:
        x = params["x"]
        return (x - 1).square().sum(-1) * torch.where(bad & (x.detach()[:, 0] > 0.2), torch.nan, 1.0)

    return loss


def test_a_diverging_neighbour_changes_nothing() -> None:
    alone = prox_adam(bowl_with_hole(torch.tensor([False])), {"x": zeros(1, 2)}, n_iter=300, learning_rate=0.05)
    beside = prox_adam(
        bowl_with_hole(torch.tensor([True, False, True])), {"x": zeros(3, 2)}, n_iter=300, learning_rate=0.05
    )
    assert torch.equal(beside.params["x"][1], alone.params["x"][0])
    assert torch.equal(beside.losses[:, 1], alone.losses[:, 0])
    assert beside.failed.tolist() == [True, False, True]
    assert bool(torch.isfinite(beside.params["x"]).all())
    assert not bool(beside.converged[0])


def test_an_infinite_gradient_is_caught_where_the_loss_is_finite() -> None:
    def loss(params: Weights, iteration: int) -> torch.Tensor:
        return (params["x"] - 1).square().sum(-1) + params["x"].sum(-1).clamp_min(0).sqrt()

    solved = prox_adam(loss, {"x": zeros(1, 2)}, n_iter=40, learning_rate=0.1)
    assert solved.failed.tolist() == [True]
    assert torch.equal(solved.params["x"], zeros(1, 2))


def test_a_passing_failure_is_survived() -> None:
    def loss(params: Weights, iteration: int) -> torch.Tensor:
        value = (params["x"] - 1).square().sum(-1)
        return value * torch.nan if iteration in (3, 4) else value

    solved = prox_adam(loss, {"x": zeros(1, 2)}, n_iter=1500, learning_rate=0.1)
    assert solved.failed.tolist() == [False]
    torch.testing.assert_close(solved.params["x"], torch.ones(1, 2, dtype=torch.float64), rtol=0, atol=1e-3)


def test_same_start_gives_the_same_result_and_leaves_the_start_alone() -> None:
    start = {"x": zeros(2, 2), "y": zeros(2, 3, 1)}

    def loss(params: Weights, iteration: int) -> torch.Tensor:
        return (params["x"] - 1).square().sum(-1) + (params["y"] + 2).square().sum((-2, -1))

    first = prox_adam(loss, start, n_iter=50, learning_rate=0.1)
    second = prox_adam(loss, start, n_iter=50, learning_rate=0.1)
    for name, value in start.items():
        assert torch.equal(first.params[name], second.params[name])
        assert bool((value == 0).all())
        assert not first.params[name].requires_grad


def test_unused_parameters_stay_where_they_are() -> None:
    solved = prox_adam(
        lambda params, iteration: params["x"].square().sum(-1),
        {"x": zeros(1, 2) + 1, "idle": zeros(1, 3) + 7},
        n_iter=20,
        learning_rate=0.1,
    )
    assert torch.equal(solved.params["idle"], zeros(1, 3) + 7)


def test_too_few_iterations_are_not_called_converged() -> None:
    solved = prox_adam(
        lambda params, iteration: (params["x"] - 100).square().sum(-1),
        {"x": zeros(1, 1)},
        n_iter=100,
        learning_rate=0.1,
    )
    assert solved.converged.tolist() == [False]


def test_validation_keeps_each_model_at_its_best_check_the_start_among_them() -> None:
    wanted = torch.tensor([[0.4], [-5.0], [2.0]], dtype=torch.float64)
    visited: list[torch.Tensor] = []

    def validate(params: Weights) -> torch.Tensor:
        visited.append(params["x"].detach().clone())
        return (params["x"].detach() - wanted).square().sum(-1)

    solved = prox_adam(
        lambda params, iteration: (params["x"] - 1).square().sum(-1),
        {"x": zeros(3, 1)},
        n_iter=200,
        learning_rate=0.02,
        validate=validate,
    )
    path = torch.stack(visited)
    best = (path - wanted).square().sum(-1).argmin(0)
    torch.testing.assert_close(solved.params["x"], path[best, torch.arange(3)])
    assert float(solved.params["x"][1]) == 0.0
    assert 0.2 < float(solved.params["x"][0]) < 0.6


def test_flat_views_share_memory_and_keep_names_and_shapes() -> None:
    params = {"b": zeros(2, 3) + 1, "a": zeros(2, 2, 2) + 2}
    flat = Flat(params)
    assert flat.vector.shape == (2, 7)
    views = flat.views(flat.vector)
    assert list(views) == ["b", "a"]
    views["a"][1, 0, 1] = 9.0
    assert flat.vector[1].tolist() == [1, 1, 1, 2, 9, 2, 2]
