"""Adds keystreams to vectors, in place, one cache-sized piece at a time (§4.1, §4.2).

All keys pass over one piece before the next piece is touched: the vector is read from memory once, not once per peer.
Regions begin at multiples of 16 bytes in every stream that covers them; the last piece of a region therefore draws up
to a whole block and drops what lies behind the region.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from privacy.errors import LocalProtocolError
from privacy.secagg.ring import Ring, aligned, ring_dtype

Sign = Literal[1, -1]
"""A mask is added or subtracted."""
PIECE_BYTES = 128 * 1024
"""Three of it (vector, mask, zeros) fit in any second-level cache of today; half to double this is as fast."""
_BLOCK = 16
_ZEROS = memoryview(bytes(PIECE_BYTES))


class KeyStream(Protocol):
    """A running stream cipher, as in ``cryptography``."""

    def update_into(self, data: bytes | memoryview, buf: bytearray | memoryview) -> int:
        """Writes ``data`` xor the next bytes of the stream to ``buf``; returns how many."""


@dataclass(frozen=True)
class Mask:
    """One keystream and where it goes.

    Attributes:
      key: 32 bytes, used for this one stream. Secret.
      sign: +1 adds, -1 subtracts.
      regions: Which regions it covers, ascending.
    """

    key: bytes = field(repr=False)
    sign: Sign
    regions: tuple[int, ...]


def apply_streams(
    vectors: Mapping[int, Ring], masks: Sequence[Mask], bits: int, stream: Callable[[bytes], KeyStream]
) -> None:
    """Adds every mask to the regions it covers, modulo ``2^bits``, in place.

    Guarantees: masks of one key with opposite signs over the same regions cancel, whatever else covers them.

    Args:
      vectors: Region number to residues, shape ``(length_k,)``, contiguous. Secret before, uniform after.
      masks: No key twice.
      bits: 32 or 64.
      stream: Opens the keystream of a key at its beginning.

    Raises: LocalProtocolError: A key is used twice, a region is missing, not contiguous or of another type.
    """
    if len({mask.key for mask in masks}) != len(masks):
        raise LocalProtocolError("a mask key is used for two streams")
    for vector in vectors.values():
        if vector.dtype != ring_dtype(bits) or not vector.flags.c_contiguous or not vector.flags.writeable:
            raise LocalProtocolError("masks go onto contiguous vectors of the ring")
    running = [(stream(mask.key), mask) for mask in masks]
    buffer = aligned((PIECE_BYTES + _BLOCK) * 8 // bits, bits)  # update_into of cryptography < 45 wants a block of room
    for k in sorted({k for mask in masks for k in mask.regions}):
        if k not in vectors:
            raise LocalProtocolError(f"a mask covers region {k}, which is not here")
        _cover(vectors[k], [(source, mask.sign) for source, mask in running if k in mask.regions], buffer)
    buffer.fill(0)


def _cover(vector: Ring, sources: Sequence[tuple[KeyStream, int]], buffer: Ring) -> None:
    room = buffer.data.cast("B")
    entries = PIECE_BYTES // vector.itemsize
    for start in range(0, len(vector), entries):
        piece = vector[start : start + entries]
        mask = buffer[: len(piece)]
        drawing = _ZEROS[: -(-piece.nbytes // _BLOCK) * _BLOCK]  # §4.2: the next region begins at a multiple of 16
        for source, sign in sources:
            source.update_into(drawing, room)
            (np.add if sign > 0 else np.subtract)(piece, mask, out=piece)
