"""A report that an auditor took up: the run's own report inside, whole and signed, and beside it what was measured.

Nothing of the run's report is edited: all but signer, cosigners and the added claims must be what the report inside
says. So a reader checks one file, and sees who vouches for the run and who for the measurements: that is somebody else,
whose key is none of those that the report inside lists.
"""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from privacy.audit import envelope, statement
from privacy.audit.envelope import Envelope
from privacy.audit.statement import Statement
from privacy.errors import ConfigError

ADDED = "audit."
"""How the ids of claims begin that an auditor may add."""
_OWN = ("signer", "cosigners", "audited", "claims")


@dataclass(frozen=True)
class Original:
    """The run's own report, as it was signed; decoded, no signature is verified."""

    data: bytes
    sealed: Envelope
    report: Statement


def original(data: bytes) -> Original:
    """Reads a report of a run, or the one inside an audited report.

    Args:
      data: The bytes of ``report.dsse.json``. Untrusted.

    Raises: ConfigError: It is no report, or an audit of an audit.
    """
    sealed = envelope.decode(data)
    report = statement.decode(sealed.payload)
    return Original(data, sealed, report) if report.predicate["audited"] is None else inside(report)


def inside(report: Statement) -> Original:
    """Reads the report that an auditor took up.

    Args:
      report: Has one inside.

    Raises: ConfigError: What is inside is no report of a run.
    """
    data = envelope.decode_base64(report.predicate["audited"]["envelope"])
    sealed = envelope.decode(data)
    found = statement.decode(sealed.payload)
    if found.predicate["audited"] is not None:
        raise ConfigError("the audited report is itself an audit, and not the report of a run")
    return Original(data, sealed, found)


def predicate(
    found: Original, added: Sequence[dict[str, Any]], signer: dict[str, str], made: datetime
) -> dict[str, Any]:
    """Returns what an auditor signs.

    Args:
      found: The report to take up.
      added: Claims whose ids begin with ``ADDED``.
      signer: The auditor's key.
      made: When, UTC.
    """
    body = found.report.predicate
    taken_up = {
        "sha256": hashlib.sha256(found.data).hexdigest(),
        "envelope": base64.b64encode(found.data).decode(),
        "made": made.isoformat(timespec="seconds"),
    }
    return {**body, "signer": signer, "cosigners": [], "audited": taken_up, "claims": [*body["claims"], *added]}


def as_made(report: Statement) -> Statement:
    """Returns a report as if the run had signed all of its claims, so that they are checked alike; still an audit."""
    if report.predicate["audited"] is None:
        return report
    found = inside(report)
    own = {name: found.report.predicate[name] for name in ("signer", "cosigners")}
    return replace(report, predicate={**report.predicate, **own})


def contradictions(report: Statement, found: Original) -> Iterator[str]:
    """Yields where an audited report and the one inside it tell two stories, in words; no signature is checked."""
    outer, inner = report.predicate, found.report.predicate
    if hashlib.sha256(found.data).hexdigest() != outer["audited"]["sha256"]:
        yield "the report inside has another SHA-256 than is told"
    if outer["signer"]["role"] != "auditor" or outer["cosigners"]:
        yield "an audited report is signed by its auditor, and lists no cosigners"
    if report.public_key in {found.report.public_key, *found.report.cosigners.values()}:
        yield "the audit is signed by a key that signs the report inside: nobody audits a run of their own"
    if (report.subject_name, report.subject_sha256) != (found.report.subject_name, found.report.subject_sha256):
        yield "the audit is about another model file than the report inside"
    changed = [name for name in outer if name not in _OWN and outer[name] != inner[name]]
    if changed:
        yield f"the audit says something else than the report inside, in: {', '.join(changed)}"
    known, added = outer["claims"][: len(inner["claims"])], outer["claims"][len(inner["claims"]) :]
    if known != inner["claims"] or not all(claim["id"].startswith(ADDED) for claim in added):
        yield "the audit changes, drops or adds other claims than measured ones"
    if any(claim["id"].startswith(ADDED) for claim in known):
        yield "the report inside claims attacks itself, which only an auditor does"
    try:
        if datetime.fromisoformat(outer["audited"]["made"]) < datetime.fromisoformat(inner["run"]["finished"]):
            yield "the audit was made before the run was over"
    except ValueError:
        yield "the audit's time is not a time"
