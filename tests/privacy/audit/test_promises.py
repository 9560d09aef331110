"""Claims of differential privacy in every place where noise can be added: honest ones hold, signed lies fail."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from privacy.audit import consistency, pricing, report, schemas, statement
from privacy.audit.html import page
from privacy.audit.verify import Verdict, verify
from privacy.dp.accounting import Accountant, round_up
from privacy.dp.events import (
    Arithmetic,
    Event,
    GaussianEvent,
    Relation,
    Sampling,
    SamplingType,
    SkellamEvent,
    event_from_json,
    merged,
)
from privacy.dp.filters import Filter, FilterKind
from privacy.errors import ConfigError
from tests.privacy.audit import ledgers, masked, promises, sample

LOCAL, CENTRAL, SHARED = promises.IDS.values()


def full(data: bytes, beside: bytes | None = None) -> Verdict:
    return verify(
        data,
        trusted={sample.KEY.public_key},
        model_sha256=sample.MODEL_SHA256,
        transcript=masked.signed_rounds(),
        ledgers=beside,
    )


def failed(verdict: Verdict) -> dict[str, str]:
    return {claim.id: claim.why for claim in verdict.claims if claim.verdict == "fails"}


def why(verdict: Verdict, claim_id: str) -> str:
    (claim,) = (claim for claim in verdict.claims if claim.id == claim_id)
    assert claim.verdict == "holds", claim.why
    return claim.why


# Honest reports


@pytest.mark.parametrize("placements", [("local",), ("central",), ("distributed",), ("local", "distributed"), ()])
def test_honest_claims_hold_and_so_do_their_pages(placements: tuple[str, ...]) -> None:
    data = promises.signed(*placements)
    beside = ledgers.behind(promises.predicate(*placements))
    for version in (data, page.render(data)):
        verdict = full(version, beside)
        assert verdict.exit_code == 0, verdict.lines()
        made = {claim.id: claim.kind for claim in verdict.claims if claim.id.startswith("privacy.")}
        assert made == {promises.IDS[placement]: "proved" for placement in placements or promises.IDS}


def test_an_epsilon_is_never_named_without_its_terms() -> None:
    verdict = full(promises.signed())
    for claim_id, terms in {
        LOCAL: (
            "by PLD from the listed events of 4 sites: at most 0.9646 (cleveland), unit record",
            "relation replace_special, delta 0.001, target 1",
            "noise: exact integers",
            "against everyone outside the site that holds the record",
            "over all runs at most 1.4869 of a budget of 2 (hospitals/cleveland), by a Gaussian filter, delta 0.001",
        ),
        CENTRAL: (
            "by PLD from the listed events of the server: at most 0.9282 (server), unit site",
            "against whoever receives the model, not the server",
        ),
        SHARED: (
            "by RDP from the listed events of 4 sites: at most 0.9651 (cleveland), unit site",
            "against whoever sees sums that hold 2 or more shares of noise unknown to them",
            "by a Rényi filter of order 6",
        ),
    }.items():
        for term in terms:
            assert term in why(verdict, claim_id), claim_id
    assert "over all runs" not in why(verdict, CENTRAL)


def test_floating_point_noise_is_called_so() -> None:
    verdict = full(sample.signed())
    assert "noise: floating point" in why(verdict, LOCAL)


def test_a_run_that_a_budget_stopped_says_so() -> None:
    body = promises.predicate("central")
    body["run"].update(status="stopped", completed=14)
    body["rounds"].pop()
    verdict = full(report.sign(body, sample.MODEL_SHA256, sample.KEY))
    assert "stopped before its end by a privacy budget, after 14 of 15 rounds" in why(verdict, "report.consistency")


# Signed lies

Edit = Callable[[dict[str, Any]], object]


def of(placement: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda body: promises.of(body, placement)


local, central, shared = of("local"), of("central"), of("distributed")


def first(claim: dict[str, Any]) -> Any:
    return claim["sites"][0]


def life(claim: dict[str, Any]) -> Any:
    return first(claim)["lifetime"]


def move_counted(claim: dict[str, Any]) -> None:
    claim["hypothetical"][1]["counted"], claim["hypothetical"][2]["counted"] = False, True


def count_on_three(claim: dict[str, Any]) -> None:
    """Prices the whole claim as if a third stranger's share were sure, consistently."""
    for entry in claim["sites"]:
        event = replace(promises.SHARED.event(16), variance=promises.SHARED.variance * 3 / 2)
        entry.update(promises.holder(entry["site"], event, "RDP"))
        del entry["lifetime"]
    move_counted(claim)


