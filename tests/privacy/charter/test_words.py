"""What an officer is shown: nothing that is signed is left out."""

from typing import Any

import pytest

from privacy.charter.document import from_body
from privacy.charter.words import changes, lines
from tests.privacy.charter.example import CHARTER, SITES, body, flower, following, officer, server, site, spelt

FLOORS = body()["floors"]


def sites(**changed: Any) -> list[dict[str, Any]]:
    return [{**site("alba"), **changed}, *(site(name) for name in SITES[1:])]


CHANGED: dict[str, dict[str, Any]] = {
    "signatures": {"rule": {"signatures": 4}},
    "server's identity": {"server": server(identity=spelt("another"))},
    "server's host": {"server": server(dns="other.example")},
    "server's node key": {"server": server(flower=flower("hub"))},
    "site's identity": {"sites": sites(identity=spelt("another"))},
    "site's node key": {"sites": sites(flower=flower("another"))},
    "site's host": {"sites": sites(dns="other.example")},
    "site's certificate": {"sites": sites(uri=None)},
    "officer's key": {"officers": [{**officer("alba"), "key": spelt("another")}, *body()["officers"][1:]]},
    "officer's name": {"officers": [{**officer("alba"), "name": "a"}, *body()["officers"][1:]]},
    "officer's site": {"officers": [officer("alba"), officer("alba", "officer of b"), *body()["officers"][1:]]},
    "revoked": {"revoked": ["1f", "a0", "a1"]},
    "application": {"application": "00" * 32},
    "study": {"studies": {"heart": "00" * 32}},
    "study's name": {"studies": {"lungs": "cd" * 32}},
    "range": {"strategies": {"fedavg": {}, "fedprox": {"mu": {"low": "0", "high": "0.2"}}}},
    "purpose": {"assets": {"hearts": {"purposes": ["sales"], "epsilon": "2", "delta": "0.001"}}},
    "asset's epsilon": {"assets": {"hearts": {"purposes": ["training"], "epsilon": "3", "delta": "0.001"}}},
    "asset's delta": {"assets": {"hearts": {"purposes": ["training"], "epsilon": "2", "delta": "0.002"}}},
    **{f"floor of {name}": {"floors": {**FLOORS, name: 7 - FLOORS[name]}} for name in FLOORS},
    **{
        f"setting's {name}": {"privacy": {**body()["privacy"], "record": {**body()["privacy"]["record"], name: "0.5"}}}
        for name in ("epsilon", "clip", "noise")
    },
    "setting's delta": {"privacy": {**body()["privacy"], "record": {**body()["privacy"]["record"], "delta": "0.001"}}},
    "unsafe": {"unsafe_without_dp": True},
    "beginning": {"window": {**body()["window"], "not_before": "2027-01-01T00:00:01Z"}},
    "end": {"window": {**body()["window"], "not_after": "2027-07-01T00:00:01Z"}},
}


@pytest.mark.parametrize("changed", CHANGED.values(), ids=CHANGED.keys())
def test_every_change_is_shown(changed: dict[str, Any]) -> None:
    after = from_body(body(version=2, previous=CHARTER.digest, **changed))
    told = changes(CHARTER, after)
    assert told
    assert {line[0] for line in told} <= {"-", "+"}
    assert {line[2:] for line in told} <= {*lines(CHARTER), *lines(after)}


def test_every_field_of_the_format_has_such_a_case() -> None:
    shown = {name for changed in CHANGED.values() for name in changed}
    assert shown == set(body()) - {"schema", "federation", "version", "previous"}  # the lines before the changes


def test_no_change_is_no_line() -> None:
    assert changes(CHARTER, following(CHARTER)) == []


def test_a_person_can_read_it() -> None:
    told = lines(CHARTER)
    assert all(line.isprintable() for line in told)
    assert "Server       hub, hub.example" in told
    assert "Site         alba, alba.example, enrolled; signs: officer of alba" in told
    assert "Revoked      certificate 1f" in told
    assert f"Study        heart: {'cd' * 32}" in told
    assert "Asset        hearts for training: at most epsilon 2 at delta 0.001 in all" in told
