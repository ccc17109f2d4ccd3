"""Screening: model smoothing against closed forms, and the laws of the whole stage."""

from functools import partial

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse

from skode._bridge import bridge_rows, gap_weights
from skode._decay import blocks_of_time, choose_decay, relaxation_rate
from skode._independent_rows import independent_rows
from skode._interval_rows import follow
from skode._kalman import Noise, Panel, estimate_noise, kalman_smoother, process_noise, residuals
from skode._linear_field import likeliest_beside, likeliest_field
from skode._model_smoothing import denoise, denoise_along
from skode._screen import screen
from skode.convex import select
from skode.datasets import make_hill_network

ALPHAS = np.geomspace(1.0, 0.005, 16)
TIMES = np.array([0.0, 2.0, 3.0, 7.0, 9.0])


def sparse_system(d=12, n_trajectories=40, *, noise=0.0, seed=0, irregular=False):
    """Standardised trajectories of a sparse linear field in which all variables decay at rate 1; 2 sources each."""
    rng = np.random.default_rng(seed)
    edges = np.zeros((d, d))
    for i in range(d):
        edges[i, rng.choice(np.delete(np.arange(d), i), 2, replace=False)] = rng.choice([-0.45, 0.45], 2)
    matrix = edges - np.eye(d)
    times = [np.sort(np.r_[0.0, rng.uniform(0.5, 9.0, 4)]) if irregular else TIMES for _ in range(n_trajectories)]
    starts = rng.standard_normal((n_trajectories, d))
    steps = [[scipy.linalg.expm(matrix * s) for s in t] for t in times]
    clean = [np.stack([step @ x for step in each]) for each, x in zip(steps, starts, strict=True)]
    sd = np.concatenate(clean).std(axis=0)
    clean = [x / sd for x in clean]
    noisy = [x + noise * rng.standard_normal(x.shape) for x in clean]
    return times, noisy, clean, matrix * sd / sd[:, None]


def run(times, states, **options):
    d = states[0].shape[1]
    return screen(times, states, **{"moves": np.ones(d, dtype=bool), "alphas": ALPHAS, **options})


# the Kalman part


def decay(starts, lengths, gamma, d):
    return starts[:, :d] * np.exp(-gamma * lengths)[:, None]


@pytest.mark.parametrize("gamma", [0.0, 0.6])
def test_smoother_of_decay_is_gaussian_conditioning(gamma):
    rng = np.random.default_rng(0)
    times = [np.array([0.0, 0.5, 2.0, 2.4, 4.0]), np.array([0.0, 1.0, 1.5])]
    states = [rng.standard_normal((5, 2)), rng.standard_normal((3, 2))]
    states[0][2, 1] = np.nan
    noise = Noise(np.array([0.3, 0.7]), np.array([0.2, 0.05]))
    panel = Panel.build(times, states, [np.nan_to_num(x) for x in states], np.zeros((2, 0)))
    got = panel.scatter(
        kalman_smoother(panel, partial(decay, gamma=gamma, d=2), noise, moves=np.ones(2, bool), gamma=gamma)
    )
    for t, y, found in zip(times, states, got, strict=True):
        h = np.diff(t)
        grown = h if gamma == 0 else (1 - np.exp(-2 * gamma * h)) / (2 * gamma)
        for i in range(2):
            # precision of the path: x_k+1 - a x_k ~ N(0, q L), flat start, then observations
            precision, right = np.zeros((len(t), len(t))), np.zeros(len(t))
            for k in range(len(h)):
                row = np.zeros(len(t))
                row[k + 1], row[k] = 1.0, -np.exp(-gamma * h[k])
                precision += np.outer(row, row) / (noise.process[i] * grown[k])
            seen = ~np.isnan(y[:, i])
            precision[seen, seen] += 1 / noise.observation[i]
            right[seen] = y[seen, i] / noise.observation[i]
            np.testing.assert_allclose(found[:, i], np.linalg.solve(precision, right), rtol=1e-9, atol=1e-12)


def test_without_observation_noise_the_smoother_keeps_the_data():
    rng = np.random.default_rng(1)
    states = [rng.standard_normal((4, 2)), rng.standard_normal((3, 2))]
    times = [np.arange(4.0), np.arange(3.0)]
    panel = Panel.build(times, states, states, np.zeros((2, 0)))
    noise = Noise(np.zeros(2), np.ones(2))
    got = panel.scatter(kalman_smoother(panel, partial(decay, gamma=1.0, d=2), noise, moves=np.ones(2, bool), gamma=1))
    for x, found in zip(states, got, strict=True):
        np.testing.assert_array_equal(found, x)


