"""DSSE: the protocol's own vector, securesystemslib as the oracle in both directions, and one spelling only."""

import json
from dataclasses import replace
from typing import Any

import pytest
from securesystemslib.dsse import Envelope as OracleEnvelope
from securesystemslib.exceptions import VerificationError as OracleVerificationError

# Both are public; the package only forgets to say so to type checkers.
from securesystemslib.signer import CryptoSigner, Key, SSlibKey  # type: ignore[attr-defined]

from privacy.audit import canonical, envelope
from privacy.errors import ConfigError, VerificationError
from privacy.keys.signing import SigningKey, keyid
from tests.privacy.audit.sample import KEY, OTHER_KEY

PAYLOAD = b'{"_type":"https://in-toto.io/Statement/v1"}'
THIRD_KEY = SigningKey(bytes([3]) * 32)
SIGNED_BY_ALL = envelope.add(envelope.add(envelope.sign(PAYLOAD, KEY), OTHER_KEY), THIRD_KEY)


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


def test_securesystemslib_accepts_all_signatures_of_an_envelope() -> None:
    data = envelope.add(envelope.add(envelope.sign(PAYLOAD, KEY), OTHER_KEY), THIRD_KEY)
    oracle = OracleEnvelope.from_dict(json.loads(data))
    keys: list[Key] = [oracle_key(key) for key in (KEY, OTHER_KEY, THIRD_KEY)]
    assert set(oracle.verify(keys, 3)) == {key.keyid for key in keys}
    with pytest.raises(OracleVerificationError):
        oracle.verify([*keys[:2], oracle_key(SigningKey(bytes(32)))], 3)


def test_we_accept_securesystemslib_s_signatures() -> None:
    oracle = OracleEnvelope(PAYLOAD, envelope.PAYLOAD_TYPE, {})
    public = []
    for signer in (CryptoSigner.generate_ed25519(), CryptoSigner.generate_ed25519()):
        public.append(bytes.fromhex(signer.public_key.keyval["public"]))
        oracle.sign(signer)
    body = oracle.to_dict()
    for signature, key in zip(body["signatures"], public, strict=True):
        signature["keyid"] = keyid(key)
    body["signatures"].sort(key=lambda signature: signature["keyid"])
    decoded = envelope.decode(canonical.dumps(body) + b"\n")
    assert decoded.payload == PAYLOAD
    assert envelope.check_signatures(decoded, public) == ()


def test_a_round_trip_keeps_everything() -> None:
    decoded = envelope.decode(envelope.sign(PAYLOAD, KEY))
    assert (decoded.payload, decoded.keyids, len(decoded.signatures[0].value)) == (PAYLOAD, (KEY.keyid,), 64)
    envelope.check_only_signature(decoded, KEY.public_key, envelope.PAYLOAD_TYPE)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_the_order_of_signing_does_not_show(order: tuple[int, int, int]) -> None:
    keys = [(KEY, OTHER_KEY, THIRD_KEY)[place] for place in order]
    data = envelope.sign(PAYLOAD, keys[0])
    for key in keys[1:]:
        data = envelope.add(data, key)
    assert data == SIGNED_BY_ALL
    assert list(envelope.decode(data).keyids) == sorted(key.keyid for key in keys)


def test_signing_twice_changes_nothing() -> None:
    assert envelope.add(SIGNED_BY_ALL, OTHER_KEY) == SIGNED_BY_ALL


def test_a_signature_by_another_key_is_not_added() -> None:
    signature = OTHER_KEY.sign(envelope.pae(envelope.PAYLOAD_TYPE, PAYLOAD))
    data = envelope.sign(PAYLOAD, KEY)
    assert envelope.add_signature(data, OTHER_KEY.public_key, signature) == envelope.add(data, OTHER_KEY)
    with pytest.raises(VerificationError):
        envelope.add_signature(data, THIRD_KEY.public_key, signature)
    with pytest.raises(VerificationError):
        envelope.add_signature(data, OTHER_KEY.public_key, OTHER_KEY.sign(PAYLOAD))


def test_an_envelope_takes_so_many_signatures_and_no_more() -> None:
    data = envelope.sign(PAYLOAD, KEY)
    for number in range(envelope.MOST_SIGNATURES - 1):
        data = envelope.add(data, SigningKey(number.to_bytes(32, "big")))
    assert len(envelope.decode(data).signatures) == envelope.MOST_SIGNATURES
    with pytest.raises(ConfigError, match="takes no more"):
        envelope.add(data, OTHER_KEY)


def test_every_signature_of_a_known_key_is_checked_and_strangers_are_named() -> None:
    decoded = envelope.decode(SIGNED_BY_ALL)
    everybody = [KEY.public_key, OTHER_KEY.public_key, THIRD_KEY.public_key]
    assert envelope.check_signatures(decoded, everybody) == ()
    assert envelope.check_signatures(decoded, everybody[:2]) == (THIRD_KEY.keyid,)
    for place, signature in enumerate(decoded.signatures):
        forged = [*decoded.signatures]
        forged[place] = replace(signature, value=decoded.signatures[place - 1].value)
        with pytest.raises(VerificationError):
            envelope.check_signatures(replace(decoded, signatures=tuple(forged)), everybody)


def test_a_second_signature_is_refused_where_one_key_must_sign() -> None:
    for data in (envelope.sign(PAYLOAD, OTHER_KEY), SIGNED_BY_ALL):
        with pytest.raises(VerificationError, match="the one key"):
            envelope.check_only_signature(envelope.decode(data), KEY.public_key, envelope.PAYLOAD_TYPE)


def test_another_payload_under_the_same_signature_is_refused() -> None:
    other = replace(envelope.decode(envelope.sign(PAYLOAD, KEY)), payload=PAYLOAD + b" ")
    with pytest.raises(VerificationError):
        envelope.check_only_signature(other, KEY.public_key, envelope.PAYLOAD_TYPE)
    with pytest.raises(VerificationError):
        envelope.check_signatures(other, [KEY.public_key])


def with_field(**changes: Any) -> bytes:
    body = json.loads(envelope.sign(PAYLOAD, KEY))
    for name, value in changes.items():
        if value is None:
            del body[name]
        else:
            body[name] = value
    return canonical.dumps(body) + b"\n"


SIGNATURE = json.loads(envelope.sign(PAYLOAD, KEY))["signatures"][0]
THREE = json.loads(SIGNED_BY_ALL)["signatures"]
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
    "one signature twice": with_field(signatures=[SIGNATURE, SIGNATURE]),
    "two signatures by one key": with_field(signatures=[SIGNATURE, {**SIGNATURE, "sig": THREE[0]["sig"]}]),
    "signatures in another order": with_field(signatures=THREE[::-1]),
    "too many signatures": with_field(
        signatures=[{"keyid": f"{number:064x}", "sig": ""} for number in range(envelope.MOST_SIGNATURES + 1)]
    ),
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
