"""The verifier: what a stranger can check about a report, offline, from its bytes alone. Pure: no files, no clock.

Order: read strictly; signature under the key inside the report (always); whose key that is (only with a trust set);
the report against itself; the model file; epsilon from the events; the sites' signatures from the transcript; for a run
of real sites, its charter, its approval and the sites' statements; and for a page, the page against its envelope.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from privacy import __version__
from privacy.audit import approval, consistency, envelope, masked_rounds, page, pricing, real_run, statement, words
from privacy.audit.answers import Answer, CheckedClaim
from privacy.audit.canonical import MAX_BYTES
from privacy.audit.statement import Statement
from privacy.audit.transcript import TRANSCRIPT_FILE
from privacy.errors import ConfigError, FederationError, UnsupportedEventError, VerificationError
from privacy.keys import signing


@dataclass(frozen=True)
class Verdict:
    """What the verifier found; all fields are public.

    Attributes:
      authentic: The signer is in the trust set, or the caller said that the signer is not in question.
      headline: One line about authenticity, for people.
      claims: In the order in which they were checked.
    """

    authentic: bool
    headline: str
    claims: tuple[CheckedClaim, ...]

    @property
    def ok(self) -> bool:
        """Whether every claim was checked and holds."""
        return all(claim.verdict == "holds" for claim in self.claims)

    @property
    def exit_code(self) -> int:
        """Returns 0 all holds and authentic, 1 a claim fails, 3 nothing fails but something was not checked."""
        if any(claim.verdict == "fails" for claim in self.claims):
            return 1
        return 0 if self.ok and self.authentic else 3

    def lines(self) -> list[str]:
        """Returns what a command prints: the headline, then a line a claim."""
        width = max((len(claim.id) for claim in self.claims), default=0)
        return [
            self.headline,
            *(f"{claim.verdict:9}  {claim.id:{width}}  {claim.kind:8}  {claim.why}" for claim in self.claims),
        ]

    def to_json(self) -> dict[str, Any]:
        """Returns the object of ``schemas/verify-v1.json``."""
        return {
            "schema": "collegium/verify/v1",
            "ok": self.ok,
            "authentic": self.authentic,
            "claims": [
                {"id": claim.id, "kind": claim.kind, "verdict": claim.verdict, "why": claim.why}
                for claim in self.claims
            ],
        }


def exit_code(outcome: Verdict | FederationError) -> int:
    """Maps what ``verify`` returned or raised to the command's exit code."""
    if isinstance(outcome, Verdict):
        return outcome.exit_code
    return 1 if isinstance(outcome, VerificationError) else 2


def verify(
    data: bytes,
    *,
    trusted: Collection[bytes] | None = None,
    self_signed: bool = False,
    model_sha256: str | None = None,
    transcript: bytes | None = None,
    charters: bytes | None = None,
    statements: bytes | None = None,
    progress: Callable[[str], None] = lambda _line: None,
) -> Verdict:
    """Checks a report from a stranger.

    Guarantees: any bytes end in a ``Verdict`` or one of the errors below. ``authentic`` is true only if the signing key
    is among ``trusted``, or ``self_signed`` was asked for, which shows integrity since signing and not who signed.

    Args:
      data: ``report.dsse.json`` or ``report.html``. Untrusted.
      trusted: Raw public keys whose reports are believed to be theirs; None leaves authenticity unchecked.
      self_signed: Accept the key inside the report. Not together with ``trusted``.
      model_sha256: Hex digest of the model file at hand, if there is one.
      transcript: ``transcript/secagg.jsonl`` at hand, if there is one. Untrusted; not read where no round was masked.
      charters: ``transcript/charter.jsonl`` at hand, if there is one. Untrusted; read for runs of real sites only.
      statements: ``transcript/statements.jsonl`` likewise.
      progress: Called with one plain line before a step that can take seconds.

    Raises:
      ConfigError: Not a report, a version that is not known, cut short, or not in its one canonical form.
      VerificationError: The signature does not fit.
    """
    if trusted is not None and self_signed:
        raise ConfigError("give trusted keys or --self, not both")
    if len(data) > MAX_BYTES:
        raise ConfigError(f"the file is larger than {MAX_BYTES // 2**20} MB: no report is")
    page_data, envelope_data = (data, embedded_envelope(data)) if data.lstrip()[:1] == b"<" else (None, data)
    sealed = envelope.decode(envelope_data)
    report = statement.decode(sealed.payload)
    envelope.check_signature(sealed, report.public_key)

    signature = _signature(sealed.keyid, report.public_key, trusted)
    claims = [signature, _consistency(report), _model(report, model_sha256)]
    claims += [_epsilon(report, claim, progress) for claim in report.epsilons]
    if report.claim("secagg.rounds") is not None:
        claims.append(_masked_rounds(report, transcript, progress))
    if report.claim("secagg.egress") is not None:
        claims.append(_egress(report))
    if report.claim(approval.ADOPTED) is not None:
        claims += real_run.check(report, charters=charters, statements=statements, signed_rounds=transcript)
    if page_data is not None:
        claims.append(_page(report, envelope_data, page_data))
    authentic = self_signed or (trusted is not None and signature.verdict == "holds")
    return Verdict(authentic, _headline(sealed.keyid, trusted, self_signed=self_signed), tuple(claims))


