"""Exact integer noise by lazy inversion: as many random bits as it takes to be sure which integer a draw is.

A draw is a sign, one fair bit, and a magnitude. Let ``F(k)`` be the probability that the magnitude is at most ``k``.
For a real U, uniform on [0, 1), the number of ``k`` with ``F(k) <= U`` has exactly the wanted distribution. U is not
real here: only its first 63 bits are drawn, so U lies in a known cell. Where the whole cell lies between ``F(k - 1)``
and ``F(k)``, no further bit of U can change the answer, and ``k`` is the draw; otherwise 64 more bits are drawn,
until it does. Nothing is cut off: the tails have their exact mass. So the output is exact if the bits are
fair and no law ever answers for a cell that holds some ``F(k)``. That needs three bounds, each with a test:

1. ``RoundedGaussian.guess``: the error of ``scipy.special.ndtri`` on [2^-20, 1/2] is at most 2^-47 (1 + |z|).
   Cephes, where it comes from, states a relative error of 7e-16; the tests find below 2^-51 (1 + |z|).
2. ``RoundedGaussian.settle``: mpmath's ``erf`` with p bits of precision is right to 2^-(p - 64).
3. ``cumulative``: proved there, in integers.

Bits come from AES-256 in counter mode under a key that serves one call. The time a call takes depends on the draws
(table look-up, and a slow decision about once in 2^19 draws): whoever can time single draws learns about them.

See: Devroye, Non-Uniform Random Variate Generation (1986), II.2 and XIV.2; the Skellam mechanism: Agarwal, Kairouz
and Liu, NeurIPS 2021.
"""

import bisect
import functools
import itertools
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import mpmath
import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from scipy.special import ndtri

KEY_BYTES = 32
_FIRST = 63  # bits of U in the first word; the 64th is the sign
_PIECE = 2**16  # draws at a time, so that the working set stays in cache
_ZEROS = bytes(8 * _PIECE)

Integers = npt.NDArray[np.int64]


class Law(Protocol):
    """Distribution of a magnitude, a whole number >= 0; fields are public, what passes through is secret."""

    def guess(self, u: Integers) -> tuple[Integers, npt.NDArray[np.bool_]]:
        """Returns the magnitude for each cell ``[u, u + 1) / 2^63``, and whether it is sure; both of u's shape."""

    def settle(self, u: int, bits: int) -> int | None:
        """Returns the magnitude for the cell ``[u, u + 1) / 2^bits``, or ``None`` where more bits are needed."""


def draws(law: Law, size: int, key: bytes) -> Integers:
    """Draws independent integers: magnitudes by ``law``, each with a fair sign.

    Args:
      law: Public.
      size: How many.
      key: 32 bytes that serve this one call. Secret.

    Returns: Shape ``(size,)``. Secret.
    """
    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    out = np.empty(size, dtype=np.int64)
    for start in range(0, size, _PIECE):
        piece = out[start : start + _PIECE]
        words = np.frombuffer(stream.update(_ZEROS[: piece.nbytes]), dtype="<u8")
        u = (words >> np.uint64(1)).astype(np.int64)
        magnitudes, sure = law.guess(u)
        for place in np.flatnonzero(~sure):
            magnitudes[place] = _settled(law, int(u[place]), stream)
        piece[:] = np.where(words & np.uint64(1), -magnitudes, magnitudes)
    return out


def _settled(law: Law, u: int, stream: CipherContext) -> int:
    bits = _FIRST
    while (magnitude := law.settle(u, bits)) is None:
        u, bits = u << 64 | int.from_bytes(stream.update(bytes(8)), "little"), bits + 64
    return magnitude


@dataclass(frozen=True)
class RoundedGaussian:
    """``|round(sigma Z)|`` for a standard normal Z: ``F(k) = erf((k + 1/2) / (sigma sqrt 2))``, no table.

    Attributes:
      sigma: Above 0, below 2^50; fast below about 2^30 (``guess`` is unsure about once in 2^42 / sigma draws).
    """

    sigma: Fraction

    def guess(self, u: Integers) -> tuple[Integers, npt.NDArray[np.bool_]]:
        """See ``Law``. Sure where ``sigma |Z|`` rounds to one integer from end to end of its error interval.

        The interval is ``sigma (z ± 2^-44 (1 + z))``. It covers 2^-47 (1 + z) of ``ndtri`` (bound 1 above), half a
        cell, which moves z by 2^-65 / density(z) < 2^-47 where the tail is at least 2^-20, and six roundings to
        float64, each below 2^-52 (1 + z): together less than half of it. Rarer tails are left to ``settle``.
        """
        tail = ((u ^ (2**_FIRST - 1)).astype(np.float64) + 0.5) * 2.0**-64  # P(Z > z), from the middle of the cell
        z = -ndtri(tail)
        centre, error = float(self.sigma) * z, float(self.sigma) * 2.0**-44 * (1.0 + z)
        low, high = np.rint(centre - error), np.rint(centre + error)
        return high.astype(np.int64), (low == high) & (tail >= 2.0**-20)

    def settle(self, u: int, bits: int) -> int | None:
        """See ``Law``. The candidate need not be trusted: it is held against ``F`` on both sides (bound 2 above)."""
        context = mpmath.MPContext()  # of its own: mpmath's global precision is shared by all threads
        context.prec = bits + 96
        width = context.mpf(self.sigma.numerator) / self.sigma.denominator * context.sqrt(8)
        low, high = context.ldexp(u, -bits), context.ldexp(u + 1, -bits)
        margin = context.ldexp(1, -bits - 32)
        k = int(context.nint(context.erfinv((low + high) / 2) * width / 2))
        above = k == 0 or context.erf((2 * k - 1) / width) + margin <= low
        below = high + margin <= context.erf((2 * k + 1) / width)
        return k if above and below else None


