"""DSSE: the protocol's own vector, securesystemslib as the oracle in both directions, and one spelling only."""

import json
from typing import Any

import pytest
from securesystemslib.dsse import Envelope as OracleEnvelope
from securesystemslib.exceptions import VerificationError as OracleVerificationError

# Both are public; the package only forgets to say so to type checkers.
from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]

from privacy.audit import canonical, envelope
from privacy.errors import ConfigError, VerificationError
from privacy.keys.signing import SigningKey, keyid
from tests.privacy.audit.sample import KEY, OTHER_KEY

PAYLOAD = b'{"_type":"https://in-toto.io/Statement/v1"}'


def oracle_key(key: SigningKey) -> SSlibKey:
    return SSlibKey(key.keyid, "ed25519", "ed25519", {"public": key.public_key.hex()})


def test_pae_is_the_protocol_s_example() -> None:
    # protocol.md, "Test Vectors".
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert envelope.pae("http://example.com/HelloWorld", b"hello world") == expected


def test_pae_counts_bytes() -> None:
    assert envelope.pae("é", "é".encode()) == "DSSEv1 2 é 2 é".encode()


def test_securesystemslib_accepts_our_signature() -> None:
    oracle = OracleEnvelope.from_dict(json.loads(envelope.sign(PAYLOAD, KEY)))
    assert oracle.payload == PAYLOAD
    assert list(oracle.verify([oracle_key(KEY)], 1)) == [KEY.keyid]


def test_securesystemslib_refuses_our_signature_under_another_key() -> None:
    oracle = OracleEnvelope.from_dict(json.loads(envelope.sign(PAYLOAD, KEY)))
    impostor = SSlibKey(KEY.keyid, "ed25519", "ed25519", {"public": OTHER_KEY.public_key.hex()})
    with pytest.raises(OracleVerificationError):
        oracle.verify([impostor], 1)


def test_we_accept_securesystemslib_s_signature() -> None:
    signer = CryptoSigner.generate_ed25519()
    public = bytes.fromhex(signer.public_key.keyval["public"])
    oracle = OracleEnvelope(PAYLOAD, envelope.PAYLOAD_TYPE, {})
    oracle.sign(signer)
    body = oracle.to_dict()
    body["signatures"][0]["keyid"] = keyid(public)
    decoded = envelope.decode(canonical.dumps(body) + b"\n")
    assert decoded.payload == PAYLOAD
    envelope.check_signature(decoded, public)


def test_a_round_trip_keeps_everything() -> None:
    decoded = envelope.decode(envelope.sign(PAYLOAD, KEY))
    assert (decoded.payload, decoded.keyid, len(decoded.signature)) == (PAYLOAD, KEY.keyid, 64)
    envelope.check_signature(decoded, KEY.public_key)


def test_another_key_than_the_named_one_is_refused() -> None:
    with pytest.raises(VerificationError, match="another key"):
        envelope.check_signature(envelope.decode(envelope.sign(PAYLOAD, KEY)), OTHER_KEY.public_key)


def test_another_payload_under_the_same_signature_is_refused() -> None:
    decoded = envelope.decode(envelope.sign(PAYLOAD, KEY))
    other = envelope.Envelope(PAYLOAD + b" ", decoded.keyid, decoded.signature)
    with pytest.raises(VerificationError):
        envelope.check_signature(other, KEY.public_key)


def with_field(**changes: Any) -> bytes:
    body = json.loads(envelope.sign(PAYLOAD, KEY))
    for name, value in changes.items():
        if value is None:
            del body[name]
        else:
            body[name] = value
    return canonical.dumps(body) + b"\n"


SIGNATURE = json.loads(envelope.sign(PAYLOAD, KEY))["signatures"][0]
WRONG = {
    "no newline": envelope.sign(PAYLOAD, KEY)[:-1],
    "two newlines": envelope.sign(PAYLOAD, KEY) + b"\n",
    "not an object": b"[]\n",
    "missing field": with_field(signatures=None),
    "extra field": with_field(extra=1),
    "other payload type": with_field(payloadType="application/json"),
    "payload of another type": with_field(payload=7),
    "broken base64": with_field(payload="a"),
    "URL alphabet": with_field(payload="_-=="),
    "spare bits set": with_field(payload="QR=="),
    "base64 beyond ASCII": with_field(payload="äöüß"),
    "no signature": with_field(signatures=[]),
    "two signatures": with_field(signatures=[SIGNATURE, SIGNATURE]),
    "signatures not a list": with_field(signatures={"0": SIGNATURE}),
    "signature with a certificate": with_field(signatures=[{**SIGNATURE, "cert": ""}]),
    "keyid in capitals": with_field(signatures=[{**SIGNATURE, "keyid": SIGNATURE["keyid"].upper()}]),
    "keyid not a text": with_field(signatures=[{**SIGNATURE, "keyid": 5}]),
    "signature not a text": with_field(signatures=[{**SIGNATURE, "sig": None}]),
}


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG.keys())
def test_anything_but_the_one_spelling_is_refused(data: bytes) -> None:
    with pytest.raises(ConfigError):
        envelope.decode(data)
