"""Lower bounds of epsilon from one run: how many of ``m`` coin flips an attacker guessed right.

Every canary was in or out by a fair coin. The attacker scores them, guesses "in" for the highest, perhaps "out" for
the lowest, and abstains otherwise: ``r`` guesses, ``v`` of them right. Differential privacy limits how many can be.

Which scores to guess for is fixed beforehand (``GRID``); trying several is paid for by Bonferroni's inequality. Each
bound holds with confidence ``1 - alpha`` by itself, not all of them at once.

See: Steinke, Nasr and Jagielski, NeurIPS 2023 (arXiv 2305.08846); Mahloujifar, Melis and Chaudhuri, ICML 2025 (arXiv
2410.22235).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri
from scipy.stats import binom

from privacy.attacks.gaussian_pair import epsilon_of

Sides = Literal[1, 2]
_ONE: Sides = 1
_BOTH: Sides = 2

_FRACTIONS = tuple(Decimal(fraction) for fraction in ("0.02", "0.05", "0.1", "0.2", "0.35"))

GRID: tuple[tuple[Decimal, Sides], ...] = (
    *((fraction, sides) for fraction in _FRACTIONS for sides in (_ONE, _BOTH)),
    (Decimal("0.5"), _BOTH),
)
"""The 11 strategies that are tried for ``steinke``: the fraction of the canaries to guess for on a side; sides."""

FDP_GRID: tuple[tuple[Decimal, Sides], ...] = ((Decimal("0.1"), _BOTH), (Decimal("0.2"), _BOTH))
"""The two of them that ``fdp`` uses: fewer, so that each pays less for having been tried."""


@dataclass(frozen=True)
class Guesses:
    """What one strategy of the grid achieved; all fields are public.

    Attributes:
      fraction: Of the canaries, on each side that is guessed for.
      sides: 1 guesses "in" for the highest scores; 2 guesses also "out" for the lowest.
      guesses: r.
      correct: v.
    """

    fraction: Decimal
    sides: Sides
    guesses: int
    correct: int


def tally(
    scores: npt.NDArray[np.float64],
    included: npt.NDArray[np.bool_],
    grid: Iterable[tuple[Decimal, Sides]] = GRID,
) -> tuple[Guesses, ...]:
    """Counts right guesses, strategy by strategy.

    Ties go against the attacker: among equal scores those left out count as the higher ones, so they are the first to
    be guessed "in" and the last to be guessed "out". What scores cannot tell apart thus never earns a right guess that
    a coin would not.

    Args:
      scores: Shape ``(m,)``, no NaN; high means "in".
      included: Shape ``(m,)``; which canaries were in.
      grid: Strategies, fixed before the scores were seen.

    Raises: ValueError: A score is NaN, or shapes differ.
    """
    if scores.shape != included.shape or scores.ndim != 1 or np.isnan(scores).any():
        raise ValueError("every canary needs a score that is a number")
    highest_first = included[np.lexsort((included, -scores))]
    return tuple(_guessed(highest_first, fraction, sides) for fraction, sides in grid)


def _guessed(highest_first: npt.NDArray[np.bool_], fraction: Decimal, sides: Sides) -> Guesses:
    m = highest_first.size
    k = int(fraction * m)
    correct = int(highest_first[:k].sum())
    if sides == _BOTH:
        correct += int((~highest_first[m - k :]).sum())
    return Guesses(fraction, sides, sides * k, correct)


def p_value(m: int, r: int, v: int, epsilon: float, delta: float) -> float:
    """Bounds the probability of ``v`` or more right guesses under (epsilon, delta)-differential privacy.

    With ``W`` binomial of ``r`` trials at ``q = e^epsilon / (1 + e^epsilon)``, the bound is ``beta + 2 m delta alpha``,
    where ``beta = P[W >= v]`` and ``alpha`` is the largest of ``(P[W >= v - i] - beta) / i`` for i from 1 to v.

    Args:
      m: Canaries.
      r: Guesses, at most m.
      v: Right ones, at most r.
      epsilon: At least 0.
      delta: At least 0.

    See: Steinke, Nasr and Jagielski 2023, theorem 5.2.
    """
    q = 1 / (1 + math.exp(-epsilon))
    beta = float(binom.sf(v - 1, r, q))
    if v == 0 or delta == 0:
        return min(1.0, beta)
    i = np.arange(1, v + 1)
    alpha = max(0.0, float(np.max((binom.sf(v - i - 1, r, q) - beta) / i)))
    return min(1.0, beta + 2 * m * delta * alpha)


def steinke(m: int, guesses: Sequence[Guesses], delta: float, alpha: float = 0.05) -> float:
    """Returns the largest epsilon that some strategy rejects, each at ``alpha`` over their number.

    Args:
      m: Canaries.
      guesses: All strategies that were tried.
      delta: 0 <= delta < 1.
      alpha: Probability that the bound is wrong.

    Returns: epsilon >= 0; 0 where not even that is rejected.
    """
    level = alpha / len(guesses)
    best = 0.0
    for one in guesses:

        def margin(epsilon: float, one: Guesses = one) -> float:
            return level - p_value(m, one.guesses, one.correct, epsilon, delta)

        best = _largest(margin, best)
    return best


def fdp_mu(m: int, r: int, v: int, p: float) -> float:
    """Returns the largest mu that is refuted at level ``p``; 0 where none is."""
    return _largest(lambda mu: _fdp_margin(m, r, v, mu, p), 0.0)


def fdp(m: int, guesses: Sequence[Guesses], delta: float, alpha: float = 0.05) -> float:
    """Returns the epsilon at delta of the largest mu that a strategy of ``FDP_GRID`` refutes, each at ``alpha / 2``.

    Args:
      m: Canaries.
      guesses: Strategies that were tried; others than those of ``FDP_GRID`` do not take part.
      delta: 0 < delta < 1.
      alpha: Probability that the bound is wrong.

    Returns: epsilon >= 0; a lower bound for mechanisms whose trade-off curve is a Gaussian's.
    Raises: ValueError: A strategy of ``FDP_GRID`` is missing.
    """
    tried = {(one.fraction, one.sides): one for one in guesses}
    if not tried.keys() >= set(FDP_GRID):
        raise ValueError("the strategies of FDP_GRID were not tried")
    level = alpha / len(FDP_GRID)
    mu = max(fdp_mu(m, tried[one].guesses, tried[one].correct, level) for one in FDP_GRID)
    return epsilon_of(mu, delta)


def ceiling(m: int, delta: float, alpha: float = 0.05) -> tuple[float, float]:
    """Returns what ``steinke`` and ``fdp`` would be were every guess right: no audit of this size can show more."""
    right = tuple(Guesses(fraction, sides, n, n) for fraction, sides in GRID for n in [sides * int(fraction * m)])
    return steinke(m, right, delta, alpha), fdp(m, right, delta, alpha)


def _fdp_margin(m: int, r: int, v: int, mu: float, p: float) -> float:
    """Above 0 exactly if the claim is refuted.

    ``right`` and ``wrong`` bound the probability mass of runs with at least i right guesses, over m and weighted by
    right and wrong guesses; the trade-off curve makes them grow as i falls from v to 0, until they are more than all.

    See: Mahloujifar, Melis and Chaudhuri 2025, the algorithm for reconstruction with a cap on guesses.
    """
    right, wrong = p * v / m, p * (r - v) / m
    for i in range(v - 1, -1, -1):
        grown = max(wrong, float(ndtr(ndtri(right) - mu)))
        if grown == wrong:
            break
        right, wrong = min(1.0, right + i / (r - i) * (grown - wrong)), grown
    return right + wrong - r / m


def _largest(margin: Callable[[float], float], at_least: float) -> float:
    """Returns where a falling function crosses 0, if that is above ``at_least``; otherwise ``at_least``."""
    if margin(at_least) <= 0:
        return at_least
    low, high = at_least, max(1.0, 2 * at_least)
    while margin(high) > 0:
        low, high = high, 2 * high
    return float(brentq(margin, low, high, xtol=1e-10))
