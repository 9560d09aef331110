"""Certificates against three judges from elsewhere: OpenSSL's handshake, OpenSSL's printer, cryptography's verifier."""

import ssl
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from privacy.enrolment.certificates import (
    MAX_CERTIFICATE_BYTES,
    Holder,
    Role,
    Usage,
    check_leaf,
    check_request,
    check_root,
    fingerprint,
    holder_of,
    issue_leaf,
    key_from,
    new_request,
    new_root,
    read_certificate,
    read_request,
    seed_bytes,
)
from privacy.errors import ConfigError, VerificationError
from tests.privacy.enrolment.issuing import DAY, NOW, P256, Authority, holder, key, resigned

OURS, OTHERS = Authority.of(1), Authority.of(2)
BERLIN, PARIS, HUB = holder("berlin"), holder("paris"), holder("hub", Role.SERVER)
LEAF = OURS.leaf(BERLIN, key(10))


def checked(
    leaf: x509.Certificate,
    *,
    root: x509.Certificate = OURS.root,
    now: datetime = NOW,
    whom: Holder = BERLIN,
    usage: Usage = Usage.CLIENT,
    revoked: tuple[int, ...] = (),
) -> None:
    check_leaf(leaf, root, now=now, holder=whom, usage=usage, revoked=revoked)


# What is right passes, by us and by cryptography's own verifier.


def by_cryptography(leaf: x509.Certificate, root: x509.Certificate, now: datetime, whom: Holder, usage: Usage) -> bool:
    builder = verification.PolicyBuilder().store(verification.Store([root])).time(now)
    try:
        if usage is Usage.SERVER:
            builder.build_server_verifier(x509.DNSName(whom.dns)).verify(leaf, [])
        else:
            names = builder.build_client_verifier().verify(leaf, []).subjects or []
            return x509.UniformResourceIdentifier(whom.uri) in names
    except verification.VerificationError:
        return False
    return True


CASES: dict[str, tuple[x509.Certificate, datetime, Holder, Usage, str]] = {
    "a site as a client": (LEAF, NOW, BERLIN, Usage.CLIENT, ""),
    "a site as a server": (LEAF, NOW, BERLIN, Usage.SERVER, ""),
    "the coordinator": (OURS.leaf(HUB, key(11)), NOW, HUB, Usage.SERVER, ""),
    "its first second": (LEAF, NOW - DAY, BERLIN, Usage.CLIENT, ""),
    "its last second": (LEAF, NOW + 90 * DAY, BERLIN, Usage.CLIENT, ""),
    "the coordinator as a client": (OURS.leaf(HUB, key(11)), NOW, HUB, Usage.CLIENT, "not for use as a client"),
    "wrong CA": (OTHERS.leaf(BERLIN, key(10)), NOW, BERLIN, Usage.CLIENT, "not issued by this federation's root"),
    "not yet valid": (LEAF, NOW - DAY - timedelta(seconds=1), BERLIN, Usage.CLIENT, "not valid before"),
    "expired": (LEAF, NOW + 90 * DAY + timedelta(seconds=1), BERLIN, Usage.CLIENT, "expired on"),
    "another site's": (LEAF, NOW, PARIS, Usage.CLIENT, "that of spiffe://hearts/site/berlin, not of"),
    "another site's, serving": (LEAF, NOW, PARIS, Usage.SERVER, "that of spiffe://hearts/site/berlin, not of"),
    "another host": (LEAF, NOW, replace(BERLIN, dns="b.example.org"), Usage.SERVER, "is for the host"),
    "no usage": (
        OURS.resigned(LEAF, ExtendedKeyUsage=x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])),
        NOW,
        BERLIN,
        Usage.SERVER,
        "not for use as a server",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_leaves_are_judged_with_one_reason_and_as_cryptography_judges_them(case: str) -> None:
    leaf, now, whom, usage, reason = CASES[case]
    assert by_cryptography(leaf, OURS.root, now, whom, usage) is not bool(reason)
    if not reason:
        checked(leaf, now=now, whom=whom, usage=usage)
        return
    with pytest.raises(VerificationError, match=reason) as refused:
        checked(leaf, now=now, whom=whom, usage=usage)
    assert len(refused.value.lines()[0]) < 160


def test_a_clock_that_is_a_little_slow_is_hinted_at() -> None:
    with pytest.raises(VerificationError) as refused:
        checked(LEAF, now=NOW - DAY - timedelta(minutes=6))
    assert "clock" in refused.value.hint
    with pytest.raises(VerificationError) as refused:
        checked(LEAF, now=NOW - 3 * DAY)
    assert not refused.value.hint


