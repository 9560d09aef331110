"""Ed25519 signatures over ``cryptography``: 32-byte public keys, 64-byte signatures, and no flag to forget.

Public keys travel raw; people compare key ids (SHA-256 of the raw key, hex). ``verify`` raises or returns nothing, so
that ignoring its result cannot accept a forgery.
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from privacy.errors import ConfigError, VerificationError

PUBLIC_KEY_BYTES = 32
SEED_BYTES = 32


class SigningKey:
    """A private Ed25519 key. Its ``repr`` shows the key id only, and it refuses to be pickled."""

    __slots__ = ("_private", "public_key")

    def __init__(self, seed: bytes) -> None:
        """Derives the key pair from its seed (RFC 8032, 5.1.5).

        Args:
          seed: 32 bytes, in production ``secrets.token_bytes(32)``. Secret.
        """
        if len(seed) != SEED_BYTES:
            raise ValueError(f"an Ed25519 seed has {SEED_BYTES} bytes")
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_key: bytes = self._private.public_key().public_bytes_raw()

    @property
    def keyid(self) -> str:
        """SHA-256 of the raw public key, hex."""
        return keyid(self.public_key)

    def sign(self, message: bytes) -> bytes:
        """Signs the message itself (no prehash); deterministic, 64 bytes, public."""
        return self._private.sign(message)

    def __repr__(self) -> str:
        return f"SigningKey(keyid={self.keyid[:16]}...)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SigningKey does not leave the process: keep its seed where secrets are kept")


def keyid(public_key: bytes) -> str:
    """Names a public key: SHA-256 of its raw 32 bytes, 64 hex digits."""
    return hashlib.sha256(public_key).hexdigest()


def verify(public_key: bytes, signature: bytes, message: bytes) -> None:
    """Checks an Ed25519 signature over ``message``; returns nothing.

    Args:
      public_key: Raw, 32 bytes.
      signature: 64 bytes.
      message: What was signed.

    Raises: VerificationError: The signature does not fit, or the key is no key.
    """
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise VerificationError(
            "the signature does not fit: the content was changed or another key signed it"
        ) from None


@dataclass(frozen=True)
class Trust:
    """Whom a reader of reports trusts, and as what; raw public keys.

    Attributes:
      signers: Who may be the signer of a run's own report.
      cosigners: Whose signature counts beside a signer's, and is never one itself: else any site could make a report.
      auditors: Who may sign an audit around a run's report, and never that report: else an auditor could make a run up.
    """

    signers: frozenset[bytes]
    cosigners: frozenset[bytes] = frozenset()
    auditors: frozenset[bytes] = frozenset()

    @property
    def keys(self) -> frozenset[bytes]:
        """All of them: each counts towards the number of trusted keys that signed."""
        return self.signers | self.cosigners | self.auditors


COSIGNER = "cosigner"
"""What a line of a file of trusted keys says after a key that only counts beside a signer's."""
AUDITOR = "auditor"
"""What such a line says after a key that signs audits, and no run's report."""


def parse_trust(text: str) -> Trust:
    """Reads a file of trusted keys: one base64 public key a line, and ``cosigner`` or ``auditor`` after it.

    Blank lines and lines that start with # are skipped. A key with several lines has each of those roles, but a signer
    or an auditor is no cosigner besides.

    Returns: At least one signer: a trust file that names nobody is a mistake, not a policy.
    Raises: ConfigError: A line that is not such a key, or no signer's at all.
    """
    found: dict[str, set[bytes]] = {"": set(), COSIGNER: set(), AUDITOR: set()}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            key = base64.b64decode(words[0], validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != PUBLIC_KEY_BYTES or " ".join(words[1:]) not in found:
            raise ConfigError(
                f"line {number} of the trusted keys is not a base64 Ed25519 public key",
                hint="One key a line, 44 characters, as printed under 'Check this report yourself'.",
            )
        found[" ".join(words[1:])].add(key)
    if not found[""]:
        raise ConfigError("the file of trusted keys names no key", hint="Write one base64 public key a line.")
    signers, auditors = frozenset(found[""]), frozenset(found[AUDITOR])
    return Trust(signers, frozenset(found[COSIGNER]) - signers - auditors, auditors)


def parse_public_keys(text: str) -> frozenset[bytes]:
    """Returns the signers of a file of trusted keys. Raises: ConfigError: As ``parse_trust``."""
    return parse_trust(text).signers
