"""Warnings that users may want to catch."""

from __future__ import annotations


class IdentifiabilityWarning(UserWarning):
    """The data cannot tell some edges from others: variables stand still, repeat each other, or are confined."""


class DivergedPredictionWarning(UserWarning):
    """A predicted trajectory failed or left the training box widened tenfold, and is held at its edge.

    In ``fit``: forecasts of the training data leave its range, if by less.
    """
