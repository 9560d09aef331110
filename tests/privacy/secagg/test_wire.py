"""Messages: one encoding each, and any other bytes are a protocol error, not a crash."""

from dataclasses import replace
from typing import Any

import cbor2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from privacy.errors import RemoteProtocolError
from privacy.secagg.context import RoundContext
from privacy.secagg.encoding import digest, draw, dumps, labelled, loads, u64
from privacy.secagg.wire import Message, decode
from tests.privacy.secagg.parties import exchange, lose, parties

LOG = exchange(parties(4), lose({"site-4": "MSK"}))
MESSAGES = {decode(data).kind: data for _, data in LOG.sent}


def test_there_are_ten() -> None:
    assert set(MESSAGES) == {"START", "ADV", "KEYS", "SHR", "FWD", "MSK", "SURV", "CON", "SIGS", "UNM"}


@pytest.mark.parametrize("kind", sorted(MESSAGES))
def test_one_encoding(kind: str) -> None:
    data = MESSAGES[kind]
    message = decode(data)
    assert message.encode() == data
    assert message.kind == kind
    assert dumps(cbor2.loads(data)) == data


def fits(name: str, value: Any, other: Any) -> bool:
    if name in {"context", "from"}:
        return bool(other == (b"" if name == "context" else "x"))
    return bool(other in ({}, []) and isinstance(value, type(other)))


@pytest.mark.parametrize("kind", sorted(MESSAGES))
def test_fields_are_exact(kind: str) -> None:
    value = loads(MESSAGES[kind])
    for name in value:
        for other in (None, -1, 1.5, "x", b"", [], {}, [b"x"], {"x": b"x"}, cbor2.CBORTag(4, [1, 2])):
            if fits(name, value[name], other):
                continue  # well-formed; for the machine to refuse
            with pytest.raises(RemoteProtocolError):
                decode(dumps({**value, name: other}))
        without = {key: item for key, item in value.items() if key != name}
        with pytest.raises(RemoteProtocolError):
            decode(dumps(without))
    with pytest.raises(RemoteProtocolError):
        decode(dumps({**value, "metrics": 1}))


OTHER_FORMS = {
    "trailing byte": bytes.fromhex("0000"),
    "long integer": bytes.fromhex("1801"),
    "long length": bytes.fromhex("580100"),
    "indefinite bytes": bytes.fromhex("5f4100ff"),
    "indefinite list": bytes.fromhex("9f00ff"),
    "unsorted keys": bytes.fromhex("a2616200616100"),
    "repeated key": bytes.fromhex("a2616100616100"),
    "integer key": bytes.fromhex("a10000"),
    "longer key first": bytes.fromhex("a262616100616200"),
    "float": bytes.fromhex("f93c00"),
    "null": bytes.fromhex("f6"),
    "undefined": bytes.fromhex("f7"),
    "tag": bytes.fromhex("c101"),
    "bignum": bytes.fromhex("c249010000000000000000"),
    "negative": bytes.fromhex("20"),
    "bad utf-8": bytes.fromhex("61ff"),
    "nothing": b"",
    "huge bytes": bytes.fromhex("5b7fffffffffffffff"),
    "huge list": bytes.fromhex("9b7fffffffffffffff"),
    "huge map": bytes.fromhex("bb7fffffffffffffff"),
    "reserved": bytes.fromhex("1c"),
    "deep": b"\x81" * 100 + b"\x00",
    "very deep": b"\x81" * 1_000_000 + b"\x00",
    "many": dumps([[]] * 100_001),
}


@pytest.mark.parametrize("name", OTHER_FORMS)
def test_other_forms_are_refused(name: str) -> None:
    with pytest.raises(RemoteProtocolError):
        loads(OTHER_FORMS[name])


@pytest.mark.parametrize(
    "value", [0, 23, 24, 2**64 - 1, b"", b"x" * 300, "", "é", [], [1, [2]], {}, {"b": 1, "aa": 2}, True, False]
)
def test_values_survive(value: Any) -> None:
    assert loads(dumps(value)) == value


def test_size_is_checked_first() -> None:
    with pytest.raises(RemoteProtocolError, match="more than"):
        loads(bytes(100), limit=99)
    with pytest.raises(RemoteProtocolError, match="more than"):
        decode(dumps({"kind": "MSK", "ctx": bytes(32), "from": "a", "y": {"0": bytes(5_000_000)}, "sig": bytes(64)}))


@settings(max_examples=300, deadline=None)
@example(b"")
@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    for read in (decode, RoundContext.decode, loads):
        try:
            read(data)
        except RemoteProtocolError:
            continue


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(MESSAGES)), st.data())
def test_changed_messages_decode_to_themselves_or_not_at_all(kind: str, data: st.DataObject) -> None:
    changed = bytearray(MESSAGES[kind])
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    del changed[data.draw(st.sampled_from([len(changed), len(changed) - 1, len(changed) // 2])) :]
    try:
        message = decode(bytes(changed))
    except RemoteProtocolError:
        return
    assert message.encode() == bytes(changed)


VALUES = st.recursive(
    st.integers(0, 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=8) | st.booleans(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(MESSAGES)), st.data(), VALUES)
def test_well_formed_nonsense(kind: str, data: st.DataObject, value: Any) -> None:
    fields = loads(MESSAGES[kind])
    name = data.draw(st.sampled_from(sorted(fields)))
    try:
        message: Message = decode(dumps({**fields, name: value}))
    except RemoteProtocolError:
        return
    assert message.encode() == dumps({**fields, name: value})


def test_hashes_separate_their_parts() -> None:
    hashed = {
        digest("a", b"bc", b"d"), digest("a", b"b", b"cd"), digest("ab", b"c", b"d"), digest("a", b"bcd"), digest("a"),
        digest("a", b"bc", b"d", b""),
    }  # fmt: skip
    assert len(hashed) == 6
    assert u64(258).hex() == "0000000000000102"
    assert labelled("adv", b"x") == b"FSA1/adv\x00x"
    assert draw(bytes, 3) == bytes(3)


def test_the_share_does_not_show() -> None:
    message = decode(MESSAGES["UNM"])
    assert "shares" not in repr(message)
    assert replace(message) == message
