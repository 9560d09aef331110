"""A lower bound of epsilon that believes scores to be two Gaussians of one variance, a canary's mean apart.

Parametric: valid only where the noise is Gaussian, which a test of shape has to show first. Then it is far stronger
than counting right guesses: it asks how far apart the means are, not on which side of a threshold scores fall.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import erfcx, ndtr, ndtri
from scipy.stats import kstwo


@dataclass(frozen=True)
class Pair:
    """What the bound needs to know of the scores; all fields are public.

    Attributes:
      n_in: Canaries that were in, at least 2.
      n_out: Canaries that were left out, at least 2.
      mean_in: Mean score of those that were in.
      mean_out: Mean score of those that were left out.
      variance: Pooled over both, unbiased.
    """

    n_in: int
    n_out: int
    mean_in: float
    mean_out: float
    variance: float


def pair_of(scores: npt.NDArray[np.float64], included: npt.NDArray[np.bool_]) -> Pair:
    """Condenses scores to the two Gaussians.

    Args:
      scores: Shape ``(m,)``, finite.
      included: Shape ``(m,)``; which canaries were in.

    Raises: ValueError: Fewer than two canaries were in, or fewer than two out.
    """
    inside, outside = scores[included], scores[~included]
    if min(inside.size, outside.size) < 2:
        raise ValueError("two Gaussians need two canaries each")
    squares = float(np.sum((inside - inside.mean()) ** 2) + np.sum((outside - outside.mean()) ** 2))
    variance = squares / (scores.size - 2)
    return Pair(inside.size, outside.size, float(inside.mean()), float(outside.mean()), variance)


def lower(pair: Pair, delta: float, confidence: float = 0.95) -> float:
    """Returns the epsilon that the noise exceeds with this confidence, if scores are Gaussian.

    The estimate of ``mu``, the difference of means over the standard deviation, has variance ``1 / n_in + 1 / n_out +
    mu^2 / 2m`` up to smaller terms: its first part is the means', its last the standard deviation's.

    Args:
      pair: Statistics of one release.
      delta: 0 < delta < 1.
      confidence: One-sided, between 0 and 1.

    Returns: epsilon >= 0; infinite where scores do not vary at all.
    See: Agrawal et al., "Let's Ask Gauss", arXiv 2606.12733, for the idea; the variance is Hedges's, for a
      standardised difference of means (Journal of Educational Statistics 6, 1981).
    """
    distance = pair.mean_in - pair.mean_out
    if distance <= 0:
        return 0.0
    if pair.variance <= 0:
        return math.inf
    mu = distance / math.sqrt(pair.variance)
    error = math.sqrt(1 / pair.n_in + 1 / pair.n_out + mu**2 / (2 * (pair.n_in + pair.n_out)))
    return epsilon_of(mu - float(ndtri(confidence)) * error, delta)


def epsilon_of(mu: float, delta: float) -> float:
    """Returns the epsilon at delta of one Gaussian release whose noise is ``1 / mu`` times the sensitivity.

    Solves ``Phi(-a) - e^epsilon Phi(-b) = delta`` with ``a = epsilon / mu - mu / 2`` and ``b = a + mu``. Since ``b^2 -
    a^2 = 2 epsilon``, the second term is ``e^(-a^2 / 2) erfcx(b / sqrt 2) / 2``, which cannot overflow.

    Args:
      mu: At most 0 is no privacy lost.
      delta: 0 < delta < 1.

    See: Balle and Wang, ICML 2018, theorem 8; Dong, Roth and Su, JRSS B 2022, corollary 1.
    """

    def excess(epsilon: float) -> float:
        a = epsilon / mu - mu / 2
        return float(ndtr(-a) - math.exp(-a * a / 2) * erfcx((a + mu) / math.sqrt(2)) / 2) - delta

    if mu <= 0:
        return 0.0
    if math.isinf(mu):
        return math.inf
    if excess(0.0) <= 0:
        return 0.0
    high = 1.0
    while excess(high) > 0:
        high *= 2
    return float(brentq(excess, 0.0, high, xtol=1e-12, maxiter=1000))


@dataclass(frozen=True)
class Shape:
    """Outcome of the test that has to pass before the bound is used; all fields are public.

    Attributes:
      n: Draws of noise.
      statistic: Largest distance of their distribution from the normal one of their own mean and deviation.
      p_value: Kolmogorov-Smirnov's.
    """

    n: int
    statistic: float
    p_value: float

    @property
    def passed(self) -> bool:
        """Whether noise may be taken for Gaussian."""
        return self.p_value >= SHAPE_LEVEL


SHAPE_LEVEL = 0.01
"""Least p-value of noise that is taken for Gaussian.

Mean and deviation are fitted to the same draws, so true Gaussians fall below it about three times in a million.
"""


def shape_of(noise: npt.NDArray[np.float64]) -> Shape:
    """Tests draws of pure noise for normality, whatever their scale.

    Args:
      noise: Shape ``(n,)``, n > 0: what a release of nothing shows. Noise that does not vary fails.

    See: Kolmogorov-Smirnov with fitted parameters, which is conservative: Lilliefors, JASA 62 (1967).
    """
    ordered = np.sort(noise)
    spread = float(ordered.std())
    if not spread > 0:
        return Shape(noise.size, 1.0, 0.0)
    expected = ndtr((ordered - ordered.mean()) / spread)
    ranks = np.arange(noise.size + 1) / noise.size
    statistic = float(max(np.max(ranks[1:] - expected), np.max(expected - ranks[:-1])))
    return Shape(noise.size, statistic, shape_p_value(noise.size, statistic))


def shape_p_value(n: int, statistic: float) -> float:
    """Returns the probability that ``n`` true draws lie at least that far from their law."""
    return float(kstwo.sf(statistic, n))