def autoregression(sigma, gamma=0.4, q=0.5, n=400, n_knots=6, seed=2):
    """Ornstein-Uhlenbeck paths at irregular times, with and without observation noise; 30 variables."""
    rng = np.random.default_rng(seed)
    times = [np.cumsum(np.r_[0.0, rng.uniform(0.3, 1.5, n_knots - 1)]) for _ in range(n)]
    states = []
    for t in times:
        x = [rng.standard_normal(30) * np.sqrt(q / (2 * gamma))]
        for h in np.diff(t):
            spread = np.sqrt(q * (1 - np.exp(-2 * gamma * h)) / (2 * gamma))
            x.append(np.exp(-gamma * h) * x[-1] + spread * rng.standard_normal(30))
        states.append(np.stack(x) + sigma * rng.standard_normal((n_knots, 30)))
    panel = Panel.build(times, states, states, np.zeros((n, 0)))
    return panel, residuals(panel, partial(decay, gamma=gamma, d=30), np.ones(30, bool)), gamma


def test_noise_of_an_autoregression_is_found():
    panel, errors, gamma = autoregression(0.4)
    variance = estimate_noise(panel, errors, gamma)
    np.testing.assert_allclose(np.sqrt(variance).mean(), 0.4, rtol=0.03)
    np.testing.assert_allclose(process_noise(panel, errors, gamma, variance).process.mean(), 0.5, rtol=0.05)


def test_an_exact_autoregression_has_no_noise():
    panel, errors, gamma = autoregression(0.0)
    assert not estimate_noise(panel, errors, gamma).any()


def test_noise_never_exceeds_the_residuals():
    panel, errors, gamma = autoregression(0.4)
    found = process_noise(panel, errors, gamma, np.full(30, 1e9))
    assert (found.process > 0).all()
    assert (found.observation < np.concatenate(errors).var(axis=0)).all()


def test_a_forecast_that_blows_up_leaves_states_finite():
    rng = np.random.default_rng(3)
    states = [rng.standard_normal((5, 2)) for _ in range(4)]
    panel = Panel.build([TIMES] * 4, states, states, np.zeros((4, 0)))
    noise = Noise(np.ones(2), np.ones(2))
    found = kalman_smoother(panel, lambda z, h: np.full((len(z), 2), np.nan), noise, moves=np.ones(2, bool), gamma=0.5)
    assert all(np.isfinite(x).all() for x in found)


def test_denoising_comes_closer_to_the_truth():
    times, noisy, clean, matrix = sparse_system(30, 80, noise=0.3)
    moves = np.ones(30, dtype=bool)
    given = {"inputs": np.zeros((80, 0)), "moves": moves, "gamma": 1.0}
    found = denoise(times, noisy, limit=np.full(30, np.inf), **given)

    def error(path):
        return np.mean([(a - b) ** 2 for a, b in zip(path, clean, strict=True)])

    assert error(found.states) < 0.6 * 0.3**2
    np.testing.assert_allclose(np.median(found.noise), 0.3, rtol=0.2)
    edges = scipy.sparse.csr_array(matrix + np.eye(30))
    again = denoise_along(times, noisy, found, edges, **given)
    assert error(again.states) < 0.8 * error(found.states)
    np.testing.assert_allclose(np.median(again.noise), 0.3, rtol=0.2)


def test_edges_that_explain_everything_leave_the_ridge_field_nothing():
    rng = np.random.default_rng(5)
    features, weights = rng.standard_normal((60, 10)) + 3.0, rng.uniform(0.5, 2.0, 60)
    edges = rng.standard_normal((4, 10)) * (rng.random((4, 10)) < 0.4)
    field = likeliest_beside(scipy.sparse.csr_array(edges), features, features @ edges.T + 2.0, weights)
    np.testing.assert_allclose(field.readout @ field.basis.T, edges, atol=1e-9)
    np.testing.assert_allclose(field.constant - (field.readout @ field.basis.T) @ field.center, 2.0, atol=1e-8)


