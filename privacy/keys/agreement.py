"""X25519 key agreement with one spelling per key, and a wrapper that keeps secrets out of logs.

RFC 7748 lets two encodings stand for one key; here a public key is 32 bytes, little-endian, below ``2^255 - 19``
(docs/protocol.md §1.6), so that comparing bytes compares keys.
"""

from typing import NoReturn

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from privacy.errors import RemoteProtocolError

KEY_BYTES = 32
_FIELD = 2**255 - 19


class Secret:
    """Bytes that must not be shown: ``repr`` gives the length, pickling and copying to another process fail.

    Python cannot promise erasure: dropping the last reference is the best it does.
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        """Wraps ``value``. Secret."""
        self._value = value

    def reveal(self) -> bytes:
        """Returns the bytes; every call of it is a place to review."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({len(self._value)} bytes)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret does not leave the process")


def check_public(public: bytes) -> None:
    """Refuses what is not the one encoding of a public key.

    Args:
      public: Untrusted bytes.

    Raises: RemoteProtocolError: Wrong length, the high bit set, or a value that is not reduced.
    """
    if len(public) != KEY_BYTES or int.from_bytes(public, "little") >= _FIELD:
        raise RemoteProtocolError("an X25519 key is not in its one encoding")


def public_key(private: Secret) -> bytes:
    """Returns the public key of 32 private bytes (clamped by the primitive, kept unclamped by us)."""
    return X25519PrivateKey.from_private_bytes(private.reveal()).public_key().public_bytes_raw()


def agree(private: Secret, public: bytes) -> Secret:
    """Returns the 32-byte shared secret.

    Raises: RemoteProtocolError: The peer's key is not canonical, or the shared secret is all zero (small order).
    """
    check_public(public)
    try:
        peer = X25519PublicKey.from_public_bytes(public)
        shared = X25519PrivateKey.from_private_bytes(private.reveal()).exchange(peer)
    except ValueError:
        raise RemoteProtocolError("an X25519 key gives an all-zero secret") from None
    return Secret(shared)
