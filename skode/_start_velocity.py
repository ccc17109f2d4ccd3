"""Initial velocities inferred from initial positions, for second-order systems whose X does not give them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel

from skode._prepared import Prepared
from skode._typing import FloatArray

LARGEST_SAMPLE = 500
"""Trajectories that the map is learned from; more are thinned evenly, as the cost is cubic."""


@dataclass(frozen=True)
class StartVelocity:
    """The map from standard initial positions and inputs to standard initial velocities.

    Parameters
    ----------
    model : GaussianProcessRegressor
    """

    model: GaussianProcessRegressor

    def __call__(self, start: FloatArray, inputs: FloatArray) -> FloatArray:
        """Velocities (trajectory, d) for positions (trajectory, d) and inputs (trajectory, m), all standard.

        One by one: products of many rows round otherwise, and a trajectory's start must not depend on the others.
        """
        sources, velocities = np.concatenate([start, inputs], axis=1), np.empty_like(start)
        for k in range(len(sources)):
            velocities[k] = self.model.predict(sources[k : k + 1])
        return velocities


def fit_start_velocity(prepared: Prepared) -> StartVelocity:
    """Regress the smoothed velocities at elapsed time 0 on positions and inputs.

    A Gaussian process with a linear and a smooth part, whose hyperparameters maximise the evidence, so that a few
    trajectories give a cautious map and many a flexible one.

    Parameters
    ----------
    prepared : Prepared

    Returns
    -------
    StartVelocity

    References
    ----------
    "On Second Order Behaviour in Augmented Neural ODEs", 2020, arXiv 2006.07220, section 3 (SONODE), where the map
    is a network.
    """
    d = prepared.slopes.shape[1]
    positions = np.array([course.path[course.given, :d] for course in prepared.courses])
    velocities = np.array([course.path[course.given, d:] for course in prepared.courses])
    sources = np.concatenate([positions, prepared.inputs], axis=1)
    if len(sources) > LARGEST_SAMPLE:
        keep = np.linspace(0, len(sources) - 1, LARGEST_SAMPLE).astype(int)
        sources, velocities = sources[keep], velocities[keep]
    kernel = ConstantKernel() * RBF(np.sqrt(sources.shape[1])) + DotProduct() + WhiteKernel(0.1)
    model = GaussianProcessRegressor(kernel, normalize_y=True)
    with warnings.catch_warnings():
        # A hyperparameter at its bound (no noise, no curvature) is an answer here, not a failure.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(sources, velocities)
    return StartVelocity(model)