def test_beside_no_edges_stands_the_likeliest_field():
    rng = np.random.default_rng(6)
    features, production = rng.standard_normal((60, 10)), rng.standard_normal((60, 4))
    alone, _ = likeliest_field(features, production, np.ones(60))
    beside = likeliest_beside(scipy.sparse.csr_array((4, 10)), features, production, np.ones(60))
    np.testing.assert_array_equal(beside.readout @ beside.basis.T, alone.readout @ alone.basis.T)


# rows whose noise is independent


@pytest.mark.parametrize("process", [0.0, 0.7])
@pytest.mark.parametrize("trusted", [False, True])
def test_mixed_rows_give_generalised_least_squares(process, trusted):
    rng, gamma = np.random.default_rng(7), 0.6
    times = [np.cumsum(np.r_[0.0, rng.uniform(0.3, 2.0, n)]) for n in (4, 1, 6)]
    n = sum(len(t) - 1 for t in times)
    features, production = rng.standard_normal((n, 3)), rng.standard_normal((n, 2))
    trust = rng.uniform(0.5, 2.0, n) if trusted else None
    found = independent_rows(times, gamma, process, trust)

    blocks = []
    for t in times:
        h = np.diff(t)
        ends = np.zeros((len(h), len(t)))  # error of a production: of both observations
        place = np.arange(len(h))
        ends[place, place + 1], ends[place, place] = 1.0, -np.exp(-gamma * h)
        grown = (1 - np.exp(-2 * gamma * h)) / (2 * gamma)
        made = (1 - np.exp(-gamma * h)) / gamma
        blocks.append((ends @ ends.T + process * np.diag(grown)) / made[:, None] / made)
    covariance = scipy.linalg.block_diag(*blocks)
    covariance = covariance if trust is None else covariance / np.sqrt(trust[:, None] * trust)
    z, inverse = np.column_stack([np.ones(n), features]), np.linalg.inv(covariance)
    expected = np.linalg.solve(z.T @ inverse @ z, z.T @ inverse @ production)

    root = np.sqrt(found.weights)[:, None]
    mixed = root * np.column_stack([np.ones(n), found.shares @ features])
    got = np.linalg.lstsq(mixed, root * (found.shares @ production), rcond=None)[0]
    np.testing.assert_allclose(got, expected, atol=0.02)  # shares below a thousandth are left out
    np.testing.assert_allclose(found.shares.sum(axis=1), 1.0)
    assert found.shares.data.min() > 0
    spread = np.diag(found.shares @ covariance @ found.shares.T) * found.weights
    np.testing.assert_allclose(spread, 1.0, atol=0.02)
    assert found.noisy == pytest.approx(1.0) if process == 0 else 0.4 < found.noisy < 1.0


def test_rows_of_single_intervals_are_left_alone():
    times = [np.array([0.0, h]) for h in (0.5, 1.0, 3.0)] + [np.zeros(1)]
    found = independent_rows(times, 0.8, 0.0, None)
    np.testing.assert_array_equal(found.shares.toarray(), np.eye(3))
    alone = [bridge_rows(t, np.zeros((2, 1)), 0.8).weights[0] for t in times[:3]]
    np.testing.assert_allclose(found.weights, alone)


def test_long_trajectories_are_mixed_in_parts():
    found = independent_rows([np.arange(1001.0)], 0.5, 0.1, None)
    assert found.shares.shape == (1000, 1000)
    assert found.shares.nnz < 20_000
    np.testing.assert_allclose(found.weights[256], found.weights[0])


def test_the_likeliest_strength_has_the_largest_gaussian_likelihood():
    rng = np.random.default_rng(4)
    for n in (15, 60):
        features = rng.standard_normal((n, 30))
        targets = features @ rng.standard_normal((30, 4)) * 0.5 + 2.0 * rng.standard_normal((n, 4))
        _, strength = likeliest_field(features, targets, np.ones(n))

        # density of n - 1 contrasts orthogonal to the mean, with the likeliest variance
        basis = scipy.linalg.null_space(np.ones((1, n))) / np.sqrt(n)
        z, s = basis.T @ features, basis.T @ targets

        def likelihood(strength, z=z, s=s):
            covariance = np.eye(len(z)) + z @ z.T / strength
            scale = np.einsum("ri,rq,qi->i", s, np.linalg.inv(covariance), s)
            return -0.5 * (len(z) * np.log(scale) + np.linalg.slogdet(covariance)[1]).sum()

        assert likelihood(strength) >= max(likelihood(0.9 * strength / 1.6), likelihood(1.6 * strength))