def embedded_envelope(data: bytes) -> bytes:
    """Cuts the envelope out of a report page.

    Raises: ConfigError: The page is too large, or does not hold exactly one envelope.
    """
    if len(data) > MAX_BYTES:
        raise ConfigError(f"the page is larger than {MAX_BYTES // 2**20} MB")
    before, marker, rest = data.partition(page.ENVELOPE_OPEN)
    found, closing, _after = rest.partition(page.ENVELOPE_CLOSE)
    if not before or not marker or not closing or page.ENVELOPE_OPEN in rest:
        raise ConfigError("the page does not hold exactly one signed report: it is no report page, or was cut short")
    return found


def _headline(keyid: str, trusted: Collection[bytes] | None, *, self_signed: bool) -> str:
    if self_signed:
        return f"SELF-SIGNED: unchanged since key {keyid[:16]} signed it; this does not show whose key that is"
    if trusted is None:
        return f"AUTHENTICITY NOT CHECKED: signed by key {keyid[:16]}, give --trust KEYS to check whose it is"
    if keyid in {signing.keyid(key) for key in trusted}:
        return f"AUTHENTIC: signed by the trusted key {keyid[:16]}"
    return f"NOT AUTHENTIC: signed by key {keyid[:16]}, which is not among the trusted keys"


def _signature(keyid: str, public_key: bytes, trusted: Collection[bytes] | None) -> CheckedClaim:
    if trusted is not None and public_key not in trusted:
        why = f"signed by key {keyid[:16]}, which is not among the {len(trusted)} trusted"
        return CheckedClaim("report.signature", "proved", "fails", why)
    return CheckedClaim("report.signature", "proved", "holds", f"unchanged since key {keyid[:16]} signed it")


def _consistency(report: Statement) -> CheckedClaim:
    problems = consistency.of_report(report)
    run = report.predicate["run"]
    parts = " parts of the model," if report.predicate["submodels"] is not None else ""
    agree = f"rounds, sites,{parts} protections and scores agree with each other"
    if run["status"] != "finished":
        agree += f"; {words.STATUSES[run['status']]}, after {len(report.predicate['rounds'])} of {run['rounds']} rounds"
    why = problems[0] if problems else agree
    return CheckedClaim("report.consistency", "proved", "fails" if problems else "holds", why)


def _model(report: Statement, model_sha256: str | None) -> CheckedClaim:
    def checked(verdict: Answer, why: str) -> CheckedClaim:
        return CheckedClaim("model.digest", "attested", verdict, why)

    problems = consistency.of_model(report)
    if problems:
        return checked("fails", problems[0])
    if model_sha256 is None:
        return checked("unchecked", f"no model file at hand; {report.subject_name} must have {report.subject_sha256}")
    if model_sha256.lower() != report.subject_sha256:
        return checked("fails", f"the model file has SHA-256 {model_sha256[:16]}..., the report's is another")
    return checked("holds", f"{report.subject_name} has the SHA-256 {report.subject_sha256[:16]}... that was signed")


