"""Numbers as reports write them: decimal strings in one fixed notation, and lower bounds that never say too much."""

import math
from decimal import ROUND_DOWN, Context, Decimal

SIGNIFICANT = 12
"""Digits that a measured number keeps."""
PLACES = 40
"""Decimals that the schema has room for."""
LARGEST_EPSILON = Decimal("1000.0000")
"""A lower bound that stands for itself or more."""

_LARGEST = 10.0**17
_ROUNDED = Context(prec=SIGNIFICANT)


def figure(value: float) -> str:
    """Writes a number: no exponent, 12 significant digits, at most 40 decimals, no trailing zeros.

    Raises: ValueError: Not a finite number below 10^17.
    """
    if not abs(value) < _LARGEST:
        raise ValueError(f"{value} is no number that a report can hold")
    rounded = _ROUNDED.create_decimal_from_float(value)
    text = f"{rounded:.{PLACES}f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def epsilon_text(value: float) -> str:
    """Writes a lower bound of epsilon: rounded down to 4 decimals, never negative, at most ``LARGEST_EPSILON``.

    Raises: ValueError: Not a number.
    """
    if math.isnan(value):
        raise ValueError("a lower bound of epsilon is a number")
    bounded = Decimal(min(max(value, 0.0), float(LARGEST_EPSILON)))
    return str(abs(bounded.quantize(LARGEST_EPSILON, rounding=ROUND_DOWN)))
