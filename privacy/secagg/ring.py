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

_STEP = 2**16


def ring_dtype(bits: int) -> np.dtype[np.unsignedinteger[Any]]:
    """Returns the little-endian unsigned dtype of the ring (§4.1)."""
    if bits not in {32, 64}:
        raise LocalProtocolError("the ring has 32 or 64 bits")
    return np.dtype(f"<u{bits // 8}")


def quantise(
    values: NDArray[np.float64], *, fraction_bits: int, bound: int, rounding: Rounding = "nearest", entropy: Entropy
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
    with np.errstate(over="ignore"):  # an overflow is infinite, and refused below
        scaled = np.ldexp(np.asarray(values, dtype=np.float64), fraction_bits)
    # NaN fails every comparison, so the comparison is written such that failing it refuses.
    if not bool(np.all(np.abs(scaled) <= bound)) or bound >= 2**63:
        raise SensitivityError(f"an entry is not within {bound} units of the grid")
    if rounding == "nearest":
        return np.rint(scaled).astype(np.int64)
    floor = np.floor(scaled)
    ups = np.subtract(scaled, floor, out=scaled)
    np.ldexp(ups, 32, out=ups)
    stream = Cipher(algorithms.AES(draw(entropy, 32)), modes.CTR(bytes(16))).encryptor()
    for start in range(0, len(ups), _STEP):
        part = ups[start : start + _STEP]
        coin = np.frombuffer(stream.update(bytes(4 * len(part))), dtype="<u4")
        floor[start : start + _STEP] += coin < part
    return floor.astype(np.int64)


def to_ring(vector: NDArray[np.int64], bits: int) -> Ring:
    """Returns a fresh array of residues modulo ``2^bits``, shape ``(length,)``."""
    return vector.astype(ring_dtype(bits))


def from_ring(residues: Ring, bits: int) -> NDArray[np.int64]:
    """Reads residues as two's complement of ``bits`` bits (§4.6), shape ``(length,)``."""
    return residues.astype(ring_dtype(bits), copy=False).view(f"<i{bits // 8}").astype(np.int64)
