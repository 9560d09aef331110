"""A1 to A3, and the empty batch: how wide the noise is, of what shape, and whether anything of it can be foreseen.

The release of vectors of zeros is noise and nothing else, so correct code gives independent ``N(0, scale^2)``.
"""

import numpy as np
import numpy.typing as npt

from privacy.conformance.path import PathOf, ReleasePath, Replayed, Vectors, keys_of, zeros
from privacy.conformance.results import Result, certain, chance
from privacy.conformance.statistics import correlation, normality, spread
from privacy.dp.noise import Entropy

DIMENSION = 4096
RELEASES = 25
"""Together 102,400 draws: they tell a standard deviation 1.5 % off from a right one, at the level of one test."""

_KEY_BYTES = 16
_KEYS = 4  # how many are tried byte by byte; those of further shares are drawn by the same call


def released(path: ReleasePath, entropy: Entropy, n_releases: int = RELEASES) -> Vectors:
    """Returns releases of nothing but noise, shape ``(releases, d)``."""
    return np.stack([path.release(zeros(path), entropy) for _ in range(n_releases)])


def noise_tests(path: ReleasePath, entropy: Entropy, error: float) -> list[Result]:
    """Tests scale, shape and independence of the noise.

    Args:
      path: Of `DIMENSION` entries and a single unit, so that most Poisson batches are empty.
      entropy: Randomness.
      error: Of each test that goes by chance.
    """
    noise = released(path, entropy)
    return [
        scale_test(noise, path.scale, error),
        chance("A2", "noise shape", normality(noise, path.scale), error),
        chance("A3", "neighbouring entries", correlation(noise[:, :-1], noise[:, 1:]), error),
        chance("A3", "successive releases", correlation(noise[:-1], noise[1:]), error),
        repetition_test(noise),
        certain("A5", "empty batch", len(noise), float((noise == 0).mean(axis=1).max())),
    ]


def scale_test(noise: Vectors, scale: float, error: float) -> Result:
    """Tests the standard deviation of noise, shape ``(releases, d)``."""
    return chance("A1", "noise scale", spread(noise, scale), error)


def repetition_test(noise: Vectors) -> Result:
    """Tests that no release has the entries of the one before it, or of the first; shape ``(releases, d)``."""
    equal = max(_equal(noise[:-1], noise[1:]), _equal(noise[:1], noise[1:]))
    return certain("A3", "repeated noise", len(noise), equal)


def key_test(path_of: PathOf, n_units: int, entropy: Entropy) -> Result:
    """Tests that every byte of every key changes the release: no key is shorter than it looks, or not used.

    Every unit has a vector of its own, so that another choice of units, too, changes the sum. The statistic counts
    keys that the path should depend on and does not: wholly, with all their bytes, at least 16.
    """
    path = path_of(8, n_units)
    rows = np.random.default_rng(0).standard_normal((n_units, path.dimension)) * (0.1 * float(path.plan.clip))
    keys = keys_of(path, entropy)
    first = path.release(rows, Replayed(keys))
    n_bytes, alive = 0, 0
    for place, key in enumerate(keys[:_KEYS]):
        changed = [
            not np.array_equal(path.release(rows, Replayed([*keys[:place], other, *keys[place + 1 :]])), first)
            for other in _altered(key)
        ]
        n_bytes += len(changed)
        alive += len(changed) >= _KEY_BYTES and all(changed)
    return certain("A3", "every key byte counts", n_bytes, max(0, min(path.n_keys, _KEYS) - alive))


def _equal(some: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> float:
    return float((some == others).mean(axis=1).max())


def _altered(key: bytes) -> list[bytes]:
    return [key[:place] + bytes([key[place] ^ 0x5A]) + key[place + 1 :] for place in range(len(key))]