def _epsilon(report: Statement, claim: dict[str, Any], progress: Callable[[str], None]) -> CheckedClaim:
    def checked(verdict: Answer, why: str) -> CheckedClaim:
        return CheckedClaim(claim["id"], claim["kind"], verdict, why)

    problems = consistency.of_epsilon(report, claim)
    if problems:
        return checked("fails", problems[0])
    try:
        problems = pricing.problems(claim, progress)
    except UnsupportedEventError as error:
        return checked("unchecked", str(error))
    if problems:
        return checked("fails", problems[0])
    return checked("holds", _priced(claim, unequal=report.unequal))


def _priced(claim: dict[str, Any], *, unequal: bool) -> str:
    """Returns the line of a claim whose price is right: an epsilon is never named without its terms."""
    largest = max(claim["sites"], key=lambda entry: Decimal(entry["epsilon"]))
    exact = pricing.is_exact(event for entry in claim["sites"] for event in pricing.events_of(entry))
    central = claim["placement"] == "central"
    why = (
        f"recomputed by {claim['accountant']} from the listed events of "
        f"{'the server' if central else words.count(len(claim['sites']), 'site')}: "
        f"at most {largest['epsilon']} ({largest['site']}), unit {claim['unit']}, relation {claim['relation']}, "
        f"delta {claim['delta']}, target {claim['target_epsilon']}; "
        f"noise: {words.NOISE[exact]}; against {words.against(claim, unequal=unequal)}"
    )
    lifetimes = [entry["lifetime"] for entry in claim["sites"] if "lifetime" in entry]
    if not lifetimes:
        return why
    fullest = max(lifetimes, key=lambda one: Decimal(one["epsilon"]) / Decimal(one["budget"]))
    return why + (
        f"; over all runs at most {fullest['epsilon']} of a budget of {fullest['budget']} ({fullest['asset']}), "
        f"by {words.filter_name(fullest)}, delta {fullest['delta']}"
    )


def _masked_rounds(report: Statement, data: bytes | None, progress: Callable[[str], None]) -> CheckedClaim:
    def checked(verdict: Answer, why: str) -> CheckedClaim:
        return CheckedClaim("secagg.rounds", "proved", verdict, why)

    claim = report.claim("secagg.rounds") or {}
    problems = consistency.of_masked_rounds(report)
    if not problems and data is None:
        return checked("unchecked", f"no {TRANSCRIPT_FILE} at hand; it must have SHA-256 {claim['transcript_sha256']}")
    problems = problems or masked_rounds.problems(claim, data or b"", progress)
    if problems:
        return checked("fails", problems[0])
    return checked("holds", masked_rounds.summary(claim))


def _egress(report: Statement) -> CheckedClaim:
    problems = consistency.of_egress(report)
    n_sites = len(report.predicate["egress"])
    counted = (
        f"the coordinator counted no unmasked array from {n_sites} sites; a document cannot show what else was sent"
    )
    return CheckedClaim(
        "secagg.egress", "asserted", "fails" if problems else "holds", problems[0] if problems else counted
    )


def _page(report: Statement, envelope_data: bytes, page_data: bytes) -> CheckedClaim:
    def checked(verdict: Answer, why: str) -> CheckedClaim:
        return CheckedClaim("report.page", "proved", verdict, why)

    written_by = report.predicate["tool"]["version"]
    if written_by != __version__:
        return checked("unchecked", f"the page was drawn by version {written_by}; this is {__version__}")
    if page.render(envelope_data) != page_data:
        return checked("fails", "the page shows something else than the signed report inside it")
    return checked("holds", "the page is, byte for byte, what the signed report inside it draws")