@dataclass(frozen=True)
class Skellam:
    """Magnitude of the difference of two independent Poisson variables of equal mean: ``P(k) ~ I_k(variance)``.

    Attributes:
      variance: Of the difference, in (0, 2^24]; the table has about 9 sqrt(variance) entries.
    """

    variance: Fraction

    def guess(self, u: Integers) -> tuple[Integers, npt.NDArray[np.bool_]]:
        """See ``Law``. By a table of ``F`` whose entries are within one unit of 2^-63 of the truth."""
        table = _table(self.variance)
        k = np.searchsorted(table, u, side="right") - 1
        # table[k] stands for F(k - 1): the cell must begin a unit above it and end a unit below the next.
        return k, (u - table[k] >= 1) & (table.take(k + 1, mode="clip") - u >= 2)

    def settle(self, u: int, bits: int) -> int | None:
        """See ``Law``. As ``guess``, by a table that has 64 bits more than the cell."""
        table = cumulative(self.variance, bits + 64)
        low, high = u << 64, (u + 1) << 64
        k = bisect.bisect_right(table, low)
        above = k == 0 or table[k - 1] + 1 <= low
        below = k < len(table) and high <= table[k] - 1
        return k if above and below else None


def cumulative(variance: Fraction, bits: int) -> list[int]:
    """Computes ``P(|X| <= k)`` for a Skellam X, in units of 2^-bits, each within one unit of the truth.

    Integers only, and no Bessel function is evaluated (Miller's algorithm). ``P(X = k)`` is proportional to
    ``I_k(v)``, and ``I_(k-1) = I_(k+1) + (2k / v) I_k`` is walked downwards from 0 at n + 1; the sum gives the scale.
    Why one unit is enough, with 96 spare bits and n < 2^18 (which holds for every ``bits`` below 2,500):

    - Rounding. All terms are positive, so relative errors do not grow; each step adds one of 2^-(bits + 88) at most,
      no weight being below ``min(1, 2n / v) > 2^-8`` times the first. In all less than 2^-(bits + 70).
    - Starting from 0. The solution that vanishes at n + 1 is ``I_k ± I_(n+1) K_k / K_(n+1)``; K_k grows with k, so
      this is within ``I_(n+1)`` of ``I_k``. In all less than ``(2n + 1) P(X = n + 1)``, as a probability.
    - Stopping at n. ``P(|X| > n) <= 2 exp(-n^2 / (2v + 2n/3))`` (Bernstein), by the choice of n below 2^-(bits + 96).

    Together below 2^-(bits + 64), and rounding to nearest adds half a unit.

    Args:
      variance: v, in (0, 2^24]. Public.
      bits: At least 1.

    Returns: For k = 0, 1, ..., until the rest is below two units. Public.
    """
    nats = (bits + 97) * math.log(2)
    last = math.ceil(nats / 3 + math.sqrt(nats**2 / 9 + 2 * nats * variance))
    weights = [0] * (last + 2)
    weights[last] = 1 << bits + 96
    for k in range(last, 0, -1):
        weights[k - 1] = weights[k + 1] + 2 * k * variance.denominator * weights[k] // variance.numerator
    sums = list(itertools.accumulate(weights[1:], lambda total, weight: total + 2 * weight, initial=weights[0]))
    values = [((part << bits) + sums[-1] // 2) // sums[-1] for part in sums]
    return values[: bisect.bisect_left(values, (1 << bits) - 1) + 1]


@functools.lru_cache(maxsize=8)
def _table(variance: Fraction) -> Integers:
    """``cumulative`` in 63 bits between two sentinels; public, read-only, the only thing kept between calls."""
    table = np.array([-1, *(min(value, 2**63 - 1) for value in cumulative(variance, _FIRST)), 2**63 - 1])
    table.flags.writeable = False
    return table