def test_revoked_serials_are_refused() -> None:
    checked(LEAF, revoked=(78,))
    with pytest.raises(VerificationError, match="4d was revoked"):
        checked(LEAF, revoked=(78, 77))


def test_a_signature_of_another_root_with_the_same_name_is_refused() -> None:
    assert OTHERS.root.subject == OURS.root.subject
    with pytest.raises(VerificationError, match="not issued by"):
        checked(resigned(LEAF, OTHERS.key))


def test_the_issuer_of_another_name_is_refused() -> None:
    leaf = Authority(OURS.key, Authority.of(1, "lungs").root).leaf(holder(federation="lungs"), key(10))
    with pytest.raises(VerificationError, match="not issued by"):
        checked(leaf)


def test_nothing_but_a_leaf_on_p256_passes() -> None:
    for changed in (x509.BasicConstraints(ca=True, path_length=None), None):
        with pytest.raises(VerificationError, match="not a leaf"):
            checked(OURS.resigned(LEAF, BasicConstraints=changed))
    wide = x509.CertificateBuilder(
        issuer_name=LEAF.issuer,
        subject_name=LEAF.subject,
        public_key=ec.generate_private_key(ec.SECP384R1()).public_key(),
        serial_number=5,
        not_valid_before=NOW.replace(tzinfo=None),
        not_valid_after=(NOW + DAY).replace(tzinfo=None),
        extensions=list(LEAF.extensions),
    ).sign(OURS.key, SHA256())
    with pytest.raises(VerificationError, match="P-256"):
        checked(wide)


URI, DNS = x509.UniformResourceIdentifier, x509.DNSName


@pytest.mark.parametrize(
    "names",
    [
        None,
        [URI(BERLIN.uri)],
        [DNS(BERLIN.dns)],
        [URI(BERLIN.uri), DNS(BERLIN.dns), DNS("hub.hearts.internal")],
        [URI(BERLIN.uri), URI(PARIS.uri)],
        [DNS(BERLIN.uri), URI(BERLIN.dns)],
        [DNS(BERLIN.dns), URI(BERLIN.uri)],
        [URI("spiffe://hearts/person/berlin"), DNS(BERLIN.dns)],
        [URI("https://hearts/site/berlin"), DNS(BERLIN.dns)],
        [URI("spiffe://hearts/site/berlin/x"), DNS(BERLIN.dns)],
        [URI("spiffe:/x/hearts/site/berlin"), DNS(BERLIN.dns)],
        [URI("spiffe://hearts/site/Berlin"), DNS(BERLIN.dns)],
        [URI(BERLIN.uri), DNS("*.hearts.internal")],
        [URI(BERLIN.uri), x509.RFC822Name("a@hearts.internal")],
        [URI(BERLIN.uri), x509.OtherName(NameOID.COMMON_NAME, b"\x0c\x01a")],
    ],
)
def test_a_leaf_carries_exactly_two_names(names: list[x509.GeneralName] | None) -> None:
    changed = None if names is None else x509.SubjectAlternativeName(names)
    with pytest.raises(VerificationError, match="exactly the two names"):
        checked(OURS.resigned(LEAF, SubjectAlternativeName=changed))
    assert holder_of(LEAF) == BERLIN


def test_no_usage_extension_is_no_usage() -> None:
    with pytest.raises(VerificationError, match="not for use"):
        checked(OURS.resigned(LEAF, ExtendedKeyUsage=None))


def test_the_root_is_checked_too() -> None:
    with pytest.raises(VerificationError, match="not the root certificate"):
        checked(LEAF, root=LEAF)
    deep = x509.BasicConstraints(ca=True, path_length=1)
    for wrong in (
        OURS.resigned(OURS.root, BasicConstraints=deep),
        OURS.resigned(OURS.root, BasicConstraints=None),
        x509.CertificateBuilder(
            issuer_name=LEAF.subject,
            subject_name=LEAF.subject,
            public_key=OURS.key.public_key(),
            serial_number=5,
            not_valid_before=NOW.replace(tzinfo=None),
            not_valid_after=(NOW + DAY).replace(tzinfo=None),
            extensions=list(OURS.root.extensions),
        ).sign(OURS.key, SHA256()),
    ):
        with pytest.raises(VerificationError, match="not the root certificate"):
            check_root(wrong, now=NOW)
    with pytest.raises(VerificationError, match="not signed by its own key"):
        checked(LEAF, root=resigned(OURS.root, OTHERS.key))
    with pytest.raises(VerificationError, match="root certificate expired"):
        checked(LEAF, now=NOW + 4000 * DAY)
    with pytest.raises(ValueError, match="time zone"):
        checked(LEAF, now=NOW.replace(tzinfo=None))


