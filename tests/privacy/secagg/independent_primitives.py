"""The primitives of FSA1 in Python integers, for the known-answer vectors: clear, slow, never for real data.

Nothing here runs in constant time. Only SHA-2 and HMAC come from elsewhere (hashlib, hmac). Each part names the clause
of the standard that it follows; `test_independent.py` compares it with the numbers printed there.
"""

import functools
import hashlib
import hmac
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

# --- CBOR, RFC 8949: head bytes of §3, shortest arguments and definite lengths of §4.2.1 ----------

CborItem: TypeAlias = "int | bytes | str | Sequence[CborItem] | Mapping[str, CborItem]"  # bool is an int to Python


def cbor(item: CborItem) -> bytes:
    """Returns the deterministic encoding; a map's keys are sorted by their encoded bytes (RFC 8949 §4.2.1).

    RFC 7049 §3.9 ("canonical") sorts shorter encodings first. For text keys that is the same order, because the
    length is in the head byte, or follows it big-endian: encodings of different length differ there first.
    """
    if isinstance(item, bool):
        return b"\xf5" if item else b"\xf4"
    if isinstance(item, int):
        return _head(0, item)
    if isinstance(item, bytes):
        return _head(2, len(item)) + item
    if isinstance(item, str):
        return _head(3, len(item.encode())) + item.encode()
    if isinstance(item, Mapping):
        pairs = sorted((cbor(key), cbor(value)) for key, value in item.items())
        return _head(5, len(pairs)) + b"".join(key + value for key, value in pairs)
    return _head(4, len(item)) + b"".join(map(cbor, item))


def _head(major: int, argument: int) -> bytes:
    if argument < 0:
        raise ValueError("FSA1 has no negative numbers in its messages")
    if argument < 24:
        return bytes([major << 5 | argument])
    for code, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if argument < 1 << 8 * size:
            return bytes([major << 5 | code]) + argument.to_bytes(size, "big")
    raise ValueError("no CBOR head holds more than 64 bits")


# --- HKDF-SHA256, RFC 5869 §2.2 and §2.3 ----------------------------------------------------------


