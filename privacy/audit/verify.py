"""The verifier: what a stranger can check about a report, offline, from its bytes alone. Pure: no files, no clock.

Order: read strictly; signatures under the keys that the report names (always); whose keys those are (only with a trust
set); for an audited report, the one inside it; the report against itself; the model file; epsilon from the events; the
ledgers behind them; the sites' signatures from the transcript; for a run of real sites, its charter, its approval and
the sites' statements; the conformance of what was released; what was measured; and for a page, the page against its
envelope.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from privacy import __version__
from privacy.audit import (
    approval,
    attack_claims,
    audited,
    conformance_claim,
    consistency,
    crossings,
    envelope,
    ledger_chain,
    limits,
    masked_rounds,
    pricing,
    real_run,
    signers,
    statement,
    words,
)
from privacy.audit.answers import Answer, CheckedClaim
from privacy.audit.audited import ADDED
from privacy.audit.canonical import MAX_BYTES
from privacy.audit.envelope import Envelope
from privacy.audit.html import page
from privacy.audit.signers import Signed
from privacy.audit.statement import Statement
from privacy.audit.transcript import TRANSCRIPT_FILE
from privacy.errors import ConfigError, FederationError, UnsupportedEventError, VerificationError
from privacy.keys.signing import Trust

_SCHEMA = "collegium/verify/v1"


@dataclass(frozen=True)
class Verdict:
    """What the verifier found; all fields are public.

    Attributes:
      authentic: Signer and enough others are in the trust set, or the caller said that they are not in question.
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
            "schema": _SCHEMA,
            "ok": self.ok,
            "authentic": self.authentic,
            "claims": [
                {"id": claim.id, "kind": claim.kind, "verdict": claim.verdict, "why": claim.why}
                for claim in self.claims
            ],
        }


def failure(error: FederationError) -> dict[str, Any]:
    """Returns the object of ``schemas/verify-v1.json`` for what ended without a verdict; ``exit_code`` says how bad."""
    return {"schema": _SCHEMA, "ok": False, "authentic": False, "claims": [], "error": str(error)}


def exit_code(outcome: Verdict | FederationError) -> int:
    """Maps what ``verify`` returned or raised to the command's exit code."""
    if isinstance(outcome, Verdict):
        return outcome.exit_code
    return 1 if isinstance(outcome, VerificationError) else 2