# Requests.

REQUEST = new_request(key(10), BERLIN)


def requested(
    *extensions: x509.ExtensionType,
    by: CertificateIssuerPrivateKeyTypes | None = None,
    subject: x509.Name = REQUEST.subject,
    challenge: bool = False,
) -> x509.CertificateSigningRequest:
    builder = x509.CertificateSigningRequestBuilder(subject)
    for value in extensions:
        builder = builder.add_extension(value, critical=False)
    if challenge:
        builder = builder.add_attribute(x509.oid.AttributeOID.CHALLENGE_PASSWORD, b"please")
    return builder.sign(key(10) if by is None else by, SHA256())


NAMES = x509.SubjectAlternativeName([URI(BERLIN.uri), DNS(BERLIN.dns)])
NOT_OURS = {
    "a wide curve": (requested(NAMES, by=ec.generate_private_key(ec.SECP384R1())), "not on P-256"),
    "RSA": (requested(NAMES, by=rsa.generate_private_key(65537, 2048)), "not on P-256"),
    "CA": (requested(NAMES, x509.BasicConstraints(ca=True, path_length=None)), "could sign others"),
    "a usage": (requested(NAMES, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])), "more than names"),
    "not a CA, said": (requested(NAMES, x509.BasicConstraints(ca=False, path_length=None)), "more than names"),
    "no names": (requested(), "more than names"),
    "an attribute": (requested(NAMES, challenge=True), "more than names"),
    "another site": (new_request(key(10), PARIS), "not for spiffe://hearts/site/berlin at"),
    "the coordinator": (new_request(key(10), replace(BERLIN, role=Role.SERVER)), "not for spiffe://"),
    "another federation": (new_request(key(10), holder(federation="lungs")), "not for spiffe://"),
    "one host more": (requested(x509.SubjectAlternativeName([*NAMES, DNS(HUB.dns)])), "not for spiffe://"),
    "another subject": (requested(NAMES, subject=LEAF.issuer), "not for spiffe://"),
}


@pytest.mark.parametrize("case", NOT_OURS)
def test_requests_for_anything_else_are_refused_and_not_signed(case: str) -> None:
    request, reason = NOT_OURS[case]
    check_request(REQUEST, BERLIN)
    with pytest.raises(VerificationError, match=reason):
        check_request(request, BERLIN)
    with pytest.raises(VerificationError, match=reason):
        issued(request)


def test_a_request_for_a_key_that_is_not_in_hand_is_refused() -> None:
    der = REQUEST.public_bytes(Encoding.DER)
    stolen = der.replace(point(key(10)), point(key(12)))  # somebody else's public key, the old signature
    assert stolen != der
    with pytest.raises(VerificationError, match="not signed by the key it is for"):
        check_request(read_request(stolen), BERLIN)


def point(of: ec.EllipticCurvePrivateKey) -> bytes:
    numbers = of.public_key().public_numbers()
    return numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")


def issued(
    request: x509.CertificateSigningRequest = REQUEST,
    whom: Holder = BERLIN,
    *,
    root_key: ec.EllipticCurvePrivateKey = OURS.key,
    start: datetime = NOW,
    end: datetime = NOW + DAY,
    serial: bytes = bytes(16),
) -> x509.Certificate:
    return issue_leaf(request, whom, root=OURS.root, root_key=root_key, serial=serial, start=start, end=end)


def test_the_root_signs_only_what_it_can_stand_for() -> None:
    assert issued().serial_number > 0
    with pytest.raises(ConfigError, match="not that of hearts and its key"):
        issued(root_key=key(3))
    lungs = holder(federation="lungs")
    with pytest.raises(ConfigError, match="not that of lungs"):
        issued(new_request(key(10), lungs), lungs)
    with pytest.raises(ConfigError, match="the root ends on"):
        issued(end=NOW + 3650 * DAY)
    with pytest.raises(VerificationError, match="not valid before"):
        issued(start=NOW - 10 * DAY)
    with pytest.raises(ValueError, match="ends after it begins"):
        issued(end=NOW)
    with pytest.raises(ValueError, match="a serial has"):
        issued(serial=b"1")