def another_noise(entry: dict[str, Any]) -> None:
    """Changes one site's share, and prices it honestly."""
    event = replace(promises.SHARED.event(16), variance=promises.SHARED.variance + 1)
    entry.update(promises.holder(entry["site"], event, "RDP"))
    del entry["lifetime"]


def row_of(shares: int) -> dict[str, Any]:
    """A hypothetical number of shares, honestly priced."""
    price = promises.price([promises.SHARED.hypothetical(shares, 16)], Relation.REPLACE_SPECIAL, "RDP")
    return {"shares": shares, "counted": False, "epsilon": price}


def float_noise(claim: dict[str, Any]) -> None:
    for entry in claim["sites"]:
        del entry["events"][0]["arithmetic"]
        entry.pop("lifetime", None)


LIES: dict[str, tuple[str, Edit]] = {
    "local: epsilon lowered": (LOCAL, lambda b: first(local(b)).update(epsilon="0.9600")),
    "central: epsilon lowered": (CENTRAL, lambda b: first(central(b)).update(epsilon="0.9200")),
    "central: replace-one lowered": (CENTRAL, lambda b: first(central(b)).update(epsilon_replace_one="2.0000")),
    "shared: epsilon lowered": (SHARED, lambda b: first(shared(b)).update(epsilon="0.9600", epsilon_rdp="0.9600")),
    "shared: epsilon unlike RDP": (SHARED, lambda b: first(shared(b)).update(epsilon="0.9700")),
    "shared: replace-one lowered": (SHARED, lambda b: first(shared(b)).update(epsilon_replace_one="2.0000")),
    "shared: replace-one left out": (SHARED, lambda b: first(shared(b)).update(epsilon_replace_one=None)),
    "shared: RDP left out": (SHARED, lambda b: first(shared(b)).update(epsilon_rdp=None)),
    "shared: planned lowered": (SHARED, lambda b: first(shared(b)).update(planned_epsilon="0.9900")),
    "local: proved over floating point": (LOCAL, lambda b: float_noise(local(b))),
    "central: proved over floating point": (CENTRAL, lambda b: float_noise(central(b))),
    "shared: more noise on one site": (SHARED, lambda b: another_noise(first(shared(b)))),
    "shared: another clip on one site": (SHARED, lambda b: first(shared(b)).update(clip="0.2")),
    "shared: less sensitivity": (SHARED, lambda b: [s["events"][0].update(l2="400") for s in shared(b)["sites"]]),
    "shared: norms that cannot be": (SHARED, lambda b: [s["events"][0].update(l1="1") for s in shared(b)["sites"]]),
    "shared: counted moved": (SHARED, lambda b: move_counted(shared(b))),
    "shared: more counted on than promised": (SHARED, lambda b: count_on_three(shared(b))),
    "shared: counted twice": (SHARED, lambda b: shared(b)["hypothetical"][2].update(counted=True)),
    "shared: nothing counted": (SHARED, lambda b: shared(b)["hypothetical"][1].update(counted=False)),
    "shared: a hypothetical lowered": (SHARED, lambda b: shared(b)["hypothetical"][3].update(epsilon="0.5000")),
    "shared: a hypothetical raised": (SHARED, lambda b: shared(b)["hypothetical"][0].update(epsilon="1.6000")),
    "shared: more shares than sites": (SHARED, lambda b: shared(b)["hypothetical"].append(row_of(5))),
    "shared: a hypothetical twice": (
        SHARED,
        lambda b: shared(b)["hypothetical"].insert(0, shared(b)["hypothetical"][0]),
    ),
    "shared: no masks": (
        SHARED,
        lambda b: (b["protections"].update(secagg=False), b["claims"].pop(), b["claims"].pop()),
    ),
    "a holder that is no site": (SHARED, lambda b: shared(b)["sites"].append({**first(shared(b)), "site": "zurich"})),
    "local: the server holds a site's ledger": (LOCAL, lambda b: first(local(b)).update(site="server")),
    "holders swapped": (
        LOCAL,
        lambda b: (local(b)["sites"][0].update(site="hungary"), local(b)["sites"][1].update(site="cleveland")),
    ),
    "local: a site of the run left out": (LOCAL, lambda b: local(b)["sites"].pop()),
    "central: fewer noisy sums than rounds": (
        CENTRAL,
        lambda b: first(central(b)).update(promises.holder("server", promises.EXACT.times(14), "PLD")),
    ),
    "central: no noise": (CENTRAL, lambda b: first(central(b))["events"].clear()),
    "shared: more executions than budgeted": (SHARED, lambda b: first(shared(b))["events"][0].update(count=18)),
    "lifetime epsilon lowered": (LOCAL, lambda b: life(local(b)).update(epsilon="1.4000")),
    "lifetime epsilon lowered, Rényi": (SHARED, lambda b: life(shared(b)).update(epsilon="1.4000")),
    "lifetime above its budget": (LOCAL, lambda b: life(local(b)).update(budget="1.4")),
    "lifetime above its budget, Rényi": (SHARED, lambda b: life(shared(b)).update(budget="1.4")),
    "a lifetime without this run": (LOCAL, lambda b: life(local(b))["events"].clear()),
    "a lifetime with a part of this run": (
        LOCAL,
        lambda b: life(local(b)).update(promises.lifetime("x", [promises.EXACT.times(15)], FilterKind.GDP)),
    ),
    "a lifetime of other noise": (LOCAL, lambda b: life(local(b))["events"][0].pop("arithmetic")),
    "a lifetime of other noise, Rényi": (
        SHARED,
        lambda b: life(shared(b))["events"][0].update(variance=str(promises.SHARED.variance * 2)),
    ),
    "a lifetime at another order": (SHARED, lambda b: life(shared(b)).update(order=7)),
    "a lifetime at another delta": (SHARED, lambda b: life(shared(b)).update(delta="0.01")),
    "a Rényi filter without order": (SHARED, lambda b: life(shared(b)).update(order=None)),
    "a Gaussian filter over shares": (SHARED, lambda b: life(shared(b)).update(filter="gdp", order=None)),
    "a lifetime with an event that cannot be": (
        LOCAL,
        lambda b: life(local(b))["events"][0]["sampling"].update(rate="0.5"),
    ),
    "a budget that nothing fits": (SHARED, lambda b: life(shared(b)).update(budget="0.000000000001")),
    "protected without a claim": ("report.consistency", lambda b: b["claims"].pop(2)),
    "a claim without protection": ("report.consistency", lambda b: b["protections"].update(site_dp=False)),
    "stopped after all rounds": ("report.consistency", lambda b: b["run"].update(status="stopped")),
}


