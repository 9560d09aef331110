"""The ledgers behind a report: honest ones hold, and every way to change one is found and named."""

import copy
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from privacy.audit import ledger_chain, statement
from privacy.audit.answers import CheckedClaim
from privacy.dp.events import FULL_BATCH, GaussianEvent
from privacy.dp.filters import Filter, FilterKind
from privacy.errors import ConfigError, VerificationError
from privacy.store.books import Link
from privacy.store.budgets import UNLIMITED, Asset, Debit
from privacy.store.ledger import Ledger
from tests.privacy.audit import ledgers, promises, sample

Bodies = dict[str, list[dict[str, Any]]]
Edit = Callable[[dict[str, Any], Bodies], object]
RUN = sample.predicate()["run"]["id"]


def checked(body: dict[str, Any], data: bytes | None) -> CheckedClaim:
    return ledger_chain.check(statement.decode(statement.encode(body, sample.MODEL_SHA256)), data)


@pytest.fixture(scope="module", params=["sample", "promises"])
def honest(request: pytest.FixtureRequest) -> tuple[dict[str, Any], bytes]:
    return ledgers.with_ledgers(sample.predicate() if request.param == "sample" else promises.predicate())


def test_the_ledgers_of_an_honest_report_hold(honest: tuple[dict[str, Any], bytes]) -> None:
    found = checked(*honest)
    assert (found.verdict, found.kind, found.id) == ("holds", "proved", "ledger.chain")
    assert "not shown" in found.why


def test_without_the_file_the_claim_is_unchecked(honest: tuple[dict[str, Any], bytes]) -> None:
    body, data = honest
    found = checked(body, None)
    assert found.verdict == "unchecked"
    assert hashlib.sha256(data).hexdigest() in found.why


def test_what_a_real_ledger_writes_is_read_back(tmp_path: Path) -> None:
    """Against ``Ledger`` itself: budgets, aliases, releases, and reservations left open."""
    ledger = Ledger.create(tmp_path / "ledger.db", simulation=True)
    event = GaussianEvent(sample.NOISE, FULL_BATCH, 1)
    budget = Filter.for_budget(FilterKind.GDP, Decimal(2), sample.DELTA)
    ledger.declare(Asset("people", {"record": budget}, aliases=("folk",)))
    ledger.declare(Asset("others", {"record": UNLIMITED}))
    for number in (1, 2, 3, 4):
        links = ledger.reserve([Debit("folk", number, 1, event, limit=9, run=RUN)])
        if number < 3:
            ledger.release(links)
    data = b"".join(ledger_chain.lines("va", ledger.entries()))
    books = ledger_chain.folded(data)["va"]
    with ledger.reading() as expected:
        assert (books.head, books.lines, books.assets) == (expected.head, expected.lines, expected.assets)
    claim = ledger_chain.claim_of(data, RUN)
    assert claim["ledgers"] == [
        {
            "holder": "va",
            "ledger": books.ledger,
            "entries": ledger.head().seq,
            "head": ledger.head().hash.hex(),
            "debits": 4,
        }
    ]
    assert ledger_chain.claim_of(data, "another run")["ledgers"][0]["debits"] == 0


# Lies that are hashed, counted and signed as they should be; the base report has budgets and every kind of noise.


def entry_of(body: dict[str, Any], holder: str, claim_id: str = "privacy.epsilon") -> dict[str, Any]:
    claim = next(one for one in body["claims"] if one["id"] == claim_id)
    return next(dict_ for dict_ in claim["sites"] if dict_["site"] == holder)


def debits_of(bodies: Bodies, holder: str) -> list[dict[str, Any]]:
    return [one for one in bodies[holder] if one["kind"] == "reserved" and one["run"] == RUN]


def drop(bodies: Bodies, holder: str, number: int) -> None:
    """Deletes a round of the run from a ledger; marks of release are renumbered by leaving them out altogether."""
    bodies[holder] = [
        one
        for one in bodies[holder]
        if one["kind"] != "released"
        and not (one["kind"] == "reserved" and one["run"] == RUN and one["round"] == number)
    ]


