"""The scores of a report, as its page tells them: what each site had alone, what it has together, what privacy cost."""

from typing import Any

from privacy.audit import words
from privacy.audit.html import charts
from privacy.audit.html.tables import Column, Table

_LANES = ("home", "elsewhere", "together_without_privacy", "together", "pooled")
_FEW = 30


def view(utility: dict[str, Any], *, private: bool, divided: bool) -> dict[str, Any]:
    """Returns what the page shows of the predicate's ``utility``.

    Args:
      utility: Fits the schema.
      private: Whether ``together`` was trained with privacy.
      divided: Whether sites work with parts of the common model.
    """
    metric, sites, baselines = utility["metric"], utility["sites"], utility["baselines"]
    lanes = [name for name in _LANES if any(site[name] is not None for site in sites)]
    common = "a site's part of the common model" if divided else "the common model"
    labels = {**words.SERIES, "together": f"together: {common}{', with privacy' if private else ''}"}
    description = "; ".join(f"{site['id']}: together {words.score(site['together'], metric)}" for site in sites[:8])
    return {
        "view": "experimenter's view",
        "sentence": _means(utility["mean"], metric, f"{common}{' with privacy' if private else ''}"),
        "note": _small_tests(sites),
        "legend": [{"mark": charts.key(name), "words": labels[name]} for name in lanes],
        "chart": charts.scores(
            [_marks(site, lanes) for site in sites], lanes, percent=metric == "accuracy", description=description
        ),
        "table": _table(utility, lanes),
        "left_out": [_left_out(entry, metric) for entry in utility["left_out"]],
        "baselines": (
            f"always the same answer for everyone scores {words.score(baselines['constant'], metric)}; "
            f"each site's own most frequent answer, {words.score(baselines['majority'], metric)}"
        ),
    }


def _table(utility: dict[str, Any], lanes: list[str]) -> Table:
    metric = utility["metric"]
    rows: list[tuple[str | int, ...]] = [
        (
            site["id"],
            site["n_train"],
            site["n_test"],
            *(words.score(site[name], metric) for name in lanes),
            words.interval(site["interval"], metric),
        )
        for site in utility["sites"]
    ]
    if rows:
        rows.append(("Mean of sites", "", "", *(words.score(utility["mean"][name], metric) for name in lanes), ""))
    columns = [
        Column("Site", numeric=False),
        Column("Train"),
        Column("Test"),
        *(Column(words.SERIES[name].split(":")[0]) for name in lanes),
        Column("95 % interval"),
    ]
    what = "Accuracy" if metric == "accuracy" else "Area under the ROC curve"
    return Table(f"{what} on each site's test records", tuple(columns), tuple(rows), last_is_sum=True)


def _marks(site: dict[str, Any], lanes: list[str]) -> charts.ScoreRow:
    interval = None if site["interval"] is None else (float(site["interval"][0]), float(site["interval"][1]))
    marks = tuple(
        charts.Mark(name, float(site[name]), interval if name == "together" else None)
        for name in lanes
        if site[name] is not None
    )
    return charts.ScoreRow(site["id"], words.count(site["n_test"], "test record"), marks)


def _means(mean: dict[str, str | None], metric: str, common: str) -> str:
    if mean["together"] is None:
        return ""
    parts = [f"Averaged over the sites, {common} scores "]
    parts.append(words.score(mean["together"], metric))
    if mean["together_without_privacy"] is not None:
        parts.append(f"; without privacy it would score {words.score(mean['together_without_privacy'], metric)}")
    if mean["home"] is not None:
        parts.append(f". A site's own model scores {words.score(mean['home'], metric)} at home")
        if mean["elsewhere"] is not None:
            parts.append(f" and {words.score(mean['elsewhere'], metric)} at the other sites")
    return "".join(parts) + "."


def _small_tests(sites: list[dict[str, Any]]) -> str:
    small = [f"{site['id']} ({site['n_test']})" for site in sites if site["n_test"] < _FEW]
    base = "The line through 'together' is its 95 % Wilson interval: the fewer test records, the wider."
    return f"{base} Too few to tell models apart: {', '.join(small)}." if small else base


def _left_out(entry: dict[str, Any], metric: str) -> str:
    site, tests = entry["id"], words.count(entry["n_test"], "test record")
    model = f"the model of {', '.join(entry['trained_by'])}" if entry["trained_by"] else "a model of nobody"
    return f"If {site} stays out, {model} scores {words.score(entry['score'], metric)} on the {tests} of {site}."