@pytest.mark.parametrize(
    ("federation", "site", "dns"),
    [
        ("Hearts", "a", "a.b"),
        ("hearts", "a/b", "a.b"),
        ("hearts", "", "a.b"),
        ("hearts", "a", "A.b"),
        ("hearts", "a", "*.b"),
        ("hearts", "a", "a..b"),
        ("hearts", "a", ""),
        ("hearts", "a", "a.b."),
        ("hearts", "a", "-a.b"),
        ("hearts", "a", "127.0.0.1"),
        ("hearts", "a", "a.b\n"),
        ("hearts", "a", ".".join(["a" * 60] * 5)),
    ],
)
def test_names_that_could_be_read_in_two_ways_are_refused(federation: str, site: str, dns: str) -> None:
    with pytest.raises(ConfigError):
        Holder(federation, site, dns)


@pytest.mark.parametrize("name", ["lungs", "a" * 63])
def test_names_of_every_length_fit(name: str) -> None:
    whom = Holder(name, name, "localhost")
    authority = Authority.of(1, name)
    checked(authority.leaf(whom, key(10)), root=authority.root, whom=whom)


# Reading.


def test_reading_takes_one_certificate_and_anything_else_is_a_plain_error() -> None:
    pem, der = LEAF.public_bytes(Encoding.PEM), LEAF.public_bytes(Encoding.DER)
    assert read_certificate(pem) == read_certificate(der) == LEAF
    assert fingerprint(LEAF) == __import__("hashlib").sha256(der).hexdigest()
    for wrong in (pem + pem, b"", der[:-1], der + b"x", b"\x00" * (MAX_CERTIFICATE_BYTES + 1), b"-----BEGIN "):
        with pytest.raises(ConfigError):
            read_certificate(wrong)
    with pytest.raises(ConfigError):
        read_request(der)


def test_no_flipped_bit_is_accepted_or_crashes() -> None:
    der = LEAF.public_bytes(Encoding.DER)
    request = REQUEST.public_bytes(Encoding.DER)
    for position in range(len(der)):
        changed = bytearray(der)
        changed[position] ^= 1 << position % 8
        with pytest.raises((ConfigError, VerificationError)):
            checked(read_certificate(bytes(changed)))
    for position in range(len(request)):
        changed = bytearray(request)
        changed[position] ^= 1 << position % 8
        with pytest.raises((ConfigError, VerificationError)):
            check_request(read_request(bytes(changed)), BERLIN)


def test_keys_come_from_the_bytes_given_and_reach_both_ends_of_the_range() -> None:
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # SP 800-186, 3.2.1.3
    scalar: Callable[[int], int] = lambda number: key(number).private_numbers().private_value  # noqa: E731 - short
    assert (scalar(0), scalar(order - 2), scalar(order - 1)) == (1, order - 1, 1)
    assert seed_bytes(P256) == 40
    assert seed_bytes(ec.SECP384R1()) == 56
    with pytest.raises(ValueError, match="40 bytes"):
        key_from(bytes(32), P256)
    with pytest.raises(ConfigError):
        new_root(key(1), "Hearts", serial=bytes(16), start=NOW, end=NOW + DAY)


def test_openssl_prints_the_names_and_verifies_the_chain(tmp_path: Path) -> None:
    (tmp_path / "leaf.pem").write_bytes(LEAF.public_bytes(Encoding.PEM))
    (tmp_path / "root.pem").write_bytes(OURS.root.public_bytes(Encoding.PEM))
    try:
        shown = run(tmp_path, "x509", "-in", "leaf.pem", "-noout", "-text")
    except FileNotFoundError:
        pytest.skip("no openssl here")
    assert "URI:spiffe://hearts/site/berlin, DNS:berlin.hearts.internal" in shown
    assert "TLS Web Client Authentication, TLS Web Server Authentication" in shown
    for purpose in ("sslclient", "sslserver"):
        chain = ("-x509_strict", "-purpose", purpose, "-CAfile", "root.pem", "leaf.pem")
        assert run(tmp_path, "verify", *chain) == "leaf.pem: OK\n"


def run(folder: Path, *arguments: str) -> str:
    return subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


# A real handshake: TLS 1.3, both ends show a certificate, no sockets.


def context(
    side: int, folder: Path, name: str, leaf: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None
) -> ssl.SSLContext:
    made = ssl.SSLContext(side)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.verify_mode = ssl.CERT_REQUIRED
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    made.load_verify_locations(cadata=OURS.root.public_bytes(Encoding.DER))
    if leaf is not None:
        path = folder / name
        private = leaf[1].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path.write_bytes(private + leaf[0].public_bytes(Encoding.PEM))
        made.load_cert_chain(path)
    return made


