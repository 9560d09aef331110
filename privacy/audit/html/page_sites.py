"""A run of real sites, as its page tells it: the charter, what sites decided and signed, and what left each."""

from typing import Any

from privacy.audit import words
from privacy.audit.approval import ADOPTED, APPROVED, CHARTER_FILE
from privacy.audit.html.tables import Column, Table
from privacy.audit.site_statement import STATEMENTS_FILE
from privacy.audit.statement import Statement
from privacy.audit.testimony import LEFT, STATED, WITNESSED, entries

KINDS = {
    "query.hello": "roll call",
    "train.masked": "keys for one attempt",
    "train.stage": "keys for one attempt",
    "query.secagg": "shares, masked update, list of survivors",
    "train.round": "update in the clear",
}
"""What a message type carries, for people; another one stands for itself."""


def view(report: Statement) -> dict[str, Any] | None:
    """Returns what the page shows of charter, statements, payloads and log; nothing of a simulation."""
    adopted, approved, stated = (report.claim(name) for name in (ADOPTED, APPROVED, STATED))
    left, log = report.claim(LEFT), report.claim(WITNESSED)
    if adopted is None or approved is None or stated is None or left is None or log is None:
        return None
    proposal = approved["proposal"]
    return {
        "charter": adopted,
        "proposal": proposal,
        "parameters": ", ".join(f"{name} = {value}" for name, value in sorted(proposal["parameters"].items())),
        "privacy": "; ".join(
            f"{entry['setting']}: ε at most {entry['epsilon']} at δ = {entry['delta']}, clip {entry['clip']}, noise at "
            f"least {entry['noise']} clips"
            for entry in proposal["privacy"]
        ),
        "decisions": _decisions(stated, left),
        "refusals": _refusals(stated),
        "unattested": [f"{entry['site']}: {entry['reason']}" for entry in stated["unattested"]],
        "payloads": _payloads(left),
        "log": log["origin"],
        "entries": entries(log),
        "files": (CHARTER_FILE, STATEMENTS_FILE),
    }


def _decisions(stated: dict[str, Any], left: dict[str, Any]) -> Table:
    lost = {entry["site"]: len(entry["lost"]) for entry in left["sites"]}
    rows: list[tuple[str | int, ...]] = [
        (entry["site"], "signed", entry["allowed"], entry["refused"], lost.get(entry["site"], 0))
        for entry in stated["sites"]
    ]
    rows += [(entry["site"], "none that holds", "–", "–", "–") for entry in stated["unattested"]]
    columns = (Column("Allowed"), Column("Refused"), Column("Sent, never arrived"))
    caption = "What each site's gate decided about this run, in the site's own words"
    return Table(caption, (Column("Site", numeric=False), Column("Statement", numeric=False), *columns), tuple(rows))


def _refusals(stated: dict[str, Any]) -> Table | None:
    rows = tuple(
        (entry["site"], refusal["by"], refusal["strategy"] or "–", refusal["times"])
        for entry in stated["sites"]
        for refusal in entry["refusals"]
    )
    columns = (Column("Site", numeric=False), Column("Refused by", numeric=False), Column("Strategy", numeric=False))
    if not rows:
        return None
    return Table("Requests that a site refused; nothing left it for them", (*columns, Column("Times")), rows)


def _payloads(left: dict[str, Any]) -> Table:
    rows = tuple(
        (
            entry["site"],
            KINDS.get(one["kind"], one["kind"]),
            words.number(one["messages"]),
            words.size(one["bytes"]),
            words.number(one["bytes"]),
        )
        for entry in left["sites"]
        for one in entry["payloads"]
    )
    columns = (Column("Site", numeric=False), Column("Kind of payload", numeric=False))
    numbers = tuple(Column(name) for name in ("Payloads", "Size", "Bytes"))
    return Table("Payloads by kind, as the server received them", (*columns, *numbers), rows)
