"""Which penalty acts on which field through which gates: one table for errors, documentation and tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from skode.fields import AbstractField

COMPATIBILITY: dict[str, dict[str, tuple[str | None, ...]]] = {
    "none": {"per_target": (None,), "shared": (None,), "residual": (None,)},
    "l1": {"per_target": (None,), "shared": (None,), "residual": (None,)},
    "l0": {"per_target": ("edge", "weight"), "shared": ("weight", "unit"), "residual": ("weight",)},
    "pathreg": {"per_target": ("edge", "weight"), "shared": ("weight", "unit"), "residual": ("weight",)},
    "group_lasso": {"per_target": (None,)},
    "lassonet": {"per_target": (None,), "residual": (None,)},
}
"""penalty -> field kind -> kinds of gates that work, the default first (None: the penalty has no gates)."""


class Combination(NamedTuple):
    """One cell of the table."""

    penalty: str
    field: str
    gates: str | None


def combinations() -> Iterator[Combination]:
    """List every combination that works."""
    for penalty, kinds in COMPATIBILITY.items():
        for field, gates in kinds.items():
            for kind in gates:
                yield Combination(penalty, field, kind)


def field_kind(field: AbstractField) -> str:
    """Name the kind of a field as the table does: per_target, shared, or residual (shared with a skip)."""
    if field.per_target:
        return "per_target"
    return "residual" if field.skip else "shared"


def gated_penalties() -> tuple[str, ...]:
    """List the penalties that act through gates."""
    return tuple(name for name, kinds in COMPATIBILITY.items() if None not in next(iter(kinds.values())))


def resolve_gates(penalty: str, field: str, gates: str | None) -> str | None:
    """Give the kind of gates to use, the default of the table where ``gates`` is None.

    Parameters
    ----------
    penalty : str
        A key of ``COMPATIBILITY``.
    field : {"per_target", "shared", "residual"}
    gates : str or None
        What the user asked for; None asks for the default.

    Returns
    -------
    str or None
        None for penalties without gates.

    Raises
    ------
    ValueError
        If the three do not go together; the message names combinations that do.

    Examples
    --------
    >>> from skode.penalties import resolve_gates
    >>> resolve_gates("pathreg", "per_target", None)
    'edge'
    >>> resolve_gates("group_lasso", "shared", None)
    Traceback (most recent call last):
    ...
    ValueError: penalty='group_lasso' must act on a field of kind 'per_target'; got kind 'shared'.
    Use a field of kind 'per_target', or keep the field and choose penalty='l1', 'l0' or 'pathreg'.
    """
    kinds = COMPATIBILITY[penalty]
    if field not in kinds:
        others = [name for name, row in COMPATIBILITY.items() if field in row and name != "none"]
        raise ValueError(
            f"penalty={penalty!r} must act on a field of kind {_either(kinds)}; got kind {field!r}. "
            f"Use a field of kind {_either(kinds)}, or keep the field and choose penalty={_either(others)}."
        )
    allowed = kinds[field]
    if gates is None or gates in allowed:
        return gates or allowed[0]
    if None in allowed:
        raise ValueError(
            f"penalty={penalty!r} has no gates, so gates must be None; got gates={gates!r}. "
            f"Leave gates out, or choose penalty={_either(gated_penalties())}."
        )
    elsewhere = [kind for kind, row in kinds.items() if gates in row]
    hint = f", or a field of kind {_either(elsewhere)}" if elsewhere else ""
    raise ValueError(
        f"gates of penalty={penalty!r} on a field of kind {field!r} must be {_either(allowed)}; got "
        f"gates={gates!r}. Use gates={_either(allowed)}{hint}."
    )


def _either(names: Iterable[str | None]) -> str:
    """Write names as 'a', 'b' or 'c'."""
    quoted = [repr(name) for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"
