"""The report as an annex to a data-protection impact assessment, in Markdown, for the record that GDPR Article 35 asks.

It repeats what the signed report says, under the headings of Article 35(7), and decides nothing: whether processing is
necessary and proportionate, and whether what remains is acceptable, is for the controller.
"""

import re
from collections.abc import Iterator, Sequence

from privacy.audit import assessment, words
from privacy.audit.statement import Statement
from privacy.keys.signing import keyid

_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|!~])")


def dpia(report: Statement, sha256: str) -> str:
    """Returns the annex.

    Args:
      report: Fits its schema; what is in it was checked, or the reader is told so elsewhere.
      sha256: Of the bytes of ``report.dsse.json``, hex.
    """
    return "\n".join(_lines(report, sha256)) + "\n"


def _lines(report: Statement, sha256: str) -> Iterator[str]:
    body = report.predicate
    run = body["run"]
    yield f"# Annex to a data-protection impact assessment: run {_text(run['id'])}"
    yield ""
    yield (
        f"Drawn from a signed report with SHA-256 `{sha256}`, whose signer has key `{keyid(report.public_key)}`. It is "
        "evidence for an assessment and not the assessment; with the report at hand, `collegium verify` checks it."
    )
    yield from _section("The processing (Article 35(7)(a))")
    sites = {site: None for entry in body["rounds"] for site in entry["answered"]}
    yield f"* What: {_text(run['title'])}, one model trained together by {_text(run['strategy'])}"
    yield f"* Data: {_text(run['data'])}"
    yield f"* Who: {words.count(len(sites), 'site')}: {_text(', '.join(sites))}"
    yield f"* When: {run['started']} to {run['finished']}, {words.count(run['completed'], 'round')}"
    yield from _section("Necessity and proportionality (Article 35(7)(b))")
    yield "Not said by a report of what ran: the controller's to answer."
    yield from _section("Risks, measures, and what remains (Article 35(7)(c) and (d))")
    risks = [(row.risk, row.measure, row.evidence, row.residual) for row in assessment.dpia(body)]
    yield from _table(("Risk", "Measure", "Evidence", "What remains"), risks)
    yield from _section("Attacks (EDPB Opinion 28/2024)")
    attacks = [(row.name, row.result, row.evidence) for row in assessment.attacks(body)]
    yield from _table(("Attack", "Result", "Evidence"), attacks)
    yield from _section("Questions to a claim of differential privacy (NIST SP 800-226)")
    hazards = [(row.layer, row.question, row.answer, row.evidence) for row in assessment.hazards(body)]
    yield from _table(("Layer", "Question", "Answer", "Evidence"), hazards)
    yield from _section("Not protected")
    yield from (f"* {_text(line)}" for line in body["not_protected"])
    yield from _section("Assumed")
    yield from (f"* {_text(line)}" for line in body["assumptions"])


def _section(title: str) -> Iterator[str]:
    yield from ("", f"## {title}", "")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    yield from (f"| {' | '.join(_text(cell) for cell in row)} |" for row in rows)


def _text(words_of_somebody: str) -> str:
    """Escapes what Markdown would read as markup; a report holds no control characters."""
    return _MARKUP.sub(r"\\\1", words_of_somebody)
