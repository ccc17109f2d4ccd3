"""Rows of X tied to their distinct starts."""

from __future__ import annotations

import numpy as np
import pytest

from skode._questions import distinct_rows


@pytest.mark.parametrize("n_rows", [1, 2, 200_000])
@pytest.mark.parametrize("sort", [False, True])
def test_distinct_rows_are_those_of_numpy(n_rows: int, sort: bool) -> None:
    table = np.random.default_rng(0).integers(0, 3, (n_rows, 4)).astype(float)
    table = table[np.lexsort(table.T)] if sort else table
    distinct, index = distinct_rows(table)
    expected, places = np.unique(table, axis=0, return_inverse=True)
    np.testing.assert_array_equal(distinct, expected)
    np.testing.assert_array_equal(index, places.reshape(-1))


def test_rows_that_are_all_the_same_are_one() -> None:
    distinct, index = distinct_rows(np.full((70_000, 2), 3.0))
    np.testing.assert_array_equal(distinct, [[3.0, 3.0]])
    assert not index.any() and len(index) == 70_000
