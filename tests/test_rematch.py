"""Rows along the path of a fitted field: exact for the true law, whatever the length of intervals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from skode import _rematch as rematch_module
from skode._bridge import bridge
from skode._dynamics import Dynamics
from skode._layout import Layout
from skode._prepare import prepare
from skode._problem import every_row
from skode._rematch import rematch
from skode._trajectories import as_trajectories
from skode.builders import from_trajectories
from skode.datasets import make_lotka_volterra
from skode.fields import PackedField
from skode.objectives import matching_loss, matching_scale

GAMMA = 0.7


def bridged(system):
    """Lotka-Volterra at few, long intervals: prepared data with bridged rows, and the true field in its units."""
    X, y, groups = from_trajectories(system.states, system.times)
    found = as_trajectories(X, y, layout=Layout.infer(3, 2), groups=groups)
    prepared = prepare(found, order=1, time_dependent=False)
    path = [np.concatenate([c.start[None], c.observed[1:]]) for c in prepared.courses]
    rows = [bridge(c.times, p, GAMMA) for c, p in zip(prepared.courses, path, strict=True)]
    rate = prepared.scales.rate
    nodes_at = [r.node_times - c.times[:-1, None] for r, c in zip(rows, prepared.courses, strict=True)]
    prepared = replace(
        prepared,
        nodes=np.concatenate([r.node_states for r in rows]),
        quadrature=np.concatenate([r.node_weights for r in rows]),
        slopes=np.concatenate([r.slopes for r in rows]) / rate,
        slope_weights=np.ones((sum(len(r.slopes) for r in rows), 2)),
    )
    return prepared, path, np.concatenate(nodes_at)


def true_field(system, prepared):
    """Quadratic, so exact with bilinear units: coefficients by least squares on the law itself."""
    scales = prepared.scales
    z = np.random.default_rng(0).uniform(-2, 2, size=(40, 2))
    slopes = system.slope(0.0, z * scales.state_sd + scales.state_mean) / scales.slope_unit()
    terms = np.column_stack([np.ones(40), z, z[:, 0] * z[:, 1]])
    constant, *linear, product = np.linalg.lstsq(terms, slopes, rcond=None)[0]
    field = PackedField(2, 2, (1,), "tanh", (0, 1), parents=((0, 1), (0, 1)), n_bilinear=1)
    zero = field.init(torch.Generator().manual_seed(0), n_models=1, dtype=torch.float64, device=torch.device("cpu"))
    weights = {name: torch.zeros_like(value) for name, value in zero.items()}
    weights["K"][0, :, 0] = torch.tensor(np.stack(linear).T)
    weights["b1"][0, :, 0, 0] = torch.tensor(constant)
    weights["P"][0, :, 0, 0] = torch.tensor(product)
    weights["R"][0, :, 0, 1] = 1.0
    return field, weights


def loss_of(field, weights, prepared):
    rows = every_row(prepared, weights["K"])
    return matching_loss(field, weights, rows, matching_scale(rows))[0]


def test_the_true_law_has_no_loss_along_its_own_path():
    system = make_lotka_volterra(n_trajectories=6, n_times=12, random_state=0)
    prepared, path, nodes_at = bridged(system)
    field, weights = true_field(system, prepared)
    dynamics = Dynamics(field, prepared.scales, time_dependent=False)
    again = rematch(prepared, path, path, nodes_at, GAMMA, dynamics, weights)
    before, after = loss_of(field, weights, prepared), loss_of(field, weights, again)
    assert before.max() > 1e-3 and after.max() < 1e-5


def test_rows_that_the_bridge_has_right_stay():
    system = make_lotka_volterra(n_trajectories=3, n_times=8, random_state=0)
    prepared, path, nodes_at = bridged(system)
    field, weights = true_field(system, prepared)
    # x' = -gamma x: bridges are the solutions.
    decay = {name: torch.zeros_like(value) for name, value in weights.items()}
    rate = torch.tensor(prepared.scales.rate)
    decay["K"][0, 0, 0, 0] = decay["K"][0, 1, 0, 1] = -GAMMA
    decay["K"][0, :, 0] /= rate[:, None]
    start = [course.start[None] for course in prepared.courses]
    pure = [np.exp(-GAMMA * c.times)[:, None] * s for c, s in zip(prepared.courses, start, strict=True)]
    rows = [bridge(c.times, p, GAMMA) for c, p in zip(prepared.courses, pure, strict=True)]
    held = replace(
        prepared,
        nodes=np.concatenate([r.node_states for r in rows]),
        slopes=np.concatenate([r.slopes for r in rows]) / prepared.scales.rate,
    )
    again = rematch(held, pure, pure, nodes_at, GAMMA, Dynamics(field, prepared.scales, time_dependent=False), decay)
    np.testing.assert_allclose(again.nodes, held.nodes, atol=1e-4)
    np.testing.assert_allclose(again.slopes, held.slopes, atol=1e-4)


def test_intervals_in_blocks_have_the_rows_that_they_have_together(monkeypatch):
    system = make_lotka_volterra(n_trajectories=3, n_times=8, random_state=0)
    prepared, path, nodes_at = bridged(system)
    field, weights = true_field(system, prepared)
    seen = [np.where(np.arange(len(p))[:, None] % 3 == 1, np.nan, p + 0.01) for p in path]
    given = nodes_at, GAMMA, Dynamics(field, prepared.scales, time_dependent=False), weights
    whole = rematch(prepared, seen, path, *given)
    for name in ("MOST_ENTRIES", "FEWEST_INTERVALS"):
        monkeypatch.setattr(rematch_module, name, 4)
    blocks = rematch(prepared, seen, path, *given)
    np.testing.assert_allclose(blocks.nodes, whole.nodes, rtol=1e-12)
    np.testing.assert_allclose(blocks.slopes, whole.slopes, rtol=1e-12)


def test_intervals_whose_solution_fails_keep_their_rows():
    system = make_lotka_volterra(n_trajectories=3, n_times=8, random_state=0)
    prepared, path, nodes_at = bridged(system)
    field, weights = true_field(system, prepared)
    weights["K"] = weights["K"] * 1e6
    dynamics = Dynamics(field, prepared.scales, time_dependent=False)
    again = rematch(prepared, path, path, nodes_at, GAMMA, dynamics, weights)
    assert np.isfinite(again.nodes).all() and np.isfinite(again.slopes).all()


def test_what_the_solution_misses_enters_as_the_slope_of_its_correction():
    """A field that is wrong by a constant c: rows ask for the true slope at the corrected path."""
    system = make_lotka_volterra(n_trajectories=3, n_times=8, random_state=0)
    prepared, path, nodes_at = bridged(system)
    field, weights = true_field(system, prepared)
    still = {name: torch.zeros_like(value) for name, value in weights.items()}  # the solution stays at its start
    dynamics = Dynamics(field, prepared.scales, time_dependent=False)
    again = rematch(prepared, path, path, nodes_at, GAMMA, dynamics, still)
    np.testing.assert_allclose(again.nodes, prepared.nodes, atol=1e-10)
    np.testing.assert_allclose(again.slopes, prepared.slopes, atol=1e-10)
