"""Facts become requests: every word of the schema, costs rounded to the safe side, local time."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.errors import PrivacyError
from privacy.policy import shipped
from privacy.policy.engine import CedarPolicy
from privacy.policy.requests import (
    MOST,
    Protection,
    ServerFacts,
    delta_exponent,
    milli_down,
    milli_up,
    server_request,
    training_request,
)
from tests.privacy.policy.example import FACTS

ALL = CedarPolicy('@id("all") permit (principal, action, resource);', "site")
ALL_SERVER = CedarPolicy('@id("all") permit (principal, action, resource);', "server")
AMOUNTS = st.decimals(min_value=0, max_value=10**12, allow_nan=False, allow_infinity=False, places=60)
NOW = datetime(2026, 7, 6, 23, 5, tzinfo=UTC)
SERVER_ACTIONS = ("start", "stop", "resume", "read-model", "read-report", "read-status")


def test_a_request_says_what_the_facts_say() -> None:
    request = training_request(FACTS)
    assert (request.principal, request.action) == (("Coordinator", "hub"), "train")
    assert (request.resource, request.roles) == (("Asset", "heart-disease"), ())
    assert request.attributes == {
        "sensitivity": "special-category",
        "purposes": ("training", "quality"),
        "epsilon_cap_milli": 4000,
    }
    assert request.context == {
        "federation": "hospitals",
        "strategy": "fedavg",
        "study": "1" * 64,
        "application": "2" * 64,
        "purpose": "training",
        "secagg": True,
        "cohort": 5,
        "survivors": 4,
        "threshold": 4,
        "cover": 3,
        "rounds": 18,
        "settings": ("record",),
        "epsilon_milli": 1000,
        "epsilon_after_milli": 1001,
        "delta_exponent": 3,
        "clip_milli": 1001,
        "noise_milli": 1234,
        "minute": 23 * 60 + 5,
        "weekday": 1,
    }


def test_it_fits_the_schema_with_and_without_protection() -> None:
    assert ALL.decide(training_request(FACTS)).allowed
    assert ALL.decide(training_request(replace(FACTS, protection=Protection()))).allowed


@pytest.mark.parametrize("action", SERVER_ACTIONS)
def test_a_request_to_the_server_fits_its_schema(action: str) -> None:
    facts = ServerFacts("ada", ("operator", "reader"), action, "hospitals", NOW, strategy="fedavg")
    request = server_request(facts)
    assert ALL_SERVER.decide(request).allowed
    assert (request.principal, request.roles) == (("User", "ada"), ("operator", "reader"))
    assert request.resource == ("Federation", "hospitals")
    assert request.context == {"strategy": "fedavg", "minute": 23 * 60 + 5, "weekday": 1}
    assert ALL_SERVER.decide(server_request(replace(facts, strategy=""))).allowed


def test_the_server_knows_no_other_action() -> None:
    assert not ALL_SERVER.decide(server_request(ServerFacts("ada", (), "delete", "hospitals", NOW))).allowed


def test_without_protection_no_cap_holds_and_nothing_is_small() -> None:
    context = training_request(replace(FACTS, protection=Protection(), epsilon_cap=Decimal("Infinity")))
    assert context.context["epsilon_after_milli"] == context.context["clip_milli"] == MOST
    assert (context.context["delta_exponent"], context.context["noise_milli"]) == (0, 0)
    assert context.attributes["epsilon_cap_milli"] == MOST - 1


@given(AMOUNTS)
def test_thousandths_are_rounded_exactly(value: Decimal) -> None:
    assert milli_up(value) == math.ceil(Fraction(value) * 1000)
    assert milli_down(value) == math.floor(Fraction(value) * 1000)


@pytest.mark.parametrize(
    ("value", "up", "down"),
    [
        ("0", 0, 0),
        ("1.0000000000000000000000000000000000000001", 1001, 1000),  # beyond the 28 digits of decimal arithmetic
        ("1e-1000020", 1, 0),
        ("1e+1000020", MOST, MOST - 1),
        ("Infinity", MOST, MOST - 1),
        ("9223372036854774.9999", 9223372036854775000, 9223372036854774999),
        ("9223372036854775", MOST, MOST - 1),
    ],
)
def test_odd_amounts(value: str, up: int, down: int) -> None:
    assert (milli_up(Decimal(value)), milli_down(Decimal(value))) == (up, down)


@pytest.mark.parametrize("value", ["-0.001", "NaN", "sNaN", "-Infinity"])
@pytest.mark.parametrize("function", [milli_up, milli_down, delta_exponent])
def test_no_amount_of_privacy(value: str, function: Callable[[Decimal], int]) -> None:
    with pytest.raises(PrivacyError):
        function(Decimal(value))


@pytest.mark.parametrize(
    ("delta", "exponent"),
    [
        *[("1", 0), ("0.99", 0), ("0.1", 1), ("0.10", 1), ("0.0999", 1), ("1e-5", 5), ("1.00000000001e-5", 4)],
        *[("2e-5", 4), ("9.99e-6", 5), ("10e-6", 5), ("0.00100", 3), ("1e-300", 300)],
    ],
)
def test_delta_is_told_by_its_power_of_ten(delta: str, exponent: int) -> None:
    assert delta_exponent(Decimal(delta)) == exponent


@given(st.integers(min_value=1, max_value=10**12), st.integers(min_value=12, max_value=30))
def test_delta_is_at_most_that_power_and_above_the_next(digits: int, power: int) -> None:
    exponent = delta_exponent(Decimal(digits).scaleb(-power))
    delta = Fraction(digits, 10**power)
    assert Fraction(1, 10 ** (exponent + 1)) < delta <= Fraction(1, 10**exponent)


@pytest.mark.parametrize("delta", ["0", "1.1", "Infinity"])
def test_no_delta(delta: str) -> None:
    with pytest.raises(PrivacyError):
        delta_exponent(Decimal(delta))


def test_time_is_that_of_the_site() -> None:
    moment = datetime(2026, 7, 5, 22, 30, tzinfo=UTC).astimezone(ZoneInfo("Europe/Berlin"))
    context = training_request(replace(FACTS, moment=moment)).context
    assert (context["minute"], context["weekday"]) == (30, 1)  # half past midnight, Monday
    with pytest.raises(ValueError, match="time zone"):
        training_request(replace(FACTS, moment=moment.replace(tzinfo=None)))


def test_every_word_of_the_schema_is_explained_to_those_who_write_policies(pytestconfig: pytest.Config) -> None:
    text = (pytestconfig.rootpath / "docs" / "how-to-policy.md").read_text("utf-8")
    request = training_request(FACTS)
    words = [*request.context, *request.attributes, *SERVER_ACTIONS, *shipped.NAMES[:-1]]
    assert [word for word in words if f"`{word}`" not in text] == []
    assert json.loads(shipped.read(shipped.NAMES[-1]))["title"] != ""
