"""What must agree inside a report, whoever signed it. Each function returns the contradictions it finds, in words.

Nothing is priced here: these are counts and comparisons, so they are exact.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any

from privacy.audit.statement import Statement

SCORES = ("home", "elsewhere", "together", "together_without_privacy", "pooled")

# Scores carry four decimals; a mean of rounded scores may differ from a rounded mean by one unit in the last place.
_ROUNDING = Decimal("0.0001")


def of_report(report: Statement) -> list[str]:
    """Checks that rounds, sites, protections, scores and times tell one story."""
    body = report.predicate
    return [
        *_run(body["run"], body["rounds"]),
        *_rounds(body["rounds"]),
        *_sites(body),
        *_protections(report),
        *_scores(body["utility"]),
    ]


def of_model(report: Statement) -> list[str]:
    """Checks that the statement's subject is the model that the report describes."""
    claim = report.claim("model.digest") or {}
    if report.subject_name != claim.get("file"):
        return ["the statement is about another file than the claim"]
    if report.subject_sha256 != claim.get("sha256"):
        return ["the statement's digest is not the claim's"]
    return []


def of_epsilon(report: Statement) -> list[str]:
    """Checks the counts and bounds of the epsilon claim; that they follow from the events is left to ``pricing``."""
    claim = report.claim("privacy.epsilon")
    if claim is None:
        return []
    answered = Counter(site for entry in report.predicate["rounds"] for site in entry["answered"])
    listed = {entry["site"] for entry in claim["sites"]}
    problems = list(_duplicates("the epsilon claim", [entry["site"] for entry in claim["sites"]]))
    problems += [f"{site} took part but has no epsilon" for site in answered if site not in listed]
    target, delta, budget = Decimal(claim["target_epsilon"]), Decimal(claim["delta"]), claim["budget_executions"]
    if not 0 < delta < 1:
        problems.append(f"delta {delta} is not between 0 and 1")
    each = claim["executions_per_attempt"]
    if budget < each * report.predicate["run"]["rounds"]:
        problems.append(f"a budget of {budget} executions does not reach for {each} a round")
    n_train = {site["id"]: site["n_train"] for site in report.predicate["utility"]["sites"]}
    for entry in claim["sites"]:
        problems += _executions(entry, answered[entry["site"]], each, budget)
        problems += _site_epsilon(entry, target)
        if n_train.get(entry["site"], entry["n_train"]) != entry["n_train"]:
            problems.append(f"{entry['site']} has two different numbers of records")
    return problems


def _executions(entry: dict[str, Any], answered: int, each: int, budget: int) -> Iterator[str]:
    site, executed = entry["site"], sum(event["count"] for event in entry["events"])
    if executed < answered * each:
        yield f"{site} answered in {answered} rounds of {each} executions but lists {executed}"
    if executed % each:
        yield f"{site} lists {executed} executions, which is no whole number of attempts of {each}"
    if executed > budget:
        yield f"{site} lists {executed} executions, more than the {budget} that were budgeted"


def _site_epsilon(entry: dict[str, Any], target: Decimal) -> Iterator[str]:
    site = entry["site"]
    if Decimal(entry["epsilon"]) > target:
        yield f"{site} claims epsilon {entry['epsilon']}, more than the target {target}"
    if Decimal(entry["planned_epsilon"]) > target:
        yield f"{site} planned epsilon {entry['planned_epsilon']}, more than the target {target}"
    if Decimal(entry["planned_epsilon"]) < Decimal(entry["epsilon"]):
        yield f"{site} spent epsilon {entry['epsilon']}, more than the {entry['planned_epsilon']} that it planned"
    if Decimal(entry["clip"]) == 0:
        yield f"{site} clips to zero"


def _run(run: dict[str, Any], rounds: list[dict[str, Any]]) -> Iterator[str]:
    skipped = sum(entry["skipped"] for entry in rounds)
    if (run["completed"], run["skipped"]) != (len(rounds) - skipped, skipped):
        yield f"{run['completed']} completed and {run['skipped']} skipped rounds are not what is listed"
    if len(rounds) > run["rounds"]:
        yield f"{len(rounds)} rounds are listed but {run['rounds']} were planned"
    if run["status"] == "finished" and len(rounds) != run["rounds"]:
        yield f"the run is called finished after {len(rounds)} of {run['rounds']} rounds"
    started, finished = _time(run["started"]), _time(run["finished"])
    if started is None or finished is None:
        yield "the run's times are not times"
    elif started > finished:
        yield "the run finished before it started"


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _rounds(rounds: list[dict[str, Any]]) -> Iterator[str]:
    for number, entry in enumerate(rounds, start=1):
        if entry["round"] != number:
            yield f"round {entry['round']} stands where round {number} belongs"
        missing = [item["site"] for item in entry["missing"]]
        yield from _duplicates(f"round {number}", [*entry["answered"], *missing])
        if not entry["skipped"] and not entry["answered"]:
            yield f"round {number} was completed although no site answered"


def _sites(body: dict[str, Any]) -> Iterator[str]:
    egress = [entry["site"] for entry in body["egress"]]
    scored = [site["id"] for site in body["utility"]["sites"]]
    left_out = [site["id"] for site in body["utility"]["left_out"]]
    yield from _duplicates("what left the sites", egress)
    yield from _duplicates("the scores", scored)
    yield from _duplicates("the sites left out", left_out)
    took_part = {site: None for entry in body["rounds"] for site in entry["answered"]}
    for site in took_part:
        if site not in egress:
            yield f"{site} took part but nothing is said about what left it"


def _protections(report: Statement) -> Iterator[str]:
    on = report.predicate["protections"]
    if on["record_dp"] != (report.claim("privacy.epsilon") is not None):
        yield "record-level privacy is on exactly when epsilon is claimed, and here it is not so"
    yield from (
        f"{name} is said to be on, but no claim says how strong it is"
        for name in ("site_dp", "distributed_dp")
        if on[name]
    )
    if on["secagg"]:
        yield from (
            f"secure aggregation is said to be on, but {entry['site']} sent {entry['unmasked_arrays']} unmasked arrays"
            for entry in report.predicate["egress"]
            if entry["unmasked_arrays"]
        )


def _scores(utility: dict[str, Any]) -> Iterator[str]:
    for name in SCORES:
        values = [site[name] for site in utility["sites"]]
        mean = utility["mean"][name]
        if mean is None or not values or None in values:
            continue
        exact = sum((Decimal(value) for value in values), Decimal(0)) / len(values)
        if abs(Decimal(mean) - exact) > _ROUNDING:
            yield f"the mean of '{name}' is not the mean of the sites"
    for site in utility["sites"]:
        if site["interval"] is None or site["together"] is None:
            continue
        ordered = [Decimal(site["interval"][0]), Decimal(site["together"]), Decimal(site["interval"][1])]
        if any(low - high > _ROUNDING for low, high in pairwise(ordered)):
            yield f"the interval of {site['id']} does not contain its score"


def _duplicates(where: str, names: Iterable[str]) -> Iterator[str]:
    yield from (f"{where}: {name} is listed {times} times" for name, times in Counter(names).items() if times > 1)
