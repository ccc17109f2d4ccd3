"""Independent pieces of work on as many threads as torch may use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

from skode._blas import one_blas_thread

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def on_threads(work: Callable[[Item], Answer], items: Iterable[Item]) -> list[Answer]:
    """Do the same work on every item, several at a time, in the order of the items.

    Small matrix products and elementwise passes do not fill more than one thread each; pieces that know nothing of
    each other do. There are as many threads as ``torch.get_num_threads()`` says, so limits by
    ``torch.set_num_threads``, ``OMP_NUM_THREADS`` or joblib hold; each of them computes on one thread. Answers do not
    depend on how many there are.

    Parameters
    ----------
    work : callable
        Item to answer. Must change nothing that the work on another item reads.
    items : iterable

    Returns
    -------
    list
    """
    listed, allowed = list(items), torch.get_num_threads()
    if min(allowed, len(listed)) < 2:
        return [work(item) for item in listed]
    torch.set_num_threads(1)
    try:
        with (
            one_blas_thread(),
            ThreadPoolExecutor(min(allowed, len(listed)), initializer=torch.set_num_threads, initargs=(1,)) as pool,
        ):
            return list(pool.map(work, listed))
    finally:
        torch.set_num_threads(allowed)


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Keep torch on one thread: where operations are many and small, threads wait for each other at the end of each."""
    allowed = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(allowed)
