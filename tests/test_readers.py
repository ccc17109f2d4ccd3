"""What reads the selected sources: decays of one's own or shared, and the price of lines."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

import skode._additive
from skode import PriorKnowledge, SparseNODERegressor, from_trajectories
from skode._readers import Readers, choose_readers
from skode._refit import refit
from skode.datasets import make_hill_network, make_independent_decays
from skode.fields import PackedField
from skode.objectives import Rows

QUICK = {"field": "additive", "random_state": 0, "device": "cpu"}


def noisy(states, share, seed=0):
    rng, sd = np.random.default_rng(seed), np.concatenate(states).std(axis=0)
    return [x + share * sd * rng.standard_normal(x.shape) for x in states]


def own_rates(model, states):
    """Mean derivative of every slope by its own variable, negative, by central differences."""
    d, width = states.shape[1], 1e-4
    out = np.zeros(d)
    for i in range(d):
        step = width * np.eye(d)[i]
        change = model.predict_derivative(states + step) - model.predict_derivative(states - step)
        out[i] = -change[:, i].mean() / (2 * width)
    return out


@pytest.fixture(scope="module")
def network():
    """Twenty genes that all decay at rate 1, observed at long intervals; the last ten trajectories are a test."""
    return make_hill_network(20, 110, 6, dt=1.0, n_edges=40, combine="product", random_state=1)


def fitted(network):
    X, y, groups = from_trajectories(noisy(network.states[:100], 0.3), network.times[:100])
    return SparseNODERegressor(**QUICK).fit(X, y, groups=groups)


def test_rates_that_noise_and_curvature_suggest_are_not_taken_for_decay(network, monkeypatch):
    """Noise in a state is in its slope too, and products look like decay: as selected, rates that are alike differ."""
    test = np.array(network.clean_states[100:])
    states = np.concatenate(test)
    shared = fitted(network)
    as_selected = lambda readers: choose_readers(readers._replace(own=readers.shared))  # noqa: E731
    monkeypatch.setattr(skode._additive, "choose_readers", as_selected)
    own = fitted(network)
    error = {}
    for name, model in (("shared", shared), ("own", own)):
        forecast = model.simulate(test[:, 0], network.times[0])
        error[name] = ((forecast - test)[:, 1:] ** 2).mean()
    assert own_rates(shared, states).std() < 0.5 * own_rates(own, states).std()
    assert error["shared"] < error["own"]


def test_rates_that_differ_are_kept():
    system = make_independent_decays(12, 60, 6, dt=0.5, decay_spread=10.0, random_state=0)
    X, y, groups = from_trajectories(noisy(system.states, 0.02), system.times)
    model = SparseNODERegressor(**QUICK).fit(X, y, groups=groups)
    states = np.concatenate(system.states)
    first, later = np.array(system.states)[:, 0], np.array(system.states)[:, 1]
    true = -np.log((first * later).sum(axis=0) / (first**2).sum(axis=0)) / 0.5
    np.testing.assert_allclose(own_rates(model, states), true, rtol=0.15)


def test_networks_are_not_lost_by_what_lines_gain(monkeypatch):
    """Here lines forecast better with shared decays, networks without: both ways are compared at their ends."""
    system = make_hill_network(60, 60, 10, dt=0.4, n_edges=120, combine="product", random_state=3)
    X, y, groups = from_trajectories(noisy(system.states, 0.1), system.times)
    seen = []

    def note(readers):
        seen.append((readers.lines(), readers.sharing(readers.own).lines(), choose_readers(readers)))
        return seen[0][2]

    monkeypatch.setattr(skode._additive, "choose_readers", note)
    SparseNODERegressor(**QUICK).fit(X, y, groups=groups)
    ((selected, together, chosen),) = seen
    assert together.ahead_of(selected)
    assert chosen.errors.mean() < together.bettered().errors.mean()


def test_a_priced_line_is_ridge_regression():
    rng = np.random.default_rng(0)
    field = PackedField(2, 3, (4,), "tanh", (0, 1, 2), parents=((0, 1, 2), (1, 2)))
    sources, slopes = rng.standard_normal((50, 3)), rng.standard_normal((50, 2))
    rows = Rows(*(torch.as_tensor(a) for a in (sources[:, None], np.ones((50, 1)), slopes, np.ones((50, 2)))))
    start = field.init(torch.Generator().manual_seed(0), n_models=1, dtype=torch.float64, device=torch.device("cpu"))
    start = {name: value if name in ("K", "b1") else torch.zeros_like(value) for name, value in start.items()}
    scale = torch.ones(2, dtype=torch.float64)
    found = refit(field, rows, start, scale=scale, prices={"W0": 1.0, "W1": 1.0, "K": 0.3}, free=("K", "b1"))
    wide = field.to_wide(found.weights["K"].squeeze(2)[0]).numpy()
    for target, parents in enumerate(field.parents):
        ridge = Ridge(alpha=0.3 * 50).fit(sources[:, parents], slopes[:, target])
        np.testing.assert_allclose(wide[target, list(parents)], ridge.coef_, rtol=1e-6)


def test_who_shares_a_rate_has_it_and_reads_itself_no_other_way(network):
    caught = []

    def catch(readers):
        caught.append(readers)
        return choose_readers(readers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(skode._additive, "choose_readers", catch)
        fitted(network)
    (readers,) = caught
    assert isinstance(readers, Readers) and not torch.equal(readers.own, readers.shared)
    everyone = readers.sharing(readers.own)
    drawn, weights = readers.drawn, everyone.drawn
    assert torch.equal(everyone.shared, readers.own)
    for name in readers.field.entries:
        own = readers.own.unsqueeze(1).expand(weights[name].shape[1:])
        held = -readers.decay.unsqueeze(-1).unsqueeze(-1).expand(own.shape) if name == "K" else torch.zeros(own.shape)
        assert torch.equal(weights[name][0][own], held[own].double())
        assert torch.equal(weights[name][0][~own], drawn[name][0][~own])


def test_who_must_drive_itself_has_a_rate_of_its_own(network, monkeypatch):
    required = np.zeros((20, 20), dtype=bool)
    required[3, 3] = required[7, 7] = True
    caught = []

    def catch(readers):
        caught.append(readers)
        return choose_readers(readers)

    monkeypatch.setattr(skode._additive, "choose_readers", catch)
    X, y, groups = from_trajectories(network.states[:100], network.times[:100])
    model = SparseNODERegressor(prior=PriorKnowledge(required=required), **QUICK).fit(X, y, groups=groups)
    assert np.flatnonzero(~caught[0].own.any(dim=-1)).tolist() == [3, 7]
    assert (model.dependency_matrix_[required] > 0).all()
