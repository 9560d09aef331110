"""The cryptography that the machines use, as one argument.

Everything is ``bytes -> bytes`` over ``cryptography``; labels, digests and order belong to the machines.
"""

from collections.abc import Callable, Mapping
from functools import cache
from timeit import repeat
from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from privacy.errors import RemoteProtocolError, VerificationError
from privacy.keys import agreement, signing
from privacy.keys.agreement import Secret
from privacy.keys.signing import SigningKey
from privacy.secagg.encoding import labelled
from privacy.secagg.masks import KeyStream

TAG_BYTES = 16
Keystream = Literal["ctr", "gcm"]
"""How the one keystream of §4.1 is computed: the same bytes either way, at the speed of this processor (ADR 0007)."""
_NONCE = bytes(12)
_SALT = b"FSA1"


def _ctr(key: bytes) -> KeyStream:
    return Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()


class _ByGcm:
    """AES-256-CTR from block 0, of which AES-256-GCM does everything from block 2 on.

    GCM with a nonce of twelve zero bytes counts the blocks of its data from 2 on (NIST SP 800-38D, 6.5, and 7.1 steps 2
    and 3); its tag is never asked for. At 64 GiB its counter ends and it raises ValueError: twice what a context holds.
    """

    def __init__(self, key: bytes) -> None:
        self._head = _ctr(key)
        self._rest = Cipher(algorithms.AES(key), modes.GCM(_NONCE)).encryptor()
        self._in_head = 32

    def update_into(self, data: bytes | memoryview, buf: bytearray | memoryview) -> int:
        """Writes ``data`` xor the next bytes of the stream to ``buf``; returns how many."""
        if not self._in_head:
            return self._rest.update_into(data, buf)
        first, room = memoryview(data)[: self._in_head], memoryview(buf)
        self._in_head -= len(first)
        done = self._head.update_into(first, room)
        return done + self._rest.update_into(memoryview(data)[done:], room[done:])


_STREAMS: Mapping[Keystream, Callable[[bytes], KeyStream]] = {"ctr": _ctr, "gcm": _ByGcm}


@cache
def fastest_keystream(clock: Callable[[], float]) -> Keystream:
    """Returns which of the two is faster here, by the least of five turns: a few milliseconds, once for each clock.

    Args:
      clock: Seconds; ``time.perf_counter`` in production.
    """
    data, room = bytes(2**18), bytearray(2**18 + 16)

    def took(name: Keystream) -> float:
        opened = _STREAMS[name]
        return min(repeat(lambda: opened(bytes(32)).update_into(data, room), timer=clock, repeat=5, number=1))

    return min(_STREAMS, key=took)


class RealSuite:
    """X25519, Ed25519, ChaCha20-Poly1305, HKDF-SHA256, AES-256-CTR."""

    _keystream: Keystream = "ctr"

    def __init__(self, keystream: Keystream = "ctr") -> None:
        """Takes how the keystream is computed; nothing that leaves a party depends on it."""
        self._keystream = keystream

    def public(self, private: Secret) -> bytes:
        """Returns the X25519 public key of 32 private bytes."""
        return agreement.public_key(private)

    def agree(self, private: Secret, public: bytes) -> Secret:
        """Returns the X25519 shared secret; refuses twins and all-zero secrets (§1.6)."""
        return agreement.agree(private, public)

    def sign(self, key: SigningKey, message: bytes) -> bytes:
        """Signs with Ed25519 (§1.3)."""
        return key.sign(message)

    def verify(self, public: bytes, signature: bytes, message: bytes) -> None:
        """Checks an Ed25519 signature; returns nothing or raises RemoteProtocolError."""
        try:
            signing.verify(public, signature, message)
        except VerificationError as error:
            raise RemoteProtocolError(str(error)) from None

    def seal(self, key: bytes, plaintext: bytes, associated: bytes) -> bytes:
        """ChaCha20-Poly1305 with nonce zero: sound because a key seals one message (§3.3)."""
        return ChaCha20Poly1305(key).encrypt(_NONCE, plaintext, associated)

    def open(self, key: bytes, ciphertext: bytes, associated: bytes) -> bytes:
        """Opens ``seal``; raises RemoteProtocolError if it was changed or sealed for another."""
        try:
            return ChaCha20Poly1305(key).decrypt(_NONCE, ciphertext, associated)
        except InvalidTag:
            raise RemoteProtocolError("a sealed share does not open") from None

    def kdf(self, ikm: bytes, label: str, info: bytes) -> bytes:
        """HKDF-SHA256 with salt and info of §1.2; 32 bytes."""
        return HKDF(hashes.SHA256(), 32, salt=_SALT, info=labelled(label, info)).derive(ikm)

    def stream(self, key: bytes) -> KeyStream:
        """AES-256-CTR of zeros, IV 0 (§4.1)."""
        return _STREAMS[self._keystream](key)
