"""L-BFGS for many models at once, with a curvature that the caller knows: for smooth losses without noise."""

from __future__ import annotations

from collections.abc import Callable

import torch

from skode._early_stopping import Best, Validate
from skode._typing import Weights
from skode.solvers import Flat, Loss, Solved, ended, with_decay

Precondition = Callable[[Weights], Weights]
"""(gradient) -> inverse curvature times gradient, for every model; positive semidefinite."""

ENOUGH = 1e-4
"""Share of the decrease that the slope promises which a step must bring (Armijo)."""


class _Memory:
    """The last steps s and changes of the gradient y, and the inverse curvature that follows from them.

    The recursion over pairs needs their products s_i' y_j alone, in the triangle of those that are not later than
    each other: two triangular systems, and four products with all steps or all changes at once.
    """

    def __init__(self, precondition: Callable[[torch.Tensor], torch.Tensor], size: int, like: torch.Tensor) -> None:
        self.precondition, self.size, self.n_pairs = precondition, size, 0
        self.steps, self.changes = like.new_zeros(2, len(like), size, like.shape[1])  # (model, place, entry), a ring
        self.products = torch.eye(size).to(like).repeat(len(like), 1, 1)  # (model, place of step, place of change)
        self.gain: torch.Tensor | None = None  # (model, 1), scale of the known curvature

    def add(self, step: torch.Tensor, change: torch.Tensor, good: torch.Tensor) -> None:
        """Take in a pair for those models for which it is good and bends upwards."""
        product = (step * change).sum(1, keepdim=True)
        length = (change * self.precondition(change)).sum(1, keepdim=True)
        good = good.unsqueeze(1) & (product > 1e-12 * length) & length.isfinite()
        place = self.n_pairs % self.size
        self.n_pairs += 1
        self.steps[:, place], self.changes[:, place] = torch.where(good, step, 0.0), torch.where(good, change, 0.0)
        self.products[:, :, place] = _times(self.steps, self.changes[:, place])
        self.products[:, place, place] = torch.where(good, product, 1.0)[:, 0]  # of none, it only must not be 0
        gain = torch.ones_like(product) if self.gain is None else self.gain
        self.gain = torch.where(good, product / length, gain)

    def forget(self, models: torch.Tensor) -> None:
        """Drop all pairs of some models."""
        self.steps[models], self.changes[models] = 0.0, 0.0
        self.products[models] = torch.eye(self.size).to(self.products)

    def direction(self, gradient: torch.Tensor) -> torch.Tensor:
        """Minus the inverse curvature times the gradient.  # (model, entry)"""
        if self.gain is None:
            return -self.precondition(gradient)
        turn = self.n_pairs % self.size if self.n_pairs > self.size else 0  # places of the ring, the oldest first
        products = self.products.roll((-turn, -turn), (1, 2)).triu()
        shares = _solved(products, _times(self.steps, gradient).roll(-turn, 1), upper=True)
        q = gradient - _times(self.changes.mT, shares.roll(turn, 1))
        r = self.gain * self.precondition(q)
        back = products.diagonal(dim1=1, dim2=2) * shares - _times(self.changes, r).roll(-turn, 1)
        return -(r + _times(self.steps.mT, _solved(products.mT, back, upper=False).roll(turn, 1)))


