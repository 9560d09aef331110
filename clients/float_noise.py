"""Gaussian noise for the float path: normals in float64 from the operating system's randomness.

Bits come from AES-128 in counter mode under a fresh key for every call, never from ``--seed`` and never from torch's or
numpy's generators. What becomes of them is floating-point arithmetic, so a claim that rests on this noise is asserted,
not proved. It is here and not in `privacy.dp.noise` because torch works on a whole vector at once, in half the time
that randomgen's normals take one by one.
"""

import math

import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from torch import Tensor

from privacy.dp.noise import Entropy

_KEY_BYTES = 16
_PIECE = 2**14  # draws at a time: they stay in the cache
_ZEROS = bytes(8 * _PIECE)
_FRACTION, _TWO = 2**52 - 1, 0x4000_0000_0000_0001  # bits of a float64: its fraction; the number after 2


def add_gaussian(total: Tensor, sigma: float, entropy: Entropy) -> None:
    """Adds independent normals of deviation ``sigma``: uniforms through the inverse of the normal's distribution.

    A normal is added in float64 and rounded once, with the sum. Uniforms have 51 bits and lie evenly around their
    middle, so no draw is further out than 8.2 sigma, beyond which lies less than 2^-51 of a normal.

    Args:
      total: Shape ``(d,)``, float32 or float64, changed in place.
      sigma: Standard deviation, > 0.
      entropy: Source of the key, in production ``secrets.token_bytes``.
    """
    if not (0 < sigma < math.inf):
        raise ValueError("sigma is out of range")
    keystream = Cipher(algorithms.AES(entropy(_KEY_BYTES)), modes.CTR(bytes(16))).encryptor()
    buffer = bytearray(len(_ZEROS) + 15)  # room that update_into asks for
    bits = torch.frombuffer(buffer, dtype=torch.int64, count=_PIECE)
    normals = bits.view(torch.float64)
    for piece in torch.split(total, _PIECE):
        keystream.update_into(_ZEROS, buffer)
        bits.bitwise_and_(_FRACTION).bitwise_or_(_TWO)  # as float64: in (2, 4), an odd multiple of 2^-51
        normals.sub_(3.0).erfinv_()
        piece.add_(normals[: piece.numel()], alpha=math.sqrt(2.0) * sigma)