def shorten(body: dict[str, Any], holder: str) -> None:
    """Makes every claim list one execution less of a holder."""
    for claim in ledgers.epsilons(body):
        for one in claim["sites"]:
            if one["site"] == holder:
                one["events"][0]["count"] -= 1


def deleted_everywhere(body: dict[str, Any], bodies: Bodies) -> None:
    drop(bodies, "cleveland", 5)
    shorten(body, "cleveland")


def moved(_body: dict[str, Any], bodies: Bodies) -> None:
    for one in debits_of(bodies, "va"):
        if one["round"] == 5:
            one["round"] = 99


def over_budget(_body: dict[str, Any], bodies: Bodies) -> None:
    earlier = [one for one in bodies["va"] if one["kind"] == "reserved" and one["run"] == ledgers.EARLIER]
    more = [
        {**one, "run": "yet another", "limit": 10**6, "event": {**one["event"], "count": 10**6}} for one in earlier[:2]
    ]
    bodies["va"] += more


def taken_back(_body: dict[str, Any], bodies: Bodies) -> None:
    last = max(place for place, one in enumerate(bodies["server"], start=1) if one["kind"] == "reserved")
    bodies["server"] = [one for one in bodies["server"] if one != {"kind": "released", "seq": last}]
    bodies["server"].append({"kind": "voided", "seq": last})


def two_assets(_body: dict[str, Any], bodies: Bodies) -> None:
    asset = bodies["server"][1]
    bodies["server"].insert(2, {**asset, "asset": "another"})
    for one in bodies["server"]:
        if one["kind"] == "released":
            one["seq"] += 1
    debits_of(bodies, "server")[3]["asset"] = "another"


def renamed(body: dict[str, Any], bodies: Bodies) -> None:
    two_assets(body, bodies)
    for one in debits_of(bodies, "server"):
        one["asset"] = "another"


def declared_anew(body: dict[str, Any], bodies: Bodies) -> None:
    """Raises a budget in the ledger by a second declaration, and shows the raised one."""
    asset = copy.deepcopy(bodies["va"][1])
    asset["budgets"]["record"]["epsilon"] = "99"
    bodies["va"].append(asset)
    entry_of(body, "va")["lifetime"].update(budget="99")


def unpriced(bodies: Bodies, holder: str) -> None:
    bodies[holder] = [
        one
        for one in bodies[holder]
        if one["kind"] != "released" and not (one.get("claim") == "site-distributed" and one["round"] == 3)
    ]


