"""How contributions become integers that are summed under masks, and the sum a weighted mean again.

Both sides compute the same layout from public values: one region that every site of the cohort holds, one block per
declared array in the declared order. Weights are public: the server divides the opened sum by the survivors' weights.
What one unit of the grid stands for is the `Encoding`; without noise in the sum a site multiplies its integers by its
own weight and rounds to the nearest unit, which keeps every engine's result the same to the bit.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from privacy.errors import ConfigError
from privacy.secagg.context import Block, Region
from privacy.secagg.encoding import Entropy, digest
from privacy.secagg.ring import quantise
from strategies.contribution import Aggregate, Contribution, Declared, Vector

BITS = 64
FRACTION_BITS = 20
_LARGEST = 2**10  # no entry of an honest update comes near; a larger one is refused, never cut off
_NOISE = 2**17  # room for one site's share of the noise: over 30 deviations of the largest share


@dataclass(frozen=True)
class Encoding:
    """What the integers of a sum stand for; public.

    Attributes:
      fraction_bits: One unit is ``2^-fraction_bits`` of ``scale``.
      scale: What ``2^fraction_bits`` units are worth in the mean.
      largest: Units that one unit of weight may reach in an entry.
      margin: Units that an entry may exceed that by: room for noise.
      weighted: Whether a site multiplies its update by its weight; a sum over records is weighted as it stands.
    """

    fraction_bits: int = FRACTION_BITS
    scale: float = 1.0
    largest: int = _LARGEST << FRACTION_BITS
    margin: int = 0
    weighted: bool = True

    @classmethod
    def clipped(cls, units: int, worth: float) -> "Encoding":
        """Returns the encoding of vectors clipped to ``units``, worth that much in the mean; with room for noise."""
        return cls(0, worth / units, units, _NOISE, weighted=False)


PLAIN = Encoding()
"""Weighted updates as they are, 20 bits behind the point."""


def region(declared: Declared, size: int, cohort: Sequence[str], heaviest: int, encoding: Encoding = PLAIN) -> Region:
    """Returns the one region of a whole-model sum (docs/protocol.md §2.3).

    Args:
      declared: What a site sends; arrays only, since a scalar has no block here.
      size: ``d``.
      cohort: Everybody holds it.
      heaviest: Largest public weight of the cohort; makes the bound of an entry.
      encoding: What the integers stand for.

    Raises: ConfigError: The algorithm sends scalars, which this sum does not carry.
    """
    if declared.scalars:
        raise ConfigError("this strategy sends scalars beside its arrays: it does not pair with secure aggregation")
    bound = encoding.largest * heaviest + encoding.margin
    return Region(tuple(sorted(cohort)), tuple(Block(size, bound) for _ in declared.arrays))


def to_units(contribution: Contribution, declared: Declared, weight: int, entropy: Entropy) -> npt.NDArray[np.int64]:
    """Returns a site's weighted grid units, blocks in the declared order; shape ``(blocks * d,)``. Secret.

    Raises: SensitivityError: An entry is not finite or larger than any honest update.
    """
    parts = [
        quantise(
            contribution.arrays[name].astype(np.float64),
            fraction_bits=FRACTION_BITS,
            bound=PLAIN.largest,
            entropy=entropy,
        )
        for name in declared.arrays
    ]
    return np.concatenate(parts) * np.int64(weight)


def to_aggregate(
    total: npt.NDArray[np.int64],
    declared: Declared,
    size: int,
    weights: Sequence[float],
    encoding: Encoding = PLAIN,
) -> Aggregate:
    """Returns the weighted mean that an opened sum stands for.

    Args:
      total: Shape ``(blocks * d,)``, grid units.
      declared: What was summed.
      size: ``d``.
      weights: Of the survivors.
      encoding: What the integers stand for.
    """
    weight = math.fsum(weights)
    mean: dict[str, npt.NDArray[np.float64]] = {}
    for place, name in enumerate(declared.arrays):
        part = total[place * size : (place + 1) * size].astype(np.float64)
        values = np.ldexp(part, -encoding.fraction_bits) * encoding.scale / weight
        values.setflags(write=False)
        mean[name] = values
    return Aggregate(MappingProxyType(mean), weight)


def plan_digest(declared: Declared, size: int) -> bytes:
    """Returns what fixes the layout (docs/protocol.md §2.4)."""
    return digest("plan/whole", *(name.encode() for name in declared.arrays), size.to_bytes(8, "big"))


def values_digest(arrays: Mapping[str, Vector]) -> bytes:
    """Returns SHA-256 of what a site trains on: every broadcast array, by name, little-endian float32."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        found.update(len(name).to_bytes(8, "big") + name.encode() + np.ascontiguousarray(arrays[name], "<f4").tobytes())
    return found.digest()
