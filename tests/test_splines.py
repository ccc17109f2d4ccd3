"""Exchange of sources with splines: closed forms, laws, and what lines get wrong."""

import numpy as np
import pytest
import scipy.sparse

from skode.convex import (
    EBIC_GAMMA,
    ebic,
    edge_evidence,
    row_means,
    select,
    select_sources,
    select_splines,
    spline_features,
    spread,
)

ALPHAS = np.geomspace(1.0, 0.005, 16)
HALF = np.full((1, 2), 0.5)


def rows(n=300, d=8, *, noise=0.01, seed=0, bent=True):
    """Two nodes per row; target 0 is a bend of sources 0 and 1, target 1 a line of 2 and 3. Source 4 follows 0."""
    rng = np.random.default_rng(seed)
    nodes = rng.standard_normal((n, 1, d)) + 0.2 * rng.standard_normal((n, 2, d))
    nodes[..., 4] = np.tanh(3 * nodes[..., 0]) + 0.1 * rng.standard_normal((n, 2))
    bend = (lambda z: np.maximum(z, 0.0) ** 2) if bent else (lambda z: z)
    slopes = np.stack([bend(nodes[..., 0]) - bend(nodes[..., 1]), nodes[..., 2] + nodes[..., 3]], axis=2).mean(axis=1)
    slopes = slopes + noise * slopes.std(axis=0) * rng.standard_normal(slopes.shape)
    return nodes, np.repeat(HALF, n, axis=0), slopes


def exchange(nodes, quadrature, slopes, *, weights=None, start=None, scores=None, least=0.005):
    w = np.ones(len(nodes)) if weights is None else weights
    shape = (slopes.shape[1], nodes.shape[2])
    return select_splines(
        nodes,
        quadrature,
        slopes,
        w,
        start=np.zeros(shape, bool) if start is None else start,
        scores=np.ones(shape) if scores is None else scores,
        least=least,
        n_rows=np.full(shape[0], 0.5 * len(nodes)),
    )


def sources(support):
    return [np.flatnonzero(row).tolist() for row in support]


@pytest.mark.parametrize("m", [1, 2, 4])
def test_functions_span_natural_splines_that_reproduce_lines(m):
    nodes, quadrature, _ = rows()
    found = spline_features(nodes, quadrature, m)
    assert found.values.shape == (300, 8, m) and (found.rank == m).all()
    mean = nodes.mean(axis=1) - nodes.mean(axis=(0, 1))
    for j in range(8):
        x = found.values[:, j]
        np.testing.assert_allclose(x.T @ x / len(x), np.eye(m), atol=1e-8)
        line = x @ np.linalg.lstsq(x, mean[:, j], rcond=None)[0]
        np.testing.assert_allclose(line, mean[:, j], atol=1e-7)


def test_two_values_and_none_have_fewer_functions():
    rng = np.random.default_rng(0)
    nodes = np.stack([rng.integers(0, 2, (60, 1)), np.ones((60, 1)), rng.standard_normal((60, 1))], axis=2)
    found = spline_features(nodes.astype(float), np.ones((60, 1)), 4)
    assert found.rank.tolist() == [1, 0, 4]
    assert np.isfinite(found.values).all() and not found.values[:, 1].any()


def test_lines_explain_a_bend_by_what_goes_with_it_and_splines_do_not():
    nodes, quadrature, slopes = rows()
    lasso = select(nodes.mean(axis=1), slopes, alphas=ALPHAS)
    found = select_sources(nodes, quadrature, slopes, np.ones(len(nodes)), alphas=ALPHAS)
    assert lasso.support[0, 4] or not lasso.support[0, :2].all()
    assert sources(found.support) == [[0, 1], [2, 3]]