@pytest.mark.parametrize(("claim_id", "edit"), LIES.values(), ids=LIES.keys())
def test_a_signed_lie_fails(claim_id: str, edit: Edit) -> None:
    body = promises.predicate()
    edit(body)
    verdict = full(sample.forged(body))
    assert verdict.authentic
    assert claim_id in failed(verdict), verdict.lines()
    assert verdict.exit_code == 1


def test_no_lie_is_found_where_there_is_none() -> None:
    assert failed(full(sample.forged(promises.predicate()))) == {}


def test_a_contradiction_between_claims_is_not_signed() -> None:
    body = promises.predicate()
    move = promises.of(body, "distributed")["hypothetical"]
    move[1]["counted"] = False
    with pytest.raises(ConfigError, match="counted on"):
        report.sign(body, sample.MODEL_SHA256, sample.KEY)


MISPLACED: dict[str, Edit] = {
    "shares in a central claim": lambda b: central(b).update(hypothetical=shared(b)["hypothetical"]),
    "shares in a local claim": lambda b: local(b).update(hypothetical=shared(b)["hypothetical"]),
    "no shares": lambda b: shared(b).pop("hypothetical"),
    "PLD for Skellam": lambda b: shared(b).update(accountant="PLD"),
    "RDP for a Gaussian": lambda b: local(b).update(accountant="RDP"),
    "Gaussian shares": lambda b: first(shared(b)).update(events=first(local(b))["events"]),
    "Skellam at a site": lambda b: first(local(b)).update(events=first(shared(b))["events"]),
    "Skellam at the server": lambda b: first(central(b)).update(events=first(shared(b))["events"]),
    "a site where the server belongs": lambda b: first(central(b)).update(site="va"),
    "two servers": lambda b: central(b)["sites"].append(first(central(b))),
    "records of the server": lambda b: first(central(b)).update(n_train=1),
    "no records": lambda b: first(local(b)).pop("n_train"),
    "records of a share": lambda b: first(shared(b)).update(n_train=1),
    "another placement": lambda b: local(b).update(placement="central"),
    "a site as a unit of single steps": lambda b: local(b).update(unit="site"),
    "a record as the server's unit": lambda b: central(b).update(unit="record"),
    "a site with its sibling's id": lambda b: central(b).update(id=LOCAL),
    "float noise said aloud": lambda b: first(local(b))["events"][0].update(arithmetic="float64"),
    "a group of one": lambda b: first(local(b))["events"][0].update(group=1),
    "a Rényi order of 1": lambda b: life(shared(b)).update(order=1),
    "an unknown filter": lambda b: life(shared(b)).update(filter="pld"),
    "a lifetime without events": lambda b: life(shared(b)).pop("events"),
    "another field in a lifetime": lambda b: life(shared(b)).update(surprise=1),
    "another field in a row": lambda b: shared(b)["hypothetical"][0].update(surprise=1),
    "another field in a Skellam event": lambda b: first(shared(b))["events"][0].update(sampling=1),
    "an unknown mechanism": lambda b: first(shared(b))["events"][0].update(mechanism="laplace"),
    "a third kind": lambda b: shared(b).update(kind="measured"),
    "another relation": lambda b: shared(b).update(relation="replace_one"),
}


