"""Was this record trained on? Scores of members against scores of others, as counts, beside what DP allows.

See: Yeom et al., CSF 2018 (the loss attack); Carlini et al., S&P 2022 (true positives at few false ones); Kairouz, Oh
and Viswanath, ICML 2015, theorem 2.1 (the ceiling).
"""

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

Counts: TypeAlias = tuple[tuple[int, int], ...]
"""False and true positives at each threshold, from the strictest on; the last threshold accepts everybody."""

MAX_THRESHOLDS = 1000


def roc(member_scores: npt.NDArray[np.float64], other_scores: npt.NDArray[np.float64]) -> Counts:
    """Counts who scores at least as high as each threshold.

    Args:
      member_scores: Shape ``(n,)``, no NaN; high means "member".
      other_scores: Shape ``(k,)``, no NaN.

    Returns: One pair a distinct score; beyond ``MAX_THRESHOLDS`` an even choice of them that keeps the last.
    Raises: ValueError: There is nobody to compare, or a score is NaN.
    """
    both = np.concatenate([member_scores, other_scores])
    if not member_scores.size or not other_scores.size or np.isnan(both).any():
        raise ValueError("members and others each need scores that are numbers")
    thresholds = np.unique(both)[::-1]
    if thresholds.size > MAX_THRESHOLDS:
        thresholds = thresholds[np.linspace(0, thresholds.size - 1, MAX_THRESHOLDS).round().astype(np.int64)]
    false = _at_least(other_scores, thresholds)
    true = _at_least(member_scores, thresholds)
    return tuple(zip(false, true, strict=True))


def auc(counts: Counts) -> float:
    """Returns the area under the curve through the counts: the chance that a member outscores another, ties halved."""
    false, true = (np.concatenate([[0], column]) for column in np.array(counts).T)
    return float(np.sum(np.diff(false) * (true[1:] + true[:-1])) / 2 / (false[-1] * true[-1]))


def tpr_at(fpr: float, counts: Counts) -> tuple[int, int]:
    """Returns false and true positives of the least strict threshold with at most that rate of false ones.

    The threshold follows from the others' scores alone, so true positives stay binomial beside it.
    """
    others = counts[-1][0]
    allowed = [point for point in counts if point[0] <= fpr * others]
    return allowed[-1] if allowed else (0, 0)


def clopper_pearson(k: int, n: int, alpha: float) -> tuple[float, float]:
    """Returns the interval that holds a rate with confidence ``1 - alpha``, ``alpha / 2`` on each side.

    Args:
      k: Successes, at most n.
      n: Trials, at least 1.
      alpha: Between 0 and 1.

    See: Clopper and Pearson, Biometrika 26 (1934).
    """
    low = 0.0 if k == 0 else float(betaincinv(k, n - k + 1, alpha / 2))
    high = 1.0 if k == n else float(betaincinv(k + 1, n - k, 1 - alpha / 2))
    return low, high


def dp_ceiling(fpr: float, epsilon: float, delta: float) -> float:
    """Returns the largest rate of true positives that (epsilon, delta)-differential privacy allows beside ``fpr``."""
    from_false = fpr * math.exp(min(epsilon, 700.0)) + delta
    from_missed = 1 - math.exp(-epsilon) * (1 - delta - fpr)
    return max(0.0, min(1.0, from_false, from_missed))


def _at_least(scores: npt.NDArray[np.float64], thresholds: npt.NDArray[np.float64]) -> Sequence[int]:
    ordered = np.sort(scores)
    return [int(n) for n in ordered.size - np.searchsorted(ordered, thresholds, side="left")]
