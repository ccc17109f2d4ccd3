"""Prices of edges by the targets that their source has already: the formula, its calibration, and what it finds."""

import warnings

import numpy as np
import pytest

from skode import SparseNODERegressorCV, from_trajectories
from skode.convex import ebic, edge_evidence, select, select_sources, select_splines, source_prices
from skode.convex._exchange import Target
from skode.datasets import make_hill_network

ALPHAS = np.geomspace(1.0, 0.005, 12)


def uneven(n_targets=60, n_sources=50, seed=0):
    """A support whose sources differ much."""
    rng = np.random.default_rng(seed)
    return rng.random((n_targets, n_sources)) < rng.gamma(0.3, 0.1, n_sources)


def by_hand(support, allowed, own, peers):
    """The formula, source by source."""
    n_targets, n_sources = support.shape
    pairs = [[i for i in range(n_targets) if allowed[i, j] and own[i] != j and peers[j]] for j in range(n_sources)]
    e = [len(some) for some in pairs]
    n = [sum(bool(support[i, j]) for i in pairs[j]) for j in range(n_sources)]
    rho = sum(n) / sum(e)
    used = [j for j in range(n_sources) if e[j]]
    a = sum((rho * e[j]) ** 2 for j in used) / sum((n[j] - rho * e[j]) ** 2 - rho * e[j] for j in used)
    out = np.ones(support.shape)
    for j in used:
        for i in range(n_targets):
            if own[i] != j:
                there = bool(support[i, j]) and bool(allowed[i, j])
                chance = (a + n[j] - there) / (a / rho + e[j] - 1)
                out[i, j] = np.log(min(chance, 0.5)) / np.log(rho)
    return out


@pytest.mark.parametrize("seed", range(4))
def test_prices_are_those_of_the_formula(seed):
    support, rng = uneven(seed=seed), np.random.default_rng(seed)
    allowed = rng.random(support.shape) < 0.8
    allowed[:, 7] = False
    own, peers = rng.integers(0, 50, 60), rng.random(50) < 0.9
    given = {"allowed": allowed, "own": own, "peers": peers}
    np.testing.assert_allclose(source_prices(support, **given), by_hand(support, **given), rtol=1e-12)


def test_own_and_barred_edges_are_no_argument():
    support = uneven(50, 50)
    np.fill_diagonal(support, False)
    own, allowed = np.arange(50), np.ones((50, 50), dtype=bool)
    allowed[:25, :10] = False
    support &= allowed
    expected = source_prices(support, allowed=allowed, own=own)
    more = support | np.eye(50, dtype=bool) | ~allowed
    np.testing.assert_array_equal(source_prices(more, allowed=allowed, own=own), expected)
    assert (expected.diagonal() == 1).all()


def test_no_edge_is_an_argument_for_itself():
    support = uneven()
    support[:, :2] = False
    support[3, 0] = True  # the only one of its source
    prices = source_prices(support)
    assert prices[3, 0] == prices[3, 1] > 1 and prices[4, 0] < prices[3, 0]


def test_sources_that_are_alike_tell_nothing():
    rng = np.random.default_rng(0)
    found = [source_prices(rng.random((80, 60)) < 0.03) is not None for _ in range(200)]
    assert np.mean(found) < 0.1  # one in twenty by chance
    every = np.ones((5, 5), dtype=bool)
    for support in (every, ~every, np.eye(5, dtype=bool)):
        assert source_prices(support) is None
    assert source_prices(~every, allowed=~every) is None
    assert source_prices(np.eye(5, dtype=bool), own=np.arange(5)) is None


def test_probabilities_beforehand_are_calibrated():
    rng = np.random.default_rng(0)
    rates = np.minimum(rng.gamma(0.25, 0.08, 3000), 0.4)
    support, later = (rng.random((100, 3000)) < rates for _ in range(2))
    prices = source_prices(support)
    probability = support.mean() ** prices
    edges = np.quantile(probability, [0.0, 0.5, 0.8, 0.9, 0.95, 0.99, 1.0])
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        some = (probability >= low) & (probability <= high)
        assert later[some].mean() == pytest.approx(probability[some].mean(), rel=0.1, abs=2e-3)


def test_a_price_multiplies_the_prior_of_the_criterion():
    given = {"n_rows": np.array(50.0), "n_sources": 10}
    base, flat = (ebic(np.array(0.2), np.array(3.0), gamma=gamma, **given) for gamma in (1.0, 0.0))
    dear = ebic(np.array(0.2), np.array(3.0), gamma=1.0, price=2.5, **given)
    assert dear - flat == pytest.approx(2.5 * (base - flat))


