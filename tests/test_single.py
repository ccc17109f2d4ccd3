"""One trajectory in numpy is what the batch in torch is: fields, steps, the box, and what users ask."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.base import clone

from skode import SparseNODERegressor, from_trajectories
from skode._predict import Questions, predict_batch
from skode._typing import FloatArray
from skode.fields import ACTIVATIONS, AbstractField, PackedField, PerTargetField, SharedField
from skode.integrate import trace, trace_one

pytestmark = pytest.mark.filterwarnings("ignore")  # short fits
VARIABLES = (0, 1, 2, 0, 3)
FIELDS: dict[str, AbstractField] = {
    **{f"per_target_{name}": PerTargetField(3, 5, (4,), name, VARIABLES) for name in ACTIVATIONS},
    **{f"shared_{name}": SharedField(3, 5, (6, 4), name, VARIABLES) for name in ACTIVATIONS},
    "per_target_bilinear": PerTargetField(3, 5, (4,), "tanh", VARIABLES, n_bilinear=2),
    "per_target_deep": PerTargetField(3, 5, (4, 3, 5), "silu", VARIABLES, n_bilinear=2),
    "residual": SharedField(3, 5, (4,), "tanh", VARIABLES, linear_skip=True),
    "residual_deep": SharedField(3, 5, (4, 6), "elu", VARIABLES, linear_skip=True),
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_at_a_point_is_the_field(name: str) -> None:
    field, generator = FIELDS[name], torch.Generator().manual_seed(0)
    weights = field.init(generator, n_models=1, dtype=torch.float64, device=torch.device("cpu"))
    weights = {key: w + 0.3 * torch.randn(w.shape, generator=generator).double() for key, w in weights.items()}
    gain, z = np.array([0.5, 2.0, 0.0]), 8.0 * np.random.default_rng(1).normal(size=(20, 5))  # bends the tails too
    expected = field(weights, torch.as_tensor(z).unsqueeze(0))[0].numpy() * gain
    nets = field.at_point({key: w[0].numpy() for key, w in weights.items()}, gain)
    assert nets is not None
    first, second = nets.open(), nets.open()
    got, other = np.empty((20, 3)), np.empty(3)
    for k in range(20):
        first(np.append(z[k], 1.0), got[k])
        second(np.append(-z[k], 1.0), other)  # memory of its own
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12 * np.abs(expected).max())


def test_packed_and_very_wide_fields_stay_with_torch() -> None:
    packed = PackedField(2, 2, (3,), "tanh", (0, 1), parents=((0,), (0, 1)))
    assert packed.at_point({}, np.ones(2)) is None
    wide = PerTargetField(300, 300, (16,), "tanh", tuple(range(300)))
    assert wide.at_point({"W0": np.zeros((300, 16, 300))}, np.ones(300)) is None


class Equation:
    """dx/dt = f(t, x) for ``trace_one``."""

    def __init__(self, f: Callable[[float, FloatArray], FloatArray], n_states: int) -> None:
        self.f, self.state = f, np.empty(n_states)

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
def test_one_trajectory_is_traced_as_in_a_batch(name: str, step: float) -> None:
    f, start, edge = CASES[name]
    times = np.r_[np.random.default_rng(0).uniform(-5.0, 5.0, 60), 0.0, 2 * step, 4.0, 4.0]
    box = np.array([[-edge] * 2, [edge] * 2])

    def slope(t: torch.Tensor, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return f(t[..., None], x)  # type: ignore[return-value]

    asked = torch.as_tensor(times)
    x0 = torch.tensor([[start]], dtype=torch.float64)
    many = trace(slope, x0, torch.zeros(len(times), dtype=torch.long), asked, step=step, box=torch.as_tensor(box))
    one = trace_one(Equation(f, 2), np.array(start), times, step=step, box=box)  # type: ignore[arg-type]
    assert np.isfinite(one.states).all()
    np.testing.assert_array_equal(one.held, many.held[0].numpy())
    np.testing.assert_allclose(one.states, many.states[0].numpy(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(one.failed_at, many.failed_at[0, 0].numpy(), rtol=1e-12)


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


def test_rows_of_one_trajectory_are_answered_as_beside_another(
    fitted: tuple[SparseNODERegressor, FloatArray],
) -> None:
    model, X = fitted
    together = model.predict(X)
    for rows in (slice(0, 9), slice(12, 13), slice(44, 42, -1)):
        np.testing.assert_allclose(model.predict(X[rows]), together[rows], rtol=1e-12, atol=1e-12)


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
