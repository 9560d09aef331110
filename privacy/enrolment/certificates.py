"""Certificates of one federation: an offline root, P-256 leaves under it, and requests that are checked before signing.

The clock and the randomness of keys and serials are arguments; only ECDSA's nonces come from the library. A leaf says
who holds it twice: ``spiffe://<federation>/<role>/<id>``, which is compared with the charter, and one DNS name, which a
dialler pins. A site's leaf serves both ends (sites also serve stages to each other), the coordinator's only serves:
``check_leaf`` refuses it where a client is expected.

See: RFC 5280 (profile), RFC 2986 (requests), SPIFFE ID 2.1 (names), FIPS 186-5 A.2.1 (keys from bytes).
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from privacy.errors import ConfigError, VerificationError
from privacy.secagg.encoding import is_site_id

LEAF_DAYS = 90
ROOT_DAYS = 3650
OVERLAP_DAYS = 30
"""A leaf is renewed in its last days, and the old one stays good until its own end."""
SERIAL_BYTES = 16
MAX_CERTIFICATE_BYTES = 16_384

_ORDERS = {
    "secp256r1": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "secp384r1": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
}
_UNREADABLE = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class Role(StrEnum):
    """What a holder is in the federation; part of its name."""

    SITE = "site"
    SERVER = "server"


class Usage(StrEnum):
    """Which end of a connection a leaf stands for."""

    CLIENT = "client"
    SERVER = "server"


_USAGES = {Usage.CLIENT: ExtendedKeyUsageOID.CLIENT_AUTH, Usage.SERVER: ExtendedKeyUsageOID.SERVER_AUTH}
_OF_ROLE = {Role.SITE: (Usage.CLIENT, Usage.SERVER), Role.SERVER: (Usage.SERVER,)}


@dataclass(frozen=True)
class Holder:
    """Who a leaf stands for; all public.

    Attributes:
      federation: Name by the rules of site ids; the trust domain of the ``spiffe`` name.
      id: Site id.
      dns: Host name in lower case; need not resolve where the dialler pins it.
      role: Site, or the coordinator's server.

    Raises: ConfigError: A name that no certificate should carry.
    """

    federation: str
    id: str
    dns: str
    role: Role = Role.SITE

    def __post_init__(self) -> None:
        for what, value in (("federation", self.federation), ("site", self.id)):
            if not is_site_id(value):
                raise ConfigError(
                    f"{value!r} cannot name a {what}",
                    hint="Use a-z, 0-9 and hyphens, beginning with a letter or digit.",
                )
        labels = self.dns.split(".")
        # An all-digit last label would read as an IP address.
        if len(self.dns) > 253 or not all(map(_LABEL.fullmatch, labels)) or labels[-1].isdigit():
            raise ConfigError(f"{self.dns!r} is not a host name", hint="Use lower case, no wildcard, no IP address.")

    @property
    def uri(self) -> str:
        """The ``spiffe`` name."""
        return f"spiffe://{self.federation}/{self.role}/{self.id}"


def default_dns(federation: str, site: str) -> str:
    """Returns the name of a site that gives none; ``.internal`` never resolves in public, the dialler pins it."""
    return f"{site}.{federation}.internal"


def key_from(seed: bytes, curve: ec.EllipticCurve) -> ec.EllipticCurvePrivateKey:
    """Derives a private key from fresh random bytes, without bias that could be noticed.

    Args:
      seed: 64 more bits than the curve's order: ``seed_bytes(curve)``. Secret.
      curve: P-256 for TLS, P-384 for Flower's node authentication.
    """
    if len(seed) != seed_bytes(curve):
        raise ValueError(f"a key on {curve.name} is made of {seed_bytes(curve)} bytes")
    return ec.derive_private_key(int.from_bytes(seed, "big") % (_ORDERS[curve.name] - 1) + 1, curve)


def seed_bytes(curve: ec.EllipticCurve) -> int:
    """Returns how many random bytes make a key on ``curve``."""
    return curve.key_size // 8 + 8


def new_root(
    key: ec.EllipticCurvePrivateKey, federation: str, *, serial: bytes, start: datetime, end: datetime
) -> x509.Certificate:
    """Returns a self-signed root that may sign leaves and nothing that signs in turn."""
    Holder(federation, "root", "root")  # checks the name
    name = _subject(federation, "root")
    builder = _dated(x509.CertificateBuilder(), serial, start, end).subject_name(name).issuer_name(name)
    builder = builder.public_key(key.public_key())
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return builder.sign(key, SHA256())


def federation_of(root: x509.Certificate) -> str:
    """Returns the federation that a checked root stands for."""
    return str(root.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value)


def new_request(key: ec.EllipticCurvePrivateKey, holder: Holder) -> x509.CertificateSigningRequest:
    """Returns a request for ``holder``'s leaf, signed by the key it is for."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_subject(holder.federation, holder.id))
    return builder.add_extension(_names(holder), critical=False).sign(key, SHA256())


