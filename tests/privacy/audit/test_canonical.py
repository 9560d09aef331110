"""Strict reading: one spelling is accepted, every other one and every hostile value ends in a ``ConfigError``."""

import json
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from privacy.audit import canonical
from privacy.errors import ConfigError

TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp", "Cf"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)

HOSTILE = {
    "empty": b"",
    "not UTF-8": b'"\xff"',
    "byte order mark": b'\xef\xbb\xbf{"a":1}',
    "cut short": b'{"a":1',
    "two values": b"1 2",
    "duplicate key": b'{"a":1,"a":1}',
    "duplicate key, spelled differently": b'{"a":1,"\\u0061":2}',
    "keys out of order": b'{"b":1,"a":2}',
    "white space": b'{"a": 1}',
    "trailing newline": b'{"a":1}\n',
    "escaped letter": b'"\\u0061"',
    "escaped slash": b'"\\/"',
    "fraction": b"1.5",
    "fraction that is whole": b"1.0",
    "exponent": b"1e2",
    "enormous exponent": b"1e999999999",
    "minus zero": b"-0",
    "not a number": b"NaN",
    "infinity": b"-Infinity",
    "integer beyond 2^53": b"9007199254740992",
    "integer of 5000 digits": b"9" * 5000,
    "lone surrogate": b'"\\ud800"',
    "escape character": b'"\\u001b[2K"',
    "newline in a text": b'"1\\n"',
    "text direction override": '"\u202e"'.encode(),
    "text direction marks": '"\u200e"'.encode(),
    "an Arabic letter mark": '"\u061c"'.encode(),
    "a space of no width": '"va\u200b"'.encode(),
    "a word joiner": '"va\u2060"'.encode(),
    "a soft hyphen": '"v\u00ada"'.encode(),
    "a byte order mark inside": '"va\ufeff"'.encode(),
    "key with a control character": b'{"\\u0000":1}',
    "nested 17 deep": b"[" * 18 + b"]" * 18,
    "nested a million deep": b"[" * 10**6,
    "nested objects": b'{"a":' * 10**5,
}


@given(VALUES)
def test_what_is_written_is_read_back(value: Any) -> None:
    assert canonical.loads(canonical.dumps(value), what="it") == value


@given(VALUES)
def test_rfc8785_agrees_with_the_standard_library_on_sorted_ascii(value: Any) -> None:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    if text.isascii() and "\\" not in text:
        assert canonical.dumps(value) == text.encode() == rfc8785.dumps(value)


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ConfigError, match=r"^it "):
        canonical.loads(data, what="it")


def test_too_many_bytes_are_refused_unread() -> None:
    with pytest.raises(ConfigError, match="larger than 16 MB"):
        canonical.loads(b"x" * (canonical.MAX_BYTES + 1), what="it")


@pytest.mark.parametrize("value", [float("nan"), 2**53, "\ud800"])
def test_what_json_cannot_say_is_not_written(value: Any) -> None:
    with pytest.raises(ConfigError):
        canonical.dumps(value)


@given(st.binary(max_size=64))
def test_any_bytes_end_in_a_value_or_a_config_error(data: bytes) -> None:
    try:
        value = canonical.loads(data, what="it")
    except ConfigError:
        return
    assert canonical.dumps(value) == data
