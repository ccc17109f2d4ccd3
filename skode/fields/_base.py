"""What every right-hand side offers: evaluate, list its paths, differentiate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

from skode._typing import AnyArray, FloatArray, Weights
from skode.fields._bound import AbstractBoundField, ByAutograd
from skode.fields._points import AbstractPoints


@dataclass(frozen=True)
class AbstractField(ABC):
    """A right-hand side F(z), from standardised sources to standardised slopes.

    A field maps sources z (states, then velocities for second-order systems, then inputs, then time) to one
    slope per target. It knows nothing of what is penalised, of units, or of solvers. Its parameters are a
    dictionary of tensors that lead with the model axis, so that many models are one call.

    Parameters
    ----------
    n_targets : int
        Number of slopes, one per state variable.
    n_sources : int
        Width of z.
    hidden : tuple of int
        Width of each hidden layer.
    activation : str
        A key of ``ACTIVATIONS``.
    variable_of_source : tuple of int
        Graph variable to which each source belongs; position and velocity of one variable share an index.
    """

    n_targets: int
    n_sources: int
    hidden: tuple[int, ...]
    activation: str
    variable_of_source: tuple[int, ...]

    @property
    @abstractmethod
    def per_target(self) -> bool:
        """Whether weights carry a target axis after the model axis, so that edges can be cut one by one."""

    @property
    def chain(self) -> tuple[str, ...]:
        """Weight matrices (out, in) from the sources to the slopes, in order."""
        return tuple(f"W{k}" for k in range(len(self.hidden) + 1))

    @property
    @abstractmethod
    def entries(self) -> tuple[str, ...]:
        """Every tensor whose last axis is the source axis: all that a source must pass through."""

    @property
    def skip(self) -> str | None:
        """Name of the linear skip from sources to slopes, if there is one."""
        return "K" if "K" in self.entries else None

    @property
    def n_variables(self) -> int:
        """Number of graph variables among the sources."""
        return max(self.variable_of_source) + 1

    @abstractmethod
    def init(self, generator: torch.Generator, *, n_models: int, dtype: torch.dtype, device: torch.device) -> Weights:
        """Draw initial weights; every model of the batch starts from its own draw."""

    @abstractmethod
    def __call__(self, weights: Weights, z: torch.Tensor) -> torch.Tensor:
        """Slopes at z.

        Parameters
        ----------
        weights : dict of tensors
        z : tensor  # (model | 1, sample, source)

        Returns
        -------
        tensor  # (model, sample, target)
        """

    def bind(self, weights: Weights) -> AbstractBoundField:
        """Put weights to the field, with the gradients that a solver's adjoint asks for.

        Through autograd, for any field; a field that wants to be fast writes its own.

        Parameters
        ----------
        weights : dict of tensors
        """
        return ByAutograd(self.__call__, weights)

    def at_points(self, weights: dict[str, AnyArray], gain: FloatArray) -> AbstractPoints | None:
        """The field at samples that never meet, in numpy; None for fields that are no faster so.

        Parameters
        ----------
        weights : dict of arrays
            Without the model axis.
        gain : array (target,)
            Factor of every slope.
        """
        return None

    @abstractmethod
    def paths(self, weights: Weights) -> torch.Tensor:
        """Sum over all input-output paths of products of absolute weights; zero exactly if no path is open.

        Returns
        -------
        tensor  # (model, target, source)
        """

    def jacobian(self, weights: Weights, z: torch.Tensor) -> torch.Tensor:
        """Derivative of every slope by every source, one backward pass per target.

        Parameters
        ----------
        weights : dict of tensors
        z : tensor  # (model | 1, sample, source)

        Returns
        -------
        tensor  # (model, sample, target, source)
        """
        n_models = next(iter(weights.values())).shape[0]
        z = z.expand(n_models, -1, -1).detach().clone().requires_grad_(True)
        slopes = self(weights, z)
        rows = [
            torch.autograd.grad(slopes[..., target].sum(), z, retain_graph=True)[0] for target in range(self.n_targets)
        ]
        return torch.stack(rows, dim=-2)

    def column_jacobian(self, weights: Weights, z: torch.Tensor) -> torch.Tensor:
        """The same by every column that a target has; smaller than ``jacobian`` where columns are packed.

        Returns
        -------
        tensor  # (model, sample, target, column)
        """
        return self.jacobian(weights, z)

    @property
    def one_source_each(self) -> bool:
        """Whether sources are variables, in their order: true of order 1."""
        return self.variable_of_source == tuple(range(self.n_sources))

    def by_variable(self, squares: torch.Tensor) -> torch.Tensor:
        """Add up entries of the source axis that belong to one graph variable.

        Parameters
        ----------
        squares : tensor  # (..., source)

        Returns
        -------
        tensor  # (..., variable)
        """
        if self.one_source_each:
            return squares
        index = torch.tensor(self.variable_of_source, device=squares.device)
        out = torch.zeros(*squares.shape[:-1], self.n_variables, dtype=squares.dtype, device=squares.device)
        return out.index_add(-1, index, squares)

    def to_columns(self, values: torch.Tensor) -> torch.Tensor:
        """Entries of the source axis as the last axis of ``entries`` has them; the same unless columns are packed.

        Parameters
        ----------
        values : tensor  # (..., target, source)

        Returns
        -------
        tensor  # (..., target, column)
        """
        return values

    def to_wide(self, values: torch.Tensor) -> torch.Tensor:
        """Put columns back where their sources are; the same unless columns are packed.

        Parameters
        ----------
        values : tensor  # (..., target, column)

        Returns
        -------
        tensor  # (..., target, source)
        """
        return values

    def to_sources(self, values: torch.Tensor) -> torch.Tensor:
        """Repeat entries of the variable axis for every source that belongs to the variable.

        Parameters
        ----------
        values : tensor  # (..., variable)

        Returns
        -------
        tensor  # (..., source)
        """
        if self.one_source_each:
            return values
        return values[..., torch.tensor(self.variable_of_source, device=values.device)]


def normal(
    generator: torch.Generator, shape: tuple[int, ...], scale: float, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """Draw on the CPU in float64, then cast and move: one seed gives one set of weights everywhere."""
    values = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
    return values.to(dtype=dtype, device=device)
