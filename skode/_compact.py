"""Matrices of fitted models on disk: what is mostly zero, or one row again and again, is stored as that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse

from skode._typing import AnyArray

FEWEST = 10_000
"""Entries from which on a matrix is looked at."""
SHARE = 0.2
"""Share of entries up to which the non-zero ones are smaller than the matrix."""


@dataclass(frozen=True)
class Sparse:
    """The entries that are not zero."""

    entries: scipy.sparse.csr_array

    def whole(self) -> AnyArray:
        """The matrix."""
        return np.asarray(self.entries.toarray())


@dataclass(frozen=True)
class Repeated:
    """One row, and the rows that are it; all others are zero."""

    row: AnyArray  # (source,)
    places: AnyArray  # (target,) of bool

    def whole(self) -> AnyArray:
        """The matrix."""
        return np.where(self.places[:, None], self.row, np.zeros((), dtype=self.row.dtype))


def compact(value: Any) -> Any:
    """A large matrix in fewer bytes, if there is a way without loss; everything else as it is. Looks into containers.

    Parameters
    ----------
    value : object

    Returns
    -------
    object

    Examples
    --------
    >>> import numpy as np
    >>> matrix = np.eye(200)
    >>> type(compact(matrix)).__name__, bool((expand(compact(matrix)) == matrix).all())
    ('Sparse', True)
    """
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        return [{name: compact(part) for name, part in one.items()} for one in value]
    if not isinstance(value, np.ndarray) or value.ndim != 2 or value.size < FEWEST or value.dtype.kind not in "fi":
        return value
    places = np.asarray(value.any(axis=1))
    if places.any() and bool((value[places] == value[np.argmax(places)]).all()):
        return Repeated(value[np.argmax(places)].copy(), places)
    if np.count_nonzero(value) <= SHARE * value.size:
        return Sparse(scipy.sparse.csr_array(value))
    return value


def expand(value: Any) -> Any:
    """Undo ``compact``."""
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        return [{name: expand(part) for name, part in one.items()} for one in value]
    return value.whole() if isinstance(value, (Sparse, Repeated)) else value
