"""What a report must say that it does not protect, and what its claims rest on: lines that follow from the rest of it.

Whoever writes a report takes them from here, and ``consistency`` asks for every one of them: else what is not protected
would be the signer's choice. A signer may add lines; those are the signer's own words, and nobody checks them. The
wording is part of the format ``privacy-audit/v1``: reports that say it otherwise fail. Plain text; nothing is markup.
"""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from privacy.audit import division, division_words, words
from privacy.audit.statement import Statement
from privacy.dp.events import Arithmetic

_EXACT = str(Arithmetic.INTEGER_EXACT)
_NO_NOISE = "No differential privacy was applied: updates and model may give away training records."
_NOT_AGAINST = {
    "central": "The server adds the noise and sees the sums without it: the claim does not hold against the server.",
    "distributed": "A site knows its own share of the noise: against it, one share fewer counts (hypothetical values).",
}
_WHOLE_SITES = "The unit is the site: a record is hidden only as a part of what its whole site adds."
_PATIENTS = "A patient in several hospitals is protected less than one in a single hospital."
_RECORDS = "A patient with several records, or in several hospitals, is protected less than one with a single record."
_EVERYBODY = "What was learnt about everybody, also about people who never took part, is not protected by any epsilon."
_CROSSED = (
    "What crossed the cut are personal data. Noise on the weights of the ends does not protect them, whatever epsilon"
    " it has."
)
_SUPPRESSION = (
    "Sites hold different parts of the model: a malicious server could send some of them values with which the update"
    " of a single other site stands out in the sum of a region."
)
_UNEQUAL = (
    "With unequal sub-models, that nothing but sums is seen holds against a server that follows the protocol; against"
    " one that does not, only distributed noise "
)
_NOISY_STEPS = " What protects a record even then is the noise of its site's own steps."
# By whether the sites are real: what a site, or the experimenter, sees beside the model; who could listen; whose word.
_OWN_VIEW = {
    True: "What a site computes and keeps, its scores above all, no epsilon here covers.",
    False: "Scores, losses and the comparison models are the experimenter's view and not covered by epsilon.",
}
_TRANSPORT = {
    True: "Who talks to whom, when and how much, the network can see; encryption hides what is said.",
    False: "All parties ran on one machine, without TLS: this is a simulation and shows nothing about transport.",
}
_HONESTY = {
    True: "Nothing shows that a site trained honestly, or on the records that it should: it signs what it says it did.",
    False: "Nothing shows that a site trained honestly, nor who holds the key that signed this report.",
}

_FIXED = (
    "Numbers of records, weights, clip, rates, rounds and scaling constants are public and fixed beforehand.",
    "Neighbouring data sets are training sets after the split into training and test rows.",
    "Noise and sampling come from the operating system's randomness.",
)
_DRAWN = {
    True: "Noise is drawn as exact integers on a public grid; its timing is not constant.",
    False: "The Gaussian is a 64-bit floating-point one, rounded to a public grid: epsilon is asserted, not proved.",
}
_DEBITED = "Each ledger was debited before anything that it pays for left; the events listed are those debits."
_UNEQUAL_SHARES = (
    "A region with more holders than the fewest gets a smaller share of noise from each: every region has the declared"
    " noise if as many of its holders as are counted on there drew theirs."
)
_RESTS_ON = {
    "central": "Every site clipped its update as agreed: under masks the server cannot see whether it did.",
    "distributed": "As many sites as were counted on drew their shares of the noise honestly and told nobody.",
}
_BATCHES = "Nobody outside a site learns which of its records entered a batch."
_LARGE_DELTA = "Delta is not below 1/N at every site: a smaller --delta is advisable there."
_DELIVERED = "The delivered model came out of the sums listed: no site signs the model that comes out."
_MASKED = {
    True: (
        "The officers' keys are those of the officers: they compared them outside this system.",
        "Each site runs the application whose digest it states, and its machine is its own.",
        (
            "No attempt was made beside those listed, and none that is listed as aborted opened a sum: a site signs"
            " what it sent, not what came of it."
        ),
        _DELIVERED,
    ),
    False: (
        "The roster's keys are those of the sites that it names; in this simulation one program made and held all.",
        (
            "No attempt was made beside those listed, none that is listed as aborted opened a sum, and nothing was"
            " sent beside what was counted: no document can show it."
        ),
        _DELIVERED,
    ),
}
_NOTHING_ELSE = "The model file is the one that the run's key signed."


def told(body: dict[str, Any], *more: str) -> dict[str, Any]:
    """Returns a predicate with all that it must say about its limits.

    Args:
      body: Fits ``schemas/privacy-audit-v1.json`` but for those two lists, and agrees with itself.
      more: What else is not protected, in the writer's words.
    """
    report = Statement("", "", body)
    return {**body, "not_protected": [*not_protected(report), *more], "assumptions": assumptions(report)}


