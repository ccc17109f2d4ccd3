"""Many sets of sources at once: known laws are found again, and what helps is seen before it is fitted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skode._amounts import Amounts
from skode._curve_fits import SEARCHED, STEPS, Candidate, CurveFits, curve_prices, hill_field
from skode._curve_search import CurveSearch
from skode.fields import PackedField
from skode.objectives import Rows

D = 6
N, K = {1: 3.0, 2: 2.5, 4: 2.0}, {1: 0.8, 2: 1.2, 4: 1.0}


def curve(x, j):
    return x[..., j] ** N[j] / (x[..., j] ** N[j] + K[j] ** N[j])


def rows_of(n=300, noise=0.0, seed=0):
    """Target 0 needs 1 and 2 together and decays; target 3 is repressed by 4; the others are constant."""
    draw = np.random.default_rng(seed)
    x = draw.uniform(0.1, 2.0, (n, 2, D))
    slopes = np.zeros((n, D))
    slopes[:, 0] = (2.0 * curve(x, 1) * curve(x, 2) - x[..., 0]).mean(1)
    slopes[:, 3] = (1.0 - curve(x, 4)).mean(1)
    slopes += noise * draw.standard_normal(slopes.shape)
    arrays = x - 1.0, np.full((n, 2), 0.5), slopes, np.ones((n, D))
    return Rows(*(torch.as_tensor(array) for array in arrays))


def fits_of(rows, weight_decay=1e-9):
    like = PackedField(D, D, (4,), "tanh", tuple(range(D)), parents=tuple((i,) for i in range(D)))
    field = hill_field(like, Amounts(np.ones(D), np.ones(D)), [()] * D)
    variance = rows.slopes.square().mean(0).clamp_min(1e-12)
    return CurveFits(field, rows, variance, curve_prices(weight_decay)[SEARCHED])


def test_the_law_is_found_again():
    (fit,) = fits_of(rows_of()).fit([Candidate(0, (0, 1, 2), {})], 60)
    assert fit.loss < 1e-6
    for source in (1, 2):
        steepness, middle = fit.bends[source]
        assert 2 * np.exp(steepness) == pytest.approx(N[source], rel=0.02)
        assert np.exp(middle) == pytest.approx(K[source], rel=0.02)


def test_candidates_in_a_batch_are_fitted_as_they_are_alone():
    fits = fits_of(rows_of(noise=0.1), 1e-3)
    some = [
        Candidate(0, (0, 1), {}),
        Candidate(3, (4,), {4: (0.2, -0.1)}),
        Candidate(0, (0, 5), {}),
        Candidate(1, (), {}),
    ]
    for one, fit in zip(some, fits.fit(some, STEPS), strict=True):
        (alone,) = fits.fit([one], STEPS)
        assert fit.target == one.target and fit.parents == one.parents
        assert fit.loss == pytest.approx(alone.loss, rel=1e-6)
        assert fit.n_determined == pytest.approx(alone.n_determined, rel=1e-4)


def test_losses_are_sums_of_squares_over_rows():
    fits = fits_of(rows_of(noise=0.1), 1e-3)
    found = fits.fit([Candidate(0, (0, 1, 2), {}), Candidate(3, (4,), {})], STEPS)
    squares = fits.squares(found)
    np.testing.assert_allclose(squares.sum(1).numpy(), [fit.loss for fit in found], rtol=1e-9)
    other = fits_of(rows_of(noise=0.1, seed=1), 1e-3)
    assert 0.5 < float(other.squares(found)[0].sum()) / found[0].loss < 2.0


def test_parameters_that_prices_hold_are_not_determined():
    free, dear = (
        fits_of(rows_of(noise=0.1), price).fit([Candidate(0, (0, 1, 2), {})], STEPS)[0] for price in (1e-9, 1e3)
    )
    assert free.n_determined == pytest.approx(1 + 1 + 3 + 4, abs=0.5)  # line, constant, heights, bends
    assert dear.n_determined < 3


def test_a_partner_is_promising_beside_what_it_acts_with():
    fits = fits_of(rows_of(noise=0.1), 1e-3)
    alone, beside = fits.fit([Candidate(3, (), {}), Candidate(0, (0, 1), {})], STEPS)
    assert fits.promising(alone, [0, 1, 2, 4, 5], 1) == [4]
    assert fits.promising(beside, [2, 3, 4, 5], 2)[0] == 2
    assert fits.promising(beside, [], 3) == []


@pytest.fixture(scope="module")
def search():
    rows = rows_of(noise=0.15)
    yes = np.ones((D, D), dtype=bool)
    return CurveSearch(fits_of(rows, 1e-3), np.full(D, 300.0), yes, ~yes)


def test_a_search_finds_the_sources_from_wherever_it_begins(search):
    for starts in ([(0, [0]), (3, [3])], [(0, [3, 4, 5]), (3, [0, 1, 2])], [(0, []), (0, [4]), (3, [5])]):
        found = {fit.target: fit.parents for fit in search.run(starts)}
        assert found == {0: (0, 1, 2), 3: (4,)}


def test_what_is_forbidden_is_not_read_and_what_is_required_is(search):
    allowed, required = search.allowed.copy(), search.required.copy()
    allowed[0, 2], required[3, 1] = False, True
    bound = CurveSearch(search.fits, search.n_data, allowed, required)
    found = {fit.target: fit.parents for fit in bound.run([(0, [0, 2]), (3, [4])])}
    assert 2 not in found[0] and found[3] == (1, 4)


def test_the_criterion_is_what_it_says(search):
    (fit,) = search.fits.fit([Candidate(0, (0, 1, 2), {})], STEPS)
    by_hand = 300 * np.log(fit.loss) + fit.n_determined * np.log(300) + 2 * np.log(10)  # 5 over 2
    assert search.criterion(fit) == pytest.approx(by_hand)
