"""Privacy plans: unit, clip, sampling, noise, number of releases and relation in one frozen value, priced whole.

Mismatched parts cannot be built: a plan is calibrated from a target and public numbers, and hands out both mechanism
and the event that prices it. Three places for the noise, one plan each: ``RecordPlan`` at the site, in every step;
``SitePlan`` at the server, on the opened sum, for the recipients of the model; ``DistributedPlan`` as shares that every
site adds before masking.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from privacy.dp.accounting import Accountant, accountant_for, calibrate_noise, epsilon
from privacy.dp.events import (
    FULL_BATCH,
    Arithmetic,
    Event,
    GaussianEvent,
    Relation,
    Sampling,
    SamplingType,
    SkellamEvent,
)
from privacy.dp.mechanism import GRID, ClippedSum, RoundedGaussianSum
from privacy.dp.noise import Entropy, rounded_gaussian_exact, skellam_exact
from privacy.dp.skellam import DistributedNoise
from privacy.errors import ConfigError, SensitivityError


class Unit(StrEnum):
    """What neighbouring data sets differ in one of: whom a claim protects."""

    RECORD = "record"
    PATIENT = "patient"
    SITE = "site"


@dataclass(frozen=True, kw_only=True)
class PrivacyPlan(ABC):
    """What every plan fixes before the first release. All fields are public.

    Neighbouring training sets (after the split) differ in one unit that is zeroed out; the number of units is therefore
    public and stays the same, and so do weights, sampling rate and denominators (docs/privacy-rules.md, 9).

    Attributes:
      unit: Whom a claim protects.
      clip: C, largest 2-norm of what one unit adds.
      noise_multiplier: z; the noise has standard deviation z * C.
      steps_per_attempt: Mechanism executions in one attempt at a round.
      max_attempts: Rounds plus retries; the plan is priced as if all were used.
      target: Largest epsilon this plan may cost.
      delta: Probability mass outside the epsilon bound.
    """

    unit: Unit = Unit.RECORD
    clip: Decimal
    noise_multiplier: Decimal
    steps_per_attempt: int
    max_attempts: int
    target: Decimal
    delta: Decimal

    @abstractmethod
    def event(self, count: int) -> Event:
        """Returns the declared cost of ``count`` executions."""

    @property
    def claim(self) -> str:
        """What a ledger calls the claim; those of different names are never added up."""
        return str(self.unit)

    @property
    def relation(self) -> Relation:
        """Zero-out, for every unit: a site that left would take its noise along."""
        return Relation.REPLACE_SPECIAL

    @property
    def max_executions(self) -> int:
        """Executions the plan was priced for."""
        return self.steps_per_attempt * self.max_attempts

    @property
    def accountant(self) -> Accountant:
        """The method of the claim."""
        return accountant_for([self.event(1)])

    def epsilon(self, executions: int, relation: Relation | None = None, accountant: Accountant | None = None) -> float:
        """Prices that many executions; under the plan's own relation and accountant unless others are asked for."""
        events = [self.event(executions)] if executions else []
        return epsilon(events, self.delta, relation or self.relation, accountant or self.accountant)


@dataclass(frozen=True, kw_only=True)
class RecordPlan(PrivacyPlan):
    """Noise in every local step: what leaves the site is private, whoever sees it.

    Attributes:
      sampling: How units enter a step.
      n_records: N, records of the site; patients where they are the unit.
      arithmetic: How the noise of a step is drawn.
    """

    sampling: Sampling
    n_records: int
    arithmetic: Arithmetic = Arithmetic.FLOAT

    @classmethod
    def calibrated(
        cls,
        *,
        target: Decimal,
        delta: Decimal,
        clip: Decimal,
        n_records: int,
        batch: int,
        steps_per_attempt: int,
        max_attempts: int,
    ) -> "RecordPlan":
        """Builds the plan with the least noise that keeps the *whole* run, retries included, at ``target``.

        Args:
          target: Epsilon > 0.
          delta: 0 < delta < 1.
          clip: C > 0.
          n_records: N >= 1.
          batch: Expected batch size; 0, or anything not below N, means all records.
          steps_per_attempt: At least 1.
          max_attempts: At least 1.

        Raises: ConfigError: Unusable numbers.
        """
        if n_records < 1 or steps_per_attempt < 1 or max_attempts < 1 or batch < 0:
            raise ConfigError("a privacy plan needs at least one record, step and round")
        sampling = FULL_BATCH if batch == 0 or batch >= n_records else _poisson(batch, n_records)
        whole = GaussianEvent(Decimal(1), sampling, steps_per_attempt * max_attempts)
        return cls(
            clip=_checked_clip(clip),
            noise_multiplier=calibrate_noise(whole, target=target, delta=delta),
            sampling=sampling,
            n_records=n_records,
            steps_per_attempt=steps_per_attempt,
            max_attempts=max_attempts,
            target=target,
            delta=delta,
        )

    @property
    def expected_batch(self) -> float:
        """Denominator of every step: expected, never actual, batch size."""
        return float(self.sampling.rate) * self.n_records

    @cached_property
    def mechanism(self) -> RoundedGaussianSum:
        """The mechanism that this plan prices."""
        return RoundedGaussianSum(float(self.clip), noise_multiplier=self.noise_multiplier)

    def event(self, count: int) -> GaussianEvent:
        """Returns the declared cost of ``count`` executions."""
        return GaussianEvent(self.noise_multiplier, self.sampling, count, arithmetic=self.arithmetic)


