"""Sources searched once more through curves: what acts only together is found, and what is known holds."""

from __future__ import annotations

import numpy as np
import pytest

import skode._additive
import skode._reading_search
from skode import PriorKnowledge, SparseNODERegressor, SparseNODERegressorCV, from_trajectories
from skode.datasets import make_hill_network
from skode.fields import HillField

QUICK = {"field": "additive", "random_state": 0, "device": "cpu"}


@pytest.fixture(scope="module")
def network():
    """Thirty genes that need their regulators together, observed at long intervals; the last ten are a test."""
    return make_hill_network(30, 90, 6, dt=1.0, n_edges=60, noise=0.1, random_state=0)


def table_of(network):
    return from_trajectories(network.states[:80], network.times[:80])


def f1(model, network):
    off = ~np.eye(30, dtype=bool)
    found, true = model.dependency_matrix_[off] > 0, network.adjacency[off]
    return 2 * (found & true).sum() / (found.sum() + true.sum())


def error(model, network):
    test = np.array(network.clean_states[80:])
    return np.sqrt(((model.simulate(test[:, 0], network.times[0]) - test)[:, 1:] ** 2).mean() / test.var())


@pytest.fixture(scope="module")
def models(network):
    X, y, groups = table_of(network)
    found = SparseNODERegressorCV(**QUICK).fit(X, y, groups=groups)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(skode._additive, "search_further", lambda *known: None)
        selected = SparseNODERegressorCV(**QUICK).fit(X, y, groups=groups)
    return found, selected


def test_regulators_that_only_act_together_are_found(network, models):
    found, selected = models
    assert isinstance(found._fitted.field, HillField)
    assert f1(found, network) > max(0.9, f1(selected, network))
    assert error(found, network) < error(selected, network)


def test_edges_of_a_search_have_a_confidence(network, models):
    found, _ = models
    edges = found.dependency_matrix_ > 0
    assert ((found.confidence_ > 0) == edges).all() and (found.confidence_ <= 1).all()
    true = network.adjacency & edges
    assert np.median(found.confidence_[true]) > 0.9


def test_a_given_strength_is_the_only_word_on_edges(network, monkeypatch):
    monkeypatch.setattr(skode._additive, "search_further", lambda *known: pytest.fail("searched"))
    X, y, groups = table_of(network)
    model = SparseNODERegressor(**QUICK).fit(X, y, groups=groups)
    assert "refit" in model.history_


def test_what_is_known_holds_in_a_search(network):
    target, source = (int(place[0]) for place in np.nonzero(network.adjacency))
    absent = tuple(np.argwhere(~network.adjacency & ~np.eye(30, dtype=bool))[-1])
    forbidden, required = np.zeros((30, 30), dtype=bool), np.zeros((30, 30), dtype=bool)
    forbidden[target, source] = required[absent] = True
    X, y, groups = table_of(network)
    model = SparseNODERegressorCV(prior=PriorKnowledge(forbidden=forbidden, required=required), **QUICK)
    matrix = model.fit(X, y, groups=groups).dependency_matrix_
    assert isinstance(model._fitted.field, HillField)
    assert matrix[target, source] == 0 and matrix[absent] > 0


def test_no_search_where_hardly_anything_is_left_or_there_are_too_many_pairs(network, models, monkeypatch):
    asked = []
    monkeypatch.setattr(skode._reading_search, "CurveSearch", lambda *given: asked.append(given))
    X, y, groups = table_of(network)
    for name, value in (("LITTLE", 2.0), ("MOST_PAIRS", 30 * 30 - 1)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(skode._reading_search, name, value)
            model = SparseNODERegressorCV(**QUICK).fit(X, y, groups=groups)
        np.testing.assert_array_equal(model.predict(X), models[1].predict(X))
    assert not asked
