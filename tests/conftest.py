"""What every test needs before it starts."""

from __future__ import annotations

import os

os.environ.setdefault(
    "SCIPY_ARRAY_API", "1"
)  # read when scipy is first imported; scikit-learn's array-API checks need it

import pytest
import torch


def pytest_configure():
    torch.set_num_threads(1)  # problems of this size are slower on two threads, and tests run side by side


def pytest_collection_modifyitems(items):
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs CUDA"))
