"""The generators keep their laws, graphs and sampling promises; the shipped data are what their cards say."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from scipy.linalg import expm

from skode import datasets
from skode.datasets import SimulatedSystem

Maker = Callable[..., SimulatedSystem]

# One line per member: the maker and small sizes. New generators join every test below.
MAKERS: dict[str, Maker] = {
    "lorenz63": lambda **k: datasets.make_lorenz63(**{"n_trajectories": 4, "n_times": 20, **k}),
    "lorenz96": lambda **k: datasets.make_lorenz96(6, **{"n_trajectories": 4, "n_times": 12, **k}),
    "lotka_volterra": lambda **k: datasets.make_lotka_volterra(**{"n_trajectories": 4, "n_times": 15, **k}),
    "glycolysis": lambda **k: datasets.make_glycolysis(**{"n_trajectories": 4, "n_times": 15, **k}),
    "hill_product": lambda **k: datasets.make_hill_network(8, **{"n_trajectories": 4, "n_times": 8, **k}),
    "hill_sum_inputs": lambda **k: datasets.make_hill_network(
        6, **{"n_trajectories": 4, "n_times": 8, "n_inputs": 2, "combine": "sum", "decay_spread": 10.0, **k}
    ),
    "independent_decays": lambda **k: datasets.make_independent_decays(5, **{"n_trajectories": 4, "n_times": 8, **k}),
    "dense_linear": lambda **k: datasets.make_dense_linear(4, **{"n_trajectories": 4, "n_times": 8, **k}),
    "oscillators": lambda **k: datasets.make_coupled_oscillators(
        5, **{"n_trajectories": 4, "n_times": 12, "cubic": 0.3, **k}
    ),
    "pendulums": lambda **k: datasets.make_pendulum_chain(4, **{"n_trajectories": 4, "n_times": 12, **k}),
}
battery = pytest.mark.parametrize("name", MAKERS)


@cache
def made(name: str, **changes: object) -> SimulatedSystem:
    return MAKERS[name](random_state=3, **changes)


def full_states(system: SimulatedSystem) -> list[np.ndarray]:
    """Clean states the way the law sees them: with velocities behind, for second order."""
    if system.clean_velocities is None:
        return system.clean_states
    return [np.concatenate(pair, axis=1) for pair in zip(system.clean_states, system.clean_velocities, strict=True)]


def inputs_of(system: SimulatedSystem, trajectory: int) -> np.ndarray | None:
    return None if system.inputs is None else system.inputs[trajectory]


def numerical_jacobian(system: SimulatedSystem) -> np.ndarray:
    """Largest |d f_i / d (x, u)_j| over the clean data by central differences: (target, source)."""
    largest = np.zeros((0, 0))
    for k, states in enumerate(full_states(system)):
        u = inputs_of(system, k)
        z = states if u is None else np.concatenate((states, np.tile(u, (len(states), 1))), axis=1)
        n_states = states.shape[1]

        def law(z: np.ndarray, n_states: int = n_states, u: np.ndarray | None = u) -> np.ndarray:
            return system.slope(0.0, z[..., :n_states], None if u is None else z[..., n_states:])

        nudge = 1e-6 * np.eye(z.shape[1])
        jacobian = (law(z[:, None] + nudge) - law(z[:, None] - nudge)) / 2e-6  # (time, source, target)
        size = np.abs(jacobian).max(axis=0).T
        largest = size if k == 0 else np.maximum(largest, size)
    return largest


@battery
def test_clean_states_follow_the_slope(name: str) -> None:
    """Central differences of a finely sampled trajectory equal the law along it."""
    step = 5e-4
    system = made(name, dt=step, n_trajectories=2, n_times=60)
    for k, (states, times) in enumerate(zip(full_states(system), system.times, strict=True)):
        u = inputs_of(system, k)
        # Fourth-order differences; what remains is their truncation where glycolysis starts off the cycle.
        difference = (8 * (states[3:-1] - states[1:-3]) - (states[4:] - states[:-4])) / (12 * step)
        slope = system.slope(0.0, states, None if u is None else np.tile(u, (len(states), 1)))
        np.testing.assert_allclose(np.diff(times), step)
        scale = np.abs(slope).max(axis=0)
        np.testing.assert_array_less(np.abs(difference - slope[2:-2]) / scale, 5e-5)


@battery
def test_adjacency_is_the_sparsity_of_the_jacobian(name: str) -> None:
    system = made(name)
    d = system.n_variables
    size = numerical_jacobian(system)
    if system.order == 2:
        np.testing.assert_allclose(size[:d], np.concatenate((np.zeros((d, d)), np.eye(d)), axis=1), atol=1e-8)
        size = np.hypot(size[d:, :d], size[d:, d:])
    found = size > 1e-7 * size.max()
    if not system.self_edges:
        assert found.diagonal().all()
        np.fill_diagonal(found, False)
    np.testing.assert_array_equal(system.adjacency, found)
    assert system.adjacency.shape == (d, d + system.n_inputs)


@battery
def test_slope_is_vectorised_over_leading_axes(name: str) -> None:
    system = made(name)
    states = full_states(system)[0][:6]
    u = inputs_of(system, 0)
    one_by_one = np.stack([system.slope(0.0, x, u) for x in states]).reshape(2, 3, -1)
    np.testing.assert_allclose(system.slope(0.0, states.reshape(2, 3, -1), u), one_by_one, rtol=1e-12)


@battery
def test_same_seed_same_data_and_other_seed_other_data(name: str) -> None:
    knobs = {"noise": 0.1, "irregular": True, "missing": 0.2}
    first, again = (MAKERS[name](random_state=5, **knobs) for _ in range(2))
    other = MAKERS[name](random_state=6, **knobs)
    for a, b, c in zip(first.states, again.states, other.states, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c, equal_nan=True)
    np.testing.assert_array_equal(first.adjacency, again.adjacency)


@battery
def test_noise_and_gaps_leave_the_clean_system_as_it_was(name: str) -> None:
    plain, noisy = made(name), made(name, noise=0.3, missing=0.4)
    for a, b in zip(plain.clean_states, noisy.clean_states, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(plain.states, plain.clean_states, strict=True):
        np.testing.assert_array_equal(a, b)


@battery
def test_random_times_lie_on_the_same_trajectories(name: str) -> None:
    """The starts do not depend on the sampling, and times begin at 0, increase and stay inside the span."""
    regular, irregular = made(name), made(name, irregular=True)
    for k, times in enumerate(irregular.times):
        assert times[0] == 0 and (np.diff(times) > 0).all() and times[-1] <= regular.times[k][-1]
        assert irregular.states[k].shape == regular.states[k].shape
        np.testing.assert_array_equal(irregular.clean_states[k][0], regular.clean_states[k][0])
    assert not np.array_equal(irregular.times[0], irregular.times[1])


@battery
def test_a_share_of_the_grid_keeps_grid_points(name: str) -> None:
    whole, part = made(name), made(name, irregular=0.5)
    for k, times in enumerate(part.times):
        kept = np.isin(whole.times[k], times)
        assert kept.sum() == len(times) == round(0.5 * len(whole.times[k])) and kept[0]
        # The same solution read at fewer times; a solver's interpolant may choose its steps by the end only.
        np.testing.assert_allclose(part.clean_states[k], whole.clean_states[k][kept], rtol=1e-9, atol=1e-9)


@battery
def test_systems_can_be_pickled(name: str) -> None:
    system = made(name)
    copy = pickle.loads(pickle.dumps(system))
    x = full_states(system)[0]
    np.testing.assert_array_equal(copy.slope(0.0, x, inputs_of(copy, 0)), system.slope(0.0, x, inputs_of(system, 0)))


@battery
def test_every_variable_moves(name: str) -> None:
    """No variable is left out of the data by a dull start: each moves within trajectories."""
    moves = np.mean([states.std(axis=0) for states in made(name).clean_states], axis=0)
    assert (moves > 0.02 * np.concatenate(made(name).clean_states).std(axis=0)).all()


def test_noise_is_the_promised_fraction_of_each_variables_spread() -> None:
    system = datasets.make_glycolysis(n_trajectories=10, n_times=400, dt=0.01, noise=0.05, random_state=0)
    clean = np.concatenate(system.clean_states)
    residual = np.concatenate(system.states) - clean
    # 4000 draws: the relative standard error of a standard deviation is 1.1 %.
    np.testing.assert_allclose(residual.std(axis=0) / clean.std(axis=0), 0.05, rtol=0.05)
    assert abs(np.corrcoef(residual, rowvar=False) - np.eye(7)).max() < 0.08


def test_noise_reaches_velocities_too() -> None:
    system = datasets.make_pendulum_chain(n_trajectories=20, n_times=100, noise=0.1, random_state=0)
    assert system.velocities is not None and system.clean_velocities is not None
    clean = np.concatenate(system.clean_velocities)
    np.testing.assert_allclose(
        (np.concatenate(system.velocities) - clean).std(axis=0) / clean.std(axis=0), 0.1, rtol=0.1
    )


def test_missing_share_is_exact_and_spares_the_first_row() -> None:
    system = datasets.make_coupled_oscillators(5, n_trajectories=6, n_times=21, missing=0.3, random_state=0)
    assert system.velocities is not None
    gaps = np.isnan(np.stack(system.states))
    assert not gaps[:, 0].any()
    assert gaps.sum() == round(0.3 * 6 * 20 * 5)
    np.testing.assert_array_equal(gaps, np.isnan(np.stack(system.velocities)))
    assert not np.isnan(np.stack(system.clean_states)).any()


@pytest.mark.parametrize("name", ["oscillators", "pendulums"])
def test_velocities_are_the_derivative_of_positions(name: str) -> None:
    """The integral of the velocity (Simpson's rule) is the displacement."""
    system = made(name, dt=0.01, n_times=101)
    assert system.clean_velocities is not None and system.order == 2
    weights = np.concatenate(([1.0], np.tile([4.0, 2.0], 50)[:-1], [1.0])) * 0.01 / 3
    for q, v in zip(system.clean_states, system.clean_velocities, strict=True):
        np.testing.assert_allclose(weights @ v, q[-1] - q[0], atol=1e-7)


def test_independent_decays_are_exponentials() -> None:
    system = made("independent_decays")
    rates = -np.diag(system.slope.matrix)  # type: ignore[attr-defined]
    assert (rates >= 10**-0.5).all() and (rates <= 10**0.5).all()
    for x, t in zip(system.clean_states, system.times, strict=True):
        np.testing.assert_allclose(x, x[0] * np.exp(-np.outer(t, rates)), atol=1e-8)


def test_dense_linear_is_the_matrix_exponential_with_the_promised_margin() -> None:
    system = made("dense_linear", margin=0.4)
    matrix = system.slope.matrix  # type: ignore[attr-defined]
    assert np.linalg.eigvals(matrix).real.max() == pytest.approx(-0.4)
    for x, t in zip(system.clean_states, system.times, strict=True):
        np.testing.assert_allclose(x[-1], expm(matrix * t[-1]) @ x[0], atol=1e-8)


def test_lotka_volterra_keeps_its_constant_of_motion() -> None:
    system = datasets.make_lotka_volterra(growth=1.0, predation=0.5, conversion=0.2, death=0.6, random_state=0)
    for x in system.clean_states:
        energy = 0.2 * x[:, 0] - 0.6 * np.log(x[:, 0]) + 0.5 * x[:, 1] - 1.0 * np.log(x[:, 1])
        np.testing.assert_allclose(energy, energy[0], rtol=1e-6)


def test_undamped_oscillators_keep_their_energy_and_damping_takes_it() -> None:
    for damping in (0.0, 0.3):
        system = datasets.make_coupled_oscillators(4, n_trajectories=3, damping=damping, cubic=0.5, random_state=1)
        law = system.slope
        assert system.clean_velocities is not None
        for q, v in zip(system.clean_states, system.clean_velocities, strict=True):
            pairs = law.springs[None] * (q[:, :, None] - q[:, None, :]) ** 2  # type: ignore[attr-defined]
            potential = law.stiffness @ q.T**2 / 2 + 0.5 * (q**4).sum(axis=1) / 4  # type: ignore[attr-defined]
            energy = (v**2).sum(axis=1) / 2 + potential + pairs.sum(axis=(1, 2)) / 4
            if damping:
                assert (np.diff(energy) < 0).all()
            else:
                np.testing.assert_allclose(energy, energy[0], rtol=1e-6)


def test_lorenz_starts_lie_on_the_attractor() -> None:
    """On the Lorenz-96 attractor d/dt of the mean energy vanishes on average: <sum x^2> = forcing <sum x>."""
    system = datasets.make_lorenz96(n_trajectories=60, n_times=20, random_state=0)
    x = np.concatenate(system.clean_states)
    assert (x**2).sum(axis=1).mean() == pytest.approx(10.0 * x.sum(axis=1).mean(), rel=0.05)
    z = np.concatenate(datasets.make_lorenz63(random_state=0).clean_states)[:, 2]
    assert z.min() > 0
    assert z.max() < 50


def test_glycolysis_oscillates_with_a_period_of_about_a_minute() -> None:
    system = datasets.make_glycolysis(n_trajectories=1, n_times=4001, dt=0.005, random_state=0)
    glucose = system.clean_states[0][2000:, 0]  # the last ten minutes
    peaks = np.flatnonzero((glucose[1:-1] > glucose[:-2]) & (glucose[1:-1] > glucose[2:]))
    assert np.diff(peaks).std() < 2
    assert 0.7 < np.diff(peaks).mean() * 0.005 < 1.3


@pytest.mark.parametrize("combine", ["product", "sum"])
def test_hill_network_has_the_edges_signs_and_bounds_it_promises(combine: str) -> None:
    system = datasets.make_hill_network(combine=combine, random_state=2)  # type: ignore[arg-type]
    assert system.adjacency.sum() == 42 and not system.adjacency.diagonal().any() and not system.self_edges
    assert (system.adjacency.sum(axis=1) >= 1).all()
    assert system.signs is not None
    np.testing.assert_array_equal(system.signs != 0, system.adjacency)
    x = np.concatenate(system.clean_states)
    nudge = 1e-6 * np.eye(20)
    jacobian = (
        ((system.slope(0.0, x[:, None] + nudge, None) - system.slope(0.0, x[:, None] - nudge, None)) / 2e-6).mean(0).T
    )
    np.testing.assert_array_equal(np.sign(jacobian[system.adjacency]), system.signs[system.adjacency])
    assert (x > 0).all() and (x < 0.05 + 2.0 ** (system.adjacency.sum(axis=1).max() - 1) + 0.5).all()


def test_hubs_share_out_regulators_by_zipfs_law_and_leave_targets_even() -> None:
    even, uneven = (datasets.make_hill_network(100, 1, hubs=hubs, n_edges=400, random_state=0) for hubs in (0.0, 1.0))
    for system in (even, uneven):
        assert system.adjacency.sum() == 400 and not system.adjacency.diagonal().any()
        assert set(system.adjacency.sum(axis=1)) <= {1, 2, 3, 4, 5}
    share = 1 / np.arange(1, 101) / (1 / np.arange(1, 101)).sum()
    top = np.sort(uneven.adjacency.sum(axis=0))[::-1] / 400
    assert even.adjacency.sum(axis=0).max() <= 12
    assert top[10:40].sum() == pytest.approx(share[10:40].sum(), abs=0.06)
    assert top[:10].sum() == pytest.approx(share[:10].sum(), abs=0.12)  # a target takes no regulator twice


def test_hill_inputs_act_and_unregulated_genes_relax_to_the_basal_level() -> None:
    system = datasets.make_hill_network(5, 3, n_times=60, n_edges=0, n_inputs=1, decay=2.0, random_state=0)
    free = ~system.adjacency.any(axis=1)
    assert system.adjacency[:, 5].sum() == 2 and free.sum() == 3 and system.inputs is not None
    np.testing.assert_allclose(np.stack(system.clean_states)[:, -1, free], 0.05, atol=1e-6)
    assert np.stack(system.clean_states)[:, -1, ~free].std(axis=0).min() > 0


def test_decay_spread_spreads_the_rates() -> None:
    system = datasets.make_hill_network(40, 1, decay_spread=10.0, random_state=0)
    rates = system.slope.decay  # type: ignore[attr-defined]
    assert rates.min() >= 10**-0.5 and rates.max() <= 10**0.5 and rates.max() / rates.min() > 5


def test_a_generator_as_seed_moves_on() -> None:
    rng = np.random.default_rng(0)
    first, second = (datasets.make_lotka_volterra(random_state=rng).states[0] for _ in range(2))
    assert not np.array_equal(first, second)
    again = datasets.make_lotka_volterra(random_state=np.random.default_rng(0)).states[0]
    np.testing.assert_array_equal(first, again)
    datasets.make_lotka_volterra(random_state=np.random.RandomState(0))


@pytest.mark.parametrize(
    ("maker", "arguments", "message"),
    [
        ("make_lorenz63", {"noise": -0.1}, "noise must be .* got -0.1"),
        ("make_lorenz63", {"missing": 1.0}, "missing must be .* got 1.0"),
        ("make_lorenz63", {"irregular": 1.5}, "irregular must be .* got 1.5"),
        ("make_lorenz63", {"n_times": 1}, "n_times must be at least 2; got 1"),
        ("make_lorenz63", {"n_trajectories": 0}, "n_trajectories must be at least 1; got 0"),
        ("make_lorenz63", {"dt": 0.0}, "dt must be .* got 0.0"),
        ("make_lorenz96", {"n_variables": 3}, "n_variables must be at least 4; got 3"),
        ("make_lotka_volterra", {"death": 0.0}, "must be positive"),
        ("make_hill_network", {"n_genes": 3, "n_edges": 7}, "number of pairs, 6; got 7"),
        ("make_hill_network", {"combine": "max"}, "'product' or 'sum'; got 'max'"),
        ("make_hill_network", {"repression": 2.0}, "probability"),
        ("make_hill_network", {"hubs": -1.0}, r"exponent in \[0, 10\]; got -1.0"),
        ("make_hill_network", {"hubs": None}, r"exponent in \[0, 10\]; got None"),
        ("make_hill_network", {"decay_spread": 0.5}, "decay_spread at least 1"),
        ("make_coupled_oscillators", {"n_springs": 99}, "number of pairs, 45; got 99"),
        ("make_coupled_oscillators", {"damping": -1.0}, "not negative; got 1.0, -1.0"),
        ("make_dense_linear", {"margin": 0.0}, "margin must be positive"),
    ],
)
def test_impossible_arguments_are_named(maker: str, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(datasets, maker)(**arguments)


def test_a_solution_that_blows_up_is_an_error_that_names_the_system() -> None:
    with pytest.raises(RuntimeError, match="lorenz63 must have a solution"), np.errstate(all="ignore"):
        datasets.make_lorenz63(2, 5, dt=50.0, beta=-40.0, random_state=0)


@pytest.mark.parametrize(
    ("donor", "cells"), [("s1d2", (310, 854, 198)), ("s2d1", (717, 1472, 421)), ("s1d1", (1227, 1028, 512))]
)
def test_hematopoiesis_is_what_its_card_says(donor: str, cells: tuple[int, ...]) -> None:
    data = datasets.load_hematopoiesis(donor)
    states, times, inputs = data.trajectories()
    assert data.donor == donor and data.lineages == ("eryth", "mono", "B")
    assert tuple(len(t) for t in times) == cells and data.expression.shape == (sum(cells), 529)
    assert all(x.shape == (n, 529) for x, n in zip(states, cells, strict=True))
    assert all(t[0] == 0 and (np.diff(t) >= 0).all() and t[-1] <= 1 for t in times)
    assert data.expression.dtype == data.times.dtype == np.float64
    assert data.expression.min() == 0 and 0.78 < (data.expression == 0).mean() < 0.9
    assert len(set(data.genes)) == 529
    np.testing.assert_array_equal(inputs, np.eye(3))


def test_hematopoiesis_prior_agrees_with_its_flags() -> None:
    data = datasets.load_hematopoiesis()
    assert data.prior.sum() == 22689
    np.testing.assert_array_equal(data.prior.any(axis=0), data.is_regulator)
    np.testing.assert_array_equal(data.prior.any(axis=1), data.is_target)
    assert data.is_regulator.sum() == 113 and data.is_target.sum() == 365
    assert data.prior[data.genes.index("ABCB6"), data.genes.index("AHR")]


@pytest.mark.parametrize(
    ("subject", "sequences", "frames", "mean_error"),
    [("35", (16, 3, 4), 300, 35.1), ("09", (6, 2, 2), 120, 109.2)],
)
def test_mocap_is_what_its_card_says(subject: str, sequences: tuple[int, ...], frames: int, mean_error: float) -> None:
    data = datasets.load_mocap(subject)
    parts = (data.train, data.validation, data.test)
    assert [part.shape for part in parts] == [(n, frames, 50) for n in sequences]
    assert len(data.channels) == 50 and data.times.shape == (frames,) and data.rate == 120.0
    assert data.times[-1] == pytest.approx((frames - 1) / 120)
    silent = [index for index, channel in enumerate(data.channels) if "clavicle" in channel]
    assert silent == [24, 25, 31, 32] and np.abs(data.train[:, :, silent]).max() < 1e-12
    # The reference in the literature: the mean of the training frames as a forecast.
    assert ((data.test - data.train.mean(axis=(0, 1))) ** 2).mean() == pytest.approx(mean_error, abs=0.06)


def test_hare_lynx_is_what_its_card_says() -> None:
    data = datasets.load_hare_lynx()
    np.testing.assert_array_equal(data.year, np.arange(1900, 1921))
    assert data.states.shape == (21, 2) and data.names == ("hare", "lynx") and data.times[-1] == 20
    assert (data.hare.min(), data.hare.max(), data.lynx.min(), data.lynx.max()) == (7.6, 77.4, 4.0, 59.4)


@pytest.mark.parametrize("loader", ["load_hematopoiesis", "load_mocap"])
def test_unknown_data_names_what_exists(loader: str) -> None:
    with pytest.raises(ValueError, match=r"must be one of .*; got 'nobody'"):
        getattr(datasets, loader)("nobody")


def test_notices_travel_with_the_data_and_the_folder_is_small() -> None:
    from importlib.resources import files

    folder = files("skode.datasets").joinpath("data")
    for notice in ("PROVENANCE.md", "LICENSE-pathreg.txt", "LICENSE-gpode.txt", "ACKNOWLEDGEMENT-cmu.txt"):
        assert folder.joinpath(notice).is_file()
    leaves = [leaf for part in folder.iterdir() for leaf in (part.iterdir() if part.is_dir() else [part])]
    assert sum(len(leaf.read_bytes()) for leaf in leaves) < 12e6
