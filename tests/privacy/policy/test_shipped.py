"""The shipped policies against their tables: every rule counts, at its exact boundary, and safer is never refused."""

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.errors import ConfigError
from privacy.policy import shipped, table
from privacy.policy.engine import CedarPolicy, Kind, Request, Value
from privacy.policy.requests import MOST, training_request
from privacy.policy.source import statements
from tests.privacy.policy.example import FACTS

NAMES = ("hospital", "bank", "demo", "server")
SITES = ("hospital", "bank", "demo")


def kind_of(name: str) -> Kind:
    return "server" if name == "server" else "site"


def rows_of(name: str, text: str) -> tuple[table.Row, ...]:
    cases = table.parse(shipped.read(f"policy-tests-{name}.toml"))
    return table.ask(CedarPolicy(text, kind_of(name)), cases)


def rules_of(name: str) -> list[tuple[str, str]]:
    return [(name, rule.text) for rule in statements(shipped.read(f"{name}.cedar"))]


@pytest.mark.parametrize("name", NAMES)
def test_every_answer_is_as_the_table_says(name: str) -> None:
    rows = rows_of(name, shipped.read(f"{name}.cedar"))
    assert [row for row in rows if not row.holds] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_rule_decides_some_request_alone(name: str) -> None:
    alone = {row.case.by[0] for row in rows_of(name, shipped.read(f"{name}.cedar")) if len(row.case.by) == 1}
    assert set(CedarPolicy(shipped.read(f"{name}.cedar"), kind_of(name)).rules) <= alone


@pytest.mark.parametrize(("name", "rule"), [one for name in NAMES for one in rules_of(name)])
def test_without_any_one_rule_the_table_fails(name: str, rule: str) -> None:
    text = shipped.read(f"{name}.cedar").replace(rule, "")
    try:
        rows = rows_of(name, text)
    except ConfigError as error:
        assert "no permit" in str(error)  # noqa: PT017 - the only permit was the one taken out
        return
    assert any(row.verdict.allowed != row.case.allowed for row in rows)


def changed_numbers(name: str) -> list[tuple[str, str]]:
    """Every number of a policy, one higher and one lower."""
    text = shipped.read(f"{name}.cedar")
    code = re.sub(r"//[^\n]*", lambda match: " " * len(match[0]), text)
    return [
        (name, text[: number.start()] + str(int(number[0]) + step) + text[number.end() :])
        for number in re.finditer(r"\b\d+\b", code)
        for step in (-1, 1)
    ]


@pytest.mark.parametrize(("name", "text"), [one for name in SITES for one in changed_numbers(name)])
def test_with_any_number_off_by_one_the_table_fails(name: str, text: str) -> None:
    assert any(row.verdict.allowed != row.case.allowed for row in rows_of(name, text))


SAFER = {
    "cohort": 1,
    "survivors": 1,
    "threshold": 1,
    "cover": 1,
    "rounds": -1,
    "epsilon_milli": -1,
    "epsilon_after_milli": -1,
    "delta_exponent": 1,
    "clip_milli": -1,
    "noise_milli": 1,
}
"""Which way each number is safer."""

NUMBERS = st.fixed_dictionaries({
    name: st.sampled_from([0, 1, 2, 3, 4, 5, 6, 200, 500, 1000, 1001, 4000, 10_000, MOST]) for name in SAFER
})  # fmt: skip
STEPS = st.fixed_dictionaries({name: st.integers(min_value=0, max_value=2000) for name in SAFER})
POLICIES = {name: CedarPolicy(shipped.read(f"{name}.cedar"), "site") for name in SITES}


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(SITES), NUMBERS, STEPS, st.booleans(), st.sampled_from([0, 359, 600, 1199, 1200, 1439]))
def test_what_is_allowed_stays_allowed_when_it_gets_safer(
    name: str, numbers: dict[str, int], steps: dict[str, int], secagg: bool, minute: int
) -> None:
    before: dict[str, Value] = {**training_request(FACTS).context, **numbers, "secagg": secagg, "minute": minute}
    safer = {key: min(MOST, max(0, numbers[key] + SAFER[key] * steps[key])) for key in SAFER}
    after = {**before, **safer, "secagg": True}
    asked = training_request(FACTS)
    if POLICIES[name].decide(replace(asked, context=before)).allowed:
        assert POLICIES[name].decide(replace(asked, context=after)).allowed


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(SITES), st.integers(min_value=0, max_value=5000), st.integers(min_value=0, max_value=5000))
def test_a_lower_cap_never_turns_a_refusal_into_an_allow(name: str, cap: int, lower: int) -> None:
    def allowed(most: int) -> bool:
        asked = training_request(FACTS)
        return POLICIES[name].decide(replace(asked, attributes={**asked.attributes, "epsilon_cap_milli": most})).allowed

    assert allowed(cap) or not allowed(min(cap, lower))


def test_the_hospitals_own_run_needs_the_night_and_the_demo_does_not() -> None:
    noon = training_request(replace(FACTS, moment=FACTS.moment.replace(hour=12), cohort=4, survivors=3, threshold=3))
    night = replace(noon, context={**noon.context, "minute": 0, "survivors": 4})
    answers: list[tuple[str, Request, bool]] = [
        ("demo", noon, True),
        ("hospital", noon, False),
        ("hospital", night, True),
    ]
    for name, request, allowed in answers:
        assert POLICIES[name].decide(request).allowed is allowed


def test_the_demo_says_what_it_is_and_so_do_its_reasons() -> None:
    assert shipped.read("demo.cedar").startswith("// DEMO")
    assert all(rule.startswith("demo-") for rule in POLICIES["demo"].rules)
