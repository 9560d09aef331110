"""The one mechanism: clip what each unit adds, sum on an integer grid, add noise.

``constrain`` and the noise are separate, so that whoever is trusted with the noise can hold the second half: the site
itself in every step, the server on an opened sum, or all sites together in shares (``privacy.dp.plan``). The grid makes
the sensitivity an integer fact: each unit's vector is rounded toward zero, which never lengthens it, so one unit moves
the sum by at most ``grid`` units, exactly (docs/privacy-rules.md, 4).
"""

from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from privacy.dp.events import Arithmetic
from privacy.dp.noise import Entropy, exact_is_cheap, rounded_gaussian, rounded_gaussian_exact
from privacy.errors import SensitivityError

GRID = 2**20
"""Grid units per clip: a record's clipped vector has integer norm at most this. Public."""


@dataclass(frozen=True)
class ClippedSum:
    """Sum over units (records, patients or sites) of vectors clipped to C, on the grid ``clip / grid``. All public.

    Neighbours that differ in one zeroed-out unit give sums at most ``grid`` grid units apart (2-norm); those that
    differ in one replaced unit, ``2 * grid``.

    Attributes:
      clip: Largest 2-norm of one unit's vector, C > 0.
      grid: Grid units per clip.
    """

    clip: float
    grid: int = GRID

    def __post_init__(self) -> None:
        if not (0 < self.clip < 1e9 and 0 < self.grid <= 2**26):
            raise SensitivityError("clip and grid must be positive")

    def constrain(self, per_record: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Clips every record's vector to C and sums on the grid.

        A record with a non-finite entry contributes zero: no abort, no count and no message could then leave that
        depends on it (docs/privacy-rules.md, 10).

        Args:
          per_record: Shape ``(b, d)``; ``b`` may be 0. Secret.

        Returns: Shape ``(d,)``, grid units. Secret.
        Raises: SensitivityError: An integer norm above ``grid``, which the arithmetic excludes.
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
        units = np.trunc(vectors * factors[:, None] * (self.grid / self.clip)).astype(np.int64)
        if (np.square(units).sum(axis=1, dtype=np.int64) > self.grid**2).any():
            raise SensitivityError("a clipped record exceeds the declared sensitivity")
        return np.asarray(units.sum(axis=0, dtype=np.int64))


@dataclass(frozen=True)
class RoundedGaussianSum(ClippedSum):
    """A clipped sum plus independent rounded Gaussian noise in every entry.

    Attributes:
      noise_multiplier: Standard deviation of the noise in units of C, z > 0; a decimal is taken at its exact value.
    """

    noise_multiplier: float | Decimal = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < float(self.noise_multiplier) < 1e9:
            raise SensitivityError("the noise multiplier must be positive")

    def add_noise(self, total: npt.NDArray[np.int64], entropy: Entropy) -> npt.NDArray[np.float64]:
        """Adds the noise and leaves the grid; the result may leave the site.

        Args:
          total: Shape ``(d,)``, grid units. Secret.
          entropy: Source of the noise key, in production ``secrets.token_bytes``.

        Returns: Noisy sum in gradient units, shape ``(d,)``. Public once its event is debited.
        """
        return (total + self.noise(total.size, entropy)).astype(np.float64) * (self.clip / self.grid)

    def noise(self, size: int, entropy: Entropy) -> npt.NDArray[np.int64]:
        """Draws the noise of a sum of ``size`` entries, shape ``(size,)``, grid units. Secret."""
        if self.arithmetic(size) is Arithmetic.INTEGER_EXACT:
            return rounded_gaussian_exact(self._sigma, size, entropy)
        return rounded_gaussian(float(self._sigma), size, entropy)

    def arithmetic(self, size: int) -> Arithmetic:
        """Says how ``add_noise`` draws the noise of a sum of ``size`` entries; belongs into the release's event."""
        exact = exact_is_cheap(self._sigma, size)
        return Arithmetic.INTEGER_EXACT if exact else Arithmetic.FLOAT

    @property
    def _sigma(self) -> Fraction:
        return Fraction(self.noise_multiplier) * self.grid
