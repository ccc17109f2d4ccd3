"""Optimisers that see callables and tensors, and know nothing of differential equations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from skode._early_stopping import Best, Validate
from skode._typing import Weights

Loss = Callable[[Weights, int], torch.Tensor]
"""(params, iteration) -> loss per model  # (model,)"""
Prox = Callable[[Weights, Weights], None]
"""(params, metric) -> None; changes params in place. metric: inverse step per entry."""


class Solved(NamedTuple):
    """What an optimiser hands back."""

    params: Weights
    losses: torch.Tensor  # (check, model), loss at regular checks
    converged: torch.Tensor  # (model,) bool
    failed: torch.Tensor  # (model,) bool
    n_iter: int


class Flat:
    """Parameters of all models in one (model, entry) tensor, seen as named views.

    Parameters
    ----------
    params : dict of tensors  # (model, ...)
    """

    def __init__(self, params: Weights) -> None:
        self.names = list(params)
        self.shapes = [params[name].shape for name in self.names]
        self.sizes = [shape[1:].numel() for shape in self.shapes]
        self.vector = self.ravel(list(params.values()))

    def ravel(self, tensors: list[torch.Tensor]) -> torch.Tensor:
        """Concatenate tensors in the order of the names, giving (model, entry)."""
        return torch.cat([tensor.detach().flatten(1) for tensor in tensors], dim=1)

    def factors(self, of: Callable[[str], float | torch.Tensor]) -> torch.Tensor:
        """A number for every entry, by the name it belongs to; tensors broadcast.  # (model, entry)"""
        like = self.vector
        values = [torch.as_tensor(of(name), dtype=like.dtype, device=like.device) for name in self.names]
        return self.ravel([value.expand(len(like), *s[1:]) for value, s in zip(values, self.shapes, strict=True)])

    def free(self, masks: Weights) -> torch.Tensor | None:
        """Where entries may move; names without a mask may.  # (model | 1, entry), None if all may"""
        some = [masks.get(name, torch.ones_like(view)) for name, view in self.views(self.vector).items()]
        mask = self.ravel([value.expand(len(self.vector), *value.shape[1:]) for value in some])
        return None if bool((mask == 1).all()) else mask.to(self.vector.dtype)

    def views(self, vector: torch.Tensor) -> Weights:
        """Named views into a (model, entry) tensor."""
        pieces = torch.split(vector, self.sizes, dim=1)
        return {name: piece.view(shape) for name, piece, shape in zip(self.names, pieces, self.shapes, strict=True)}


