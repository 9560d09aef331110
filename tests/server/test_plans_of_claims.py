"""What an auditor reads back from a claim is the plan that the run had."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from privacy.audit.plans import plan_of
from privacy.dp.plan import DistributedPlan, PrivacyPlan, RecordPlan, SitePlan, Unit
from privacy.errors import UnsupportedEventError
from server.claims import Placement, PrivacyClaim, Spent, epsilon_claim

COMMON: dict[str, Any] = {"target": Decimal(1), "delta": Decimal("0.001"), "clip": Decimal("0.5")}
RECORD = RecordPlan.calibrated(n_records=199, batch=0, steps_per_attempt=2, max_attempts=17, **COMMON)
SAMPLED = RecordPlan.calibrated(n_records=1000, batch=64, steps_per_attempt=1, max_attempts=5, **COMMON)
SITE = SitePlan.calibrated(max_attempts=5, **COMMON)
SHARED = DistributedPlan.calibrated(
    unit=Unit.SITE, survivors=3, colluders=0, dimension=100, max_attempts=5, **(COMMON | {"target": Decimal(8)})
)
CASES: list[tuple[Placement, PrivacyPlan]] = [
    ("local", RECORD),
    ("local", SAMPLED),
    ("central", SITE),
    ("distributed", SHARED),
]


def claim_of(placement: Placement, *plans: PrivacyPlan) -> dict[str, Any]:
    spent = {f"site-{place}": Spent(plan, (plan.event(2),)) for place, plan in enumerate(plans)}
    return epsilon_claim(PrivacyClaim(placement, spent), 4)


@pytest.mark.parametrize(("placement", "plan"), CASES)
def test_the_plan_is_read_back(placement: Placement, plan: PrivacyPlan) -> None:
    assert plan_of(claim_of(placement, plan), 100) == plan


def test_of_several_holders_the_one_with_the_weakest_promise_counts() -> None:
    weaker = replace(RECORD, noise_multiplier=RECORD.noise_multiplier / 2, n_records=30)
    assert plan_of(claim_of("local", RECORD, weaker), 100) == weaker


def test_events_of_two_mechanisms_have_no_single_plan() -> None:
    claim = claim_of("local", RECORD)
    claim["sites"][0]["events"].append(SAMPLED.event(1).to_json())
    with pytest.raises(UnsupportedEventError, match="no single plan"):
        plan_of(claim, 100)