def verify(  # noqa: PLR0913 - each part of the evidence may be at hand or not
    data: bytes,
    *,
    trusted: Collection[bytes] | None = None,
    cosigners: Collection[bytes] = (),
    auditors: Collection[bytes] = (),
    self_signed: bool = False,
    threshold: int = 1,
    model_sha256: str | None = None,
    transcript: bytes | None = None,
    charters: bytes | None = None,
    statements: bytes | None = None,
    ledgers: bytes | None = None,
    canaries: bytes | None = None,
    progress: Callable[[str], None] = lambda _line: None,
) -> Verdict:
    """Checks a report from a stranger.

    Guarantees: any bytes end in a ``Verdict`` or one of the errors below; a signature that does not fit, or by a key
    that neither the report names nor the reader trusts, never passes. ``authentic`` is true only if the signer of the
    run's report is among ``trusted``, that of an audit around it among ``auditors``, and at least ``threshold`` keys of
    the three sets have signed; or if ``self_signed`` was asked for, which shows integrity since signing and not who
    signed. It is never true of a page that was found to show something else than the report in it.

    Args:
      data: ``report.dsse.json`` or ``report.html``. Untrusted.
      trusted: Raw public keys whose reports of runs are believed to be theirs; None leaves authenticity unchecked.
      cosigners: Raw public keys that count towards the threshold beside a signer's; a report of theirs is not believed.
      auditors: Raw public keys whose audits are believed to be theirs; a run's own report of theirs is not believed.
      self_signed: Accept the keys inside the report. Not together with ``trusted``.
      threshold: Trusted keys that must have signed: at least 1, at most as many as there are.
      model_sha256: Hex digest of the model file at hand, if there is one.
      transcript: ``transcript/secagg.jsonl`` at hand, if there is one. Untrusted; not read where no round was masked.
      charters: ``transcript/charter.jsonl`` at hand, if there is one. Untrusted; read for runs of real sites only.
      statements: ``transcript/statements.jsonl`` likewise.
      ledgers: ``transcript/ledgers.jsonl`` at hand, if there is one. Untrusted; read where a report names ledgers.
      canaries: ``transcript/canaries.jsonl`` at hand, if there is one. Untrusted; read where attacks were measured.
      progress: Called with one plain line before a step that can take seconds.

    Raises:
      ConfigError: Not a report, a version that is not known, cut short, or not in its one canonical form.
      VerificationError: The signature does not fit.
    """
    trust = None if trusted is None else Trust(frozenset(trusted), frozenset(cosigners), frozenset(auditors))
    _check_reader(trust, threshold, self_signed=self_signed)
    if len(data) > MAX_BYTES:
        raise ConfigError(f"the file is larger than {MAX_BYTES // 2**20} MB: no report is")
    page_data, envelope_data = (data, embedded_envelope(data)) if data.lstrip()[:1] == b"<" else (None, data)
    sealed = envelope.decode(envelope_data)
    told = statement.decode(sealed.payload)
    both = _signed(sealed, told, trust)
    who = _signatures(told, both, trust, threshold)
    report = audited.as_made(told)

    agrees = _consistency(report)
    claims = [*who, agrees, _model(report, model_sha256)]
    claims += [_epsilon(report, claim, progress) for claim in report.epsilons]
    if report.claim(ledger_chain.CLAIM) is not None:
        claims.append(ledger_chain.check(report, ledgers))
    if report.claim(conformance_claim.CLAIM) is not None:
        claims.append(conformance_claim.check(report))
    if report.claim("secagg.rounds") is not None:
        claims.append(_masked_rounds(report, transcript, progress))
    if report.claim("secagg.egress") is not None:
        claims.append(_egress(report))
    if report.claim(approval.ADOPTED) is not None:
        claims += real_run.check(report, charters=charters, statements=statements, signed_rounds=transcript)
    claims += attack_claims.check(report, canaries)
    drawn = [] if page_data is None else [_page(report, envelope_data, page_data, agrees)]
    shown = [*who, *drawn]
    authentic = (self_signed or trust is not None) and all(claim.verdict != "fails" for claim in shown)
    return Verdict(authentic, _headline(both, shown, trust, self_signed=self_signed), (*claims, *drawn))


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


def _check_reader(trust: Trust | None, threshold: int, *, self_signed: bool) -> None:
    if trust is not None and self_signed:
        raise ConfigError("give trusted keys or --self, not both")
    if threshold < 1 or (threshold > 1 and trust is None):
        raise ConfigError("--threshold counts trusted keys: it is at least 1, and needs --trust")
    if trust is not None and threshold > max(1, len(trust.keys)):
        raise ConfigError(f"--threshold asks for {threshold} trusted keys, and there are {len(trust.keys)}")


def _signed(sealed: Envelope, told: Statement, trust: Trust | None) -> list[tuple[Signed, list[str]]]:
    """Returns who signed a report, and who the one inside it if there is one, each with what is wrong with that."""
    signed = signers.read(sealed, told, trust)
    both = [(signed, list(signers.problems(signed, trust, audit=told.predicate["audited"] is not None)))]
    if told.predicate["audited"] is not None:
        found = audited.inside(told)
        inner = signers.read(found.sealed, found.report, trust)
        wrong = [*audited.contradictions(told, found), *signers.problems(inner, trust)]
        both.append((inner, wrong))
    return both


def _signatures(
    told: Statement, both: Sequence[tuple[Signed, list[str]]], trust: Trust | None, threshold: int
) -> list[CheckedClaim]:
    known = _known(both)
    few = []
    if trust is not None and known < threshold:
        few = [
            f"signed by {known} of the {len(trust.keys)} trusted keys, fewer than the {threshold} that are asked for"
        ]
    signed, problems = both[0]
    claims = [_claim("report.signature", [*problems, *few], f"unchanged since {signed.who}")]
    for inner, wrong in both[1:]:
        why = (
            f"the report inside is unchanged since {inner.who}; what was measured afterwards is said beside it, in "
            f"{ADDED} claims made at {told.predicate['audited']['made']}"
        )
        claims.append(_claim("report.audited", wrong, why))
    return claims


