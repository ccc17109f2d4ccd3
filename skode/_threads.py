"""How many threads a fit should wake."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from skode._problem import Problem
from skode.fields import AbstractField

ONE_THREAD = 50_000_000
"""Multiplications of the first matrix product up to which one thread is fastest."""


@contextmanager
def few_threads(field: AbstractField, problem: Problem, n_models: int) -> Iterator[None]:
    """Train small problems on one thread: to wake more costs longer than their matrix products take."""
    before = torch.get_num_threads()
    rows = 2 * problem.rows.slopes.shape[0]
    width = field.hidden[0] * (field.n_targets if field.per_target else 1)
    if rows * width * field.n_sources * n_models < ONE_THREAD:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
