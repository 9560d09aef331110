"""What the tests look at: a release as a function of vectors and random keys, and keys that can be played again.

Symbols: ``u`` units, ``d`` entries of a vector, ``C`` clip.
"""

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from privacy.dp.mechanism import ClippedSum
from privacy.dp.noise import Entropy

Vectors = npt.NDArray[np.float64]
Placement = Literal["local", "central", "distributed"]
Arithmetics = Literal["integer", "float"]


class Clips(Protocol):
    """Whatever says how long a vector may be."""

    @property
    def clip(self) -> Decimal | float:
        """C."""


class ReleasePath(Protocol):
    """A path from vectors to a release; all properties are public."""

    @property
    def plan(self) -> Clips:
        """What the path was built for: a privacy plan, or the terms of a release."""

    @property
    def placement(self) -> Placement:
        """Where the noise is added: at the site, at the server, or in shares at every site."""

    @property
    def path(self) -> Arithmetics:
        """How vectors are clipped and summed."""

    @property
    def dimension(self) -> int:
        """d, entries of each vector."""

    @property
    def n_units(self) -> int:
        """Rows that `release` takes."""

    @property
    def scale(self) -> float:
        """Standard deviation of the noise in what `release` returns."""

    @property
    def n_keys(self) -> int:
        """How many of the keys that one release draws decide something."""

    @property
    def grid(self) -> ClippedSum | None:
        """Clips and sums in whole numbers; ``None`` on the float path."""

    def release(self, vectors: Vectors, entropy: Entropy) -> Vectors:
        """Clips, sums and noises once; the result is a noisy sum, whatever the run divides it by.

        Args:
          vectors: Shape ``(u, d)``, in gradient units; a row of zeros adds nothing.
          entropy: Randomness of noise and sampling.

        Returns: Shape ``(d,)``, in units of C: a unit of norm C that takes part moves it by 1.
        """


PathOf = Callable[[int, int], ReleasePath]
"""Builds the path for vectors of d entries, and u units."""


class Recorded:
    """Entropy that notes what it gave.

    Attributes:
      keys: What was drawn, in order. Secret wherever the release is.
    """

    def __init__(self, entropy: Entropy) -> None:
        """Takes where the keys come from."""
        self.keys: list[bytes] = []
        self._entropy = entropy

    def __call__(self, n_bytes: int) -> bytes:
        """Draws a key."""
        self.keys.append(self._entropy(n_bytes))
        return self.keys[-1]


class Replayed:
    """Entropy that gives the same keys again, and zeros after them."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """Takes the keys, in order."""
        self._rest = list(reversed(keys))

    def __call__(self, n_bytes: int) -> bytes:
        """Returns the next key."""
        return self._rest.pop() if self._rest else bytes(n_bytes)


def zeros(path: ReleasePath) -> Vectors:
    """Returns vectors that add nothing, shape ``(u, d)``."""
    return np.zeros((path.n_units, path.dimension))


def keys_of(path: ReleasePath, entropy: Entropy) -> list[bytes]:
    """Returns fresh keys, as many and as long as one release draws."""
    recorded = Recorded(entropy)
    path.release(zeros(path), recorded)
    return recorded.keys
