"""The filter without sockets: who is admitted when, what a turn costs, and what is said to whom."""

import asyncio
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import PullObjectRequest, PushObjectRequest

from privacy.errors import ConfigError, VerificationError
from server import admission
from server.admission import MEBIBYTE, Bucket, Limits, Mail, Peer, Peers, Refused, Turns
from server.door import PEER, Gate, by_user
from server.launcher import _Current
from server.superlink import KEY_HEADER, node_id
from tests.server.launched import header

A = "spiffe://hearts/site/a"
PEERS = Peers("hearts", {A: header(2)}, frozenset({"abc"}))
CALLER = Peer(A, "77", until=1000.0)


@dataclass
class Call:
    """One request at a gate whose app answers with what it got."""

    path: str = "/v1/fleet/pull-messages"
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: tuple[bytes, ...] = (b"",)
    peer: Peer = CALLER
    answer: bytes = b"done"
    limits: Limits = field(default_factory=Limits)
    peers: Callable[[], Peers] = lambda: PEERS
    endless: bool = False
    unread: bool = False
    lines: list[str] = field(default_factory=list)
    cut: bool = False

    async def run(self) -> tuple[int, dict[bytes, bytes], list[bytes]]:
        async def app(_scope: Any, receive: Any, send: Any) -> None:
            assert (await receive())["body"] == b"".join(self.body)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": self.answer})

        waiting, sent = list(self.body), list[dict[str, Any]]()

        async def receive() -> dict[str, Any]:
            if not waiting:
                await asyncio.sleep(60)
            return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting) or self.endless}

        async def send(event: dict[str, Any]) -> None:
            if self.unread and event["type"] == "http.response.body":
                await asyncio.sleep(60)
            sent.append(event)

        def abort() -> None:
            self.cut = True

        transport = SimpleNamespace(abort=abort)
        scope = {
            "method": "POST",
            "path": self.path,
            "raw_path": self.path.encode(),
            "query_string": b"",
            "headers": [(KEY_HEADER, header(2).encode()), *self.headers.items()],
            "extensions": {PEER: self.peer, "collegium.door": SimpleNamespace(transport=transport)},
        }
        report = self.lines.append
        gate = Gate(app, self.peers, self.limits, clock=lambda: 500.0, report=report)  # type: ignore[arg-type]
        await gate(scope, receive, send)  # type: ignore[arg-type]
        start, *parts = sent or [{"status": 0, "headers": []}]
        return start["status"], dict(start["headers"]), [part["body"] for part in parts]


def test_a_request_that_is_in_order_reaches_the_app() -> None:
    assert asyncio.run(Call().run()) == (200, {}, [b"done"])


