"""A suite without any secrecy, for many schedules in little time."""

import hashlib

from privacy.errors import RemoteProtocolError
from privacy.keys import agreement
from privacy.keys.agreement import Secret
from privacy.keys.signing import SigningKey
from privacy.secagg.encoding import labelled
from privacy.secagg.suite import TAG_BYTES, RealSuite


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