def check_request(request: x509.CertificateSigningRequest, holder: Holder) -> None:
    """Checks a request before anything is signed: the key is there, and nothing but the expected names is asked for.

    Args:
      request: Untrusted, from ``read_request``.
      holder: Who it must be for, by the charter or the person at the root; never taken from the request.

    Raises: VerificationError: With the one reason.
    """
    if not isinstance(request.public_key(), ec.EllipticCurvePublicKey) or _curve(request) != "secp256r1":
        raise VerificationError("the request is for a key that is not on P-256")
    if not request.is_signature_valid:
        raise VerificationError("the request is not signed by the key it is for")
    if any(isinstance(one.value, x509.BasicConstraints) and one.value.ca for one in request.extensions):
        raise VerificationError("the request asks for a certificate that could sign others")
    if [one.oid for one in request.extensions] != [x509.SubjectAlternativeName.oid] or len(request.attributes) != 1:
        raise VerificationError("the request asks for more than names")
    names = list(request.extensions[0].value)
    if request.subject != _subject(holder.federation, holder.id) or names != list(_names(holder)):
        raise VerificationError(f"the request is not for {holder.uri} at {holder.dns}")


def issue_leaf(
    request: x509.CertificateSigningRequest,
    holder: Holder,
    *,
    root: x509.Certificate,
    root_key: ec.EllipticCurvePrivateKey,
    serial: bytes,
    start: datetime,
    end: datetime,
) -> x509.Certificate:
    """Checks a request and returns the leaf: its key is all that is taken from it.

    Raises:
      VerificationError: The request, or the root at ``start``, does not hold.
      ConfigError: The root is of another federation, has another key, or would end before the leaf.
    """
    check_request(request, holder)
    check_root(root, now=start)
    if root.public_key() != root_key.public_key() or federation_of(root) != holder.federation:
        raise ConfigError(f"the root certificate is not that of {holder.federation} and its key")
    if end > root.not_valid_after_utc:
        raise ConfigError(f"the root ends on {root.not_valid_after_utc:%Y-%m-%d}, before the certificate would")
    key = request.public_key()
    root_id = root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    usages = [_USAGES[usage] for usage in _OF_ROLE[holder.role]]
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_key_usage(signs_certificates=False), True),
        (x509.ExtendedKeyUsage(usages), False),
        (_names(holder), False),
        (x509.SubjectKeyIdentifier.from_public_key(key), False),
        (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(root_id), False),
    )
    builder = _dated(x509.CertificateBuilder(), serial, start, end).issuer_name(root.subject)
    builder = builder.subject_name(_subject(holder.federation, holder.id)).public_key(key)
    for value, critical in extensions:
        builder = builder.add_extension(value, critical)
    return builder.sign(root_key, SHA256())


def check_root(root: x509.Certificate, *, now: datetime) -> None:
    """Checks that ``root`` has the shape of ``new_root`` and is in force; whether it is *the* root is a fingerprint.

    Raises: VerificationError: With the one reason.
    """
    extensions = {one.oid: one.value for one in root.extensions}
    constraints = extensions.get(x509.BasicConstraints.oid)
    names = root.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    if constraints != x509.BasicConstraints(ca=True, path_length=0) or not _same_name(root.subject, names):
        raise VerificationError("this is not the root certificate of a federation")
    if not _signed_by(root, root):
        raise VerificationError("the root certificate is not signed by its own key")
    _check_dates(root, now, "the root certificate")


def check_leaf(
    leaf: x509.Certificate,
    root: x509.Certificate,
    *,
    now: datetime,
    holder: Holder,
    usage: Usage,
    revoked: Collection[int] = (),
) -> None:
    """Checks a peer's leaf; returns nothing.

    Args:
      leaf: Untrusted, from ``read_certificate``.
      root: The pinned root.
      now: With a time zone.
      holder: Whom the charter expects at the other end.
      usage: Which end the peer is.
      revoked: Serial numbers that the charter took back.

    Raises: VerificationError: With the one reason, the first of: the root, its signature, revoked, dates, profile,
      usage, names.
    """
    check_root(root, now=now)
    if not _signed_by(leaf, root):  # names and signature
        raise VerificationError("the certificate was not issued by this federation's root")
    if leaf.serial_number in revoked:
        raise VerificationError(f"the certificate {leaf.serial_number:x} was revoked")
    _check_dates(leaf, now, "the certificate")
    extensions = {one.oid: one.value for one in leaf.extensions}
    plain = x509.BasicConstraints(ca=False, path_length=None)
    if extensions.get(x509.BasicConstraints.oid) != plain or _curve(leaf) != "secp256r1":
        raise VerificationError("the certificate is not a leaf on P-256")
    usages = extensions.get(x509.ExtendedKeyUsage.oid)
    if not isinstance(usages, x509.ExtendedKeyUsage) or _USAGES[usage] not in usages:
        raise VerificationError(f"the certificate is not for use as a {usage}")
    named = holder_of(leaf)
    if named.uri != holder.uri:
        raise VerificationError(f"the certificate is that of {named.uri}, not of {holder.uri}")
    if named.dns != holder.dns:
        raise VerificationError(f"the certificate is for the host {named.dns}, not for {holder.dns}")


