"""DSSE envelopes with one Ed25519 signature, in a file that has exactly one valid spelling.

``payload`` is what is signed, ``keyid`` is the SHA-256 of the raw public key. The file is RFC 8785 JSON and a newline,
and base64 is canonical, so a changed byte anywhere, even in white space or padding, is found.

See: https://github.com/secure-systems-lab/dsse/blob/master/protocol.md (v1).
"""

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any

from privacy.audit import canonical
from privacy.errors import ConfigError, VerificationError
from privacy.keys import signing

PAYLOAD_TYPE = "application/vnd.in-toto+json"

_KEYID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Envelope:
    """A decoded envelope; all fields are public, none is verified yet."""

    payload: bytes
    keyid: str
    signature: bytes


def pae(payload_type: str, payload: bytes) -> bytes:
    """Returns DSSE's pre-authentication encoding, the bytes that are signed (protocol.md, "Signature Definition")."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(payload: bytes, key: signing.SigningKey, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """Signs ``payload`` and returns the bytes of the envelope file."""
    signature = key.sign(pae(payload_type, payload))
    body = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": payload_type,
        "signatures": [{"keyid": key.keyid, "sig": base64.b64encode(signature).decode()}],
    }
    return canonical.dumps(body) + b"\n"


def decode(data: bytes, payload_type: str = PAYLOAD_TYPE) -> Envelope:
    """Reads an envelope file of one type from a stranger; nothing is verified.

    Raises: ConfigError: Anything but the one spelling that ``sign`` writes.
    """
    if not data.endswith(b"\n"):
        raise ConfigError("the envelope does not end in a newline: it is cut short or was edited")
    body = _exact(canonical.loads(data[:-1], what="the envelope"), {"payload", "payloadType", "signatures"})
    if body["payloadType"] != payload_type:
        raise ConfigError(f"the envelope holds something other than {payload_type}")
    signatures = body["signatures"]
    if not isinstance(signatures, list) or len(signatures) != 1:
        raise ConfigError("the envelope must hold exactly one signature")
    entry = _exact(signatures[0], {"keyid", "sig"})
    if not isinstance(entry["keyid"], str) or not _KEYID.fullmatch(entry["keyid"]):
        raise ConfigError("the envelope's keyid is not a SHA-256 in hex")
    return Envelope(payload=decode_base64(body["payload"]), keyid=entry["keyid"], signature=decode_base64(entry["sig"]))


def check_signature(envelope: Envelope, public_key: bytes, payload_type: str = PAYLOAD_TYPE) -> None:
    """Checks the envelope's signature under one raw public key.

    Raises: VerificationError: The key is not the one named, or the signature does not fit.
    """
    if signing.keyid(public_key) != envelope.keyid:
        raise VerificationError("the envelope names another key than the one that must have signed it")
    signing.verify(public_key, envelope.signature, pae(payload_type, envelope.payload))


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


def _exact(value: Any, keys: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != keys:
        raise ConfigError(f"not a report envelope: expected exactly the fields {', '.join(sorted(keys))}")
    return value
