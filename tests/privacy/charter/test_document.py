"""A charter is strict: one spelling, nothing unknown, nothing weaker than the code's own floors."""

import base64
import copy
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from privacy.audit import canonical
from privacy.charter.document import MAX_BYTES, from_body, parse
from privacy.charter.draft import from_draft
from privacy.enrolment.bundle import new_bundle, read_bundle
from privacy.enrolment.certificates import Holder, Role, key_from
from privacy.errors import ConfigError
from tests.privacy.charter.example import CHARTER, P384, allowance, body, flower, key, officer, server, site, spelt

P256 = ec.SECP256R1()
EXAMPLE = (Path(__file__).parents[3] / "docs" / "examples" / "charter-hospitals.toml").read_text(encoding="utf-8")
FLOORS = body()["floors"]


def test_it_is_read_as_it_was_written() -> None:
    again = parse(CHARTER.payload)
    assert again == CHARTER
    assert again.digest == CHARTER.digest
    assert again.strategies["fedprox"]["mu"].high == Decimal("0.1")
    assert again.server.identity == base64.b64decode(spelt("identity of hub"))
    assert (again.server.id, again.server.dns, again.server.uri) == ("hub", "hub.example", "spiffe://north/server/hub")
    assert (again.revoked, dict(again.studies)) == (("1f", "a0"), {"heart": "cd" * 32})
    assert again.not_after == datetime(2027, 7, 1, tzinfo=UTC)


def places(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, child in items:
        yield (*here, step)
        yield from places(child, (*here, step))


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


OWN_NAMES = ("strategies", "assets", "privacy", "studies")  # whose keys are names that a charter chooses


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
    fine = [("revoked",), ("unsafe_without_dp",), ("strategies", "fedavg"), ("strategies", "fedprox"), ("privacy",)]
    for path in places(body()):
        if path[-1] == "name" or path in fine:
            continue
        changed = body()
        at(changed, path[:-1])[path[-1]] = wrong
        with pytest.raises(ConfigError):
            from_body(changed)


def sites(*changes: dict[str, Any]) -> list[dict[str, Any]]:
    return [{**entry, **change} for entry, change in zip(body()["sites"], [*changes, {}, {}, {}, {}], strict=False)]


SPACED = base64.b64encode(base64.b64decode(flower("alba")) + b"\n").decode()
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "version 2 of nothing": ({"version": 2}, "version 1"),
    "version 1 of something": ({"previous": "00" * 32}, "version 1"),
    "site twice": ({"sites": [*sites()[:2], *sites()[1:]]}, "listed twice"),
    "sites out of order": ({"sites": sites()[::-1]}, "order of ids"),
    "identity twice": ({"sites": sites({"identity": spelt("identity of brno")})}, "key is listed twice"),
    "officer twice": ({"officers": [{**officer("alba"), "name": "a"}, *body()["officers"]]}, "key is listed twice"),
    "identity is a pen": ({"sites": sites({"identity": spelt("officer of alba")})}, "key is listed twice"),
    "server is a site": ({"server": server(id="alba", uri=None)}, "valid charter-v1"),
    "server and site of one name": ({"server": server(id="alba", uri="spiffe://north/server/alba")}, "and a site"),
    "server has a site's key": ({"server": server(identity=spelt("identity of cork"))}, "key is listed twice"),
    "server has a pen": ({"server": server(identity=spelt("officer of cork"))}, "key is listed twice"),
    "server has a site's Flower key": ({"server": server(flower=flower("brno"))}, "same flower"),
    "server at a site's host": ({"server": server(dns="brno.example")}, "same dns"),
    "server with a site's name": ({"server": server(uri="spiffe://north/site/hub")}, "valid charter-v1"),
    "server of others": ({"server": server(uri="spiffe://south/server/hub")}, "must be called"),
    "server without a host": ({"server": server(dns=None)}, "valid charter-v1"),
    "a host by its number": ({"server": server(dns="10.0.0.1")}, "not a host name"),
    "a host with an empty label": ({"sites": sites({"dns": "alba..example"})}, "not a host name"),
    "an id that is a path": ({"sites": [{**site("alba"), "id": "..", "uri": None}, *sites()[1:]]}, "valid charter-v1"),
    "Flower key on another curve": ({"sites": sites({"flower": flower("alba", P256)})}, "P-384"),
    "Flower key in another spelling": ({"sites": sites({"flower": SPACED})}, "one spelling"),
    "no Flower key": ({"server": server(flower="A" * 64)}, "one spelling"),
    "serials out of order": ({"revoked": ["b", "a"]}, "not in order"),
    "serial twice": ({"revoked": ["a", "a"]}, "not in order"),
    "serial with a zero": ({"revoked": ["0a"]}, "valid charter-v1"),
    "serial in capitals": ({"revoked": ["A"]}, "valid charter-v1"),
    "no study": ({"studies": {}}, "valid charter-v1"),
    "Flower key twice": ({"sites": sites({"flower": site("brno")["flower"]})}, "same flower"),
    "TLS name twice": ({"sites": sites({"dns": "brno.example"})}, "same dns"),
    "another's certificate": ({"sites": sites({"uri": "spiffe://north/site/brno"})}, "must be called"),
    "officers out of order": ({"officers": body()["officers"][::-1]}, "order of names"),
    "unseen letter": ({"officers": [officer("alba", "a\u200bb"), *body()["officers"][1:]]}, "nobody sees"),
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


def test_the_revoked_are_a_list() -> None:
    some: tuple[Any, ...] = (1.5, True, "a", {}, None)
    for wrong in some:
        with pytest.raises(ConfigError):
            from_body(body(revoked=wrong))


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
        ("mu = {", "mu = 3 #", "not valid TOML|strategies"),
        ("clip = 1\n", "clip = 1e999999\n", "usable number"),
        ("clip = 1\n", "clip = nan\n", "usable number"),
        ("clip = 1\n", "clip = true\n", "privacy"),
        ("2027-01-01T00:00:00Z", "2027-01-01T00:00:00", "no time zone"),
        ("2027-01-01T00:00:00Z", "2027-01-01T00:00:00.5Z", "whole second"),
        ('id = "va"', 'id = "hungarian"', "hungarian is listed twice"),
        ("[[sites]]", "[[places]]", "sites must be a list"),
        ("federation =", "version = 1\nfederation =", "version does not belong"),
        ("federation =", "federation", "not valid TOML"),
        ("cohort = 3", "cohort = " + "9" * 5000, "not valid TOML"),
        ("clip = 1\n", "clip = 1e99999999999999999999999\n", "not valid TOML"),
        ("2027-01-01T00:00:00Z", "9999-12-31T23:59:59-14:00", "not of this age"),
        ("2026-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "not of this age"),
        ("[floors]", "[" + "a." * 3000 + "a]\nb = 1\n[floors]", "nested too deeply|not valid TOML"),
        ("[server]", "[[server]]", "no charter"),
        ('id = "hub"', 'id = "va"', "va is the server and a site|must be called"),
        ("[studies]", "[study]", "stud"),
        ("[rule]", "revoked = 3\n[rule]", "revoked"),
        ("[rule]", "revoked = [3]\n[rule]", "revoked"),
        ("[server]", '[server]\nenrolment = "enrol-hub.json"', "stands alone"),
    ],
)
def test_a_draft_is_strict(old: str, new: str, said: str) -> None:
    assert old in EXAMPLE
    with pytest.raises(ConfigError, match=said) as info:
        from_draft(EXAMPLE.replace(old, new))
    assert len(info.value.lines()) == 2 or "usable" in said
    assert all(line.isprintable() for line in info.value.lines())


