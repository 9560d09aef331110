import secrets
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from privacy.dp.events import Arithmetic, SamplingType
from privacy.dp.mechanism import GRID
from privacy.dp.noise import rounded_gaussian_exact
from privacy.dp.plan import DistributedPlan, RecordPlan, SitePlan, Unit
from privacy.errors import ConfigError, SensitivityError


def plan(n_records: int = 199, batch: int = 0, steps: int = 1, attempts: int = 17) -> RecordPlan:
    return RecordPlan.calibrated(
        target=Decimal(1),
        delta=Decimal("0.001"),
        clip=Decimal(1),
        n_records=n_records,
        batch=batch,
        steps_per_attempt=steps,
        max_attempts=attempts,
    )


def test_a_plan_costs_at_most_its_target_with_every_retry_used() -> None:
    made = plan()
    assert made.epsilon(made.max_executions) <= 1.0
    assert made.epsilon(15) < made.epsilon(17)


def test_the_denominator_is_the_expected_batch() -> None:
    assert plan().expected_batch == 199
    poisson = plan(n_records=300, batch=32, attempts=2)
    assert poisson.sampling.type is SamplingType.POISSON
    assert poisson.expected_batch == pytest.approx(32, abs=1e-3)


def test_a_batch_of_everybody_is_a_full_batch() -> None:
    assert plan(n_records=30, batch=64, attempts=1).sampling.type is SamplingType.FULL


@pytest.mark.parametrize("bad", [{"n_records": 0}, {"batch": -1}, {"steps": 0}, {"attempts": 0}])
def test_an_impossible_plan_is_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        plan(**bad)


def test_no_share_is_drawn_for_a_sum_with_fewer_shares_than_the_plan_counts_on() -> None:
    plan = DistributedPlan.calibrated(
        target=Decimal(5), delta=Decimal("0.001"), clip=Decimal(1), unit=Unit.SITE,
        survivors=5, colluders=1, dimension=10, max_attempts=3,
    )  # fmt: skip
    assert plan.share(10, 5, secrets.token_bytes).shape == (10,)
    with pytest.raises(SensitivityError, match="promises fewer"):
        plan.share(10, 4, secrets.token_bytes)


@pytest.mark.parametrize("target", ["10", "1", "0.001"])
def test_noise_on_an_opened_sum_is_drawn_as_its_event_says(target: str) -> None:
    """The last one takes noise of more than 2^30 grid units, which is dear to draw exactly: once a round, it is."""
    delta, zero = Decimal("0.000001"), np.zeros(64, np.int64)
    plan = SitePlan.calibrated(target=Decimal(target), delta=delta, clip=Decimal("0.5"), max_attempts=9)
    assert (plan.noise_multiplier * GRID > 2**30) == (target == "0.001")
    assert plan.event(1).arithmetic is Arithmetic.INTEGER_EXACT
    exact = rounded_gaussian_exact(Fraction(plan.noise_multiplier) * GRID, 64, lambda n: b"\x07" * n)
    assert (plan.noised(zero, lambda n: b"\x07" * n) == exact).all()