# the whole stage


@pytest.mark.parametrize("irregular", [False, True])
def test_a_sparse_linear_system_is_recovered(irregular):
    times, states, _, matrix = sparse_system(noise=0.1, irregular=irregular)
    found = run(times, states)
    other = ~np.eye(12, dtype=bool)
    assert found.support[other & (matrix != 0)].all()
    assert (found.support & (matrix == 0)).sum() <= 6
    assert found.gamma is not None
    np.testing.assert_allclose(found.coefficients, matrix, atol=0.3)
    order = np.argsort(-(found.scores * other).ravel())
    assert (matrix != 0).ravel()[order[:20]].all()
    assert len(np.unique(found.scores)) == 144


def test_exact_observations_are_not_pulled():
    times, states, _, _ = sparse_system()
    found = run(times, states)
    assert not found.noise.any()
    for x, z in zip(states, found.path, strict=True):
        np.testing.assert_array_equal(x, z)


def test_smoothing_finds_the_sources_that_noise_hides():
    times, states, _, matrix = sparse_system(30, 60, noise=0.35)
    found = run(times, states)
    other = ~np.eye(30, dtype=bool)
    rows = np.einsum("kl,kls->ks", found.quadrature, found.nodes)
    assert rows.shape[0] == len(found.slopes) == len(found.weights)
    true = (matrix != 0) & other
    plain = screen_without_smoothing(times, states, found.gamma)

    def f1(support):
        return 2 * (true & support).sum() / (true.sum() + (support & other).sum())

    assert f1(found.support) > f1(plain) + 0.02
    np.testing.assert_allclose(np.median(found.noise), 0.35, rtol=0.3)


@pytest.mark.parametrize("irregular", [False, True])
def test_noise_does_not_make_decay_look_faster(irregular):
    times, states, _, _ = sparse_system(20, 60, noise=0.3, irregular=irregular)
    one_step = choose_decay(times, states, moves=np.ones(20, dtype=bool))
    assert one_step.best_gamma > 1.5
    assert 0.7 < run(times, states).gamma < 1.42


def screen_without_smoothing(times, states, gamma):
    rows = [bridge_rows(t, x, gamma) for t, x in zip(times, states, strict=True)]
    features, slopes, weights = (np.concatenate([r[k] for r in rows]) for k in range(3))
    return select(features, slopes + gamma * features, weights, alphas=ALPHAS).support


def test_the_field_is_the_weighted_least_squares_fit_of_its_rows():
    times, states, _, _ = sparse_system()
    found = run(times, states)
    features = np.einsum("kl,kls->ks", found.quadrature, found.nodes)
    w = np.sqrt(found.weights)
    for i in range(12):
        if not found.support[i, i]:
            continue
        z = np.column_stack([np.ones(len(w)), features[:, found.support[i]]])
        expected = np.linalg.lstsq(w[:, None] * z, w * found.slopes[:, i], rcond=None)[0]
        got = np.r_[found.intercepts[i], found.coefficients[i, found.support[i]]]
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_a_given_strength_has_the_edges_of_its_level(noise):
    times, states, _, _ = sparse_system(20, 60, noise=noise)
    found = run(times, states)
    assert bool(found.noise.any()) == (noise > 0)
    for level in (9, 10, 11):  # from .05 on factors of the second path are the same
        given = run(times, states, alpha=float(ALPHAS[level]))
        there = found.levels[level].toarray() != 0
        assert (given.support != there).mean() <= 0.005  # targets leave paths at the end


def test_where_nothing_was_observed_rows_stay_as_they_are():
    times, states, _, _ = sparse_system(20, 60, noise=0.4)
    holed = [x.copy() for x in states]
    for x in holed[:9]:
        x[-1] = np.nan
    found = run(times, holed)
    short = run(
        [t[:-1] if k < 9 else t for k, t in enumerate(times)], [x[:-1] if k < 9 else x for k, x in enumerate(states)]
    )
    assert found.noise.any()
    assert (found.support != short.support).mean() < 0.03