LIES: dict[str, tuple[Edit, str]] = {
    "a debit deleted from the ledger": (lambda _, led: drop(led, "cleveland", 5), "debits, the claims"),
    "a debit deleted from ledger and claims": (deleted_everywhere, "answered in round 5 without a debit"),
    "a debit moved to another round": (moved, "va answered in round 5 without a debit"),
    "a debit made twice": (
        lambda _, led: led["va"].append(copy.deepcopy(debits_of(led, "va")[0])),
        "debits, the claims",
    ),
    "another event than the claim's": (
        lambda _, led: debits_of(led, "server")[0]["event"].update(noise_multiplier="10"),
        "other debits than privacy.epsilon.site",
    ),
    "a ledger that was rolled back": (lambda _, led: led["server"].__delitem__(slice(20, None)), "debits, the claims"),
    "a budget that was overdrawn": (over_budget, "does not cover this"),
    "a plan that allowed more later": (
        lambda _, led: debits_of(led, "server")[9].update(limit=99),
        "the run's plan allowed 17 executions",
    ),
    "a plan of which more was executed": (
        lambda _, led: [one.update(limit=12) for one in debits_of(led, "server")],
        "12 of 12 executions are spent",
    ),
    "an asset that nobody declared": (lambda _, led: led["server"].pop(1), "knows no asset"),
    "an asset by another name": (
        lambda _, led: [one.update(asset="anew/va") for one in led["va"] if "asset" in one],
        "knows no asset",
    ),
    "an asset declared anew": (renamed, "to another asset than hospitals/all sites"),
    "two assets in one run": (two_assets, "several assets"),
    "a budget declared anew": (declared_anew, "is not one that this version writes"),
    "a ledger created anew": (
        lambda _, led: led["va"].append(dict(led["va"][0])),
        "is not one that this version writes",
    ),
    "a debit taken back": (taken_back, "is not one that this version writes"),
    "two holders with one ledger": (
        lambda _, led: led["va"][0].update(id=led["hungary"][0]["id"]),
        "two are one",
    ),
    "a ledger left out": (lambda _, led: led.pop("va"), "not those of the holders that paid"),
    "a ledger too many": (
        lambda _, led: led.update(zurich=[{**led["va"][0], "id": "f" * 32}]),
        "not those of the holders that paid",
    ),
    "a ledger of real sites": (lambda _, led: led["va"][0].update(simulation=False), "a simulation's exactly where"),
    "a lifetime without the earlier run": (
        lambda body, _: entry_of(body, "va")["lifetime"]["events"][0].update(count=16),
        "leaves out",
    ),
    "a lifetime with debits that were not made": (
        lambda body, _: entry_of(body, "va")["lifetime"]["events"][0].update(count=40),
        "does not hold",
    ),
    "a budget raised": (lambda body, _: entry_of(body, "va")["lifetime"].update(budget="3"), "has another budget"),
    "a budget by another order": (
        lambda body, _: entry_of(body, "va", "privacy.epsilon.distributed")["lifetime"].update(order=2),
        "has another budget",
    ),
    "a budget of another asset": (
        lambda body, _: entry_of(body, "va")["lifetime"].update(asset="hospitals/hungary"),
        "knows no asset",
    ),
    "a budget kept quiet": (lambda body, _: entry_of(body, "va").pop("lifetime"), "its ledger the contrary"),
    "a budget made up": (
        lambda body, _: entry_of(body, "server", "privacy.epsilon.site").update(
            lifetime=entry_of(body, "va")["lifetime"]
        ),
        "its ledger the contrary",
    ),
}


@pytest.mark.parametrize(("edit", "why"), LIES.values(), ids=LIES.keys())
def test_a_signed_lie_about_ledgers_fails(edit: Edit, why: str) -> None:
    body = promises.predicate()
    bodies = ledgers.of(body)
    edit(body, bodies)
    found = checked(*ledgers.loosely_claimed(body, bodies))
    assert found.verdict == "fails"
    assert why in found.why


def test_a_release_that_one_claim_does_not_price_is_found() -> None:
    bodies = ledgers.of(promises.predicate())
    unpriced(bodies, "va")
    with pytest.raises(VerificationError, match="not priced per site-distributed"):
        ledger_chain.claim_of(ledgers.written(bodies), RUN)


def test_a_debit_made_twice_is_found_by_the_ledgers_own_rule() -> None:
    bodies = ledgers.of(sample.predicate())
    bodies["va"].append(copy.deepcopy(debits_of(bodies, "va")[0]))
    with pytest.raises(VerificationError, match="already debited"):
        ledger_chain.claim_of(ledgers.written(bodies), RUN)


def test_an_alias_is_the_same_asset() -> None:
    body = promises.predicate()
    bodies = ledgers.of(body)
    bodies["va"] = [one for one in bodies["va"] if one["kind"] != "released"]
    bodies["va"].insert(2, {"kind": "alias", "alias": "folk", "asset": "hospitals/va"})
    for one in debits_of(bodies, "va"):
        one["asset"] = "folk"
    assert checked(*ledgers.with_ledgers(body, bodies)).verdict == "holds"


def test_another_run_may_debit_while_the_report_is_drawn_up() -> None:
    body = promises.predicate()
    bodies = ledgers.of(body)
    later = [{**one, "run": "later", "limit": 1} for one in debits_of(bodies, "va")[:2]]
    bodies["va"] += later
    assert checked(*ledgers.with_ledgers(body, bodies)).verdict == "holds"


