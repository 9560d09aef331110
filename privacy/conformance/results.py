"""Outcome of a test as a report says it: a statistic, what it is held against, and whether it passes."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from privacy.audit.figures import figure
from privacy.conformance.statistics import Measured, chi_square, kolmogorov_smirnov, no_correlation

FAMILY_ERROR = 1e-4
"""Probability that a correct path fails any test: shared out evenly among the tests that go by chance (Bonferroni)."""

BY_CHANCE: Mapping[str, Callable[[int, float], float]] = MappingProxyType(
    {
        "noise scale": chi_square,
        "noise shape": kolmogorov_smirnov,
        "neighbouring entries": no_correlation,
        "successive releases": no_correlation,
        "batch sizes": chi_square,
        "takings of each group": chi_square,
    }
)
"""Name of each test that goes by chance, and its p-value as a function of n and the statistic."""

LIMITS: Mapping[str, float] = MappingProxyType(
    {
        "repeated noise": 0.01,  # on the coarsest grid, one entry in 7,000 agrees by chance
        "every key byte counts": 0.0,
        "largest influence": 1.0 + 1e-6,
        "denominator": 0.01,
        "empty batch": 0.01,  # as for repeated noise: an entry may be 0
        "longest vector on the grid": 1.0,
        "sum on the grid": 0.0,
        "events and noise calls": 0.0,
    }
)
"""Name of each other test, and the largest statistic that passes."""

_LARGEST = 1e9


@dataclass(frozen=True)
class Result:
    """One test of one path. All fields are public.

    Attributes:
      test: ``A1`` to ``A8``.
      name: What of it.
      n: Draws, or cases tried.
      p_value: ``None`` where the test does not go by chance.
      threshold: Smallest p-value that passes; without chance, the largest statistic.
    """

    test: str
    name: str
    n: int
    statistic: float
    p_value: float | None
    threshold: float
    passed: bool

    def to_json(self) -> dict[str, Any]:
        """Returns the object of a report (``conformance_test``)."""
        return {
            "test": self.test,
            "name": self.name,
            "n": self.n,
            "statistic": figure(self.statistic),
            "p_value": None if self.p_value is None else figure(self.p_value),
            "threshold": figure(self.threshold),
            "passed": self.passed,
        }


def chance(test: str, name: str, found: Measured, error: float) -> Result:
    """Judges a statistic by its p-value, which must not be below ``error``."""
    return Result(test, name, found.n, _written(found.statistic), found.p_value, error, found.p_value >= error)


def certain(test: str, name: str, n: int, statistic: float) -> Result:
    """Judges a statistic that is right or wrong without chance; what is no number is wrong."""
    written = _written(statistic)
    return Result(test, name, n, written, None, LIMITS[name], written <= LIMITS[name])


def _written(statistic: float) -> float:
    """A report has no word for infinity."""
    return max(-_LARGEST, min(statistic, _LARGEST)) if not math.isnan(statistic) else _LARGEST
