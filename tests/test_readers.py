"""What reads the selected sources: decays of one's own or shared, and the price of lines."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

import skode._additive
from skode import SparseNODERegressor, from_trajectories
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
    as_selected = lambda readers, *rest: choose_readers(readers._replace(own=readers.shared), *rest)  # noqa: E731
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


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_networks_are_not_lost_by_what_lines_gain(noise, monkeypatch):
    """Lines of products forecast better with shared decays, networks without: both ways are compared at their ends."""
    system = make_hill_network(30, 110, 6, dt=0.5, n_edges=40, combine="product", random_state=0)
    X, y, groups = from_trajectories(noisy(system.states[:100], noise), system.times[:100])
    ends = []

    def note(readers, *rest):
        apart = choose_readers(readers._replace(own=readers.shared), *rest)
        ends.append((choose_readers(readers, *rest), apart))
        return ends[0][0]

    monkeypatch.setattr(skode._additive, "choose_readers", note)
    SparseNODERegressor(**QUICK).fit(X, y, groups=groups)
    chosen, apart = ends[0]
    assert chosen.errors.mean() <= apart.errors.mean()


def test_a_priced_line_is_ridge_regression():
    rng = np.random.default_rng(0)
    field = PackedField(2, 3, (4,), "tanh", (0, 1, 2), parents=((0, 1, 2), (1, 2)))
    sources, slopes = rng.standard_normal((50, 3)), rng.standard_normal((50, 2))
    rows = Rows(*(torch.as_tensor(a) for a in (sources[:, None], np.ones((50, 1)), slopes, np.ones((50, 2)))))
    start = field.init(torch.Generator().manual_seed(0), n_models=1, dtype=torch.float64, device=torch.device("cpu"))
    start = {name: value if name in ("K", "b1") else torch.zeros_like(value) for name, value in start.items()}
    scale = torch.ones(2, dtype=torch.float64)
    found = refit(field, rows, start, scale=scale, weight_decay=1.0, ridge=0.3, free=("K", "b1"))
    wide = field.to_wide(found.weights["K"].squeeze(2)[0]).numpy()
    for target, parents in enumerate(field.parents):
        ridge = Ridge(alpha=0.3 * 50).fit(sources[:, parents], slopes[:, target])
        np.testing.assert_allclose(wide[target, list(parents)], ridge.coef_, rtol=1e-6)


def test_who_shares_a_rate_has_it_and_reads_itself_no_other_way(network):
    caught = []

    def catch(readers, drawn, *rest):
        caught.append((readers, drawn))
        return choose_readers(readers, drawn, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(skode._additive, "choose_readers", catch)
        fitted(network)
    readers, drawn = caught[0]
    assert isinstance(readers, Readers) and not torch.equal(readers.own, readers.shared)
    everyone, weights = readers.sharing(readers.own, drawn)
    assert torch.equal(everyone.shared, readers.own)
    for name in readers.field.entries:
        own = readers.own.unsqueeze(1).expand(weights[name].shape[1:])
        held = -readers.decay.unsqueeze(-1).unsqueeze(-1).expand(own.shape) if name == "K" else torch.zeros(own.shape)
        assert torch.equal(weights[name][0][own], held[own].double())
        assert torch.equal(weights[name][0][~own], drawn[name][0][~own])
