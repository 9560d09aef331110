"""Signing a report as a site: only if what it says about this site is what this site has on record itself.

What it says about others a site cannot know, and what follows by arithmetic anybody can check later: the signature
vouches for neither.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from privacy.audit import consistency, envelope, payments, signers, statement, testimony
from privacy.audit.payments import Payment
from privacy.audit.site_statement import SiteStatement
from privacy.audit.statement import Statement
from privacy.charter.document import Charter
from privacy.errors import ConfigError, RemoteProtocolError, VerificationError
from privacy.keys.signing import SigningKey
from strategies.task import SiteId


@dataclass(frozen=True)
class Account:
    """What a site knows of a run by its own count, where it made no statement.

    Attributes:
      run: As its ledger calls it.
      job: Digest of the settings that it resolved for itself, hex.
      paid: Its debits.
      messages: Answers that it gave in rounds, refusals included.
      bytes: Of them.
      masked: Whether it answers under masks only.
    """

    site: SiteId
    run: str
    job: str
    paid: tuple[Payment, ...]
    messages: int
    bytes: int
    masked: bool


def sign(data: bytes, site: SiteId, key: SigningKey, doubts: Callable[[Statement], Iterator[str]]) -> bytes:
    """Returns the site's signature of a report, or refuses it.

    Args:
      data: The bytes of ``report.dsse.json``, as the coordinator signed it. Untrusted.
      site: Whose signature.
      key: The site's identity key. Secret.
      doubts: Yields what the site knows otherwise.

    Raises:
      RemoteProtocolError: It is no report.
      VerificationError: It contradicts itself, does not name this site and key, or says what the site knows otherwise.
    """
    try:
        report = _read(data)
    except ConfigError as error:
        raise RemoteProtocolError(f"what {site} was sent to sign is no report: {error}", phase="cosign") from error
    if report.cosigners.get(site) != key.public_key:
        raise VerificationError(f"the report does not list {site} to sign it with the key that {site} has")
    if problem := next(doubts(report), ""):
        raise VerificationError(f"{site} does not sign the report: {problem}")
    return key.sign(envelope.pae(envelope.PAYLOAD_TYPE, envelope.decode(data).payload))


def account_doubts(report: Statement, own: Account) -> Iterator[str]:
    """Yields what a site knows otherwise by its own account, in words."""
    body = report.predicate
    job = (report.claim("secagg.rounds") or {"job": own.job})["job"]
    if (body["run"]["id"], job) != (own.run, own.job):
        yield "it is about another run or job"
    yield from payments.problems(report, own.site, own.paid)
    told = next((entry for entry in body["egress"] if entry["site"] == own.site), None)
    counted = {"messages": own.messages, "bytes": own.bytes}
    for name, value in counted.items():
        if told is None or told[name] != value:
            yield f"it counts other {name} of {own.site} than the {value} that left it"
    if told is not None and own.masked and told["unmasked_arrays"]:
        yield f"it counts unmasked arrays of {own.site}, which sends none"


def stated_doubts(report: Statement, own: SiteStatement, charter: Charter) -> Iterator[str]:
    """Yields what a site stated otherwise at the end of the run, in words.

    Args:
      report: To be signed.
      own: The site's statement.
      charter: Pinned by the site.
    """
    if report.public_key != charter.server.identity:
        yield "another key signed it than the charter's coordinator has"
    claims = [report.claim(name) for name in (testimony.STATED, testimony.LEFT, testimony.WITNESSED)]
    if None in claims:
        yield "it does not claim what the sites state"
        return
    yield from testimony.about(own, report, charter)
    stated = report.claim(testimony.STATED) or {}
    if testimony.stated_entry(own) not in stated["sites"]:
        yield f"it does not list the decisions and refusals that {own.site} states"
    yield from testimony.left_problems(report, {own.site: own})
    yield from testimony.witnessed_problems(report, charter, {own.site: own})


@lru_cache(maxsize=1)
def _read(data: bytes) -> Statement:
    """Reads and checks a report on its own; all sites that one process plays are sent the same."""
    sealed = envelope.decode(data)
    report = statement.decode(sealed.payload)
    problems = [*signers.problems(signers.read(sealed, report)), *consistency.of_all(report)]
    if problems:
        raise VerificationError(f"the report contradicts itself: {problems[0]}")
    return report