def test_an_attempt_that_a_stopped_run_ended_in_may_be_paid_for() -> None:
    body = sample.predicate()
    bodies = ledgers.of(body)
    drop(bodies, "va", 15)
    bodies["va"].append({**debits_of(bodies, "va")[-1], "round": 15, "attempt": 1})
    body["rounds"].pop()
    for holder in ("cleveland", "hungary", "switzerland"):
        drop(bodies, holder, 15)
    for one in body["claims"][1]["sites"]:
        one["events"][0]["count"] -= one["site"] != "va"
    body["run"].update(status="interrupted", completed=14)
    assert checked(*ledgers.with_ledgers(body, bodies)).verdict == "holds"
    body["run"].update(status="finished")
    assert "of which the report says nothing" in checked(*ledgers.with_ledgers(body, bodies)).why


# Files


def resigned(body: dict[str, Any], data: bytes) -> CheckedClaim:
    """The check of a file whose digest the report was made to name."""
    changed = copy.deepcopy(body)
    changed["claims"][-1]["ledgers_sha256"] = hashlib.sha256(data).hexdigest()
    return checked(changed, data)


def test_another_file_than_the_signed_one_fails(honest: tuple[dict[str, Any], bytes]) -> None:
    body, data = honest
    assert "are others" in checked(body, data + b"\n").why


def test_every_changed_byte_of_the_file_is_found_even_by_the_hashes_alone() -> None:
    body, data = ledgers.with_ledgers(sample.predicate())
    for position in range(0, len(data), 1499):
        changed = bytearray(data)
        changed[position] ^= 1
        assert resigned(body, bytes(changed)).verdict == "fails", position


@pytest.mark.parametrize("lost", [0, 1, 5, -1])
def test_a_missing_line_is_found(lost: int) -> None:
    body, data = ledgers.with_ledgers(sample.predicate())
    every = data.splitlines(keepends=True)
    del every[lost]
    assert resigned(body, b"".join(every)).verdict == "fails"


def test_ledgers_out_of_order_or_told_twice_are_refused() -> None:
    bodies = ledgers.of(sample.predicate())
    blocks = {holder: ledgers.written({holder: bodies[holder]}) for holder in bodies}
    for holders in (("va", "hungary"), ("hungary", "va", "hungary")):
        with pytest.raises(VerificationError, match="not in the order of their holders"):
            ledger_chain.claim_of(b"".join(blocks[holder] for holder in holders), RUN)


