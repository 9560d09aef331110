"""How contributions become integers that are summed under masks, and the sum a weighted mean again.

Both sides compute the same layout from public values: one region that every site of the cohort holds, one block per
declared array in the declared order. Weights are public, so a site multiplies its integers by its own weight before
they are masked; the server divides the opened sum by the survivors' weights. Rounding is to the nearest grid unit,
which keeps every engine's result the same to the bit.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
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
_BOUND = _LARGEST << FRACTION_BITS


def region(declared: Declared, size: int, cohort: Sequence[str], heaviest: int) -> Region:
    """Returns the one region of a whole-model sum (docs/protocol.md §2.3).

    Args:
      declared: What a site sends; arrays only, since a scalar has no block here.
      size: ``d``.
      cohort: Everybody holds it.
      heaviest: Largest public weight of the cohort; makes the bound of an entry.

    Raises: ConfigError: The algorithm sends scalars, which this sum does not carry.
    """
    if declared.scalars:
        raise ConfigError("this strategy sends scalars beside its arrays: it does not pair with secure aggregation")
    return Region(tuple(sorted(cohort)), tuple(Block(size, _BOUND * heaviest) for _ in declared.arrays))


def to_units(contribution: Contribution, declared: Declared, weight: int, entropy: Entropy) -> npt.NDArray[np.int64]:
    """Returns a site's weighted grid units, blocks in the declared order; shape ``(blocks * d,)``. Secret.

    Raises: SensitivityError: An entry is not finite or larger than any honest update.
    """
    parts = [
        quantise(
            contribution.arrays[name].astype(np.float64), fraction_bits=FRACTION_BITS, bound=_BOUND, entropy=entropy
        )
        for name in declared.arrays
    ]
    return np.concatenate(parts) * np.int64(weight)


def to_aggregate(total: npt.NDArray[np.int64], declared: Declared, size: int, weights: Sequence[float]) -> Aggregate:
    """Returns the weighted mean that an opened sum stands for.

    Args:
      total: Shape ``(blocks * d,)``, grid units times weight.
      declared: What was summed.
      size: ``d``.
      weights: Of the survivors.
    """
    weight = math.fsum(weights)
    mean: dict[str, npt.NDArray[np.float64]] = {}
    for place, name in enumerate(declared.arrays):
        values = np.ldexp(total[place * size : (place + 1) * size].astype(np.float64), -FRACTION_BITS) / weight
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
