"""Sparse neural ordinary differential equations with the interface of scikit-learn."""

from skode import datasets, metrics, scoring
from skode._steady import SteadyStates
from skode.builders import from_frame, from_trajectories, make_questions
from skode.estimators import SparseNODERegressor
from skode.exceptions import DivergedPredictionWarning, IdentifiabilityWarning
from skode.model_selection import ForecastSplit, SparseNODERegressorCV, StabilitySelection, regularization_path
from skode.penalties import (
    L0,
    L1,
    AbstractPenalty,
    GroupLasso,
    LassoNet,
    NoPenalty,
    PathReg,
)
from skode.prior import PriorKnowledge

__version__ = "0.1.0"

__all__ = [
    "L0",
    "L1",
    "AbstractPenalty",
    "DivergedPredictionWarning",
    "ForecastSplit",
    "GroupLasso",
    "IdentifiabilityWarning",
    "LassoNet",
    "NoPenalty",
    "PathReg",
    "PriorKnowledge",
    "SparseNODERegressor",
    "SparseNODERegressorCV",
    "StabilitySelection",
    "SteadyStates",
    "__version__",
    "datasets",
    "from_frame",
    "from_trajectories",
    "make_questions",
    "metrics",
    "regularization_path",
    "scoring",
]
