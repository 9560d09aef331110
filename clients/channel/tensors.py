"""Tensors as bytes: a fixed header, then the values as they lie in memory. Nothing else can be in them.

Every record is a multiple of 16 bytes, and so is what precedes its values; all numbers are little-endian:

==========  =====================================================================
bytes       what
==========  =====================================================================
4           ``COLT``
1           version, 1
1           type: 0 float32, 1 float64, 2 int64, 3 uint64, 4 bool (a byte, 0 or 1)
1           number of dimensions, at most 8
1           bytes of the name, 1 to 64
16          session
8           step
4 each      dimensions, in C order
as said     name, UTF-8, printable
to 16       zeros
as follows  values
to 16       zeros
==========  =====================================================================

Values may be anything that the type can hold, NaN too: whether they make sense is for whoever uses them.
"""

import math
import struct
from collections.abc import Mapping

import numpy as np

from clients.channel.message import DTYPES, MAX_DIMS, MAX_NAME, MAX_TENSORS, Array
from privacy.errors import LocalProtocolError, RemoteProtocolError

_HEAD = struct.Struct("<4sBBBB16sQ")
_MAGIC, _VERSION, _ALIGN = b"COLT", 1, 16
_BOOL = np.dtype("|b1")
_MOST_VALUES = 2**40  # of a shape with a 0 replaced by 1: an empty array, too, must be one that numpy can make
_CODES = {dtype: code for code, dtype in enumerate(DTYPES)}


def encode(tensors: Mapping[str, Array], session: bytes, step: int) -> list[bytes | memoryview]:
    """Returns buffers which, joined, are the records of ``tensors``; no value has been copied yet, if in C order.

    Raises: LocalProtocolError: A name, type or shape that the format has no place for.
    """
    pieces: list[bytes | memoryview] = []
    for name, array in tensors.items():
        code, label = _CODES.get(array.dtype), name.encode()
        if code is None or array.ndim > MAX_DIMS or max(array.shape, default=0) >= 2**32:
            raise LocalProtocolError(f"tensor {name}: {array.dtype} of {array.ndim} dimensions cannot be sent")
        if not 1 <= len(label) <= MAX_NAME or not name.isprintable():
            raise LocalProtocolError(f"{name[:MAX_NAME]!r} cannot name a tensor")
        head = _HEAD.pack(_MAGIC, _VERSION, code, array.ndim, len(label), session, step)
        head += struct.pack(f"<{array.ndim}I", *array.shape) + label
        # np.ascontiguousarray would make a scalar a vector.
        pieces += [head, bytes(_padding(len(head))), np.asarray(array, order="C").data, bytes(_padding(array.nbytes))]
    return pieces


def decode(data: memoryview, session: bytes, step: int) -> dict[str, Array]:
    """Reads records from a stranger; every field is checked before anything is made of it.

    Args:
      data: Untrusted; no more than its size is ever allocated.
      session: The frame's; a record of another session or step is refused.
      step: Likewise.

    Returns: By name, arrays of their own, which may be written to.
    Raises: RemoteProtocolError: Anything but the one encoding of at most 16 tensors.
    """
    found: dict[str, Array] = {}
    place = 0
    while place < len(data):
        if len(found) == MAX_TENSORS:
            raise RemoteProtocolError(f"a message has more than {MAX_TENSORS} tensors")
        name, array, place = _record(data, place, session, step)
        if name in found:
            raise RemoteProtocolError("a message has two tensors of one name")
        found[name] = array
    return found


def _record(data: memoryview, start: int, session: bytes, step: int) -> tuple[str, Array, int]:
    """Reads the record at ``start``; returns its name, its values and where the next one starts."""
    place = _within(data, start, _HEAD.size)
    magic, version, code, ndim, named, its_session, its_step = _HEAD.unpack_from(data, start)
    if magic != _MAGIC or version != _VERSION or code >= len(DTYPES) or ndim > MAX_DIMS or not 1 <= named <= MAX_NAME:
        raise RemoteProtocolError("a tensor's header is not of this format")
    if its_session != session or its_step != step:
        raise RemoteProtocolError("a tensor is of another session or step than its message")
    place = _within(data, place, 4 * ndim)
    shape = struct.unpack_from(f"<{ndim}I", data, place - 4 * ndim)
    place = _within(data, place, named)
    name = _name(bytes(data[place - named : place]))
    place = _skip(data, place)
    if math.prod(max(1, size) for size in shape) > _MOST_VALUES:
        raise RemoteProtocolError("a tensor's shape is larger than any frame")
    dtype, count = DTYPES[code], math.prod(shape)
    end = _within(data, place, count * dtype.itemsize)
    # A copy: where ``data`` lies its values may be misaligned, and the caller may want to write.
    array = np.frombuffer(data, np.uint8 if dtype == _BOOL else dtype, count, place).reshape(shape).copy()
    if dtype == _BOOL and np.any(array > 1):
        raise RemoteProtocolError("a tensor of truth values has others")
    return name, array.view(dtype), _skip(data, end)


def _within(data: memoryview, place: int, size: int) -> int:
    if size > len(data) - place:
        raise RemoteProtocolError("a tensor is cut short")
    return place + size


def _skip(data: memoryview, place: int) -> int:
    """Returns the next multiple of 16; what lies before it must be zeros."""
    end = _within(data, place, _padding(place))
    if any(data[place:end]):
        raise RemoteProtocolError("a tensor is followed by something that is no padding")
    return end


def _padding(size: int) -> int:
    return -size % _ALIGN


def _name(label: bytes) -> str:
    try:
        name = label.decode()
    except UnicodeDecodeError:
        name = "\n"
    if not name.isprintable():
        raise RemoteProtocolError("a tensor's name is not printable text")
    return name
