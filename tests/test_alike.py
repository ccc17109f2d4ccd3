"""Windows end where a field runs away, and nothing else changes."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from skode import SparseNODERegressor, from_trajectories
from skode import _alike as alike_module
from skode._batch import Batch
from skode._dynamics import Dynamics
from skode._fit import options_of, recipe_of, set_up
from skode._layout import Layout
from skode._parameters import specify
from skode._scales import widened_box
from skode._stage import STIFFNESS, StageLosses
from skode._train import train
from skode._trajectories import as_trajectories
from skode.datasets import make_lotka_volterra
from skode.fields import PerTargetField
from skode.objectives import solve_windows
from skode.penalties import NoPenalty
from skode.quasi_newton import lbfgs
from skode.recipe import REFIT

FINISH = REFIT[1:]


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


@pytest.fixture(scope="module", name="made")
def _made():
    """A problem, and weights of two models: a still one, and one that explodes where prey is far above its mean."""
    system = make_lotka_volterra(n_trajectories=8, n_times=30, noise=0.02, random_state=0)
    X, y, groups = from_trajectories(system.states, system.times)
    found = as_trajectories(X, y, layout=Layout.infer(X.shape[1], 2, order=1), groups=groups)
    spec = specify(SparseNODERegressor(dtype="float64", device="cpu", max_iter=300).get_params(deep=False))
    prepared, dynamics, problem = set_up(found, spec, None)
    field = PerTargetField(2, 2, spec.hidden, spec.activation, (0, 1), n_bilinear=1)
    dynamics = Dynamics(field, dynamics.scales, False)
    drawn = field.init(torch.Generator().manual_seed(0), n_models=1, dtype=torch.float64, device=torch.device("cpu"))
    still = {name: torch.zeros_like(value) if name in ("P", "R", "W1") else value for name, value in drawn.items()}
    wild = {name: value.clone() for name, value in still.items()}
    for name in ("P", "R"):
        wild[name][0, 0, 0, 0] = 1.0  # dx/dt = x x + ...: gone from x > 0 after 1 / x
    return spec, prepared, dynamics, problem, still, wild


def losses_of(made, weights, problem=None):
    spec, _, dynamics, given, *_ = made
    n_models = len(weights["K"])
    frozen = {name: torch.ones_like(value[:1]) for name, value in weights.items()}
    alpha, options = torch.zeros(n_models, dtype=torch.float64), options_of(spec, recipe_of(spec))
    found = StageLosses(FINISH[0], dynamics, NoPenalty(), problem or given, alpha, None, frozen, options)
    return found, found.start(weights)


def test_windows_end_where_solutions_leave_the_box_of_predictions(made):
    _, prepared, dynamics, problem, _, wild = made
    losses, begin = losses_of(made, wild)
    (who,) = losses.alike
    cut = ((who.windows.weights == 0) & (problem.windows.weights > 0)).any(-1)
    assert cut.any()
    (share,) = losses.cut_share
    assert 0 < share <= cut.double().mean() + (problem.windows.weights == 0).all(-1).double().mean()
    states = solve_windows(dynamics, wild, problem.windows, problem.windows.start.unsqueeze(0), n_steps=400)[0]
    low, high = (torch.as_tensor(edge) for edge in widened_box(prepared.scales))
    inside = ((states > low) & (states < high)).all(-1)
    assert torch.equal((inside.long().cumprod(1) == 0) & (problem.windows.weights > 0).any(-1), cut)
    assert (who.windows.after[cut.any(1)] == -1).all()
    assert torch.equal(who.windows.after[~cut.any(1)], problem.windows.after[~cut.any(1)])
    assert (who.windows.times.diff(dim=1)[cut[:, 1:]] == 0).all()
    assert torch.equal(who.windows.targets, problem.windows.targets)
    assert losses.loss(begin, 0).isfinite().all()


def test_the_loss_is_that_of_the_times_that_are_left(made):
    _, _, dynamics, problem, _, wild = made
    losses, begin = losses_of(made, wild)
    (who,) = losses.alike
    windows = who.windows
    states = solve_windows(dynamics, wild, windows, windows.start.unsqueeze(0), n_steps=400)[0]
    errors = windows.weights * (states - windows.targets) ** 2
    expected = errors.sum((0, 1)) / (windows.weights.sum((0, 1)) * problem.shooting)
    tied = windows.after >= 0
    jumps = states[tied, -1] - windows.start[windows.after[tied]]
    expected += STIFFNESS * jumps.square().sum(0) / ((windows.weights > 0).sum((0, 1)) * problem.shooting)
    torch.testing.assert_close(losses.loss(begin, 0), expected.sum()[None], rtol=1e-2, atol=0.0)


def test_a_model_that_runs_away_nowhere_has_all_windows_whoever_runs_beside_it(made):
    *_, problem, still, wild = made
    both, begin = losses_of(made, {name: torch.cat([wild[name], still[name], wild[name]]) for name in still})
    assert sorted(who.models for who in both.alike) == [[0, 2], [1]]
    for weights, places in ((wild, [0, 2]), (still, [1])):
        alone, start = losses_of(made, weights)
        assert (alone.alike[0].windows is problem.windows) == (weights is still)
        for place in places:
            torch.testing.assert_close(both.loss(begin, 0)[place : place + 1], alone.loss(start, 0))


def test_the_last_stage_calls_back_a_field_that_runs_away(made):
    spec, _, dynamics, problem, still, wild = made
    options = options_of(spec, FINISH)
    trained = train(dynamics, NoPenalty(), problem, Batch.single(0.0, 0), options, start=wild)
    assert not trained.history["finish"].failed.any()
    losses, begin = losses_of(made, trained.weights)
    assert losses.cut_share == [0.0]
    calm, first = losses_of(made, still)
    assert float(losses.loss(begin, 0)) < 0.5 * float(calm.loss(first, 0))


def test_a_field_without_any_solution_is_reported_as_failed(made):
    spec, _, dynamics, problem, _, wild = made
    worse = {name: 1e9 * value if name in ("P", "R") else value for name, value in wild.items()}
    worse["b1"] = worse["b1"] + 1e9
    trained = train(dynamics, NoPenalty(), problem, Batch.single(0.0, 0), options_of(spec, FINISH), start=worse)
    assert trained.history["finish"].failed.all()
    for name, value in trained.weights.items():
        np.testing.assert_array_equal(value, worse[name])


def test_training_a_model_beside_one_that_runs_away_is_training_it_alone(made):
    spec, _, dynamics, problem, still, wild = made
    options = options_of(spec, FINISH)
    batch = Batch(np.zeros(2), np.zeros(2, dtype=np.int64))
    both = {name: torch.cat([still[name], wild[name]]) for name in still}
    together = train(dynamics, NoPenalty(), problem, batch, options, start=both)
    for place, weights in enumerate((still, wild)):
        alone = train(dynamics, NoPenalty(), problem, Batch.single(0.0, 0), options, start=weights)
        for name, value in alone.weights.items():
            torch.testing.assert_close(together.weights[name][place], value[0], rtol=1e-6, atol=1e-8)
        assert together.history["finish"].n_iter >= alone.history["finish"].n_iter


def test_a_field_without_a_finite_loss_keeps_its_weights_with_and_without_rows(made, monkeypatch):
    spec, _, dynamics, problem, _, wild = made
    worse = {name: 300.0 * value if name in ("P", "R") else value for name, value in wild.items()}
    for compress in (alike_module.compress, lambda *args, **kwargs: None):
        monkeypatch.setattr(alike_module, "compress", compress)
        losses, begin = losses_of(made, worse)
        if losses.loss(begin, 0).isfinite().all():
            continue
        solved = lbfgs(losses.loss, begin, n_iter=10)
        assert solved.failed.all()
        for name, value in worse.items():
            assert torch.equal(solved.params[name], value)


def test_held_out_windows_without_a_solution_are_told_apart(made):
    *_, problem, still, wild = made
    losses, _ = losses_of(made, wild)
    errors, calm = losses.held_out(wild), losses_of(made, still)[0].held_out(still)
    assert errors.isinf().any() and errors.isfinite().any() and not errors.isnan().any()
    assert calm.isfinite().all()
