"""The rounds of a report and what left the sites, as the page tells them: rounds with the same course are one line."""

from itertools import groupby
from typing import Any

from markupsafe import Markup

from privacy.audit import words
from privacy.audit.html import charts
from privacy.audit.html.tables import Column, Table

MOST_POINTS = 1000
"""Losses that the chart draws; of longer runs every second, third, ... round. The list beside it has all."""

_COLUMNS = (
    Column("Rounds", numeric=False),
    Column("Attempts each"),
    Column("Answered", numeric=False),
    Column("Missing, and why", numeric=False),
    Column("Result", numeric=False),
)


def view(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns what the page shows of the predicate's ``rounds``."""
    losses = [(entry["round"], None if entry["loss"] is None else float(entry["loss"])) for entry in rounds]
    rows = tuple(_row(list(group)) for _, group in groupby(rounds, key=_course))
    return {
        "sentence": _sentence(rounds),
        "chart": _chart(rounds, losses) if any(value is not None for _, value in losses) else "",
        "losses": [f"{number}: {'–' if value is None else f'{value:.4f}'}" for number, value in losses],
        "table": Table("Rounds with the same course are one line", _COLUMNS, rows),
    }


def egress(entries: list[dict[str, Any]]) -> Table:
    """Returns the table of what left each site."""
    columns = ("Messages", "Size", "Bytes", "Unmasked arrays")
    return Table(
        "Unmasked arrays could be read by the coordinator one site at a time",
        (Column("Site", numeric=False), *(Column(name) for name in columns)),
        tuple(
            (
                entry["site"],
                words.number(entry["messages"]),
                words.size(entry["bytes"]),
                words.number(entry["bytes"]),
                words.number(entry["unmasked_arrays"]),
            )
            for entry in entries
        ),
    )


def _sentence(rounds: list[dict[str, Any]]) -> str:
    skipped = sum(entry["skipped"] for entry in rounds)
    retried = sum(entry["attempts"] > 1 for entry in rounds)
    incomplete = sum(bool(entry["missing"]) for entry in rounds)
    parts = [f"{words.count(len(rounds), 'round')} ran"]
    parts += [f"{incomplete} without every site"] if incomplete else ["every site answered in each"] if rounds else []
    parts += [f"{retried} took more than one attempt"] if retried else []
    parts += [f"{skipped} skipped, which changed nothing"] if skipped else []
    return "; ".join(parts) + "."


def _chart(rounds: list[dict[str, Any]], losses: list[tuple[int, float | None]]) -> Markup:
    known = [(number, value) for number, value in losses if value is not None]
    description = f"From {known[0][1]:.4f} in round {known[0][0]} to {known[-1][1]:.4f} in round {known[-1][0]}."
    skipped = [entry["round"] for entry in rounds if entry["skipped"]]
    every = -(-len(losses) // MOST_POINTS)
    return charts.losses(losses[::every], skipped[:MOST_POINTS], description)


def _course(entry: dict[str, Any]) -> tuple[Any, ...]:
    missing = tuple((item["site"], item["reason"]) for item in entry["missing"])
    return (entry["attempts"], tuple(entry["answered"]), missing, entry["skipped"], tuple(entry["still"]))


def _row(group: list[dict[str, Any]]) -> tuple[str | int, ...]:
    first, last = group[0], group[-1]
    answered = first["answered"]
    still = f"; at rest: region {', '.join(map(str, first['still']))}" if first["still"] else ""
    return (
        str(first["round"]) if len(group) == 1 else f"{first['round']} to {last['round']}",
        first["attempts"],
        f"{len(answered)}: {', '.join(answered)}" if answered else "none",
        "; ".join(f"{item['site']}: {item['reason']}" for item in first["missing"]) or "–",
        "SKIPPED" if first["skipped"] else f"completed{still}",
    )
