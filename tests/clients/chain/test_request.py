"""The body of an opening: what is sent is what is read, and whatever else a stranger sends is refused."""

from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.chain.request import End, StageRequest, read_request
from privacy.errors import RemoteProtocolError
from privacy.secagg.encoding import dumps, loads

REQUEST = StageRequest(
    plan=b"{}", place=2, end=End.HOME, chain=bytes(16), learning_rate=0.1, steps=50, seed=9,
    run="spring", round=3, attempt=2, weight=60, grant=b"paper", patience=2.5,
)  # fmt: skip


def test_what_is_sent_is_what_is_read() -> None:
    assert read_request(REQUEST.encode()) == REQUEST


@pytest.mark.parametrize(
    "changes",
    [
        {"place": 64}, {"end": "middle"}, {"chain": bytes(15)}, {"steps": True},
        {"learning_rate": "nan"}, {"learning_rate": "-1"}, {"learning_rate": "inf"}, {"learning_rate": "much"},
        {"learning_rate": b"0.1"}, {"steps": 0}, {"steps": 10**7}, {"seed": 2**32}, {"run": "../up"}, {"run": ""},
        {"attempt": 0}, {"weight": 0}, {"grant": bytes(2**17 + 1)}, {"patience": "1e9"}, {"more": 1}, {"plan": ""},
    ],
)  # fmt: skip
def test_anything_else_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError):
        read_request(dumps({**loads(REQUEST.encode()), **changes}))


def test_a_field_that_is_not_there_is_refused() -> None:
    body = loads(REQUEST.encode())
    for name in asdict(REQUEST):
        with pytest.raises(RemoteProtocolError):
            read_request(dumps({key: value for key, value in body.items() if key != name}))


def test_our_own_mistakes_are_refused_too() -> None:
    with pytest.raises(RemoteProtocolError, match="steps"):
        replace(REQUEST, steps=0)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read_request(data)
