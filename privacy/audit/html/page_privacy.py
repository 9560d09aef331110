"""The epsilon claims of a report, as its page tells them: the worst holder speaks for all, nothing is averaged.

Holders of ledgers are sites, or the server where it adds the noise.
"""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from privacy.audit import pricing, words
from privacy.audit.html import charts, page_curves
from privacy.audit.html.tables import Column, Table
from privacy.audit.statement import Statement
from privacy.dp.events import event_from_json
from privacy.errors import FederationError

_COLUMNS = (
    Column("Clip"),
    Column("Noise"),
    Column("Sampling", numeric=False),
    Column("Noisy steps"),
    Column("ε spent"),
    Column("ε planned"),
    Column("ε replace-one"),
    Column("ε by RDP"),
)
_SHARES = (Column("Strangers' shares in every sum", numeric=False), Column("ε"), Column("What that is", numeric=False))
_NO_ROOM = "has no room for another attempt"


def view(report: Statement) -> list[dict[str, Any]]:
    """Returns what the page shows of each claim of differential privacy."""
    n_sites = len(report.predicate["egress"])
    return [{**_claim(claim, n_sites, report), "curves": page_curves.view(report, claim)} for claim in report.epsilons]


def stop(report: Statement) -> dict[str, Any] | None:
    """Returns what the page shows of a run that ended before its last round; nothing if it did not."""
    run, done = report.predicate["run"], len(report.predicate["rounds"])
    if run["status"] == "finished":
        return None
    lines = [line for claim in report.epsilons for line in _exhausted(claim)] if run["status"] == "stopped" else []
    return {"status": words.STATUSES[run["status"]], "done": done, "planned": run["rounds"], "lines": lines}


def largest(claim: dict[str, Any], field: str) -> str:
    """Returns the largest of the holders' decimals as it was written; a dash where none was."""
    return max((str(entry[field]) for entry in claim["sites"] if entry[field] is not None), key=Decimal, default="–")


def _claim(claim: dict[str, Any], n_sites: int, report: Statement) -> dict[str, Any]:
    sites, place = claim["sites"], claim["placement"]
    events = [event for entry in sites for event in entry["events"]]
    worst = max(sites, key=lambda entry: Decimal(entry["epsilon"]))
    number, after = words.chance(float(worst["epsilon"]))
    return {
        **{name: claim[name] for name in ("kind", "placement", "unit", "delta", "accountant")},
        "title": words.PLACEMENTS[place],
        "who": _who(claim, n_sites),
        "whom": words.FROM_WHOM[place] + (words.NOT_HOLDER if report.cut else ""),
        "against": words.against(claim, unequal=report.unequal, cut=report.cut),
        "suspected": words.SUSPECTED[claim["unit"]],
        "shared": words.SHARED[claim["unit"]],
        "relation": claim["relation"],
        "relation_words": words.RELATIONS[claim["relation"]].format(claim["unit"]),
        "epsilon": worst["epsilon"],
        "worst": worst["site"] if place != "central" else "",
        "after": after,
        "chart": charts.suspicion(
            number, f"at most {after} after", f"From 50 % to at most {after} of 100 %.", name=f"suspicion-{place}"
        ),
        "replace_one": largest(claim, "epsilon_replace_one"),
        "rdp": largest(claim, "epsilon_rdp") if claim["accountant"] != "RDP" else "",
        "sampling": words.sampling(events, claim["unit"]),
        "noise": _noise(events),
        "target": claim["target_epsilon"],
        "budget_chart": _budgets(claim),
        "table": _table(claim),
        "lifetime": _lifetime(claim),
        "hypothetical": _hypothetical(claim, unequal=report.unequal),
    }


def _who(claim: dict[str, Any], n_sites: int) -> str:
    at = words.count(n_sites, "site")
    if claim["unit"] == "site":
        return f"Each site as a whole, with everything that it put in: {at}."
    n_units = sum(entry.get("n_train", 0) for entry in claim["sites"])
    counted = f"{words.count(n_units, claim['unit'])} at {words.count(len(claim['sites']), 'site')}" if n_units else at
    used = "that was used" if claim["unit"] == "record" else "whose records were used"
    return f"Each single {claim['unit']} {used} for training: {counted}."


def _is_exact(events: list[dict[str, Any]]) -> bool:
    return all(event["mechanism"] == "skellam" or "arithmetic" in event for event in events)


def _noise(events: list[dict[str, Any]]) -> str:
    if not events:
        return "none was drawn"
    kind = "Gaussian on a public grid" if events[0]["mechanism"] == "gaussian" else "Skellam"
    if _is_exact(events):
        return f"{kind}, drawn as exact integers with just the declared distribution"
    return f"{kind}, drawn in floating point: close to the declared distribution, not equal to it"


