"""A privacy plan ties clip, sampling, noise, number of steps and relation, so that mismatched parts cannot be built."""

from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property

from privacy.dp.accounting import Accountant, calibrate_noise, epsilon
from privacy.dp.events import FULL_BATCH, GaussianEvent, Relation, Sampling, SamplingType
from privacy.dp.mechanism import RoundedGaussianSum
from privacy.errors import BudgetExhaustedError, ConfigError


@dataclass(frozen=True)
class RecordPlan:
    """What one site's record-level privacy consists of, frozen before the first step. All fields are public.

    Neighbouring training sets (after the split) differ in one record that is zeroed out; ``n_records`` is therefore
    public and stays the same, and so do weights, sampling rate and denominators (privacy-audit corrections, 9).

    Attributes:
      clip: C, largest 2-norm of one record's gradient.
      noise_multiplier: z; the noisy sum has standard deviation z * C.
      sampling: How records enter a step.
      n_records: N.
      steps_per_attempt: Mechanism executions each time the site trains.
      max_attempts: Rounds plus retries; the plan is priced as if all were used.
      target: Largest epsilon this plan may cost.
      delta: Probability mass outside the epsilon bound.
    """

    clip: Decimal
    noise_multiplier: Decimal
    sampling: Sampling
    n_records: int
    steps_per_attempt: int
    max_attempts: int
    target: Decimal
    delta: Decimal
    relation: Relation = Relation.REPLACE_SPECIAL

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
        if not (clip.is_finite() and clip > 0):
            raise ConfigError(f"clip must be a positive number, not {clip}")
        sampling = FULL_BATCH if batch == 0 or batch >= n_records else _poisson(batch, n_records)
        whole = GaussianEvent(Decimal(1), sampling, steps_per_attempt * max_attempts)
        multiplier = calibrate_noise(whole, target=target, delta=delta)
        return cls(clip, multiplier, sampling, n_records, steps_per_attempt, max_attempts, target, delta)

    @property
    def max_executions(self) -> int:
        """Executions the plan was priced for."""
        return self.steps_per_attempt * self.max_attempts

    @property
    def expected_batch(self) -> float:
        """Denominator of every step: expected, never actual, batch size."""
        return float(self.sampling.rate) * self.n_records

    @cached_property
    def mechanism(self) -> RoundedGaussianSum:
        """The mechanism that this plan prices."""
        return RoundedGaussianSum(float(self.clip), float(self.noise_multiplier))

    def event(self, count: int) -> GaussianEvent:
        """Returns the declared cost of ``count`` executions."""
        return GaussianEvent(self.noise_multiplier, self.sampling, count)

    def check_room(self, executed: int) -> None:
        """Refuses another attempt once the priced executions are used up.

        Args:
          executed: Executions that were already debited, across all rounds and attempts.

        Raises: BudgetExhaustedError: The next attempt would exceed ``max_executions``.
        """
        if executed + self.steps_per_attempt > self.max_executions:
            raise BudgetExhaustedError(
                f"the plan allows {self.max_executions} noisy steps, {executed} are spent",
                hint="A site stops here; raise the number of retries before a run, never during it.",
            )

    def epsilon(self, executions: int, relation: Relation | None = None, accountant: Accountant = "PLD") -> float:
        """Prices that many executions; under the plan's own relation unless another is asked for."""
        events = [self.event(executions)] if executions else []
        return epsilon(events, self.delta, relation or self.relation, accountant)


def _poisson(batch: int, n_records: int) -> Sampling:
    # Rounded to a short exact decimal: the sampler, the denominator and the accountant use this same number.
    rate = (Decimal(batch) / Decimal(n_records)).quantize(Decimal("0.000001"))
    return Sampling(SamplingType.POISSON, rate)
