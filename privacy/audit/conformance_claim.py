"""The ``conformance.release`` claim: what sites and server found when they tested their release paths.

What can be computed again is, and that nothing is left out is checked against the report's claims of differential
privacy. That a test ran, and on the code that trained, is its maker's word: of a real site's, which signs the digest of
what it said at the roll call (`privacy.audit.site_statement`). In a simulation, and of the server's own path, it is the
word of whoever signed the report, and so it is of a site without a statement.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from privacy.audit import canonical, words
from privacy.audit.answers import Answer, CheckedClaim
from privacy.audit.figures import figure
from privacy.audit.statement import Statement
from privacy.conformance.results import BY_CHANCE, FAMILY_ERROR, LIMITS
from privacy.conformance.statements import claim, read
from privacy.conformance.tests import DRAWS, defects, error_of_each, expected

CLAIM = "conformance.release"
SERVER = "server"

_CLOSE = 1e-6  # of a p-value: its statistic is written with 12 digits
_Key = tuple[str, str]
"""Whose path, and where its noise is added."""


def claim_of(stated: Mapping[str, bytes], server: bytes | None = None) -> dict[str, Any] | None:
    """Returns the claim that follows from statements, or ``None`` where there is no release path.

    Args:
      stated: What each site that took part said at the roll call. Untrusted.
      server: What the server said of its own path, if it adds noise.

    Raises: ConfigError: Not a statement.
    """
    entries = [entry for site in sorted(stated) for entry in read(stated[site], who=site)]
    entries += read(server or b"", who=SERVER)
    return claim(entries) if entries else None


def said_by(report: Statement, site: str) -> bytes:
    """Returns what a site must have said at the roll call if the report tells it as it was; empty if nothing."""
    found = (report.claim(CLAIM) or {"sites": []})["sites"]
    mine = [
        {name: value for name, value in entry.items() if name != "site"} for entry in found if entry["site"] == site
    ]
    return canonical.dumps(mine) if mine else b""


def check(report: Statement) -> CheckedClaim:
    """Checks that every release path was tested in full, and that every number says what it is said to."""
    found = report.claim(CLAIM)
    if found is None:
        return _answer("unchecked", "the report does not say that any release path was tested")
    problems = list(_problems(report, found))
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return _answer("fails", problems[0] + more)
    for entry in found["sites"]:
        for control in entry["controls"]:
            if not control["fired"]:
                return _answer("unchecked", f"inconclusive: {entry['site']} did not find {control['defect']}")
    n_tests = sum(len(entry["tests"]) for entry in found["sites"])
    n_defects = sum(len(entry["controls"]) for entry in found["sites"])
    paths = words.count(len(found["sites"]), "release path")
    return _answer("holds", f"{paths} passed {n_tests} tests, and {n_defects} defects made on purpose were found")


def _problems(report: Statement, found: dict[str, Any]) -> Iterator[str]:
    if found["family_error"] != figure(FAMILY_ERROR):
        yield f"the tests' error is {found['family_error']}, not {figure(FAMILY_ERROR)}"
    entries: dict[_Key, dict[str, Any]] = {}
    for entry in found["sites"]:
        key = (entry["site"], entry["placement"])
        if key in entries:
            yield f"{key[0]} tested its {key[1]} noise twice"
        entries[key] = entry
    wanted, claimed = dict(_wanted(report)), {each["placement"] for each in report.epsilons}
    yield from (f"{who} did not test its {where} noise" for who, where in wanted if (who, where) not in entries)
    for key, entry in entries.items():
        if key[1] not in claimed:
            yield f"{key[0]} tested {key[1]} noise, and the report claims none of it"
        yield from _problems_of(entry, wanted.get(key, []))


def _wanted(report: Statement) -> Iterator[tuple[_Key, list[dict[str, Any]]]]:
    """Yields which paths the report rests on, and what each was debited for."""
    for claimed in report.epsilons:
        where = claimed["placement"]
        yield from (((entry["site"], where), entry["events"]) for entry in claimed["sites"])
        if where == "central":  # the sites clip, and add no noise
            answered = {site for done in report.predicate["rounds"] for site in done["answered"]}
            yield from (((site, where), []) for site in sorted(answered))


def _problems_of(entry: dict[str, Any], events: list[dict[str, Any]]) -> Iterator[str]:
    who, where, path = entry["site"], entry["placement"], entry["path"]
    if path == "float" and any("arithmetic" in event for event in events):
        yield f"{who} tested the float path, and its noise was debited as exact integers"
    noised = where != "central" or who == SERVER
    told = [(each["test"], each["name"]) for each in entry["tests"]]
    kinds = {event["sampling"]["type"] for event in events if "sampling" in event}
    # A site that answered the roll call and no round was debited for nothing: it says itself how it samples.
    poisson = "poisson" in kinds if events else "A6" in dict(told)
    wanted = expected(where, path, poisson=poisson, noised=noised)
    if sorted(told) != sorted(wanted):
        other = min(wanted.symmetric_difference(told), default=("", "a test"))
        yield f"{who} did not make exactly the tests that belong to {where} noise: {' '.join(other).strip()}"
    elif sorted(each["defect"] for each in entry["controls"]) != sorted(defects(noised=noised)):
        yield f"{who} did not try exactly the defects that belong to {where} noise"
    else:
        for each in entry["tests"]:
            yield from _problem_of(who, each, error_of_each(poisson=poisson))


def _problem_of(who: str, test: dict[str, Any], error: float) -> Iterator[str]:
    """Computes again what a test comes to."""
    name, statistic, what = test["name"], float(test["statistic"]), f"{who}'s {test['test']}, {test['name']}"
    if name in BY_CHANCE:
        if test["n"] != DRAWS[name] or test["threshold"] != figure(error):
            yield f"{what}: other draws, or another error, than the test has"
            return  # a p-value is that of so many draws
        p_value = BY_CHANCE[name](test["n"], statistic)
        told = float(test["p_value"] or "nan")
        if not abs(p_value - told) <= _CLOSE * (p_value + _CLOSE):
            yield f"{what}: the p-value is {p_value:.3g}, not {told:.3g}"
        passed = p_value >= error
    else:
        if test["p_value"] is not None or test["threshold"] != figure(LIMITS[name]):
            yield f"{what}: another limit than the test has"
        passed = statistic <= LIMITS[name]
    if not passed:
        yield f"{what} fails"
    elif not test["passed"]:
        yield f"{what} is said to fail, and does not"


def _answer(verdict: Answer, why: str) -> CheckedClaim:
    return CheckedClaim(CLAIM, "measured", verdict, why)
