"""What a caller can cost, with a certificate of the charter's and without: time and resident memory, both bounded."""

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from server.admission import MEBIBYTE, Limits
from tests.server.launched import Federation, Launched, header, launched
from tests.server.test_launcher import KEY

CLOCK = 2.0  # seconds; 10 as shipped
ROOM = 20 * MEBIBYTE
PUSH = f"POST /v1/fleet/push-object HTTP/1.1\r\nHost: x\r\n{KEY}: {header(2)}\r\n"
ASK = PUSH.replace("push-object", "pull-messages") + "content-length: 0\r\n\r\n"
"""Flower answers it, with an error, and the connection stays."""
BLOCK = b"x" * 65_536


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    with launched(Federation.create(tmp_path_factory.mktemp("hub"), idle=CLOCK, patience=CLOCK)) as running:
        yield running


def tell(tls: socket.socket, blocks: Iterator[bytes]) -> tuple[bytes, float]:
    """Sends until nobody listens. Returns what was answered, and seconds until the end of it."""
    started, answer = time.monotonic(), b""
    tls.settimeout(20)
    with contextlib.suppress(OSError):
        for block in blocks:
            tls.sendall(block)
    with contextlib.suppress(OSError):
        while more := tls.recv(65_536):
            answer += more
    return answer, time.monotonic() - started


