"""The epsilon claim of a report, as its page tells it: the worst site speaks for all, and sites are never averaged."""

from typing import Any

from privacy.audit import charts, words
from privacy.audit.tables import Column, Table

_COLUMNS = (
    Column("Site", numeric=False),
    Column("Records"),
    Column("Clip"),
    Column("Noise"),
    Column("Sampling", numeric=False),
    Column("Noisy steps"),
    Column("ε spent"),
    Column("ε planned"),
    Column("ε replace-one"),
    Column("ε by RDP"),
)


def view(claim: dict[str, Any] | None) -> dict[str, Any] | None:
    """Returns what the page shows of a ``privacy.epsilon`` claim; nothing if there is none."""
    if claim is None:
        return None
    sites = claim["sites"]
    worst = max(sites, key=lambda entry: float(entry["epsilon"]))
    number, after = words.chance(float(worst["epsilon"]))
    caption = (
        f"ε at δ = {claim['delta']}, rounded up. Clip: the most that one record can weigh; noise: its standard "
        f"deviation in clips. The plan allows {claim['budget_executions']} noisy steps, retries included"
    )
    return {
        **{name: claim[name] for name in ("unit", "relation", "delta", "accountant")},
        "relation_words": words.RELATIONS[claim["relation"]],
        "n_records": words.count(sum(entry["n_train"] for entry in sites), "record"),
        "n_sites": words.count(len(sites), "site"),
        "epsilon": worst["epsilon"],
        "worst": worst["site"],
        "after": after,
        "chart": charts.suspicion(number, f"at most {after} after", f"From 50 % to at most {after} of 100 %."),
        "replace_one": largest(sites, "epsilon_replace_one"),
        "rdp": largest(sites, "epsilon_rdp"),
        "sampling": words.sampling([event["sampling"] for entry in sites for event in entry["events"]]),
        "target": claim["target_epsilon"],
        "budget_chart": _budgets(sites, claim["target_epsilon"]),
        "table": Table(caption, _COLUMNS, tuple(_row(entry) for entry in sites)),
    }


def largest(sites: list[dict[str, Any]], field: str) -> str:
    """Returns the largest of the sites' decimals as it was written."""
    return max((str(entry[field]) for entry in sites), key=float)


def _budgets(sites: list[dict[str, Any]], target: str) -> str:
    rows = [
        charts.BudgetRow(
            label=entry["site"],
            spent=float(entry["epsilon"]),
            planned=float(entry["planned_epsilon"]),
            text=f"{entry['epsilon']} of {target}",
        )
        for entry in sites
    ]
    return charts.budgets(rows, float(target), "; ".join(f"{row.label}: {row.text}" for row in rows[:8]))


def _row(entry: dict[str, Any]) -> tuple[str | int, ...]:
    events = entry["events"]
    rates = {event["sampling"]["rate"] for event in events if event["sampling"]["type"] == "poisson"}
    return (
        entry["site"],
        entry["n_train"],
        entry["clip"],
        ", ".join(dict.fromkeys(event["noise_multiplier"] for event in events)) or "–",
        f"Poisson {', '.join(sorted(rates, key=float))}" if rates else "all records" if events else "–",
        sum(event["count"] for event in events),
        entry["epsilon"],
        entry["planned_epsilon"],
        entry["epsilon_replace_one"],
        entry["epsilon_rdp"],
    )
