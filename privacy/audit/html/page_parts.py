"""The parts of a divided model, as the page tells them: who trained what, which sums moved, and was it worth it."""

from typing import Any

from privacy.audit import division_words, words
from privacy.audit.html import charts
from privacy.audit.html.tables import Column, Table
from privacy.audit.statement import Statement

_COLUMNS = (
    Column("Part", numeric=False),
    Column("Sites", numeric=False),
    Column("Parameters"),
    Column("Upload in an attempt"),
    Column("Score"),
)
_MOST_HOLDERS = 6
_NO_SCORES: dict[str, Any] = {"metric": "accuracy", "sites": []}


def view(report: Statement) -> dict[str, Any] | None:
    """Returns what the page shows of the predicate's ``submodels``; nothing if the model was not divided."""
    body = report.predicate
    found, n_rounds, utility = body["submodels"], len(body["rounds"]), body["utility"] or _NO_SCORES
    if found is None:
        return None
    metric, rows = utility["metric"], {site["id"]: site["n_test"] for site in utility["sites"]}
    n_sites = sum(len(part["sites"]) for part in found["parts"])
    bars = [
        charts.RegionBar(
            label=f"Region {k}, {words.count(len(region['holders']), 'site')}: {_names(region['holders'])}",
            text=words.count(region["parameters"], "parameter")
            + (f", still in {region['still']} of {words.count(n_rounds, 'round')}" if region["still"] else ""),
            size=region["parameters"],
            held=len(region["holders"]) / n_sites,
            still=region["still"] / max(n_rounds, 1),
        )
        for k, region in enumerate(found["regions"])
    ]
    return {
        "table": _table(found, metric),
        "chart": charts.regions(bars),
        "scores": division_words.about_scores(found),
        "regions": division_words.about_regions(found),
        "still": division_words.about_still(found, n_rounds),
        "baselines": division_words.about_baselines(
            found, rows, lambda score: words.score(score, metric), private=bool(report.epsilons)
        ),
    }


def _table(found: dict[str, Any], metric: str) -> Table:
    most = max(part["upload_bytes"] for part in found["parts"]) or 1
    rows: list[tuple[str | int, ...]] = [
        (
            part["name"],
            ", ".join(part["sites"]),
            words.number(part["parameters"]),
            f"{words.size(part['upload_bytes'])} ({100 * part['upload_bytes'] / most:.1f} %)",
            "  ".join(words.score(score, metric) for score in part["score"]) or "–",
        )
        for part in found["parts"]
    ]
    if len(found["parts"]) > 1 and found["baselines"] is not None:
        smallest, strong = found["baselines"]["smallest"], found["baselines"]["strong"]
        rows.append(_row(f"everyone on {smallest['part']}", smallest, metric))
        if strong is not None:
            rows.append(_row(f"{strong['part']} sites alone", strong, metric))
    return Table("Parts of the model; upload: masked numbers, beside that of the largest part", _COLUMNS, tuple(rows))


def _row(name: str, baseline: dict[str, Any], metric: str) -> tuple[str | int, ...]:
    return (name, ", ".join(baseline["sites"]), "", "", words.score(baseline["score"], metric))


def _names(holders: list[str]) -> str:
    more = len(holders) - _MOST_HOLDERS
    return ", ".join(holders[:_MOST_HOLDERS]) + (f" and {more} more" if more > 0 else "")
