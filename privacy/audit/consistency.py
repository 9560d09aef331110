"""What must agree inside a report, whoever signed it. Each function returns the contradictions it finds, in words.

Nothing but a release's noise is priced here: these are counts and comparisons, so they are exact.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any

from privacy.audit import (
    approval,
    conformance_claim,
    crossings,
    division,
    ledger_chain,
    limits,
    scored,
    signers,
    testimony,
)
from privacy.audit.pricing import per_attempt, planned
from privacy.audit.statement import EPSILON_CLAIMS, Statement
from privacy.errors import ConfigError
from privacy.secagg.context import Thresholds
from privacy.secagg.encoding import in_order

REAL_CLAIMS = (approval.ADOPTED, approval.APPROVED, testimony.STATED, testimony.LEFT, testimony.WITNESSED)
"""Claims that only a run of real sites makes."""


def of_all(report: Statement) -> list[str]:
    """Returns every contradiction; the functions below tell which claim it breaks."""
    checks = (
        of_report,
        of_model,
        of_masked_rounds,
        of_egress,
        approval.contradictions,
        testimony.left_contradictions,
        ledger_chain.contradictions,
    )
    found = [problem for check in checks for problem in check(report)]
    return found + [problem for claim in report.epsilons for problem in of_epsilon(report, claim)]


def of_report(report: Statement) -> list[str]:
    """Checks that rounds, sites, protections, scores, times, parts of the model and limits tell one story."""
    body = report.predicate
    found = [
        *_run(body["run"], body["rounds"]),
        *_rounds(body["rounds"]),
        *_sites(body),
        *_protections(report),
        *scored.contradictions(report),
        *_real(report),
        *signers.contradictions(report),
        *division.of_division(report),
        *crossings.contradictions(report),
    ]
    return found or list(limits.missing(report))  # what follows from contradictions is nothing that can be missing


def of_model(report: Statement) -> list[str]:
    """Checks that the statement's subject is the model that the report describes."""
    claim = report.claim("model.digest") or {}
    if report.subject_name != claim.get("file"):
        return ["the statement is about another file than the claim"]
    if report.subject_sha256 != claim.get("sha256"):
        return ["the statement's digest is not the claim's"]
    return []


def of_epsilon(report: Statement, claim: dict[str, Any]) -> list[str]:
    """Checks counts and bounds of one of ``report.epsilons``; that they follow from events is left to ``pricing``."""
    answered = _releases(report.predicate, claim["placement"])
    known = set(answered) | {entry["site"] for entry in report.predicate["egress"]}
    listed = [entry["site"] for entry in claim["sites"]]
    problems = list(_duplicates("the epsilon claim", listed))
    problems += [f"{holder} took part but has no epsilon" for holder in answered if holder not in listed]
    if claim["placement"] != "central":  # there the schema leaves no choice
        problems += [f"{holder} has an epsilon but is no site of this run" for holder in listed if holder not in known]
    target, delta, budget = Decimal(claim["target_epsilon"]), Decimal(claim["delta"]), claim["budget_executions"]
    if not 0 < delta < 1:
        problems.append(f"delta {delta} is not between 0 and 1")
    each = claim["executions_per_attempt"]
    if budget < each * report.predicate["run"]["rounds"]:
        problems.append(f"a budget of {budget} executions does not reach for {each} a round")
    if budget % each:
        problems.append(f"a budget of {budget} executions is no whole number of attempts of {each}")
    utility = report.predicate["utility"] or {"sites": []}
    n_train = {site["id"]: site["n_train"] for site in utility["sites"]}
    patients = claim["unit"] == "patient"
    for entry in claim["sites"]:
        problems += _executions(entry, answered[entry["site"]], per_attempt(claim, entry), planned(claim, entry))
        problems += _site_epsilon(entry, target)
        records = n_train.get(entry["site"], entry.get("n_train"))
        # Patients are at most as many as their records; records are exactly as many.
        if "n_train" in entry and (entry["n_train"] > records if patients else entry["n_train"] != records):
            problems.append(f"{entry['site']} has two different numbers of records")
    return problems + (list(_shares(report, claim)) if claim["placement"] == "distributed" else [])


