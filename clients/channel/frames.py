"""Frames as bytes: what ``channel.proto`` describes, checked field by field. Pure: bytes in, values out.

A frame is at most ``frame_bytes + HEAD_BYTES`` long, and reading it makes no more than a few copies of that: nothing
in the format repeats but bytes. Tensors are joined to a frame and parted from it without protobuf, which would copy
them two or three times; what travels is protobuf all the same.
"""

from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import DecodeError

from clients.channel import tensors
from clients.channel.limits import HEAD_BYTES
from clients.channel.message import Message, is_kind
from clients.proto import channel_pb2 as wire
from privacy.errors import LocalProtocolError, RemoteProtocolError

REASON_CHARS = 300
_MOST = 2**63
_FIELDS = 4  # two numbers, the content, tensors
_LENGTH = 2  # protobuf's mark of a field that begins with its length
_TENSORS = bytes((wire.Frame.TENSORS_FIELD_NUMBER << 3 | _LENGTH,))

_Wire = TypeVar("_Wire", wire.Frame, wire.Asked, wire.Terms)


@dataclass(frozen=True)
class Arrived:
    """A frame after the opening.

    Attributes:
      sequence: Counts messages and the end of one direction from 1; 0 if ``content`` is ``None``.
      acknowledged: Up to where the sender's application has taken the other direction's.
      content: A message, the reason of the sender's end (empty: none), or nothing but the acknowledgement.
    """

    sequence: int
    acknowledged: int
    content: Message | str | None


def data(sequence: int, acknowledged: int, message: Message, *, session: bytes, frame_bytes: int) -> bytes:
    """Returns a message as a frame: the one copy of its arrays.

    Raises: LocalProtocolError: It is larger than ``frame_bytes``, or has what the format has no place for.
    """
    pieces = tensors.encode(message.tensors, session, message.step)
    size = len(message.body) + sum(memoryview(one).nbytes for one in pieces)
    if size > frame_bytes:
        raise LocalProtocolError(
            f"a message of {size} bytes is larger than the {frame_bytes} that this session takes",
            hint="Send less at once: fewer records in a micro-batch.",
        )
    content = wire.Data(kind=message.kind, step=message.step, body=message.body)
    head = wire.Frame(sequence=sequence, acknowledged=acknowledged, data=content).SerializeToString()
    if not pieces:
        return head
    # Fields may come in any order; the last one is written by hand, which spares three copies of the tensors.
    return b"".join((head, _TENSORS, _varint(size - len(message.body)), *pieces))


def acknowledgement(acknowledged: int) -> bytes:
    """Returns a frame with nothing but the acknowledgement."""
    return wire.Frame(acknowledged=acknowledged).SerializeToString()


def closed(sequence: int, acknowledged: int, reason: str) -> bytes:
    """Returns the sender's last frame."""
    content = wire.Closed(reason=plain(reason))
    return wire.Frame(sequence=sequence, acknowledged=acknowledged, closed=content).SerializeToString()


def decode(frame: bytes, *, session: bytes, frame_bytes: int) -> Arrived:
    """Reads a frame after the opening from a peer. Raises: RemoteProtocolError: It is none."""
    head, packed = _parted(frame)
    read = parse(head, frame_bytes)
    which = read.WhichOneof("content")
    if which == "data":
        message = _message(read.data, packed, session=session, frame_bytes=frame_bytes)
        return Arrived(_counted(read.sequence), read.acknowledged, message)
    if packed or read.tensors:
        raise RemoteProtocolError("a frame has tensors and no message")
    if which == "closed":
        return Arrived(_counted(read.sequence), read.acknowledged, plain(read.closed.reason))
    if which is not None or read.sequence:
        raise RemoteProtocolError("a frame is of no kind that can come here")
    return Arrived(0, read.acknowledged, None)


def parse(frame: bytes, frame_bytes: int) -> wire.Frame:
    """Parses a frame and checks nothing but its size. Raises: RemoteProtocolError: It is none."""
    if len(frame) > frame_bytes + HEAD_BYTES:
        raise RemoteProtocolError(f"a frame is larger than {frame_bytes} bytes")
    return parsed(wire.Frame(), frame)


def parsed(empty: _Wire, data: bytes) -> _Wire:
    """Parses what a frame is or carries into ``empty``. Raises: RemoteProtocolError: It is none."""
    try:
        empty.ParseFromString(data)
    except DecodeError:
        raise RemoteProtocolError("a frame cannot be read") from None
    return empty


def plain(text: str) -> str:
    """Returns one printable line of at most 300 characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text[: 2 * REASON_CHARS]).split())[:REASON_CHARS]


def _varint(number: int) -> bytes:
    """Returns ``number`` as protobuf writes lengths: seven bits a byte, the lowest first."""
    low, rest = number & 127, number >> 7
    return bytes((low | 128,)) + _varint(rest) if rest else bytes((low,))


def _counted(sequence: int) -> int:
    if not 0 < sequence < _MOST:
        raise RemoteProtocolError("a frame has no sequence number")
    return sequence


def _message(read: wire.Data, packed: memoryview, *, session: bytes, frame_bytes: int) -> Message:
    if not is_kind(read.kind) or len(read.body) + len(packed) > frame_bytes:
        raise RemoteProtocolError("a message has no proper kind, or is larger than this session takes")
    try:
        return Message(read.kind, read.step, read.body, tensors.decode(packed, session, read.step))
    except LocalProtocolError as error:
        raise RemoteProtocolError(str(error)) from None


def _parted(frame: bytes) -> tuple[bytes, memoryview]:
    """Parts a frame before its tensors, which come last, so that protobuf copies none of them.

    Raises: RemoteProtocolError: More fields than a frame has, or something after the tensors.
    """
    place = 0
    for _ in range(_FIELDS):
        if place >= len(frame):
            return frame, memoryview(b"")
        tag, start = _number(frame, place)
        size, end = _number(frame, start)
        if tag == _TENSORS[0]:
            if size != len(frame) - end:
                break
            return frame[:place], memoryview(frame)[end:]
        place = end + (size if tag & 7 == _LENGTH else 0)
    raise RemoteProtocolError("a frame does not end where it says")


def _number(frame: bytes, place: int) -> tuple[int, int]:
    """Reads what ``_varint`` writes; returns the number and where it ends."""
    number = 0
    for shift in range(0, 70, 7):
        if place >= len(frame):
            break
        byte, place = frame[place], place + 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, place
    raise RemoteProtocolError("a frame is cut short")
