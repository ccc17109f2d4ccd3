"""Convex selection: the lasso against its conditions and another library, EBIC against enumeration."""

import itertools
import math

import numpy as np
import pytest
import scipy.sparse
from sklearn.linear_model import Lasso, LinearRegression

from skode.convex import GramProducts, RowProducts, adaptive_factors, alpha_max, ebic, lasso_path, refit, select
from skode.convex import path as path_module

ALPHAS = np.geomspace(1.0, 0.005, 16)


def problem(n=60, p=25, d=7, noise=0.3, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n, p)) + 0.5 * rng.standard_normal((n, 1))
    truth = np.where(rng.random((d, p)) < 0.15, rng.standard_normal((d, p)), 0.0)
    slopes = features @ truth.T + noise * rng.standard_normal((n, d)) + 0.4
    weights = rng.uniform(0.2, 2.0, n)
    share = (weights / weights.sum())[:, None]
    slopes /= np.sqrt((share * (slopes - (share * slopes).sum(0)) ** 2).sum(0))
    factors = rng.uniform(0.5, 4.0, (d, p))
    return features, slopes, weights, factors


def both_products(features, slopes, weights):
    spread = np.repeat(weights[:, None], slopes.shape[1], axis=1)
    return [GramProducts.build(features, slopes, weights), RowProducts.build(features, slopes, spread)]


def violation(products, coefficients, prices):
    """Largest breach of the conditions of optimality."""
    dense = coefficients.toarray()
    correlations = products.correlations(np.arange(len(dense)), coefficients)
    on = dense != 0
    outside = np.maximum(np.abs(correlations) - prices, 0.0)
    return max(outside.max(), np.abs(correlations - prices * np.sign(dense))[on].max(initial=0.0))


@pytest.mark.parametrize("shape", [(60, 25), (30, 80)])
@pytest.mark.parametrize("kind", [0, 1])
def test_the_path_is_optimal_at_every_strength(shape, kind):
    features, slopes, weights, factors = problem(*shape)
    factors[np.arange(7), np.arange(7)] = 0.0
    products = both_products(features, slopes, weights)[kind]
    path = lasso_path(products, ALPHAS, factors=factors)
    assert path.converged.all()
    for alpha, coefficients in zip(path.alphas, path.coefficients, strict=True):
        assert violation(products, coefficients, 0.5 * alpha * factors) < 1e-6 * alpha * factors.max()


def test_blocks_of_few_entries_give_the_same_path(monkeypatch):
    features, slopes, weights, factors = problem()
    products = GramProducts.build(features, slopes, weights)
    whole = lasso_path(products, ALPHAS, factors=factors)
    monkeypatch.setattr(path_module, "BLOCK_ENTRIES", 4)
    for one, other in zip(whole.coefficients, lasso_path(products, ALPHAS, factors=factors).coefficients, strict=True):
        np.testing.assert_allclose(one.toarray(), other.toarray(), rtol=0, atol=1e-10)


def test_the_lasso_agrees_with_another_library():
    features, slopes, weights, factors = problem()
    path = lasso_path(GramProducts.build(features, slopes, weights), ALPHAS[:12], factors=factors)
    for i, k in itertools.product(range(3), (3, 8, 11)):
        model = Lasso(alpha=ALPHAS[k] / 2, tol=1e-12, max_iter=100000)
        model.fit(features / factors[i], slopes[:, i], sample_weight=weights)
        np.testing.assert_allclose(path.coefficients[k].toarray()[i], model.coef_ / factors[i], atol=1e-7)


@pytest.mark.parametrize("with_free", [False, True])
def test_alpha_max_is_where_the_first_source_enters(with_free):
    features, slopes, weights, factors = problem()
    if with_free:
        factors[:, 2] = 0.0
    products = GramProducts.build(features, slopes, weights)
    top = alpha_max(products, factors=factors)
    if not with_free:
        np.testing.assert_allclose(top, (2 * np.abs(products.cross) / factors).max(axis=1))
    for i, alpha in enumerate(top):
        path = lasso_path(products, np.array([1.001 * alpha, 0.999 * alpha]), factors=factors)
        sizes = [(c.toarray()[i] != 0).sum() - with_free for c in path.coefficients]
        assert sizes == [0, 1]


