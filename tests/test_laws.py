"""Polynomial laws in place of networks: found where they are, refused where they are not."""

from __future__ import annotations

import pickle
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from sklearn.base import clone

import skode._law_choice
import skode._law_windows
import skode._laws
import skode._selection
from skode import PriorKnowledge, SparseNODERegressorCV, from_trajectories
from skode._best_starts import best_start_errors, z_score
from skode._dynamics import Dynamics
from skode._equations import equations
from skode._fit import set_up
from skode._law_choice import law_confidence, law_instead
from skode._law_terms import candidates_of, matched
from skode._law_windows import nearer, shooting_of, thinned
from skode._laws import search_law, settled
from skode._problem import in_double
from skode._scales import widened_box
from skode._shooting import Fit
from skode._train import Trained
from skode.datasets import make_hill_network, make_independent_decays, make_lorenz63, make_lotka_volterra
from skode.fields import AbstractField, PolynomialField

QUICK = {"max_iter": 300, "n_alphas": 4, "cv": 3, "random_state": 0, "device": "cpu"}
LORENZ = {0: {(0,), (1,)}, 1: {(0,), (1,), (0, 2)}, 2: {(2,), (0, 1)}}
"""Sources of the terms of every equation."""


@pytest.fixture(scope="module")
def lorenz():
    """Twenty trajectories with 5 % noise; the last ten, without, are a test."""
    return make_lorenz63(30, 30, noise=0.05, random_state=3)


def table_of(system, n=20):
    return from_trajectories(system.states[:n], system.times[:n])


@pytest.fixture(scope="module")
def model(lorenz):
    X, y, groups = table_of(lorenz)
    return SparseNODERegressorCV(**QUICK).fit(X, y, groups=groups)


def read(system, n=20, **settings):
    X, y, groups = table_of(system, n)
    reading = SparseNODERegressorCV(**QUICK, **settings)._read(X, y, None, groups, None)
    return reading, set_up(reading.trajectories, reading.specification, None)


def _candidates_of(setup, spec):
    """Sources that every target may read."""
    found = candidates_of(np.ones((3, 3), dtype=bool), 2, setup, spec, 500)
    return {
        target: {source for k in found.columns[found.columns[:, 0] == target, 1] for source in found.field.terms[k]}
        for target in range(3)
    }


def terms_of(law):
    return {
        target: {law.field.terms[k] for k in row.nonzero()[:, 0].tolist()}
        for target, row in enumerate(law.fit.coefficients)
    }


def exact_field(system, scales, off=0.0):
    """The law of a system as a field in standard units, a share too fast, and no weights."""

    class Exact(AbstractField):
        per_target, entries = True, ()

        def init(self, generator, **_):
            return {"none": torch.zeros(1, 1, dtype=torch.float64)}

        def __call__(self, weights, z):
            x = z.detach().numpy() * scales.state_sd + scales.state_mean
            slopes = (1.0 + off) * system.slope(0.0, x, None) / (scales.rate * scales.state_sd / scales.time_unit)
            return torch.as_tensor(slopes)

        def paths(self, weights):
            return torch.ones(1, self.n_targets, self.n_sources)

    d = len(scales.state_sd)
    field = Exact(d, d, (), "tanh", tuple(range(d)))
    return field, field.init(None)


def test_the_law_of_lorenz_is_found_to_the_last_term(lorenz, model):
    field = model._fitted.field
    assert isinstance(field, PolynomialField) and "law" in model.history_
    np.testing.assert_array_equal(model.dependency_matrix_ > 0, lorenz.adjacency)
    found = {
        target: {field.terms[k] for k in np.flatnonzero(row)} for target, row in enumerate(model._fitted.weights["C"])
    }
    assert found == LORENZ
    assert (model.confidence_[lorenz.adjacency] > 0.9).all()
    test = np.array(lorenz.clean_states[20:])
    short = test[:, :11]
    error = model.simulate(test[:, 0], lorenz.times[0][:11]) - short
    assert np.sqrt((error**2).mean()) < 0.1 * test.std()


def test_coefficients_are_those_of_lorenz(lorenz, model):
    draw = np.random.default_rng(0)
    x = np.concatenate(lorenz.clean_states)[draw.integers(0, 900, 200)]
    expected = lorenz.slope(0.0, x, None)
    np.testing.assert_allclose(model.predict_derivative(x), expected, atol=0.02 * np.abs(expected).max())


