"""Whatever of the channel takes bytes from a stranger, for the fuzzer of ``tests/privacy/secagg``.

``python -m tests.clients.channel.fuzz_targets RUNS [SEED]`` feeds so many changed frames, and tells how memory grew.
"""

import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from clients.channel import frames, openings, tensors
from clients.channel.credentials import Identity
from clients.channel.limits import HEAD_BYTES, Limits
from clients.channel.message import Array, Message
from clients.channel.reception import Reception
from clients.channel.session import ChannelError, Opening, Session
from clients.channel.stream import Line, StreamSession
from clients.proto import channel_pb2 as wire
from privacy.errors import FederationError, RemoteProtocolError
from tests.clients.channel.ends import asked, identity, signed
from tests.clients.channel.fuzz_forms import ASKED, FRAME, TENSORS, TERMS
from tests.federation import Federation, federate
from tests.privacy.secagg.fuzz_engine import Fuzzing
from tests.privacy.secagg.fuzz_machines import Target

SESSION = bytes(range(16))
LIMITS = Limits(frame_bytes=2**14, window=4, steps=9)
STEP = 7
BOUND = LIMITS.frame_bytes + HEAD_BYTES
"""Bytes that one frame may have."""

_DRAWN = np.random.default_rng(8)
ARRAYS: dict[str, Array] = {
    "x": _DRAWN.random((4, 8), np.float32),
    "scores": _DRAWN.random((3, 1, 2)),
    "labels": np.arange(5),
    "counts": np.arange(3, dtype=np.uint64),
    "mask": np.array([True, False, True]),
    "scalar": np.array(1.5),
    "none": np.empty((0, 7), np.float32),
}


def _packed(arrays: dict[str, Array]) -> bytes:
    return b"".join(bytes(piece) for piece in tensors.encode(arrays, SESSION, STEP))


def _data(sequence: int, **arrays: Array) -> bytes:
    message = Message("forward", STEP, b"body", arrays)
    return frames.data(sequence, 0, message, session=SESSION, frame_bytes=LIMITS.frame_bytes)


FRAMES = (
    _data(1, **ARRAYS),
    _data(2),
    _data(3, x=ARRAYS["x"]),
    _data(LIMITS.window + 1),
    frames.acknowledgement(1),
    frames.closed(1, 0, ""),
    frames.closed(2, 1, "enough"),
)
TERMS_SENT = wire.Terms(limits=LIMITS.written(), body=b"yes", received=3, certificate=b"leaf").SerializeToString()
OPENED = wire.Frame(opened=wire.Opened(terms=TERMS_SENT, signature=bytes(64))).SerializeToString()


def decode_tensors(data: bytes, _choice: int) -> str:
    """A value that is written again must give the same bytes: there is one encoding."""
    try:
        found = tensors.decode(memoryview(data), SESSION, STEP)
    except RemoteProtocolError:
        return "refused"
    assert _packed(found) == data
    return "accepted"


def decode_frame(data: bytes, _choice: int) -> str:
    try:
        arrived = frames.decode(data, session=SESSION, frame_bytes=LIMITS.frame_bytes)
    except RemoteProtocolError:
        return "refused"
    if isinstance(arrived.content, Message):
        size = len(arrived.content.body) + sum(array.nbytes for array in arrived.content.tensors.values())
        assert size <= LIMITS.frame_bytes
    return "accepted"


def parse_terms(data: bytes, _choice: int) -> str:
    try:
        LIMITS.lesser(frames.parsed(wire.Terms(), data).limits)
    except RemoteProtocolError:
        return "refused"
    return "accepted"


