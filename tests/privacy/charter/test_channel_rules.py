"""What a charter allows agents to want of each other: every clause, and nothing that is not listed."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from privacy.charter import channel_rules
from privacy.charter.channel_rules import check_ask, check_hold, check_release, hold_purposes
from privacy.charter.document import Charter, from_body
from privacy.charter.rules import CharterRefusalError
from privacy.policy.channel_requests import AskFacts, HoldFacts, ReleaseFacts
from tests.privacy.charter.example import CHARTER, NOW, STUDY, body
from tests.privacy.charter.test_inference import noise, terms
from tests.privacy.policy.channel_example import ASK, HOLD, LOCAL, NOISED, PLAN, RELEASE, UNSAFE

CHAINS = {"digits": PLAN}
TERMS = terms(modes=["chain", "ensemble", "local"])
WITH = from_body(body(chains=CHAINS, inference=TERMS))
OPEN = from_body(body(chains=CHAINS, unsafe_without_dp=True))
NOISY = from_body(body(inference=terms(noise=noise())))
ONLY_LOCAL = from_body(body(inference=terms(modes=["local"])))
ANSWER = replace(HOLD, train=False, purpose="diagnosis")


def test_what_is_listed_is_allowed() -> None:
    check_hold(WITH, HOLD, "alba", NOW)
    check_hold(WITH, ANSWER, "alba", NOW)
    check_hold(CHARTER, replace(HOLD, plan="00" * 32, study=STUDY), "alba", NOW)
    check_release(WITH, RELEASE, "alba", NOW)
    check_release(OPEN, UNSAFE, "alba", NOW)
    check_release(WITH, replace(RELEASE, epsilon_after=Decimal(2)), "alba", NOW)
    assert check_ask(WITH, ASK, "alba", NOW) == WITH.inference
    check_ask(WITH, LOCAL, "alba", NOW)
    check_ask(WITH, replace(ASK, queries=1000, asked_today=1000, asked_ever=1000), "alba", NOW)
    check_ask(NOISY, NOISED, "alba", NOW)
    check_ask(NOISY, replace(NOISED, agents=("alba", "brno", "cork"), noise=Decimal(5)), "alba", NOW)
    check_ask(NOISY, replace(NOISED, epsilon_after=Decimal(4)), "alba", NOW)


HELD: list[tuple[str, Charter, HoldFacts]] = [
    ("members", WITH, replace(HOLD, asker="evil")),
    ("members", WITH, replace(HOLD, owner="evil")),
    ("members", WITH, replace(HOLD, asker="hub")),
    ("chain", WITH, replace(HOLD, plan="00" * 32)),
    ("chain", CHARTER, HOLD),
    ("chain", CHARTER, replace(HOLD, study="00" * 32)),
    ("purpose", WITH, replace(HOLD, purpose="diagnosis")),
    ("purpose", WITH, replace(ANSWER, purpose="training")),
    ("purpose", OPEN, ANSWER),
    ("purpose", from_body(body(chains=CHAINS, inference=terms())), ANSWER),
]
LEFT: list[tuple[str, Charter, ReleaseFacts]] = [
    ("members", WITH, replace(RELEASE, receiver="evil")),
    ("members", WITH, replace(RELEASE, receiver="alba")),
    ("chain", WITH, replace(RELEASE, plan="00" * 32)),
    ("chain", CHARTER, RELEASE),
    ("asset", WITH, replace(RELEASE, asset="lungs")),
    ("purpose", WITH, replace(RELEASE, purpose="diagnosis")),
    ("unsafe", WITH, UNSAFE),
    ("epsilon of the asset", WITH, replace(RELEASE, epsilon_after=Decimal("2.001"))),
    ("epsilon of the asset", WITH, replace(RELEASE, epsilon_after=Decimal("NaN"))),
]
ASKED: list[tuple[str, Charter, AskFacts]] = [
    ("members", WITH, replace(ASK, asker="evil")),
    ("members", WITH, replace(ASK, asker="hub")),
    ("inference", CHARTER, ASK),
    ("inference", CHARTER, LOCAL),
    ("mode", ONLY_LOCAL, ASK),
    ("purpose", WITH, replace(ASK, purpose="training")),
    ("queries", WITH, replace(ASK, queries=1001)),
    ("agents", WITH, replace(ASK, agents=("alba", "brno", "cork"))),
    ("agents", WITH, replace(ASK, agents=("alba", "brno", "cork", "dole", "evil"))),
    ("agents", WITH, replace(ASK, agents=("brno", "alba", "cork", "dole"))),
    ("agents", NOISY, replace(NOISED, agents=("alba", "brno", "cork", "evil"))),
    ("agents", NOISY, replace(NOISED, agents=("brno", "cork", "dole"))),
    ("noise", NOISY, ASK),
    ("noise", NOISY, replace(NOISED, noise=Decimal("4.999"))),
    ("noise", NOISY, replace(NOISED, noise=Decimal("NaN"))),
    ("epsilon of answers", NOISY, replace(NOISED, epsilon_after=Decimal("4.001"))),
    ("epsilon of answers", NOISY, replace(NOISED, epsilon_after=Decimal("Infinity"))),
]
EVERY: list[tuple[str, Charter, Any, Callable[..., object]]] = [
    *((clause, charter, facts, check_hold) for clause, charter, facts in HELD),
    *((clause, charter, facts, check_release) for clause, charter, facts in LEFT),
    *((clause, charter, facts, check_ask) for clause, charter, facts in ASKED),
]


@pytest.mark.parametrize(("clause", "charter", "facts", "check"), EVERY)
def test_each_clause_forbids(clause: str, charter: Charter, facts: Any, check: Callable[..., object]) -> None:
    with pytest.raises(CharterRefusalError) as raised:
        check(charter, facts, "alba", NOW)
    assert raised.value.clause == clause
    assert all(line.isprintable() for line in raised.value.lines())


def test_each_clause_has_such_a_case() -> None:
    assert {clause for clause, *_ in HELD} == set(channel_rules.HOLD_RULES)
    assert {clause for clause, *_ in LEFT} == set(channel_rules.RELEASE_RULES)
    assert {clause for clause, *_ in ASKED} == {*channel_rules.ASK_RULES, "inference"}


@pytest.mark.parametrize(("facts", "check"), [(HOLD, check_hold), (RELEASE, check_release), (ASK, check_ask)])
def test_nothing_before_and_nothing_after_its_time(facts: Any, check: Callable[..., object]) -> None:
    moments: list[tuple[datetime, str]] = [
        (WITH.not_before - timedelta(seconds=1), "not before"),
        (WITH.not_after, "not after"),
    ]
    for moment, clause in moments:
        with pytest.raises(CharterRefusalError) as raised:
            check(WITH, facts, "alba", moment)
        assert raised.value.clause == clause
    check(WITH, facts, "alba", WITH.not_before)
    check(WITH, facts, "alba", WITH.not_after - timedelta(seconds=1))


def test_stages_work_for_what_data_may_be_used_for_or_what_may_be_asked_for() -> None:
    assert hold_purposes(WITH, train=True) == ("training",)
    assert hold_purposes(WITH, train=False) == ("diagnosis",)
    assert hold_purposes(CHARTER, train=False) == hold_purposes(ONLY_LOCAL, train=False) == ()


def test_a_strangers_words_are_shown_as_letters() -> None:
    with pytest.raises(CharterRefusalError) as raised:
        check_ask(WITH, replace(ASK, purpose="a\n\x1b[31m" + "b" * 10_000), "alba", NOW)
    assert all(line.isprintable() for line in raised.value.lines())
    assert len(str(raised.value)) < 400
