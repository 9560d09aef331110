"""From facts about the channel to requests that fit the schema; and policies that were not written for it."""

from dataclasses import fields, replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from privacy.errors import ConfigError, PrivacyError
from privacy.policy.channel_requests import ask_request, hold_request, release_request
from privacy.policy.engine import CHANNEL_ACTIONS, NO_RULE, CedarPolicy, Request
from privacy.policy.requests import MOST
from tests.privacy.policy.channel_example import ASK, HOLD, LOCAL, NOISED, PLAN, RELEASE, UNSAFE

MONDAY = datetime(2026, 7, 6, 23, 5, tzinfo=ZoneInfo("Europe/Berlin"))
TIME = {"minute": 23 * 60 + 5, "weekday": 1}
CAP = Decimal("4.0009")
ALL = CedarPolicy(
    '@id("all") permit (principal, action, resource);'
    '@id("none") forbid (principal, action == Action::"hold", resource) when { context.stages < 0 };',
    "site",
)
HELD = hold_request(HOLD, purposes=("training",), moment=MONDAY)
RELEASED = release_request(RELEASE, sensitivity="ordinary", purposes=("training",), epsilon_cap=CAP, moment=MONDAY)
ASKED = ask_request(ASK, site="alba", purposes=("diagnosis",), epsilon_cap=Decimal(0), moment=MONDAY)
EVERY = (HELD, RELEASED, ASKED)


def test_requests_say_what_the_facts_say() -> None:
    assert (HELD.principal, HELD.action, HELD.resource) == (("Agent", "brno"), "hold", ("Plan", PLAN))
    assert HELD.attributes == {"owner": "cork", "purposes": ("training",)}
    assert HELD.context == {"purpose": "training", "train": True, "stages": 3, "micro_batch": 32, **TIME}
    assert (RELEASED.principal, RELEASED.action) == (("Agent", "brno"), "release")
    assert RELEASED.resource == ("Asset", "hearts")
    assert RELEASED.attributes == {"sensitivity": "ordinary", "purposes": ("training",), "epsilon_cap_milli": 4000}
    assert RELEASED.context == {
        "purpose": "training",
        "what": ("activations",),
        "unsafe": False,
        "clip_milli": 1001,
        "noise_milli": 4000,
        "most": 10,
        "epsilon_after_milli": 2000,
        **TIME,
    }
    assert (ASKED.principal, ASKED.action, ASKED.resource) == (("Agent", "brno"), "ask", ("Service", "alba"))
    assert ASKED.attributes == {"purposes": ("diagnosis",), "epsilon_cap_milli": 0}
    assert ASKED.context == {
        "purpose": "diagnosis",
        "mode": "ensemble",
        "own": False,
        "queries": 100,
        "asked_today": 300,
        "asked_ever": 900,
        "agents": 4,
        "colluders": 1,
        "noise_milli": 0,
        "epsilon_after_milli": MOST,
        **TIME,
    }


def test_what_leaves_as_it_is_has_no_limit_and_no_noise() -> None:
    context = release_request(
        UNSAFE, sensitivity="", purposes=(), epsilon_cap=Decimal("Infinity"), moment=MONDAY
    ).context
    assert (context["unsafe"], context["noise_milli"]) == (True, 0)
    assert context["clip_milli"] == context["epsilon_after_milli"] == context["most"] == MOST
    assert replace(RELEASE, noise=Decimal(0)).unsafe
    assert replace(RELEASE, clip=Decimal("Infinity")).unsafe
    assert replace(RELEASE, noise=Decimal("NaN")).unsafe


def test_noise_on_answers_is_rounded_down_and_their_cost_up() -> None:
    noised = ask_request(NOISED, site="brno", purposes=(), epsilon_cap=CAP, moment=MONDAY)
    assert (noised.context["noise_milli"], noised.context["epsilon_after_milli"]) == (5000, 2001)
    assert (noised.context["own"], noised.attributes["epsilon_cap_milli"]) == (True, 4000)
    local = ask_request(LOCAL, site="alba", purposes=(), epsilon_cap=CAP, moment=MONDAY)
    assert (local.context["own"], local.context["agents"]) == (True, 1)