def of_masked_rounds(report: Statement) -> list[str]:
    """Checks the claim about masked rounds against rules and rounds; its signatures are left to ``masked_rounds``."""
    claim = report.claim("secagg.rounds")
    if claim is None:
        return []
    problems: list[str] = []
    for cohort in claim["cohorts"]:
        problems += _cohort(cohort)
    attempts: dict[int, list[dict[str, Any]]] = {}
    for attempt in claim["attempts"]:
        attempts.setdefault(attempt["round"], []).append(attempt)
        problems += _attempt(attempt, claim)
    contexts = [attempt["ctx"] for attempt in claim["attempts"] if attempt["ctx"] is not None]
    if len(set(contexts)) != len(contexts):
        problems.append("two attempts have the same context")
    numbers = [attempt["round"] for attempt in claim["attempts"]]
    if numbers != sorted(numbers):
        problems.append("the attempts are not in the order of the rounds")
    return [*problems, *_courses(report.predicate, attempts), *division.of_region_sums(report, claim)]


def of_egress(report: Statement) -> list[str]:
    """Checks that nothing unmasked was counted where the report claims so."""
    if report.claim("secagg.egress") is None:
        return []
    return [
        f"no unmasked array is claimed, but {entry['site']} sent {entry['unmasked_arrays']}"
        for entry in report.predicate["egress"]
        if entry["unmasked_arrays"]
    ]


def _cohort(cohort: dict[str, Any]) -> Iterator[str]:
    if not in_order(cohort["sites"]):
        yield "a cohort is not sorted, or repeats a site"
    limits = Thresholds(*(cohort[name] for name in ("n_c", "t", "min_survivors", "min_cover")))
    try:
        limits.check(len(cohort["sites"]))
    except ConfigError as error:
        yield str(error)


def _attempt(attempt: dict[str, Any], claim: dict[str, Any]) -> Iterator[str]:
    name, survivors = f"round {attempt['round']}, attempt {attempt['attempt']}", attempt["survivors"]
    opened = {attempt[field] is not None for field in ("cohort", "model_root", "ctx")}
    if opened != {attempt["aborted"] is None}:
        yield f"{name} is neither opened nor aborted, or both"
    elif attempt["aborted"] is not None:
        if survivors or attempt["regions"]:
            yield f"{name} is aborted and has survivors, or sums"
    elif attempt["cohort"] >= len(claim["cohorts"]):
        yield f"{name} has a cohort that is not listed"
    else:
        cohort = claim["cohorts"][attempt["cohort"]]
        if not in_order(survivors) or not set(survivors) <= set(cohort["sites"]):
            yield f"{name}: the survivors are not a sorted part of the cohort"
        least = len(cohort["sites"]) if claim["fixed_set"] else cohort["min_survivors"]
        if len(survivors) < least:
            yield f"{name} has {len(survivors)} survivors, at least {least} are promised"


def _courses(body: dict[str, Any], attempts: dict[int, list[dict[str, Any]]]) -> Iterator[str]:
    """A round is tried until a sum is opened. A run that is stopped may leave a round that it began and did not end."""
    for entry in body["rounds"]:
        tried = attempts.pop(entry["round"], [])
        yield from _course(entry["round"], tried)
        opened = [attempt for attempt in tried if attempt["aborted"] is None]
        if len(tried) != entry["attempts"]:
            yield f"round {entry['round']} took {entry['attempts']} attempts, but {len(tried)} are claimed"
        if len(opened) != (not entry["skipped"]):
            yield f"round {entry['round']} does not have the sum that it should have, or one that it should not"
        elif opened and set(opened[0]["survivors"]) != set(entry["answered"]):
            yield f"the survivors of round {entry['round']} are not the sites that answered in it"
    for number, tried in attempts.items():
        yield from _course(number, tried)
        if number != len(body["rounds"]) + 1 or body["run"]["status"] == "finished":
            yield f"round {number} has attempts but is not listed"


def _course(number: int, tried: list[dict[str, Any]]) -> Iterator[str]:
    if [attempt["attempt"] for attempt in tried] != list(range(1, len(tried) + 1)):
        yield f"the attempts at round {number} are not numbered from 1"
    if any(attempt["aborted"] is None for attempt in tried[:-1]):
        yield f"round {number} was tried again after a sum was opened"


def _releases(body: dict[str, Any], placement: str) -> Counter[str]:
    """Counts the rounds that each holder of a ledger must have paid for: answered, or as server completed."""
    if placement == "central":
        return Counter({"server": body["run"]["completed"]})
    return Counter(site for entry in body["rounds"] for site in entry["answered"])


