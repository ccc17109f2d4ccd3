"""Work on several threads gives what one thread gives, and leaves the number of threads alone."""

from __future__ import annotations

import pytest
import torch

from skode._parallel import on_threads


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_answers_come_in_order_and_the_number_of_threads_stays(threads, n):
    threads(n)
    assert on_threads(lambda k: k**2, range(10)) == [k**2 for k in range(10)]
    assert torch.get_num_threads() == n


def test_every_thread_computes_on_one(threads):
    threads(2)
    assert on_threads(lambda _: torch.get_num_threads(), range(4)) == [1] * 4


def test_errors_pass_and_the_number_of_threads_comes_back(threads):
    threads(2)

    def fail(k):
        raise MemoryError(str(k))

    with pytest.raises(MemoryError):
        on_threads(fail, range(3))
    assert torch.get_num_threads() == 2
