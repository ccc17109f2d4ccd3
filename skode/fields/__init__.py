"""Right-hand sides of the differential equation."""

from skode.fields._base import ACTIVATIONS, AbstractField
from skode.fields.packed import PackedField
from skode.fields.per_target import PerTargetField
from skode.fields.shared import SharedField

__all__ = ["ACTIVATIONS", "AbstractField", "PackedField", "PerTargetField", "SharedField"]