def test_free_coefficients_and_intercept_have_no_price():
    features, slopes, weights, _ = problem()
    free = np.zeros((7, 25), dtype=bool)
    free[:, [1, 4]] = True
    found = select(features, slopes, weights, alphas=ALPHAS, free=free, alpha=50.0)
    model = LinearRegression().fit(features[:, [1, 4]], slopes, sample_weight=weights)
    np.testing.assert_allclose(found.coefficients[:, [1, 4]], model.coef_, atol=1e-8)
    np.testing.assert_allclose(found.intercepts, model.intercept_, atol=1e-8)
    assert np.array_equal(found.support, free)


def test_equal_and_constant_columns_do_no_harm():
    features, slopes, weights, _ = problem(seed=1)
    features = np.concatenate([features, features[:, :5], np.ones((60, 2))], axis=1)
    products = GramProducts.build(features, slopes, weights)
    path = lasso_path(products, ALPHAS)
    assert path.converged.all()
    for alpha, coefficients in zip(path.alphas, path.coefficients, strict=True):
        assert violation(products, coefficients, np.full((7, 32), 0.5 * alpha)) < 1e-5 * alpha
        assert np.abs(coefficients.toarray()[:, -2:]).max() == 0


def test_targets_do_not_meet():
    features, slopes, weights, factors = problem(d=12)
    together = lasso_path(GramProducts.build(features, slopes, weights), ALPHAS, factors=factors)
    alone = lasso_path(GramProducts.build(features, slopes[:, 4:5], weights), ALPHAS, factors=factors[4:5])
    for one, all_ in zip(alone.coefficients, together.coefficients, strict=True):
        np.testing.assert_allclose(one.toarray()[0], all_.toarray()[4], atol=1e-8)


def test_a_target_that_is_too_dense_leaves_the_path():
    features, slopes, weights, _ = problem(noise=3.0)
    full = lasso_path(GramProducts.build(features, slopes, weights), ALPHAS)
    short = lasso_path(GramProducts.build(features, slopes, weights), ALPHAS, max_support=6)
    assert (short.reached < 16).any()
    for a, (x, y) in enumerate(zip(full.coefficients, short.coefficients, strict=True)):
        on = a < short.reached
        np.testing.assert_allclose(x.toarray()[on], y.toarray()[on], atol=1e-8)
    last = short.coefficients[-1].toarray()
    assert ((last != 0).sum(axis=1)[short.reached < 16] > 6).all()