def holder_of(leaf: x509.Certificate) -> Holder:
    """Returns whom a leaf names: exactly one ``spiffe`` name and one DNS name. Says nothing about who signed it.

    Raises: VerificationError: It carries other names, more, or fewer.
    """
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
        (dns,) = names.get_values_for_type(x509.DNSName)
        _, _, federation, role, site = uri.split("/")
        holder = Holder(federation, site, dns, Role(role))
        if list(names) == list(_names(holder)):
            return holder
    except (x509.ExtensionNotFound, ValueError, ConfigError):
        pass
    raise VerificationError("the certificate does not carry exactly the two names of a holder")


def read_certificate(data: bytes) -> x509.Certificate:
    """Reads one certificate, PEM or DER, from a stranger; nothing is verified.

    Raises: ConfigError: It is none, or parts of it cannot be read.
    """
    if len(data) > MAX_CERTIFICATE_BYTES or data.count(b"-----BEGIN ") > 1:
        raise ConfigError("this is more than one certificate")
    try:
        pem = data.startswith(b"-----BEGIN ")
        certificate = x509.load_pem_x509_certificate(data) if pem else x509.load_der_x509_certificate(data)
        _read_all(certificate)
    except _UNREADABLE:
        raise ConfigError("this is not one certificate that can be read") from None
    return certificate


def read_request(der: bytes) -> x509.CertificateSigningRequest:
    """Reads a request (DER) from a stranger; nothing is verified. Raises: ConfigError: It cannot be read."""
    try:
        request = x509.load_der_x509_csr(der)
        _read_all(request)
    except _UNREADABLE:
        raise ConfigError("this is not a certificate request that can be read") from None
    return request


def fingerprint(certificate: x509.Certificate) -> str:
    """Returns SHA-256 of the certificate in hex, what people compare."""
    return certificate.fingerprint(SHA256()).hex()


def _read_all(thing: x509.Certificate | x509.CertificateSigningRequest) -> None:
    """Reads what the library parses late, so that later checks meet values and not parser errors."""
    _ = (thing.subject.rfc4514_string(), list(thing.extensions), thing.public_key(), thing.signature_hash_algorithm)
    # A signature is whole bytes; the library would accept a bit string that calls its last, zero bits unused.
    if not thing.public_bytes(Encoding.DER).endswith(b"\x00" + thing.signature):
        raise ValueError("the signature is not whole bytes")
    if isinstance(thing, x509.Certificate):
        _ = (thing.issuer.rfc4514_string(), thing.not_valid_before_utc, thing.not_valid_after_utc)
    else:
        _ = (list(thing.attributes), thing.is_signature_valid)


def _subject(federation: str, site: str) -> x509.Name:
    named = ((NameOID.ORGANIZATION_NAME, federation), (NameOID.COMMON_NAME, site))
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in named])


def _same_name(subject: x509.Name, federations: list[x509.NameAttribute[str | bytes]]) -> bool:
    return len(federations) == 1 and subject == _subject(str(federations[0].value), "root")


def _names(holder: Holder) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(holder.uri), x509.DNSName(holder.dns)])


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _dated(builder: x509.CertificateBuilder, serial: bytes, start: datetime, end: datetime) -> x509.CertificateBuilder:
    if len(serial) != SERIAL_BYTES or not start < end:
        raise ValueError(f"a serial has {SERIAL_BYTES} bytes, and a certificate ends after it begins")
    builder = builder.not_valid_before(start.astimezone(UTC)).not_valid_after(end.astimezone(UTC))
    return builder.serial_number(int.from_bytes(serial, "big") | 1)  # never 0


def _curve(thing: x509.Certificate | x509.CertificateSigningRequest) -> str:
    key = thing.public_key()
    return key.curve.name if isinstance(key, ec.EllipticCurvePublicKey) else ""


def _signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _check_dates(certificate: x509.Certificate, now: datetime, what: str) -> None:
    if now.utcoffset() is None:
        raise ValueError("the time of a check needs a time zone")
    if now < certificate.not_valid_before_utc:
        late = certificate.not_valid_before_utc - now
        raise VerificationError(
            f"{what} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC",
            hint="Is this machine's clock right?" if late < timedelta(days=1) else "",
        )
    if now > certificate.not_valid_after_utc:
        raise VerificationError(f"{what} expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
