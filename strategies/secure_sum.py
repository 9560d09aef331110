"""How contributions become integers that are summed under masks, and the sums a weighted mean again.

Both sides compute the same regions from the public plan (`strategies.regions`): in each, one block per declared array
in the declared order. Weights are public, and equal where regions differ: the server divides each opened sum by the
weights of the survivors who hold its region. What one unit of the grid stands for is the `Encoding`; without noise in
the sum a site multiplies its update by its own weight and only then rounds.

Rounding comes last, and below one unit of the grid the update is blurred before it is weighted. Whole numbers times
public weights would be digits in a number system that the weights make: from ``w_1 q_1 + w_2 q_2 + ...`` every single
``q`` can be read while it is small, and float32 makes an update whole numbers of some power of two (ADR 0006). The blur
comes from a keystream keyed with the update itself: nobody else knows it, and every engine gets the same bits.
"""

import hashlib
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from privacy.errors import ConfigError, RemoteProtocolError
from privacy.secagg.checked import refuse_unless
from privacy.secagg.context import Block, Region, RoundContext
from privacy.secagg.encoding import Entropy, digest
from privacy.secagg.ring import quantise
from privacy.secagg.suite import RealSuite
from strategies.contribution import Aggregate, Contribution, Declared, Vector
from strategies.regions import HeldRegion, Plan
from strategies.task import SiteId

Units: TypeAlias = npt.NDArray[np.int64]
"""Whole units of the grid."""

BITS = 64
FRACTION_BITS = 20
_LARGEST = 2**10  # no entry of an honest update comes near; a larger one is refused, never cut off
_WORD, _SPARE = 4, 16  # bytes of a uniform number, and of room that update_into asks for
_NOISE = 2**17  # room for one site's share of the noise: over 30 deviations of the largest share


@dataclass(frozen=True)
class Encoding:
    """What the integers of a sum stand for; public.

    Attributes:
      fraction_bits: One unit is ``2^-fraction_bits`` of ``scale``.
      scale: What ``2^fraction_bits`` units are worth in the mean.
      largest: Units that one unit of weight may reach in an entry.
      margin: Units that an entry may exceed that by, whatever its weight: room for noise.
    """

    fraction_bits: int = FRACTION_BITS
    scale: float = 1.0
    largest: int = _LARGEST << FRACTION_BITS
    margin: int = 0

    @classmethod
    def clipped(cls, units: int, worth: float) -> "Encoding":
        """Returns the encoding of vectors clipped to ``units``, worth that much in the mean; with room for noise."""
        return cls(0, worth / units, units, _NOISE)

    def bound(self, weight: int) -> int:
        """Returns the largest absolute value, units, that an entry of a site with this public weight may have."""
        return self.largest * weight + self.margin


PLAIN = Encoding()
"""Updates as they are, 20 bits behind the point."""


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
    bound = encoding.bound(heaviest)
    return tuple(
        Region(each.holders, tuple(Block(each.positions.size, bound) for _ in declared.arrays)) for each in chosen
    )


def check_regions(
    context: RoundContext, plan: Plan, declared: Declared, weight: int, encoding: Encoding
) -> tuple[HeldRegion, ...]:
    """Returns the regions of a context, if they are what `context_regions` makes of a site's own plan.

    Guarantees: what passes, and what is refused, depends on nothing that a site keeps to itself. The heaviest weight of
    the cohort is the server's to say; it can be no lighter than the site's own, so an honest entry is always in bounds.

    Args:
      context: The server's.
      plan: Who holds what; the site's own copy.
      declared: What a site sends.
      weight: Public weight of this site.
      encoding: What the integers stand for.

    Raises: RemoteProtocolError: Other regions, blocks or bounds, or another grid.
    """
    chosen = summed_in(plan, context)
    if chosen is None:
        raise RemoteProtocolError("the regions are not those of its plan")
    heaviest = (context.regions[0].blocks[0].bound - encoding.margin) // encoding.largest
    refuse_unless(heaviest >= weight, "the bounds have no room for its weight")
    agreed = context_regions(chosen, declared, heaviest, encoding)
    refuse_unless(context.regions == agreed, "the blocks and bounds are not those of its plan")
    grid = (BITS, encoding.fraction_bits)
    refuse_unless((context.bits, context.fraction_bits) == grid, "the grid is another")
    return chosen


def to_units(
    contribution: Contribution, declared: Declared, weight: int, entropy: Entropy, encoding: Encoding = PLAIN
) -> dict[str, Units]:
    """Returns a site's grid units by declared array, times its public weight; shapes ``(h,)``. Secret.

    Guarantees: ``entropy`` is not asked for anything. An entry is off the weighted update by at most
    ``(weight + 1) / 2`` units, by ``1 / 2`` for a weight of 1, and by none where the update is 0.

    Raises: SensitivityError: An entry is not finite or larger than any honest update.
    """
    bits, bound = encoding.fraction_bits, encoding.largest * weight
    values = [contribution.arrays[name].astype(np.float64) for name in declared.arrays]
    if weight > 1:  # of a site that counts once, rounding is the last step anyway
        values = [weight * each for each in _blurred(values, math.ldexp(1.0, -bits))]
    units = (quantise(each, fraction_bits=bits, bound=bound, entropy=entropy) for each in values)
    return dict(zip(declared.arrays, units, strict=True))


def _blurred(values: Sequence[npt.NDArray[np.float64]], unit: float) -> Iterator[npt.NDArray[np.float64]]:
    """Adds to every entry but 0 a number that is uniform in half a unit around 0, by the entries themselves alone."""
    stream = RealSuite().stream(digest("blur", *(each.tobytes() for each in values)))
    for each in values:
        words = bytearray(_WORD * each.size + _SPARE)
        stream.update_into(bytes(_WORD * each.size), words)
        uniform = np.ldexp(np.frombuffer(words, "<u4", each.size).astype(np.float64) + 0.5, -8 * _WORD) - 0.5
        yield each + np.where(each == 0, 0.0, uniform * unit)


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
