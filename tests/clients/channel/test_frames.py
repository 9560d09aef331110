"""Frames: as protobuf would write them, and refused unless every field is in its place."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.channel import frames, openings, tensors
from clients.channel.limits import Limits
from clients.channel.message import Message
from clients.channel.session import Opening, RemoteRefusalError
from clients.proto import channel_pb2 as wire
from privacy.errors import ConfigError, LocalProtocolError, RemoteProtocolError

SESSION = bytes(range(16))
BYTES = 2**16
LIMITS = Limits(frame_bytes=BYTES)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 2**40),
    st.integers(0, 2**40),
    st.integers(0, 2**64 - 1),
    st.binary(max_size=300),
    st.integers(0, 3000),
)
def test_the_hand_written_field_is_what_protobuf_writes(
    sequence: int, acknowledged: int, step: int, body: bytes, size: int
) -> None:
    message = Message("forward", step, body, {"x": np.arange(size)} if size else {})
    content = wire.Data(kind="forward", step=step, body=body)
    packed = b"".join(tensors.encode(message.tensors, SESSION, step))
    frame = wire.Frame(sequence=sequence, acknowledged=acknowledged, data=content, tensors=packed)
    made = frames.data(sequence, acknowledged, message, session=SESSION, frame_bytes=BYTES)
    assert made == frame.SerializeToString()
    read = frames.decode(made, session=SESSION, frame_bytes=BYTES)
    assert (read.sequence, read.acknowledged) == (sequence, acknowledged)
    assert isinstance(read.content, Message)
    assert (read.content.kind, read.content.step, read.content.body) == ("forward", step, body)


def test_the_other_frames_after_an_opening() -> None:
    decode = frames.decode
    got = decode(frames.acknowledgement(5), session=SESSION, frame_bytes=BYTES)
    assert got == frames.Arrived(0, 5, None)
    got = decode(frames.closed(4, 2, "two\nlines\x00"), session=SESSION, frame_bytes=BYTES)
    assert got == frames.Arrived(4, 2, "two lines")


DATA = wire.Data(kind="x")
WHOLE = frames.data(1, 0, Message("x", tensors={"x": np.zeros(9)}), session=SESSION, frame_bytes=BYTES)
BROKEN: dict[str, Callable[[], bytes]] = {
    "no protobuf": lambda: b"\xff\xff\xff",
    "an opening": lambda: wire.Frame(open=wire.Open()).SerializeToString(),
    "an answer": lambda: wire.Frame(opened=wire.Opened()).SerializeToString(),
    "no number": lambda: wire.Frame(data=DATA).SerializeToString(),
    "an end without a number": lambda: wire.Frame(closed=wire.Closed()).SerializeToString(),
    "a huge number": lambda: wire.Frame(sequence=2**63, data=DATA).SerializeToString(),
    "a number and nothing": lambda: wire.Frame(sequence=1).SerializeToString(),
    "tensors and nothing": lambda: wire.Frame(tensors=b"x").SerializeToString(),
    "tensors and an end": lambda: wire.Frame(sequence=1, closed=wire.Closed(), tensors=b"x").SerializeToString(),
    "no kind": lambda: wire.Frame(sequence=1, data=wire.Data()).SerializeToString(),
    "no proper kind": lambda: wire.Frame(sequence=1, data=wire.Data(kind="a b")).SerializeToString(),
    "a long kind": lambda: wire.Frame(sequence=1, data=wire.Data(kind="a" * 33)).SerializeToString(),
    "tensors that are none": lambda: wire.Frame(sequence=1, data=DATA, tensors=b"x").SerializeToString(),
    "something after the tensors": lambda: WHOLE + b"\x08\x02",
    "tensors before the message": lambda: b"\x3a\x00" + wire.Frame(sequence=1, data=DATA).SerializeToString(),
    "tensors twice": lambda: WHOLE + b"\x3a\x00",
    "more fields than there are": lambda: b"\x08\x01" * 4 + WHOLE,
    "a length beyond the end": lambda: b"\x2a\xff\x01",
    "a number that never ends": lambda: b"\x08" + b"\xff" * 11,
    "a large body": lambda: wire.Frame(sequence=1, data=wire.Data(kind="x", body=bytes(BYTES + 1))).SerializeToString(),
    "a large frame": lambda: bytes(2 * BYTES + 1),
}


def test_a_frame_that_is_cut_is_no_other_message() -> None:
    head = len(frames.data(1, 0, Message("x"), session=SESSION, frame_bytes=BYTES))
    for end in {*range(1, len(WHOLE))} - {head}:  # there, what is left is a message without tensors
        with pytest.raises(RemoteProtocolError):
            frames.decode(WHOLE[:end], session=SESSION, frame_bytes=BYTES)


@pytest.mark.parametrize("what", BROKEN)
def test_a_frame_that_is_none_is_refused(what: str) -> None:
    with pytest.raises(RemoteProtocolError):
        frames.decode(BROKEN[what](), session=SESSION, frame_bytes=BYTES)


def opening(**changes: object) -> bytes:
    parts: dict[str, object] = {
        "version": 1,
        "dialler": "alba",
        "listener": "brno",
        "charter": bytes(32),
        "kind": "stage",
        "session": SESSION,
        "nonce": bytes(32),
        "purpose": "training",
        "body": b"",
        "limits": LIMITS.written(),
    }
    return openings.write(wire.Asked(**(parts | changes)).SerializeToString(), b"signature")  # type: ignore[arg-type]


WRONG: dict[str, dict[str, object]] = {
    "version": {"version": 2},
    "no dialler": {"dialler": ""},
    "dialler": {"dialler": "a/b"},
    "listener": {"listener": "Ä"},
    "charter": {"charter": bytes(31)},
    "kind": {"kind": "STAGE"},
    "session": {"session": bytes(15)},
    "nonce": {"nonce": b""},
    "purpose of two lines": {"purpose": "a\nb"},
    "long purpose": {"purpose": "a" * 101},
    "body": {"body": bytes(BYTES + 1)},
    "received without resume": {"received": 1},
}


@pytest.mark.parametrize("what", WRONG)
def test_an_opening_with_a_wrong_part_is_refused(what: str) -> None:
    with pytest.raises(RemoteProtocolError):
        openings.read(opening(**WRONG[what]), LIMITS)


def test_an_opening_comes_back_as_it_was_written() -> None:
    asked = Opening("stage", SESSION, b"body", "training")
    parts = {"dialler": "alba", "listener": "brno", "charter": "ab" * 32, "nonce": bytes(32)}
    for received in (None, 0):
        written = openings.ask(asked, **parts, limits=LIMITS, received=received)  # type: ignore[arg-type]
        opened, said = openings.read(openings.write(written, b"signature"), LIMITS)
        assert (opened.asked, opened.signature) == (written, b"signature")
        assert openings.asked(said) == asked
        assert said.resume == (received is not None)


@pytest.mark.parametrize("first", [frames.acknowledgement(1), frames.closed(1, 0, ""), openings.write(b"\xff", b"")])
def test_what_is_no_opening_is_refused(first: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        openings.read(first, LIMITS)


def test_an_answer_is_a_signature_or_a_refusal() -> None:
    answer = openings.write_answer(wire.Terms(limits=LIMITS.written()).SerializeToString(), b"signature")
    opened = openings.read_answer(answer, "brno", LIMITS)
    assert opened.signature == b"signature"
    assert openings.read_terms(opened, LIMITS).limits == LIMITS.written()
    with pytest.raises(RemoteProtocolError, match="more than this end takes"):
        openings.read_terms(opened, Limits(frame_bytes=BYTES, window=7))
    with pytest.raises(RemoteRefusalError, match="brno refused: no room"):
        openings.read_answer(frames.closed(1, 0, "no room"), "brno", LIMITS)
    with pytest.raises(RemoteProtocolError):
        openings.read_answer(frames.acknowledgement(1), "brno", LIMITS)


def test_limits_are_the_lesser_of_both_ends_and_bound_something() -> None:
    ours, theirs = Limits(frame_bytes=10, window=9, idle=3), Limits(frame_bytes=20, window=2, idle=4, steps=5)
    agreed = ours.lesser(theirs.written())
    assert (agreed.frame_bytes, agreed.window, agreed.idle, agreed.steps) == (10, 2, 3, 5)
    with pytest.raises(RemoteProtocolError):
        ours.lesser(wire.Limits())
    for wrong in ({"window": 0}, {"frame_bytes": 0}, {"idle": 0}, {"idle": float("nan")}, {"frame_bytes": 2**31}):
        with pytest.raises(ConfigError):
            Limits(**wrong)


def test_a_message_is_checked_when_it_is_made() -> None:
    for kind in ("", "A", "a b", "a" * 33, "-a", "ä"):
        with pytest.raises(LocalProtocolError):
            Message(kind)
    with pytest.raises(LocalProtocolError):
        Message("x", -1)
    with pytest.raises(LocalProtocolError):
        Message("x", 2**64)
    with pytest.raises(LocalProtocolError):
        Message("x", tensors={str(i): np.zeros(1) for i in range(17)})
