"""Reach: forecasts of the training data stay where the data are, or longer windows see to it, or a warning says so."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skode import SparseNODERegressor, from_trajectories
from skode import _reach as module
from skode._batch import Batch
from skode._dynamics import Dynamics
from skode._fit import fit_batch, make_field, set_up
from skode._layout import Layout
from skode._parameters import specify
from skode._problem import forecasts
from skode._trajectories import as_trajectories
from skode.datasets import load_mocap, make_dense_linear
from skode.exceptions import DivergedPredictionWarning
from skode.fields import HeldField, PolynomialField

SMALL = {"hidden_layer_sizes": (4,), "max_iter": 60, "dtype": "float64", "device": "cpu"}
FLOAT64 = torch.zeros(0, dtype=torch.float64)


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def linear_data(missing=0.0):
    system = make_dense_linear(3, 6, 25, noise=0.05, random_state=3)
    draw = np.random.default_rng(0)
    states = [np.where(draw.random(x.shape) < missing, np.nan, x) for x in system.states]
    for x, complete in zip(states, system.states, strict=True):
        x[0] = complete[0]
    return states, system.times


def read(states, times, inputs=None, **parameters):
    """Trajectories and a specification, as estimators make them."""
    X, y, groups = from_trajectories(states, times, inputs=inputs)
    layout = Layout.infer(X.shape[1], states[0].shape[1], order=parameters.get("order", 1))
    found = as_trajectories(X, y, layout=layout, groups=groups)
    return found, specify(SparseNODERegressor(**{**SMALL, **parameters}).get_params(deep=False))


def running():
    """Five principal components of a running man, one of them little but noise."""
    motion = load_mocap("09")
    code = make_pipeline(StandardScaler(), PCA(5)).fit(np.concatenate(motion.train))
    states = [code.transform(sequence)[::3] for sequence in motion.train]
    times = motion.times[::3]
    return states, times, from_trajectories(states, [times] * len(states))


def own_error(model, states, times):
    """Error of forecasts from the observed starts; 1 is that of the mean."""
    true = np.array(states)
    found = model.simulate(true[:, 0], times)
    return np.mean((found - true) ** 2) / np.mean((true - true.mean((0, 1))) ** 2)


def test_forecasts_start_from_what_was_observed_and_from_the_path_where_nothing_was():
    states, times = linear_data(missing=0.3)
    found, specification = read(states, times)
    prepared = set_up(found, specification, None).prepared
    windows = forecasts(prepared, 7, FLOAT64)
    place = [(k, first) for k in range(len(prepared.courses)) for first in range(0, 24, 7)]
    assert len(place) == len(windows.start)
    for start, (k, first) in zip(windows.start.numpy(), place, strict=True):
        raw = prepared.scales.standard_states(found.states[found.bounds[k] : found.bounds[k + 1]][first])
        seen = np.isfinite(raw)
        np.testing.assert_allclose(start[seen], raw[seen], atol=1e-12)
        np.testing.assert_array_equal(start[~seen], prepared.courses[k].path[first][~seen])
    assert not windows.spread.any()


def data_box_of(windows, scales):
    return module.data_box(windows.targets.numpy(), windows.weights.numpy() > 0, scales)


@pytest.mark.parametrize("rate, strays", [(-0.1, False), (0.1, True)])
def test_a_linear_field_strays_where_it_grows_out_of_the_box(rate, strays):
    times = np.arange(30.0)
    states = [np.column_stack([s * np.exp(-0.1 * times), -s * np.exp(-0.1 * times)]) for s in (1.0, 2.0, -1.0)]
    found, specification = read(states, times)
    prepared, dynamics, _ = set_up(found, specification, None)
    field = make_field(specification, 2, 0)
    drawn = field.init(torch.Generator(), n_models=1, dtype=torch.float64, device=torch.device("cpu"))
    weights = {name: torch.zeros_like(value) for name, value in drawn.items()}
    scales = prepared.scales
    own = np.diag(rate * scales.time_unit / scales.rate)
    weights["K"] = torch.as_tensor(own).view(1, 2, 1, 2).expand_as(weights["K"]).clone()
    bias = next(name for name in weights if name.startswith("b") and weights[name].shape[-1] == 1)
    level = own @ (scales.state_mean / scales.state_sd)
    weights[bias] = torch.as_tensor(level).view(weights[bias].shape)
    windows = forecasts(prepared, 80, FLOAT64)
    seen = module.forecast(Dynamics(field, scales, False), weights, windows, prepared, 0.5)
    if not strays:
        assert seen.strays == 0
        assert seen.error < 1e-3
        return
    box = data_box_of(windows, scales)
    ends = [scales.standard_states(x[:1] * math.exp(rate * 29.0))[0] for x in states]
    assert seen.strays == sum(bool(((end < box[0]) | (end > box[1])).any()) for end in ends) > 0


def test_what_comes_back_into_the_box_is_not_lost():
    """A rotation whose data lie on one half of a circle: between two observations it goes round the other."""
    times = np.concatenate([first + np.linspace(0, 0.75, 13) for first in (0.0, 2.0)]) * math.pi
    states = [r * np.column_stack([np.cos(times), np.sin(times)]) for r in (1.0, 1.2)]
    found, specification = read(states, times)
    prepared = set_up(found, specification, None).prepared
    scales = prepared.scales
    turn = np.array([[0.0, -1.0], [1.0, 0.0]]) / (scales.rate * scales.state_sd / scales.time_unit)[:, None]

    def seen(speed, back):
        units = {"gain": tuple(scales.state_sd), "shift": tuple(scales.state_mean)}
        field = PolynomialField(2, 2, (), "tanh", (0, 1), terms=((0,), (1,)), **units)
        weights = {"C": torch.as_tensor(speed * turn).unsqueeze(0)}
        windows = forecasts(prepared, 80, FLOAT64)
        return module.forecast(Dynamics(field, scales, False), weights, windows, prepared, 0.02, back=back)

    assert seen(1.0, False).strays == 2 and seen(1.0, False).error > 0.3
    assert seen(1.0, True).strays == 0 and seen(1.0, True).error < 1e-2
    assert seen(0.6, True).strays == 2  # below at the end


def test_the_box_holds_all_data_and_half_as_much_again():
    states, times = linear_data()
    found, specification = read(states, times)
    prepared = set_up(found, specification, None).prepared
    box = data_box_of(forecasts(prepared, 80, FLOAT64), prepared.scales)
    everything = np.concatenate(
        [prepared.scales.standard_states(x) for x in states] + [c.path for c in prepared.courses]
    )
    width = everything.max(0) - everything.min(0)
    np.testing.assert_allclose(box[0], everything.min(0) - 0.25 * width)
    np.testing.assert_allclose(box[1], everything.max(0) + 0.25 * width)


def test_a_fit_whose_forecasts_hold_is_left_alone_to_the_bit(monkeypatch):
    states, times = linear_data()
    X, y, groups = from_trajectories(states, times)
    plain = SparseNODERegressor(random_state=0, **SMALL).fit(X, y, groups=groups)
    monkeypatch.setattr(module, "WIDER", math.inf)
    unwatched = SparseNODERegressor(random_state=0, **SMALL).fit(X, y, groups=groups)
    assert not any(name.startswith("windows") for name in plain.history_)
    for name, value in unwatched._fitted.weights.items():
        assert np.array_equal(plain._fitted.weights[name], value)
    assert plain._fitted.step == unwatched._fitted.step


def test_longer_windows_mend_a_fit_that_noise_in_starts_throws_out_of_the_data(monkeypatch):
    states, times, (X, y, groups) = running()
    with warnings.catch_warnings():
        warnings.simplefilter("error", DivergedPredictionWarning)
        mended = SparseNODERegressor(random_state=2).fit(X, y, groups=groups)
    assert [name for name in mended.history_ if name.startswith("windows")] == [
        "windows-10",
        "windows-20",
        "windows-40",
    ]
    monkeypatch.setattr(module, "REACH", {})
    with pytest.warns(DivergedPredictionWarning, match="training data should stay near it"):
        short = SparseNODERegressor(random_state=2).fit(X, y, groups=groups)
    assert np.array_equal(short.dependency_matrix_ > 0, mended.dependency_matrix_ > 0)
    assert own_error(short, states, times) > 1.0  # worse than the mean
    assert own_error(mended, states, times) < 0.25


@pytest.mark.parametrize(
    "case",
    [{}, {"order": 2}, {"initial_state": "observed"}, {"field": "residual", "penalty": "l1"}, {"inputs": True}],
    ids=str,
)
def test_the_fit_that_forecasts_best_is_kept_whatever_is_fitted(monkeypatch, case):
    states, times = linear_data(missing=0.0 if case.get("order") else 0.2)
    inputs = np.linspace(-1.0, 1.0, 6)[:, None] if case.get("inputs") else None
    parameters = {name: value for name, value in case.items() if name != "inputs"}
    if "order" in case:
        parameters["initial_velocity"] = "inferred"
    seen = []
    judge = module.forecast

    def worried(dynamics, weights, *rest):
        found = judge(dynamics, weights, *rest)._replace(strays=1)
        seen.append((found.error, weights))
        return found

    monkeypatch.setattr(module, "forecast", worried)
    X, y, groups = from_trajectories(states, times, inputs=inputs)
    with pytest.warns(DivergedPredictionWarning):
        model = SparseNODERegressor(random_state=0, **{**SMALL, **parameters}).fit(X, y, groups=groups)
    assert [name for name in model.history_ if name.startswith("windows")] == ["windows-10", "windows-20", "windows-40"]
    assert len(seen) == 4
    best = min(seen, key=lambda pair: pair[0])[1]
    for name, value in model._fitted.weights.items():
        assert np.array_equal(best[name][0].numpy(), value)
        assert np.isfinite(value).all()
    first = seen[0][1]
    assert all(not (value != 0)[first[name] == 0].any() for name, value in best.items())


def test_trajectory_training_is_watched_but_not_changed(monkeypatch):
    states, times = linear_data()
    X, y, groups = from_trajectories(states, times)
    monkeypatch.setattr(module, "WIDER", 1e-3)
    with pytest.warns(DivergedPredictionWarning):
        model = SparseNODERegressor(training="trajectory", random_state=0, **SMALL).fit(X, y, groups=groups)
    assert list(model.history_) == ["trajectory"]


def test_a_model_that_strays_changes_nothing_for_its_neighbours(monkeypatch):
    states, times = linear_data()
    found, specification = read(states, times)
    judge = module.forecast

    def one_strays(dynamics, weights, *rest):
        own = judge(dynamics, weights, *rest)
        return own._replace(strays=int(own.error > limit))

    alone = [fit_batch(found, specification, Batch.single(0.02, seed))[0] for seed in (0, 1)]
    windows = forecasts(set_up(found, specification, None).prepared, 80, FLOAT64)
    prepared = set_up(found, specification, None).prepared
    errors = [
        judge(one.dynamics, one.torch_weights(torch.device("cpu")), windows, prepared, one.step).error for one in alone
    ]
    limit = float(np.mean(errors))
    monkeypatch.setattr(module, "forecast", one_strays)
    both = fit_batch(found, specification, Batch(np.array([0.02, 0.02]), np.array([0, 1])))
    went = ["windows-10" in one.history for one in both]
    assert went == [error > limit for error in errors]
    still = went.index(False)
    for name, value in alone[still].weights.items():
        np.testing.assert_allclose(both[still].weights[name], value, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("order", [1, 2])
def test_products_of_a_fit_are_held_at_the_box_of_the_data_widened_by_half(order):
    times = np.linspace(0.0, 4.0, 25)
    draw = np.random.default_rng(0)
    phases = draw.uniform(0, 6, size=8)
    states = [np.column_stack([np.sin(times + p), np.cos(times + p), np.full(25, p)]) for p in phases]
    X, y, groups = from_trajectories(states, times, inputs=draw.normal(size=(8, 1)))
    how = {**SMALL, "max_iter": 20, "order": order, "n_bilinear": 2, "field": "per_target", "tol": 1}
    model = SparseNODERegressor(**how, initial_velocity="given" if order == 1 else "inferred")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = model.fit(X, y, groups=groups)._fitted
    field, scales = fitted.field, fitted.scales
    assert isinstance(field, HeldField)
    low, high = np.array(field.low), np.array(field.high)
    free = ~np.isfinite(low)
    assert free.tolist() == [False, False, True] * order + [True]  # the constant state, and the input
    assert (free == ~np.isfinite(high)).all()
    own = np.tile(scales.moving, order)
    half = 0.5 * (scales.high - scales.low)[own]
    np.testing.assert_allclose((high - low)[~free], 3.0 * np.maximum(half, 1.0))
    np.testing.assert_allclose((high + low)[~free], (scales.high + scales.low)[own])
