"""Whose signatures a charter carries, and whether they are enough.

The file is a DSSE envelope with one Ed25519 signature an officer, in the order of key ids. A version is adopted with k
signatures by its own rule. A later version needs, besides, k signatures of officers of the version *before*, by the
rule of that version: so nobody who was not already trusted, the server above all, can add a site. And every officer
who is new signs it as well: that shows that somebody holds the key and agrees, so that the m of the rule are real.
That the two rules must both be met is how TUF changes its root (specification 5.3.4).
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from privacy.audit import canonical
from privacy.audit.envelope import decode_base64, pae
from privacy.charter.document import MAX_BYTES, Charter, Officer, parse, refuse_unless
from privacy.errors import VerificationError
from privacy.keys import signing
from privacy.secagg.encoding import in_order

PAYLOAD_TYPE = "application/vnd.collegium.charter+json"
MAX_FILE_BYTES = 2 * MAX_BYTES


@dataclass(frozen=True)
class SignedCharter:
    """A charter with signatures by key id, none verified yet; all public."""

    charter: Charter
    signatures: Mapping[str, bytes]

    def encode(self) -> bytes:
        """Returns the bytes of the file."""
        listed = [
            {"keyid": keyid, "sig": base64.b64encode(self.signatures[keyid]).decode()}
            for keyid in sorted(self.signatures)
        ]
        payload = base64.b64encode(self.charter.payload).decode()
        body = {"payload": payload, "payloadType": PAYLOAD_TYPE, "signatures": listed}
        return canonical.dumps(body) + b"\n"

    def signed_by(self, key: signing.SigningKey) -> "SignedCharter":
        """Returns the same with the signature of one more key."""
        signature = key.sign(pae(PAYLOAD_TYPE, self.charter.payload))
        return replace(self, signatures={**self.signatures, key.keyid: signature})


def decode(data: bytes) -> SignedCharter:
    """Reads a charter file from a stranger; no signature is verified.

    Raises: ConfigError: Another spelling, or a charter that breaks a rule.
    """
    refuse_unless(len(data) <= MAX_FILE_BYTES, "the charter file is too large")
    refuse_unless(data.endswith(b"\n"), "the charter file does not end in a newline: it is cut short or was edited")
    body = _exactly(canonical.loads(data[:-1], what="the charter file"), {"payload", "payloadType", "signatures"})
    refuse_unless(body["payloadType"] == PAYLOAD_TYPE, "the file holds something other than a charter")
    refuse_unless(isinstance(body["signatures"], list), "the signatures are not a list")
    entries = [_exactly(entry, {"keyid", "sig"}) for entry in body["signatures"]]
    keyids = [entry["keyid"] for entry in entries]
    refuse_unless(all(isinstance(keyid, str) for keyid in keyids), "a key id is not text")
    refuse_unless(in_order(keyids), "the signatures are not in the order of key ids, or one is there twice")
    charter = parse(decode_base64(body["payload"]))
    return SignedCharter(charter, {entry["keyid"]: decode_base64(entry["sig"]) for entry in entries})


def signers(signed: SignedCharter, previous: Charter | None = None) -> tuple[Officer, ...]:
    """Returns the officers, of this version or of ``previous``, whose signatures hold, by name.

    Raises: VerificationError: A signature does not hold, or its key belongs to no such officer.
    """
    known = {officer.keyid: officer for officer in (() if previous is None else previous.officers)}
    known |= {officer.keyid: officer for officer in signed.charter.officers}
    for keyid, signature in signed.signatures.items():
        if keyid not in known:
            raise VerificationError(
                f"key {keyid[:16]} signed the charter and is no officer's",
                hint="If it is an officer of the version before, name that file with --previous.",
            )
        try:
            signing.verify(known[keyid].key, signature, pae(PAYLOAD_TYPE, signed.charter.payload))
        except VerificationError:
            raise VerificationError(f"the signature of {known[keyid].name} does not hold") from None
    return tuple(sorted((known[keyid] for keyid in signed.signatures), key=lambda officer: officer.name))


def missing(signed: SignedCharter, previous: Charter | None = None) -> list[str]:
    """Returns what is still missing, a plain line each; nothing when the charter is adopted.

    Raises: VerificationError: A signature is wrong, or ``previous`` is not the version before.
    """
    charter = signed.charter
    if previous is not None:
        _check_step(previous, charter)
    held = {officer.keyid for officer in signers(signed, previous)}
    own = {officer.keyid for officer in charter.officers}
    lacks = [_short(charter, len(held & own), "its own officers")]
    if previous is not None:
        before = {officer.keyid for officer in previous.officers}
        lacks.append(_short(previous, len(held & before), f"the officers of version {previous.version}"))
        new = [officer for officer in charter.officers if officer.keyid not in before | held]
        lacks += [f"{officer.name} is new and has not signed" for officer in new]
    elif charter.version > 1:
        lacks.append(f"version {charter.version - 1} was not given, so whether its officers agreed is unknown")
    return [line for line in lacks if line]


def verify_chain(charters: Sequence[SignedCharter]) -> Charter:
    """Checks versions in their order, each against the one before, and returns the last.

    Args:
      charters: All versions from the first on.

    Raises: VerificationError: No charter, a version that does not follow, or too few signatures.
    """
    if not charters:
        raise VerificationError("there is no charter")
    lacks = missing(charters[0])
    for before, after in pairwise(charters):
        lacks += missing(after, before.charter)
    if lacks:
        raise VerificationError(f"the charter is not adopted: {lacks[0]}", hint="collegium federation show says more.")
    return charters[-1].charter


def _short(charter: Charter, n: int, whose: str) -> str:
    lack = charter.signatures - n
    return f"{lack} more of {whose} must sign ({n} of {charter.signatures} have)" if lack > 0 else ""


def _check_step(previous: Charter, charter: Charter) -> None:
    if charter.federation != previous.federation:
        raise VerificationError(f"{charter.federation} does not continue the charter of {previous.federation}")
    if charter.version != previous.version + 1:
        raise VerificationError(f"version {charter.version} does not follow version {previous.version}")
    if charter.previous != previous.digest:
        raise VerificationError(f"version {charter.version} names another version {previous.version} as the one before")
    if not set(previous.revoked) <= set(charter.revoked):
        raise VerificationError(f"version {charter.version} would let certificates count again that were revoked")


def _exactly(value: Any, keys: set[str]) -> dict[str, Any]:
    refuse_unless(isinstance(value, dict) and set(value) == keys, "not a charter file")
    found: dict[str, Any] = value
    return found
