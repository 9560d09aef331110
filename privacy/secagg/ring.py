"""Real numbers on a grid, and the grid in a ring: exact sums, whatever the order of addition (§4.1, §4.6).

One unit of the grid is ``2^-fraction_bits``; scaling by it is exact in binary floating point. The ring is the integers
modulo ``2^bits``, little-endian and unsigned; a sum within the context's bounds is read back as two's complement.
"""

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
_ZEROS = memoryview(bytes(4 * _STEP))


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
    probability of the fraction, to within ``2^-32`` of a unit, from a keystream with a fresh key.

    Args:
      values: Shape ``(length,)``. Secret.
      fraction_bits: One unit is ``2^-fraction_bits``.
      bound: Units; the constraint that made the values fit comes before this, nothing is cut off here.
      rounding: How.
      entropy: Asked for one key of 32 bytes if rounding is stochastic.

    Returns: Shape ``(length,)``. Secret.
    Raises: SensitivityError: An entry that is not finite or lies outside the bound.
    """
    if bound >= 2**63:
        raise SensitivityError(f"a bound of {bound} units does not fit the grid")
    units = np.empty(len(values), dtype=np.int64)
    coins = _Coins(draw(entropy, 32)) if rounding == "stochastic" else None
    room = np.empty((2, _STEP))
    for start in range(0, len(values), _STEP):  # piece by piece: what is computed on the way stays in the cache
        part, piece = values[start : start + _STEP], units[start : start + _STEP]
        scaled, floor = room[:, : len(part)]
        with np.errstate(over="ignore"):  # an overflow is infinite, and refused below
            np.multiply(part, 2.0**fraction_bits, out=scaled, dtype=np.float64)
        # NaN fails every comparison, so the comparison is written such that failing it refuses.
        if not (float(scaled.max()) <= bound and float(scaled.min()) >= -bound):
            raise SensitivityError(f"an entry is not within {bound} units of the grid")
        if coins is None:
            np.copyto(piece, np.rint(scaled, out=scaled), casting="unsafe")
            continue
        np.copyto(piece, np.floor(scaled, out=floor), casting="unsafe")
        np.subtract(scaled, floor, out=scaled)
        piece += coins.toss(floor) < scaled
    return units


class _Coins:
    """Multiples of ``2^-32`` in [0, 1), uniform, from AES-256-CTR."""

    def __init__(self, key: bytes) -> None:
        self._stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
        self._buffer = bytearray(4 * _STEP + 16)  # update_into of cryptography < 45 wants a block of room

    def toss(self, out: NDArray[np.float64]) -> NDArray[np.float64]:
        """Fills ``out``."""
        self._stream.update_into(_ZEROS[: 4 * len(out)], self._buffer)
        drawn = np.frombuffer(self._buffer, dtype="<u4", count=len(out))
        np.multiply(drawn, 2.0**-32, out=out)
        return out


def to_ring(vector: NDArray[np.int64], bits: int) -> Ring:
    """Returns a fresh array of residues modulo ``2^bits``, shape ``(length,)``."""
    return vector.astype(ring_dtype(bits))


def from_ring(residues: Ring, bits: int) -> NDArray[np.int64]:
    """Reads residues as two's complement of ``bits`` bits (§4.6), shape ``(length,)``."""
    return residues.astype(ring_dtype(bits), copy=False).view(f"<i{bits // 8}").astype(np.int64)
