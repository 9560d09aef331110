"""The public numbers of distributed noise: grid, sensitivities, each site's share, and what the sum is priced at.

Each site rounds its clipped update (or the sum of its clipped records) toward zero on a common integer grid, adds a
Skellam share, and masks. Only the sum over survivors is opened. Skellam variables add up, so the noise in it is Skellam
with the variance of all shares; whoever drops out or colludes takes a share away, and the price is that of the fewest
shares the plan counts on (docs/privacy-rules.md, 5 to 7). More survivors earn no refund.

Symbols: ``C`` clip, ``z`` noise multiplier, ``m`` contributions counted on, ``d`` entries of an update.

Bounds, and why a share is never redrawn or cut off. Conditioning or clipping a single share is post-processing of that
share, not of the sum, which then is no longer Skellam. What keeps the claim exact is to check the contribution *before*
the noise (``largest_entry``), to put the noisy entries into the ring as they are, and to let the ring wrap: reduction
modulo ``2^bits`` commutes with the sum, so it is post-processing of the exactly noised sum. ``bound`` leaves so much
room that no wrap ever happens; should a site nevertheless refuse an entry beyond it, the claim loses at most
``(1 + e^epsilon) 2^-600`` of delta, far below the last digit that epsilon is rounded up to.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cached_property

from privacy.dp.accounting import epsilon
from privacy.dp.events import Relation, SkellamEvent
from privacy.errors import ConfigError

LARGEST_DEVIATION = 2**12
"""Of one share, grid units: what an exact sampler's table still holds. The grid follows from it."""
HEAD_ROOM = 32
"""Standard deviations of a share that an entry has room for: by Chernoff's bound one of 2^32 entries at one of 100
sites is beyond it with probability below 2^-690. The sum of n shares then has room for 32 sqrt(n) of its own."""
_PLACES = 4
_LARGEST_NORM = 2**26


