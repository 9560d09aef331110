"""Which canaries are in: fair coins that an auditor commits to before, and opens afterwards.

The bounds on epsilon hold only if every canary was in or out by a fair coin that nothing else depends on. A seed is
drawn and its commitment noted; coins follow from the seed alone, so whoever learns it can count again.
"""

import hashlib
import hmac

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

SEED_BYTES = 32
_COMMITMENT = b"collegium canary seed v1\x00"
_COINS = b"collegium canary coins v1\x00"
_NONCE = bytes(16)  # a key serves one stream


def commitment(seed: bytes) -> str:
    """Returns what is noted before the audit, 64 hex digits: binding, and hiding as long as the seed is random.

    Raises: ValueError: The seed does not have 32 bytes.
    """
    return hashlib.sha256(_COMMITMENT + _checked(seed)).hexdigest()


def opens(noted: str, seed: bytes) -> bool:
    """Says whether a seed is the one that was committed to."""
    return hmac.compare_digest(noted, commitment(seed))


def included(seed: bytes, m: int) -> npt.NDArray[np.bool_]:
    """Tosses ``m`` fair coins: bits of the ChaCha20 stream whose key is derived from the seed.

    Args:
      seed: 32 random bytes. Secret until the scores are final.
      m: How many canaries.

    Returns: Shape ``(m,)``; the first ones do not depend on how many follow.
    Raises: ValueError: The seed does not have 32 bytes.
    See: RFC 8439 (ChaCha20; block counter and nonce are zero, the highest bit of each byte first).
    """
    key = hashlib.sha256(_COINS + _checked(seed)).digest()
    stream = Cipher(algorithms.ChaCha20(key, _NONCE), mode=None).encryptor()
    bits = np.unpackbits(np.frombuffer(stream.update(bytes((m + 7) // 8)), np.uint8), count=m)
    return bits.astype(np.bool_)


def _checked(seed: bytes) -> bytes:
    if len(seed) != SEED_BYTES:
        raise ValueError(f"a seed has {SEED_BYTES} bytes, not {len(seed)}")
    return seed