def assert_same(here, there, variables=slice(None)):
    sources = variables
    np.testing.assert_array_equal(here.support[variables][:, sources], there.support)
    for name in ("coefficients", "scores"):
        got, expected = getattr(there, name), getattr(here, name)[variables][:, sources]
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(there.noise, here.noise[variables], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(there.intercepts, here.intercepts[variables], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_the_answer_follows_variables_trajectories_and_the_unit_of_time(noise):
    times, states, _, _ = sparse_system(noise=noise, irregular=True)
    here = run(times, states)
    rng = np.random.default_rng(5)
    variables, order = rng.permutation(12), rng.permutation(len(times))
    assert_same(here, run(times, [x[:, variables] for x in states]), variables)
    assert_same(here, run([times[k] for k in order], [states[k] for k in order]))
    slow = run([60 * t for t in times], states)
    np.testing.assert_array_equal(slow.support, here.support)
    np.testing.assert_allclose(60 * slow.coefficients, here.coefficients, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(60 * slow.gamma, here.gamma)
    np.testing.assert_allclose(slow.noise, here.noise, rtol=1e-6, atol=1e-9)


def test_missing_values_cost_little():
    times, states, _, matrix = sparse_system(n_trajectories=60)
    rng = np.random.default_rng(6)
    holed = [np.where(rng.random(x.shape) < 0.1, np.nan, x) for x in states]
    holed[0][:, 3] = np.nan
    found = run(times, holed)
    true = (matrix != 0) & ~np.eye(12, dtype=bool)
    assert (found.support & true).sum() >= 0.9 * true.sum()
    assert all(np.isfinite(x).all() for x in found.path)
    assert np.isfinite(found.slopes).all() and np.isfinite(found.nodes).all()
    assert found.weights.shape == found.slopes.shape
    assert not found.weights[:4, 3].any()


def test_a_gap_weighs_as_much_as_one_interval():
    gamma, holed = 0.7, np.array([[0.0, np.nan], [1.0, 2.0], [np.nan, np.nan], [np.nan, 1.0], [2.0, np.nan]])
    got = gap_weights(TIMES, holed, gamma)
    joined = bridge_rows(TIMES[[1, 4]], np.zeros((2, 1)), gamma).weights[0]
    np.testing.assert_allclose(got[1:, 0].sum(), joined)
    np.testing.assert_allclose(got[1:, 0] / joined, np.diff(TIMES)[1:] / 7.0)
    np.testing.assert_array_equal(got[:, 1] > 0, [False, True, True, False])
    whole = gap_weights(TIMES, np.zeros((5, 3)), gamma)
    np.testing.assert_allclose(whole, np.tile(bridge_rows(TIMES, np.zeros((5, 1)), gamma).weights[:, None], 3))


def test_what_is_not_allowed_never_enters():
    times, states, _, matrix = sparse_system(noise=0.1)
    allowed = (matrix != 0) | (np.random.default_rng(7).random((12, 12)) < 0.3)
    allowed[0] = False
    found = run(times, states, allowed=allowed)
    assert not found.support[~allowed].any()
    assert not found.scores[~allowed].any()
    assert (found.scores[allowed] > 0).all()
    assert found.support[1:][(matrix != 0)[1:] & ~np.eye(12, dtype=bool)[1:]].all()
    assert found.coefficients[0, 0] < 0  # decay is no edge
    assert not found.coefficients[0, 1:].any()


def test_everything_allowed_is_no_restriction():
    times, states, _, _ = sparse_system()
    assert_same(run(times, states), run(times, states, allowed=np.ones((12, 12), dtype=bool)))


def test_constant_variables_and_inputs_are_sources_but_no_targets():
    rng = np.random.default_rng(8)
    times, states, _, _ = sparse_system(6, 60)
    level, given = rng.standard_normal((2, 60))
    changed = []
    for t, x, c, u in zip(times, states, level, given, strict=True):
        driven = (1 - np.exp(-t))[:, None]  # x0' = ... , a seventh variable that both drive: x' = c + u - x
        changed.append(np.column_stack([x, np.full(len(t), c), (c + u) * driven[:, 0]]))
    every = np.concatenate(changed)
    changed = [(x - every.mean(axis=0)) / every.std(axis=0) for x in changed]
    found = run(times, changed, moves=np.arange(8) != 6, inputs=given[:, None])
    assert found.support.shape == (8, 9)
    assert found.support[7, [6, 8]].all()
    assert not found.support[6].any() and not found.coefficients[6].any() and not found.slopes[:, 6].any()
    assert not found.support[:6, [6, 8]].any()


def test_a_given_strength_falls_from_full_to_empty():
    times, states, _, _ = sparse_system(noise=0.1)
    sizes = [int(run(times, states, alpha=a).support.sum()) for a in (1e-4, 0.02, 0.3, 5.0)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 60 and sizes[-1] == 0
    assert (run(times, states, alpha=0.3).alphas == 0.3).all()


def test_dense_oscillations_are_read_along_the_spline():
    t = np.linspace(0, 6, 25)
    phases = np.random.default_rng(9).uniform(0, 6, 12)
    states = [np.sqrt(2) * np.stack([np.sin(3 * t + p), np.cos(3 * t + p)], axis=1) for p in phases]
    found = run([t] * 12, states)
    assert found.gamma is None
    np.testing.assert_allclose(found.coefficients, [[0, 3], [-3, 0]], atol=0.1)


@pytest.mark.parametrize("often", [1, 10, 40])
def test_the_rate_of_decay_is_found_however_densely_it_is_observed(often):
    times, rng = np.linspace(0.0, 6.0, 12 * often + 1), np.random.default_rng(0)
    exact = [np.exp(-times)[:, None] * rng.standard_normal(30) + 0.2 * rng.standard_normal(30) for _ in range(6)]
    states = [x + 0.05 * rng.standard_normal(x.shape) for x in exact]
    inputs = np.stack([x[-1] for x in exact])
    found = follow([times] * 6, states, moves=np.ones(30, dtype=bool), inputs=inputs, groups=None)
    assert 0.5 < found.rate < 2.0
    assert found.gamma is None or often == 1


def test_one_long_trajectory_is_cut_into_blocks_of_time():
    t = np.linspace(0, 60, 241)
    rates = np.array([[-0.1, 1.0], [-1.0, -0.1]])
    states = [np.stack([scipy.linalg.expm(rates * s) @ [1.0, 0.0] for s in t])]
    states = [states[0] / states[0].std(axis=0)]
    found = run([t], states)
    assert (found.support | np.eye(2, dtype=bool)).all()
    blocks, parts, given = blocks_of_time([t], states, np.zeros((1, 0)), 8)
    assert len(blocks) == len(parts) == len(given) == 8
    np.testing.assert_array_equal(np.concatenate([np.diff(b) for b in blocks]), np.diff(t))


def test_few_observations_still_have_an_answer():
    times, states, _, _ = sparse_system(3, 2)
    found = run(times, states)
    assert np.isfinite(found.coefficients).all() and found.gamma is not None
    np.testing.assert_allclose(
        relaxation_rate(times, [np.exp(-t)[:, None] - 0.3 for t in times], np.ones(1, bool)), 1.0, rtol=1.1
    )
    single = run([np.array([0.0, 1.0])], [np.array([[0.0, 1.0], [1.0, -1.0]])])
    assert np.isfinite(single.coefficients).all()


def test_a_variable_seen_once_per_trajectory_is_no_target():
    times, states, _, _ = sparse_system(5, 20)
    states = [x.copy() for x in states]
    for x in states:
        x[1:, 2] = np.nan
    found = run(times, states)
    assert not found.support[2].any() and np.isfinite(found.coefficients).all() and np.isfinite(found.scores).all()


def test_nothing_moves_nothing_is_found():
    states = [np.full((5, 3), float(k)) for k in range(4)]
    found = run([TIMES] * 4, states, moves=np.zeros(3, dtype=bool))
    assert not found.support.any() and not found.coefficients.any()
    assert found.nodes.shape[::2] == (16, 3)


def test_a_hill_network_is_ranked_well():
    data = make_hill_network(20, 60, 6, dt=1.0, noise=0.02, missing=0.05, irregular=True, random_state=1)
    every = np.concatenate(data.states)
    mean, sd = np.nanmean(every, axis=0), np.nanstd(every, axis=0)
    found = run(data.times, [(x - mean) / sd for x in data.states])
    other = ~np.eye(20, dtype=bool)
    true = data.adjacency[other].astype(bool)
    best = np.argsort(-found.scores[other])[: true.sum()]
    assert true[best].mean() > 0.6  # chance is .1
