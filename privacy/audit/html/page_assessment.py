"""What tests and attacks come to, in a line, and a reviewer's questions layer by layer, for the page."""

from itertools import groupby
from typing import Any

from privacy.audit import assessment
from privacy.audit.assessment import AUDITS, worst_verdict
from privacy.audit.html import page_conformance

CONFORMANCE = "conformance.release"


def alarms(body: dict[str, Any]) -> list[str]:
    """Returns what was measured and cannot be if the report's promises hold: the page begins with it."""
    found = []
    for claim in body["claims"]:
        if claim["id"] == CONFORMANCE and not all(test["passed"] for site in claim["sites"] for test in site["tests"]):
            found.append(f"Tests of the code that adds noise: {page_conformance.says(claim)}.")
        if claim["id"] in AUDITS and worst_verdict(claim) == "violation":
            found.append(f"Attack by {AUDITS[claim['id']]}: more was measured than is promised.")
    return found


def measured(body: dict[str, Any]) -> str:
    """Says in a few words what was tested and attacked, and what came of it."""
    claims = {claim["id"]: claim for claim in body["claims"]}
    tested = [f"{page_conformance.says(claims[CONFORMANCE])}."] if CONFORMANCE in claims else []
    results = {name: worst_verdict(claims[name]) for name in AUDITS if name in claims}
    return " ".join([*tested, *_attacked(results)])


def _attacked(results: dict[str, str]) -> list[str]:
    if not results:
        return ["No attack was measured for this report."]
    parts = []
    for verdict, said in (
        ("no violation", "No violation was found by"),
        ("inconclusive", "Inconclusive, since a control failed, were"),
        ("violation", "A VIOLATION was found by"),
    ):
        names = [AUDITS[name] for name, result in results.items() if result == verdict]
        parts += [f"{said} {_listed(names)}."] if names else []
    return parts


def _listed(names: list[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def attack_says(claim: dict[str, Any]) -> str:
    """Says what became of one of the attacks."""
    return f"Attack by {AUDITS[claim['id']]}: {worst_verdict(claim)}"


def questions(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns a reviewer's questions with their answers, layer by layer."""
    return [
        {"name": layer, "rows": list(rows)} for layer, rows in groupby(assessment.hazards(body), lambda one: one.layer)
    ]
