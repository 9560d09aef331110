"""Whatever a stranger sends ends in a verdict or in one of our errors, never in a traceback, and never holds."""

import base64
import contextlib
import copy
import functools
import json
import operator
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from privacy.audit import canonical, envelope, report, statement
from privacy.audit.html import page
from privacy.audit.verify import Verdict, verify
from privacy.errors import ConfigError, FederationError
from tests.privacy.audit import parted, promises, sample

ENVELOPE = sample.signed()
PAGE = page.render(ENVELOPE)
PREDICATE = promises.predicate()

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
# What fits some schema somewhere, or nearly so.
NUMBERS = ["0", "1", "0.0000", "1.0000", "999999999.0000", "9" * 18, "0." + "0" * 17 + "1"]
WORDS = ["", "x" * 64, "poisson", "full", "privacy.epsilon.site", "site", "gdp", "central", "2026-02-30T25:61:61Z"]
SIGNS = ["<script>", "{{ 7 * 7 }}", "\u202e", "\x1b[2J"]
NASTY: st.SearchStrategy[Any] = st.sampled_from(NUMBERS + WORDS + SIGNS) | st.sampled_from(
    [0, 1, -1, 16, 10**7, 2**53 - 1, 2**53, True, False, None, [], {}, [[]]]
)
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def outcome(data: bytes) -> Verdict | FederationError:
    try:
        return verify(data, self_signed=True, model_sha256=sample.MODEL_SHA256)
    except FederationError as error:
        lines = error.lines()
        assert len(lines) <= 2
        assert all(line and "\n" not in line and len(line) < 400 for line in lines)
        return error


@given(st.binary(max_size=200))
@QUICK
def test_any_bytes(data: bytes) -> None:
    assert isinstance(outcome(data), ConfigError)


@given(st.sampled_from([ENVELOPE, PAGE]), st.integers(0, 2**20), st.integers(0, 64), st.binary(max_size=64))
@QUICK
def test_any_splice_into_a_real_report(data: bytes, position: int, removed: int, added: bytes) -> None:
    position %= len(data)
    spliced = data[:position] + added + data[position + removed :]
    result = outcome(spliced)
    assert spliced == data or isinstance(result, FederationError) or result.exit_code == 1


@given(JSON)
@QUICK
def test_any_json_as_the_envelope(value: Any) -> None:
    try:
        data = canonical.dumps(value)
    except ConfigError:
        return
    assert isinstance(outcome(data + b"\n"), ConfigError)


@given(JSON)
@QUICK
def test_any_json_as_the_payload(value: Any) -> None:
    payload = json.dumps(value).encode()
    assert isinstance(outcome(envelope.sign(payload, sample.KEY)), ConfigError)


@st.composite
def edits(draw: st.DrawFn) -> dict[str, Any]:
    """The sample predicate with one to three of its parts replaced, removed or moved elsewhere."""
    body = copy.deepcopy(PREDICATE)
    for _ in range(draw(st.integers(1, 3))):
        here: Any = body
        while isinstance(here, dict | list) and here:
            keys = list(here) if isinstance(here, dict) else list(range(len(here)))
            key = draw(st.sampled_from(keys))
            child = here[key]
            if not isinstance(child, dict | list) or not child or draw(st.integers(0, 5)) == 0:
                here[key] = copy.deepcopy(draw(NASTY))
                break
            here = child
    return body


@given(edits())
@QUICK
def test_any_signed_predicate_near_a_real_one(body: dict[str, Any]) -> None:
    try:
        payload = canonical.dumps(
            {
                "_type": statement.STATEMENT_TYPE,
                "subject": [{"name": "model.safetensors", "digest": {"sha256": sample.MODEL_SHA256}}],
                "predicateType": statement.PREDICATE_TYPE,
                "predicate": body,
            }
        )
    except ConfigError:
        return
    data = envelope.sign(payload, sample.KEY)
    result = outcome(data)
    if isinstance(result, Verdict):
        # What can be verified can be drawn, and verified again from its drawing.
        assert isinstance(outcome(page.render(data)), Verdict)


def numbers(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where whole numbers stand; of a list, in its first and last entry."""
    if isinstance(value, dict):
        for name in value:
            yield from numbers(value[name], (*path, name))
    elif isinstance(value, list):
        for place in sorted({0, len(value) - 1} if value else set()):
            yield from numbers(value[place], (*path, place))
    elif type(value) is int:
        yield path


def test_no_number_makes_a_page_endless() -> None:
    """A few bytes name a number of rounds, sites or parameters that nobody could count through."""

    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    try:
        for body in (PREDICATE, parted.predicate()):
            for *parents, last in numbers(body):
                changed: Any = copy.deepcopy(body)
                functools.reduce(operator.getitem, parents, changed)[last] = 2**53 - 1
                signal.alarm(10)
                with contextlib.suppress(ConfigError):
                    page.render(sample.forged(changed))
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


HOSTILE = {
    "nothing": b"",
    "a newline": b"\n",
    "brackets without end": b"[" * 2**20 + b"\n",
    "objects without end": b'{"payload":' * 2**17 + b"\n",
    "NaN": b'{"payload":NaN}\n',
    "an integer of a million digits": b'{"payload":' + b"1" * 10**6 + b"}\n",
    "zeros": bytes(1000),
    "not UTF-8": b"{\xff\xfe}\n",
    "a pickle": b"\x80\x04\x95\x0c\x00\x00\x00\x00\x00\x00\x00",
    "an archive": b"PK\x03\x04" + bytes(100),
    "too large": b"{" + b" " * canonical.MAX_BYTES,
    "a large page": b"<" + b" " * canonical.MAX_BYTES,
    "spaces before nothing": b" " * 2**20,
    "payload that is no JSON": envelope.sign(b"hello", sample.KEY),
    "payload nested deeply": envelope.sign(b"[" * 10**5 + b"]" * 10**5, sample.KEY),
    "payload with a duplicate key": envelope.sign(b'{"_type":1,"_type":2}', sample.KEY),
    "empty payload": envelope.sign(b"", sample.KEY),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_files_are_unusable_input(data: bytes) -> None:
    assert isinstance(outcome(data), ConfigError)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_public_key_of_another_length_is_unusable(length: int) -> None:
    body = sample.predicate()
    body["signer"]["public_key"] = base64.b64encode(bytes(length)).decode()
    with pytest.raises(ConfigError):
        statement.encode(body, sample.MODEL_SHA256)


def test_spare_bits_in_the_public_key_are_unusable() -> None:
    body = sample.predicate()
    key = report.signer_entry(sample.KEY)["public_key"]
    body["signer"]["public_key"] = key[:-2] + chr(ord(key[-2]) + 1) + "="
    with pytest.raises(ConfigError):
        verify(envelope.sign(_payload(body), sample.KEY))


def _payload(body: dict[str, Any]) -> bytes:
    return canonical.dumps(
        {
            "_type": statement.STATEMENT_TYPE,
            "subject": [{"name": "model.safetensors", "digest": {"sha256": sample.MODEL_SHA256}}],
            "predicateType": statement.PREDICATE_TYPE,
            "predicate": body,
        }
    )
