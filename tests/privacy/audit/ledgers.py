"""Ledgers for the sample reports, written entry by entry, so that a test can write what no ledger would."""

import copy
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from privacy.audit import ledger_chain, limits
from privacy.audit.ledger_chain import lines
from privacy.audit.payments import ledger_name
from privacy.store.books import START, Link, entry
from tests.privacy.audit import measured

EARLIER = "20261001-090000-7"
"""The run that spent the rest of the budgets' lifetimes."""
EVIDENCE = {"conformance.release", ledger_chain.CLAIM}
"""Claims that stand beside every epsilon."""
Body = dict[str, Any]


def chained(bodies: Iterable[Body]) -> list[tuple[Link, str]]:
    """Entries whose hashes are right, whatever they say."""
    link, found = START, []
    for body in bodies:
        text = entry(body["kind"], {name: value for name, value in body.items() if name != "kind"})
        link = link.then(text)
        found.append((link, text))
    return found


def written(ledgers: dict[str, list[Body]]) -> bytes:
    """The file for these ledgers, in the order of their holders."""
    return b"".join(line for holder in sorted(ledgers) for line in lines(holder, chained(ledgers[holder])))


def reserved(number: int, attempt: int, event: Body, claim: str, *, run: str, asset: str, limit: int = 17) -> Body:
    names = {"asset": asset, "run": run, "purpose": "training", "claim": claim}
    return {"kind": "reserved", "round": number, "attempt": attempt, "event": event, "limit": limit, **names}


def of(predicate: Body) -> dict[str, list[Body]]:
    """What the ledgers behind a sample report hold, by holder."""
    holders = {entry["site"] for claim in epsilons(predicate) for entry in claim["sites"] if entry["events"]}
    return {holder: _bodies(predicate, holder, place) for place, holder in enumerate(sorted(holders))}


def epsilons(predicate: Body) -> list[Body]:
    return [claim for claim in predicate["claims"] if claim["id"].startswith("privacy.epsilon")]


def _bodies(predicate: Body, holder: str, place: int) -> list[Body]:
    paid = [(claim, one) for claim in epsilons(predicate) for one in claim["sites"] if one["site"] == holder]
    asset = "hospitals/all sites" if holder == "server" else f"hospitals/{holder}"
    budgets: Body = {ledger_name(claim): _budget(one.get("lifetime")) for claim, one in paid}
    found: list[Body] = [
        {"kind": "created", "id": f"{place:032x}", "simulation": True},
        {"kind": "asset", "asset": asset, "budgets": budgets, "purposes": {"training": "1"}},
    ]
    runs = [(predicate["run"]["id"], list(_attempts(predicate, holder)))]
    # Budgets of the sample are those of one earlier run, of as many attempts for each claim.
    before = {_executions(one["lifetime"]) - _executions(one) for _, one in paid if "lifetime" in one}
    if before:
        runs.insert(0, (EARLIER, [(number, 1) for number in range(1, max(before) + 1)]))
    for run, attempts in runs:
        for number, attempt in attempts:
            debits = [
                reserved(
                    number,
                    attempt,
                    {**one["events"][0], "count": 1},
                    ledger_name(claim),
                    run=run,
                    asset=asset,
                    limit=max(claim["budget_executions"], len(attempts)),
                )
                for claim, one in paid
            ]
            first = len(found) + 1
            found += debits
            found += [{"kind": "released", "seq": first + k} for k in range(len(debits))]
    return found


def _executions(entry: Body) -> int:
    return int(sum(event["count"] for event in entry["events"]))


def _budget(lifetime: Body | None) -> Any:
    if lifetime is None:
        return "unlimited"
    return {
        "kind": lifetime["filter"],
        "order": lifetime["order"],
        "epsilon": lifetime["budget"],
        "delta": lifetime["delta"],
    }


def _attempts(predicate: Body, holder: str) -> Iterable[tuple[int, int]]:
    for one in predicate["rounds"]:
        if holder == "server":
            yield one["round"], one["attempts"]
        elif holder in one["answered"]:
            yield from ((one["round"], attempt) for attempt in range(1, one["attempts"] + 1))


def with_ledgers(predicate: Body, ledgers: dict[str, list[Body]] | None = None) -> tuple[Body, bytes]:
    """The predicate with its ``ledger.chain`` claim, and the file that the claim is about."""
    data, body = written(of(predicate) if ledgers is None else ledgers), without(predicate)
    body["claims"].append(ledger_chain.claim_of(data, body["run"]["id"]))
    return limits.told(body), data


def with_evidence(predicate: Body) -> tuple[Body, bytes]:
    """The predicate with both claims of ``evidence`` made anew, and the file of ledgers."""
    body = copy.deepcopy(predicate)
    body["claims"] = [claim for claim in body["claims"] if claim["id"] not in EVIDENCE]
    body["claims"] += evidence(body)
    return limits.told(body), behind(body)


def without(predicate: Body) -> Body:
    """The predicate without a claim about ledgers, if it makes one."""
    body = copy.deepcopy(predicate)
    body["claims"] = [claim for claim in body["claims"] if claim["id"] != ledger_chain.CLAIM]
    return body


def behind(predicate: Body) -> bytes:
    """The file of ledgers behind a sample report."""
    return written(of(predicate))


def evidence(predicate: Body) -> list[Body]:
    """What a report must claim beside its epsilons: that release paths were tested, and what was debited."""
    tested = measured.conformance_claim(epsilons(predicate))
    return [tested, ledger_chain.claim_of(behind(predicate), predicate["run"]["id"])]


def loosely_claimed(predicate: Body, ledgers: dict[str, list[Body]]) -> tuple[Body, bytes]:
    """As ``with_ledgers``, by a signer who does not check what he claims."""
    data, body = written(ledgers), without(predicate)
    body["claims"].append(
        {
            "id": "ledger.chain",
            "kind": "proved",
            "ledgers_sha256": hashlib.sha256(data).hexdigest(),
            "ledgers": [_listed(holder, ledgers[holder], body["run"]["id"]) for holder in sorted(ledgers)],
        }
    )
    return body, data


def _listed(holder: str, bodies: Sequence[Body], run: str) -> Body:
    link, _ = chained(bodies)[-1]
    debits = sum(body["kind"] == "reserved" and body["run"] == run for body in bodies)
    named = {"holder": holder, "ledger": bodies[0].get("id", "0" * 32), "entries": link.seq, "head": link.hash.hex()}
    return {**named, "debits": debits}
