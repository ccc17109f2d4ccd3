"""Which variables move at all: constants with white noise are told from slow movement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.fft
import scipy.special

from skode._strength import Piece
from skode._typing import BoolArray, FloatArray

CONSTANT_TOLERANCE = 1e-12  # of the largest absolute value of the variable
LEVEL = 0.01  # probability that white noise is taken for movement
FREQUENCIES = (0.0, 1 / 16, 1 / 8, 1 / 4, 1 / 2)  # where "slow" ends, as a fraction of the highest frequency


def moving(pieces: Sequence[Piece], n_variables: int) -> tuple[BoolArray, FloatArray]:
    """Test every variable against constants; return (moves, noise about the constants), each (d,)."""
    size, deviation, total, count = np.zeros((4, n_variables))
    slow, n_slow = np.zeros((2, len(FREQUENCIES), n_variables))
    for piece in pieces:
        v, n = piece.variables, len(piece.knots)
        centred = piece.values - piece.values[0]
        centred -= np.average(centred, axis=0, weights=piece.weights)
        size[v] = np.maximum(size[v], np.abs(piece.values).max(axis=0))
        deviation[v] = np.maximum(deviation[v], np.abs(centred).max(axis=0))
        power = scipy.fft.dct(np.sqrt(piece.weights)[:, None] * centred, axis=0, norm="ortho")[1:] ** 2
        total[v] += power.sum(axis=0)
        count[v] += n - 1
        for row, frequency in enumerate(FREQUENCIES):
            last = min(max(1, int(frequency * n)), n - 1)
            slow[row, v] += power[:last].sum(axis=0)
            n_slow[row, v] += last
    n_fast = count - n_slow
    fast = np.maximum(total - slow, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = (slow / n_slow) / (fast / n_fast)
        upper = scipy.special.fdtrc(n_slow, n_fast, ratio)
        lower = scipy.special.fdtrc(n_fast, n_slow, 1.0 / ratio)
        p_value = np.minimum(upper, lower)
        constant_noise = np.sqrt(total / count)
    testable = n_fast > 0
    p_value = np.where(testable & ~np.isnan(p_value), p_value, np.where(testable, 0.0, 1.0)).min(axis=0)
    n_tests = 2 * np.maximum(testable.sum(axis=0), 1)
    moves = (p_value * n_tests < LEVEL) | ~testable.any(axis=0)
    return np.asarray(moves & (deviation > CONSTANT_TOLERANCE * size)), constant_noise
