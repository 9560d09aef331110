"""How contributions become integers that are summed under masks, and the sums a weighted mean again.

Both sides compute the same regions from the public plan (`strategies.regions`): in each, one block per declared array
in the declared order. Weights are public, and equal where regions differ: the server divides each opened sum by the
weights of the survivors who hold its region. What one unit of the grid stands for is the `Encoding`; without noise in
the sum a site multiplies its integers by its own weight and rounds to the nearest unit, which keeps every engine's
result the same to the bit.
"""

import hashlib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from privacy.errors import ConfigError
from privacy.secagg.context import Block, Region, RoundContext
from privacy.secagg.encoding import Entropy, digest
from privacy.secagg.ring import quantise
from strategies.contribution import Aggregate, Contribution, Declared, Vector
from strategies.regions import HeldRegion, Plan
from strategies.task import SiteId

Units: TypeAlias = npt.NDArray[np.int64]
"""Whole units of the grid."""

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


def summed(
    plan: Plan, cohort: Collection[str], min_cover: int, still: Collection[tuple[str, ...]] = ()
) -> tuple[HeldRegion, ...]:
    """Returns the regions that an attempt asks for, in the order of the context's list (docs/protocol.md §2.3).

    Args:
      plan: Who holds what.
      cohort: Who is asked.
      min_cover: A region with fewer holders stands still: nobody is asked for it.
      still: Holders of regions that stand still because an earlier attempt lost their cover.
    """
    every = plan.regions(cohort)
    return tuple(each for each in every if len(each.holders) >= min_cover and each.holders not in still)


def summed_in(plan: Plan, context: RoundContext) -> tuple[HeldRegion, ...] | None:
    """Returns what `summed` gave the server, from the site's own plan; ``None`` if no choice of ``still`` gives it."""
    named = {each.holders for each in context.regions}
    found = tuple(each for each in plan.regions(context.cohort) if each.holders in named)
    return found if [each.holders for each in found] == [each.holders for each in context.regions] else None


def context_regions(
    chosen: Sequence[HeldRegion], declared: Declared, heaviest: int, encoding: Encoding = PLAIN
) -> tuple[Region, ...]:
    """Returns the regions as the context lists them (docs/protocol.md §2.3).

    Args:
      chosen: What `summed` returned.
      declared: What a site sends; arrays only, since a scalar has no block here.
      heaviest: Largest public weight of the cohort; makes the bound of an entry.
      encoding: What the integers stand for.

    Raises: ConfigError: The algorithm sends scalars, which this sum does not carry.
    """
    if declared.scalars:
        raise ConfigError("this strategy sends scalars beside its arrays: it does not pair with secure aggregation")
    bound = encoding.largest * heaviest + encoding.margin
    return tuple(
        Region(each.holders, tuple(Block(each.positions.size, bound) for _ in declared.arrays)) for each in chosen
    )


def to_units(
    contribution: Contribution, declared: Declared, weight: int, entropy: Entropy, encoding: Encoding = PLAIN
) -> dict[str, Units]:
    """Returns a site's grid units by declared array, weighted if the encoding says so; shapes ``(h,)``. Secret.

    Raises: SensitivityError: An entry is not finite or larger than any honest update.
    """
    return {
        name: quantise(
            contribution.arrays[name].astype(np.float64),
            fraction_bits=encoding.fraction_bits,
            bound=encoding.largest,
            entropy=entropy,
        )
        * np.int64(weight if encoding.weighted else 1)
        for name in declared.arrays
    }


def in_region(values: npt.NDArray[np.generic], held: npt.NDArray[np.int64], region: HeldRegion) -> npt.NDArray[Any]:
    """Returns the entries of a region out of a site's array, shape ``(h,)``, which has those of ``held`` in order."""
    if region.positions.size == held.size:
        return values
    return values[np.searchsorted(held, region.positions)]


def to_aggregate(
    sums: Mapping[int, Units],
    chosen: Sequence[HeldRegion],
    declared: Declared,
    size: int,
    weights: Mapping[SiteId, float],
    encoding: Encoding = PLAIN,
) -> Aggregate:
    """Returns the weighted mean that opened sums stand for: 0, no change, wherever nothing was opened.

    Args:
      sums: By place in ``chosen``: shape ``(blocks * length,)``, grid units.
      chosen: The attempt's regions.
      declared: What was summed.
      size: ``d``.
      weights: Of the survivors.
      encoding: What the integers stand for.
    """
    mean = {name: np.zeros(size) for name in declared.arrays}
    for k, total in sums.items():
        region = chosen[k]
        weight = math.fsum(weights[site] for site in weights if site in region.holders)
        for name, part in zip(declared.arrays, np.split(total, len(declared.arrays)), strict=True):
            values = np.ldexp(part.astype(np.float64), -encoding.fraction_bits) * encoding.scale / weight
            mean[name][region.positions] = values
    for values in mean.values():
        values.setflags(write=False)
    return Aggregate(MappingProxyType(mean), math.fsum(weights.values()))


def plan_digest(plan: Plan, declared: Declared) -> bytes:
    """Returns what fixes the regions and their blocks (docs/protocol.md §2.4)."""
    return digest("plan/sums", plan.digest, *(name.encode() for name in declared.arrays))


def values_digest(arrays: Mapping[str, Vector]) -> bytes:
    """Returns SHA-256 of a region's values of every broadcast array, by name, little-endian float32."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        found.update(len(name).to_bytes(8, "big") + name.encode() + np.ascontiguousarray(arrays[name], "<f4").tobytes())
    return found.digest()


def run_digest(name: str) -> bytes:
    """Returns how contexts call a run: 16 bytes (docs/protocol.md §2.1)."""
    return hashlib.sha256(name.encode()).digest()[:16]
