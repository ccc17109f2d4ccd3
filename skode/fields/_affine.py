"""An affine map of samples that lie on the last axis, for one set of samples or one per model."""

from __future__ import annotations

from copy import copy

import torch


class Affine:
    """Matrix times z, plus bias; models that share their samples are one matrix product.

    Parameters
    ----------
    matrix : tensor  # (model, row, source)
    bias : tensor or None  # (model, row)
    """

    def __init__(self, matrix: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        self.matrix, self.transposed = matrix, matrix.mT
        self.all_rows = matrix.flatten(0, 1)  # (model * row, source)
        self.shape = matrix.shape
        # Without a bias nothing is added: beta = 0 does not even read the bias.
        self.beta = 0.0 if bias is None else 1.0
        bias = matrix.new_zeros(matrix.shape[:2]) if bias is None else bias
        self.bias, self.all_bias = bias.unsqueeze(-1), bias.reshape(-1, 1)

    def __call__(self, z: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """(model | 1, source, sample) to (model, row, sample); of shared samples into ``out`` (model * row, sample)."""
        if z.shape[0] > 1:
            return torch.baddbmm(self.bias, self.matrix, z, beta=self.beta)
        product = torch.addmm(self.all_bias, self.all_rows, z[0], beta=self.beta, out=out)
        return product.view(self.shape[0], self.shape[1], -1)

    def rows(self, some: slice) -> Affine:
        """Some of the rows of all models, as those of one."""
        part = copy(self)
        part.all_rows, part.all_bias = self.all_rows[some], self.all_bias[some]
        part.matrix, part.bias = part.all_rows.unsqueeze(0), part.all_bias.unsqueeze(0)
        part.transposed, part.shape = part.matrix.mT, part.matrix.shape
        return part

    def pull(self, delta: torch.Tensor) -> torch.Tensor:
        """Gradient by z.  # (model, source, sample)"""
        return torch.bmm(self.transposed, delta)

    def weight_gradient(self, delta: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Gradient by the matrix: the sum over samples of delta z'.  # (model, row, source)"""
        # This order of the factors is the fast one for few sources and many samples.
        if z.shape[0] > 1:
            return torch.bmm(z, delta.mT).mT
        return (z[0] @ delta.flatten(0, 1).mT).mT.view(self.shape)


def bias_gradient(delta: torch.Tensor) -> torch.Tensor:
    """Gradient by the bias: the sum over samples.  # (model, row)"""
    return delta.sum(dim=-1)
