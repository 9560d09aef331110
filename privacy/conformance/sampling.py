"""A5 and A6: that batches are drawn as declared, and that nothing is divided by how many units came up.

Units fall into 16 groups, each with an entry of its own, in which every unit has half the clip. What the same keys make
of that, less what they make of zeros, is how many of each group took part.
"""

import math
from decimal import Decimal

import numpy as np

from privacy.conformance.path import PathOf, ReleasePath, Replayed, Vectors, keys_of, zeros
from privacy.conformance.results import Result, certain, chance
from privacy.conformance.statistics import spread
from privacy.dp.noise import Entropy

GROUPS = 16
DRAWS = 16
_EXPECTED = 24  # variance of a batch size: the normal limit is near, and two draws hardly ever agree
_ROUNDING = 2.0**-20


def n_units(rate: float | None) -> int:
    """Returns how many units the tests need for batches of enough variety; a multiple of 16.

    Args:
      rate: Of Poisson sampling; ``None`` where all units take part.
    """
    return GROUPS if rate is None else GROUPS * math.ceil(_EXPECTED / (rate * (1.0 - rate)) / GROUPS)


def within_reach(rate: Decimal) -> Decimal:
    """Returns the rate that is tested: the declared one, or the nearest from 0.02 to 0.98.

    Rarer units would take more of them than a test at every start has time for; the code is the same.
    """
    return min(max(rate, Decimal("0.02")), Decimal("0.98"))


def denominator_test(path_of: PathOf, entropy: Entropy) -> Result:
    """Tests that a unit in a full batch counts as one; the statistic is the largest difference from that."""
    path = path_of(GROUPS, n_units(None))
    values, rounding = _counts(path, entropy)
    return certain("A5", "denominator", 1, _beyond(values - path.n_units / GROUPS, rounding))


def sampler_tests(path_of: PathOf, rate: float, entropy: Entropy, error: float) -> list[Result]:
    """Tests Poisson sampling: batch sizes vary as sums of coins do, no unit comes up again and again.

    Args:
      path_of: Builds the path.
      rate: Of the sampling, in (0, 1).
      entropy: Randomness.
      error: Of each test that goes by chance.
    """
    path = path_of(GROUPS, n_units(rate))
    found = [_counts(path, entropy) for _ in range(DRAWS)]
    counts = np.stack([values for values, _ in found])
    partial = max(_beyond(values - np.rint(values), rounding) for values, rounding in found)
    variance = rate * (1.0 - rate) * path.n_units
    sizes = counts.sum(axis=1) - rate * path.n_units
    takings = counts.sum(axis=0) - rate * path.n_units * DRAWS / GROUPS
    return [
        certain("A5", "denominator", DRAWS, partial),
        chance("A6", "batch sizes", spread(sizes, math.sqrt(variance)), error),
        chance("A6", "takings of each group", spread(takings, math.sqrt(variance * DRAWS / GROUPS)), error),
    ]


def _counts(path: ReleasePath, entropy: Entropy) -> tuple[Vectors, float]:
    """Returns how many of each group took part, shape ``(16,)``, and how far that may be rounded."""
    rows, keys = zeros(path), keys_of(path, entropy)
    rows[np.arange(path.n_units), np.arange(path.n_units) % GROUPS] = float(path.plan.clip) / 2
    some, nothing = path.release(rows, Replayed(keys)), path.release(zeros(path), Replayed(keys))
    return 2.0 * (some - nothing), _ROUNDING * float(np.abs(some).max() + np.abs(nothing).max())


def _beyond(differences: Vectors, rounding: float) -> float:
    return max(0.0, float(np.abs(differences).max()) - rounding)
