"""Warnings that users may want to catch."""

from __future__ import annotations


class DivergedPredictionWarning(UserWarning):
    """A predicted trajectory failed or left the training box widened tenfold, and is held at its edge."""
