"""The tests of the release path, as the page tells them: a cell a site and test, and the defects made on purpose."""

from typing import Any

from privacy.audit import words
from privacy.audit.html import charts_audit
from privacy.audit.html.charts_audit import StripRow
from privacy.audit.html.tables import Column, Table
from privacy.audit.statement import Statement

MEANING = {
    "A1": "Noise is as large as declared",
    "A2": "Noise has the declared shape",
    "A3": "Noise is neither repeated nor predictable",
    "A4": "Nothing weighs more than the clip, whatever it holds",
    "A5": "Divisors tell nothing; an empty batch is noisy too",
    "A6": "Records enter by independent coins",
    "A7": "Whole numbers are added exactly",
    "A8": "Every use of noise is counted",
}
"""What a test shows if it passes."""

_COLUMNS = (
    Column("Test", numeric=False),
    Column("Measured", numeric=False),
    Column("Passed"),
    Column("Worst of them", numeric=False),
    Column("Passes", numeric=False),
)


def view(report: Statement) -> dict[str, Any] | None:
    """Returns what the page shows of ``conformance.release``; nothing if there is no such claim."""
    claim = report.claim("conformance.release")
    if claim is None:
        return None
    sites = claim["sites"]
    tests = [(site, test) for site in sites for test in site["tests"]]
    controls = [(site, control) for site in sites for control in site["controls"]]
    failed = [f"{_path(site)}: {test['test']}, {test['name']}" for site, test in tests if not test["passed"]]
    missed = [f"{_path(site)}: {control['defect']}" for site, control in controls if not control["fired"]]
    used = [name for name in MEANING if any(test["test"] == name for _, test in tests)]
    defects = list(dict.fromkeys(control["defect"] for _, control in controls))
    return {
        "sentence": f"{says(claim)}.",
        "meanings": [(name, MEANING[name]) for name in used],
        "error": claim["family_error"],
        "failed": failed,
        "missed": missed,
        "n_controls": f"{len(controls)} copies",
        "strip": charts_audit.strip(
            [StripRow(site["site"], f", {_kind(site)}", _tests(site, used)) for site in sites],
            used,
            name="conformance-strip",
            title="Tests of the release path at each site",
            description=f"{len(tests) - len(failed)} of {len(tests)} passed. {'; '.join(failed[:8])}",
        ),
        "controls": charts_audit.strip(
            [StripRow(site["site"], f", {_kind(site)}", _controls(site, defects)) for site in sites],
            defects,
            name="conformance-controls",
            title="Whether the tests saw each defect that was made on purpose",
            description=f"{len(controls) - len(missed)} of {len(controls)} seen. {'; '.join(missed[:8])}",
        ),
        "table": Table("Every test, over all release paths", _COLUMNS, tuple(_rows(tests))),
    }


def says(claim: dict[str, Any]) -> str:
    """Says in one line what became of the tests, and whether they would have noticed a defect."""
    tests = [test["passed"] for site in claim["sites"] for test in site["tests"]]
    paths = words.count(len(claim["sites"]), "release path")
    missed = [one for site in claim["sites"] for one in site["controls"] if not one["fired"]]
    blind = "; but a defect made on purpose passed, too" if missed else ""
    if all(tests):
        return f"All {words.count(len(tests), 'test')} of {paths} passed{blind}"
    return f"{tests.count(False)} of {words.count(len(tests), 'test')} of {paths} FAILED"


def _path(site: dict[str, Any]) -> str:
    return f"{site['site']} ({_kind(site)})"


def _kind(site: dict[str, Any]) -> str:
    numbers = "whole numbers" if site["path"] == "integer" else "floating point"
    place = {"local": "noise in every step", "central": "noise at the server", "distributed": "shares of noise"}
    return f"{place[site['placement']]}, {numbers}"


def _tests(site: dict[str, Any], used: list[str]) -> tuple[bool | None, ...]:
    """A cell passes if everything that was measured under its letter and number did."""
    found = {name: [test["passed"] for test in site["tests"] if test["test"] == name] for name in used}
    return tuple(all(found[name]) if found[name] else None for name in used)


def _controls(site: dict[str, Any], defects: list[str]) -> tuple[bool | None, ...]:
    found = {defect: [one["fired"] for one in site["controls"] if one["defect"] == defect] for defect in defects}
    return tuple(all(found[defect]) if found[defect] else None for defect in defects)


def _rows(tests: list[tuple[dict[str, Any], dict[str, Any]]]) -> list[tuple[str | int, ...]]:
    kinds = sorted({(test["test"], test["name"]) for _, test in tests})
    rows: list[tuple[str | int, ...]] = []
    for letter, name in kinds:
        found = [test for _, test in tests if (test["test"], test["name"]) == (letter, name)]
        passed = f"{sum(test['passed'] for test in found)} of {len(found)}"
        rows.append((letter, name, passed, *_worst(found)))
    return rows


def _worst(found: list[dict[str, Any]]) -> tuple[str, str]:
    """Returns the measurement nearest to failing and what passes: small p-values fail, and large plain numbers."""
    limit = float(found[0]["threshold"])
    by_chance = [float(test["p_value"]) for test in found if test["p_value"] is not None]
    if by_chance:
        return f"p = {min(by_chance):.2g}", f"p of at least {_plain(limit)}"
    return _plain(max(float(test["statistic"]) for test in found)), f"at most {_plain(limit)}"


def _plain(value: float) -> str:
    """Writes a number without an exponent."""
    return f"{value:.8f}".rstrip("0").rstrip(".")
