"""A signed report, in one step: what our own verifier would not accept is never signed."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from privacy.audit import audited as audits
from privacy.audit import consistency, envelope, statement
from privacy.audit.canonical import MAX_BYTES
from privacy.audit.statement import Statement
from privacy.errors import ConfigError
from privacy.keys import signing

_ROLES = {
    "run": "made for this run alone, and erased after it",
    "server": "the coordinator, as in the charter",
    "auditor": "the auditor",
}


def signer_entry(key: signing.SigningKey, role: str = "run") -> dict[str, str]:
    """Returns the predicate's ``signer`` object for this key.

    Args:
      key: Of which only the public half is used.
      role: Made for one ``run``, of the ``server`` of a charter, or of an ``auditor``.
    """
    return {"role": role, "algorithm": "ed25519", "public_key": base64.b64encode(key.public_key).decode()}


def cosigner_entries(keys: Mapping[str, bytes]) -> list[dict[str, str]]:
    """Returns the predicate's ``cosigners``; ``keys`` are the sites' raw identity keys by id."""
    return [{"site": site, "public_key": base64.b64encode(keys[site]).decode()} for site in sorted(keys)]


def sign(predicate: dict[str, Any], model_sha256: str, key: signing.SigningKey) -> bytes:
    """Checks, signs and returns the bytes of ``report.dsse.json``.

    Args:
      predicate: Fits ``schemas/privacy-audit-v1.json``; its ``signer`` is ``signer_entry(key)``.
      model_sha256: Of the model file that was written, 64 hex digits.
      key: The run's, or the server's.

    Raises: ConfigError: The predicate does not fit its schema, contradicts itself, or names another signer.
    """
    payload = statement.encode(predicate, model_sha256)
    decoded = statement.decode(payload)  # what cannot be read back is not signed
    return _signed(payload, decoded, consistency.of_all(decoded), key)


def audited(data: bytes, added: Sequence[dict[str, Any]], key: signing.SigningKey, made: datetime) -> bytes:
    """Returns an auditor's report: the given one inside, unchanged, and claims about what was measured.

    Args:
      data: A signed report of a run; of an audited one, the report inside is taken up, and this audit replaces that.
      added: Claims whose ids begin with ``audit.``.
      key: The auditor's.
      made: When the measurements were made, UTC.

    Raises: ConfigError: ``data`` is no report, the claims do not fit, or the result contradicts itself or is too large.
    """
    found = audits.original(data)
    body = audits.predicate(found, added, signer_entry(key, "auditor"), made)
    payload = statement.encode(body, found.report.subject_sha256)
    decoded = statement.decode(payload)
    problems = [*audits.contradictions(decoded, found), *consistency.of_all(audits.as_made(decoded))]
    return _signed(payload, decoded, problems, key)


def trusted_keys(data: bytes) -> bytes:
    """Returns the file of keys that a report lists, for a reader who knows whose they are (``signing.parse_trust``).

    Args:
      data: The bytes of ``report.dsse.json``; no signature is checked.

    Raises: ConfigError: Not a report.
    """
    report = statement.decode(envelope.decode(data).payload)
    lines = [f"# run {report.predicate['run']['id']}", *_keys(report)]
    if report.predicate["audited"] is not None:
        lines += _keys(audits.inside(report).report)
    return "".join(f"{line}\n" for line in lines).encode()


def _keys(report: Statement) -> Iterator[str]:
    signer = report.predicate["signer"]
    role = f" {signing.AUDITOR}" if signer["role"] == "auditor" else ""
    yield from (f"# {_ROLES[signer['role']]}", signer["public_key"] + role)
    for entry in report.predicate["cosigners"]:
        yield from (f"# {entry['site']}", f"{entry['public_key']} {signing.COSIGNER}")


def _signed(payload: bytes, decoded: Statement, problems: Sequence[str], key: signing.SigningKey) -> bytes:
    if decoded.public_key != key.public_key:
        raise ConfigError("the report names another signer than the key that signs it")
    if problems:
        raise ConfigError(f"the report contradicts itself: {problems[0]}")
    signed = envelope.sign(payload, key)
    if len(signed) > MAX_BYTES:
        raise ConfigError(f"the report would be larger than {MAX_BYTES // 2**20} MB, which nobody reads")
    return signed
