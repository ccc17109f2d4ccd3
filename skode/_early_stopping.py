"""Early stopping: which of the parameters that a solver passed did best on held-out data, and when to give up."""

from __future__ import annotations

from collections.abc import Callable

import torch

from skode._typing import Weights

Validate = Callable[[Weights], torch.Tensor]
"""(params) -> held-out loss per model, or parts whose mean it is  # (model,) or (model, part)"""


class Best:
    """The parameters with the lowest held-out loss so far, model by model.

    Parameters
    ----------
    vector : tensor  # (model, entry)
    patience : int, optional
        Offers in a row that may bring nothing before a model is done.
    """

    def __init__(self, vector: torch.Tensor, patience: int | None = None) -> None:
        self.vector = vector.detach().clone()
        self.loss = torch.full_like(vector[:, 0], torch.inf)
        self.parts: torch.Tensor | None = None  # (model, part), of the best
        self.patience = patience
        self.waited = torch.zeros(len(vector), dtype=torch.long, device=vector.device)

    def offer(self, vector: torch.Tensor, loss: torch.Tensor) -> None:
        """Keep those models of ``vector`` whose loss is lower than any before; changes this object.

        Parameters
        ----------
        vector : tensor  # (model, entry)
        loss : tensor  # (model,) or (model, part)
        """
        total = loss.mean(1) if loss.ndim == 2 else loss
        better = total < self.loss
        self.vector[better] = vector.detach()[better]
        self.loss[better] = total[better].to(self.loss.dtype)
        self.waited = torch.where(better, 0, self.waited + 1)
        if loss.ndim == 2:
            before = torch.full_like(loss, torch.inf) if self.parts is None else self.parts
            self.parts = torch.where(better[:, None], loss, before)

    def end(self, vector: torch.Tensor, loss: torch.Tensor) -> torch.Tensor:
        """The last parameters of models whose best were not lower by more than a standard error; else the best.

        With parts, that is: a few held-out parts single out a check by chance, and training longer helps as a rule.
        Without them the best win.

        Parameters
        ----------
        vector : tensor  # (model, entry)
        loss : tensor  # (model,) or (model, part)

        Returns
        -------
        tensor  # (model, entry)
        """
        self.offer(vector, loss)
        if self.parts is None:
            return self.vector
        rise = loss - self.parts
        n_parts = rise.shape[1]
        if n_parts < 2:
            return self.vector
        level = rise.mean(1) <= rise.std(1) / n_parts**0.5  # False where all failed
        return torch.where(level[:, None], vector, self.vector)

    @property
    def done(self) -> torch.Tensor:
        """Models that have waited too long.  # (model,) bool"""
        return self.waited >= (torch.iinfo(torch.long).max if self.patience is None else self.patience)
