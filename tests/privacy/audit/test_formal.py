"""Formal values that measurements are held against follow from the events of the run's own claims."""

import math
from decimal import Decimal
from typing import Any

import pytest

from privacy.attacks.gaussian_pair import epsilon_of
from privacy.audit.measured import formal
from privacy.dp.accounting import epsilon
from privacy.dp.events import FULL_BATCH, Event, GaussianEvent, Relation
from privacy.dp.plan import DistributedPlan, Unit

DELTA = Decimal("0.00001")


def claim(*events: Event, unit: str = "record", accountant: str = "PLD") -> dict[str, Any]:
    sites = [{"site": f"site {k}", "events": [event.to_json()]} for k, event in enumerate(events)]
    return {"unit": unit, "accountant": accountant, "executions_per_attempt": 1, "budget_executions": 9, "sites": sites}


def test_many_releases_are_one_with_less_noise() -> None:
    assert formal.noise_over_run(claim(GaussianEvent(Decimal(6), FULL_BATCH, 4))) == [2.0]
    whole = epsilon([GaussianEvent(Decimal(6), FULL_BATCH, 9)], DELTA, Relation.REPLACE_SPECIAL)
    assert epsilon_of(1 / 2.0, float(DELTA)) == pytest.approx(whole, abs=1e-4)


def test_noise_in_shares_has_the_plans_multiplier() -> None:
    plan = DistributedPlan.calibrated(
        target=Decimal(8),
        delta=DELTA,
        clip=Decimal(1),
        unit=Unit.SITE,
        survivors=4,
        colluders=1,
        dimension=14,
        max_attempts=9,
    )
    (noise,) = formal.noise_over_run(claim(plan.event(3)))
    assert noise == pytest.approx(float(plan.noise_multiplier) / math.sqrt(9), rel=1e-6)


def test_the_strongest_claim_counts_and_in_it_the_weakest_holder() -> None:
    strong, weak = GaussianEvent(Decimal(8), FULL_BATCH, 1), GaussianEvent(Decimal(4), FULL_BATCH, 1)
    by_site = claim(GaussianEvent(Decimal(2), FULL_BATCH, 1), unit="site")
    found = formal.of_model([by_site, claim(strong, weak)], DELTA)
    assert found == pytest.approx(epsilon([weak], DELTA, Relation.REPLACE_SPECIAL))
    assert formal.of_sites([by_site, claim(strong)], DELTA) == pytest.approx(epsilon_of(0.5, float(DELTA)), abs=1e-4)
    assert formal.of_sites([claim(strong)], DELTA) is None
    assert formal.of_model([], DELTA) is None


def test_what_cannot_be_priced_promises_nothing() -> None:
    assert formal.of_model([claim(GaussianEvent(Decimal("0.01"), FULL_BATCH, 1))], DELTA) is None