def missing(report: Statement) -> Iterator[str]:
    """Yields what a report must say about its limits and does not, in words."""
    for name, lines in (("not_protected", not_protected(report)), ("assumptions", assumptions(report))):
        said = set(report.predicate[name])
        yield from (f"'{name}' leaves out what follows from the rest: {line}" for line in lines if line not in said)


def own_words(report: Statement, name: str) -> list[str]:
    """Returns those lines of ``not_protected`` or ``assumptions`` that are the signer's own, which nobody checks."""
    required = set(not_protected(report) if name == "not_protected" else assumptions(report))
    return [line for line in report.predicate[name] if line not in required]


def not_protected(report: Statement) -> list[str]:
    """Returns what every report of such a run must say that it does not protect; any predicate that fits the schema."""
    real = report.predicate["run"]["engine"] == "sites"
    return [
        *_server_view(report),
        *_division(report),
        *_privacy(report, real=real),
        *([_CROSSED] if report.cut else []),
        _TRANSPORT[real],
        _HONESTY[real],
    ]


def assumptions(report: Statement) -> list[str]:
    """Returns what every report of such a run must say that its claims rest on; any predicate that fits the schema."""
    masked = report.predicate["protections"]["secagg"]
    rest = _MASKED[report.predicate["run"]["engine"] == "sites"] if masked else ()
    return [*_noise(report), *rest] or [_NOTHING_ELSE]


def sums_seen(report: Statement, cohort: dict[str, Any], *, fixed_set: bool) -> str:
    """Says what the server could open of one cohort of a ``secagg.rounds`` claim."""
    return words.sums_seen(
        len(cohort["sites"]), cohort["n_c"], _floor(report, cohort), fixed_set=fixed_set, unequal=report.unequal
    )


def _floor(report: Statement, cohort: dict[str, Any]) -> int:
    """Returns the fewest sites that a sum can be over."""
    if not report.unequal:
        return int(cohort["min_survivors"])
    held = [set(region["holders"]) & set(cohort["sites"]) for region in report.predicate["submodels"]["regions"]]
    return division.fewest_holders([holders for holders in held if len(holders) >= cohort["min_cover"]], cohort)


def _server_view(report: Statement) -> Iterator[str]:
    """Where a cohort shrank, the one counts whose smallest sum holds the fewest strangers."""
    claim = report.claim("secagg.rounds")
    if claim is None:
        yield words.SINGLE_UPDATES
    elif claim["cohorts"]:
        least = "min_cover" if report.unequal else "min_survivors"
        fewest = min(claim["cohorts"], key=lambda cohort: (cohort[least] - cohort["n_c"], len(cohort["sites"])))
        yield sums_seen(report, fewest, fixed_set=claim["fixed_set"])


def _division(report: Statement) -> Iterator[str]:
    found, on = report.predicate["submodels"], report.predicate["protections"]
    if found is None:
        return
    yield from division_words.about_slack(found)
    if any(region["still"] for region in found["regions"]):
        yield division_words.about_still(found, len(report.predicate["rounds"]))
    if report.unequal:
        yield _SUPPRESSION
        had = "protects a site's update." if on["distributed_dp"] else "would protect, and this run had none."
        yield _UNEQUAL + had + (_NOISY_STEPS if on["record_dp"] else "")


def _privacy(report: Statement, *, real: bool) -> Iterator[str]:
    claims = report.epsilons
    if not claims:
        yield _NO_NOISE
        return
    yield from (_NOT_AGAINST[claim["placement"]] for claim in claims if claim["placement"] in _NOT_AGAINST)
    units = {claim["unit"] for claim in claims}
    if units == {"site"}:
        yield _WHOLE_SITES
    yield _OWN_VIEW[real]
    yield _PATIENTS if "patient" in units else _RECORDS
    yield _EVERYBODY


def _noise(report: Statement) -> Iterator[str]:
    claims = report.epsilons
    if not claims:
        return
    yield from _FIXED
    holders = [(claim, entry) for claim in claims for entry in claim["sites"]]
    events = [event for _, entry in holders for event in entry["events"]]
    yield _DRAWN[all(event["mechanism"] == "skellam" or event.get("arithmetic") == _EXACT for event in events)]
    yield _DEBITED
    placements = [claim["placement"] for claim in claims]
    if report.unequal and "distributed" in placements:
        yield _UNEQUAL_SHARES
    yield from (_RESTS_ON[placement] for placement in placements if placement in _RESTS_ON)
    if any("sampling" in event and event["sampling"]["type"] != "full" for event in events):
        yield _BATCHES
    if any(Decimal(claim["delta"]) * entry["n_train"] >= 1 for claim, entry in holders if "n_train" in entry):
        yield _LARGE_DELTA
