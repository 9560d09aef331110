"""Controls: the same path with a defect made on purpose, which a test must find, or its passing shows nothing."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import numpy as np

from privacy.conformance import noise, sensitivity
from privacy.conformance.path import Clips, PathOf, Recorded, ReleasePath, Replayed, Vectors, zeros
from privacy.dp.noise import Entropy

Defect = Literal["noise halved", "noise off", "clipping off", "seed fixed"]
Altered = Callable[[ReleasePath, Vectors, Entropy], Vectors]

_RELEASES = 4  # noise that is halved or off shows in 16,384 draws as well


def _less_noise(path: ReleasePath, vectors: Vectors, entropy: Entropy, share: float) -> Vectors:
    recorded = Recorded(entropy)
    whole = path.release(vectors, recorded)
    return np.asarray(whole - share * path.release(zeros(path), Replayed(recorded.keys)))


def _halved(path: ReleasePath, vectors: Vectors, entropy: Entropy) -> Vectors:
    return _less_noise(path, vectors, entropy, 0.5)


def _off(path: ReleasePath, vectors: Vectors, entropy: Entropy) -> Vectors:
    return _less_noise(path, vectors, entropy, 1.0)


def _unclipped(path: ReleasePath, vectors: Vectors, entropy: Entropy) -> Vectors:
    return np.asarray(path.release(zeros(path), entropy) + vectors.sum(axis=0) / float(path.plan.clip))


def _seeded(path: ReleasePath, vectors: Vectors, _entropy: Entropy) -> Vectors:
    return path.release(vectors, Replayed([]))


ALTERED: Mapping[Defect, Altered] = MappingProxyType(
    {"noise halved": _halved, "noise off": _off, "clipping off": _unclipped, "seed fixed": _seeded}
)
"""What each defect makes of a release."""


class Defective:
    """A path with a defect; everything but the release is the path's own."""

    def __init__(self, path: ReleasePath, altered: Altered) -> None:
        """Takes a path, and what becomes of its releases."""
        self._path, self._altered = path, altered
        self.plan: Clips = path.plan
        self.placement, self.path, self.grid = path.placement, path.path, path.grid
        self.dimension, self.n_units = path.dimension, path.n_units
        self.scale, self.n_keys = path.scale, path.n_keys

    def release(self, vectors: Vectors, entropy: Entropy) -> Vectors:
        """See `ReleasePath.release`."""
        return self._altered(self._path, vectors, entropy)


def fires(defect: Defect, path_of: PathOf, n_units: int, entropy: Entropy, error: float) -> bool:
    """Says whether the test that is there for a defect finds it.

    Args:
      defect: What is wrong with the copy.
      path_of: Builds the path without it.
      n_units: Of the test of influence.
      entropy: Randomness.
      error: Of each test that goes by chance.
    """
    if defect == "clipping off":
        path = Defective(path_of(sensitivity.DIMENSION, n_units), ALTERED[defect])
        return not sensitivity.influence_test(path, entropy).passed
    path = Defective(path_of(noise.DIMENSION, 1), ALTERED[defect])
    releases = noise.released(path, entropy, _RELEASES)
    if defect == "seed fixed":
        return not noise.repetition_test(releases).passed
    return not noise.scale_test(releases, path.scale, error).passed
