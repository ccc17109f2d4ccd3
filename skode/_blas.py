"""Small linear algebra on one thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep BLAS on one thread: for matrices of a few hundred rows threads wait longer for each other than they work.

    On a machine that others use as well they wait a thousand times longer. Serves as a decorator, too.
    """
    with _controller().limit(limits=1, user_api="blas"):
        yield


@cache
def _controller() -> ThreadpoolController:
    """Find the libraries once; looking for them takes longer than most of what runs inside."""
    return ThreadpoolController()
