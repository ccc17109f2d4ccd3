"""Solve many initial value problems in one batch, none of which can touch another."""

from __future__ import annotations

from skode.integrate.adjoint import AbstractSlope, SlopeStage, rk4_adjoint
from skode.integrate.arrays import ArraySlope, Stages
from skode.integrate.compression import Compressed, compress
from skode.integrate.resolution import Doubling, Halving, double_step, halve_step
from skode.integrate.runge_kutta import Nodes, Slope, hermite, rk4
from skode.integrate.solve import METHODS, integrate
from skode.integrate.tracing import Traced, trace
from skode.integrate.walks import NumpySteps, PointSlope, TorchSteps, Walk, Walked

__all__ = [
    "METHODS",
    "AbstractSlope",
    "ArraySlope",
    "Compressed",
    "Doubling",
    "Halving",
    "Nodes",
    "NumpySteps",
    "PointSlope",
    "Slope",
    "SlopeStage",
    "Stages",
    "TorchSteps",
    "Traced",
    "Walk",
    "Walked",
    "compress",
    "double_step",
    "halve_step",
    "hermite",
    "integrate",
    "rk4",
    "rk4_adjoint",
    "trace",
]
