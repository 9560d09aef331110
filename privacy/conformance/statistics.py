"""The tests that go by chance: each a statistic, and its p-value as a closed form of that and of the number of draws.

So whoever holds a report can compute every p-value again. Under the null hypothesis, which is correct code, a p-value
lies below ``a`` with probability ``a``.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import chdtr, chdtrc, kolmogorov, ndtr

Draws = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """A statistic of ``n`` draws and its p-value."""

    n: int
    statistic: float
    p_value: float


def chi_square(n: int, ratio: float) -> float:
    """Returns the two-sided p-value of ``n * ratio`` under chi-square with n degrees of freedom.

    Args:
      n: Independent variables of mean 0.
      ratio: Mean of their squares over their variance; 1 on average.
    """
    return min(1.0, 2.0 * float(min(chdtr(n, n * ratio), chdtrc(n, n * ratio))))


def kolmogorov_smirnov(n: int, distance: float) -> float:
    """Returns the p-value of the largest distance between n draws' distribution function and the true one.

    See: Stephens, JRSS B 32 (1970), for the correction of the limit law at finite n.
    """
    return float(kolmogorov((math.sqrt(n) + 0.12 + 0.11 / math.sqrt(n)) * distance))


def no_correlation(n: int, r: float) -> float:
    """Returns the two-sided p-value of a correlation of n pairs, ``r sqrt(n)`` being normal in the limit."""
    return 2.0 * float(ndtr(-abs(r) * math.sqrt(n)))


def spread(x: Draws, scale: float) -> Measured:
    """Tests that draws of mean 0 have a standard deviation.

    Args:
      x: Any shape; independent normals, or sums of very many coins.
      scale: The standard deviation, > 0.
    """
    ratio = float(np.square(x / scale).mean())
    return Measured(x.size, ratio, chi_square(x.size, ratio))


def normality(x: Draws, scale: float) -> Measured:
    """Tests that draws are ``N(0, scale^2)`` by Kolmogorov and Smirnov's distance.

    Args:
      x: Any shape, independent; on a grid only if that is far finer than ``scale / sqrt(n)``.
      scale: Standard deviation, > 0.
    """
    n, below = x.size, ndtr(np.sort(x, axis=None) / scale)
    steps = np.arange(n + 1) / n
    distance = float(max((steps[1:] - below).max(), (below - steps[:-1]).max()))
    return Measured(n, distance, kolmogorov_smirnov(n, distance))


def correlation(x: Draws, y: Draws) -> Measured:
    """Tests that pairs of draws of mean 0 are uncorrelated; draws without any spread count as correlated."""
    size = math.sqrt(float(np.square(x).sum()) * float(np.square(y).sum()))
    r = float((x * y).sum()) / size if size > 0 else 1.0
    return Measured(x.size, r, no_correlation(x.size, r))
