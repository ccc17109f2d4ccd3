"""What the data cannot tell is said, and ordinary data pass in silence."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Ridge

from skode import (
    IdentifiabilityWarning,
    SparseNODERegressor,
    SparseNODERegressorCV,
    StabilitySelection,
    SteadyStates,
    from_trajectories,
)
from skode._identifiability import MANY, RIDGES, unexplained
from skode.datasets import (
    make_coupled_oscillators,
    make_dense_linear,
    make_glycolysis,
    make_hill_network,
    make_independent_decays,
    make_lorenz63,
    make_lorenz96,
    make_lotka_volterra,
    make_pendulum_chain,
)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def fit(states, times, inputs=None, estimator=None, steady_states=None, **options):
    X, y, groups = from_trajectories(list(states), times, inputs=inputs)
    base = SparseNODERegressor(max_iter=5, random_state=0, **options) if estimator is None else estimator
    return base.fit(X, y, groups=groups, steady_states=steady_states)


GOOD = {
    "Lorenz 1996, short": lambda: make_lorenz96(noise=0.05, random_state=0),
    "Lorenz 1996, long": lambda: make_lorenz96(n_trajectories=1, n_times=1000, random_state=0),
    "Lorenz 1996, irregular": lambda: make_lorenz96(n_trajectories=1, n_times=1000, irregular=0.5, random_state=0),
    "Lorenz 1963": lambda: make_lorenz63(random_state=0),
    "Hill": lambda: make_hill_network(random_state=0),
    "Hill, few and noisy": lambda: make_hill_network(n_trajectories=15, noise=0.05, random_state=1),
    "Hill, sums": lambda: make_hill_network(combine="sum", noise=0.1, random_state=2),
    "Hill, inputs": lambda: make_hill_network(n_inputs=2, noise=0.05, random_state=3),
    "predator and prey": lambda: make_lotka_volterra(random_state=0),
    "predator and prey, few": lambda: make_lotka_volterra(n_trajectories=6, n_times=25, noise=0.05, random_state=0),
    "linear": lambda: make_dense_linear(random_state=0),
    "decays": lambda: make_independent_decays(random_state=0),
    "oscillators": lambda: make_coupled_oscillators(random_state=0),
    "pendulums": lambda: make_pendulum_chain(random_state=0),
    "glycolysis": lambda: make_glycolysis(random_state=0),
}


@pytest.mark.parametrize("make", GOOD.values(), ids=GOOD)
def test_ordinary_data_pass_in_silence(make):
    system = make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", IdentifiabilityWarning)
        model = fit(system.states, system.times, system.inputs)
    assert model.identifiability_.shape == model.dependency_matrix_.shape
    assert model.identifiability_.min() > 0.7 and model.identifiability_.max() == 1


def warned(reason, *args, **options):
    """Fit, and see that one warning says why."""
    with pytest.warns(IdentifiabilityWarning) as caught:
        model = fit(*args, **options)
    ours = [str(w.message) for w in caught if w.category is IdentifiabilityWarning]
    assert len(ours) == 1 and re.search(reason, ours[0])
    assert re.search("should .*; got .* Start", ours[0])
    assert caught[0].filename == __file__
    return model


HILL = make_hill_network(n_genes=6, n_trajectories=12, noise=0.03, random_state=0)
STATES = np.asarray(HILL.states)


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_copies_are_named_and_only_they_are_doubted(noise):
    copy = STATES[..., :1] * 3 + 1
    copy = copy + noise * copy.std() * np.random.default_rng(0).standard_normal(copy.shape)
    model = warned(r"repeat each other \(x0, x6\)", np.concatenate([STATES, copy], axis=-1), HILL.times)
    assert (model.identifiability_[:, [0, 6]] < 0.3).all()
    assert (model.identifiability_[:, 1:6] > 0.9).all()


def test_sums_are_found_though_no_pair_is_alike():
    total = STATES[..., :3].sum(-1, keepdims=True)
    model = warned(
        r"others determine along the data \(x0, x1, x2, x6\)", np.concatenate([STATES, total], -1), HILL.times
    )
    assert (model.identifiability_[:, [0, 1, 2, 6]] < 0.5).all() and (model.identifiability_[:, 3:6] > 0.9).all()


def test_curved_dependence_is_found():
    clean = np.asarray(make_hill_network(n_genes=6, n_trajectories=12, random_state=0).states)
    squares = (clean[..., :1] - clean[..., :1].mean()) ** 2 + clean[..., 1:2]
    model = warned("others determine", np.concatenate([clean[..., :2], squares], -1), HILL.times)
    assert (model.identifiability_[:, 2] < 0.5).all()


def test_what_never_moves_is_named():
    still = np.concatenate([STATES, np.full_like(STATES[..., :1], 2.0)], -1)
    inputs = np.column_stack([np.linspace(0, 1, len(STATES)), np.ones(len(STATES))])
    model = warned(r"never move \(x6\); inputs that never change \(u1\)", still, HILL.times, inputs)
    assert not model.identifiability_[6].any() and not model.identifiability_[:, [6, 8]].any()
    assert (model.identifiability_[:6, 7] > 0.9).all()


@pytest.mark.parametrize("n_trajectories", [1, 4])
def test_a_limit_cycle_is_found(n_trajectories):
    times = np.arange(150) * 0.3
    phases = np.arange(n_trajectories)[:, None] + times
    rng = np.random.default_rng(0)
    circle = np.stack([np.cos(phases), np.sin(phases)], axis=-1)
    model = warned("one closed curve", circle + 0.02 * rng.standard_normal(circle.shape), times)
    assert (model.identifiability_ <= 0.5).all()
    spirals = circle * np.exp(-np.linspace(0.02, 0.1, n_trajectories)[:, None, None] * times[:, None])
    if n_trajectories > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("error", IdentifiabilityWarning)
            fit(spirals, times)


def test_an_attractor_of_few_dimensions_is_told_from_the_way_there():
    rng = np.random.default_rng(5)
    matrix = rng.normal(0, 2.0, (5, 5)) * (rng.random((5, 5)) < 0.5)
    times = np.arange(100) * 0.2

    def run(start, wait):
        found = solve_ivp(
            lambda _, x: matrix @ np.tanh(x) - x, (0, wait + 20), start, t_eval=wait + times, rtol=1e-8, atol=1e-8
        )
        return found.y.T

    starts = 2 * rng.standard_normal((12, 5))
    model = warned("determine|repeat", [run(x, 100.0) for x in starts[:4]], times)
    assert (model.identifiability_ < 0.5).all()
    early = fit([run(x, 0.0)[:20] for x in starts], times[:20])
    assert (early.identifiability_ > 0.5).all()


def test_steady_states_tell_copies_apart():
    double = np.concatenate([STATES, STATES[..., :1]], -1)
    rest = np.random.default_rng(0).uniform(0, 1.5, (60, 7))
    with warnings.catch_warnings():
        warnings.simplefilter("error", IdentifiabilityWarning)
        model = fit(double, HILL.times, steady_states=SteadyStates(rest))
    assert model.identifiability_.min() > 0.5


def test_one_variable_and_short_series_are_no_reason():
    decay = 2.0 ** -np.arange(8.0) * [[1.0], [2.0]]
    with warnings.catch_warnings():
        warnings.simplefilter("error", IdentifiabilityWarning)
        model = fit([d[:, None] for d in decay], np.arange(8.0))
    assert model.identifiability_.tolist() == [[1.0]]


def test_confidence_is_lowered_for_copies():
    double = np.concatenate([STATES[..., :2], STATES[..., :1]], -1)
    X, y, groups = from_trajectories(list(double), HILL.times)
    base = SparseNODERegressor(penalty=None, max_iter=5, random_state=0)
    with pytest.warns(IdentifiabilityWarning) as caught:
        model = StabilitySelection(base, n_pairs=1, random_state=0).fit(X, y, groups=groups)
    assert sum(w.category is IdentifiabilityWarning for w in caught) == 1
    np.testing.assert_array_equal(model.identifiability_, model.estimator_.identifiability_)
    # A dense field has every edge in every half.
    np.testing.assert_array_equal(model.confidence_, model.identifiability_)
    assert (model.confidence_[:, [0, 2]] < 0.1).all()


def test_the_cross_validated_estimator_says_so_too():
    double = np.concatenate([STATES[..., :2], STATES[..., :1]], -1)
    estimator = SparseNODERegressorCV(max_iter=10, n_alphas=2, cv=2, random_state=0)
    model = warned("repeat each other", double, HILL.times, estimator=estimator)
    assert (model.identifiability_[:, 0] < 0.1).all()


def test_unexplained_is_the_inverse_of_the_variance_inflation_factor():
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((3, 3))
    z = rng.standard_normal((4000, 3)) @ mix
    z = (z - z.mean(0)) / z.std(0)
    inverse = np.diag(np.linalg.inv(np.corrcoef(z.T)))
    np.testing.assert_allclose(unexplained(z, np.arange(4000) % 4), 1 / inverse, rtol=0.15)


def test_unexplained_of_more_sources_than_rows_is_the_error_of_ridge_regressions():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((120, 40)) @ rng.standard_normal((40, MANY + 1)) + 0.3 * rng.standard_normal(
        (120, MANY + 1)
    )
    z, fold = (z - z.mean(0)) / z.std(0), np.arange(120) % 4
    found = unexplained(z, fold)
    for j in (0, 7, MANY):
        others, errors = np.delete(z, j, axis=1), []
        for ridge in RIDGES:
            models = [Ridge(90 * ridge).fit(others[fold != k], z[fold != k, j]) for k in range(4)]
            errors.append(
                np.mean([(z[fold == k, j] - m.predict(others[fold == k])) ** 2 for k, m in enumerate(models)])
            )
        np.testing.assert_allclose(found[j], min(errors), rtol=1e-6)


def test_units_do_not_matter():
    factors = np.array([1e-3, 1.0, 1e3, 5.0, 0.1, 40.0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        one, other = fit(STATES, HILL.times), fit(STATES * factors + 7 * factors, 60 * np.asarray(HILL.times))
    np.testing.assert_allclose(one.identifiability_, other.identifiability_, rtol=1e-5)
