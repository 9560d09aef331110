"""What nobody can allow of what agents want of each other."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from privacy.policy import channel_floor
from privacy.policy.channel_floor import check_ask, check_release
from privacy.policy.channel_requests import AskFacts, ReleaseFacts
from privacy.policy.floor import FloorRefusalError
from strategies.release import Crossing
from tests.privacy.policy.channel_example import AGENTS, ASK, LOCAL, NOISED, RELEASE, UNSAFE

NAN, ENDLESS = Decimal("NaN"), Decimal("Infinity")


def release(facts: ReleaseFacts = RELEASE, **changes: Any) -> ReleaseFacts:
    return replace(facts, **changes)


def ask(facts: AskFacts = ASK, **changes: Any) -> AskFacts:
    return replace(facts, **changes)


NO_RELEASE = [
    ("what", release(what=())),
    ("what", release(what=("activations", "weights"))),
    ("reason", release(UNSAFE, reason="")),
    ("reason", release(UNSAFE, reason=" ")),
    ("reason", release(UNSAFE, reason="a\u202eb")),
    ("reason", release(reason="both")),
    ("reason", release(clip=ENDLESS)),
    ("reason", release(clip=NAN)),
    ("reason", release(noise=Decimal(0))),
    ("reason", release(noise=ENDLESS)),
    ("reason", release(noise=NAN)),
    ("reason", release(noise=Decimal(-1))),
    ("never noised", release(what=("activations", "labels"))),
    ("never noised", release(what=("inputs",))),
    ("clip", release(clip=Decimal(0))),
    ("clip", release(clip=Decimal(-1))),
    ("noise", release(noise=Decimal("0.0999"))),
    ("most", release(most=0)),
    ("epsilon after", release(epsilon_after=ENDLESS)),
    ("epsilon after", release(epsilon_after=NAN)),
    ("epsilon after", release(epsilon_after=Decimal(0))),
]
NO_ANSWER = [
    ("mode", ask(mode="vote")),
    ("mode", ask(mode="")),
    ("counted", ask(queries=0)),
    ("counted", ask(queries=301)),
    ("counted", ask(asked_today=901)),
    ("local", ask(LOCAL, asker="brno")),
    ("agents", ask(agents=("alba", "brno"))),
    ("agents", ask(agents=("alba", "brno", "alba"))),
    ("agents", ask(agents=())),
    ("colluders", ask(colluders=0)),
    ("colluders", ask(agents=("alba", "cork", "dole"), colluders=2)),
    ("colluders", ask(agents=("alba", "brno", "cork"), colluders=0)),
    ("colluders", ask(colluders=3)),
    ("colluders", ask(agents=("alba", "alba", "cork", "dole"), colluders=2)),  # named twice is one
    ("colluders", ask(agents=(*AGENTS, "evil", "fano", "gera"), colluders=1)),
    ("noise", ask(NOISED, noise=Decimal("0.0999"))),
    ("noise", ask(NOISED, noise=NAN)),
    ("noise", ask(NOISED, noise=ENDLESS)),
    ("noise", ask(NOISED, noise=Decimal(-1))),
    ("epsilon after", ask(NOISED, epsilon_after=ENDLESS)),
    ("epsilon after", ask(NOISED, epsilon_after=Decimal(0))),
    ("epsilon after", ask(NOISED, epsilon_after=NAN)),
]


@pytest.mark.parametrize(("clause", "facts"), NO_RELEASE)
def test_each_rule_forbids_a_release_by_itself(clause: str, facts: ReleaseFacts) -> None:
    with pytest.raises(FloorRefusalError) as raised:
        check_release(facts)
    assert raised.value.clause == clause


@pytest.mark.parametrize(("clause", "facts"), NO_ANSWER)
def test_each_rule_forbids_an_answer_by_itself(clause: str, facts: AskFacts) -> None:
    with pytest.raises(FloorRefusalError) as raised:
        check_ask(facts, "alba")
    assert raised.value.clause == clause


def test_each_rule_has_such_a_case() -> None:
    assert {clause for clause, _ in NO_RELEASE} == set(channel_floor.RELEASE_RULES)
    assert {clause for clause, _ in NO_ANSWER} == set(channel_floor.ASK_RULES)


@pytest.mark.parametrize("facts", [RELEASE, UNSAFE, release(noise=Decimal("0.1"), most=1)])
def test_a_release_at_the_floor_passes(facts: ReleaseFacts) -> None:
    check_release(facts)


@pytest.mark.parametrize(
    "facts",
    [
        *(ASK, NOISED, LOCAL, ask(NOISED, noise=Decimal("0.1")), ask(queries=1, asked_today=1, asked_ever=1)),
        ask(agents=("alba", "cork", "dole"), colluders=0),  # the asker is none of them, n_c = 0
        ask(agents=("alba", "cork", "dole"), colluders=1),  # two that do not tell
        ask(agents=("alba", "brno", "cork"), colluders=1),  # the asker is one of them
        ask(mode="chain", agents=(), colluders=0),
    ],
)
def test_an_answer_at_the_floor_passes(facts: AskFacts) -> None:
    check_ask(facts, "alba")


def test_what_can_cross_is_what_plans_say() -> None:
    assert {str(each) for each in Crossing} == channel_floor.CROSSINGS