def linear(support, n_rows, noise, seed=0):
    """Rows of a linear field with these edges."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n_rows, support.shape[1]))
    effect = support * rng.choice([-1.0, 1.0], support.shape) * rng.uniform(0.4, 1.0, support.shape)
    return features, features @ effect.T + noise * rng.standard_normal((n_rows, len(support)))


def test_prices_of_one_change_nothing_and_high_ones_keep_out():
    features, slopes = linear(uneven(12, 20), 80, 0.3)
    plain, prices = select(features, slopes, alphas=ALPHAS), np.ones((12, 20))
    for one, other in zip(plain, select(features, slopes, alphas=ALPHAS, prices=prices), strict=True):
        if isinstance(one, np.ndarray):
            np.testing.assert_array_equal(one, other)
    strongest = np.abs(plain.coefficients).argmax(axis=1)
    edges = plain.support[np.arange(12), strongest]
    assert edges.any()
    prices[np.arange(12), strongest] = 1e3
    dear = select(features, slopes, alphas=ALPHAS, prices=prices)
    assert not dear.support[np.arange(12), strongest].any()
    assert (dear.scores[np.arange(12), strongest] < plain.scores[np.arange(12), strongest])[edges].all()
    twice = select(features, slopes, alphas=ALPHAS, prices=np.full((12, 20), 2.0))
    np.testing.assert_allclose(plain.alpha_max, 2 * twice.alpha_max)


def test_a_free_source_has_no_price():
    features, slopes = linear(uneven(12, 20), 80, 0.3)
    free = np.zeros((12, 20), dtype=bool)
    free[:, 0] = True
    dear = np.full((12, 20), 3.0)
    dear[:, 0] = 7.0
    other = dear.copy()
    other[:, 0] = 1.0
    first, second = (select(features, slopes, alphas=ALPHAS, free=free, prices=p) for p in (dear, other))
    np.testing.assert_array_equal(first.support, second.support)
    np.testing.assert_array_equal(first.scores, second.scores)


@pytest.mark.parametrize("n_functions", [2, 4])
def test_of_two_that_explain_as_much_the_cheaper_enters(n_functions):
    rng = np.random.default_rng(0)
    nodes = rng.standard_normal((200, 1, 6))
    nodes[..., 3] = nodes[..., 2] + 1e-3 * rng.standard_normal((200, 1))
    slopes = nodes[:, 0, 2:3] + 0.1 * rng.standard_normal((200, 1))
    rows = nodes, np.ones((200, 1)), slopes, np.ones(200)
    given = {"start": np.zeros((1, 6), bool), "scores": np.ones((1, 6)), "least": 0.005, "n_rows": np.array([100.0])}
    for cheap, dear in ((2, 3), (3, 2)):
        prices = np.ones((1, 6))
        prices[0, cheap], prices[0, dear] = 0.5, 2.0
        found = select_splines(*rows, n_functions=(n_functions,), prices=prices, **given)
        assert np.flatnonzero(found.support[0]).tolist() == [cheap]


def test_hubs_are_used_where_there_are_any():
    more, less = [], []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        support = rng.random((60, 60)) < np.where(np.arange(60) < 4, 0.35, 0.004)
        np.fill_diagonal(support, False)
        features, slopes = linear(support, 70, 1.0, seed)
        given = features[:, None], np.ones((70, 1)), slopes, np.ones(70)
        found = select_sources(*given, alphas=ALPHAS, own=np.arange(60))
        before = select(features, slopes, np.ones(70), alphas=ALPHAS)
        more.append(f1(found.support, support))
        less.append(f1(before.support, support))
        assert found.evidence is not None and (found.evidence[~found.support] == 0).all()
    assert np.mean(more) > np.mean(less) + 0.05


def test_where_sources_are_alike_nothing_changes():
    rng = np.random.default_rng(0)
    support = rng.random((40, 40)) < 0.05
    np.fill_diagonal(support, False)
    features, slopes = linear(support, 100, 0.5)
    found = select_sources(features[:, None], np.ones((100, 1)), slopes, np.ones(100), alphas=ALPHAS, own=np.arange(40))
    before = select(features, slopes, np.ones(100), alphas=ALPHAS)
    np.testing.assert_array_equal(found.support, before.support)
    np.testing.assert_array_equal(found.scores, before.scores)


def test_an_input_that_drives_all_is_no_hub_among_states():
    rng = np.random.default_rng(1)
    support = np.concatenate([rng.random((60, 60)) < 0.04, np.ones((60, 1), dtype=bool)], axis=1)
    peers = np.arange(61) < 60
    assert source_prices(support) is not None and source_prices(support, peers=peers) is None


def hub_rows():
    """Rows of a linear field with four hubs."""
    rng = np.random.default_rng(0)
    support = rng.random((60, 60)) < np.where(np.arange(60) < 4, 0.35, 0.004)
    np.fill_diagonal(support, False)
    features, slopes = linear(support, 70, 1.0)
    return support, (features[:, None], np.ones((70, 1)), slopes, np.ones(70))


def test_paths_and_strengths_are_those_without_prices():
    _, rows = hub_rows()
    found = select_sources(*rows, alphas=ALPHAS, own=np.arange(60))
    plain = select(rows[0][:, 0], rows[2], rows[3], alphas=ALPHAS)
    assert (found.support != plain.support).any()
    np.testing.assert_array_equal(found.alpha_max, plain.alpha_max)
    for one, other in zip(found.path, plain.path, strict=True):
        np.testing.assert_array_equal(one.toarray(), other.toarray())


def test_evidence_of_edges_knows_their_prices():
    support, (nodes, quadrature, slopes, weights) = hub_rows()
    given = {"support": support, "n_functions": 1, "n_rows": np.full(60, 35.0)}
    prices = source_prices(support)
    plain, priced = (edge_evidence(nodes, quadrature, slopes, weights, prices=p, **given) for p in (None, prices))
    alone = support.sum(axis=1) == 1
    rows, columns = np.nonzero(support & alone[:, None])
    # One source of sixty: the prior is 2 log 60 times the price.
    rise = (priced - plain)[rows, columns]
    np.testing.assert_allclose(rise, 2 * np.log(60) * (1 - prices[rows, columns]), atol=1e-9)
    assert (rise[columns < 4] > 0).all() and len(rise) > 3


def orthonormal(explained, prices):
    """A target with uncorrelated candidates that explain so much."""
    n = len(explained)
    gram = np.eye(n).reshape(n, 1, n, 1)
    cross = np.sqrt(np.array(explained))[:, None]
    return Target(gram, cross, np.ones(n, dtype=np.int64), 100, 60.0, np.array(prices))


@pytest.mark.parametrize("seed", range(30))
def test_the_exchange_ends_where_no_single_source_lowers_the_criterion(seed):
    rng = np.random.default_rng(seed)
    target = orthonormal(rng.dirichlet(np.ones(6)) * 0.9, rng.uniform(0.2, 2.0, 6))
    sources, value = target.exchange(rng.random(6) < 0.5, 1e-6, 6)
    criteria = {k: target.criterion(list(k), target.residual(list(k))) for k in subsets(6)}
    assert criteria[tuple(sorted(sources))] == pytest.approx(value, rel=1e-3)
    for k in range(6):
        other = tuple(sorted(set(sources) ^ {k}))
        assert criteria[other] >= value - 1e-3 * abs(value)


def test_a_dear_source_that_explains_little_goes_before_a_cheap_one_that_explains_less():
    target = orthonormal([0.30, 0.10, 0.11], [1.0, 0.2, 1.9])
    assert sorted(target.exchange(np.ones(3, dtype=bool), 0.001, 3)[0]) == [0, 1]


def test_a_cheap_source_that_explains_too_little_to_enter_holds_up_no_other():
    target = orthonormal([0.3, 0.3, 0.09, 0.12], [1.0, 1.0, 0.2, 1.3])
    assert sorted(target.exchange(np.zeros(4, dtype=bool), 0.05, 4)[0]) == [0, 1, 3]


def subsets(n):
    return [tuple(k for k in range(n) if number >> k & 1) for number in range(2**n)]


def f1(found, true):
    return 2 * (found & true).sum() / (found.sum() + true.sum())


def test_a_number_of_edges_is_sought_on_the_path_that_is_fitted():
    data = make_hill_network(64, 50, 6, dt=1.0, n_edges=130, hubs=1.0, noise=0.1, random_state=0)
    X, y, groups = from_trajectories(data.states, data.times)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = SparseNODERegressorCV(selection=200, random_state=0).fit(X, y, groups=groups)
    wanted = min(model.path_, key=lambda level: abs(level["n_edges"] - 200))
    assert (model.dependency_matrix_ > 0).sum() == pytest.approx(wanted["n_edges"], rel=0.1)
