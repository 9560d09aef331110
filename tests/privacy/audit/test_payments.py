"""What a site lists as paid beside what the report says that it answered."""

from collections.abc import Callable

import pytest

from privacy.audit import payments, statement
from privacy.audit.payments import Payment
from privacy.dp.events import FULL_BATCH, GaussianEvent
from tests.privacy.audit import sample

EVENT = GaussianEvent(sample.NOISE, FULL_BATCH, 1)
ATTEMPTS = [(number, attempt) for number in range(1, 16) for attempt in ((1, 2) if number == 7 else (1,))]
REPORT = statement.decode(statement.encode(sample.predicate(), sample.MODEL_SHA256))


def honest() -> list[Payment]:
    return [Payment("record", *attempt, EVENT) for attempt in ATTEMPTS]


def test_what_was_paid_is_what_was_answered() -> None:
    assert list(payments.problems(REPORT, "cleveland", honest())) == []


LIES: dict[str, tuple[Callable[[list[Payment]], object], str]] = {
    "another event": (
        lambda paid: paid.__setitem__(3, paid[3]._replace(event=GaussianEvent(sample.NOISE * 2, FULL_BATCH, 1))),
        "other debits than privacy.epsilon",
    ),
    "an answer without a debit": (
        lambda paid: paid.__setitem__(3, paid[3]._replace(round=7, attempt=1)),
        "answered in round 4 without a debit",
    ),
    "one attempt paid twice": (
        lambda paid: paid.__setitem__(3, paid[3]._replace(round=5)),
        "paid 2 times for round 5, attempt 1",
    ),
    "an attempt that nobody knows of": (
        lambda paid: paid.__setitem__(6, paid[6]._replace(attempt=3)),
        "round 7, attempt 3, of which the report says nothing",
    ),
    "two attempts as one": (
        lambda paid: (paid.pop(6), paid.__setitem__(6, paid[6]._replace(event=EVENT.times(2)))),
        "other than 1 executions",
    ),
    "a claim that the report does not make": (
        lambda paid: paid.append(Payment("site", 1, 1, EVENT)),
        "paid for site, about which the report claims nothing",
    ),
}


@pytest.mark.parametrize(("edit", "why"), LIES.values(), ids=LIES.keys())
def test_a_lie_about_payments_is_found(edit: Callable[[list[Payment]], object], why: str) -> None:
    paid = honest()
    edit(paid)
    assert any(why in problem for problem in payments.problems(REPORT, "cleveland", paid))