def hkdf_sha256(ikm: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    extracted = hmac.digest(salt, ikm, "sha256")  # an empty key is the RFC's string of zeros: HMAC pads with zeros
    expanded, block = b"", b""
    for counter in range(1, -(-length // 32) + 1):
        block = hmac.digest(extracted, block + info + bytes([counter]), "sha256")
        expanded += block
    return expanded[:length]


# --- X25519, RFC 7748 §5 --------------------------------------------------------------------------

P: Final = 2**255 - 19


def x25519(scalar: bytes, u: bytes) -> bytes:
    k = int.from_bytes(scalar, "little")
    k = k & ~7 & (1 << 254) - 1 | 1 << 254  # decodeScalar25519
    x_1 = (int.from_bytes(u, "little") & (1 << 255) - 1) % P
    x_2, z_2, x_3, z_3 = 1, 0, x_1, 1
    for t in reversed(range(255)):
        if k >> t & 1:  # the ladder's swaps, both in one place
            x_3, z_3, x_2, z_2 = _ladder_step(x_1, x_3, z_3, x_2, z_2)
        else:
            x_2, z_2, x_3, z_3 = _ladder_step(x_1, x_2, z_2, x_3, z_3)
    return (x_2 * pow(z_2, P - 2, P) % P).to_bytes(32, "little")


def _ladder_step(x_1: int, x_2: int, z_2: int, x_3: int, z_3: int) -> tuple[int, int, int, int]:
    """Returns the double of point 2 and the sum of points 2 and 3, whose difference is ``x_1``."""
    a, b = x_2 + z_2, x_2 - z_2
    aa, bb = a * a % P, b * b % P
    e = aa - bb
    da, cb = (x_3 - z_3) * a % P, (x_3 + z_3) * b % P
    return aa * bb % P, e * (aa + 121665 * e) % P, (da + cb) ** 2 % P, x_1 * (da - cb) ** 2 % P


def x25519_public(scalar: bytes) -> bytes:
    return x25519(scalar, (9).to_bytes(32, "little"))


# --- Ed25519, RFC 8032 §5.1 -----------------------------------------------------------------------

Point: TypeAlias = tuple[int, int]

D: Final = -121665 * pow(121666, -1, P) % P
L: Final = 2**252 + 27742317777372353535851937790883648493
BASE: Final = (
    15112221349535400772501151409588531511454012693041857206046113283949847762202,
    46316835694926478169428394003475163141307993866256225615783033603165251855960,
)


def _add(p: Point, q: Point) -> Point:
    """Affine sum on -x² + y² = 1 + d x² y²; the formula has no exceptions on this curve (RFC 8032 §5.1.4)."""
    (x_1, y_1), (x_2, y_2) = p, q
    product = D * x_1 * x_2 * y_1 * y_2 % P
    inverse = pow((1 + product) * (1 - product), -1, P)  # one inversion for both denominators
    x = (x_1 * y_2 + x_2 * y_1) * (1 - product) * inverse % P
    return x, (y_1 * y_2 + x_1 * x_2) * (1 + product) * inverse % P


@functools.cache
def _doubles_of_base() -> tuple[Point, ...]:
    doubles = [BASE]
    for _ in range(255):
        doubles.append(_add(doubles[-1], doubles[-1]))
    return tuple(doubles)


def _times_base(scalar: int) -> bytes:
    total: Point = (0, 1)
    for place, double in enumerate(_doubles_of_base()):
        if scalar >> place & 1:
            total = _add(total, double)
    x, y = total
    return (y | (x & 1) << 255).to_bytes(32, "little")  # §5.1.2


@functools.cache
def _expand(seed: bytes) -> tuple[int, bytes, bytes]:
    """Returns the secret scalar, the prefix and the public key of a 32-byte seed (§5.1.5)."""
    digest = hashlib.sha512(seed).digest()
    scalar = int.from_bytes(digest[:32], "little") & ~7 & (1 << 254) - 1 | 1 << 254
    return scalar, digest[32:], _times_base(scalar)


def ed25519_public(seed: bytes) -> bytes:
    return _expand(seed)[2]


def ed25519_sign(seed: bytes, message: bytes) -> bytes:
    """§5.1.6; deterministic, so the vectors can hold signatures."""
    scalar, prefix, public = _expand(seed)
    r = int.from_bytes(hashlib.sha512(prefix + message).digest(), "little") % L
    commitment = _times_base(r)
    k = int.from_bytes(hashlib.sha512(commitment + public + message).digest(), "little") % L
    return commitment + ((r + k * scalar) % L).to_bytes(32, "little")


# --- ChaCha20-Poly1305, RFC 8439 §2 ---------------------------------------------------------------


def chacha20_block(key: bytes, counter: int, nonce: bytes) -> bytes:
    """§2.3."""
    words = b"expand 32-byte k" + key + counter.to_bytes(4, "little") + nonce
    initial = [int.from_bytes(words[i : i + 4], "little") for i in range(0, 64, 4)]
    state = list(initial)
    for _ in range(10):
        for column in range(4):
            _quarter_round(state, column, column + 4, column + 8, column + 12)
        for diagonal in range(4):
            _quarter_round(state, diagonal, (diagonal + 1) % 4 + 4, (diagonal + 2) % 4 + 8, (diagonal + 3) % 4 + 12)
    return b"".join(((a + b) % 2**32).to_bytes(4, "little") for a, b in zip(state, initial, strict=True))


def _quarter_round(state: list[int], a: int, b: int, c: int, d: int) -> None:
    """§2.1."""
    for target, other, mixed, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        state[target] = (state[target] + state[other]) % 2**32
        word = state[mixed] ^ state[target]
        state[mixed] = (word << turn | word >> 32 - turn) % 2**32


def poly1305(key: bytes, message: bytes) -> bytes:
    """§2.5."""
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for start in range(0, len(message), 16):
        total = (total + int.from_bytes(message[start : start + 16] + b"\x01", "little")) * r % (2**130 - 5)
    return ((total + int.from_bytes(key[16:], "little")) % 2**128).to_bytes(16, "little")


def chacha20_poly1305_seal(key: bytes, nonce: bytes, plaintext: bytes, ad: bytes) -> bytes:
    """§2.8: the ciphertext, then its tag of 16 bytes."""
    ciphertext = _chacha20_xor(key, nonce, plaintext)
    return ciphertext + _tag(key, nonce, ciphertext, ad)


def chacha20_poly1305_open(key: bytes, nonce: bytes, sealed: bytes, ad: bytes) -> bytes:
    ciphertext, tag = sealed[:-16], sealed[-16:]
    if _tag(key, nonce, ciphertext, ad) != tag:
        raise ValueError("the tag does not match")
    return _chacha20_xor(key, nonce, ciphertext)


def _chacha20_xor(key: bytes, nonce: bytes, data: bytes) -> bytes:
    blocks = b"".join(chacha20_block(key, 1 + n, nonce) for n in range(-(-len(data) // 64)))
    return bytes(a ^ b for a, b in zip(data, blocks, strict=False))


def _tag(key: bytes, nonce: bytes, ciphertext: bytes, ad: bytes) -> bytes:
    lengths = len(ad).to_bytes(8, "little") + len(ciphertext).to_bytes(8, "little")
    padded = b"".join(part + bytes(-len(part) % 16) for part in (ad, ciphertext))
    return poly1305(chacha20_block(key, 0, nonce)[:32], padded + lengths)


# --- AES-256 in counter mode: FIPS 197 §4 and §5, SP 800-38A §6.5 ---------------------------------


def _gf_times(a: int, b: int) -> int:
    """FIPS 197 §4.2: polynomials over GF(2) modulo x⁸ + x⁴ + x³ + x + 1."""
    product = 0
    while b:
        product ^= a if b & 1 else 0
        a = a << 1 ^ (0x11B if a & 0x80 else 0)
        b >>= 1
    return product


def _sbox() -> Iterator[int]:
    """FIPS 197 §5.1.1: the inverse in the field, then an affine map."""
    for value in range(256):
        inverse = next((other for other in range(256) if _gf_times(value, other) == 1), 0)
        turned = inverse * 0x101  # two copies side by side: a rotation is a shift
        yield (turned ^ turned >> 4 ^ turned >> 5 ^ turned >> 6 ^ turned >> 7) & 0xFF ^ 0x63


@functools.cache
def _tables() -> tuple[bytes, tuple[tuple[int, int, int, int], ...]]:
    """The S-box, and for every byte the column that MixColumns makes of it in the first row."""
    sbox = bytes(_sbox())
    return sbox, tuple((_gf_times(2, value), value, value, _gf_times(3, value)) for value in range(256))


def _round_keys(key: bytes) -> list[bytes]:
    """FIPS 197 §5.2, eight key words and fourteen rounds."""
    sbox, _ = _tables()
    words, constant = [key[i : i + 4] for i in range(0, 32, 4)], 1
    for place in range(8, 60):
        word = words[-1]
        if place % 8 == 0:
            word = bytes(sbox[byte] for byte in word[1:] + word[:1])
            word = bytes([word[0] ^ constant]) + word[1:]
            constant = _gf_times(2, constant)
        elif place % 8 == 4:
            word = bytes(sbox[byte] for byte in word)
        words.append(_xor(words[-8], word))
    return [b"".join(words[i : i + 4]) for i in range(0, 60, 4)]


def _xor(a: Iterable[int], b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


def _aes_block(round_keys: Sequence[bytes], block: bytes) -> bytes:
    """FIPS 197 §5.1; a block's byte ``4 c + r`` is row ``r`` of column ``c``."""
    sbox, columns = _tables()
    state = _xor(block, round_keys[0])
    for round_key in round_keys[1:-1]:
        state = _shift_rows(state.translate(sbox))
        mixed = bytearray(16)
        for place, byte in enumerate(state):
            column, row = place // 4, place % 4
            for offset, part in enumerate(columns[byte]):
                mixed[4 * column + (row + offset) % 4] ^= part
        state = _xor(mixed, round_key)
    return _xor(_shift_rows(state.translate(sbox)), round_keys[-1])


def _shift_rows(state: bytes) -> bytes:
    return bytes(state[(place + 4 * (place % 4)) % 16] for place in range(16))


def aes256_block(key: bytes, block: bytes) -> bytes:
    return _aes_block(_round_keys(key), block)


def aes256_ctr_stream(key: bytes, first_counter: bytes, length: int) -> bytes:
    """The encryption of zeros: SP 800-38A §6.5 with the whole block as a big-endian counter (appendix B.1)."""
    round_keys, first = _round_keys(key), int.from_bytes(first_counter, "big")
    blocks = (_aes_block(round_keys, ((first + n) % 2**128).to_bytes(16, "big")) for n in range(-(-length // 16)))
    return b"".join(blocks)[:length]


# --- The random bytes of the vectors ----------------------------------------------------------------


class Stream:
    """SHA256(seed ‖ u64(0)) ‖ SHA256(seed ‖ u64(1)) ‖ …, drawn from the front."""

    def __init__(self, seed: bytes) -> None:
        self.seed, self.blocks, self.rest = seed, 0, b""

    def draw(self, size: int) -> bytes:
        while len(self.rest) < size:
            self.rest += hashlib.sha256(self.seed + self.blocks.to_bytes(8, "big")).digest()
            self.blocks += 1
        drawn, self.rest = self.rest[:size], self.rest[size:]
        return drawn