def _times(matrix: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    """Of every model by itself, for one product for all would round by how many there are.  # (model, row)"""
    return torch.stack([torch.mv(own, entries) for own, entries in zip(matrix, vector, strict=True)])


def _solved(matrix: torch.Tensor, right: torch.Tensor, *, upper: bool) -> torch.Tensor:
    """Of the triangular system of every model.  # (model, row)"""
    solved: torch.Tensor = torch.linalg.solve_triangular(matrix, right.unsqueeze(-1), upper=upper)
    return solved.squeeze(-1)


def lbfgs(
    loss: Loss,
    params: Weights,
    *,
    n_iter: int,
    precondition: Precondition | None = None,
    validate: Validate | None = None,
    decay: Callable[[str], float | torch.Tensor] | None = None,
    memory: int = 20,
    tol: float = 1e-3,
    unit: float | None = None,
    n_checks: int = 20,
    patience: int | None = None,
) -> Solved:
    r"""Minimise smooth losses by L-BFGS; one evaluation of all models is one iteration.

    The inverse curvature starts from ``precondition`` :math:`M^{-1}`, scaled by
    :math:`s^T y / (y^T M^{-1} y)` of the last step s and change y of the gradient. A model takes a trial step if it
    brings a share of the decrease that the slope promises; else its next trial is shorter, by the parabola through what
    is known, while its neighbours go on. A trial that is not finite is a trial that brings nothing. Models never mix.

    Parameters
    ----------
    loss : callable (params, iteration) -> tensor  # (model,)
        The same at every iteration.
    params : dict of tensors  # (model, ...)
    n_iter : int
        Number of evaluations.
    precondition : callable, optional
        Gradient to step, as a rough inverse of the curvature; entries for which it gives 0 stay as they are.
    validate : callable (params) -> tensor  # (model,) or (model, part), optional
        Held-out loss, or its parts. Each model ends at the checked parameters where it was lowest; with parts, at the
        last ones unless those were better by more than a standard error.
    decay : callable name -> float or tensor, optional
        As for ``prox_adam``.
    memory : int
        Number of pairs that are remembered.
    tol, unit, n_checks
        As for ``prox_adam``.
    patience : int, optional
        Checks in a row without a lower held-out loss after which a model is done and stands still; the end comes
        early when all are.

    Returns
    -------
    Solved

    Examples
    --------
    >>> import torch
    >>> from skode.quasi_newton import lbfgs
    >>> start = {"x": torch.zeros(1, 2, dtype=torch.float64)}
    >>> def valley(params, iteration):
    ...     x, y = params["x"].unbind(-1)
    ...     return (1 - x) ** 2 + 100 * (y - x**2) ** 2
    >>> solved = lbfgs(valley, start, n_iter=80)
    >>> solved.params["x"].round(decimals=4).tolist()
    [[1.0, 1.0]]

    References
    ----------
    "On the limited memory BFGS method for large scale optimization", 1989, doi 10.1007/BF01589116.
    """
    flat = Flat(params)
    narrow, prices = flat.vector.dtype, None if decay is None else flat.factors(decay).double()

    def value(vector: torch.Tensor, iteration: int) -> tuple[torch.Tensor, torch.Tensor]:
        views = {name: view.requires_grad_(True) for name, view in flat.views(vector.to(narrow).clone()).items()}
        losses = loss(views, iteration)
        gradients = torch.autograd.grad(losses.sum(), list(views.values()), allow_unused=True, materialize_grads=True)
        gradient, here = flat.ravel(list(gradients)).double(), losses.detach().double()
        if prices is not None:
            here, gradient = with_decay(here, gradient, vector, prices)
        return torch.where(gradient.isfinite().all(dim=1), here.nan_to_num(nan=torch.inf), torch.inf), gradient

    def inverse(vector: torch.Tensor) -> torch.Tensor:
        if precondition is None:
            return vector
        return flat.ravel(list(precondition(flat.views(vector)).values()))

    x = flat.vector.double()  # products of many float32 numbers would lose their last digits
    best = Best(flat.vector, patience) if validate is not None else None
    here, gradient = value(x, 0)
    failed = ~here.isfinite()
    gradient = torch.where(failed[:, None], 0.0, gradient)
    past = _Memory(inverse, min(memory, n_iter), x)
    direction = past.direction(gradient)
    length = torch.ones_like(here)
    recorded, every = [here], max(1, n_iter // n_checks)
    done = torch.zeros_like(failed)
    with torch.no_grad():
        for iteration in range(1, n_iter):
            if best is not None and validate is not None and (iteration - 1) % every == 0:
                best.offer(x.to(narrow), validate(flat.views(x.to(narrow))))
                done |= best.done
                if bool(done.all()):
                    break
            promised = (gradient * direction).sum(1)
            uphill = ~(promised < 0) & (gradient != 0).any(dim=1)
            if bool(uphill.any()):
                past.forget(uphill)
                direction = torch.where(uphill[:, None], past.direction(gradient), direction)
                promised = (gradient * direction).sum(1)
            step = length[:, None] * direction
            with torch.enable_grad():
                there, new = value(x + step, iteration)
            good = (there <= here + ENOUGH * length * promised) & there.isfinite() & ~done
            past.add(step, torch.where(good[:, None], new - gradient, 0.0), good)
            parabola = -0.5 * promised * length**2 / (there - here - length * promised)
            shorter = torch.maximum(0.1 * length, torch.minimum(0.5 * length, parabola.nan_to_num(nan=0.0)))
            x = torch.where(good[:, None], x + step, x)
            here = torch.where(good, there, here)
            gradient = torch.where(good[:, None], new, gradient)
            direction = torch.where(good[:, None], past.direction(gradient), direction)
            length = torch.where(good, 1.0, shorter)
            recorded.append(here)
    history = torch.stack(recorded)[::every].to(narrow)
    return ended(
        flat, x.to(narrow), history, failed, best=best, validate=validate, n_iter=len(recorded), tol=tol, unit=unit
    )
