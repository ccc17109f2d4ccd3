"""The weight decay that the evidence asks for, against scikit-learn's Bayesian ridge regression and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import BayesianRidge

from skode import SparseNODERegressor, from_trajectories
from skode._curvature import DAMPING, MatchingCurvature
from skode._evidence import LEAST, MOST, evidence_decay
from skode.datasets import make_lotka_volterra
from skode.fields import PerTargetField
from skode.objectives import Rows, matching_loss, matching_scale
from skode.quasi_newton import lbfgs
from skode.solvers import prox_adam


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("noise", [0.1, 0.3, 1.0])
def test_bayesian_ridge_regression_is_a_fixed_point(noise: float) -> None:
    rng = np.random.default_rng(0)
    X, w = rng.standard_normal((400, 12)), rng.standard_normal(12)
    y = X @ w + noise * rng.standard_normal(400)
    ridge = BayesianRidge(
        alpha_1=0, alpha_2=0, lambda_1=0, lambda_2=0, fit_intercept=False, max_iter=5000, tol=1e-12
    ).fit(X, y)
    expected = ridge.lambda_ / ridge.alpha_ / len(y)
    assert LEAST < expected < MOST
    left = np.mean((y - X @ ridge.coef_) ** 2)
    found = evidence_decay(
        torch.as_tensor(X.T @ X / len(y))[None],
        torch.as_tensor(ridge.coef_)[None],
        torch.ones(12, dtype=torch.float64),
        torch.tensor([left]),
        torch.tensor([400.0], dtype=torch.float64),
        1e-3,
    )
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_twice_the_noise_variance_or_half_the_data_is_twice_the_price_where_data_determine_every_weight() -> None:
    weights, decayed = draw(3, 5).abs() + 1.0, torch.ones(5, dtype=torch.float64)
    gram = torch.eye(5, dtype=torch.float64).expand(3, 5, 5) * 100.0
    loss = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64)
    weights = weights[:1].expand(3, 5)
    freedom = torch.tensor([5e3, 5e3, 2.5e3], dtype=torch.float64)
    one, noisy, few = evidence_decay(gram, weights, decayed, loss, freedom, 1e-4)
    squares = float(weights[0].square().sum())
    assert float(one) == pytest.approx(5 / (5e3 - 5) / squares, rel=1e-4)
    assert float(noisy / one) == pytest.approx(2.0, rel=1e-3)
    assert float(few / one) == pytest.approx(2.0, rel=2e-3)


def test_entries_that_do_not_pay_and_entries_that_no_data_see_do_not_count() -> None:
    gram = torch.diag(torch.tensor([100.0, 100.0, 0.0], dtype=torch.float64))[None]
    weights = torch.tensor([[2.0, 50.0, 0.0]], dtype=torch.float64)
    decayed = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    loss, freedom = torch.tensor([0.02], dtype=torch.float64), torch.tensor([500.0], dtype=torch.float64)
    found = evidence_decay(gram, weights, decayed, loss, freedom, 1e-4)
    assert float(found) == pytest.approx(2 / 498 * 0.02 / 4.0, rel=1e-3)


def test_what_is_lost_keeps_the_price_it_had_and_none_leaves_the_range() -> None:
    gram = torch.eye(2, dtype=torch.float64).expand(3, 2, 2).clone()
    gram[0] = torch.nan
    weights = torch.tensor([[1.0, 1.0], [1e6, 1.0], [1e-9, 1e-9]], dtype=torch.float64)
    loss, freedom = torch.full((3,), 0.1, dtype=torch.float64), torch.full((3,), 50.0, dtype=torch.float64)
    found = evidence_decay(gram, weights, torch.ones(2, dtype=torch.float64), loss, freedom, 2e-3)
    assert found.tolist() == [2e-3, LEAST, MOST]


def test_the_curvature_asks_every_target_with_its_own_loss_and_bends_by_its_own_decay() -> None:
    field = PerTargetField(3, 4, (4,), "tanh", (0, 1, 2, 0))
    generator = torch.Generator().manual_seed(0)
    weights = field.init(generator, n_models=2, dtype=torch.float64, device=torch.device("cpu"))
    frozen = {name: torch.ones_like(value) for name, value in weights.items()}
    rows = Rows(draw(60, 2, 4), torch.full((60, 2), 0.5).double(), draw(60, 3, seed=3), draw(60, 3, seed=4).abs())
    scale, freedom = matching_scale(rows), torch.tensor([40.0, 30.0, 20.0], dtype=torch.float64)
    plain = MatchingCurvature(field, weights, frozen, rows, scale, 1e-3)
    asked = MatchingCurvature(field, weights, frozen, rows, scale, 1e-3, freedom)
    assert torch.equal(plain.weight_decay, torch.full((2, 3), 1e-3, dtype=torch.float64))

    decayed = plain.nets.marks(*(name for name in plain.nets.shapes if not name.startswith("b")))
    bend = torch.linalg.inv(plain.inverse)
    gram = (bend - torch.diag(2e-3 * decayed + DAMPING)) / 2
    loss = matching_loss(field, weights, rows, scale).flatten()
    expected = evidence_decay(gram, plain.flat(weights), decayed, loss, freedom.repeat(2), 1e-3)
    torch.testing.assert_close(asked.weight_decay.flatten(), expected, rtol=1e-6, atol=0)
    there = 2 * gram + torch.diag_embed(2 * expected[:, None] * decayed + DAMPING)
    torch.testing.assert_close(asked.inverse, torch.linalg.inv(there), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_decay_may_differ_by_model_and_entry(solver: str) -> None:
    target = draw(2, 3)
    price = torch.tensor([[0.5], [2.0]], dtype=torch.float64)
    start = {"x": torch.zeros_like(target), "y": torch.ones_like(target)}

    def loss(params, iteration):
        return ((params["x"] - target) ** 2 + (params["y"] - target) ** 2).sum(-1)

    def decay(name: str) -> float | torch.Tensor:
        return price if name == "x" else 0.0

    if solver == "adam":
        solved = prox_adam(loss, start, n_iter=800, learning_rate=0.05, decay=decay)
    else:
        solved = lbfgs(loss, start, n_iter=30, decay=decay)
    torch.testing.assert_close(solved.params["x"], target / (1 + price), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(solved.params["y"], target, rtol=1e-3, atol=1e-4)


def test_the_last_stage_pays_what_the_evidence_asks_unless_a_number_is_given(monkeypatch) -> None:
    system = make_lotka_volterra(n_trajectories=6, n_times=15, random_state=0)
    X, y, groups = from_trajectories(system.states, system.times)
    paid = []

    def spy(*args, decay, **options):
        paid.append((decay("W0"), decay("b0")))
        return lbfgs(*args, decay=decay, **options)

    monkeypatch.setattr("skode._train.lbfgs", spy)
    for decay in ("auto", 0.02):
        SparseNODERegressor(weight_decay=decay, max_iter=60, tol=1, random_state=0).fit(X, y, groups=groups)
    (asked, biases), (given, _) = paid
    assert asked.shape == (1, 2, 1, 1) and biases == 0.0
    assert asked.unique().numel() == 2 and (asked >= LEAST).all() and (asked <= MOST).all()
    assert (torch.as_tensor(given) == torch.tensor(0.02)).all()


def test_a_word_that_is_none_is_refused() -> None:
    X, y, groups = from_trajectories([np.arange(6.0)[:, None]], [np.arange(6.0)])
    with pytest.raises(TypeError, match="weight_decay must be a finite number >= 0; got 'much'"):
        SparseNODERegressor(weight_decay="much").fit(X, y, groups=groups)
