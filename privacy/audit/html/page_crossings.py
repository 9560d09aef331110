"""What crossed between organisations while a cut model was trained, as the page tells it; what left bare in red."""

from typing import Any

from privacy.audit import crossings, words
from privacy.audit.html.tables import Column, Table
from privacy.audit.statement import Statement

_COLUMNS = (
    Column("Owner", numeric=False),
    Column("Shown to", numeric=False),
    Column("What", numeric=False),
    Column("Clip"),
    Column("Noise / clip"),
    Column("Releases of a record, of at most"),
    Column("ε, one record replaced"),
)


def view(report: Statement) -> dict[str, Any] | None:
    """Returns what the page shows of the predicate's ``releases``; nothing if no model was cut."""
    found = crossings.of(report.predicate)
    if found is None:
        return None
    return {"table": _table(report.predicate, found), "unprotected": crossings.unprotected(report.predicate)}


def _table(body: dict[str, Any], found: list[dict[str, Any]]) -> Table:
    rows: list[tuple[str | int, ...]] = []
    for one in found:
        who = (one["owner"], one["to"], ", ".join(one["what"]))
        if "unsafe" in one:
            rows.append((*who, "–", "none", "no limit", "no bound"))
        else:
            times = f"{words.number(one['released'])} of {words.number(one['most'])}"
            rows.append((*who, one["clip"], one["noise"], times, f"{one['epsilon']} at δ = {one['delta']}"))
    for one in crossings.together(body):
        if one["releases"] > 1:
            bound = "no bound" if one["epsilon"] is None else f"{one['epsilon']} at δ = {one['delta']}"
            rows.append((one["owner"], ", ".join(one["to"]), "all with noise together", "–", "–", "–", bound))
    return Table("Values of single records that another organisation saw, and under which terms", _COLUMNS, tuple(rows))
