"""What travels between server and sites: round trips, known bytes, and any bytes at all."""

import string
import struct
from collections.abc import Callable, Mapping
from typing import Any

import cbor2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from privacy.errors import RemoteProtocolError
from strategies import messages
from strategies.contribution import Contribution
from strategies.messages import Hello, RoundReply, RoundTask
from strategies.task import SiteId
from tests.strategies.contract import vector

Decoder = Callable[[bytes], Hello | RoundTask | RoundReply]
DECODERS: Mapping[str, Decoder] = {"hello": Hello.decode, "task": RoundTask.decode, "reply": RoundReply.decode}

names = st.text(max_size=64)
counts = st.integers(1, 2**40)
arrays = st.dictionaries(names, hnp.arrays(np.float32, st.integers(0, 6), elements=st.floats(width=32)), max_size=3)
printable = st.text(min_size=1, max_size=64).filter(str.isprintable)
hellos = st.builds(Hello, printable.map(SiteId), st.integers(0, 2**53), st.integers(0, 2**53))
tasks = st.builds(RoundTask, names, counts, counts, st.tuples(st.integers(0, 2**40), st.integers(0, 2**40)), arrays)
replies = st.builds(
    RoundReply,
    names.map(SiteId),
    counts,
    counts,
    st.builds(Contribution, arrays, st.dictionaries(names, st.floats(), max_size=3)),
)
valid = st.one_of(hellos, tasks, replies).map(lambda message: message.encode())


def bits(named: Mapping[str, Any]) -> dict[str, tuple[str, bytes]]:
    """Arrays or floats by name, down to the bits: NaN equals itself here."""
    return {name: (str(np.asarray(value).dtype), np.asarray(value).tobytes()) for name, value in named.items()}


@given(hellos)
def test_hello_round_trip(message: Hello) -> None:
    assert Hello.decode(message.encode()) == message


@given(tasks)
def test_task_round_trip(message: RoundTask) -> None:
    read = RoundTask.decode(message.encode())
    assert (read.job, read.round, read.attempt, read.accepted) == (
        message.job,
        message.round,
        message.attempt,
        message.accepted,
    )
    assert bits(read.arrays) == bits(message.arrays)


@given(replies)
def test_reply_round_trip(message: RoundReply) -> None:
    read = RoundReply.decode(message.encode())
    assert (read.site, read.round, read.attempt) == (message.site, message.round, message.attempt)
    assert bits(read.contribution.arrays) == bits(message.contribution.arrays)
    scalars = {name: np.nan_to_num(value) for name, value in message.contribution.scalars.items()}
    assert {name: np.nan_to_num(value) for name, value in read.contribution.scalars.items()} == scalars


def test_bytes_are_those_of_rfc_8949() -> None:
    # Written by hand: shortest keys first, text as 60 + length, a scalar as eight big-endian bytes.
    site, one = "64" + b"site".hex(), "01"
    hello = "a564" + b"seen".hex() + "00" + site + "627661" + "65" + b"hello".hex() + one
    hello += "69" + b"n_records".hex() + "186f" + "6b" + b"conformance".hex() + "40"
    assert Hello(SiteId("va"), 111).encode().hex() == hello
    reply = RoundReply(SiteId("va"), 2, 1, Contribution({"u": vector(1.0, -2.0)}, {"loss": 0.5}))
    assert reply.encode().hex() == (
        "a6" + site + "627661" + "65" + b"reply".hex() + one + "65" + b"round".hex() + "02"
        "66" + b"arrays".hex() + "a1" + "6175" + "48" + "0000803f" + "000000c0"
        "67"
        + b"attempt".hex()
        + one
        + "67"
        + b"scalars".hex()
        + "a1"
        + "64"
        + b"loss".hex()
        + "48"
        + "3fe0000000000000"
    )


def test_bytes_do_not_depend_on_the_order_of_names() -> None:
    one, other = vector(1.0), vector(2.0)
    forwards = RoundTask("job", 1, 1, (0, 0), {"model": one, "control": other})
    backwards = RoundTask("job", 1, 1, (0, 0), {"control": other, "model": one})
    assert forwards.encode() == backwards.encode()