def session_takes(data: bytes, choice: int) -> str:
    """Either end of a session, in one of eight states, is sent a frame; it goes on, or is over with a plain line.

    Args:
      data: The frame.
      choice: Decides what came before.
    """
    opening = Opening("echo", SESSION)
    session = StreamSession(peer="brno", opening=opening, opened=b"", limits=LIMITS)
    line = Line()
    session.attach(line, 0, lambda: None)
    if choice & 1:
        session.send(Message("forward", STEP))
    for number in range((choice >> 1 & 1) + (choice >> 2 & 1) * (LIMITS.window - 1)):
        session.arrived(line, _data(number + 1))  # with both bits the window is full
    before = session.received
    session.arrived(line, data)
    assert session.received - before in {0, 1}
    got, over = drained(session)
    assert got <= LIMITS.window
    assert all(text.isprintable() for text in over.lines())
    return "refused" if "broke the protocol" in str(over) else "accepted"


def drained(session: Session) -> tuple[int, ChannelError]:
    """Takes all messages that are there; returns how many, and why no more came."""
    got = 0
    while True:
        try:
            session.receive(timeout=0)
        except ChannelError as error:
            return got, error
        got += 1


class Silent:
    """A service that has nothing to say and keeps nothing."""

    def admit(self, peer: str, opening: Opening) -> bytes:
        return opening.body + peer.encode()

    def run(self, session: Session) -> None:
        session.close()


def read_opening(data: bytes, _choice: int) -> str:
    """A first frame, from whoever holds a certificate."""
    try:
        openings.read(data, LIMITS)
    except RemoteProtocolError:
        return "refused"
    return "accepted"


class Answering:
    """A listener without its line: what a dialler asks that it knows, whose certificate TLS has seen."""

    def __init__(self, federation: Federation) -> None:
        here, self._alba = (_without_files(identity(federation, site)) for site in ("brno", "alba"))
        self._reception = Reception(here, {"talk": Silent()}, LIMITS, lambda _record: None)

    def asked(self, purpose: str = "", received: int | None = None) -> bytes:
        """Returns what the dialler would ask."""
        return asked(self._alba, Opening("talk", SESSION, b"body", purpose), limits=LIMITS, received=received)

    def opening(self) -> bytes:
        """Returns a good first frame."""
        return signed(self._alba, self.asked())

    def check(self, data: bytes, _choice: int) -> str:
        """What a dialler asks, and has signed, opens a session or is refused."""
        try:
            _, session = self._reception.answer(signed(self._alba, data), self._alba.credentials().certificate, Line())
        except FederationError:
            return "refused"
        session.finish()
        return "accepted"


def _without_files(own: Identity) -> Identity:
    charter, given = own.charter(), own.credentials()
    return replace(own, charter=lambda: charter, credentials=lambda: given)


def targets(federation: Federation) -> list[Target]:
    """Returns all of them; no line is needed, and what carries the frames is gRPC's business."""
    packed = (_packed(ARRAYS), *(_packed({name: array}) for name, array in ARRAYS.items()))
    answering = Answering(federation)
    asking = (answering.asked(), answering.asked("training"), answering.asked(received=0))
    return [
        Target("tensors decode", packed, decode_tensors, TENSORS),
        Target("frame decode", (*FRAMES, OPENED), decode_frame, FRAME),
        Target("terms", (TERMS_SENT,), parse_terms, TERMS),
        Target("session", (*FRAMES, OPENED), session_takes, FRAME),
        Target("opening", (answering.opening(),), read_opening, FRAME),
        Target("listener", asking, answering.check, ASKED),
    ]


def main(arguments: list[str]) -> None:
    """Runs the fuzzer; whatever does harm ends it with a traceback."""
    runs, seed = int(arguments[0]), int([*arguments, "1"][1])
    with tempfile.TemporaryDirectory() as folder:
        fuzzing = Fuzzing(targets(federate(Path(folder) / "all", sites=("alba", "brno", "cork"))))
        before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        fuzzing.plain(runs, seed)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        sys.stdout.write(f"{fuzzing.figures(started)}\n{fuzzing.most} bytes, {grown} KiB\n")


if __name__ == "__main__":
    main(sys.argv[1:])
