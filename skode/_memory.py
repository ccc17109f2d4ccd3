"""Memory that a stage has freed goes back to the system before the next one asks for its own."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any


def release() -> None:
    """Return what has been freed, where the C library is glibc; nothing elsewhere.

    Every thread allocates from an arena of its own, and arenas keep what is freed in them: the next stage, whose
    threads and sizes are others, would ask for more instead of taking it. Takes some milliseconds.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Any:
    """The function of the C library, None where it has none."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library; no libraries by handle, as on Windows
        return None