NESTED = json.dumps({"kind": "reserved"})[:-1] + ', "event": ' + "[" * 10**5 + "]" * 10**5 + "}"
HOSTILE = {
    "nothing": b"",
    "not JSON": b"hello\n",
    "no newline": ledgers.written(ledgers.of(sample.predicate()))[:-1],
    "another object": b"{}\n",
    "a number as text": b'{"hash":"","holder":"va","seq":1,"text":1}\n',
    "an empty hash": b'{"hash":"","holder":"va","seq":1,"text":""}\n',
    "nested deeply": b"".join(ledger_chain.lines("va", [(Link(1, bytes(32)), NESTED)])),
    "an event of absurd size": ledgers.written(
        {
            "va": [
                {"kind": "created", "id": "0" * 32, "simulation": True},
                {
                    "kind": "asset",
                    "asset": "a",
                    "budgets": {
                        "record": {"kind": "gdp", "order": None, "epsilon": "9" * 17, "delta": "0." + "0" * 17 + "1"}
                    },
                    "purposes": {"training": "1"},
                },
                ledgers.reserved(
                    1,
                    1,
                    GaussianEvent(Decimal("0.000001"), FULL_BATCH, 10**9).to_json(),
                    "record",
                    run=RUN,
                    asset="a",
                    limit=10**9,
                ),
            ]
        }
    ),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_files_fail_with_a_reason(data: bytes) -> None:
    body, _ = ledgers.with_ledgers(sample.predicate())
    found = resigned(body, data)
    assert found.verdict == "fails"
    assert found.why
    assert "\n" not in found.why


def first_debit(bodies: Bodies) -> dict[str, Any]:
    return next(body for body in bodies["va"] if body["kind"] == "reserved")


@pytest.mark.parametrize(
    "edit",
    [
        {"limit": "x"},
        {"limit": None},
        {"limit": -1},
        {"round": [1]},
        {"round": 1.5},
        {"round": "1"},
        {"round": True},
        {"attempt": {}},
        {"attempt": -1},
    ],
    ids=str,
)
def test_a_debit_without_whole_numbers_is_an_entry_of_no_ledger(edit: dict[str, Any]) -> None:
    bodies = ledgers.of(sample.predicate())
    first_debit(bodies).update(edit)
    found = checked(*ledgers.loosely_claimed(sample.predicate(), bodies))
    assert (found.verdict, found.why) == (
        "fails",
        "the ledger of va: entry 3 of the ledger is not one that this version writes",
    )


def many(events: int, entries: int, kind: FilterKind) -> bytes:
    """A ledger of that many entries, of that many different events under a budget that has room for all of them."""
    rate = "1" if kind is FilterKind.GDP else "0.01"
    sampling = {"type": "full" if rate == "1" else "poisson", "rate": rate}
    budget = {"kind": str(kind), "order": None if rate == "1" else 1024, "epsilon": "2", "delta": "0.001"}
    found: list[dict[str, Any]] = [
        {"kind": "created", "id": "0" * 32, "simulation": True},
        {"kind": "asset", "asset": "a", "budgets": {"record": budget}, "purposes": {"training": "1"}},
    ]
    for number in range(entries):
        noise = f"{10**6 + number % events}"
        event = {"mechanism": "gaussian", "noise_multiplier": noise, "sampling": sampling, "count": 1}
        # A run each: limits are looked up by run, and that may not take longer with every run either.
        found.append(ledgers.reserved(1, 1, event, "record", run=f"run {number}", asset="a", limit=10**6))
    return ledgers.written({"va": found})


@pytest.mark.parametrize(("kind", "events"), [(FilterKind.GDP, 1000), (FilterKind.RENYI, 10)])
def test_a_long_ledger_takes_time_in_proportion(kind: FilterKind, events: int) -> None:
    data, began = many(events, 5000, kind), time.process_time()
    (books,) = ledger_chain.folded(data).values()
    assert time.process_time() - began < 20
    budget = books.assets["a"].budgets["record"]
    assert isinstance(budget, Filter)
    assert sum(event.count for event in books.spent("a", "record")) == 5000


def test_more_different_events_than_a_report_can_show_are_refused_at_once() -> None:
    data, began = many(5000, 5000, FilterKind.GDP), time.process_time()
    with pytest.raises(VerificationError, match="the ledger of va: a was debited for more than 1000 different events"):
        ledger_chain.folded(data)
    assert time.process_time() - began < 20


def test_entries_are_announced_before_they_are_read() -> None:
    body, data = ledgers.with_ledgers(sample.predicate())
    told: list[str] = []
    ledger_chain.check(statement.decode(statement.encode(body, sample.MODEL_SHA256)), data, told.append)
    assert told == [f"reading {data.count(b'holder')} ledger entries"]


@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                name: st.text(max_size=4) | st.integers()
                for name in ("kind", "seq", "id", "asset", "event", "claim", "run", "round", "attempt", "limit")
            },
        ),
        max_size=4,
    )
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_entries_end_in_an_error_of_ours(bodies: Sequence[dict[str, Any]]) -> None:
    created = {"kind": "created", "id": "0" * 32, "simulation": True}
    entries = ledgers.chained([created, *({"kind": "reserved", **one} for one in bodies)])
    try:
        data = b"".join(ledger_chain.lines("va", entries))
        ledger_chain.claim_of(data, RUN)
    except (ConfigError, VerificationError):
        return
