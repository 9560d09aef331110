"""Integer noise and Poisson sampling masks, from the operating system's randomness.

Guarantee and its limit: bits come from AES in counter mode under a fresh key for every call, never from ``--seed``
and never from torch's or numpy's default generators (whose seeds hold 32 bits; docs/privacy-rules.md, 2). Nothing
random is kept between calls, so nothing repeats after a fork, a crash or a retry.

The ``_exact`` functions have exactly the distribution that they name (``privacy.dp.exact``). ``rounded_gaussian`` goes
through float64 normals: a claim that rests on it is *asserted*, not proved; the sum it joins is exact either way.
"""

import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from randomgen import AESCounter

from privacy.dp.exact import KEY_BYTES, RoundedGaussian, Skellam, draws

Entropy = Callable[[int], bytes]
"""Returns that many random bytes. In production ``secrets.token_bytes``, and nothing else; tests pass their own."""

Number: TypeAlias = float | Decimal | Fraction

EXACT_UP_TO = 2**20
"""Draws a step up to which exact noise is the default: 30 ns each, against 14 ns through float64 (``make bench``).

So exactness costs a step of a million parameters 16 ms, about what clipping and summing one more record does. Public.
"""

_SIGMA_BELOW = 2.0**50
_CHEAP_SIGMA = 2.0**30  # above it, more than one draw in 4,000 is settled one by one, at a millisecond each
_VARIANCE_BELOW = 2.0**30
_VARIANCE_OF_PART = 2**24  # the largest table: 37,000 entries


def rounded_gaussian_exact(sigma: Number, size: int, entropy: Entropy) -> npt.NDArray[np.int64]:
    """Draws independent integers, ``P(k) = Phi((k + 1/2) / sigma) - Phi((k - 1/2) / sigma)`` exactly.

    This is ``round(N(0, sigma^2))``. Rounding the sum of an integer and a Gaussian is rounding the Gaussian alone, so
    adding these integers to an integer sum is post-processing of the Gaussian mechanism (docs/privacy-rules.md, 4).

    Args:
      sigma: Standard deviation of the Gaussian in grid units, > 0 and below 2^50, taken at its exact value.
      size: Number of draws.
      entropy: Source of the key.

    Returns: Shape ``(size,)``. Secret.
    """
    return draws(RoundedGaussian(_in_range(sigma, _SIGMA_BELOW, "sigma")), size, entropy(KEY_BYTES))


def skellam_exact(variance: Number, size: int, entropy: Entropy) -> npt.NDArray[np.int64]:
    """Draws independent integers, each the difference of two Poisson variables of mean ``variance / 2``, exactly.

    Sums of independent Skellam variables are Skellam, variances adding up; large variances are drawn that way, in
    equal parts of at most 2^24 that have their own keys.

    Args:
      variance: Of each draw, lattice units squared, > 0 and below 2^30, taken at its exact value.
      size: Number of draws.
      entropy: Source of the keys.

    Returns: Shape ``(size,)``. Secret.
    """
    exact = _in_range(variance, _VARIANCE_BELOW, "variance")
    parts = math.ceil(exact / _VARIANCE_OF_PART)
    law, total = Skellam(exact / parts), np.zeros(size, dtype=np.int64)
    for _ in range(parts):
        total += draws(law, size, entropy(KEY_BYTES))
    return total


def exact_is_cheap(sigma: Number, size: int) -> bool:
    """Says whether so many exact draws cost a training step little; all arguments are public."""
    return size <= EXACT_UP_TO and sigma <= _CHEAP_SIGMA


def rounded_gaussian(sigma: float, size: int, entropy: Entropy) -> npt.NDArray[np.int64]:
    """Draws independent integers ``round(N(0, sigma^2))`` through float64 normals.

    Args:
      sigma: Standard deviation in grid units, > 0 and below 2^50.
      size: Number of draws.
      entropy: Source of the key.

    Returns: Shape ``(size,)``. Secret.
    """
    if not 0 < sigma < _SIGMA_BELOW:
        raise ValueError("sigma is out of range")
    return np.rint(sigma * _generator(entropy).standard_normal(size)).astype(np.int64)


def poisson_mask(rate: float, size: int, entropy: Entropy) -> npt.NDArray[np.bool_]:
    """Tosses one coin per record: truly Poisson, empty batches included.

    Args:
      rate: Probability that a record enters, in (0, 1].
      size: Number of records.
      entropy: Source of the key.

    Returns: Shape ``(size,)``. Secret: the amplification it buys holds only while nobody learns it.
    """
    return np.asarray(_generator(entropy).random(size) < rate, dtype=np.bool_)


def _generator(entropy: Entropy) -> np.random.Generator:
    return np.random.Generator(AESCounter(key=int.from_bytes(entropy(16), "big")))


def _in_range(value: Number, below: float, name: str) -> Fraction:
    if not (math.isfinite(value) and 0 < value < below):
        raise ValueError(f"{name} is out of range")
    return Fraction(value)
