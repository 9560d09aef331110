"""What a site sends to be enrolled: three public keys and a certificate request, each shown to be in its hands.

The bundle is canonical JSON, ``enrol-<site>.json``. The identity key and the Flower key both sign all of it, and the
request inside is signed by the TLS key, so nobody can enrol with a key that is another site's. Whether the identity
is the right one is told by a person who compares its key id over another channel.
"""

import base64
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from privacy.audit import canonical
from privacy.audit.envelope import decode_base64, pae
from privacy.enrolment.certificates import Holder, Role, check_request, new_request, read_request
from privacy.errors import ConfigError, VerificationError
from privacy.keys import signing

SCHEMA = "collegium/enrolment/v1"
MAX_BUNDLE_BYTES = 65_536
_KIND = "application/vnd.collegium.enrolment+json"
_SIGNED = frozenset({"schema", "federation", "role", "id", "dns", "identity", "flower", "request"})
_SIGNATURES = frozenset({"signature", "flower_signature"})


@dataclass(frozen=True)
class Enrolment:
    """A bundle whose three keys have all signed; all public.

    Attributes:
      holder: Who it says it is.
      identity: Raw Ed25519 key, 32 bytes: signs FSA1 messages and the charter.
      flower: Flower's node key (P-384) as its header ``flwr-public-key`` spells it: base64 of PEM.
      request: The certificate request for the TLS key, checked against ``holder``.
    """

    holder: Holder
    identity: bytes
    flower: str
    request: x509.CertificateSigningRequest


def flower_key(public: ec.EllipticCurvePublicKey) -> str:
    """Spells a node key as Flower's HTTP header does."""
    return base64.b64encode(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)).decode()


def new_bundle(
    holder: Holder,
    *,
    identity: signing.SigningKey,
    tls: ec.EllipticCurvePrivateKey,
    flower: ec.EllipticCurvePrivateKey,
) -> bytes:
    """Returns the bytes of the bundle file; safe to send, no private key is in it."""
    request = new_request(tls, holder).public_bytes(Encoding.DER)
    body = {
        "schema": SCHEMA,
        "federation": holder.federation,
        "role": str(holder.role),
        "id": holder.id,
        "dns": holder.dns,
        "identity": base64.b64encode(identity.public_key).decode(),
        "flower": flower_key(flower.public_key()),
        "request": base64.b64encode(request).decode(),
    }
    signed = _signed(body)
    signatures = {
        "signature": base64.b64encode(identity.sign(signed)).decode(),
        "flower_signature": base64.b64encode(flower.sign(signed, ec.ECDSA(SHA256()))).decode(),
    }
    return canonical.dumps({**body, **signatures}) + b"\n"


def read_bundle(data: bytes) -> Enrolment:
    """Reads a bundle from a stranger and checks its signatures and its request.

    Raises:
      ConfigError: Not such a file.
      VerificationError: A signature does not fit, or the request is for somebody else.
    """
    if len(data) > MAX_BUNDLE_BYTES or not data.endswith(b"\n"):
        raise ConfigError("the enrolment request is cut short or too large")
    body = canonical.loads(data[:-1], what="the enrolment request")
    if not isinstance(body, dict) or set(body) != _SIGNED | _SIGNATURES or body["schema"] != SCHEMA:
        raise ConfigError(f"this is not an enrolment request ({SCHEMA})")
    if not all(isinstance(value, str) for value in body.values()) or body["role"] not in list(Role):
        raise ConfigError("the enrolment request names an unknown role")
    holder = Holder(body["federation"], body["id"], body["dns"], Role(body["role"]))
    identity = decode_base64(body["identity"])
    signed = _signed({key: body[key] for key in _SIGNED})
    signing.verify(identity, decode_base64(body["signature"]), signed)
    _check_flower(body["flower"], decode_base64(body["flower_signature"]), signed)
    request = read_request(decode_base64(body["request"]))
    check_request(request, holder)
    return Enrolment(holder, identity, body["flower"], request)


def _signed(body: dict[str, Any]) -> bytes:
    return pae(_KIND, canonical.dumps(body))


def _check_flower(spelled: str, signature: bytes, signed: bytes) -> None:
    try:
        key = load_pem_public_key(decode_base64(spelled))
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError("the Flower key of the enrolment request cannot be read") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp384r1" or flower_key(key) != spelled:
        raise ConfigError("the Flower key of the enrolment request is not a P-384 key in its one spelling")
    try:
        key.verify(signature, signed, ec.ECDSA(SHA256()))
    except InvalidSignature:
        raise VerificationError("the enrolment request is not signed by its Flower key") from None
