"""The five claims of a run of real sites, checked in order: what one rests on is believed only once it holds itself."""

from privacy.audit import approval, testimony
from privacy.audit.answers import CheckedClaim, Kind
from privacy.audit.approval import ADOPTED, APPROVED, CHARTER_FILE
from privacy.audit.site_statement import STATEMENTS_FILE
from privacy.audit.statement import Statement
from privacy.audit.testimony import LEFT, STATED, WITNESSED, Stated
from privacy.charter.document import Charter
from privacy.errors import ConfigError, VerificationError

_KINDS: dict[str, Kind] = {
    ADOPTED: "proved",
    APPROVED: "proved",
    STATED: "attested",
    LEFT: "attested",
    WITNESSED: "attested",
}


def check(
    report: Statement, *, charters: bytes | None, statements: bytes | None, signed_rounds: bytes | None
) -> list[CheckedClaim]:
    """Checks what a report claims about a run of real sites.

    Args:
      report: Fits its schema and claims at least ``charter.adopted``.
      charters: ``transcript/charter.jsonl`` at hand, if there is one. Untrusted, like the others.
      statements: ``transcript/statements.jsonl`` likewise.
      signed_rounds: ``transcript/secagg.jsonl`` likewise.
    """
    absent = [name for name in _KINDS if report.claim(name) is None]
    if absent:
        return [CheckedClaim(name, _KINDS[name], "fails", "the report does not make this claim") for name in absent]
    adopted = _adopted(report, charters, signed_rounds)
    charter = approval.adopted(charters) if charters is not None and adopted.verdict == "holds" else None
    if charter is None:
        why = "no charter at hand that holds"
        return [adopted, *(CheckedClaim(name, _KINDS[name], "unchecked", why) for name in list(_KINDS)[1:])]
    stating, stated = _stated(report, charter, statements)
    approved = [*approval.contradictions(report), *approval.approved_problems(report, charter, signed_rounds)]
    claims = [adopted, _answered(APPROVED, approved, approval.approved_summary(report.claim(APPROVED) or {})), stating]
    if not stated:
        why = "no statements of sites at hand that hold"
        return [*claims, *(CheckedClaim(name, _KINDS[name], "unchecked", why) for name in (LEFT, WITNESSED))]
    left = [*testimony.left_contradictions(report), *testimony.left_problems(report, stated)]
    witnessed = testimony.witnessed_problems(report, charter, stated)
    n, what_left, log = len(stated), report.claim(LEFT) or {}, report.claim(WITNESSED) or {}
    claims.append(_answered(LEFT, left, testimony.left_summary(what_left, n)))
    claims.append(_answered(WITNESSED, witnessed, "" if witnessed else testimony.witnessed_summary(log, n)))
    return claims


def _answered(name: str, problems: list[str], summary: str) -> CheckedClaim:
    if problems:
        return CheckedClaim(name, _KINDS[name], "fails", problems[0])
    return CheckedClaim(name, _KINDS[name], "holds", summary)


def _adopted(report: Statement, charters: bytes | None, signed_rounds: bytes | None) -> CheckedClaim:
    claim = report.claim(ADOPTED) or {}
    if charters is None:
        why = f"no {CHARTER_FILE} at hand; it must have SHA-256 {claim['charters_sha256']}"
        return CheckedClaim(ADOPTED, "proved", "unchecked", why)
    problems = approval.adopted_problems(report, charters, signed_rounds)
    return _answered(ADOPTED, problems, approval.adopted_summary(claim))


def _stated(report: Statement, charter: Charter, data: bytes | None) -> tuple[CheckedClaim, Stated | None]:
    claim = report.claim(STATED) or {}
    if data is None:
        why = f"no {STATEMENTS_FILE} at hand; it must have SHA-256 {claim['statements_sha256']}"
        return CheckedClaim(STATED, "attested", "unchecked", why), None
    try:
        stated = testimony.stated_in(report, charter, data)
    except (ConfigError, VerificationError) as error:
        return CheckedClaim(STATED, "attested", "fails", str(error)), None
    if claim["unattested"]:
        return CheckedClaim(STATED, "attested", "unchecked", testimony.unattested_summary(claim)), stated
    return CheckedClaim(STATED, "attested", "holds", testimony.stated_summary(claim)), stated