def test_sources_may_be_permuted_and_slopes_scaled():
    features, slopes, weights, _ = problem()
    order = np.random.default_rng(1).permutation(25)
    units = np.geomspace(1e-3, 1e3, 7)
    here = select(features, slopes, weights, alphas=ALPHAS)
    there = select(features[:, order], 5.0 + units * slopes, 3.0 * weights, alphas=ALPHAS)
    assert np.array_equal(here.support[:, order], there.support)
    np.testing.assert_allclose(here.coefficients[:, order] * units[:, None], there.coefficients, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(here.scores[:, order], there.scores, rtol=1e-5, atol=1e-9)
    np.testing.assert_array_equal(here.alphas, there.alphas)


def test_integer_weights_are_repetitions_and_zero_is_absence():
    features, slopes, _, _ = problem()
    times = np.random.default_rng(2).integers(0, 3, 60)
    here = select(features, slopes, times.astype(float), alphas=ALPHAS, n_rows=30)
    there = select(np.repeat(features, times, 0), np.repeat(slopes, times, 0), alphas=ALPHAS, n_rows=30)
    assert np.array_equal(here.support, there.support)
    np.testing.assert_allclose(here.coefficients, there.coefficients, atol=1e-9)


@pytest.mark.parametrize("n_masks", [1, 2, 7])
def test_weights_per_target_equal_one_target_at_a_time(n_masks):
    features, slopes, _, _ = problem()
    masks = (np.random.default_rng(3).random((60, n_masks)) < 0.8).astype(float)
    weights = masks[:, np.arange(7) % n_masks]
    together = select(features, np.where(weights > 0, slopes, 1e6), weights, alphas=ALPHAS)
    for i in range(7):
        rows = weights[:, i] > 0
        alone = select(features[rows], slopes[rows, i : i + 1], alphas=ALPHAS)
        assert np.array_equal(together.support[i], alone.support[0])
        np.testing.assert_allclose(together.coefficients[i], alone.coefficients[0], atol=1e-8)
        np.testing.assert_allclose(together.intercepts[i], alone.intercepts[0], atol=1e-8)


@pytest.mark.parametrize("kind", [0, 1])
def test_refit_is_least_squares_on_the_support(kind):
    features, slopes, weights, _ = problem()
    support = np.random.default_rng(4).random((7, 25)) < 0.3
    support[0] = False
    products = both_products(features, slopes, weights)[kind]
    found, residual = refit(products, scipy.sparse.csr_array(support.astype(float)))
    for i in range(1, 7):
        model = LinearRegression().fit(features[:, support[i]], slopes[:, i], sample_weight=weights)
        np.testing.assert_allclose(found.toarray()[i, support[i]], model.coef_, atol=1e-8)
        left = np.average((slopes[:, i] - model.predict(features[:, support[i]])) ** 2, weights=weights)
        np.testing.assert_allclose(residual[i], left, atol=1e-8)
    assert residual[0] == pytest.approx(1.0)


def test_ebic_is_its_formula():
    value = ebic(np.array([0.2]), np.array([3.0]), n_rows=np.array([50.0]), n_sources=10, gamma=0.5)
    assert value[0] == pytest.approx(50 * math.log(0.2) + 3 * math.log(50) + math.log(math.comb(10, 3)))


def test_the_selected_support_has_the_least_ebic_of_all_supports():
    rng = np.random.default_rng(5)
    features = rng.standard_normal((120, 6))
    truth = np.array([[1.0, 0, 0, -0.8, 0, 0], [0, 0.7, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
    slopes = features @ truth.T + 0.5 * rng.standard_normal((120, 3))
    found = select(features, slopes, alphas=ALPHAS, n_rows=60)
    for i in range(3):
        best = min(
            (columns for k in range(5) for columns in itertools.combinations(range(6), k)),
            key=lambda columns: criterion(features[:, columns], slopes[:, i]),
        )
        assert tuple(np.flatnonzero(found.support[i])) == best


def criterion(features, slopes):
    k = features.shape[1]
    left = slopes - slopes.mean()
    if k:
        left = slopes - LinearRegression().fit(features, slopes).predict(features)
    return 60 * math.log((left**2).mean()) + k * math.log(60) + 2 * math.log(math.comb(6, k))


def test_a_given_alpha_keeps_the_non_zeros_of_the_adaptive_lasso_there():
    features, slopes, _, _ = problem()
    found = select(features, slopes, alphas=ALPHAS, alpha=0.03)
    power = slopes.var(axis=0)
    products = GramProducts.build(features, slopes / np.sqrt(power), np.ones(60))
    grid = np.append(ALPHAS[ALPHAS > 0.03], 0.03)
    first = lasso_path(products, grid).coefficients[int(np.argmin(np.abs(np.log(grid / 0.05))))].toarray()
    factors = adaptive_factors(first, np.zeros(first.shape, dtype=bool))
    second = lasso_path(products, np.array([0.03]), factors=factors).coefficients[0].toarray()
    assert np.array_equal(found.support, second != 0)
    assert (found.alphas == 0.03).all()


def test_adaptive_factors_are_reciprocal_sizes_up_to_their_bound():
    free = np.array([[True, False, False, False], [False, False, False, False]])
    got = adaptive_factors(np.array([[9.0, -2.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]), free)
    np.testing.assert_allclose(got, [[0, 1, 2, 50], [50, 50, 50, 50]])


def test_scores_are_dense_and_rank_true_sources_first():
    rng = np.random.default_rng(6)
    features = rng.standard_normal((100, 30))
    truth = np.where(rng.random((8, 30)) < 0.1, 1.0, 0.0)
    slopes = features @ truth.T + 0.2 * rng.standard_normal((100, 8))
    found = select(features, slopes, alphas=ALPHAS)
    assert np.array_equal(found.support, truth > 0)
    assert found.scores[truth > 0].min() > found.scores[truth == 0].max()
    assert len(np.unique(found.scores)) == found.scores.size


def test_a_target_without_variance_has_no_sources():
    features, slopes, weights, _ = problem()
    slopes[:, 2] = 0.0
    found = select(features, slopes, weights, alphas=ALPHAS)
    assert not found.support[2].any() and np.isfinite(found.scores).all()
