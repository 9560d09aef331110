"""A charter is strict: one spelling, nothing unknown, nothing weaker than the code's own floors."""

import copy
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from privacy.audit import canonical
from privacy.charter.document import MAX_BYTES, from_body, parse
from privacy.charter.draft import from_draft
from privacy.errors import ConfigError
from tests.privacy.charter.example import CHARTER, allowance, body, officer, site, spelt

EXAMPLE = (Path(__file__).parents[3] / "docs" / "examples" / "charter-hospitals.toml").read_text(encoding="utf-8")
FLOORS = body()["floors"]


def test_it_is_read_as_it_was_written() -> None:
    again = parse(CHARTER.payload)
    assert again == CHARTER
    assert again.digest == CHARTER.digest
    assert again.strategies["fedprox"]["mu"].high == Decimal("0.1")
    assert again.not_after == datetime(2027, 7, 1, tzinfo=UTC)


def places(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield (*here, key)
        yield from places(child, (*here, key))


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


OWN_NAMES = ("strategies", "assets", "privacy")  # whose keys are names that a charter chooses


def test_every_field_is_required_and_no_other_is_known() -> None:
    for path in [(), *places(body())]:
        changed = body()
        if isinstance(at(changed, path), dict) and path not in [(name,) for name in OWN_NAMES]:
            at(changed, path)["surprise"] = 1
            with pytest.raises(ConfigError):
                from_body(changed)
        changed = body()
        if path and isinstance(path[-1], str) and not (path[0] in OWN_NAMES and len(path) == 2):
            if path == ("strategies", "fedprox", "mu"):
                continue
            del at(changed, path[:-1])[path[-1]]
            with pytest.raises(ConfigError):
                from_body(changed)


@pytest.mark.parametrize("wrong", [1.5, True, "\u00e9", [], {}], ids=str)
def test_every_value_has_a_type(wrong: Any) -> None:
    fine = [("unsafe_without_dp",), ("strategies", "fedavg"), ("strategies", "fedprox"), ("privacy",)]
    for path in places(body()):
        if path[-1] == "name" or path in fine:
            continue
        changed = body()
        at(changed, path[:-1])[path[-1]] = wrong
        with pytest.raises(ConfigError):
            from_body(changed)


def sites(*changes: dict[str, Any]) -> list[dict[str, Any]]:
    return [{**entry, **change} for entry, change in zip(body()["sites"], [*changes, {}, {}, {}, {}], strict=False)]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "version 2 of nothing": ({"version": 2}, "version 1"),
    "version 1 of something": ({"previous": "00" * 32}, "version 1"),
    "site twice": ({"sites": [*sites()[:2], *sites()[1:]]}, "listed twice"),
    "sites out of order": ({"sites": sites()[::-1]}, "order of ids"),
    "identity twice": ({"sites": sites({"identity": spelt("identity of brno")})}, "key is listed twice"),
    "officer twice": ({"officers": [{**officer("alba"), "name": "a"}, *body()["officers"]]}, "key is listed twice"),
    "identity is a pen": ({"sites": sites({"identity": spelt("officer of alba")})}, "key is listed twice"),
    "Flower key twice": ({"sites": sites({"flower": site("brno")["flower"]})}, "same flower"),
    "TLS name twice": ({"sites": sites({"dns": "brno.example"})}, "same dns"),
    "another's certificate": ({"sites": sites({"uri": "spiffe://north/site/brno"})}, "must be called"),
    "officers out of order": ({"officers": body()["officers"][::-1]}, "order of names"),
    "site without officer": ({"officers": body()["officers"][:3]}, "dole has no officer"),
    "officer of nobody": ({"officers": [*body()["officers"], officer("evil", "z")]}, "no site"),
    "one signature": ({"rule": {"signatures": 1}}, "no rule that protects"),
    "half the officers": ({"rule": {"signatures": 2}}, "no rule that protects"),
    "more than there are": ({"rule": {"signatures": 5}}, "no rule that protects"),
    "cohort of two": ({"floors": {**FLOORS, "cohort": 2}}, "cohort of 2"),
    "two survivors": ({"floors": {**FLOORS, "survivors": 2}}, "2 survivors"),
    "two holders": ({"floors": {**FLOORS, "cover": 2}}, "2 holders"),
    "threshold of one": ({"floors": {**FLOORS, "threshold": 1}}, "threshold of 1"),
    "cohort beyond the sites": ({"floors": {**FLOORS, "cohort": 5}}, "the 4 sites"),
    "survivors beyond the sites": ({"floors": {**FLOORS, "survivors": 5}}, "the 4 sites"),
    "no noise": ({"privacy": {"record": allowance(noise="0")}}, "noise 0"),
    "hardly noise": ({"privacy": {"record": allowance(noise="0.09")}}, "noise 0.09"),
    "no clip": ({"privacy": {"record": allowance(clip="1000000")}}, "clip 1000000"),
    "clip 0": ({"privacy": {"record": allowance(clip="0")}}, "clip 0"),
    "epsilon 0": ({"privacy": {"record": allowance(epsilon="0")}}, "epsilon 0"),
    "epsilon 101": ({"privacy": {"record": allowance(epsilon="101")}}, "epsilon 101"),
    "delta 0": ({"privacy": {"record": allowance(delta="0")}}, "delta 0"),
    "delta 0.02": ({"privacy": {"record": allowance(delta="0.02")}}, "delta 0.02"),
    "asset at epsilon 101": ({"assets": {"a": {"purposes": ["t"], "epsilon": "101", "delta": "0.001"}}}, "asset a"),
    "asset at delta 0.02": ({"assets": {"a": {"purposes": ["t"], "epsilon": "1", "delta": "0.02"}}}, "asset a"),
    "nothing could run": ({"privacy": {}}, "nothing could ever run"),
    "empty range": ({"strategies": {"x": {"mu": {"low": "1", "high": "0"}}}}, "runs from 1 to 0"),
    "no time": (
        {"window": {"not_before": "2027-01-01T00:00:00Z", "not_after": "2027-01-01T00:00:00Z"}},
        "ends before it begins",
    ),
    "no such day": ({"window": {"not_before": "2027-02-30T00:00:00Z", "not_after": "2028-01-01T00:00:00Z"}}, "UTC"),
}
WRONG["one site alone"] = (
    {"officers": [officer("alba", name) for name in ("a", "aa", "ab")] + [officer(s, s) for s in ("brno", "cork")],
     "sites": sites()[:3], "floors": {**FLOORS, "cohort": 3, "survivors": 3}, "rule": {"signatures": 3}},
    "could change the charter alone",
)  # fmt: skip


