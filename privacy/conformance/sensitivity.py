"""A4, A5 and A7: how far one unit can move the sum, whatever its vector; and that nothing else about it shows.

Two releases under the same keys have the same noise and the same batch; their difference is what the vectors did. A
release rounds to float32 at the end, so a difference is known to within that rounding, which is deducted.
"""

from collections.abc import Sequence

import numpy as np

from privacy.conformance.path import ReleasePath, Replayed, Vectors, keys_of, zeros
from privacy.conformance.results import Result, certain
from privacy.dp.mechanism import ClippedSum
from privacy.dp.noise import Entropy
from privacy.errors import FederationError

DIMENSION = 16

_FLOAT32 = 2.0**-22  # four roundings


def influence_test(path: ReleasePath, entropy: Entropy) -> Result:
    """Tests that no vector of one unit moves the sum by more than C: the declared sensitivity, under zero-out.

    The other units all have the same vector of half the clip, so that the sum they make is far from zero: clipping the
    batch instead of each unit then shows.
    """
    keys = keys_of(path, entropy)
    place, clip = _one_of_the_batch(path, keys), float(path.plan.clip)
    rows = zeros(path)
    rows[:, 0] = clip / 2
    rows[place] = 0.0
    without, farthest = path.release(rows, Replayed(keys)), 0.0
    vectors = hostile(path.dimension, clip)
    for vector in vectors:
        rows[place] = vector
        try:
            moved = distance(path.release(rows, Replayed(keys)), without)
        except FederationError:  # a site that stops because of one record tells of it
            moved = np.inf
        farthest = moved if not moved <= farthest else farthest  # what is no number wins, and stays
        if np.isnan(farthest):
            break
    return certain("A4", "largest influence", len(vectors), farthest)


def hostile(dimension: int, clip: float) -> list[Vectors]:
    """Returns vectors that implementations have failed on, each of shape ``(d,)``, gradient units."""
    one, every = np.eye(1, dimension, dimension - 1)[0], np.ones(dimension)
    first = np.eye(1, dimension)[0]
    broken = [np.where(one > 0, value, 0.1 * clip) for value in (np.nan, np.inf, -np.inf)]
    sizes = [scale * direction for scale in (1e-8, 1e3, 1e30) for direction in (one, -first, every)]
    of_clip = [clip * one, 1.000001 * clip * one, clip * every, -first * clip, first * clip / 2]
    return [*broken, np.full(dimension, np.nan), 1e-40 * every, *sizes, *of_clip, 0.0 * every]


def grid_tests(grid: ClippedSum) -> list[Result]:
    """Tests clipping in whole numbers: no vector longer than C in grid units, and sums that are sums."""
    clip = grid.clip
    some = np.random.default_rng(0).standard_normal((64, DIMENSION)) * np.geomspace(0.01, 100.0, 64)[:, None] * clip
    rows = [row[None] for row in (*hostile(DIMENSION, clip), *some)]
    each = np.stack([grid.constrain(row) for row in rows])
    longest = float(np.sqrt(np.square(each.astype(np.float64)).sum(axis=1)).max()) / grid.grid
    apart = np.abs(grid.constrain(np.concatenate(rows)) - each.sum(axis=0)).max()
    return [
        certain("A7", "longest vector on the grid", len(rows), longest),
        certain("A7", "sum on the grid", len(rows), float(apart)),
    ]


def distance(some: Vectors, others: Vectors) -> float:
    """Returns by how much two releases differ for certain, in units of C: their distance less its rounding."""
    rounding = _FLOAT32 * (np.linalg.norm(some) + np.linalg.norm(others))
    return float(np.maximum(np.linalg.norm(some - others) - rounding, 0.0))


def _one_of_the_batch(path: ReleasePath, keys: Sequence[bytes]) -> int:
    """Finds a unit that takes part under these keys, by halving: the first whose vector changes anything."""
    clip, nothing = float(path.plan.clip), path.release(zeros(path), Replayed(keys))
    low, high = 0, path.n_units  # none below ``low`` takes part, one below ``high`` does
    while high - low > 1:
        middle, rows = (low + high) // 2, zeros(path)
        rows[:middle, 0] = clip / 2
        if np.array_equal(path.release(rows, Replayed(keys)), nothing):
            low = middle
        else:
            high = middle
    return low
