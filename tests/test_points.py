"""Trajectories by themselves in numpy are what batches in torch are, and none changes a bit of another."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.base import clone

from skode import SparseNODERegressor, from_trajectories
from skode._predict import Questions, predict_batch
from skode._typing import FloatArray, IntArray
from skode.datasets import SimulatedSystem, make_hill_network, make_lorenz96
from skode.fields import ACTIVATIONS, AbstractField, HeldField, PackedField, PerTargetField, SharedField, _points
from skode.fields._points import LARGEST
from skode.integrate import NumpySteps, TorchSteps, trace

pytestmark = pytest.mark.filterwarnings("ignore")  # short fits
VARIABLES = (0, 1, 2, 0, 3)
FIELDS: dict[str, AbstractField] = {
    **{f"per_target_{name}": PerTargetField(3, 5, (4,), name, VARIABLES) for name in ACTIVATIONS},
    **{f"shared_{name}": SharedField(3, 5, (6, 4), name, VARIABLES) for name in ACTIVATIONS},
    "per_target_bilinear": PerTargetField(3, 5, (4,), "tanh", VARIABLES, n_bilinear=2),
    "per_target_deep": PerTargetField(3, 5, (4, 3, 5), "silu", VARIABLES, n_bilinear=2),
    "held": HeldField(3, 5, (4,), "tanh", VARIABLES, n_bilinear=2, low=(-5.0,) * 5, high=(-1.0, 2.0, 3.0, 4.0, 5.0)),
    "held_deep": HeldField(3, 5, (4, 3), "silu", VARIABLES, n_bilinear=2, low=(-np.inf,) * 5, high=(2.0,) * 5),
    "residual": SharedField(3, 5, (4,), "tanh", VARIABLES, linear_skip=True),
    "residual_deep": SharedField(3, 5, (4, 6), "elu", VARIABLES, linear_skip=True),
}


def _weights(field: AbstractField) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    weights = field.init(generator, n_models=1, dtype=torch.float64, device=torch.device("cpu"))
    return {key: w + 0.3 * torch.randn(w.shape, generator=generator).double() for key, w in weights.items()}


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_at_points_is_the_field(name: str) -> None:
    field, gain, n = FIELDS[name], np.array([0.5, 2.0, 0.0]), 20
    weights = _weights(field)
    z = 8.0 * np.random.default_rng(1).normal(size=(n, 5))  # bends the tails too
    expected = field(weights, torch.as_tensor(z).unsqueeze(0))[0].numpy() * gain
    nets = field.at_points({key: w[0].numpy() for key, w in weights.items()}, gain)
    assert nets is not None
    got, other, with_one = np.empty((n, 3)), np.empty((n, 3)), np.c_[z, np.ones(n)]
    first, second = nets.open(with_one), nets.open(-with_one)
    first(got)
    second(other)  # memory of its own
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12 * np.abs(expected).max())
    first(other)
    np.testing.assert_array_equal(got, other)


@pytest.mark.parametrize("name", FIELDS)
def test_a_point_among_others_is_the_point_alone_to_the_last_bit(name: str) -> None:
    field, n = FIELDS[name], 37
    nets = field.at_points({key: w[0].numpy() for key, w in _weights(field).items()}, np.array([0.5, 2.0, 1.0]))
    z = np.c_[4.0 * np.random.default_rng(1).normal(size=(n, 5)), np.ones(n)]
    assert nets is not None
    together, alone = np.empty((n, 3)), np.empty((n, 3))
    nets.open(z)(together)
    for k in range(n):
        nets.open(z[k : k + 1])(alone[k : k + 1])
    np.testing.assert_array_equal(together, alone)


def test_packed_and_very_wide_fields_stay_with_torch() -> None:
    packed = PackedField(2, 2, (3,), "tanh", (0, 1), parents=((0,), (0, 1)))
    assert packed.at_points({}, np.ones(2)) is None
    wide = PerTargetField(100, 100, (16,), "tanh", tuple(range(100)))
    assert wide.at_points({"W0": np.zeros((100, 16, 100))}, np.ones(100)) is None


class Equation:
    """dx/dt = f(t, x) in numpy."""

    def __init__(self, f: Callable[[float, FloatArray], FloatArray], shape: tuple[int, int]) -> None:
        self.f, self.state = f, np.empty(shape)

    def __call__(self, t: float, out: FloatArray) -> None:
        out[:] = self.f(t, self.state)


CASES: dict[str, tuple[Callable[..., object], list[float], float]] = {
    "bends": (lambda t, x: -x * x * x + t, [0.7, -1.1], 9.0),
    "leaves the box": (lambda t, x: x + 0.0 * t, [1.0, -0.5], 9.0),
    "explodes": (lambda t, x: x * x * x + 0.0 * t, [1.0, 0.2], 1e30),
    "starts outside": (lambda t, x: -x + 0.0 * t, [1.0, 10.0], 9.0),
    "leaves backwards": (lambda t, x: -x + 0.0 * t, [1.0, 0.5], 9.0),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("step", [0.01, 0.3])
def test_steps_in_numpy_are_steps_in_torch(name: str, step: float) -> None:
    f, start, edge = CASES[name]
    times = np.r_[np.random.default_rng(0).uniform(-5.0, 5.0, 60), 0.0, 2 * step, 4.0, 4.0]
    box, x0 = np.array([[-edge] * 2, [edge] * 2]), np.array([start, [0.1, 0.2], [0.3, -0.1]])

    def slope(t: torch.Tensor, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return f(t[..., None], x)  # type: ignore[return-value]

    def along(index: IntArray) -> Equation:
        return Equation(f, (len(index), 2))  # type: ignore[arg-type]

    rows = np.arange(len(times)) % 5 % 3
    theirs = trace(TorchSteps(slope), x0, rows, times, step=step, box=box)
    assert np.isfinite(theirs.states).all()
    for block in (1, 2, 8):
        ours = trace(NumpySteps(along, block), x0, rows, times, step=step, box=box)
        for mine, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(mine, other, rtol=1e-12, atol=1e-12, equal_nan=True)


QUICK = {"max_iter": 30, "random_state": 0}
OPTIONS: dict[str, dict[str, object]] = {
    "plain": {},
    "deep": {"hidden_layer_sizes": (5, 4)},
    "shared": {"field": "shared", "penalty": "l1"},
    "order_2": {"order": 2, "initial_velocity": "inferred"},
    "clock": {"time_dependent": True, "time_origin": "input"},
}


@pytest.fixture(params=OPTIONS, name="fitted", scope="module")
def _fitted(request: pytest.FixtureRequest) -> tuple[SparseNODERegressor, FloatArray]:
    generator, times = np.random.default_rng(3), np.linspace(0.0, 2.0, 9)
    starts, inputs = generator.normal(size=(6, 2)), generator.normal(size=(6, 1))
    states = np.stack([x * np.exp(-0.5 * times)[:, None] + 0.1 * u for x, u in zip(starts, inputs, strict=True)])
    clock = "time_origin" in OPTIONS[request.param]
    X, y, groups = from_trajectories(states, times, inputs=inputs, absolute_time=clock)
    model = SparseNODERegressor(**QUICK, **OPTIONS[request.param])
    return model.fit(X, y, groups=groups), np.asarray(X)


def test_rows_are_answered_to_the_last_bit_as_if_asked_alone(
    fitted: tuple[SparseNODERegressor, FloatArray],
) -> None:
    model, X = fitted
    together = model.predict(X)
    for rows in (slice(0, 9), slice(12, 13), slice(44, 42, -1), slice(0, None, 5)):
        np.testing.assert_array_equal(model.predict(X[rows]), together[rows])


CHAOS = make_lorenz96(5, n_trajectories=4, n_times=20, random_state=0)
MANY = make_hill_network(70, n_trajectories=6, n_times=6, random_state=0)


@pytest.mark.parametrize(
    ("system", "options"),
    [
        (CHAOS, {}),
        (CHAOS, {"hidden_layer_sizes": (6, 5), "activation": "silu"}),
        (CHAOS, {"field": "shared", "penalty": "l1"}),
        (MANY, {}),  # additive: packed networks, in torch
        (CHAOS, {"hidden_layer_sizes": (7, 3)}),
        (CHAOS, {"method": "dopri5"}),
    ],
    ids=["per target", "deep", "shared", "packed", "narrow", "dopri5"],
)
@pytest.mark.parametrize("largest", [0, LARGEST], ids=["in torch", "in numpy"])
def test_chaos_gets_no_other_forecast_from_other_company(
    system: SimulatedSystem, options: dict[str, object], largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounding grows e-fold each time unit here: whatever differs in the last bit differs in the first at the end."""
    monkeypatch.setattr(_points, "LARGEST", largest)
    X, y, groups = from_trajectories(system.states, system.times)
    model = SparseNODERegressor(max_iter=20, random_state=0, **options).fit(X, y, groups=groups)
    generator = np.random.default_rng(0)
    d, n = system.states[0].shape[1], 3 if "method" in options else 70
    starts = np.asarray(X)[generator.integers(0, len(X), n), 1:] + 0.1 * generator.normal(size=(n, d))
    late = (2.0 if "method" in options else 10.0) * float(np.max(system.times[0]))
    rows = np.column_stack([np.append(late, generator.uniform(-0.1 * late, late, n - 1)), starts])
    together = model.predict(rows)
    for k in (0, 1, n // 2, n - 1):
        np.testing.assert_array_equal(model.predict(rows[k : k + 1])[0], together[k])
    some = generator.permutation(n)[: n // 2]
    np.testing.assert_array_equal(model.predict(rows[some]), together[some])


def test_what_one_trajectory_needs_is_neither_pickled_nor_cloned(
    fitted: tuple[SparseNODERegressor, FloatArray],
) -> None:
    model, X = fitted
    before = len(pickle.dumps(pickle.loads(pickle.dumps(model))))
    answer = model.predict(X[:1])
    assert len(pickle.dumps(model)) <= before + 200  # the box alone may be new
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(X[:1]), answer)
    assert "_fitted" not in clone(model).__dict__


def test_another_trajectory_never_sees_the_memory_of_the_last(
    fitted: tuple[SparseNODERegressor, FloatArray],
) -> None:
    model, X = fitted
    answer = model.predict(X[3:4]).copy()
    model.predict(X[30:33])
    np.testing.assert_array_equal(model.predict(X[3:4]), answer)


def test_no_row_is_no_trajectory(fitted: tuple[SparseNODERegressor, FloatArray]) -> None:
    model, _ = fitted
    f = model._fitted
    none = Questions(np.zeros(0), np.zeros(0, np.int64), f.start[None], np.zeros((1, f.scales.n_inputs)), np.zeros(1))
    answers = predict_batch(f, none, torch.device("cpu"))
    assert answers.states.shape == (0, 2) and np.isnan(answers.failed_at).all()