@pytest.mark.parametrize("edit", MISPLACED.values(), ids=MISPLACED.keys())
def test_a_claim_has_what_belongs_to_its_placement(edit: Edit) -> None:
    body = promises.predicate()
    edit(body)
    with pytest.raises(ConfigError, match="privacy-audit-v1: at claims"):
        schemas.check("privacy-audit-v1", body)


@pytest.mark.parametrize("unit", ["record", "patient"])
def test_other_units_are_accepted(unit: str) -> None:
    body = promises.predicate()
    local(body)["unit"] = shared(body)["unit"] = unit
    body, data = ledgers.with_ledgers(body)
    assert full(report.sign(body, sample.MODEL_SHA256, sample.KEY), data).exit_code == 0


# Prices of every kind of event


def body_with(event: Event, **changes: Any) -> dict[str, Any]:
    """A report whose sites all executed this event, at an epsilon far above."""
    body = promises.predicate("local")
    claim = local(body)
    claim.update(target_epsilon="50", budget_executions=event.count)
    for entry in claim["sites"]:
        del entry["lifetime"]
        price = promises.price([event], Relation.REPLACE_SPECIAL, "PLD")
        entry.update(epsilon=price, planned_epsilon=price, events=[event.to_json()], **changes)
    return sample.told(body)


COIN = Sampling(SamplingType.POISSON, Decimal("0.1"))
CAPPED = Sampling(SamplingType.TRUNCATED, Decimal("0.1"), cap=30, n_records=199)
# Whether replace-one has a price by PLD, and whether zero-out has one by RDP.
PRICED: dict[str, tuple[Event, bool, bool]] = {
    "group in full batches": (replace(promises.EXACT, count=17, group=2), True, True),
    "group in Poisson batches": (
        GaussianEvent(Decimal(20), COIN, 17, group=2, arithmetic=Arithmetic.INTEGER_EXACT),
        False,
        False,
    ),
    "truncated batches": (GaussianEvent(Decimal(4), CAPPED, 17, arithmetic=Arithmetic.INTEGER_EXACT), True, False),
}


@pytest.mark.parametrize("name", PRICED)
def test_unlike_events_are_priced_and_null_stands_only_where_there_is_no_price(name: str) -> None:
    event, *has_price = PRICED[name]
    prices: dict[str, str | None] = {}
    kinds: dict[str, tuple[Relation, Accountant]] = {
        "epsilon_replace_one": (Relation.REPLACE_ONE, "PLD"),
        "epsilon_rdp": (Relation.REPLACE_SPECIAL, "RDP"),
    }
    for field, (relation, by) in kinds.items():
        found = pricing._price([event], sample.DELTA, relation, by)
        prices[field] = None if found is None else round_up(found)
    assert [price is not None for price in prices.values()] == has_price
    assert why(full(sample.forged(body_with(event, **prices))), LOCAL)
    for field, value in prices.items():
        lie = {**prices, field: "0.0001" if value is None else None}
        assert failed(full(sample.forged(body_with(event, **lie)))).keys() - ledgers.EVIDENCE == {LOCAL}, field


