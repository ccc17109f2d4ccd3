"""Penalties on weights, gates and paths."""

from skode.penalties._base import AbstractPenalty, Noise
from skode.penalties._compatibility import COMPATIBILITY, combinations, field_kind, resolve_gates
from skode.penalties._registry import PENALTIES, resolve_penalty
from skode.penalties.group_lasso import GroupLasso
from skode.penalties.l0 import L0
from skode.penalties.l1 import L1
from skode.penalties.lassonet import LassoNet
from skode.penalties.none import NoPenalty
from skode.penalties.pathreg import PathReg

__all__ = [
    "COMPATIBILITY",
    "L0",
    "L1",
    "PENALTIES",
    "AbstractPenalty",
    "GroupLasso",
    "LassoNet",
    "NoPenalty",
    "Noise",
    "PathReg",
    "combinations",
    "field_kind",
    "resolve_gates",
    "resolve_penalty",
]