def test_coefficients_are_those_of_least_squares_on_the_new_support():
    nodes, quadrature, slopes = rows()
    w = np.random.default_rng(1).uniform(0.5, 1.5, len(nodes))
    found = select_sources(nodes, quadrature, slopes, w, alphas=ALPHAS)
    for i, row in enumerate(found.support):
        x = np.column_stack([nodes.mean(axis=1)[:, row], np.ones(len(nodes))])
        beta, *_ = np.linalg.lstsq(np.sqrt(w)[:, None] * x, np.sqrt(w) * slopes[:, i], rcond=None)
        np.testing.assert_allclose(np.append(found.coefficients[i, row], found.intercepts[i]), beta, atol=1e-6)
        left = slopes[:, i] - x @ beta
        spread = slopes[:, i] - np.average(slopes[:, i], weights=w)
        assert found.residual[i] == pytest.approx((w @ left**2) / (w @ spread**2), rel=1e-5)


def test_lines_that_do_as_well_keep_their_sources():
    nodes, quadrature, slopes = rows(bent=False, noise=0.5)
    start = np.zeros((2, 8), bool)
    start[0, [0, 5]] = start[1, 2] = True
    found = exchange(nodes, quadrature, slopes, start=start)
    assert found.n_functions > 1  # a wrong start of lines does worse than any splines
    start[0, [0, 1]], start[0, 5], start[1, 3] = True, False, True
    found = exchange(nodes, quadrature, slopes, start=start)
    assert found.n_functions == 1 and (found.support == start).all()


@pytest.mark.parametrize(("known", "share"), [(0.0, 0.5), (1.0, 1.0), (0.6, 1 / 1.4)])
def test_rows_count_by_the_share_of_noise_in_what_is_left(known, share):
    nodes, quadrature, slopes = rows(bent=False, noise=1.0)
    w = np.ones(len(nodes))
    first = select(nodes.mean(axis=1), slopes, alphas=ALPHAS)
    left = first.residual * slopes.var(axis=0)
    found = select_sources(nodes, quadrature, slopes, w, alphas=ALPHAS, noise=known * left)
    expected = select(nodes.mean(axis=1), slopes, w, alphas=ALPHAS, n_rows=share * len(nodes))
    assert (found.support == expected.support).all()


def test_the_support_is_a_minimum_of_the_criterion_among_its_neighbours():
    nodes, quadrature, slopes = rows(noise=0.3, seed=3)
    found = exchange(nodes, quadrature, slopes, least=0.0)
    x = spline_features(nodes, quadrature, found.n_functions).values

    def criterion(target, chosen):
        z = x[:, chosen].reshape(len(x), -1)
        y = slopes[:, target] - slopes[:, target].mean()
        z = z - z.mean(axis=0)
        left = y - z @ np.linalg.lstsq(z, y, rcond=None)[0] if len(chosen) else y
        n, k = 0.5 * len(x), len(chosen)
        value = ebic(np.array(left @ left / (y @ y)), np.array(k), n_rows=np.array(n), n_sources=8, gamma=EBIC_GAMMA)
        return value + k * (found.n_functions - 1) * np.log(n)

    for target, chosen in enumerate(sources(found.support)):
        here = criterion(target, chosen)
        assert all(criterion(target, [j for j in chosen if j != out]) > here for out in chosen)
        assert all(criterion(target, [*chosen, new]) > here for new in set(range(8)) - set(chosen))


def test_only_what_is_ranked_may_enter():
    nodes, quadrature, slopes = rows()
    scores = np.ones((2, 8))
    scores[0, 1] = scores[1, 2] = 0.0
    found = exchange(nodes, quadrature, slopes, scores=scores)
    assert not found.support[0, 1] and not found.support[1, 2]


def test_what_explains_too_little_goes():
    nodes, quadrature, slopes = rows(noise=0.0)
    slopes[:, 0] += 0.03 * slopes[:, 0].std() * nodes[..., 6].mean(axis=1)
    scores = np.ones((2, 8))
    scores[0, [2, 3, 4, 5, 7]] = 0.0
    assert exchange(nodes, quadrature, slopes, least=0.0, scores=scores).support[0, 6]
    assert sources(exchange(nodes, quadrature, slopes, scores=scores).support)[0] == [0, 1]


