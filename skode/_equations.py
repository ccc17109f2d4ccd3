"""A polynomial law as anyone would write it down, in the user's units and names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from skode._fitted import Fitted
from skode.fields import PolynomialField

DIGITS = 6
"""Significant digits of a level from which a source is measured."""


def equations(fitted: Fitted, names: Sequence[str], precision: int) -> list[str]:
    """One line per state; sources that stay far from zero are measured from their mean, as (x0 - 293).

    Parameters
    ----------
    fitted : Fitted
        Whose field is a polynomial law.
    names : sequence of str
        Of states, then inputs.
    precision : int
        Significant digits.

    Returns
    -------
    list of str
    """
    field, scales = fitted.field, fitted.scales
    assert isinstance(field, PolynomialField)
    per_unit = np.array(field.gain) / np.concatenate([scales.state_sd, scales.input_sd])
    size = np.array([np.prod(per_unit[list(term)]) for term in field.terms])
    coefficients = fitted.weights["C"] * size * scales.slope_unit()[:, None]
    centre = np.concatenate([scales.state_mean, scales.input_mean]) - np.array(field.shift) / per_unit
    unit = np.concatenate([scales.state_sd, scales.input_sd])
    factors = [
        name
        if abs(zero) < 1e-9 * sd + 1e-9 * abs(mean)
        else f"({name} {'-' if zero > 0 else '+'} {abs(zero):.{DIGITS}g})"
        for name, zero, sd, mean in zip(
            names, centre, unit, np.concatenate([scales.state_mean, scales.input_mean]), strict=True
        )
    ]
    return [
        f"d{names[target]}/dt = {_sum(row, field.terms, factors, precision)}" for target, row in enumerate(coefficients)
    ]


def _sum(row: Sequence[float], terms: Sequence[tuple[int, ...]], names: Sequence[str], precision: int) -> str:
    parts: list[str] = []
    for value, term in zip(row, terms, strict=True):
        if value != 0.0:
            factors = [
                names[source] + (f"^{power}" if power > 1 else "") for source, power in sorted(Counter(term).items())
            ]
            sign = "-" if value < 0 else "+" if parts else ""
            parts.append(f"{sign} {' '.join([f'{abs(value):.{precision}g}', *factors])}")
    return " ".join(parts).strip() or "0"