def test_a_number_that_means_nothing_is_no_request() -> None:
    with pytest.raises(PrivacyError):
        ask_request(
            replace(NOISED, epsilon_after=Decimal(-1)), site="alba", purposes=(), epsilon_cap=CAP, moment=MONDAY
        )


def test_however_often_somebody_asked_it_fits() -> None:
    often = ask_request(
        replace(ASK, asked_ever=2**70), site="alba", purposes=("diagnosis",), epsilon_cap=CAP, moment=MONDAY
    )
    assert often.context["asked_ever"] == MOST
    assert ALL.decide(often).allowed


@pytest.mark.parametrize("request_", EVERY, ids=lambda one: one.action)
def test_each_fits_the_schema_and_nothing_more_or_less_does(request_: Request) -> None:
    assert ALL.decide(request_).allowed
    for name in request_.context:
        less = {key: value for key, value in request_.context.items() if key != name}
        assert not ALL.decide(replace(request_, context=less)).allowed
    assert not ALL.decide(replace(request_, context={**request_.context, "surprise": 1})).allowed
    assert not ALL.decide(replace(request_, principal=("Coordinator", "hub"))).allowed


OLD = {
    "others of that name": '@id("all") permit (principal, action, resource);'
    '@id("no") forbid (principal == Coordinator::"hold", action, resource == Asset::"ask");',
    "every permit": '@id("all") permit (principal, action, resource);',
    "a forbid of words that only runs have": '@id("all") permit (principal, action, resource);'
    '@id("few") forbid (principal, action, resource) when { context.cohort < 4 };',
    "text": '@id("all") permit (principal, action, resource); // Action::"hold"\n'
    '@id("no") forbid (principal, action == Action::"train", resource) when { context.study == "Action::\\"ask\\"" };',
}


@pytest.mark.parametrize("text", OLD.values(), ids=OLD.keys())
@pytest.mark.parametrize("request_", EVERY, ids=lambda one: one.action)
def test_a_policy_that_names_no_action_between_agents_allows_none(text: str, request_: Request) -> None:
    verdict = CedarPolicy(text, "site").decide(request_)
    assert (verdict.allowed, verdict.reasons) == (False, (NO_RULE,))


@pytest.mark.parametrize(
    "text",
    [
        '@id("a") permit (principal, action == Action::"ask", resource);',
        '@id("a") permit (principal, action in [Action::"train", Action::"ask"], resource);',
        '@id("a") permit (principal, action, resource) when { action == Action::"ask" };',
    ],
)
def test_what_it_names_it_decides_and_the_rest_is_refused(text: str) -> None:
    policy = CedarPolicy(text, "site")
    assert policy.decide(ASKED).allowed
    assert not policy.decide(HELD).allowed
    assert not policy.decide(RELEASED).allowed


@pytest.mark.parametrize(("word", "common"), [("minute", True), ("cohort", False), ("stages", False)])
def test_a_rule_for_several_actions_uses_words_that_all_of_them_have(word: str, common: bool) -> None:
    text = (
        '@id("all") permit (principal, action, resource);\n'
        '@id("hold") forbid (principal, action == Action::"hold", resource) when { context.stages > 9 };\n'
        f'@id("rule") forbid (principal, action, resource) when {{ context.{word} < 4 }};'
    )
    if common:
        assert CedarPolicy(text, "site").decide(HELD).allowed
        return
    with pytest.raises(ConfigError, match=f"line 3 of the policy.*{word}"):
        CedarPolicy(text, "site")


def test_every_word_is_explained_to_those_who_write_policies() -> None:
    text = (Path(__file__).parents[3] / "docs" / "how-to-policy.md").read_text("utf-8")
    words = {word for one in EVERY for word in (*one.context, *one.attributes)} | set(CHANNEL_ACTIONS)
    assert [word for word in words if f"`{word}`" not in text] == []
    assert "`channel.cedarschema`" in text


def test_facts_and_requests_are_about_the_same() -> None:
    """A fact that no policy sees is one that the charter or the floor decides."""
    unseen = {"asker", "plan", "study", "owner", "receiver", "asset", "reason", "clip", "noise", "epsilon_after"}
    for facts, request in ((HOLD, HELD), (RELEASE, RELEASED), (ASK, ASKED)):
        assert {one.name for one in fields(facts)} - unseen <= set(request.context)
