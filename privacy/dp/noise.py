"""Gaussian noise rounded to integers, and Poisson sampling masks, from the operating system's randomness.

Guarantee and its limit: bits come from AES-128 in counter mode under a fresh key for every call, never from ``--seed``
and never from torch's or numpy's default generators (whose seeds hold 32 bits; privacy-audit corrections, 2). The
normal variates are float64, so a claim that rests on them is *asserted*, not proved; the sum they join is exact.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from randomgen import AESCounter

Entropy = Callable[[int], bytes]
"""Returns that many random bytes. In production ``secrets.token_bytes``, and nothing else; tests pass their own."""

_KEY_BYTES = 16


def rounded_gaussian(sigma: float, size: int, entropy: Entropy) -> npt.NDArray[np.int64]:
    """Draws independent integers ``round(N(0, sigma^2))``.

    Rounding the sum of an integer and a Gaussian is rounding the Gaussian alone, so adding these integers to an
    integer sum is post-processing of the Gaussian mechanism (privacy-audit corrections, 4).

    Args:
      sigma: Standard deviation in grid units, > 0 and below 2^50.
      size: Number of draws.
      entropy: Source of the key.

    Returns: Shape ``(size,)``. Secret.
    """
    if not 0 < sigma < 2.0**50:
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
    # A key per call: nothing survives a fork, a crash or a repeated round.
    return np.random.Generator(AESCounter(key=int.from_bytes(entropy(_KEY_BYTES), "big")))
