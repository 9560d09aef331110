"""Frames and tensors as trees that can be changed and written again, so that what is changed still parses.

A message of protobuf is a list of ``[field, value]``, a value a number, bytes, or a message again; a tensor's record is
a list of what its header says, with its values. Numbers too large for their place lose their upper bits.
"""

import struct
from collections.abc import Callable
from typing import Any

from tests.privacy.secagg.fuzz_mutate import Form

_HEAD = struct.Struct("<4sBBBB16sQ")
_MASK = 2**64 - 1
Tree = list[Any]


def _varint(data: bytes, place: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte, place = data[place], place + 1
        number, shift = number | (byte & 127) << shift, shift + 7
        if byte < 128:
            return number, place


def _written(number: int) -> bytes:
    number, out = number & _MASK, b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def read_proto(data: bytes, inner: dict[int, Callable[[bytes], Tree]]) -> Tree:
    """Takes a message apart; ``inner`` knows what is in the bytes of some fields."""
    fields, place = [], 0
    while place < len(data):
        key, place = _varint(data, place)
        value: Any
        value, place = _varint(data, place)
        if key & 7 == 2:
            value, place = data[place : place + value], place + value
            value = inner.get(key >> 3, lambda raw: raw)(value)
        fields.append([key >> 3, value])
    return fields


def write_proto(fields: Tree) -> bytes:
    """Puts a message together, whether or not it makes sense."""
    out = b""
    for key, value in fields:
        if isinstance(value, int):
            out += _written(key << 3) + _written(value)
        else:
            # A record of a tensor starts with its magic, a message with a field.
            nested = isinstance(value, list) and bool(value) and isinstance(value[0][0], bytes)
            raw = value if isinstance(value, bytes) else write_tensors(value) if nested else write_proto(value)
            out += _written(key << 3 | 2) + _written(len(raw)) + raw
    return out


def read_tensors(data: bytes) -> Tree:
    """Takes records apart: magic, version, type, dimensions, bytes of the name, session, step, shape, name, values."""
    records, place = [], 0
    sizes = (4, 8, 8, 8, 1)
    while place < len(data):
        head = list(_HEAD.unpack_from(data, place))
        shape = list(struct.unpack_from(f"<{head[3]}I", data, place + _HEAD.size))
        place += _HEAD.size + 4 * head[3]
        name, place = data[place : place + head[4]], place + head[4]
        count = sizes[head[2]]
        for size in shape:
            count *= size
        place += -place % 16
        records.append([*head, shape, name, data[place : place + count]])
        place += count + -count % 16
    return records


def write_tensors(records: Tree) -> bytes:
    """Puts records together, whether or not they make sense."""
    out = b""
    for magic, version, code, ndim, named, session, step, shape, name, values in records:
        numbers = [number & 255 for number in (version, code, ndim, named)]
        head = _HEAD.pack(magic, *numbers, session, step & _MASK)
        head += struct.pack(f"<{len(shape)}I", *(size & 2**32 - 1 for size in shape)) + name
        out += head + bytes(-len(head) % 16) + values + bytes(-len(values) % 16)
    return out


def _plain(data: bytes) -> Tree:
    return read_proto(data, {})


def _with_limits(field: int) -> Callable[[bytes], Tree]:
    return lambda data: read_proto(data, {field: _plain})


TENSORS = Form(read_tensors, write_tensors)
TERMS = Form(_with_limits(1), write_proto)
ASKED = Form(_with_limits(10), write_proto)
_OPEN, _OPENED = ({1: form.loads} for form in (ASKED, TERMS))
FRAME = Form(
    lambda data: read_proto(
        data,
        {
            3: lambda opening: read_proto(opening, _OPEN),
            4: lambda opened: read_proto(opened, _OPENED),
            5: _plain,
            6: _plain,
            7: read_tensors,
        },
    ),
    write_proto,
)
