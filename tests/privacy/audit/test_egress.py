"""Lists of payloads: what is in both, what is in one only, and a file that survives a crash."""

import hashlib

import pytest

from privacy.audit.egress import Sent, digest, line, read, totals, without
from privacy.errors import ConfigError

A, B, C = (Sent.of(kind, group, data) for kind, group, data in (("k", "1", b"a"), ("k", "2", b"bb"), ("j", "1", b"")))


def test_a_payload_is_known_by_what_it_is() -> None:
    assert A.to_json() == {"kind": "k", "group": "1", "bytes": 1, "sha256": hashlib.sha256(b"a").hexdigest()}
    assert Sent.from_json(A.to_json()) == A


def test_the_digest_is_that_of_a_list_without_order_in_which_twice_is_not_once() -> None:
    assert digest([A, B, C]) == digest([C, A, B])
    assert len({digest([A, B]), digest([A, B, B]), digest([A]), digest([])}) == 4


def test_totals_by_kind() -> None:
    assert totals([A, B, C, B]) == [
        {"kind": "j", "messages": 1, "bytes": 0},
        {"kind": "k", "messages": 3, "bytes": 5},
    ]


def test_what_one_list_has_and_the_other_has_not() -> None:
    assert without([A, B, B], [B]) == ([A, B], [])
    assert without([A], [A, A, B]) == ([], [A, B])


def test_the_file_is_read_back_and_half_a_last_line_is_dropped() -> None:
    data = line("x", A) + line("y", B) + line("x", C)
    assert read(data) == {"x": [A, C], "y": [B]}
    assert read(data[:-1]) == {"x": [A], "y": [B]}
    assert read(b"") == {}


@pytest.mark.parametrize(
    "text", [b"junk\n", b"{}\n", b'{"site":"x"}\n', line("x", A).replace(b'"bytes":1', b'"bytes":"1"')]
)
def test_what_nobody_wrote_is_refused(text: bytes) -> None:
    with pytest.raises(ConfigError):
        read(text)