def _known(both: Sequence[tuple[Signed, list[str]]]) -> int:
    """Returns how many of the reader's trusted keys signed."""
    return len(frozenset[str]().union(*(signed.trusted or () for signed, _ in both)))


def _claim(name: str, problems: Sequence[str], why: str) -> CheckedClaim:
    return CheckedClaim(name, "proved", "fails" if problems else "holds", problems[0] if problems else why)


def _headline(
    both: Sequence[tuple[Signed, list[str]]],
    shown: Sequence[CheckedClaim],
    trust: Trust | None,
    *,
    self_signed: bool,
) -> str:
    key = both[0][0].signer[:16]
    if wrong := next((claim.why for claim in shown if claim.verdict == "fails"), ""):
        return f"NOT AUTHENTIC: {wrong}"
    around = "; the page around it was NOT compared" if any(claim.verdict == "unchecked" for claim in shown) else ""
    if self_signed:
        return f"SELF-SIGNED: unchanged since key {key} signed it; this does not show whose key that is{around}"
    if trust is None:
        return f"AUTHENTICITY NOT CHECKED: signed by key {key}, give --trust KEYS to check whose it is{around}"
    others = _known(both) - 1
    beside = f" and {words.count(others, 'other trusted key')}" if others else ""
    return f"AUTHENTIC: signed by the trusted key {key}{beside}{around}"


def _consistency(report: Statement) -> CheckedClaim:
    problems = consistency.of_report(report)
    run = report.predicate["run"]
    parts = " parts of the model," if report.predicate["submodels"] is not None else ""
    own = sum(len(limits.own_words(report, name)) for name in ("not_protected", "assumptions"))
    agree = f"rounds, sites,{parts} protections, scores and limits agree with each other"
    if run["status"] != "finished":
        agree += f"; {words.STATUSES[run['status']]}, after {len(report.predicate['rounds'])} of {run['rounds']} rounds"
    if own:
        agree += f"; {words.count(own, 'line')} about limits in the words of whoever signed, which nobody checks"
    why = problems[0] if problems else agree + crossings.summary(report.predicate)
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
    return checked("holds", _priced(claim, report))


def _priced(claim: dict[str, Any], report: Statement) -> str:
    """Returns the line of a claim whose price is right: an epsilon is never named without its terms."""
    largest = max(claim["sites"], key=lambda entry: Decimal(entry["epsilon"]))
    exact = pricing.is_exact(event for entry in claim["sites"] for event in pricing.events_of(entry))
    central = claim["placement"] == "central"
    why = (
        f"recomputed by {claim['accountant']} from the listed events of "
        f"{'the server' if central else words.count(len(claim['sites']), 'site')}: "
        f"at most {largest['epsilon']} ({largest['site']}), unit {claim['unit']}, relation {claim['relation']}, "
        f"delta {claim['delta']}, target {claim['target_epsilon']}; "
        f"noise: {words.NOISE[exact]}; against {words.against(claim, unequal=report.unequal, cut=report.cut)}"
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
    problems = problems or list(signers.other_keys(report, data or b""))
    problems = problems or list(masked_rounds.other_run(report.predicate["run"]["id"], data or b""))
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


def _page(report: Statement, envelope_data: bytes, page_data: bytes, agrees: CheckedClaim) -> CheckedClaim:
    def checked(verdict: Answer, why: str) -> CheckedClaim:
        return CheckedClaim("report.page", "proved", verdict, why)

    written_by = report.predicate["tool"]["version"]
    if written_by != __version__:
        return checked("unchecked", f"the page was drawn by version {written_by}; this is {__version__}")
    if agrees.verdict == "fails":
        return checked("unchecked", f"what contradicts itself is not drawn again: see {agrees.id}")
    if page.render(envelope_data) != page_data:
        return checked("fails", "the page shows something else than the signed report inside it")
    return checked("holds", "the page is, byte for byte, what the signed report inside it draws")
