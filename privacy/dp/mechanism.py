"""The one mechanism of record-level privacy: clip each record, sum on an integer grid, add rounded Gaussian noise.

``constrain`` and ``add_noise`` are separate, so that whoever is trusted with the noise can hold the second half. The
grid makes the sensitivity an integer fact: each record's vector is rounded toward zero, which never lengthens it, so
one record moves the sum by at most ``GRID`` units, exactly (privacy-audit corrections, 4).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from privacy.dp.noise import Entropy, rounded_gaussian
from privacy.errors import SensitivityError

GRID = 2**20
"""Grid units per clip: a record's clipped vector has integer norm at most this. Public."""


@dataclass(frozen=True)
class RoundedGaussianSum:
    """Sum of clipped per-record vectors plus Gaussian noise, on the grid ``clip / GRID``. All fields are public.

    Neighbours that differ in one zeroed-out record give sums at most ``GRID`` grid units apart (2-norm); those that
    differ in one replaced record, ``2 * GRID``.

    Attributes:
      clip: Largest 2-norm of one record's vector, C > 0.
      noise_multiplier: Standard deviation of the noise in units of C, z > 0.
    """

    clip: float
    noise_multiplier: float

    def __post_init__(self) -> None:
        if not (0 < self.clip < 1e9 and 0 < self.noise_multiplier < 1e9):
            raise SensitivityError("clip and noise multiplier must be positive")

    def constrain(self, per_record: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Clips every record's vector to C and sums on the grid.

        A record with a non-finite entry contributes zero: no abort, no count and no message could then leave that
        depends on it (privacy-audit corrections, 10).

        Args:
          per_record: Shape ``(b, d)``; ``b`` may be 0. Secret.

        Returns: Shape ``(d,)``, grid units. Secret.
        Raises: SensitivityError: An integer norm above ``GRID``, which the arithmetic excludes.
        """
        finite = np.asarray(np.isfinite(per_record).all(axis=1))
        vectors = np.where(finite[:, None], per_record, 0.0)
        # Scale by the largest entry first: squares of huge gradients would overflow to infinity.
        largest = np.maximum(np.abs(vectors).max(axis=1, initial=0.0), np.finfo(np.float64).tiny)
        with np.errstate(over="ignore"):  # a norm beyond float64 is infinite, and its record is then scaled to zero
            norms = largest * np.linalg.norm(vectors / largest[:, None], axis=1)
        # Shorter than C by more than the norm's rounding error, so that the integer check below never fires.
        longest = self.clip * (1.0 - 1e-12)
        factors = np.where(norms > longest, longest / np.maximum(norms, longest), 1.0)
        units = np.trunc(vectors * factors[:, None] * (GRID / self.clip)).astype(np.int64)
        if (np.square(units).sum(axis=1, dtype=np.int64) > GRID**2).any():
            raise SensitivityError("a clipped record exceeds the declared sensitivity")
        return np.asarray(units.sum(axis=0, dtype=np.int64))

    def add_noise(self, total: npt.NDArray[np.int64], entropy: Entropy) -> npt.NDArray[np.float64]:
        """Adds the noise and leaves the grid; the result may leave the site.

        Args:
          total: Shape ``(d,)``, grid units. Secret.
          entropy: Source of the noise key, in production ``secrets.token_bytes``.

        Returns: Noisy sum in gradient units, shape ``(d,)``. Public once its event is debited.
        """
        noisy = total + rounded_gaussian(self.noise_multiplier * GRID, total.size, entropy)
        return noisy.astype(np.float64) * (self.clip / GRID)
