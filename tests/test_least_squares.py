"""Levenberg-Marquardt against closed forms and scipy."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import least_squares

from skode.least_squares import levenberg_marquardt


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def linear(A, y):
    return (lambda theta: y - (A @ theta.unsqueeze(-1)).squeeze(-1)), (
        lambda theta: (y - (A @ theta.unsqueeze(-1)).squeeze(-1), A)
    )


def test_linear_problems_reach_the_ridge_solution():
    A, y = random(3, 20, 4), random(3, 20, seed=1)
    decay = torch.tensor([0.0, 0.5, 1.0, 2.0])
    found = levenberg_marquardt(*linear(A, y), torch.zeros(3, 4, dtype=torch.float64), decay=decay, tol=1e-14)
    expected = torch.linalg.solve(A.mT @ A + torch.diag(decay.double()), (A.mT @ y.unsqueeze(-1))).squeeze(-1)
    torch.testing.assert_close(found.theta, expected, rtol=1e-7, atol=1e-9)
    assert found.converged.all()


def test_entries_that_are_not_free_stay():
    A, y = random(2, 15, 3), random(2, 15, seed=1)
    start = torch.full((2, 3), 0.7, dtype=torch.float64)
    free = torch.tensor([1.0, 0.0, 1.0])
    found = levenberg_marquardt(*linear(A, y), start, decay=torch.zeros(3), free=free, tol=1e-14)
    assert (found.theta[:, 1] == 0.7).all()
    rest = (y - 0.7 * A[..., 1]).unsqueeze(-1)
    expected = torch.linalg.lstsq(A[..., [0, 2]], rest).solution.squeeze(-1)
    torch.testing.assert_close(found.theta[:, [0, 2]], expected, rtol=1e-6, atol=1e-9)


def exponentials(y, t):
    def linearise(theta):
        e = torch.exp(-theta[:, 1:] * t)
        return y - theta[:, :1] * e, torch.stack([e, -theta[:, :1] * t * e], dim=-1)

    return (lambda theta: linearise(theta)[0]), linearise


def test_nonlinear_problems_agree_with_scipy_each_by_itself():
    t = torch.linspace(0, 2, 25, dtype=torch.float64)
    y = torch.stack([2 * torch.exp(-3 * t), 0.5 * torch.exp(-0.3 * t)]) + 0.05 * random(2, 25)
    start = torch.ones(2, 2, dtype=torch.float64)
    found = levenberg_marquardt(*exponentials(y, t), start, decay=torch.zeros(2), tol=1e-12, n_iter=200)
    for k in range(2):
        model = least_squares(lambda p, k=k: y[k].numpy() - p[0] * np.exp(-p[1] * t.numpy()), [1.0, 1.0])
        np.testing.assert_allclose(found.theta[k].numpy(), model.x, rtol=1e-5)
        alone = levenberg_marquardt(
            *exponentials(y[k : k + 1], t), start[:1], decay=torch.zeros(2), tol=1e-12, n_iter=200
        )
        torch.testing.assert_close(alone.theta[0], found.theta[k], rtol=1e-7, atol=1e-10)


def test_a_problem_that_is_not_finite_stays_where_it_was_and_disturbs_nobody():
    t = torch.linspace(0, 2, 25, dtype=torch.float64)
    y = torch.stack([2 * torch.exp(-3 * t), torch.full_like(t, torch.nan)])
    start = torch.ones(2, 2, dtype=torch.float64)
    found = levenberg_marquardt(*exponentials(y, t), start, decay=torch.zeros(2), n_iter=100)
    assert torch.equal(found.theta[1], start[1]) and not found.converged[1]
    torch.testing.assert_close(found.theta[0], torch.tensor([2.0, 3.0], dtype=torch.float64), rtol=1e-4, atol=0)


def test_a_problem_that_is_done_does_not_move_for_those_beside_it():
    t = torch.linspace(0, 2, 25, dtype=torch.float64)
    y = torch.stack([2 * torch.exp(-3 * t), 5 * torch.exp(-9 * t)]) + 0.05 * random(2, 25)
    start = torch.tensor([[2.0, 3.0], [0.1, 0.1]], dtype=torch.float64)
    found = levenberg_marquardt(*exponentials(y, t), start, decay=torch.zeros(2), tol=1e-2, n_iter=50)
    alone = levenberg_marquardt(*exponentials(y[:1], t), start[:1], decay=torch.zeros(2), tol=1e-2, n_iter=50)
    assert alone.n_iter < found.n_iter
    torch.testing.assert_close(found.theta[0], alone.theta[0], rtol=1e-12, atol=0)


def test_variable_projection_finds_the_same_minimum_and_is_ahead_on_the_way():
    t = torch.linspace(0, 2, 25, dtype=torch.float64)
    y = 2 * torch.exp(-3 * t)[None] + 0.05 * random(1, 25)
    residuals, linearise = exponentials(y, t)

    def settle(theta):
        e = torch.exp(-theta[:, 1:] * t)
        best = torch.stack([(e * y).sum(-1) / (e * e).sum(-1), theta[:, 1]], dim=-1)
        return best, residuals(best)

    start, decay = torch.ones(1, 2, dtype=torch.float64), torch.zeros(2)

    def both(**options):
        runs = [{}, {"settle": settle}]
        return [levenberg_marquardt(residuals, linearise, start, decay=decay, **options, **run) for run in runs]

    plain, settled = both(tol=1e-10)
    torch.testing.assert_close(settled.theta, plain.theta, rtol=1e-4, atol=0)
    plain, settled = both(n_iter=1)
    assert settled.loss < plain.loss
