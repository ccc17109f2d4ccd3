"""Choosing terms: all subsets as an oracle, and laws that are there."""

from __future__ import annotations

from itertools import combinations
from math import comb, log

import numpy as np
import pytest

from skode._term_search import TermSearch


def problem(seed, n=60, p=8, noise=1.0):
    """Correlated terms, three of which make the data."""
    draw = np.random.default_rng(seed)
    design = draw.normal(size=(n, p)) @ (np.eye(p) + 0.4 * draw.normal(size=(p, p)))
    truth = np.zeros(p)
    truth[draw.choice(p, 3, replace=False)] = [1.5, -1.0, 0.8]
    data = design @ truth + noise * draw.normal(size=n)
    return design, data, truth


def search_of(design, data):
    return TermSearch(design.T @ design, design.T @ data, float(data @ data), len(data))


@pytest.mark.parametrize("seed", range(6))
def test_the_best_of_all_subsets_is_found(seed):
    design, data, _ = problem(seed)
    search = search_of(design, data)

    def criterion(some):
        left = data - design[:, some] @ np.linalg.lstsq(design[:, some], data, rcond=None)[0] if some else data
        n, k = len(data), len(some)
        return n * log(left @ left) + k * log(n) + 2 * log(comb(8, k))

    best = min((list(some) for k in range(9) for some in combinations(range(8), k)), key=criterion)
    assert search.run() == best
    assert search.run([0, 5]) == best
    found = search.coefficients(best)
    np.testing.assert_allclose(found, np.linalg.lstsq(design[:, best], data, rcond=None)[0], rtol=1e-6)
    left = data - design[:, best] @ found
    assert search.criterion(float(left @ left), len(best)) == pytest.approx(criterion(best), rel=1e-9)


def test_a_law_is_found_among_many_terms():
    design, data, truth = problem(1, n=400, p=120, noise=0.3)
    assert search_of(design, data).run() == np.flatnonzero(truth).tolist()


def test_nothing_is_found_in_noise():
    draw = np.random.default_rng(0)
    assert search_of(draw.normal(size=(200, 30)), draw.normal(size=200)).run() == []


def test_two_terms_that_only_explain_together_are_found():
    """Each alone has no product with the data; their difference is all of it."""
    draw = np.random.default_rng(2)
    shared, data = draw.normal(size=(2, 300))
    shared -= data * (shared @ data) / (data @ data)
    a, b = 10 * shared + 0.5 * data, 10 * shared - 0.5 * data
    design = np.column_stack([draw.normal(size=(300, 6)), a, b])
    noisy = data + 0.05 * draw.normal(size=300)
    assert search_of(design, noisy).run([]) == [6, 7]


def test_a_term_that_others_make_up_does_not_come_in():
    design, data, truth = problem(3, n=200)
    twice = np.column_stack([design, design[:, np.flatnonzero(truth)[0]] * 3.0])
    found = search_of(twice, data).run()
    assert len(found) == 3