@dataclass(frozen=True)
class DistributedNoise:
    """Distributed Skellam noise, fixed before the first round. All fields are public.

    Attributes:
      clip: C, largest 2-norm of what one unit (record or site) adds, > 0.
      noise_multiplier: z; the noise counted on has standard deviation z * C in each entry.
      counted: m, contributions that are sure to be noised by strangers: min_survivors minus colluders, where
        sub-models differ the fewest over all regions. Against a peer, that peer is a colluder.
      dimension: d, entries of the whole update, all regions; it is clipped once.
    """

    clip: Decimal
    noise_multiplier: Decimal
    counted: int
    dimension: int

    def __post_init__(self) -> None:
        if not (self.clip.is_finite() and self.clip > 0 and self.dimension >= 1):
            raise ConfigError(f"distributed noise needs a clip > 0 and at least one entry, not {self.clip}")
        if not (self.noise_multiplier.is_finite() and self.noise_multiplier > 0):
            raise ConfigError(f"a noise multiplier must be a positive number, not {self.noise_multiplier}")
        if self.counted < 1:
            raise ConfigError(
                f"{self.counted} survivors besides those in league add no noise",
                hint="More sites must hold every part of the model, or fewer be assumed to collude.",
            )
        if not self.dimension <= self.l2**2 <= _LARGEST_NORM**2:
            raise ConfigError(
                f"noise {self.noise_multiplier} times the clip does not fit a grid for {self.dimension} entries",
                hint="Updates would be rounded away: allow a larger epsilon, a smaller model, or more sites."
                if self.l2**2 < self.dimension
                else "With so little noise the update is not protected: choose a smaller epsilon.",
            )

    @classmethod
    def calibrated(
        cls, *, target: Decimal, delta: Decimal, clip: Decimal, counted: int, dimension: int, executions: int
    ) -> "DistributedNoise":
        """Finds the least noise, in steps of 10^-4 of the clip, at which all executions cost at most ``target``.

        Args:
          target: Largest epsilon allowed, > 0; by RDP, under zero-out.
          delta: 0 < delta < 1.
          clip: C.
          counted: m.
          dimension: d.
          executions: Rounds and retries.

        Raises: ConfigError: No noise on a 12-bit grid is enough, or numbers are unusable.
        """
        if not (target.is_finite() and target > 0 and delta.is_finite() and 0 < delta < 1 and executions >= 1):
            raise ConfigError("distributed noise needs epsilon > 0, 0 < delta < 1 and at least one round")

        def noise(steps: int) -> "DistributedNoise":
            return cls(clip, Decimal(steps).scaleb(-_PLACES), counted, dimension)

        def fits(steps: int) -> bool:
            event = noise(steps).event(executions)
            return epsilon([event], delta, Relation.REPLACE_SPECIAL, "RDP") <= float(target)

        # What the grid allows: an update's norm is from sqrt(d) to _LARGEST_NORM units.
        reach = LARGEST_DEVIATION**2 * max(counted, 0) * 10 ** (2 * _PLACES)
        shortest = math.isqrt(max(dimension, 1) - 1) + 1
        least, most = math.isqrt(reach // _LARGEST_NORM**2) + 1, math.isqrt(reach // shortest**2)
        # Rounding the norm to the grid makes the price uneven by parts in 10^7, so the bound itself is tried again.
        steps = least + bisect_left(range(least, most), True, key=fits)
        while steps < most and not fits(steps):
            steps += 1
        found = noise(steps)
        if not fits(steps):
            raise ConfigError(
                f"no noise on the grid brings {executions} rounds down to epsilon {target} at delta {delta}",
                hint="Allow a larger epsilon, fewer rounds, a smaller model, or more sites.",
            )
        return found

    @cached_property
    def l2(self) -> int:
        """Integer sensitivity: the clip in grid units, the largest at which a share's deviation is at most 2^12.

        One grid unit is thus C / l2. Rounding toward zero never lengthens a vector, so this is exact.
        """
        return math.isqrt(int(LARGEST_DEVIATION**2 * self.counted / Fraction(self.noise_multiplier) ** 2))

    @property
    def l1(self) -> int:
        """Largest 1-norm of an integer vector of d entries and 2-norm at most l2; rounded up."""
        return min(math.isqrt(self.dimension * self.l2**2 - 1) + 1, self.l2**2)

    @property
    def scale(self) -> float:
        """Grid units per unit of the update."""
        return float(self.l2 / Fraction(self.clip))

    @property
    def variance(self) -> Decimal:
        """(z * l2)^2: total variance that is sure to be in each entry, grid units squared; rounded down."""
        return Decimal(math.floor(self._variance * 10**6)).scaleb(-6)

    @property
    def _variance(self) -> Fraction:
        return (Fraction(self.noise_multiplier) * self.l2) ** 2

    def share_variance(self, counted: int | None = None) -> int:
        """Returns the variance of each site's share, grid units squared, at most 2^24; rounded up.

        Args:
          counted: Survivors minus colluders that a region is sure of, not below ``self.counted``; that unless given.

        Raises: ConfigError: Fewer than the plan counts on.
        """
        contributions = self.counted if counted is None else counted
        if contributions < self.counted:
            raise ConfigError(f"the plan counts on {self.counted} noisy contributions, a region has {contributions}")
        return math.ceil(self._variance / contributions)

    def event(self, count: int) -> SkellamEvent:
        """Returns the declared cost of ``count`` rounds, whoever survives."""
        return SkellamEvent(self.variance, Decimal(self.l2), Decimal(self.l1), count)

    def hypothetical(self, contributions: int, count: int) -> SkellamEvent:
        """Returns what the same shares would cost if that many strangers' were in the sum: for people, never debited.

        Args:
          contributions: Sites minus drop-outs and colluders, at least 1.
          count: Rounds.
        """
        total = Decimal(contributions * self.share_variance())
        return SkellamEvent(total, Decimal(self.l2), Decimal(self.l1), count)

    def largest_entry(self, records: int = 1) -> int:
        """Returns the largest absolute entry before the noise, grid units.

        Args:
          records: Most units that one site sums: 1 where the unit is the site, its records where it is the record.
        """
        return records * self.l2

    def bound(self, n_sites: int, *, bits: int, records: int = 1) -> int:
        """Returns the largest absolute entry of a site's noisy contribution that the ring is planned for.

        Args:
          n_sites: Sites that take part, public.
          bits: Of the ring.
          records: As for ``largest_entry``.

        Raises: ConfigError: So many entries could wrap in such a ring.
        """
        entry = self.largest_entry(records) + HEAD_ROOM * (math.isqrt(self.share_variance()) + 1)
        if n_sites * entry >= 2 ** (bits - 1):
            raise ConfigError(f"sums of {n_sites} noisy contributions do not fit a ring of {bits} bits")
        return entry
