"""Bilinear units: offered without changing anything, kept where a law is quadratic, refused where it is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skode import SparseNODERegressor, from_trajectories
from skode._capacity import N_BILINEAR, forecast_errors, held_out_squares, narrow, widen, widened
from skode._dynamics import Dynamics
from skode._problem import Problem
from skode._scales import Scales
from skode.datasets import make_dense_linear, make_lorenz96
from skode.fields import PerTargetField
from skode.objectives import Windows, solve_windows

FLOAT = {"dtype": torch.float64, "device": torch.device("cpu")}


def sparse_field(n_models=2):
    """A field with random weights of which some edges are closed."""
    field = PerTargetField(3, 3, (4,), "tanh", (0, 1, 2))
    weights = field.init(torch.Generator().manual_seed(0), n_models=n_models, **FLOAT)
    weights["K"] += 0.3
    support = torch.tensor([[1, 0, 1], [1, 1, 0], [0, 0, 1]], dtype=torch.float64)
    for name in field.entries:
        weights[name] *= support[None, :, None, :]
    return field, weights, support


def offer(n_models=2):
    field, weights, support = sparse_field(n_models)
    frozen = {name: (value != 0).to(value.dtype) for name, value in weights.items()}
    drawn = widened(field).init(torch.Generator().manual_seed(1), n_models=n_models, **FLOAT)
    return field, weights, support, widen(field, weights, frozen, drawn)


def scales():
    """States and slopes in standard units already, one unit of time between observations."""
    one, zero, none = np.ones(3), np.zeros(3), np.zeros(0)
    return Scales(
        time_unit=1.0,
        state_mean=zero,
        state_sd=one,
        velocity_sd=None,
        input_mean=none,
        input_sd=none,
        clock_mean=0.0,
        clock_sd=1.0,
        rate=one,
        low=-one,
        high=one,
    )


def problem_with(windows):
    fields = dict.fromkeys(Problem._fields)
    given = {"held_windows": windows, "shooting": torch.ones(3).double(), "moving": torch.arange(3)}
    return Problem(**{**fields, "oversampling": 1, **given})


def windows_of(dynamics, weights, n_windows=40):
    """Exact forecasts of one model from random starts."""
    start = 0.5 * torch.randn(n_windows, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    times = 0.05 * torch.arange(6, dtype=torch.float64).repeat(n_windows, 1)
    empty = torch.zeros(n_windows, 0, dtype=torch.float64), torch.zeros(n_windows, dtype=torch.float64)
    blank = torch.zeros(n_windows, 6, 3, dtype=torch.float64)
    after = torch.full((n_windows,), -1)
    windows = Windows(start, torch.ones_like(start), times, blank, torch.ones_like(blank), *empty, after)
    solved = solve_windows(dynamics, weights, windows, start.unsqueeze(0), n_steps=40)[0]
    return windows._replace(targets=solved)


def test_the_first_half_answers_as_before():
    field, weights, _, wide = offer()
    z = torch.randn(1, 9, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert torch.allclose(wide.field(wide.params, z)[:2], field(weights, z), atol=1e-14)


def test_the_second_half_opens_no_new_edge():
    _, _, support, wide = offer()
    assert wide.params["P"].shape == (4, 3, N_BILINEAR, 3)
    assert torch.equal(wide.field.paths(wide.params)[2:] > 0, support.bool().expand(2, -1, -1))


@pytest.mark.parametrize("better", ["first", "second"])
def test_the_half_that_forecasts_held_out_windows_is_kept(better):
    _, _, _, wide = offer()
    dynamics = Dynamics(wide.field, scales(), time_dependent=False)
    half = {name: value[:1] if better == "first" else value[2:3] for name, value in wide.params.items()}
    windows = windows_of(dynamics, half)
    kept = narrow(wide, wide.params, problem_with(windows), dynamics)
    assert (kept.field.n_bilinear > 0) == (better == "second")
    z = windows.start[None]
    assert torch.allclose(kept.field({n: v[:1] for n, v in kept.params.items()}, z), wide.field(half, z))


def test_units_that_run_away_are_refused_although_they_fit_at_the_starts():
    _, _, _, wide = offer(1)
    dynamics = Dynamics(wide.field, scales(), time_dependent=False)
    windows = windows_of(dynamics, {name: value[1:] for name, value in wide.params.items()})
    wild = {**wide.params, "P": 1e3 * wide.params["P"], "R": 1e3 * wide.params["R"]}
    assert narrow(wide, wild, problem_with(windows), dynamics).field.n_bilinear == 0


def test_units_that_are_taken_stay_whatever_windows_say_and_gains_are_those_of_every_window():
    _, _, _, wide = offer(1)
    dynamics = Dynamics(wide.field, scales(), time_dependent=False)
    problem = problem_with(windows_of(dynamics, {name: value[:1] for name, value in wide.params.items()}))
    offered, taken = (narrow(wide, wide.params, problem, dynamics, taken=taken) for taken in (False, True))
    assert offered.field.n_bilinear == 0 and taken.field == wide.field and taken.chosen.tolist() == [1]
    plain, bilinear = forecast_errors(dynamics, wide.params, problem)
    for found in (offered, taken):
        torch.testing.assert_close(found.gains, (plain - bilinear)[None])
    assert float(taken.gains.mean()) < 0


def fitted_bilinear(system, **options):
    X, y, groups = from_trajectories(system.states, system.times)
    model = SparseNODERegressor(max_iter=1000, tol=1, random_state=0, **options).fit(X, y, groups=groups)
    return model._fitted.field.n_bilinear


def test_a_quadratic_law_gets_bilinear_units():
    assert fitted_bilinear(make_lorenz96(5, n_trajectories=10, n_times=20, dt=0.05, random_state=0)) == N_BILINEAR


def test_a_linear_law_gets_none_and_a_number_is_obeyed():
    system = make_dense_linear(3, n_trajectories=10, n_times=15, noise=0.02, random_state=0)
    assert fitted_bilinear(system) == 0
    assert fitted_bilinear(system, n_bilinear=2) == 2


def test_training_leaves_the_number_of_threads_as_it_was():
    before = torch.get_num_threads()
    fitted_bilinear(make_dense_linear(3, n_trajectories=5, n_times=8, random_state=0))
    assert torch.get_num_threads() == before


def test_a_start_that_was_given_is_inside_the_box():
    rng = np.random.default_rng(0)
    states = [np.exp(-np.linspace(0, 4, 9))[:, None] * rng.normal(size=(1, 2)) for _ in range(6)]
    states[0][0] += 500.0  # a start far from where the smooth passes
    X, y, groups = from_trajectories(states, np.linspace(0, 4, 9))
    model = SparseNODERegressor(max_iter=50, tol=1, random_state=0).fit(X, y, groups=groups)
    assert np.allclose(model.predict(X[:1]), y[:1])


def test_squares_of_held_out_windows_are_those_of_solutions_and_add_up_over_targets():
    field, weights, _ = sparse_field()
    dynamics = Dynamics(field, scales(), False)
    one = {name: value[:1] for name, value in weights.items()}
    windows = windows_of(dynamics, one)
    off = torch.tensor([0.5, -2.0, 0.0], dtype=torch.float64)
    problem = problem_with(windows._replace(targets=windows.targets + off))
    squares = held_out_squares(dynamics, weights, problem)
    assert squares.shape == (2, 40, 3)
    # Six times with the same error each; the solver here takes half as many steps.
    torch.testing.assert_close(squares[0], (6 * off**2).expand(40, 3), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(forecast_errors(dynamics, weights, problem), squares.sum(-1).sqrt())
