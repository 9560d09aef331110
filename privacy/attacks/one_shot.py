"""Canary sites in one run: how well the trained model still shows which random directions they pulled in.

Each canary site sends a random unit vector of length C. Its score is the cosine of that vector and of all that the
training changed. Were a site not there, the cosine would be close to N(0, 1/d); the scores of those that are there are
fitted by another normal law, and what separates the two laws is the estimate. An estimate, not a bound.

See: Andrew et al., "One-shot Empirical Privacy Estimation for Federated Learning", ICLR 2024 (arXiv 2302.03098).
"""

import math

from scipy.optimize import brentq
from scipy.special import log_ndtr


def estimate(mean: float, sd: float, dimension: int, delta: float) -> float:
    """Returns the epsilon at delta between ``N(mean, sd^2)`` and ``N(0, 1/dimension)``, the worse of both directions.

    Args:
      mean: Of the canaries' cosines.
      sd: Their standard deviation, > 0.
      dimension: Parameters of the model; the cosine of unseen directions is normal up to terms of order 1/d.
      delta: 0 < delta < 1.

    Returns: epsilon >= 0.
    Raises: ValueError: The standard deviation is not positive.
    """
    if sd <= 0:
        raise ValueError("canaries that all score the same have no law to fit")
    null = 1 / math.sqrt(dimension)
    there = _epsilon(mean / null, sd / null, delta)
    return max(there, _epsilon(-mean / sd, null / sd, delta))


def _epsilon(mean: float, sd: float, delta: float) -> float:
    """Returns where ``P[L > epsilon] - e^epsilon Q[L > epsilon]`` falls to delta, P = N(mean, sd^2) and Q = N(0, 1)."""

    def excess(epsilon: float) -> float:
        likely = _where_likelier(mean, sd, epsilon)
        gained = sum(math.exp(_log_mass((low - mean) / sd, (high - mean) / sd)) for low, high in likely)
        return gained - sum(math.exp(epsilon + _log_mass(low, high)) for low, high in likely) - delta

    if excess(0.0) <= 0:
        return 0.0
    high = 1.0
    while excess(high) > 0:
        high *= 2
    return float(brentq(excess, 0.0, high, xtol=1e-10, maxiter=1000))


def _where_likelier(mean: float, sd: float, epsilon: float) -> list[tuple[float, float]]:
    """Returns the intervals where P is more than ``e^epsilon`` times as dense as Q: ``ax^2 + bx + c < 0``."""
    a, b = 1 / sd**2 - 1, -2 * mean / sd**2
    c = (mean / sd) ** 2 + 2 * (epsilon + math.log(sd))
    if a == 0:
        return [] if b == 0 else [(-c / b, math.inf) if b < 0 else (-math.inf, -c / b)]
    discriminant = b * b - 4 * a * c
    if discriminant <= 0:
        return []
    # The root without cancellation first; the product of both is c / a.
    half = -(b + math.copysign(math.sqrt(discriminant), b)) / 2
    low, high = sorted((half / a, c / half))
    return [(low, high)] if a > 0 else [(-math.inf, low), (high, math.inf)]


def _log_mass(low: float, high: float) -> float:
    """Returns the logarithm of the mass of N(0, 1) between two points, computed in the nearer tail."""
    if low > 0:
        low, high = -high, -low
    upper, lower = float(log_ndtr(high)), float(log_ndtr(low))
    return upper + math.log1p(-math.exp(lower - upper)) if lower < upper else -math.inf
