"""Exact samplers of another kind than ours: rejection, all comparisons between integers, neither tables nor logarithms.

Bits come from numpy, so that a seed fixes them. Two 64-bit words that should decide a comparison and are equal would
need more bits; in a run of 10^7 comparisons that happens with probability 2^-40, and it is left out.
"""

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]


def words(rng: np.random.Generator, size: int) -> Words:
    return rng.integers(0, 2**64, size, dtype=np.uint64)


def decays(rng: np.random.Generator, x: Words, k: Integers | None = None) -> Bools:
    """True with probability exp(-x), or exp(-x (2k + x) / (2k + 2)): von Neumann's run of falling uniforms is even."""
    even = np.ones(len(x), dtype=np.bool_)
    active, last = np.arange(len(x)), x
    while len(active):
        u = words(rng, len(active))
        falls = u < last
        if k is not None:
            face = rng.integers(0, 2 * k[active] + 2)
            stays = (face < 2 * k[active]) | ((face == 2 * k[active]) & (words(rng, len(active)) < x[active]))
            falls &= stays
        active, last = active[falls], u[falls]
        even[active] ^= True
    return even


def half_exponents(rng: np.random.Generator, times: Integers) -> Bools:
    """True with probability exp(-times / 2)."""
    alive = np.ones(len(times), dtype=np.bool_)
    for turn in range(int(times.max(initial=0))):
        active = np.flatnonzero(alive & (times > turn))
        alive[active] = decays(rng, np.full(len(active), 2**63, dtype=np.uint64))
    return alive


def karney(rng: np.random.Generator, sigma: Fraction, size: int) -> Integers:
    """Draws ``round(sigma Z)``. Karney, Sampling exactly from the normal distribution, ACM TOMS 42 (2016), alg. N."""
    found: list[Integers] = []
    while (n := size - sum(map(len, found))) > 0:
        n = max(2 * n, 1000)
        k = np.zeros(n, dtype=np.int64)  # N1: P(k) ~ exp(-k / 2)
        active = np.arange(n)
        while len(active):
            active = active[half_exponents(rng, np.ones(len(active), dtype=np.int64))]
            k[active] += 1
        k = k[half_exponents(rng, k * (k - 1))]  # N2
        x = words(rng, len(k))  # N3
        accepted = np.ones(len(k), dtype=np.bool_)
        for turn in range(int(k.max()) + 1):  # N4
            active = np.flatnonzero(accepted & (k >= turn))
            accepted[active] = decays(rng, x[active], k[active])
        k, x = k[accepted], x[accepted]
        scaled = ((k.astype(object) << 64) + x.astype(object)) * sigma.numerator  # N5, times sigma, in units of 2^-64
        magnitude = ((2 * scaled + (sigma.denominator << 64)) // (sigma.denominator << 65)).astype(np.int64)
        found.append(np.where(rng.integers(0, 2, len(k)) == 1, magnitude, -magnitude))  # N6
    return np.concatenate(found)[:size]


def poisson_of_mean_one(rng: np.random.Generator, size: int) -> Integers:
    """Proposes k with probability 2^-(k + 1), accepts with 2^(k - 1) / k!, a rational: e never appears."""
    found: list[Integers] = []
    while (n := size - sum(map(len, found))) > 0:
        coins = words(rng, 2 * n)
        lowest = coins & (~coins + np.uint64(1))
        k = np.log2(lowest.astype(np.float64)).astype(np.int64)  # exact: a power of two
        k = k[k <= 20]  # beyond lie 2^-21 of the proposals and below 2^-60 of what would be accepted
        factorials = np.array([math.factorial(j) for j in range(21)], dtype=np.int64)[k]
        found.append(k[rng.integers(0, 2 * factorials) < 2**k])
    return np.concatenate(found)[:size]


def skellam(rng: np.random.Generator, mean: int, size: int) -> Integers:
    """Difference of two sums of ``mean`` Poisson variables of mean one: variance ``2 mean``."""
    ones = poisson_of_mean_one(rng, 2 * mean * size).reshape(2, mean, size).sum(axis=1)
    return np.asarray(ones[0] - ones[1], dtype=np.int64)
