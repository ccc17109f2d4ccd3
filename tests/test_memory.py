"""Freed memory goes back where the C library can give it, and nothing happens elsewhere."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from skode import _memory


@pytest.fixture(autouse=True)
def fresh():
    trim = _memory._trim
    trim.cache_clear()
    yield
    trim.cache_clear()


def test_all_that_is_free_is_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(_memory, "_trim", lambda: asked.append)
    _memory.release()
    assert asked == [0]  # bytes that may stay at the end of the heap


def test_what_is_in_use_stays():
    values = np.arange(1e6)
    _memory.release()
    np.testing.assert_array_equal(values, np.arange(1e6))


@pytest.mark.parametrize("error", [TypeError, OSError, AttributeError])
def test_other_c_libraries_are_left_alone(monkeypatch, error):
    def refuse(name):
        raise error(str(name))

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert _memory._trim() is None
    _memory.release()
