"""From the words that users type to penalty objects."""

from __future__ import annotations

from skode.penalties._base import AbstractPenalty
from skode.penalties._compatibility import gated_penalties
from skode.penalties.group_lasso import GroupLasso
from skode.penalties.l0 import L0
from skode.penalties.l1 import L1
from skode.penalties.lassonet import LassoNet
from skode.penalties.none import NoPenalty
from skode.penalties.pathreg import PathReg

PENALTIES: dict[str, type[AbstractPenalty]] = {
    "none": NoPenalty,
    "l1": L1,
    "l0": L0,
    "pathreg": PathReg,
    "group_lasso": GroupLasso,
    "lassonet": LassoNet,
}
"""Penalty classes by the names that users type."""


def resolve_penalty(penalty: str | AbstractPenalty | None, gates: str | None = None) -> AbstractPenalty:
    """Turn what an estimator was given into a penalty.

    Parameters
    ----------
    penalty : str, AbstractPenalty or None
        A key of ``PENALTIES``, a penalty object, or None for the dense model.
    gates : str or None, default=None
        Kind of gates for ``"l0"`` and ``"pathreg"``; None leaves the choice to the penalty.

    Returns
    -------
    AbstractPenalty

    Raises
    ------
    ValueError
        For an unknown name, gates on a penalty without gates, or gates named twice and differently.
    TypeError
        If ``penalty`` is something else, a class for example.

    Examples
    --------
    >>> from skode.penalties import resolve_penalty
    >>> resolve_penalty("group_lasso")
    GroupLasso(readout_bound=1.5)
    >>> resolve_penalty(None)
    NoPenalty()
    """
    if penalty is None:
        penalty = "none"
    if isinstance(penalty, str):
        if penalty not in PENALTIES:
            known = ", ".join(repr(name) for name in PENALTIES)
            raise ValueError(
                f"penalty must be None, a penalty object, or one of {known}; got {penalty!r}. "
                "Use penalty='group_lasso' if in doubt."
            )
        if gates is None:
            return PENALTIES[penalty]()
        if penalty not in gated_penalties():
            raise ValueError(
                f"gates must be None for penalty={penalty!r}, which has none; got gates={gates!r}. "
                f"Leave gates out, or use one of the gated penalties {', '.join(gated_penalties())}."
            )
        return PENALTIES[penalty].with_gates(gates)
    if not isinstance(penalty, AbstractPenalty):
        raise TypeError(
            f"penalty must be None, a name or a penalty object; got {penalty!r}. "
            "Pass an object such as PathReg(), not a class, or a name such as 'pathreg'."
        )
    if gates not in (None, penalty.gates):
        raise ValueError(
            f"gates must be named once; got gates={gates!r} beside {penalty!r}. "
            "Leave gates out and set them in the penalty object."
        )
    return penalty