REFUSALS = {
    "not in the charter": (Call(peer=replace(CALLER, uri="spiffe://hearts/site/x")), 403, b"charter"),
    "of another federation": (Call(peer=replace(CALLER, uri="spiffe://lungs/site/a")), 403, b"charter"),
    "revoked": (Call(peer=replace(CALLER, serial="abc")), 403, b"charter"),
    "expired since": (Call(peer=replace(CALLER, until=499.0)), 403, b"expired"),
    "a second key": (Call(headers={b"flwr-public-key": header(3).encode()}), 403, b"key"),
    "packed": (Call(headers={b"content-encoding": b"gzip"}), 415, b"packed"),
    "announced too large": (Call(headers={b"content-length": b"65537"}), 413, b"size"),
    "too large": (Call(body=(b"x" * 40_000, b"x" * 40_000)), 413, b"size"),
    "not Flower's": (Call(body=(b"\xff\xff",)), 400, b"body"),
    "another route": (Call(path="/v1/runtime/acquire-task"), 404, b"route"),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_a_refusal_says_why_and_closes(what: str) -> None:
    call, status, reason = REFUSALS[what]
    found, headers, (line,) = asyncio.run(call.run())
    assert (found, headers[b"collegium-refused"], headers[b"connection"]) == (status, reason, b"close")
    assert line.count(b"\n") == 1
    assert len(call.lines) == (status == 403)


def test_nobody_is_admitted_while_the_charter_cannot_be_read() -> None:
    lines, found = list[str](), [PEERS]

    def read() -> Peers:
        if not found:
            raise ConfigError("charter-2.json cannot be read")
        return found[0]

    current = _Current(read, lines.append)
    found.clear()
    asyncio.run(current.refresh())
    status, headers, _ = asyncio.run(Call(peers=current).run())
    assert (status, headers[b"collegium-refused"]) == (503, b"busy")
    assert lines == ["the charter cannot be read, so nobody is admitted: charter-2.json cannot be read"]
    found.append(PEERS)
    asyncio.run(current.refresh())
    assert asyncio.run(Call(peers=current).run())[0] == 200


def test_a_body_has_a_clock_between_its_parts_and_one_for_the_whole() -> None:
    parts = (b"x", b"x")
    assert asyncio.run(Call(body=parts, endless=True, limits=Limits(idle=0.02)).run())[0] == 408
    assert asyncio.run(Call(body=parts, endless=True, limits=Limits(idle=1e6, whole=0.02)).run())[0] == 408


def test_an_answer_goes_out_in_slices_and_an_unread_one_is_cut() -> None:
    answer = bytes(range(256)) * 1000
    _, _, parts = asyncio.run(Call(answer=answer).run())
    assert b"".join(parts) == answer
    assert max(map(len, parts)) == 65_536
    unread = Call(answer=answer, unread=True, limits=Limits(idle=0.02))
    asyncio.run(unread.run())
    assert unread.cut


def test_a_rate_is_kept_on_average() -> None:
    bucket = Bucket(rate=2, burst=3)
    assert [bucket.takes(10.0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.takes(11.0) for _ in range(3)] == [True, True, False]
    assert bucket.takes(9.0) is False  # a clock that goes back gives nothing


def test_a_site_has_one_transfer_and_all_together_a_few() -> None:
    async def scene() -> list[str]:
        turns, said = Turns(Limits(transfers=2, patience=0.05), lambda: 0.0), list[str]()

        async def hold(uri: str) -> None:
            try:
                async with turns.transfer(uri):
                    said.append(uri)
                    await asyncio.sleep(0.2)
            except Refused as refused:
                said.append(f"{uri} {refused.status}")

        await asyncio.gather(*(hold(uri) for uri in ("a", "a", "b", "c")))
        await asyncio.gather(*(hold(uri) for uri in ("a", "c")))  # nothing is lost to those that were turned away
        return said

    assert asyncio.run(scene()) == ["a", "b", "a 503", "c 503", "a", "c"]


def test_a_site_that_asks_too_often_is_told_to_wait_and_the_others_are_not() -> None:
    turns = Turns(Limits(rate=1, burst=2), lambda: 0.0)
    turns.count("a")
    turns.count("a")
    with pytest.raises(Refused) as caught:
        turns.count("a")
    assert caught.value.status == 503
    turns.count("b")


@pytest.fixture
def mail(monkeypatch: pytest.MonkeyPatch) -> Mail:
    monkeypatch.setattr(admission, "addressee", lambda _app, question: {"q": node_id(header(2))}.get(question))
    monkeypatch.setattr(admission, "addressed", lambda _app, _node: frozenset({"mine"}))
    monkeypatch.setattr(admission, "forget", lambda _app, question: question)
    return Mail(None, Limits(reply=MEBIBYTE))  # type: ignore[arg-type]


def announce(question: str) -> bytes:
    request = PushMessagesRequest()
    about = request.messages_list.add().metadata
    about.src_node_id, about.message_id, about.reply_to_message_id = node_id(header(2)), "root", question
    request.message_object_trees.add(object_id="root").children.add(object_id="part")
    return bytes(request.SerializeToString())


def push(size: int) -> bytes:
    return bytes(PushObjectRequest(object_id="part", object_content=b"x" * size).SerializeToString())


def test_the_objects_of_one_answer_have_a_cap_together(mail: Mail) -> None:
    mail.check("/v1/fleet/push-messages", announce("q"), header(2))
    mail.check("/v1/fleet/push-object", push(MEBIBYTE - 10), header(2))
    mail.check("/v1/fleet/push-object", push(10), header(2))
    with pytest.raises(Refused, match="at most 1048576 bytes"):
        mail.check("/v1/fleet/push-object", push(1), header(2))


def test_an_answer_to_nothing_opens_no_account(mail: Mail) -> None:
    mail.check("/v1/fleet/push-messages", announce("gone"), header(2))  # Flower stores nothing of it
    with pytest.raises(Refused, match="not part of an answer"):
        mail.check("/v1/fleet/push-object", push(1), header(2))


def test_what_is_pulled_is_addressed_to_who_pulls(mail: Mail) -> None:
    for object_id, allowed in (("mine", True), ("another", False)):
        body = bytes(PullObjectRequest(object_id=object_id).SerializeToString())
        try:
            mail.check("/v1/fleet/pull-object", body, header(2))
            assert allowed
        except Refused:
            assert not allowed


def test_the_kernels_word_decides_who_is_at_the_socket() -> None:
    class Transport(asyncio.BaseTransport):
        def get_extra_info(self, _name: str, _default: Any = None) -> Any:
            return self

        def getsockopt(self, level: int, option: int, _size: int) -> bytes:
            assert (level, option) == (socket.SOL_SOCKET, socket.SO_PEERCRED)
            return struct.pack("3i", 1, 1001, 1002)

    assert by_user(frozenset({1001}))(Transport()) == 1001
    with pytest.raises(VerificationError, match="user 1001"):
        by_user(frozenset({1, 1002}))(Transport())
