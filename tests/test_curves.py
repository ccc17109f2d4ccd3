"""Curves in place of networks: where folds ask for them, and nowhere else."""

from __future__ import annotations

import pickle
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.base import clone

import skode._curve_choice
import skode._curve_folds
import skode._selection
from skode import PriorKnowledge, SparseNODERegressorCV, from_trajectories
from skode._capacity import EVIDENCE
from skode._curve_choice import curves_instead
from skode._curve_fits import SEARCHED, CurveFits, curve_prices
from skode._curve_folds import Rival, curve_confidence, lead_on_folds
from skode._curve_search import CurveSearch
from skode._curves import bare_curves, pruned, search_curves
from skode._finish import finish
from skode._fit import set_up
from skode._fold_products import fresh_on_folds
from skode._folds import most_folds
from skode._problem import every_row
from skode.datasets import make_hill_network, make_lotka_volterra
from skode.fields import HillField

QUICK = {"max_iter": 200, "n_alphas": 4, "cv": 3, "random_state": 0, "device": "cpu"}


@pytest.fixture(scope="module")
def network():
    """Eight genes that need their regulators together; the last eight trajectories are a test."""
    return make_hill_network(8, 28, 10, noise=0.05, random_state=2)


def table_of(network):
    return from_trajectories(network.states[:20], network.times[:20])


def read(network, **settings):
    X, y, groups = table_of(network)
    reading = SparseNODERegressorCV(**QUICK, **settings)._read(X, y, None, groups, None)
    return reading, set_up(reading.trajectories, reading.specification, None)


@pytest.fixture(scope="module")
def model(network):
    X, y, groups = table_of(network)
    return SparseNODERegressorCV(**QUICK).fit(X, y, groups=groups)


def test_genes_that_need_their_regulators_together_are_read_by_curves(network, model):
    assert isinstance(model._fitted.field, HillField) and "curves" in model.history_
    off = ~np.eye(8, dtype=bool)
    found, truth = model.dependency_matrix_[off] > 0, network.adjacency[off]
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.9
    test = np.array(network.clean_states[20:])
    error = model.simulate(test[:, 0], network.times[0]) - test
    assert np.sqrt((error**2).mean()) < 0.15 * test.std()


def test_a_model_of_curves_is_one_like_all_others(network, model):
    X, y, groups = table_of(network)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    np.testing.assert_array_equal(model.predict(X[:3]), model.predict(X)[:3])
    np.testing.assert_array_equal(clone(model).fit(X, y, groups=groups).predict(X), model.predict(X))
    graph = model.get_dependency_graph()
    assert graph.number_of_edges() == (model.dependency_matrix_ > 0).sum()
    assert ((model.confidence_ > 0) == (model.dependency_matrix_ > 0)).all() and model.confidence_.max() <= 1


def test_signs_are_those_of_the_network(network, model):
    found = model.dependency_matrix_ > 0
    edges = [(j, i) for i in range(8) for j in range(8) if i != j and found[i, j] and network.signs[i, j]]
    graph = model.get_dependency_graph()
    signs = [graph.edges[f"x{j}", f"x{i}"]["sign"] * network.signs[i, j] for j, i in edges]
    assert len(signs) > 8 and min(signs) >= 0 and np.mean(signs) > 0.9


@pytest.mark.parametrize(
    "settings", [{"field": "per_target"}, {"n_bilinear": 0}, {"selection": "best"}, {"selection": 5}]
)
def test_who_says_what_reads_the_sources_has_no_curves_and_no_law(network, settings, monkeypatch):
    asked = []
    for name in ("curves_instead", "law_instead"):
        monkeypatch.setattr(skode._selection, name, lambda *a: asked.append(a))
    X, y, groups = table_of(network)
    SparseNODERegressorCV(**{**QUICK, "max_iter": 30}, **settings).fit(X, y, groups=groups)
    assert not asked


def test_products_of_states_are_not_taken_for_curves():
    system = make_lotka_volterra(n_trajectories=12, n_times=20, noise=0.02, random_state=0)
    X, y, groups = from_trajectories(system.states, system.times)
    model = SparseNODERegressorCV(**{**QUICK, "max_iter": 800}).fit(X, y, groups=groups)
    assert not isinstance(model._fitted.field, HillField)


def test_prior_knowledge_holds_for_curves(network):
    target, source = (int(place[0]) for place in np.nonzero(network.adjacency))
    forbidden, required = np.zeros((8, 8), dtype=bool), np.zeros((8, 8), dtype=bool)
    forbidden[target, source] = True
    absent = np.argwhere(~network.adjacency & ~np.eye(8, dtype=bool))[0]
    required[tuple(absent)] = True
    reading, setup = read(network, prior=PriorKnowledge(forbidden=forbidden, required=required))
    curves = search_curves(setup, [], reading.specification)
    paths = curves.field.paths(curves.weights)[0].numpy()
    assert paths[target, source] == 0 and paths[tuple(absent)] > 0
    doubt = np.where(required, 0.1, 1.0)
    kept = pruned(curves, doubt, setup.prepared, setup.problem, reading.specification)
    assert kept is curves  # what is required stays, however little it does


def test_confidence_tells_an_edge_that_does_nothing(network):
    reading, setup = read(network)
    curves = search_curves(setup, [], reading.specification)
    extra = next(j for j in range(8) if j not in curves.fits[0].parents)
    with_one = replace_parents(curves, 0, extra)
    folds = most_folds(reading.trajectories, 3).parts
    confidence = curve_confidence(with_one, folds, reading.specification, None)
    target = curves.fits[0].target
    others = [j for j in curves.fits[0].parents if j != extra]
    assert confidence[target, extra] < 0.9 < confidence[target, others].max()
    assert (confidence <= 1).all() and confidence[network.adjacency].mean() > 0.9
    nothing = curve_confidence(curves, [], reading.specification, None)
    assert set(np.unique(nothing)) <= {0.0, 0.5}