def test_what_was_revoked_before_is_carried_on() -> None:
    first = from_draft(EXAMPLE.replace("[rule]", 'revoked = ["b", "a"]\n[rule]', 1))
    assert first.revoked == ("a", "b")
    assert from_draft(EXAMPLE.replace("[rule]", 'revoked = ["aa"]\n[rule]', 1), first).revoked == ("a", "aa", "b")
    assert from_draft(EXAMPLE, first).revoked == ("a", "b")
    assert from_draft(EXAMPLE).revoked == ()


def bundle(name: str, role: Role = Role.SITE, federation: str = "hospitals") -> bytes:
    holder = Holder(federation, name, f"{name}.enrolled.example", role)
    tls, node = (key_from(name.encode().ljust(size, b"."), curve) for size, curve in ((40, P256), (56, P384)))
    return new_bundle(holder, identity=key(f"enrolled {name}"), tls=tls, flower=node)


def naming(place: str, name: str) -> str:
    """The example with the file ``name`` in place of the four lines of one holder."""
    start = EXAMPLE.index(f'id = "{place}"')
    end = EXAMPLE.index("\n\n", start)
    return f'{EXAMPLE[:start]}enrolment = "{name}"{EXAMPLE[end:]}'


FILES = {
    "enrol-va.json": bundle("va"),
    "other.json": bundle("va", federation="banks"),
    "enrol-hub.json": bundle("hub", Role.SERVER),
    "torn.json": bundle("va")[:-1],
    "forged.json": bundle("va").replace(b"va.enrolled", b"hq.enrolled"),
    "again.json": bundle("hungarian"),
}


def test_an_enrolment_says_everything_about_its_holder() -> None:
    charter = from_draft(naming("va", "enrol-va.json"), read=FILES.__getitem__)
    va = charter.sites["va"]
    assert (va.identity, va.dns) == (key("enrolled va").public_key, "va.enrolled.example")
    assert (va.uri, va.flower) == ("spiffe://hospitals/site/va", read_bundle(FILES["enrol-va.json"]).flower)
    hub = from_draft(naming("hub", "enrol-hub.json"), read=FILES.__getitem__).server
    assert (hub.id, hub.uri, hub.dns) == ("hub", "spiffe://hospitals/server/hub", "hub.enrolled.example")
    assert (hub.identity, hub.flower) == (key("enrolled hub").public_key, read_bundle(FILES["enrol-hub.json"]).flower)


@pytest.mark.parametrize(
    ("place", "name", "said"),
    [
        ("va", "other.json", "no site of hospitals"),
        ("va", "enrol-hub.json", "no site of hospitals"),
        ("hub", "enrol-va.json", "no server of hospitals"),
        ("va", "torn.json", "torn.json: .*cut short"),
        ("va", "forged.json", "forged.json: the signature does not fit"),
        ("va", "again.json", "hungarian is listed twice"),
        ("va", "a\\u0000b", "not the name of a file"),
    ],
)
def test_an_enrolment_of_somebody_else_is_refused(place: str, name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as info:
        from_draft(naming(place, name), read=FILES.__getitem__)
    assert all(line.isprintable() for line in info.value.lines())


def test_without_a_reader_no_file_is_read() -> None:
    with pytest.raises(ConfigError, match="no enrolment can be read here"):
        from_draft(naming("va", "enrol-va.json"))


def test_moments_are_kept_in_utc() -> None:
    local = EXAMPLE.replace("2027-01-01T00:00:00Z", "2027-01-01T01:00:00+01:00")
    assert from_draft(local).digest == from_draft(EXAMPLE).digest


def test_a_draft_of_another_federation_continues_nothing() -> None:
    with pytest.raises(ConfigError, match="the version before"):
        from_draft(EXAMPLE, CHARTER)
