"""A listener as its operator sees it: health, bounds, its port, and how it stops."""

import socket
import threading
import time
from dataclasses import replace

import grpc
import pytest
from grpc_health.v1 import health_pb2

from clients.channel import frames, openings, transport
from clients.channel.credentials import Identity
from clients.channel.dialler import Dialler
from clients.channel.listener import Listener
from clients.channel.message import Message
from clients.channel.session import (
    ChannelClosedError,
    ChannelError,
    ChannelTimeoutError,
    Opening,
    RemoteRefusalError,
)
from privacy.errors import ConfigError
from privacy.store.log import Record
from tests.clients.channel.ends import QUICK, Echo, Handed, asked, identity, listening, signed, until
from tests.federation import Federation


def raw(own: Identity, port: int, name: str = "brno.north.internal") -> grpc.Channel:
    """A gRPC channel with certificates, for what no dialler of ours would send."""
    options = transport.dialler_options(QUICK, name)
    return grpc.secure_channel(f"127.0.0.1:{port}", transport.dialler_credentials(own.credentials()), options)


def test_health_is_served_and_nothing_else(federation: Federation) -> None:
    with (
        listening(federation, "brno", {}, []) as listener,
        raw(identity(federation, "alba"), listener.port) as channel,
    ):
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            health_pb2.HealthCheckRequest.SerializeToString,
            health_pb2.HealthCheckResponse.FromString,
        )
        for name in ("", "collegium.channel.v1.Channel"):
            answer = check(health_pb2.HealthCheckRequest(service=name), timeout=5)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        for method in (
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            "/collegium.channel.v1.Channel/Other",
        ):
            with pytest.raises(grpc.RpcError) as caught:
                list(channel.stream_stream(method, bytes, bytes)(iter([b""]), timeout=5))
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_session_more_than_there_is_room_for_is_refused(federation: Federation) -> None:
    records: list[Record] = []
    with listening(federation, "brno", {"talk": Echo()}, records) as listener:
        dialler = Dialler(identity(federation, "alba"), limits=QUICK)
        held = [dialler.open(f"127.0.0.1:{listener.port}", "brno", kind="talk") for _ in range(QUICK.sessions)]
        with pytest.raises(RemoteRefusalError, match="brno holds 3 sessions and takes no more now"):
            dialler.open(f"127.0.0.1:{listener.port}", "brno", kind="talk")
        assert [record.kind for record in records] == ["channel-opened"] * QUICK.sessions + ["channel-refused"]
        assert {record.content["peer"] for record in records} == {"alba"}
        held[0].close()
        until(lambda: len(listener._reception.sessions) < QUICK.sessions)
        dialler.open(f"127.0.0.1:{listener.port}", "brno", kind="talk")
        dialler.close()
        until(lambda: not listener._reception._sessions)


def test_a_name_of_a_session_is_used_once_at_a_time(federation: Federation) -> None:
    with listening(federation, "brno", {"talk": Echo()}, []) as listener:
        dialler = Dialler(identity(federation, "alba"), limits=QUICK)
        dialler.open(f"127.0.0.1:{listener.port}", "brno", kind="talk", session=bytes(16))
        with pytest.raises(RemoteRefusalError, match="such a session already"):
            dialler.open(f"127.0.0.1:{listener.port}", "brno", kind="talk", session=bytes(16))
        dialler.close()


def test_each_end_keeps_to_the_lesser_limits(federation: Federation) -> None:
    service, records = Handed(), list[Record]()
    with listening(federation, "brno", {"talk": service}, records, replace(QUICK, window=2)) as listener:
        dialler = Dialler(identity(federation, "alba"), limits=replace(QUICK, frame_bytes=5000, idle=3.0))
        a = dialler.open(f"127.0.0.1:{listener.port}", "brno", kind="talk")
        b = service.sessions.get(timeout=5)
        for end in (a, b):
            limits = end.limits  # type: ignore[attr-defined]
            assert (limits.window, limits.frame_bytes, limits.idle) == (2, 5000, 3.0)
        service.done.set()
        dialler.close()


def test_a_peer_that_sends_more_than_its_window_is_cut_off(federation: Federation) -> None:
    service = Handed()
    with listening(federation, "brno", {"talk": service}, []) as listener:
        dialler = Dialler(identity(federation, "alba"), limits=QUICK)
        a = dialler.open(f"127.0.0.1:{listener.port}", "brno", kind="talk")
        b = service.sessions.get(timeout=5)
        for number in range(1, QUICK.window + 2):
            a._line.put(frames.data(number, 0, Message("x"), session=a.id, frame_bytes=100))  # type: ignore[attr-defined]
        with pytest.raises(RemoteRefusalError, match="more messages than this session allows"):
            a.receive(5)
        assert [b.receive(5).kind for _ in range(QUICK.window)] == ["x"] * QUICK.window
        with pytest.raises(ChannelClosedError, match="alba broke the protocol"):
            b.receive(5)
        service.done.set()


