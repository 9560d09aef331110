"""A federation's root and leaves for tests; the clock and the randomness are fixed unless a test says otherwise."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from privacy.enrolment.certificates import Holder, Role, default_dns, issue_leaf, key_from, new_request, new_root

NOW = datetime.now(UTC).replace(microsecond=0)  # TLS looks at the real clock
DAY = timedelta(days=1)
P256 = ec.SECP256R1()


def holder(site: str = "berlin", role: Role = Role.SITE, federation: str = "hearts") -> Holder:
    return Holder(federation, site, default_dns(federation, site), role)


def key(number: int) -> ec.EllipticCurvePrivateKey:
    return key_from(number.to_bytes(40, "big"), P256)


@dataclass(frozen=True)
class Authority:
    key: ec.EllipticCurvePrivateKey
    root: x509.Certificate

    @classmethod
    def of(cls, number: int = 1, federation: str = "hearts", start: datetime = NOW - 9 * DAY) -> "Authority":
        end = start + 3650 * DAY
        root = new_root(key(number), federation, serial=number.to_bytes(16, "big"), start=start, end=end)
        return cls(key(number), root)

    def leaf(
        self,
        whom: Holder,
        leaf_key: ec.EllipticCurvePrivateKey,
        *,
        start: datetime = NOW - DAY,
        end: datetime = NOW + 90 * DAY,
        serial: int = 77,
    ) -> x509.Certificate:
        request = new_request(leaf_key, whom)
        return issue_leaf(
            request,
            whom,
            root=self.root,
            root_key=self.key,
            serial=serial.to_bytes(16, "big"),
            start=start,
            end=end,
        )

    def resigned(self, leaf: x509.Certificate, **changes: x509.ExtensionType | None) -> x509.Certificate:
        """Signs a copy of ``leaf`` with extensions, by their class names, exchanged or dropped."""
        return resigned(leaf, self.key, **changes)


def resigned(
    leaf: x509.Certificate, by: ec.EllipticCurvePrivateKey, **changes: x509.ExtensionType | None
) -> x509.Certificate:
    builder = x509.CertificateBuilder(
        issuer_name=leaf.issuer,
        subject_name=leaf.subject,
        public_key=leaf.public_key(),
        serial_number=leaf.serial_number,
        not_valid_before=leaf.not_valid_before_utc.replace(tzinfo=None),
        not_valid_after=leaf.not_valid_after_utc.replace(tzinfo=None),
    )
    for one in leaf.extensions:
        value = changes.get(type(one.value).__name__, one.value)
        if value is not None:
            builder = builder.add_extension(value, one.critical)
    return builder.sign(by, SHA256())