def handshake(client: ssl.SSLContext, server: ssl.SSLContext, host: str) -> tuple[bytes, bytes]:
    """Shakes hands, sends a byte each way and returns what each end saw of the other's certificate (DER)."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    dialler = client.wrap_bio(to_client, to_server, server_hostname=host)
    listener = server.wrap_bio(to_server, to_client, server_side=True)
    left: list[Callable[[], object]] = [dialler.do_handshake, listener.do_handshake]
    left += [
        lambda: dialler.write(b"?"),
        lambda: listener.read(1),
        lambda: listener.write(b"!"),
        lambda: dialler.read(1),
    ]
    waited = 0
    while left and waited < 20:
        step = left.pop(0)
        try:
            step()
        except ssl.SSLWantReadError:
            left.insert(1, step)
            waited += 1
    assert dialler.version() == "TLSv1.3"
    return listener.getpeercert(True) or b"", dialler.getpeercert(True) or b""


HUB_KEY, SITE_KEY = key(20), key(21)
HUB_LEAF = OURS.leaf(HUB, HUB_KEY)
STALE = OURS.leaf(BERLIN, SITE_KEY, start=NOW - 5 * DAY, end=NOW - DAY)
EARLY = OURS.leaf(BERLIN, SITE_KEY, start=NOW + DAY, end=NOW + 2 * DAY)
FOREIGN = OTHERS.leaf(BERLIN, SITE_KEY)


def test_both_ends_accept_what_we_issue_and_see_whom_they_talk_to(tmp_path: Path) -> None:
    server = context(ssl.PROTOCOL_TLS_SERVER, tmp_path, "hub", (HUB_LEAF, HUB_KEY))
    client = context(ssl.PROTOCOL_TLS_CLIENT, tmp_path, "site", (OURS.leaf(BERLIN, SITE_KEY), SITE_KEY))
    seen_by_server, seen_by_client = handshake(client, server, HUB.dns)
    checked(read_certificate(seen_by_server), whom=BERLIN, usage=Usage.CLIENT)
    checked(read_certificate(seen_by_client), whom=HUB, usage=Usage.SERVER)
    # Two sites, of which one serves stages.
    peer = context(ssl.PROTOCOL_TLS_SERVER, tmp_path, "paris", (OURS.leaf(PARIS, key(22)), key(22)))
    checked(read_certificate(handshake(client, peer, PARIS.dns)[1]), whom=PARIS, usage=Usage.SERVER)


@pytest.mark.parametrize("leaf", [None, STALE, EARLY, FOREIGN, OURS.leaf(HUB, SITE_KEY)])
def test_the_listener_refuses_other_clients(tmp_path: Path, leaf: x509.Certificate | None) -> None:
    server = context(ssl.PROTOCOL_TLS_SERVER, tmp_path, "hub", (HUB_LEAF, HUB_KEY))
    client = context(ssl.PROTOCOL_TLS_CLIENT, tmp_path, "site", None if leaf is None else (leaf, SITE_KEY))
    with pytest.raises(ssl.SSLError):
        handshake(client, server, HUB.dns)
    if leaf is not None:
        with pytest.raises(VerificationError):
            checked(leaf)


@pytest.mark.parametrize("leaf", [STALE, EARLY, FOREIGN])
def test_the_dialler_refuses_other_servers(tmp_path: Path, leaf: x509.Certificate) -> None:
    server = context(ssl.PROTOCOL_TLS_SERVER, tmp_path, "hub", (leaf, SITE_KEY))
    client = context(ssl.PROTOCOL_TLS_CLIENT, tmp_path, "site", (OURS.leaf(PARIS, key(22)), key(22)))
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(client, server, BERLIN.dns)


def test_the_dialler_refuses_a_site_in_the_coordinators_place(tmp_path: Path) -> None:
    server = context(ssl.PROTOCOL_TLS_SERVER, tmp_path, "hub", (OURS.leaf(BERLIN, SITE_KEY), SITE_KEY))
    client = context(ssl.PROTOCOL_TLS_CLIENT, tmp_path, "site", (OURS.leaf(PARIS, key(22)), key(22)))
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(client, server, HUB.dns)


def test_a_signature_whose_last_bits_are_called_unused_is_refused() -> None:
    """The bits are zero, so the signature is the same; but one request would then have several spellings."""
    for number in range(200):  # ECDSA draws: about one signature in two ends in a zero bit
        der = new_request(key(number), BERLIN).public_bytes(Encoding.DER)
        at = len(der) - len(read_request(der).signature) - 1
        if der[-1] % 2 == 0:
            break
    changed = bytearray(der)
    changed[at] = 1
    assert x509.load_der_x509_csr(bytes(changed)).is_signature_valid
    with pytest.raises(ConfigError):
        read_request(bytes(changed))
