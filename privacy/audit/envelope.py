"""DSSE envelopes with Ed25519 signatures, in a file that has exactly one valid spelling.

``payload`` is what is signed, ``keyid`` is the SHA-256 of the raw public key. The file is RFC 8785 JSON and a newline,
base64 is canonical, and signatures stand in the order of their key ids, each key once, so a changed byte anywhere, even
in white space, padding or order, is found.

See: https://github.com/secure-systems-lab/dsse/blob/master/protocol.md (v1).
"""

import base64
import binascii
import re
from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from privacy.audit import canonical
from privacy.errors import ConfigError, VerificationError
from privacy.keys import signing

PAYLOAD_TYPE = "application/vnd.in-toto+json"
MOST_SIGNATURES = 128

_KEYID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Signature:
    """One signature and the key id that it names; public, not verified yet."""

    keyid: str
    value: bytes


@dataclass(frozen=True)
class Envelope:
    """A decoded envelope; all fields are public, none is verified yet.

    Attributes:
      signatures: 1 to ``MOST_SIGNATURES``, in the order of key ids, each key once.
    """

    payload: bytes
    signatures: tuple[Signature, ...]

    @property
    def keyids(self) -> tuple[str, ...]:
        """Whose signatures are there."""
        return tuple(signature.keyid for signature in self.signatures)


def pae(payload_type: str, payload: bytes) -> bytes:
    """Returns DSSE's pre-authentication encoding, the bytes that are signed (protocol.md, "Signature Definition")."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(payload: bytes, key: signing.SigningKey, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """Signs ``payload`` and returns the bytes of the envelope file."""
    signature = Signature(key.keyid, key.sign(pae(payload_type, payload)))
    return _encode(Envelope(payload, (signature,)), payload_type)


def add(data: bytes, key: signing.SigningKey) -> bytes:
    """Returns the report's envelope with the signature of one more key; unchanged if that key has signed already.

    Args:
      data: An envelope that ``sign`` or ``add`` wrote. Untrusted: of what is there, only the form is checked.
      key: Secret; it is not kept.

    Raises: ConfigError: It is no envelope, or there is no room.
    """
    return add_signature(data, key.public_key, key.sign(pae(PAYLOAD_TYPE, decode(data).payload)))


def add_signature(data: bytes, public_key: bytes, value: bytes) -> bytes:
    """Returns the report's envelope with a signature that somebody else made.

    Args:
      data: As for ``add``.
      public_key: Raw, whose signature it must be.
      value: The signature. Untrusted.

    Raises:
      ConfigError: ``data`` is no envelope, or there is no room.
      VerificationError: The signature does not fit.
    """
    found = decode(data)
    signing.verify(public_key, value, pae(PAYLOAD_TYPE, found.payload))
    keyid = signing.keyid(public_key)
    if keyid in found.keyids:
        return data
    if len(found.signatures) == MOST_SIGNATURES:
        raise ConfigError(f"the report has {MOST_SIGNATURES} signatures, and takes no more")
    everybody = sorted((*found.signatures, Signature(keyid, value)), key=lambda signature: signature.keyid)
    return _encode(Envelope(found.payload, tuple(everybody)), PAYLOAD_TYPE)


def decode(data: bytes, payload_type: str = PAYLOAD_TYPE) -> Envelope:
    """Reads an envelope file of one type from a stranger; nothing is verified.

    Raises: ConfigError: Anything but the one spelling that ``sign`` and ``add`` write.
    """
    if not data.endswith(b"\n"):
        raise ConfigError("the envelope does not end in a newline: it is cut short or was edited")
    body = _exact(canonical.loads(data[:-1], what="the envelope"), {"payload", "payloadType", "signatures"})
    if body["payloadType"] != payload_type:
        raise ConfigError(f"the envelope holds something other than {payload_type}")
    listed = body["signatures"]
    if not isinstance(listed, list) or not 1 <= len(listed) <= MOST_SIGNATURES:
        raise ConfigError(f"the envelope must hold 1 to {MOST_SIGNATURES} signatures")
    signatures = tuple(_signature(entry) for entry in listed)
    if any(first.keyid >= second.keyid for first, second in pairwise(signatures)):
        raise ConfigError("the envelope's signatures are not in the order of key ids, or one is there twice")
    return Envelope(decode_base64(body["payload"]), signatures)


def check_signatures(envelope: Envelope, keys: Collection[bytes]) -> tuple[str, ...]:
    """Checks every signature that one of ``keys`` should have made.

    Args:
      envelope: Of a report.
      keys: Raw public keys.

    Returns: Key ids of the signatures by none of ``keys``: about those nothing is known.
    Raises: VerificationError: A signature does not fit the key that it names.
    """
    known = {signing.keyid(key): key for key in keys}
    message = pae(PAYLOAD_TYPE, envelope.payload)
    for signature in envelope.signatures:
        if signature.keyid in known:
            signing.verify(known[signature.keyid], signature.value, message)
    return tuple(keyid for keyid in envelope.keyids if keyid not in known)


def check_only_signature(envelope: Envelope, public_key: bytes, payload_type: str) -> None:
    """Checks that one key, and nobody else, signed an envelope.

    Raises: VerificationError: Another key is named, or more than one, or the signature does not fit.
    """
    if envelope.keyids != (signing.keyid(public_key),):
        raise VerificationError("the envelope is not signed by the one key that must have signed it")
    signing.verify(public_key, envelope.signatures[0].value, pae(payload_type, envelope.payload))


def decode_base64(text: Any) -> bytes:
    """Decodes canonical base64: padded, standard alphabet, unused bits zero.

    Raises: ConfigError: Any other spelling.
    """
    if not isinstance(text, str):
        raise ConfigError("base64 must be a string")
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ConfigError("a value is not base64") from None
    if base64.b64encode(raw).decode() != text:
        raise ConfigError("a value is base64 that is not canonical")
    return raw


def _encode(envelope: Envelope, payload_type: str) -> bytes:
    body = {
        "payload": base64.b64encode(envelope.payload).decode(),
        "payloadType": payload_type,
        "signatures": [
            {"keyid": signature.keyid, "sig": base64.b64encode(signature.value).decode()}
            for signature in envelope.signatures
        ],
    }
    return canonical.dumps(body) + b"\n"


def _signature(value: Any) -> Signature:
    entry = _exact(value, {"keyid", "sig"})
    if not isinstance(entry["keyid"], str) or not _KEYID.fullmatch(entry["keyid"]):
        raise ConfigError("the envelope's keyid is not a SHA-256 in hex")
    return Signature(entry["keyid"], decode_base64(entry["sig"]))


def _exact(value: Any, keys: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != keys:
        raise ConfigError(f"not a report envelope: expected exactly the fields {', '.join(sorted(keys))}")
    return value
