"""What differs between models that are trained together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skode._typing import FloatArray, IntArray


@dataclass(frozen=True)
class Batch:
    """One entry per model that is trained at once on the same data.

    Parameters
    ----------
    alphas : array (model,)
        Strength of the penalty.
    seeds : array (model,) of int
        Where the initial weights come from.
    """

    alphas: FloatArray
    seeds: IntArray

    @classmethod
    def single(cls, alpha: float, seed: int) -> Batch:
        """A batch of one model."""
        return cls(np.array([alpha]), np.array([seed]))

    @classmethod
    def grid(cls, alphas: FloatArray, seeds: IntArray) -> Batch:
        """Every strength with every seed; the strength runs fastest."""
        return cls(np.tile(alphas, len(seeds)), np.repeat(seeds, len(alphas)))

    @property
    def n_models(self) -> int:
        """Length of the model axis."""
        return len(self.alphas)
