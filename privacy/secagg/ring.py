"""Real numbers on a grid, and the grid in a ring: exact sums, whatever the order of addition (§4.1, §4.6).

One unit of the grid is ``2^-fraction_bits``; scaling by it is exact in binary floating point. The ring is the integers
modulo ``2^bits``, little-endian and unsigned; a sum within the context's bounds is read back as two's complement.
"""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from privacy.errors import LocalProtocolError, SensitivityError
from privacy.secagg.encoding import Entropy, draw

Ring = NDArray[np.unsignedinteger[Any]]
"""Residues: dtype ``<u4`` or ``<u8``, shape ``(length,)``."""
Rounding = Literal["nearest", "stochastic"]

_STEP = 2**15
_ZEROS = bytes(4 * _STEP)


def ring_dtype(bits: int) -> np.dtype[np.unsignedinteger[Any]]:
    """Returns the little-endian unsigned dtype of the ring (§4.1)."""
    if bits not in {32, 64}:
        raise LocalProtocolError("the ring has 32 or 64 bits")
    return np.dtype(f"<u{bits // 8}")


def quantise(
    values: NDArray[np.floating[Any]],
    *,
    fraction_bits: int,
    bound: int,
    rounding: Rounding = "nearest",
    entropy: Entropy,
) -> NDArray[np.int64]:
    """Puts real numbers on the grid.

    Guarantees: ``|result| <= bound``. "nearest" rounds ties to even and draws nothing. "stochastic" rounds up with the
    probability of the fraction, to within ``2^-32`` of a unit, from a keystream with a fresh key; with a bound of
    ``b > 31`` bits to within ``2^(b - 63)``. Grid points stay.

    Args:
      values: Shape ``(length,)``. Secret.
      fraction_bits: One unit is ``2^-fraction_bits``.
      bound: Units; the constraint that made the values fit comes before this, nothing is cut off here.
      rounding: How.
      entropy: Asked for one key of 32 bytes if rounding is stochastic.

    Returns: Shape ``(length,)``. Secret.
    Raises: SensitivityError: An entry that is not finite or lies outside the bound; a bound of more than 63 bits, or
      47 if rounding is stochastic.
    """
    tossing = rounding == "stochastic"
    if bound >= 2 ** (47 if tossing else 63):
        raise SensitivityError(f"a bound of {bound} units does not fit the grid")
    below = min(32, 63 - bound.bit_length()) if tossing else 0  # bits of the fraction that meet a coin
    coins = _coins(draw(entropy, 32), below) if tossing else None
    units = np.empty(len(values), dtype=np.int64)
    room, scale = np.empty(_STEP), 2.0**fraction_bits
    for start in range(0, len(values), _STEP):  # piece by piece: what is computed on the way stays in the cache
        part, piece = values[start : start + _STEP], units[start : start + _STEP]
        # NaN fails every comparison, so the comparison is written such that failing it refuses.
        if not (float(part.max()) * scale <= bound and float(part.min()) * scale >= -bound):
            raise SensitivityError(f"an entry is not within {bound} units of the grid")
        scaled = np.multiply(part, scale * 2**below, out=room[: len(part)], dtype=np.float64)
        if coins is None:
            np.rint(scaled, out=scaled)
        np.copyto(piece, scaled, casting="unsafe")
        if coins is not None:  # below 2^63: bound and coin together
            piece += next(coins)[: len(part)]
            np.right_shift(piece, below, out=piece)  # rounds down, negative numbers too
    return units


def _coins(key: bytes, bits: int) -> Iterator[NDArray[np.uint32]]:
    """Yields uniform numbers of ``bits`` bits from AES-256-CTR, shape ``(_STEP,)``, in one array over and over."""
    stream, buffer = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor(), bytearray(4 * _STEP + 16)
    words = np.frombuffer(buffer, dtype="<u4", count=_STEP)
    while True:
        stream.update_into(_ZEROS, buffer)  # of cryptography < 45 wants a block of room
        yield np.right_shift(words, 32 - bits, out=words)


def aligned(length: int, bits: int) -> Ring:
    """Returns room for ``length`` residues, not initialised, from a cache line on: sums are a tenth faster there."""
    dtype = ring_dtype(bits)
    room = np.empty(length * dtype.itemsize + 64, dtype=np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + length * dtype.itemsize].view(dtype)


def to_ring(vector: NDArray[np.int64], bits: int) -> Ring:
    """Returns a fresh array of residues modulo ``2^bits``, shape ``(length,)``."""
    residues = aligned(len(vector), bits)
    np.copyto(residues, vector, casting="unsafe")
    return residues


def from_ring(residues: Ring, bits: int) -> NDArray[np.int64]:
    """Reads residues as two's complement of ``bits`` bits (§4.6), shape ``(length,)``."""
    return residues.astype(ring_dtype(bits), copy=False).view(f"<i{bits // 8}").astype(np.int64)