def prox_adam(
    loss: Loss,
    params: Weights,
    *,
    n_iter: int,
    learning_rate: float,
    prox: Prox | None = None,
    validate: Validate | None = None,
    rates: Callable[[str], float] | None = None,
    decay: Callable[[str], float | torch.Tensor] | None = None,
    free: Weights | None = None,
    betas: tuple[float, float] = (0.9, 0.99),
    final_fraction: float = 0.02,
    tol: float = 1e-3,
    unit: float | None = None,
    n_checks: int = 20,
    max_failures: int = 8,
) -> Solved:
    """Adam with a cosine schedule and a proximal map in Adam's own metric, for many models at once.

    After the step of Adam, ``prox`` is called with the inverse step sqrt(v) / lr of every entry, so that the
    threshold of a proximal map follows the scale of the loss as the step does. Models never mix: there is no
    norm, clip or schedule shared over the model axis. A model whose loss or gradient is not finite goes back
    to its last good parameters, halves its learning rate, and after ``max_failures`` such events stands still
    and is reported as failed; its neighbours do not notice.

    Parameters
    ----------
    loss : callable (params, iteration) -> tensor  # (model,)
    params : dict of tensors  # (model, ...)
    n_iter : int
    learning_rate : float
        Peak step; falls along a cosine to ``final_fraction`` of itself.
    prox : callable (params, metric) -> None, optional
    validate : callable (params) -> tensor  # (model,), optional
        Held-out loss, asked at every check. If given, each model ends with the parameters of its best check,
        the start among them, instead of the last ones.
    rates : callable (name) -> float, optional
        Learning rate of a parameter relative to the others.
    decay : callable (name) -> float or tensor, optional
        Price of the squares of a parameter's entries, which are added to the loss; a tensor broadcasts to them.
    free : dict of tensors  # (model | 1, ...), optional
        0 for entries that stay where they start; names without a mask may move.
    betas : pair of float
        Decay of the first and second moment.
    final_fraction : float
        Share of the learning rate left at the end.
    tol : float
        A model has converged if the mean loss of the last tenth of the checks is within ``tol * unit`` of that
        of the tenth before.
    unit : float, optional
        What losses are measured by; by default a model's own first loss.
    n_checks : int
        Number of recorded losses.
    max_failures : int
        Non-finite steps after which a model is given up.

    Returns
    -------
    Solved

    Examples
    --------
    >>> import torch
    >>> from skode.solvers import prox_adam
    >>> start = {"x": torch.zeros(1, 2, dtype=torch.float64)}
    >>> target = torch.tensor([1.0, -2.0], dtype=torch.float64)
    >>> def bowl(params, iteration):
    ...     return ((params["x"] - target) ** 2).sum(-1)
    >>> solved = prox_adam(bowl, start, n_iter=400, learning_rate=0.1)
    >>> bool((solved.params["x"] - target).abs().max() < 1e-3)
    True

    References
    ----------
    "Adam: A Method for Stochastic Optimization", 2015, arXiv 1412.6980, algorithm 1.
    """
    flat = Flat(params)
    vector = flat.vector.clone()
    views = flat.views(vector)
    leaves = [view.requires_grad_(True) for view in views.values()]
    n_models = vector.shape[0]
    first, second = torch.zeros_like(vector), torch.zeros_like(vector)
    good = vector.detach().clone()
    rate_factor: torch.Tensor | None = None  # (model, 1), once a model has failed
    relative = None if rates is None else flat.factors(rates)
    relative = None if relative is None or bool((relative == 1.0).all()) else relative
    prices = None if decay is None else flat.factors(decay)
    mask = None if free is None else flat.free(free)
    failures = torch.zeros(n_models, dtype=torch.long, device=vector.device)
    every = max(1, n_iter // n_checks)
    recorded: list[torch.Tensor] = []
    best = Best(vector) if validate is not None else None
    for iteration in range(n_iter):
        losses = loss(views, iteration)
        gradients = torch.autograd.grad(losses.sum(), leaves, allow_unused=True, materialize_grads=True)
        with torch.no_grad():
            gradient = flat.ravel(list(gradients))
            if prices is not None:
                losses, gradient = with_decay(losses, gradient, vector, prices)
            if mask is not None:
                gradient.mul_(mask)
            sound = math.isfinite(float(losses.sum() + gradient.sum()))  # one look where all is well
            if not sound:
                bad = ~(torch.isfinite(losses.detach()) & torch.isfinite(gradient).all(dim=1))
                vector[bad] = good[bad]
                gradient[bad] = 0.0
                first[bad] = 0.0
                rate_factor = torch.ones_like(vector[:, :1]) if rate_factor is None else rate_factor
                rate_factor[bad] *= 0.5
                failures[bad] += 1
                rate_factor[failures >= max_failures] = 0.0
            if iteration % every == 0:
                good = vector.clone() if sound else torch.where(bad[:, None], good, vector)
                recorded.append(losses.detach().clone())
                if best is not None and validate is not None:
                    best.offer(vector, validate(views))
            progress = iteration / max(1, n_iter - 1)
            rate = learning_rate * (final_fraction + (1 - final_fraction) * 0.5 * (1 + math.cos(math.pi * progress)))
            first.lerp_(gradient, 1 - betas[0])
            second.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
            root = (second / (1 - betas[1] ** (iteration + 1))).sqrt_().add_(1e-8)
            root = root if relative is None else root / relative
            step = first / root * (rate / (1 - betas[0] ** (iteration + 1)))
            vector.sub_(step if rate_factor is None else step * rate_factor)
            if prox is not None:
                slowed = rate if rate_factor is None else rate * rate_factor.clamp_min(1e-12)
                prox(views, flat.views(root / slowed))
    history = torch.stack(recorded)
    unsound = ~torch.isfinite(vector.detach()).all(dim=1)
    failed = (failures >= max_failures) | unsound | ~torch.isfinite(history).any(dim=0)
    final = torch.where(unsound[:, None], good, vector.detach())
    return ended(flat, final, history, failed, best=best, validate=validate, n_iter=n_iter, tol=tol, unit=unit)


@torch.no_grad()
def ended(
    flat: Flat,
    final: torch.Tensor,
    history: torch.Tensor,
    failed: torch.Tensor,
    *,
    best: Best | None,
    validate: Validate | None,
    n_iter: int,
    tol: float,
    unit: float | None,
) -> Solved:
    """What a solver hands back: the last parameters or, where there is a held-out loss, what ``Best`` ends with."""
    if best is not None and validate is not None:
        final = best.end(final, validate(flat.views(final)))
    return Solved(
        params={name: view.clone() for name, view in flat.views(final).items()},
        losses=history,
        converged=settled(history, tol, unit) & ~failed,
        failed=failed,
        n_iter=n_iter,
    )


def with_decay(
    losses: torch.Tensor, gradient: torch.Tensor, vector: torch.Tensor, prices: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses and gradients with sum_j price_j x_j^2 added; writes into the gradient."""
    priced = prices * vector
    return losses + (priced * vector).sum(1), gradient.add_(priced, alpha=2.0)


def settled(history: torch.Tensor, tol: float, unit: float | None) -> torch.Tensor:
    """Compare the last tenth of the recorded losses with the tenth before."""
    width = max(1, history.shape[0] // 10)
    if history.shape[0] < 2 * width:
        return torch.zeros(history.shape[1], dtype=torch.bool, device=history.device)
    late, before = history[-width:].mean(0), history[-2 * width : -width].mean(0)
    scale = history[0].abs().clamp_min(before.abs()) if unit is None else torch.full_like(before, unit)
    return (late - before).abs() <= tol * scale + torch.finfo(history.dtype).eps