def of_length(size: int) -> Iterator[bytes]:
    yield f"{PUSH}content-length: {size}\r\n\r\n".encode()
    yield from (BLOCK for _ in range(size // len(BLOCK)))


def chunked(size: int) -> Iterator[bytes]:
    yield f"{PUSH}transfer-encoding: chunked\r\n\r\n".encode()
    yield from (b"10000\r\n" + BLOCK + b"\r\n" for _ in range(size // len(BLOCK)))


def tiny_chunks(size: int) -> Iterator[bytes]:
    yield f"{PUSH}transfer-encoding: chunked\r\n\r\n".encode()
    yield from (b"1;" + b"y" * 500 + b"\r\nx\r\n" for _ in range(size // 500))


def trailers(size: int) -> Iterator[bytes]:
    yield f"{PUSH}transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n".encode()
    yield from (b"y: " + BLOCK + b"\r\n" for _ in range(size // len(BLOCK)))


def one_header(size: int) -> Iterator[bytes]:
    yield f"{PUSH}big: ".encode()
    yield from (BLOCK for _ in range(size // len(BLOCK)))


def many_headers(size: int) -> Iterator[bytes]:
    yield PUSH.encode()
    yield from (b"a: b\r\n" * 10_000 for _ in range(size // 60_000))


def pipelined(size: int) -> Iterator[bytes]:
    yield from (ASK.encode() * 200 for _ in range(size // 50_000))


FLOODS = [
    (of_length, 400),
    (chunked, 400),
    (tiny_chunks, 100),
    (trailers, 100),
    (one_header, 100),
    (many_headers, 100),
    (pipelined, 100),
]


@pytest.mark.parametrize(("flood", "size"), FLOODS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_a_site_that_sends_too_much_is_cut_off_at_once(hub: Launched, flood: object, size: int) -> None:
    assert callable(flood)
    before = hub.forget_peak()
    with hub.connect("a") as tls:
        answer, seconds = tell(tls, flood(size * MEBIBYTE))
    assert answer == b"" or answer.startswith((b"HTTP/1.1 413", b"HTTP/1.1 400")), answer[:100]
    assert hub.peak() - before < ROOM
    print(f"{seconds:.2f} s, {(hub.peak() - before) / MEBIBYTE:.1f} MiB")  # noqa: T201 -- figures, with -s


@pytest.mark.parametrize("flood", [of_length, chunked, one_header], ids=lambda value: value.__name__)
def test_a_stranger_gets_nowhere_with_it(hub: Launched, flood: object) -> None:
    assert callable(flood)
    before = hub.forget_peak()
    with hub.connect(None) as tls:  # in TLS 1.3 a client learns of the refusal only when it goes on
        answer, seconds = tell(tls, flood(400 * MEBIBYTE))
    with socket.create_connection(("127.0.0.1", hub.port)) as plain:  # and without TLS at all
        assert tell(plain, flood(400 * MEBIBYTE))[0] == b""
    assert answer == b""
    assert hub.peak() - before < ROOM
    print(f"{seconds:.2f} s, {(hub.peak() - before) / MEBIBYTE:.1f} MiB")  # noqa: T201 -- figures, with -s


def slow_starts() -> dict[str, bytes]:
    return {
        "nothing": b"",
        "half a header": PUSH[:60].encode(),
        "empty lines": b"\r\n",
        "half a body": f"{PUSH}content-length: 1000000\r\n\r\n".encode() + BLOCK,
        "half a small body": f"{PUSH}content-length: 1000\r\n\r\nxx".encode(),
    }


def waits(tls: socket.socket, start: bytes, dribble: bytes = b"") -> float:
    """Seconds until the other end closes, with a byte now and then."""
    tls.settimeout(0.25)
    started = time.monotonic()
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        tls.sendall(start)
        while time.monotonic() - started < 30:
            try:
                if not tls.recv(1000):
                    break
            except TimeoutError:
                tls.sendall(dribble)
    return time.monotonic() - started


def stops_in_the_middle(hub: Launched) -> dict[str, float]:
    """Seconds until each of a dozen callers that stop, or go on for ever by the byte, is cut off; all at once."""
    dribbles = {"empty lines for ever": (b"", b"\r\n"), "a header for ever": (PUSH.encode(), b"a")}
    dribbles["empty lines after an answer"] = (ASK.encode(), b"\r\n")
    dribbles["half a header after an answer"] = (ASK.encode() + PUSH[:60].encode(), b"")
    cases = {**{what: (start, b"") for what, start in slow_starts().items()}, **dribbles}
    handshakes = {"no hello": b"", "half a hello": b"\x16\x03\x01\x02\x00\x01"}
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(len(cases) + len(handshakes)) as threads:
        taken = {}
        for what, (start, dribble) in cases.items():
            taken[what] = threads.submit(waits, stack.enter_context(hub.connect("a")), start, dribble)
        for what, start in handshakes.items():
            plain = stack.enter_context(socket.create_connection(("127.0.0.1", hub.port)))
            taken[what] = threads.submit(waits, plain, start)
        return {what: seconds.result() for what, seconds in taken.items()}


def test_whoever_stops_in_the_middle_is_cut_off_by_the_clock(hub: Launched) -> None:
    taken = stops_in_the_middle(hub)
    assert {what: seconds for what, seconds in taken.items() if seconds > CLOCK + 5} == {}


@pytest.mark.soak
def test_so_it_is_with_the_clocks_as_shipped(tmp_path: Path) -> None:
    with launched(Federation.create(tmp_path)) as hub:
        taken = stops_in_the_middle(hub)
    assert {what: seconds for what, seconds in taken.items() if not 9 < seconds < 12} == {}


def test_ten_unfinished_bodies_do_not_add_up_and_do_not_stay(hub: Launched) -> None:
    before, block = hub.forget_peak(), b"x" * (4 * MEBIBYTE)
    with contextlib.ExitStack() as stack:
        open_ones = [stack.enter_context(hub.connect("a")) for _ in range(10)]
        for tls in open_ones:
            tls.settimeout(0.1)
            with contextlib.suppress(TimeoutError):  # most are not read
                tls.sendall(f"{PUSH}content-length: {4 * MEBIBYTE + 100}\r\n\r\n".encode() + block)
        started = time.monotonic()
        for tls in open_ones:
            tls.settimeout(20)
            with contextlib.suppress(OSError):
                while tls.recv(65_536):
                    pass
        assert time.monotonic() - started < 2 * CLOCK + 5
    assert hub.peak() - before < ROOM
    print(f"{(hub.peak() - before) / MEBIBYTE:.1f} MiB")  # noqa: T201 -- figures, with -s


def test_one_site_has_only_so_many_connections(hub: Launched) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(Limits().connections):
            tls = stack.enter_context(hub.connect("a"))
            tls.sendall(ASK.encode())
            assert tls.recv(1000).startswith(b"HTTP/1.1 4")  # Flower's answer, after which there is a minute's rest
        extra = stack.enter_context(hub.connect("a"))
        assert tell(extra, iter([ASK.encode()]))[0] == b""
    assert any("connections already" in line for line in hub.federation.lines())


def test_the_clocks_and_caps_as_shipped() -> None:
    limits = Limits()
    assert (limits.idle, limits.patience) == (10, 10)
    assert limits.large < 5 * MEBIBYTE
    assert limits.small == 65_536