def test_equations_are_written_in_the_units_of_y(lorenz, model):
    found = model.equations(precision=4)
    assert [line.split(" = ")[0] for line in found] == ["dx0/dt", "dx1/dt", "dx2/dt"]
    for line, expected in zip(
        found, ("- 10 x0 + 10 x1", "28 x0 - 1 x1 - 1 x0 x2", "- 2.667 x2 + 1 x0 x1"), strict=True
    ):
        got, wanted = (text.replace("- ", "-").replace("+ ", "").split() for text in (line.split(" = ")[1], expected))
        assert [word for word in got if word[0] == "x"] == [word for word in wanted if word[0] == "x"]
        numbers, true = ([float(word) for word in words if word[0] != "x"] for words in (got, wanted))
        np.testing.assert_allclose(numbers, true, rtol=0.1)
    x = np.array([[1.5, -2.0, 20.0]])  # what is written is what is solved
    by_hand = [eval(as_python(line), dict(zip(("x0", "x1", "x2"), x[0], strict=True))) for line in model.equations(12)]
    np.testing.assert_allclose(model.predict_derivative(x)[0], by_hand, rtol=1e-9)


def as_python(line):
    text = line.split(" = ")[1].replace("- ", "-").replace("+ ", "+").replace("^", "**")
    return "".join("*" + word if word[0] == "x" else word for word in text.split())


def test_networks_have_no_equations(lorenz):
    X, y, groups = table_of(lorenz, 8)
    model = SparseNODERegressorCV(**{**QUICK, "max_iter": 30}, field="per_target").fit(X, y, groups=groups)
    with pytest.raises(ValueError, match="polynomial law; got .*networks|polynomial law; got .*Field"):
        model.equations()