def test_a_record_among_truncated_or_grouped_ones_costs_no_more_than_what_bounds_it() -> None:
    for name in ("group in Poisson batches", "truncated batches"):
        event = PRICED[name][0]
        above = pricing._dominating(event)
        assert above != event
        accountants: tuple[Accountant, ...] = ("PLD", "RDP")
        for by in accountants:
            bound = pricing._price([above], sample.DELTA, Relation.REPLACE_SPECIAL, by)
            price = pricing._price([event], sample.DELTA, Relation.REPLACE_SPECIAL, "PLD")
            assert bound is not None
            assert price is not None
            assert bound >= price, (name, by)


# Absurd work


ABSURD: dict[str, Edit] = {
    "a large group": lambda b: [
        s["events"][0].update(group=9, noise_multiplier="40", sampling={"type": "poisson", "rate": "0.1"})
        for s in local(b)["sites"]
    ],
    "weak truncated batches": lambda b: [
        s["events"][0].update(
            noise_multiplier="0.2",
            sampling={"type": "truncated_poisson", "rate": "0.5", "cap": 10**9, "n_records": 10**9},
        )
        for s in local(b)["sites"]
    ],
    "an enormous budget": lambda b: [s["lifetime"].update(budget="9" * 18) for s in local(b)["sites"]],
    "a delta next to one": lambda b: [s["lifetime"].update(delta="0." + "9" * 18) for s in local(b)["sites"]],
}


@pytest.mark.parametrize("name", ABSURD)
def test_what_would_take_too_long_is_unchecked_and_never_holds(name: str) -> None:
    body = promises.predicate("local")
    if "budget" not in name and "delta" not in name:
        for entry in local(body)["sites"]:
            entry["epsilon_rdp"] = None
            del entry["lifetime"]
    ABSURD[name](body)
    verdict = full(sample.forged(sample.told(body)))
    assert {claim.verdict for claim in verdict.claims if claim.id == LOCAL} == {"unchecked"}
    assert failed(verdict).keys() <= ledgers.EVIDENCE
    assert verdict.exit_code in {1, 3}


@pytest.mark.parametrize("number", ["0." + "0" * 17 + "1", "9" * 18])
@pytest.mark.parametrize("field", ["variance", "l2", "l1"])
def test_extreme_shares_end_in_a_verdict(field: str, number: str) -> None:
    body = promises.predicate("distributed")
    for entry in shared(body)["sites"]:
        for event in (*entry["events"], *entry["lifetime"]["events"]):
            event[field] = number
    assert full(sample.forged(body)).exit_code in {1, 3}


# How the pieces fit


def test_the_sample_s_numbers_come_from_the_filters_and_the_plan() -> None:
    body = promises.predicate()
    ever = merged([event_from_json(event) for event in life(local(body))["events"]])
    budget = Filter.for_budget(FilterKind.GDP, promises.BUDGET, sample.DELTA)
    assert round_up(budget.epsilon_of(budget.spent(ever))) == life(local(body))["epsilon"]
    (share,) = (event_from_json(event) for event in first(shared(body))["events"])
    assert isinstance(share, SkellamEvent)
    assert [row["counted"] for row in shared(body)["hypothetical"]] == [False, True, False, False]
    assert consistency.of_all(statement.decode(statement.encode(body, sample.MODEL_SHA256))) == []


def test_a_budget_s_room_is_that_of_its_filter() -> None:
    body = promises.predicate()
    for claim in (local(body), shared(body)):
        (event,) = (event_from_json(one) for one in first(claim)["events"])
        room = pricing.executions_left(life(claim), event)
        spent = [event_from_json(one) for one in life(claim)["events"]]
        kind, order = FilterKind(life(claim)["filter"]), life(claim)["order"]
        budget = Filter(kind, promises.BUDGET, sample.DELTA, order)
        assert budget.spent([*spent, event.times(room)]) <= budget.limit < budget.spent([*spent, event.times(room + 1)])