def test_weights_are_repetitions_and_targets_do_not_meet():
    nodes, quadrature, slopes = rows(n=120)
    whole = np.random.default_rng(2).integers(1, 3, 120)
    repeated = np.repeat(np.arange(120), whole)
    n_rows = {"weights": np.column_stack([whole, np.ones(120)]).astype(float)}
    both = exchange(nodes, quadrature, slopes, **n_rows)
    alone = exchange(nodes, quadrature, slopes[:, 1:], weights=np.ones(120))
    assert (both.support[1] == alone.support[0]).all()
    assert (
        sources(both.support)[0]
        == sources(exchange(nodes[repeated], quadrature[repeated], slopes[repeated]).support)[0]
    )


def test_permuting_sources_and_scaling_change_nothing():
    nodes, quadrature, slopes = rows(noise=0.2)
    order = np.random.default_rng(5).permutation(8)
    one = exchange(nodes, quadrature, slopes)
    two = exchange(7.0 * nodes[..., order] + 3.0, quadrature, -2.0 * slopes)
    assert one.n_functions == two.n_functions and (one.support[:, order] == two.support).all()


def test_evidence_is_what_the_criterion_rises_by_without_the_edge():
    nodes, quadrature, slopes = rows(bent=False, noise=0.5)
    support = np.zeros((2, 8), bool)
    support[0, [0, 1, 5]] = support[1, 2] = True
    n_rows = np.array([150.0, 90.0])
    got = edge_evidence(nodes, quadrature, slopes, np.ones(300), support=support, n_functions=1, n_rows=n_rows)

    def criterion(target, chosen):
        x = np.column_stack([nodes.mean(axis=1)[:, chosen], np.ones(300)])
        left = slopes[:, target] - x @ np.linalg.lstsq(x, slopes[:, target], rcond=None)[0]
        share = left @ left / (300 * slopes[:, target].var())
        return ebic(share, len(chosen), n_rows=n_rows[target], n_sources=8, gamma=EBIC_GAMMA)

    assert not got[~support].any() and got[0, 5] < 0 < got[0, 0]
    for target, source in zip(*np.nonzero(support), strict=True):
        every = np.flatnonzero(support[target])
        expected = criterion(target, every[every != source]) - criterion(target, every)
        np.testing.assert_allclose(got[target, source], expected, rtol=1e-6)


def test_mixed_rows_are_the_same_as_rows_that_were_mixed_before():
    rng = np.random.default_rng(11)
    nodes, quadrature = rng.standard_normal((12, 3, 4)), rng.dirichlet(np.ones(3), 12)
    mix = scipy.sparse.csr_array(np.tril(rng.random((12, 12))))
    np.testing.assert_allclose(row_means(nodes, spread(quadrature)), row_means(nodes, quadrature))
    np.testing.assert_allclose(row_means(nodes, mix @ spread(quadrature)), mix @ row_means(nodes, quadrature))
    for m in (1, 2, 4):
        same, dense = (spline_features(nodes, q, m).values for q in (spread(quadrature), quadrature))
        np.testing.assert_allclose(same, dense, atol=1e-9)


def test_a_choice_that_sets_out_from_its_own_end_stays():
    rng = np.random.default_rng(12)
    features = rng.standard_normal((300, 20))
    slopes = features[:, :6] @ np.triu(rng.standard_normal((6, 6))) + 0.5 * rng.standard_normal((300, 6))
    rows = features[:, None], np.ones((300, 1)), slopes, np.ones(300)
    noise = np.full(6, 0.25)
    first = select_sources(*rows, alphas=ALPHAS, noise=noise)
    again = select_sources(*rows, alphas=ALPHAS, noise=noise, known=first.known)
    np.testing.assert_array_equal(again.support, first.support)
    np.testing.assert_allclose(again.coefficients, first.coefficients)
    np.testing.assert_allclose(again.known.n_rows, first.known.n_rows)
    assert first.known.n_functions == 1
    assert (first.known.n_rows > 0.9 * 300).all()