def test_squares_and_constants_are_written_as_such(lorenz, model):
    fitted = model._fitted
    field = replace(fitted.field, terms=((), (1, 1), (0, 0, 2)))
    coefficients = np.array([[1.0, 0.0, -1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    lines = equations(replace(fitted, field=field, weights={"C": coefficients}), ("a", "b", "c"), 2)
    assert lines[1] == "db/dt = 0"
    assert lines[0].startswith("da/dt = ") and lines[0].endswith(" a^2 c") and " - " in lines[0]
    assert lines[2].endswith(" b^2")


def test_a_model_of_a_law_is_one_like_all_others(lorenz, model):
    X, y, groups = table_of(lorenz)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    np.testing.assert_array_equal(model.predict(X[:3]), model.predict(X)[:3])
    np.testing.assert_array_equal(clone(model).fit(X, y, groups=groups).predict(X), model.predict(X))
    graph = model.get_dependency_graph()
    assert graph.number_of_edges() == (model.dependency_matrix_ > 0).sum()
    assert graph.edges["x1", "x0"]["sign"] == 1 and graph.edges["x2", "x2"]["sign"] == -1
    assert model.status_ == "converged" and model.n_iter_ > 0


def test_predictions_in_torch_and_numpy_agree(lorenz, model):
    """What a GPU would take, on a CPU."""
    fitted = model._fitted
    z = torch.as_tensor(np.random.default_rng(0).normal(size=(1, 20, 3)))
    read_ = np.concatenate([z[0].numpy(), np.ones((20, 1))], axis=1)
    out = np.empty((20, 3))
    fitted.field.at_points(fitted.weights, fitted.scales.rate).open(read_)(out)
    slope = fitted.slope(np.zeros((20, 0)), np.zeros(20), torch.device("cpu"))
    torch.testing.assert_close(slope.value(torch.zeros(1, 20), z, torch.arange(20))[0], torch.as_tensor(out))


def test_decays_have_a_linear_law():
    system = make_independent_decays(3, n_trajectories=14, n_times=15, noise=0.03, random_state=0)
    reading, setup = read(system, 14)
    field, weights = exact_field(system, setup.prepared.scales)
    law = search_law(setup, field, weights, reading.specification)
    assert max(map(len, law.field.terms)) == 1
    np.testing.assert_array_equal(law.support(), np.eye(3, dtype=bool))


def test_a_law_of_genes_must_follow_held_out_windows_as_their_curves_do():
    """Saturating curves are no polynomials; where noise hides the difference, a law may hide in it too."""
    system = make_hill_network(5, 24, 12, noise=0.02, random_state=1)
    reading, setup = read(system, 24)
    field, weights = exact_field(system, setup.prepared.scales)
    trained = Trained(field, weights, weights, torch.zeros(1, 5, 5), {}, torch.ones(1))
    law = law_instead(setup, trained, reading.specification)
    if law is not None:
        held, shooting = in_double(setup.problem.held_windows), law.shooting
        given = held, shooting.sd, shooting.n_steps
        ours = best_start_errors(Dynamics(law.field, setup.prepared.scales, False), law.weights, *given)
        theirs = best_start_errors(Dynamics(field, setup.prepared.scales, False), weights, *given)
        assert z_score(ours, theirs) >= -1.0 and law.share <= 0.5


def test_what_prior_knowledge_forbids_is_in_no_law_and_what_it_requires_must_be(lorenz):
    closed, required = np.zeros((3, 3), dtype=bool), np.zeros((3, 3), dtype=bool)
    closed[0, 1] = required[0, 2] = True
    reading, setup = read(lorenz, prior=PriorKnowledge(forbidden=closed))
    field, weights = exact_field(lorenz, setup.prepared.scales)
    assert not _candidates_of(setup, reading.specification)[0] & {1}
    law = search_law(setup, field, weights, reading.specification)
    assert law is None or not law.support()[0, 1]
    reading, setup = read(lorenz, prior=PriorKnowledge(required=required))
    field, weights = exact_field(lorenz, setup.prepared.scales, off=0.03)
    trained = Trained(field, weights, weights, torch.zeros(1, 3, 3), {}, torch.ones(1))
    assert law_instead(setup, trained, reading.specification) is None
    reading, setup = read(lorenz)
    assert terms_of(law_instead(setup, trained, reading.specification)) == LORENZ


def logistic(n=24, n_times=15, offset=0.0, rates=(1.0, 0.6), noise=0.02, decay=False):
    """States of two variables that stand apart, each growing to 1, or decaying, about an offset."""
    draw = np.random.default_rng(0)
    t = np.linspace(0.0, 6.0, n_times)
    states = []
    for _ in range(n):
        start = draw.uniform(0.1, 1.8, len(rates))
        grown = np.exp(np.outer(t, rates))
        x = start / grown if decay else start * grown / (1.0 + start * (grown - 1.0))
        states.append(offset + x + noise * draw.normal(size=x.shape))
    return states, [t] * n


def law_of(states, times, inputs=None, **settings):
    X, y, groups = from_trajectories(states, times, inputs)
    return SparseNODERegressorCV(**{**QUICK, **settings}).fit(X, y, groups=groups)


def test_one_variable_may_have_a_law():
    states, times = logistic(rates=(1.0,))
    model = law_of(states, times)
    assert model._fitted.field.terms == ((0,), (0, 0))
    assert float(model.predict_derivative([[0.5]])[0, 0]) == pytest.approx(0.25, abs=0.02)


def test_prior_knowledge_that_is_true_takes_no_law_away():
    states, times = logistic()
    free = law_of(states, times)
    told = law_of(states, times, prior=PriorKnowledge(allowed=np.eye(2, dtype=bool)))
    assert isinstance(free._fitted.field, PolynomialField) and isinstance(told._fitted.field, PolynomialField)
    np.testing.assert_array_equal(free.dependency_matrix_ > 0, np.eye(2, dtype=bool))


@pytest.mark.parametrize("offset", [0.0, 300.0, 3e4])
def test_decays_far_from_zero_are_as_linear_as_near_it(offset):
    """Temperatures in kelvin: there x, its square and its cube look alike."""
    states, times = logistic(offset=offset, noise=0.005, decay=True)
    model = law_of(states, times)
    assert isinstance(model._fitted.field, PolynomialField)
    assert max(map(len, model._fitted.field.terms)) == 1
    np.testing.assert_array_equal(model.dependency_matrix_ > 0, np.eye(2, dtype=bool))
    slopes = model.predict_derivative(offset + np.array([[0.5, 0.5], [1.0, 1.0]]))
    np.testing.assert_allclose(slopes, [[-0.5, -0.3], [-1.0, -0.6]], atol=0.03)
    assert ("(x0 - " in model.equations()[0]) == (offset > 0)


def test_what_never_varies_is_in_no_law_and_takes_none_away(lorenz):
    states = [np.column_stack([x, np.full(len(x), 7.0)]) for x in lorenz.states[:20]]
    model = law_of(states, lorenz.times[:20], np.full((20, 1), 2.5))
    assert isinstance(model._fitted.field, PolynomialField)
    assert all(source < 3 for term in model._fitted.field.terms for source in term)
    np.testing.assert_array_equal(model.dependency_matrix_[:3, :3] > 0, lorenz.adjacency)
    assert model.equations()[3] == "dx3/dt = 0"


def test_a_given_start_is_where_a_window_starts(lorenz):
    model = law_of(lorenz.states[:20], lorenz.times[:20], initial_state="observed")
    assert np.isfinite(model.predict_derivative(np.concatenate(lorenz.clean_states[:2]))).all()
    reading, setup = read(lorenz, initial_state="observed")
    shooting = shooting_of(
        setup,
        Dynamics(exact_field(lorenz, setup.prepared.scales)[0], setup.prepared.scales, False),
        {"none": torch.zeros(1, 1, dtype=torch.float64)},
    )
    given = shooting.windows.spread == 0
    assert bool(given.any()) and float(shooting.held[given].min()) > 1e9 * float(shooting.held[~given].max())


def test_observations_may_be_missing_and_be_worth_less(lorenz):
    draw = np.random.default_rng(0)
    states = [np.where(draw.random(x.shape) < 0.2, np.nan, x) for x in lorenz.states[:20]]
    states = [np.concatenate([x[:1], some[1:]]) for x, some in zip(lorenz.states, states, strict=False)]
    X, y, groups = from_trajectories(states, lorenz.times[:20])
    weights = np.where(draw.random(len(X)) < 0.3, 0.2, 1.0)
    reading = SparseNODERegressorCV(**QUICK)._read(X, y, weights, groups, None)
    setup = set_up(reading.trajectories, reading.specification, None)
    law = search_law(setup, *exact_field(lorenz, setup.prepared.scales), reading.specification)
    assert terms_of(law) == LORENZ


def test_a_term_that_does_nothing_is_not_certain(lorenz):
    reading, setup = read(lorenz)
    law = settled(
        search_law(setup, *exact_field(lorenz, setup.prepared.scales), reading.specification),
        setup,
        reading.specification,
    )
    more = replace(law.field, terms=(*law.field.terms, (0, 0)))
    coefficients = torch.nn.functional.pad(law.fit.coefficients, (0, 1))
    coefficients[1, -1] = 1e-6
    fit = law.shooting.fit(more, Fit(coefficients, law.fit.start))
    only = law._replace(field=more, fit=fit, weights={"C": fit.coefficients.unsqueeze(0)})
    coefficients[0, -1] = 1e-6  # x drives itself anyhow; through y there is a new edge
    extra = replace(law.field, terms=(*law.field.terms, (2, 2)))
    coefficients = torch.nn.functional.pad(law.fit.coefficients, (0, 1))
    coefficients[0, -1] = 1e-6
    fit = law.shooting.fit(extra, Fit(coefficients, law.fit.start))
    false = law._replace(field=extra, fit=fit, weights={"C": fit.coefficients.unsqueeze(0)})
    confidence = law_confidence(false)
    assert confidence[0, 2] < 0.9 and (confidence[lorenz.adjacency] > 0.9).all()
    assert (law_confidence(only)[lorenz.adjacency] > 0.9).all()
    assert (law_confidence(law)[~lorenz.adjacency] == 0).all()


def test_few_data_have_no_law(lorenz):
    reading, setup = read(lorenz, 3)
    field, weights = exact_field(lorenz, setup.prepared.scales)
    assert search_law(setup, field, weights, reading.specification) is None


def test_an_edge_that_networks_have_missed_is_found_among_terms_of_all_sources(lorenz):
    reading, setup = read(lorenz)
    law = search_law(setup, *exact_field(lorenz, setup.prepared.scales), reading.specification)
    assert terms_of(law) == LORENZ
    coefficients = law.fit.coefficients.clone()
    coefficients[1, law.field.terms.index((1,))] = 0.0
    fit = law.shooting.fit(law.field, Fit(coefficients, law.fit.start))
    less = law._replace(fit=fit, weights={"C": fit.coefficients.unsqueeze(0)})
    assert not less.support()[1, 1]
    every = candidates_of(np.ones((3, 3), dtype=bool), 2, setup, reading.specification, 500)
    found = skode._laws._wider(less, every)
    assert terms_of(found) == LORENZ and found.criterion < less.criterion and found.share == pytest.approx(7 / 30)
    assert skode._laws._wider(law, every) is law  # nothing is missing there


def test_of_many_windows_whole_runs_are_read(lorenz):
    _, setup = read(lorenz)
    teacher = Dynamics(exact_field(lorenz, setup.prepared.scales)[0], setup.prepared.scales, False)
    every = shooting_of(setup, teacher, {"none": torch.zeros(1, 1, dtype=torch.float64)})
    some = thinned(every, 40)
    assert 30 <= len(some.windows.start) <= 50 and thinned(every, 400) is every
    assert len(some.places) == len(every.places) and len(some.places[-1]) == len(some.places[0])


def test_where_there_is_much_to_do_fewer_windows_are_read(lorenz, monkeypatch):
    reading, setup = read(lorenz)
    monkeypatch.setattr(skode._law_windows, "MOST_WORK", 1.0)
    law = search_law(setup, *exact_field(lorenz, setup.prepared.scales), reading.specification)
    assert 50 <= len(law.shooting.windows.start) <= 70 < len(setup.problem.windows.start)
    assert terms_of(law) == LORENZ


def test_the_best_start_of_a_window_is_found(lorenz):
    """Under the exact law what is left is the noise: a window of six observations knows 15 of 18 numbers."""
    _, setup = read(lorenz)
    scales = setup.prepared.scales
    field, weights = exact_field(lorenz, scales)
    windows = in_double(setup.problem.windows)
    sd = torch.as_tensor(0.05 / np.ones(3))
    errors = best_start_errors(Dynamics(field, scales, False), weights, windows, sd, 30)
    n = (windows.weights > 0).sum((1, 2)) - 3
    assert float(errors.square().sum() / n.sum()) == pytest.approx(1.0, abs=0.15)


def test_z_scores_are_those_of_the_logarithm():
    theirs = torch.tensor([1.0, 2.0, 3.0, 4.0])
    gains = np.log(1.0 / np.array([1.2, 0.9, 1.1, 0.9]))
    found = z_score(theirs * torch.tensor([1.2, 0.9, 1.1, 0.9]), theirs)
    assert found == pytest.approx(gains.mean() / (gains.std(ddof=1) / 2), rel=1e-5)
    assert z_score(theirs, theirs) == 0.0 and z_score(torch.zeros(4), torch.zeros(4)) == 0.0


def test_an_expansion_must_be_clearly_better(lorenz, monkeypatch):
    reading, setup = read(lorenz)
    field, weights = exact_field(lorenz, setup.prepared.scales, off=0.03)
    trained = Trained(field, weights, weights, torch.zeros(1, 3, 3), {}, torch.ones(1))
    law = search_law(setup, field, weights, reading.specification)
    assert law.share == pytest.approx(7 / 30)
    for share, score, taken in ((0.3, 0.0, True), (0.6, 0.0, False), (0.6, 2.0, True), (0.3, -2.0, False)):
        offered = law._replace(n_offered=round(law.n_terms / share))
        monkeypatch.setattr(skode._law_choice, "search_law", lambda *_, offered=offered: offered)
        monkeypatch.setattr(skode._law_choice, "nearer", lambda *_, score=score: score)
        assert (law_instead(setup, trained, reading.specification) is not None) == taken


def infections(noise):
    """Susceptible, infected and recovered; the infected peak between two observations."""

    def slope(_, x):
        s, i, r = x
        return [0.05 - 1.5 * s * i - 0.05 * s, 1.5 * s * i - 0.45 * i, 0.4 * i - 0.05 * r]

    draw = np.random.default_rng(0)
    times = [np.concatenate([[0], np.sort(draw.uniform(0, 20, 24))]) for _ in range(20)]
    clean = [
        solve_ivp(slope, (0, 20), draw.uniform(0.1, 2.0, 3), t_eval=t, rtol=1e-8, atol=1e-8, method="LSODA").y.T
        for t in times
    ]
    sd = np.concatenate(clean).std(axis=0)
    return [x + noise * sd * draw.normal(size=x.shape) for x in clean], times


def test_a_peak_between_observations_is_not_astray():
    states, times = infections(0.02)
    X, y, groups = from_trajectories(states, times)
    model = SparseNODERegressorCV(**QUICK).fit(X, y, groups=groups)
    field, scales = model._fitted.field, model._fitted.scales
    assert isinstance(field, PolynomialField)
    np.testing.assert_array_equal(model.dependency_matrix_ > 0, [[1, 1, 0], [1, 1, 0], [0, 1, 1]])
    assert field.low[1] == pytest.approx(-scales.state_mean[1] / scales.state_sd[1])  # no product of less than none
    none = np.array([[1.0, -0.1, 0.0]])  # noise in the start
    later = model.simulate(none, np.linspace(0, 20, 5))[0]
    assert (later[1:, 1] > -0.1).all() and abs(later[-1, 1]) < 0.01


def test_laws_are_believed_beyond_the_data_but_not_products_of_three(lorenz, model):
    data = make_lotka_volterra(20, 30, noise=0.02, random_state=1)
    X, y, groups = table_of(data)
    cycles = SparseNODERegressorCV(**QUICK).fit(X, y, groups=groups)
    assert isinstance(cycles._fitted.field, PolynomialField)
    most = np.concatenate(data.states).max(axis=0)
    start = np.array([[1.5 * most[0], 1.5 * most[1]]])
    times = np.linspace(0, data.times[0][-1], 40)
    true = solve_ivp(
        lambda t, x: data.slope(t, x[None], None)[0], (0, times[-1]), start[0], t_eval=times, rtol=1e-9
    ).y.T
    found = cycles.simulate(start, times)[0]
    assert true.max() > 2.0 * most.max()
    assert np.sqrt(np.mean((found - true) ** 2)) < 0.1 * true.std()
    scales, field = model._fitted.scales, replace(model._fitted.field, low=(), high=())
    cubic = replace(field, terms=(*field.terms[:-1], (0, 0, 0)))
    prepared = read(lorenz)[1].prepared
    zero = -scales.state_mean / scales.state_sd
    for one, times_wider in ((field, 10.0), (cubic, 1.5)):
        edges = skode._law_choice._held(one, prepared)
        low, high = widened_box(scales, times_wider)
        np.testing.assert_allclose([edges.low, edges.high], [np.maximum(low, [-np.inf, -np.inf, zero[2]]), high])


def test_networks_that_are_far_off_are_no_teachers(lorenz):
    reading, setup = read(lorenz)
    field, weights = exact_field(lorenz, setup.prepared.scales, off=-1.9)  # backwards in time
    law = search_law(setup, field, weights, reading.specification)
    assert terms_of(law) == LORENZ


def test_monomials_are_matched_to_the_slopes_of_paths(lorenz):
    reading, setup = read(lorenz)
    candidates = candidates_of(np.ones((3, 3), dtype=bool), 2, setup, reading.specification, 500)
    rows = setup.problem.rows
    means = (candidates.field.values(rows.sources.double()) * rows.quadrature.double()[..., None]).sum(1).numpy()
    found = matched(candidates, rows)
    for target in range(3):
        weights = np.sqrt(rows.weights[:, target].double().numpy())
        expected = np.linalg.lstsq(means * weights[:, None], rows.slopes[:, target].double().numpy() * weights)[0]
        got = means @ found[target].numpy()
        np.testing.assert_allclose(got, means @ expected, atol=1e-3 * np.abs(got).max())


def test_a_law_with_products_of_three_must_hold_between_the_data():
    """dx/dt = -x + x^2 y, dy/dt = -y: harmless where one of both is small."""
    draw = np.random.default_rng(0)
    starts = np.array([[3.0, 0.2], [0.2, 3.0]])[np.arange(16) % 2] * draw.uniform(0.9, 1.1, (16, 2))
    times = np.linspace(0, 3, 16)
    states = [
        solve_ivp(lambda _, x: [-x[0] + x[0] ** 2 * x[1], -x[1]], (0, 3), x0, t_eval=times, rtol=1e-8).y.T
        for x0 in starts
    ]
    X, y, groups = from_trajectories(states, [times] * 16)
    reading = SparseNODERegressorCV(**QUICK)._read(X, y, None, groups, None)
    setup = set_up(reading.trajectories, reading.specification, None)
    scales = setup.prepared.scales
    rate = scales.rate * scales.state_sd / scales.time_unit
    units = {"gain": tuple(scales.state_sd), "shift": tuple(scales.state_mean)}

    def field_of(coefficients):
        field = PolynomialField(2, 2, (), "tanh", (0, 1), terms=((0,), (1,), (0, 0, 1)), **units)
        weights = {"C": torch.as_tensor(np.array(coefficients) / rate[:, None]).unsqueeze(0)}
        return SimpleNamespace(field=field, weights=weights, degree=3)

    true, relaxing = field_of([[-1.0, 0.0, 1.0], [0.0, -1.0, 0.0]]), field_of([[-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    assert skode._law_choice._astray(true, relaxing, setup)  # a start of x and of y makes x grow without end
    assert not skode._law_choice._astray(true, true, setup)  # no more often than what it is compared with
    assert not skode._law_choice._astray(relaxing, relaxing, setup)


@pytest.mark.parametrize("noise, lowest, cut", [(0.0, -0.01, False), (0.02, -0.05, True), (0.02, -0.2, False)])
def test_only_what_noise_puts_below_zero_is_cut_there(lorenz, noise, lowest, cut):
    """An amount in units of its standard deviation, whose smooth path goes as low as that."""
    _, setup = read(lorenz)
    prepared = setup.prepared
    zero = -prepared.scales.state_mean / prepared.scales.state_sd
    low = prepared.scales.low.copy()
    low[2] = zero[2] + lowest
    prepared = replace(prepared, noise=np.full(3, noise), scales=replace(prepared.scales, low=low))
    field = PolynomialField(3, 3, (), "tanh", (0, 1, 2), terms=((0, 1),), gain=(1.0,) * 3, shift=(0.0,) * 3)
    edges = skode._law_choice._held(field, prepared)
    assert (edges.low[2] == zero[2]) == cut
    assert edges.low[0] < prepared.scales.low[0]


def test_stiff_networks_are_solved_in_steps_that_suit_them():
    """A linear law is nearer to a stiff relaxation than the relaxation itself only if that is solved too coarsely."""
    times = np.linspace(0, 6, 31)
    states = [np.column_stack([a * np.exp(-40.0 * times), b * np.exp(-0.3 * times)]) for a in (1, 2) for b in (1, 2, 3)]
    X, y, groups = from_trajectories(states, [times] * 6)
    reading = SparseNODERegressorCV(**QUICK)._read(X, y, None, groups, None)
    setup = set_up(reading.trajectories, reading.specification, None)
    scales = setup.prepared.scales
    units = {"gain": tuple(scales.state_sd), "shift": tuple(scales.state_mean)}
    rate = np.where(scales.moving, scales.rate, 1.0) * scales.state_sd / scales.time_unit
    field = PolynomialField(2, 2, (), "tanh", (0, 1), terms=((0,), (1,)), **units)

    def law(*rates):
        return field, {"C": torch.as_tensor(np.diag(rates) / rate[:, None]).unsqueeze(0)}

    windows, sd = in_double(setup.problem.windows), torch.full((2,), 0.05, dtype=torch.float64)
    assert nearer(law(0.0, -0.3), law(-40.0, -0.3), windows, sd, setup) < 0.0


def test_networks_are_not_asked_how_sure_they_are_where_a_law_stands(lorenz, model, monkeypatch):
    monkeypatch.setattr(skode._selection, "edge_confidence", lambda *_: pytest.fail("asked"))
    X, y, groups = table_of(lorenz)
    again = SparseNODERegressorCV(**QUICK).fit(X, y, groups=groups)
    np.testing.assert_array_equal(again.confidence_, model.confidence_)
