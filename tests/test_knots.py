"""Rows at the knots of their trajectory."""

from __future__ import annotations

import numpy as np

from skode._knots import nearest_knot


def test_the_nearest_knot_is_the_one_that_a_table_of_distances_shows():
    rng = np.random.default_rng(0)
    knots = np.unique(rng.integers(0, 60, 25)).astype(float)
    times = np.concatenate([rng.uniform(-5, 65, 200), knots, 0.5 * (knots[1:] + knots[:-1])])
    expected = np.abs(times[:, None] - knots).argmin(axis=1)
    np.testing.assert_array_equal(nearest_knot(times, knots), expected)
    assert (nearest_knot(times, knots[:1]) == 0).all()
