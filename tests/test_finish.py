"""The last fit on a settled support: who goes on, and where products pay."""

from __future__ import annotations

import pytest
import torch

from skode import SparseNODERegressorCV, _finish, from_trajectories
from skode._batch import Batch
from skode._finish import finish
from skode._fit import options_of, set_up
from skode._fold_products import better_on_folds
from skode._folds import most_folds
from skode._layout import Layout
from skode._train import initial_weights
from skode._trajectories import as_trajectories
from skode.datasets import make_dense_linear, make_lotka_volterra
from skode.recipe import REFIT

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

EDGES = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]], dtype=torch.float64)


@pytest.fixture(scope="module")
def parts():
    system = make_dense_linear(n_variables=3, n_trajectories=20, n_times=16, random_state=0)
    X, y, groups = from_trajectories(system.states, system.times)
    spec = SparseNODERegressorCV(field="per_target", dtype="float64", max_iter=60)._specify()
    trajectories = as_trajectories(X, y, layout=Layout(n_states=3, n_inputs=0, order=1), groups=groups)
    _, dynamics, problem = set_up(trajectories, spec, None)
    start = initial_weights(dynamics.field, Batch.single(0.0, 0), options_of(spec, REFIT))
    columns = EDGES.unsqueeze(-2)
    mask = {
        name: torch.ones_like(value) * (columns if name in dynamics.field.entries else 1.0)
        for name, value in start.items()
    }
    return dynamics, problem, start, mask, spec


def errors_by(standing, *, twin, products):
    """Errors of windows as if networks that go on had ``standing``; two models side by side are twin and products."""

    def errors(dynamics, weights, problem):
        alone = products if "P" in weights else standing
        values = [twin, products] if len(weights["K"]) == 2 else [alone]
        # Windows differ, and models differ in how: a spread that paired tests can divide by.
        spread = 1e-3 * torch.arange(30, dtype=torch.float64)
        return torch.stack([value * (1 + spread) for value in values])

    return errors


@pytest.mark.parametrize(
    ("standing", "products", "kept"),
    [(1.0, 0.9, True), (0.5, 0.5, True), (0.1, 0.9, False)],
    ids=["better than both", "level with those that go on", "worse than those that go on"],
)
def test_products_that_beat_their_twin_stay_unless_networks_that_go_on_are_clearly_better(
    parts, monkeypatch, standing, products, kept
):
    dynamics, problem, start, mask, spec = parts
    rule = errors_by(standing, twin=2.0, products=products)
    monkeypatch.setattr("skode._capacity.forecast_errors", rule)
    monkeypatch.setattr(_finish, "forecast_errors", rule)
    trained = finish(dynamics, problem, start, mask, spec, 0)
    assert (trained.field.n_bilinear > 0) == kept
    assert list(trained.history) == ["refit", "finish"]
    paths = trained.field.by_variable(trained.field.paths(trained.weights))[0] > 0
    assert torch.equal(paths, EDGES > 0)


@pytest.mark.parametrize(("twin", "same"), [(0.5, False), (1.0, True), (2.0, True)])
def test_a_network_that_starts_afresh_is_kept_only_where_it_forecasts_better(parts, monkeypatch, twin, same):
    dynamics, problem, start, mask, spec = parts
    monkeypatch.setattr("skode._capacity.forecast_errors", errors_by(1.0, twin=twin, products=9.0))
    starts = iter([1.0, twin])  # networks that go on are asked first
    monkeypatch.setattr(_finish, "forecast_errors", lambda *given: errors_by(next(starts), twin=0, products=0)(*given))
    found = finish(dynamics, problem, start, mask, spec, 0)
    monkeypatch.setattr(_finish, "can_widen", lambda *_: False)
    goes_on = finish(dynamics, problem, start, mask, spec, 0)
    assert torch.equal(found.weights["K"], goes_on.weights["K"]) == same