def test_a_frame_that_is_too_large_never_reaches_python(federation: Federation) -> None:
    service = Handed()
    with listening(federation, "brno", {"talk": service}, [], replace(QUICK, frame_bytes=1000, resume=0.2)) as listener:
        dialler = Dialler(identity(federation, "alba"), limits=replace(QUICK, resume=0.2))
        a = dialler.open(f"127.0.0.1:{listener.port}", "brno", kind="talk")
        a._line.put(bytes(2**18))  # type: ignore[attr-defined]
        with pytest.raises(ChannelError, match="larger"):
            a.receive(5)
        service.done.set()


def test_whoever_says_nothing_is_let_go(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clients.channel.listener.OPENING_SECONDS", 0.2)
    waiting = threading.Event()

    def nothing() -> "list[bytes]":
        waiting.wait(10)
        return []

    with (
        listening(federation, "brno", {}, []) as listener,
        raw(identity(federation, "alba"), listener.port) as channel,
    ):
        call = transport.opened(channel, iter(nothing, []))  # type: ignore[arg-type]
        started = time.monotonic()
        with pytest.raises(grpc.RpcError):
            next(call)
        assert call.code() is grpc.StatusCode.CANCELLED
        assert time.monotonic() - started < 5
        waiting.set()


def test_what_is_no_opening_is_refused_and_logged(federation: Federation) -> None:
    records: list[Record] = []
    with (
        listening(federation, "brno", {}, records) as listener,
        raw(identity(federation, "alba"), listener.port) as channel,
    ):
        for first in (b"", b"\xff", frames.acknowledgement(1)):
            (answer,) = transport.opened(channel, iter([first]))
            assert frames.decode(answer, session=bytes(16), frame_bytes=1000).content
    assert [set(record.content) for record in records] == [{"certificate", "reason"}] * 3


def test_an_opening_that_is_meant_for_another_site_is_refused(federation: Federation) -> None:
    records, alba = list[Record](), identity(federation, "alba")
    first = signed(alba, asked(alba, Opening("echo", bytes(16)), listener="cork"))
    with (
        listening(federation, "brno", {"echo": Echo()}, records) as listener,
        raw(alba, listener.port) as channel,
    ):
        (answer,) = transport.opened(channel, iter([first]))
    with pytest.raises(RemoteRefusalError, match="this is brno, not cork"):
        openings.read_answer(answer, "brno", QUICK)
    assert [record.content["peer"] for record in records] == ["alba"]


def test_a_stop_closes_sessions_at_both_ends(federation: Federation) -> None:
    with listening(federation, "brno", {"echo": Echo()}, []) as listener:
        dialler = Dialler(identity(federation, "alba"), limits=QUICK)
        session = dialler.open(f"127.0.0.1:{listener.port}", "brno", kind="echo")
        started = time.monotonic()
        listener.stop(grace=2.0)
        assert time.monotonic() - started < 3
        with pytest.raises(ChannelClosedError, match="brno closed the session"):
            session.receive(5)
    with pytest.raises(ChannelError, match="brno does not answer"):
        dialler.open(f"127.0.0.1:{listener.port}", "brno", kind="echo")


def test_a_taken_port_is_one_plain_line(federation: Federation) -> None:
    own = identity(federation, "brno")
    with listening(federation, "brno", {}, []) as listener, pytest.raises(ConfigError, match="nobody can listen on"):
        Listener(f"127.0.0.1:{listener.port}", own, {}, record=print)


def test_an_answer_that_does_not_come_is_a_deadline(federation: Federation) -> None:
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        dead.listen()
        started = time.monotonic()
        with pytest.raises(ChannelTimeoutError, match=r"brno did not answer within 0\.3 s"):
            Dialler(identity(federation, "alba"), limits=QUICK).open(
                f"127.0.0.1:{dead.getsockname()[1]}", "brno", kind="echo", deadline=0.3
            )
        assert time.monotonic() - started < 3


def test_a_renewed_certificate_is_used_at_the_next_connection(federation: Federation) -> None:
    own = identity(federation, "brno")
    asked: list[bytes] = []

    def credentials() -> object:
        asked.append(own.credentials().certificate)
        return own.credentials()

    with Listener("127.0.0.1:0", replace(own, credentials=credentials), {"echo": Echo()}, record=print) as listener:  # type: ignore[arg-type]
        before = len(asked)
        dialler = Dialler(identity(federation, "alba"), limits=QUICK)
        dialler.open(f"127.0.0.1:{listener.port}", "brno", kind="echo").close()
        assert len(asked) > before
