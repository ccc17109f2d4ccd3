"""The few types that every layer shares."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
AnyArray: TypeAlias = npt.NDArray[Any]

MANY_PAIRS = 2000**2
"""Pairs of variables beyond which their dense ranking is kept in single precision: places, not values, are read."""


def ranking_type(shape: tuple[int, ...]) -> np.dtype[Any]:
    """Type of the entries of a dense ranking of all pairs.

    Parameters
    ----------
    shape : tuple of int
        (target, source).

    Returns
    -------
    dtype
        float64; float32 beyond 2000 x 2000 pairs.

    Examples
    --------
    >>> ranking_type((2000, 2000)).name, ranking_type((2000, 2001)).name
    ('float64', 'float32')
    """
    return np.dtype(np.float32 if math.prod(shape) > MANY_PAIRS else np.float64)


Weights: TypeAlias = dict[str, torch.Tensor]
"""Named parameter tensors; the first axis of each is the model axis."""
