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
        self.n_lost = torch.full_like(self.loss, torch.inf)  # (model,), parts without a finite loss, of the best
        self.parts: torch.Tensor | None = None  # (model, part), of the best
        self.patience = patience
        self.waited = torch.zeros(len(vector), dtype=torch.long, device=vector.device)

    def offer(self, vector: torch.Tensor, loss: torch.Tensor) -> None:
        """Keep those models of ``vector`` whose loss is lower than any before; changes this object.

        Of two that are not finite in some of their parts, the one with fewer of these is lower; of those with as many,
        the others tell.

        Parameters
        ----------
        vector : tensor  # (model, entry)
        loss : tensor  # (model,) or (model, part)
        """
        parts = loss.unsqueeze(1) if loss.ndim == 1 else loss
        fine = parts.isfinite()
        n_lost = (~fine).sum(1).to(self.n_lost.dtype)
        total = torch.where(fine, parts, 0.0).sum(1) / fine.sum(1)  # nan where nothing is finite
        better = (n_lost < self.n_lost) & fine.any(1) | (n_lost == self.n_lost) & (total < self.loss)
        self.vector[better] = vector.detach()[better]
        self.loss[better], self.n_lost[better] = total[better].to(self.loss.dtype), n_lost[better]
        self.waited = torch.where(better, 0, self.waited + 1)
        if loss.ndim == 2:
            before = torch.full_like(loss, torch.inf) if self.parts is None else self.parts
            self.parts = torch.where(better[:, None], loss, before)

    def end(self, vector: torch.Tensor, loss: torch.Tensor) -> torch.Tensor:
        """The last parameters of models whose best were not lower by more than a standard error; else the best.

        With parts, that is: a few held-out parts single out a check by chance, and training longer helps as a rule.
        Without them the best win, and so they do where the last have a finite loss in fewer parts.

        Parameters
        ----------
        vector : tensor  # (model, entry)
        loss : tensor  # (model,) or (model, part)

        Returns
        -------
        tensor  # (model, entry)
        """
        self.offer(vector, loss)
        if self.parts is None or loss.shape[1] < 2:
            return self.vector
        both = loss.isfinite() & self.parts.isfinite()
        n = both.sum(1)
        rise = torch.where(both, loss - self.parts, 0.0)
        mean = rise.sum(1) / n
        spread = (torch.where(both, rise - mean[:, None], 0.0).square().sum(1) / (n - 1)).sqrt()
        level = (n > 1) & (mean <= spread / n**0.5) & ((~loss.isfinite()).sum(1) <= self.n_lost)
        return torch.where(level[:, None], vector, self.vector)

    @property
    def done(self) -> torch.Tensor:
        """Models that have waited too long.  # (model,) bool"""
        return self.waited >= (torch.iinfo(torch.long).max if self.patience is None else self.patience)