def test_vectors_in_any_layout_travel_as_little_endian_float32() -> None:
    strided = np.arange(6, dtype=np.float32)[::2]
    swapped = strided.astype(">f4")
    for given_vector in (strided, swapped):
        task = RoundTask.decode(RoundTask("job", 1, 1, (0, 0), {"model": given_vector}).encode())
        assert task.arrays["model"].dtype == np.float32
        np.testing.assert_array_equal(task.arrays["model"], [0.0, 2.0, 4.0])


def test_what_was_read_cannot_be_written_to() -> None:
    task = RoundTask.decode(RoundTask("job", 1, 1, (0, 0), {"model": vector(1.0)}).encode())
    assert not task.arrays["model"].flags.writeable
    with pytest.raises(TypeError):
        task.arrays["model"] = vector(2.0)  # type: ignore[index]  # that it is refused is the point


def assert_read_or_refused(data: bytes) -> None:
    """Any bytes are a message or a RemoteProtocolError; whatever else is raised fails the test."""
    for kind, decode in DECODERS.items():
        try:
            message = decode(data)
        except RemoteProtocolError as error:
            assert str(error).isprintable()  # noqa: PT017 - only some of the bytes are refused
        else:
            assert type(message).__name__.lower().endswith(kind)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    assert_read_or_refused(data)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A valid message with a few bytes changed, put in or taken out."""
    data = bytearray(draw(valid))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data)))
        data[place : place + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(data)


@settings(deadline=None, max_examples=400)
@given(damaged())
def test_damaged_messages_are_read_or_refused(data: bytes) -> None:
    assert_read_or_refused(data)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3)
        | st.builds(cbor2.CBORTag, st.sampled_from([0, 1, 2, 4, 5, 28, 29, 30, 35, 37, 258, 260, 43000]), inner)
    ),
    max_leaves=6,
)
FIELDS = ("hello", "task", "reply", "site", "n_records", "job", "round", "attempt", "accepted", "arrays", "scalars")


@settings(deadline=None, max_examples=400)
@given(valid, st.sampled_from(FIELDS), anything)
def test_fields_of_any_type_are_read_or_refused(data: bytes, name: str, value: Any) -> None:
    body = cbor2.loads(data)
    if name in body:
        assert_read_or_refused(cbor2.dumps({**body, name: value}, canonical=True))
    assert_read_or_refused(cbor2.dumps(value, canonical=True))


HALF = struct.pack(">d", 0.5)
BODIES: Mapping[str, Mapping[str, Any]] = {
    "hello": {"hello": 1, "site": "va", "n_records": 10, "seen": 0, "conformance": b""},
    "task": {"task": 1, "job": "j", "round": 1, "attempt": 1, "accepted": [0, 0], "arrays": {"model": b"1234"}},
    "reply": {"reply": 1, "site": "va", "round": 1, "attempt": 1, "arrays": {"u": b"1234"}, "scalars": {"loss": HALF}},
}
REFUSED: list[tuple[str, Mapping[str, Any], str]] = [
    ("hello", {"hello": 2}, "not a version 1 'hello'"),
    ("hello", {"more": 1}, "not a version 1 'hello'"),
    ("hello", {"site": b"va"}, "'site' has the wrong type"),
    ("hello", {"site": ""}, "out of range"),
    ("hello", {"site": "x" * 65}, "out of range"),
    ("hello", {"n_records": -1}, "not CBOR"),
    ("hello", {"n_records": True}, "'n_records' has the wrong type"),
    ("hello", {"n_records": 10.0}, "not CBOR"),
    ("hello", {"seen": -1}, "not CBOR"),
    ("hello", {"seen": 2**60}, "out of range"),
    ("hello", {"conformance": ""}, "'conformance' has the wrong type"),
    ("hello", {"conformance": bytes(2**16 + 1)}, "too much"),
    ("task", {"task": None}, "not CBOR"),
    ("task", {"job": 7}, "'job' has the wrong type"),
    ("task", {"round": 0}, "numbered from 1"),
    ("task", {"attempt": 0}, "numbered from 1"),
    ("task", {"round": True}, "'round' has the wrong type"),
    ("task", {"attempt": "1"}, "'attempt' has the wrong type"),
    ("task", {"accepted": [0]}, "accepted round is malformed"),
    ("task", {"accepted": [0, 0, 0]}, "accepted round is malformed"),
    ("task", {"accepted": [0, 0.0]}, "not CBOR"),
    ("task", {"accepted": {"round": 1}}, "'accepted' has the wrong type"),
    ("task", {"arrays": [b"1234"]}, "'arrays' has the wrong type"),
    ("task", {"arrays": {"model": b"12345"}}, "named byte strings of float32"),
    ("task", {"arrays": {"model": [1]}}, "named byte strings of float32"),
    ("task", {"arrays": {1: b"1234"}}, "not CBOR"),
    ("reply", {"site": None}, "not CBOR"),
    ("reply", {"round": "1"}, "'round' has the wrong type"),
    ("reply", {"attempt": 1.0}, "not CBOR"),
    ("reply", {"arrays": {"u": "1234"}}, "named byte strings of float32"),
    ("reply", {"scalars": {"loss": 1}}, "scalars are named floats"),
    ("reply", {"scalars": {"loss": b"0.5"}}, "scalars are named floats"),
    ("reply", {"scalars": {"loss": 0.5}}, "not CBOR"),
    ("reply", {"scalars": [HALF]}, "'scalars' has the wrong type"),
]


@pytest.mark.parametrize(("kind", "changes", "reason"), REFUSED)
def test_a_field_that_is_not_what_it_should_be_is_refused(kind: str, changes: Mapping[str, Any], reason: str) -> None:
    with pytest.raises(RemoteProtocolError, match=reason):
        DECODERS[kind](cbor2.dumps({**BODIES[kind], **changes}, canonical=True))


@pytest.mark.parametrize("kind", BODIES)
def test_a_message_has_all_its_fields_and_is_read_as_its_own_kind_only(kind: str) -> None:
    body = BODIES[kind]
    DECODERS[kind](cbor2.dumps(body, canonical=True))
    for name in body:
        with pytest.raises(RemoteProtocolError, match="not a version 1"):
            DECODERS[kind](cbor2.dumps({key: value for key, value in body.items() if key != name}, canonical=True))
    for other in set(DECODERS) - {kind}:
        with pytest.raises(RemoteProtocolError, match=f"not a version 1 '{other}'"):
            DECODERS[other](cbor2.dumps(body, canonical=True))


def test_a_message_that_is_too_large_is_not_even_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Hello(SiteId("va"), 10).encode()
    monkeypatch.setattr(messages, "_MAX_BYTES", len(data))
    Hello.decode(data)
    with pytest.raises(RemoteProtocolError, match="larger than 1 GiB"):
        Hello.decode(data + b"\x00")


def test_a_refusal_repeats_nothing_of_the_message() -> None:
    patient = "patient-47"
    taken = []
    for kind, body in BODIES.items():
        for name in body:
            for bad in (patient, {patient: patient}, [patient]):
                try:
                    DECODERS[kind](cbor2.dumps({**body, name: bad}, canonical=True))
                except RemoteProtocolError as error:
                    assert patient not in str(error) + error.hint  # noqa: PT017 - what was taken is counted below
                else:
                    taken.append((kind, name, bad))
    texts = {("hello", "site"), ("task", "job"), ("reply", "site")}  # anything may be called so
    assert {(kind, name) for kind, name, _ in taken} == texts


def test_kinds_of_messages_are_those_that_flower_routes() -> None:
    for kind, category in ((messages.HELLO, "query"), (messages.TRAIN, "train")):
        left, _, action = kind.partition(".")
        assert left == category
        assert set(action) <= set(string.ascii_lowercase)
