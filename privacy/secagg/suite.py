"""The cryptography that the machines use, as one argument: the real suite, and a fast one without any secrecy.

Everything is ``bytes -> bytes`` over ``cryptography``; labels, digests and order belong to the machines.
"""

import hashlib
from typing import Protocol

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
_NONCE = bytes(12)
_SALT = b"FSA1"


class CryptoSuite(Protocol):
    """What FSA1 needs; see ``RealSuite`` for what each must guarantee."""

    def public(self, private: Secret) -> bytes:
        """Returns the public key of 32 private bytes."""
        ...

    def agree(self, private: Secret, public: bytes) -> Secret:
        """Returns the shared secret; raises RemoteProtocolError for a key that must be refused."""
        ...

    def sign(self, key: SigningKey, message: bytes) -> bytes:
        """Returns 64 bytes."""
        ...

    def verify(self, public: bytes, signature: bytes, message: bytes) -> None:
        """Returns nothing, or raises RemoteProtocolError."""
        ...

    def seal(self, key: bytes, plaintext: bytes, associated: bytes) -> bytes:
        """Encrypts; the key is used once."""
        ...

    def open(self, key: bytes, ciphertext: bytes, associated: bytes) -> bytes:
        """Decrypts, or raises RemoteProtocolError."""
        ...

    def kdf(self, ikm: bytes, label: str, info: bytes) -> bytes:
        """Derives 32 bytes."""
        ...

    def stream(self, key: bytes) -> KeyStream:
        """Opens the keystream of ``key``, which makes one stream, once."""
        ...


class RealSuite:
    """X25519, Ed25519, ChaCha20-Poly1305, HKDF-SHA256, AES-256-CTR."""

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
        return Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()


class UnsafeIdealSuite(RealSuite):
    """NOT SECURE, for simulation: hashes stand in for every primitive but the keystream, so that schedules run fast.

    Anybody can forge its signatures and read its sealed shares. The machines cannot tell: what they check still
    passes when it should and fails when it should.
    """

    def public(self, private: Secret) -> bytes:
        """A hash, made canonical by clearing the two highest bits."""
        value = hashlib.sha256(b"public" + private.reveal()).digest()
        return value[:31] + bytes([value[31] & 0x3F])

    def agree(self, private: Secret, public: bytes) -> Secret:
        """A hash of both public keys: the same from both ends, and known to everybody."""
        agreement.check_public(public)
        low, high = sorted((self.public(private), public))
        return Secret(hashlib.sha256(b"agree" + low + high).digest())

    def sign(self, key: SigningKey, message: bytes) -> bytes:
        """A hash that names the public key."""
        return hashlib.sha512(key.public_key + message).digest()

    def verify(self, public: bytes, signature: bytes, message: bytes) -> None:
        """Recomputes the hash."""
        if signature != hashlib.sha512(public + message).digest():
            raise RemoteProtocolError("the signature does not fit")

    def seal(self, key: bytes, plaintext: bytes, associated: bytes) -> bytes:
        """The plaintext and a checksum over key and context."""
        return plaintext + hashlib.sha256(key + associated + plaintext).digest()[:TAG_BYTES]

    def open(self, key: bytes, ciphertext: bytes, associated: bytes) -> bytes:
        """Recomputes the checksum."""
        plaintext = ciphertext[:-TAG_BYTES]
        if self.seal(key, plaintext, associated) != ciphertext:
            raise RemoteProtocolError("a sealed share does not open")
        return plaintext

    def kdf(self, ikm: bytes, label: str, info: bytes) -> bytes:
        """One hash instead of four."""
        return hashlib.sha256(labelled(label, ikm + info)).digest()