@pytest.mark.parametrize(("changes", "said"), WRONG.values(), ids=WRONG.keys())
def test_a_charter_that_breaks_a_rule_cannot_be_built(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as info:
        from_body(copy.deepcopy(body(**changes)))
    assert all(line.isprintable() for line in info.value.lines())


def test_two_officers_are_too_few_though_the_rule_fits() -> None:
    three = {"sites": sites()[:3], "officers": [officer("alba"), officer("brno")]}
    with pytest.raises(ConfigError, match="2 officers are too few"):
        from_body(body(**three, rule={"signatures": 2}))


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[" * 10_000, canonical.dumps(body())[:-1], canonical.dumps(body()) + b" "]
)
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ConfigError):
        parse(data)


def test_a_charter_of_any_size_is_not_read() -> None:
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        parse(b" " * (MAX_BYTES + 1))


def test_the_example_is_a_charter_of_the_four_hospitals() -> None:
    charter = from_draft(EXAMPLE)
    assert list(charter.sites) == ["cleveland", "hungarian", "switzerland", "va"]
    assert (charter.floors.cohort, charter.signatures, len(charter.officers)) == (3, 3, 4)
    assert charter.strategies["fedprox"]["mu"].high == Decimal("0.1")
    again = from_draft(EXAMPLE, charter)
    assert (again.version, again.previous) == (2, charter.digest)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("federation =", "federaton =", "federaton"),
        ("cohort = 3", "cohort = 2", "cohort of 2"),
        ('federation = "hospitals"', 'federation = "hospitals\\n"', "control character"),
        ("cohort = 3", 'cohort = "3"', "floors/cohort"),
        ("mu = {", "mu = 3 #", "not TOML|strategies"),
        ("clip = 1\n", "clip = 1e999999\n", "usable number"),
        ("clip = 1\n", "clip = nan\n", "usable number"),
        ("clip = 1\n", "clip = true\n", "privacy"),
        ("2027-01-01T00:00:00Z", "2027-01-01T00:00:00", "no time zone"),
        ("2027-01-01T00:00:00Z", "2027-01-01T00:00:00.5Z", "whole second"),
        ('id = "va"', 'id = "hungarian"', "hungarian is listed twice"),
        ("[[sites]]", "[[places]]", "sites must be a list"),
        ("federation =", "version = 1\nfederation =", "version does not belong"),
        ("federation =", "federation", "not TOML"),
    ],
)
def test_a_draft_is_strict(old: str, new: str, said: str) -> None:
    assert old in EXAMPLE
    with pytest.raises(ConfigError, match=said) as info:
        from_draft(EXAMPLE.replace(old, new))
    assert len(info.value.lines()) == 2 or "usable" in said
    assert all(line.isprintable() for line in info.value.lines())


def test_moments_are_kept_in_utc() -> None:
    local = EXAMPLE.replace("2027-01-01T00:00:00Z", "2027-01-01T01:00:00+01:00")
    assert from_draft(local).digest == from_draft(EXAMPLE).digest


def test_a_draft_of_another_federation_continues_nothing() -> None:
    with pytest.raises(ConfigError, match="the version before"):
        from_draft(EXAMPLE, CHARTER)