def replace_parents(curves, place, extra):
    """The same with one parent more of one target."""
    fit = curves.fits[place]
    fits = list(curves.fits)
    fits[place] = fit._replace(parents=tuple(sorted((*fit.parents, extra), key=lambda j: (j != fit.target, j))))
    return curves._replace(fits=fits)


def test_the_least_certain_edge_goes_if_folds_do_not_miss_it(network):
    reading, setup = read(network)
    curves = search_curves(setup, [], reading.specification)
    fit = next(fit for fit in curves.fits if len(fit.parents) > 2)
    confidence = np.ones((8, 8))
    confidence[fit.target, fit.parents[-2:]] = 0.4, 0.3
    less = pruned(curves, confidence, setup.prepared, setup.problem, reading.specification)
    changed = [(a, b) for a, b in zip(curves.fits, less.fits, strict=True) if a.parents != b.parents]
    ((before, after),) = changed
    assert before.target == fit.target and after.parents == fit.parents[:-1] and after.loss > before.loss
    assert less.field.paths(less.weights)[0, fit.target, fit.parents[-1]] == 0


def test_a_handful_of_windows_does_not_decide(network, monkeypatch):
    reading, setup = read(network)
    curves = search_curves(setup, [], reading.specification)
    mask = {name: torch.ones_like(value) for name, value in fresh_weights(setup).items()}
    folds = most_folds(reading.trajectories, 3).parts
    fresh = fresh_on_folds(folds, mask, reading.specification, 0, None)
    rivals = [Rival(setup, trained.field, trained.weights) for setup, trained in fresh]
    assert lead_on_folds(curves, rivals) > EVIDENCE and lead_on_folds(curves, []) == -np.inf
    monkeypatch.setattr(skode._curve_folds, "FEWEST", 1000)
    assert lead_on_folds(curves, rivals) == -np.inf


def fresh_weights(setup):
    field = setup.dynamics.field
    return field.init(torch.Generator(), n_models=1, dtype=torch.float32, device=torch.device("cpu"))


def test_networks_that_forecast_held_out_windows_better_stay(network, monkeypatch):
    reading, setup = read(network)
    mask = fresh_weights(setup)
    opened, spec = {name: torch.ones_like(value) for name, value in mask.items()}, reading.specification
    folds = most_folds(reading.trajectories, 3).parts
    networks = partial(finish, setup.dynamics, setup.problem, mask, opened, spec, 0, folds=folds)
    refits = [trained.weights for _, trained in fresh_on_folds(folds, opened, replace(spec, widen=False), 0, None)]
    given = (setup, networks, opened, folds, refits, spec, 0, None)
    assert curves_instead(*given) is not None
    forecast = skode._curve_choice.window_errors
    ours = lambda field: isinstance(field, HillField)  # noqa: E731
    worse = lambda dynamics, field, *rest: forecast(dynamics, field, *rest) * (1.0 if ours(field) else 1e-3)  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(skode._curve_choice, "window_errors", worse)
        patch.setattr(skode._curve_choice, "CERTAIN", np.inf)
        assert curves_instead(*given) is None
        patch.setattr(skode._curve_choice, "CERTAIN", EVIDENCE)  # folds that leave no doubt decide alone
        assert curves_instead(setup, lambda: pytest.fail("networks were finished"), *given[2:]) is not None
    rivals = []  # networks as folds have fitted them, and once more with products where the finished ones have any

    def told(curves, some):
        rivals.append([rival.field.n_bilinear for rival in some])
        return 2.0 if len(rivals) < 2 else 1.0

    monkeypatch.setattr(skode._curve_choice, "lead_on_folds", told)
    finished = networks()
    wide = replace(finished.field, n_bilinear=4)
    lead = finished.weights["K"].shape[:2]
    products = {name: torch.zeros(*lead, 4, wide.n_sources) for name in ("P", "R")}
    with_products = finished._replace(field=wide, weights={**finished.weights, **products})
    assert curves_instead(setup, lambda: with_products, *given[2:]) is None
    assert len(rivals) == 2 and not any(rivals[0])


def test_states_that_go_below_zero_have_no_curves(network):
    lower = replace(network, states=[x - 1.0 for x in network.states])
    reading, setup = read(lower)
    assert search_curves(setup, [], reading.specification) is None


@pytest.mark.parametrize("seed", [0, 4])
def test_four_regulators_that_act_together_are_found_among_seven(seed):
    network = make_hill_network(8, 20, 20, n_edges=24, noise=0.02, random_state=seed)
    four = [int(i) for i in np.flatnonzero(network.adjacency.sum(axis=1) == 4)]
    reading, (prepared, dynamics, problem) = read(network)
    rows, prices = every_row(prepared, problem.matching.double()), curve_prices(1e-3)[SEARCHED]
    fits = CurveFits(bare_curves(dynamics.field, prepared), rows, problem.matching, prices)
    every = np.ones((8, 8), dtype=bool)
    search = CurveSearch(fits, np.full(8, 100.0), every, ~every)
    found = search.run([(i, range(8)) for i in four])
    assert [set(fit.parents) - {fit.target} for fit in found] == [
        set(np.flatnonzero(network.adjacency[i])) for i in four
    ]