def _budgets(claim: dict[str, Any]) -> str:
    target = claim["target_epsilon"]
    rows = [
        charts.BudgetRow(
            label=entry["site"],
            spent=float(entry["epsilon"]),
            planned=float(entry["planned_epsilon"]),
            text=f"{entry['epsilon']} of {target}",
        )
        for entry in claim["sites"]
    ]
    title = "Epsilon of this run against its target"
    return charts.budgets(rows, float(target), name=f"budgets-{claim['placement']}", title=title)


def _lifetime(claim: dict[str, Any]) -> dict[str, Any] | None:
    """Shows every holder's budget for all runs as a bar of full width, since budgets may differ."""
    entries = [entry for entry in claim["sites"] if "lifetime" in entry]
    if not entries:
        return None
    rows = []
    for entry in entries:
        life, holder = entry["lifetime"], entry["site"]
        label = life["asset"] if holder in life["asset"] else f"{holder}: {life['asset']}"
        share = float(life["epsilon"]) / max(float(life["budget"]), 1e-9)
        text = f"{life['epsilon']} of {life['budget']} at δ = {life['delta']}"
        rows.append(charts.BudgetRow(label, share, None, text))
    title = "Epsilon of all runs against the lifetime's budget"
    return {
        "chart": charts.budgets(rows, 1.0, name=f"lifetime-{claim['placement']}", title=title),
        "filters": " and ".join(dict.fromkeys(words.filter_name(entry["lifetime"]) for entry in entries)),
        "asserted": not all(_is_exact(entry["lifetime"]["events"]) for entry in entries),
    }


def _hypothetical(claim: dict[str, Any], *, unequal: bool) -> Table | None:
    if "hypothetical" not in claim:
        return None
    rows = tuple(
        (row["shares"], row["epsilon"], "counted on: the claim" if row["counted"] else "hypothetical")
        for row in claim["hypothetical"]
    )
    where = " where the holders are fewest, and in proportion in every other region" if unequal else ""
    return Table(f"ε at the weakest site's number of noisy sums, if that many shares were there{where}", _SHARES, rows)


def _table(claim: dict[str, Any]) -> Table:
    caption = (
        f"ε at δ = {claim['delta']}, rounded up. Clip: the most that one {claim['unit']} can weigh; noise: its "
        f"standard deviation in clips. The plan allows {claim['budget_executions']} noisy steps, retries included"
    )
    local = claim["placement"] == "local"
    first = (Column("Ledger" if claim["placement"] == "central" else "Site", numeric=False),)
    names = (*first, Column(f"{claim['unit'].capitalize()}s")) if local else first
    rows = tuple(
        (entry["site"], *((entry["n_train"],) if local else ()), *_row(entry, claim["unit"]))
        for entry in claim["sites"]
    )
    return Table(caption, (*names, *_COLUMNS), rows)


def _row(entry: dict[str, Any], unit: str) -> tuple[str | int, ...]:
    events = entry["events"]
    drawn = [event["sampling"] for event in events if "sampling" in event]
    rates = {one["rate"] for one in drawn if one["type"] != "full"}
    return (
        entry["clip"],
        ", ".join(dict.fromkeys(map(_multiplier, events))) or "–",
        f"Poisson {', '.join(sorted(rates, key=float))}" if rates else f"all {unit}s" if events else "–",
        sum(event["count"] for event in events),
        entry["epsilon"],
        entry["planned_epsilon"],
        entry["epsilon_replace_one"] or "–",
        entry["epsilon_rdp"] or "–",
    )


def _multiplier(event: dict[str, Any]) -> str:
    if event["mechanism"] == "gaussian":
        return str(event["noise_multiplier"])
    if not Decimal(event["l2"]):
        return "–"
    return f"{Decimal(event['variance']).sqrt() / Decimal(event['l2']):.4f}"


def _exhausted(claim: dict[str, Any]) -> Iterator[str]:
    """Says which ledgers have no room for another attempt, as far as the report shows it."""
    for entry in claim["sites"]:
        each = pricing.per_attempt(claim, entry)
        left = pricing.planned(claim, entry) - sum(event["count"] for event in entry["events"])
        if left < each:
            yield f"{entry['site']}: the plan of this run, ε ≤ {claim['target_epsilon']}, {_NO_ROOM}."
        if "lifetime" not in entry or not entry["events"]:
            continue
        life = entry["lifetime"]
        try:
            room = pricing.executions_left(life, event_from_json(entry["events"][-1]))
        except FederationError:
            continue  # said by the check of the claim itself
        if room < each:
            yield (
                f"{entry['site']}: the budget of {life['asset']} for one {claim['unit']}, ε ≤ {life['budget']} "
                f"over all runs, {_NO_ROOM}; {life['epsilon']} is spent."
            )
