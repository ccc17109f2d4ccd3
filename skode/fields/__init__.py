"""Right-hand sides of the differential equation."""

from skode.fields._activations import ACTIVATIONS, Activation
from skode.fields._affine import Affine
from skode.fields._base import AbstractField
from skode.fields._bound import AbstractBoundField, Evaluated, Tensors
from skode.fields._chain import ByMaps, Chain, Gradient, Maps
from skode.fields._folding import Folding
from skode.fields._points import AbstractPoints
from skode.fields.held import HeldField, hold
from skode.fields.hill import HillField
from skode.fields.packed import PackedField
from skode.fields.per_target import PerTargetField
from skode.fields.polynomial import PolynomialField, monomials
from skode.fields.shared import SharedField

__all__ = [
    "ACTIVATIONS",
    "AbstractBoundField",
    "AbstractField",
    "AbstractPoints",
    "Activation",
    "Affine",
    "ByMaps",
    "Chain",
    "Evaluated",
    "Folding",
    "Gradient",
    "HeldField",
    "HillField",
    "Maps",
    "PackedField",
    "PerTargetField",
    "PolynomialField",
    "SharedField",
    "Tensors",
    "hold",
    "monomials",
]
