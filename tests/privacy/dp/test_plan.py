from decimal import Decimal

import pytest

from privacy.dp.events import SamplingType
from privacy.dp.plan import RecordPlan
from privacy.errors import ConfigError


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