def _shares(report: Statement, claim: dict[str, Any]) -> Iterator[str]:
    rows = claim["hypothetical"]
    shares, counted = [row["shares"] for row in rows], [row["shares"] for row in rows if row["counted"]]
    if shares != list(range(1, len(report.predicate["egress"]) + 1)):
        yield "the hypothetical numbers of shares are not all from one to as many as there are sites"
    if len(counted) != 1:
        yield f"{len(counted)} numbers of shares are said to be counted on, not one"
    noise = {(one["variance"], one["l2"], one["l1"]) for entry in claim["sites"] for one in entry["events"]}
    if len(noise) > 1 or len({entry["clip"] for entry in claim["sites"]}) > 1:
        yield "sites list different noise, but they share one"
    rounds = report.claim("secagg.rounds")
    if rounds is None:
        yield "shares of noise are claimed, but no masked rounds that would hide them"
    elif counted and counted[0] > (sure := division.sure_shares(report, rounds)):
        yield f"{counted[0]} strangers' shares are counted on, the masked rounds promise {sure}"


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
    if run["status"] == "stopped" and len(rounds) == run["rounds"]:
        yield f"the run is called stopped after all of its {run['rounds']} rounds"
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
    """Every site is named in every round, as long as it can be asked, and what left it covers what it answered."""
    egress = [entry["site"] for entry in body["egress"]]
    yield from _duplicates("what left the sites", egress)
    reached: dict[str, int] = {}  # the last round of those from the first in which a site is named without a gap
    for number, entry in enumerate(body["rounds"], start=1):
        for site in (*entry["answered"], *(one["site"] for one in entry["missing"])):
            if reached.setdefault(site, 0) == number - 1:
                reached[site] = number
        for site in entry["answered"]:
            if reached[site] < number:
                yield f"nothing is said about {site} in round {reached[site] + 1}, and it answered later"
    for site in sorted(reached.keys() - egress):
        yield f"{site} took part but nothing is said about what left it"
    answers = Counter(site for entry in body["rounds"] for site in entry["answered"])
    for entry in body["egress"]:
        arrays = entry["messages"] if body["protections"]["secagg"] else entry["unmasked_arrays"]
        if min(entry["messages"], entry["bytes"], arrays) < answers[entry["site"]]:
            yield f"{entry['site']} answered in {answers[entry['site']]} rounds, and less is said to have left it"


def _protections(report: Statement) -> Iterator[str]:
    on = report.predicate["protections"]
    yield from (
        f"{name} is on exactly when {claim_id} is claimed, and here it is not so"
        for name, claim_id in EPSILON_CLAIMS.items()
        if on[name] != (report.claim(claim_id) is not None)
    )
    if any(on["secagg"] != (report.claim(name) is not None) for name in ("secagg.rounds", "secagg.egress")):
        yield "secure aggregation is on exactly when its rounds and egress are claimed, and here it is not so"
    # What real sites paid is in their statements, and their ledgers stay with them.
    evidence = [conformance_claim.CLAIM] + [ledger_chain.CLAIM] * (report.predicate["run"]["engine"] != "sites")
    for name in evidence:
        if bool(report.epsilons) != (report.claim(name) is not None):
            yield f"{name} is claimed exactly where an epsilon is, and here it is not so"


def _real(report: Statement) -> Iterator[str]:
    """A run of real sites has a charter and the sites' word, and no scores; a simulation has scores, and neither."""
    body, real = report.predicate, report.predicate["run"]["engine"] == "sites"
    for name in REAL_CLAIMS:
        if (report.claim(name) is not None) != real:
            yield f"{name} is claimed exactly by runs of real sites, and here it is not so"
    if (body["utility"] is None) != real or (real and any(entry["loss"] is not None for entry in body["rounds"])):
        yield "scores and losses stay at real sites, and are shown of simulations"
    if (body["signer"]["role"] == "server") != real or body["protections"]["tls"] != real:
        yield "a server's key and encrypted connections belong to runs of real sites"
    stated = report.claim(testimony.STATED)
    if stated is not None:
        listed = [entry["site"] for entry in (*stated["sites"], *stated["unattested"])]
        if sorted(listed) != sorted(entry["site"] for entry in body["egress"]):
            yield "the sites that stated something, and those that did not, are not the sites of this run"


def _duplicates(where: str, names: Iterable[str]) -> Iterator[str]:
    yield from (f"{where}: {name} is listed {times} times" for name, times in Counter(names).items() if times > 1)
