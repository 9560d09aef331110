"""What nobody can allow."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from privacy.errors import ConfigError, PrivacyError
from privacy.policy import floor
from privacy.policy.floor import FloorRefusalError, check_floor
from privacy.policy.requests import Protection, TrainingFacts
from privacy.secagg.context import Thresholds, default_n_c, thresholds
from tests.privacy.policy.example import FACTS

NAN, ENDLESS = Decimal("NaN"), Decimal("Infinity")


def protected(**changes: Any) -> TrainingFacts:
    return replace(FACTS, protection=replace(FACTS.protection, **changes))


FORBIDDEN = [
    ("masks", replace(FACTS, secagg=False)),
    ("cohort", replace(FACTS, cohort=2)),
    ("survivors", replace(FACTS, survivors=2)),
    ("cover", replace(FACTS, cover=2)),
    ("threshold", replace(FACTS, threshold=3)),
    ("setting", protected(settings=("none",))),
    ("setting", protected(settings=("record", "Record"))),
    ("epsilon", protected(epsilon=ENDLESS)),
    ("epsilon", protected(epsilon=NAN)),
    ("epsilon", protected(epsilon=Decimal(0))),
    ("epsilon", protected(epsilon=Decimal(-1))),
    ("epsilon after", protected(epsilon_after=ENDLESS)),
    ("epsilon after", protected(epsilon_after=NAN)),
    ("clip", protected(clip=ENDLESS)),
    ("clip", protected(clip=Decimal(0))),
    ("clip", protected(clip=Decimal("sNaN"))),
    ("delta", protected(delta=Decimal(0))),
    ("delta", protected(delta=Decimal(1))),
    ("delta", protected(delta=NAN)),
    ("noise", protected(noise=Decimal("0.0999"))),
    ("noise", protected(noise=NAN)),
    ("noise", protected(noise=ENDLESS)),
]


@pytest.mark.parametrize(("clause", "facts"), FORBIDDEN)
def test_each_rule_forbids_by_itself(clause: str, facts: TrainingFacts) -> None:
    with pytest.raises(PrivacyError) as raised:
        check_floor(facts)
    assert isinstance(raised.value, FloorRefusalError)
    assert raised.value.clause == clause


def test_each_rule_has_such_a_case() -> None:
    assert {clause for clause, _ in FORBIDDEN} == set(floor.RULES)


def test_what_is_at_the_floor_passes() -> None:
    check_floor(FACTS)
    check_floor(replace(FACTS, cohort=3, survivors=3, cover=3, threshold=2))
    check_floor(protected(noise=Decimal("0.1"), epsilon=Decimal(1000), delta=Decimal("0.99")))
    check_floor(replace(FACTS, protection=Protection()))  # whether that is allowed is for charter and policy


@pytest.mark.parametrize("n", range(3, 101))
def test_the_threshold_is_that_of_the_protocol_against_just_less_than_a_third(n: int) -> None:
    least = thresholds(n).t
    check_floor(replace(FACTS, cohort=n, threshold=least))
    with pytest.raises(FloorRefusalError, match="threshold"):
        check_floor(replace(FACTS, cohort=n, threshold=least - 1))
    with pytest.raises(ConfigError):
        Thresholds(default_n_c(n), least - 1, n, n).check(n)
    assert 3 * least >= 2 * n
