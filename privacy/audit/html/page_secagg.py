"""The masked rounds of a report, as its page tells them: what could be opened, what was, and what signatures show."""

from itertools import groupby
from typing import Any

from privacy.audit import limits, masked_rounds, words
from privacy.audit.html.tables import Column, Table
from privacy.audit.statement import Statement
from privacy.audit.transcript import TRANSCRIPT_FILE

_COLUMNS = (
    Column("Rounds", numeric=False),
    Column("Attempt"),
    Column("Sites in the sum", numeric=False),
    Column("Result", numeric=False),
)


def view(report: Statement) -> dict[str, Any] | None:
    """Returns what the page shows of a ``secagg.rounds`` claim; nothing if there is none."""
    claim = report.claim("secagg.rounds")
    if claim is None:
        return None
    attempts = claim["attempts"]
    rows = tuple(_row(list(group)) for _, group in groupby(attempts, key=_course))
    opened = [attempt for attempt in attempts if attempt["aborted"] is None]
    sets = {tuple(attempt["survivors"]) for attempt in opened}
    over = "the same sites" if len(sets) == 1 else f"{len(sets)} different sets of sites"
    return {
        "protocol": claim["protocol"],
        "cohorts": [
            {
                **cohort,
                "listed": f"{len(cohort['sites'])}: {', '.join(cohort['sites'])}",
                "seen": limits.sums_seen(report, cohort, fixed_set=claim["fixed_set"]),
            }
            for cohort in claim["cohorts"]
        ],
        "ring_bits": claim["ring_bits"],
        "roster": claim["roster"],
        "sets": f"{words.count(len(opened), 'attempt' if report.unequal else 'sum')}, over {over}",
        "file": TRANSCRIPT_FILE,
        "sha256": claim["transcript_sha256"],
        "table": Table("Attempts with the same course are one line", _COLUMNS, rows),
        "roots": [f"{a['round']}.{a['attempt']}: {a['model_root'][:16]}" for a in attempts if a["model_root"]],
    }


def _course(attempt: dict[str, Any]) -> tuple[Any, ...]:
    regions = tuple(region["holders"] for region in attempt["regions"])
    return (attempt["attempt"], tuple(attempt["survivors"]), regions, attempt["aborted"])


def _row(group: list[dict[str, Any]]) -> tuple[str | int, ...]:
    first, last = group[0], group[-1]
    survivors = first["survivors"]
    opened = "sum opened"
    if masked_rounds.is_divided(first) and first["regions"]:
        sizes = sorted({region["holders"] for region in first["regions"]})
        opened = f"{words.count(len(first['regions']), 'sum')} of regions opened, over {' or '.join(map(str, sizes))}"
    return (
        str(first["round"]) if len(group) == 1 else f"{first['round']} to {last['round']}",
        first["attempt"],
        f"{len(survivors)}: {', '.join(survivors)}" if survivors else "none",
        opened if first["aborted"] is None else f"nothing opened, says the coordinator: {first['aborted']}",
    )