def test_without_a_decision_networks_go_on_from_where_they_are(parts, monkeypatch):
    dynamics, problem, start, mask, spec = parts
    monkeypatch.setattr(_finish, "can_widen", lambda *_: False)
    here = finish(dynamics, problem, start, mask, spec, 0)
    other_seed = finish(dynamics, problem, start, mask, spec, 1)
    elsewhere = finish(dynamics, problem, {name: 0.5 * value for name, value in start.items()}, mask, spec, 0)
    for name, value in here.weights.items():
        assert torch.equal(value, other_seed.weights[name])
    assert not torch.equal(here.weights["K"], elsewhere.weights["K"])
    assert torch.equal(dynamics.field.paths(here.weights)[0] > 0, EDGES > 0)


@pytest.mark.parametrize(
    ("twin", "products", "folds", "asked", "kept"),
    [(1.0, 0.9, False, False, True), (1.0, 1.1, True, False, False), (1.0, 0.9999, True, True, True)]
    + [(1.0, 0.9999, False, True, False)],
    ids=["clearly better", "worse", "better, and folds agree", "better, but folds do not agree"],
)
def test_folds_are_asked_where_windows_leave_a_doubt(parts, monkeypatch, twin, products, folds, asked, kept):
    dynamics, problem, start, mask, spec = parts

    def errors(dynamics, weights, problem):
        # Errors of both differ from window to window by far more than .0001, and by less than .1.
        noise = 0.1 * torch.sin(torch.arange(30, dtype=torch.float64)).unsqueeze(0)
        if len(weights["K"]) == 2:
            return torch.cat([twin + 0.0 * noise, products + noise - noise.mean()])
        return torch.full((1, 30), 0.95 if "P" in weights else 1.0, dtype=torch.float64) + noise

    calls = []
    monkeypatch.setattr("skode._capacity.forecast_errors", errors)
    monkeypatch.setattr(_finish, "forecast_errors", errors)
    monkeypatch.setattr(_finish, "better_on_folds", lambda *given: calls.append(given) or folds)
    trained = finish(dynamics, problem, start, mask, spec, 0, folds=[("a", "b")])
    assert len(calls) == asked and (trained.field.n_bilinear > 0) == kept
    if asked:
        assert calls[0] == ([("a", "b")], mask, spec, 0, None)


def fold_parts(system, spec):
    X, y, groups = from_trajectories(system.states, system.times)
    layout = Layout(n_states=system.states[0].shape[1], n_inputs=0, order=1)
    return most_folds(as_trajectories(X, y, layout=layout, groups=groups), 4).parts


@pytest.mark.parametrize(
    ("make", "better"),
    [(make_lotka_volterra, True), (lambda **given: make_dense_linear(2, **given), False)],
    ids=["a law of products", "a linear law"],
)
def test_folds_tell_a_law_of_products_from_one_without(make, better):
    spec = SparseNODERegressorCV(field="per_target", max_iter=1200)._specify()
    system = make(n_trajectories=12, n_times=24, noise=0.03, random_state=0)
    folds = fold_parts(system, spec)
    _, dynamics, _ = set_up(folds[0][0], spec, None)
    like = initial_weights(dynamics.field, Batch.single(0.0, 0), options_of(spec, REFIT))
    mask = {name: torch.ones_like(value) for name, value in like.items()}
    assert better_on_folds(folds, mask, spec, 0, None) == better
    assert not better_on_folds([], mask, spec, 0, None)


def test_folds_with_few_windows_tell_nothing():
    spec = SparseNODERegressorCV(field="per_target", max_iter=30)._specify()
    folds = fold_parts(make_lotka_volterra(n_trajectories=4, n_times=6, random_state=0), spec)
    _, dynamics, _ = set_up(folds[0][0], spec, None)
    like = initial_weights(dynamics.field, Batch.single(0.0, 0), options_of(spec, REFIT))
    assert not better_on_folds(folds, {name: torch.ones_like(value) for name, value in like.items()}, spec, 0, None)