@dataclass(frozen=True, kw_only=True)
class SitePlan(PrivacyPlan):
    """Noise at the server, on the opened sum of clipped updates: for the recipients of the model, not for the server.

    All sites take part in every round, so nothing is amplified; every site counts alike (docs/privacy-rules.md, 17).
    """

    @classmethod
    def calibrated(cls, *, target: Decimal, delta: Decimal, clip: Decimal, max_attempts: int) -> "SitePlan":
        """Builds the plan with the least noise that keeps all rounds and retries at ``target``.

        Raises: ConfigError: Unusable numbers.
        """
        whole = GaussianEvent(Decimal(1), FULL_BATCH, max_attempts)
        return cls(
            unit=Unit.SITE,
            clip=_checked_clip(clip),
            noise_multiplier=calibrate_noise(whole, target=target, delta=delta),
            steps_per_attempt=1,
            max_attempts=max_attempts,
            target=target,
            delta=delta,
        )

    @property
    def units(self) -> int:
        """Grid units of C: the integer sensitivity."""
        return GRID

    @cached_property
    def mechanism(self) -> ClippedSum:
        """What is done to every update, at the sites, before the noise."""
        return ClippedSum(float(self.clip), self.units)

    def noised(self, total: npt.NDArray[np.int64], entropy: Entropy) -> npt.NDArray[np.int64]:
        """Returns the sum, shape ``(d,)``, grid units, with the noise; public once its event is debited.

        Guarantees: the noise is drawn exactly, whatever its size and the model's: at one draw a round that is cheap.
        """
        return total + rounded_gaussian_exact(Fraction(self.noise_multiplier) * self.units, total.size, entropy)

    def event(self, count: int) -> GaussianEvent:
        """Returns the declared cost of ``count`` rounds."""
        return GaussianEvent(self.noise_multiplier, FULL_BATCH, count, arithmetic=Arithmetic.INTEGER_EXACT)


@dataclass(frozen=True, kw_only=True)
class DistributedPlan(PrivacyPlan):
    """Shares of integer Skellam noise that each site adds before masking: nobody ever holds the sum without noise.

    Attributes:
      noise: Grid, sensitivities and shares.
      colluders: Sites that may be in league with the server; their shares are not counted.
    """

    noise: DistributedNoise
    colluders: int

    @classmethod
    def calibrated(
        cls,
        *,
        target: Decimal,
        delta: Decimal,
        clip: Decimal,
        unit: Unit,
        survivors: int,
        colluders: int,
        dimension: int,
        max_attempts: int,
    ) -> "DistributedPlan":
        """Builds the plan with the least noise that keeps all rounds and retries at ``target``, by RDP.

        Args:
          target: Epsilon > 0.
          delta: 0 < delta < 1.
          clip: C > 0, of a record's gradient or of a site's update.
          unit: Whom the claim protects.
          survivors: Fewest sites in a sum, over all regions.
          colluders: How many of them may be in league with the server, or with each other.
          dimension: d.
          max_attempts: At least 1; each is one release.

        Raises: ConfigError: Unusable numbers, or no noise on the grid meets the target.
        """
        noise = DistributedNoise.calibrated(
            target=target,
            delta=delta,
            clip=_checked_clip(clip),
            counted=survivors - colluders,
            dimension=dimension,
            executions=max_attempts,
        )
        return cls(
            unit=unit,
            clip=clip,
            noise_multiplier=noise.noise_multiplier,
            steps_per_attempt=1,
            max_attempts=max_attempts,
            target=target,
            delta=delta,
            noise=noise,
            colluders=colluders,
        )

    @property
    def claim(self) -> str:
        """Holds against whoever sees no more than the sum, hence a name of its own."""
        return f"{self.unit}-distributed"

    @property
    def units(self) -> int:
        """Grid units of C: the integer sensitivity."""
        return self.noise.l2

    @cached_property
    def mechanism(self) -> ClippedSum:
        """What is done to every record or update before the noise."""
        return ClippedSum(float(self.clip), self.noise.l2)

    def share(self, size: int, survivors: int, entropy: Entropy) -> npt.NDArray[np.int64]:
        """Draws this site's share, shape ``(size,)``, grid units. Secret.

        Args:
          size: Entries, of one region.
          survivors: Fewest holders of the region in the sum, by the attempt's signed context.
          entropy: Randomness, in production ``secrets.token_bytes``.

        Raises: SensitivityError: Fewer shares are sure to be in the sum than the plan counts on.
        """
        counted = survivors - self.colluders
        if counted < self.noise.counted:
            raise SensitivityError(f"the plan counts on {self.noise.counted} shares of noise, the round promises fewer")
        return skellam_exact(self.noise.share_variance(counted), size, entropy)

    def event(self, count: int) -> SkellamEvent:
        """Returns the declared cost of ``count`` rounds."""
        return self.noise.event(count)


SumPlan: TypeAlias = SitePlan | DistributedPlan
"""Plans whose noise is in the sum over sites; both need secure aggregation here."""


def _checked_clip(clip: Decimal) -> Decimal:
    if not (clip.is_finite() and clip > 0):
        raise ConfigError(f"clip must be a positive number, not {clip}")
    return clip


def _poisson(batch: int, n_records: int) -> Sampling:
    # Rounded to a short exact decimal: the sampler, the denominator and the accountant use this same number.
    rate = (Decimal(batch) / Decimal(n_records)).quantize(Decimal("0.000001"))
    return Sampling(SamplingType.POISSON, rate)
