"""Matrices on disk and on paths: what is mostly zero, or one row again and again, is stored as that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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


class Level(Mapping[str, Any]):
    """A dictionary that cannot be changed, and keeps large matrices as ``compact`` does: each is whole when asked for.

    Parameters
    ----------
    entries : mapping from str to object

    Examples
    --------
    >>> import numpy as np
    >>> level = Level({"alpha": 0.1, "dependency_matrix": np.eye(200)})
    >>> level["dependency_matrix"].shape, sorted(level)
    ((200, 200), ['alpha', 'dependency_matrix'])
    """

    def __init__(self, entries: Mapping[str, Any]) -> None:
        self._entries = {name: compact(value) for name, value in entries.items()}

    def __getitem__(self, name: str) -> Any:
        return expand(self._entries[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return repr(dict(self))


def compact(value: Any) -> Any:
    """A large matrix in fewer bytes, if there is a way without loss; everything else as it is.

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
    return value.whole() if isinstance(value, (Sparse, Repeated)) else value
