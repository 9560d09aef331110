"""What a site's connection takes from a server that is wrong, slow, hostile, or not the server at all."""

import ssl
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from flwr.app import ConfigRecord
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto import fleet_pb2, heartbeat_pb2, message_pb2
from flwr.supercore.inflatable.inflatable_object import get_object_tree

from clients.connection import FleetError, FleetRefusedError
from clients.fleet import Fleet, payload_of
from privacy.errors import ConfigError, RemoteProtocolError, TransportError
from strategies.messages import RECORD
from tests.clients.fleet_servers import (
    FLOWER_KEY,
    SERVER,
    SITE,
    Authority,
    Call,
    Scripted,
    a_question,
    scripted,
)

BEAT = heartbeat_pb2.SendNodeHeartbeatResponse(success=True).SerializeToString()
NODE = 7


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca")).make()


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("strangers"), 101).make()


@contextmanager
def serving(authority: Authority, script: Callable[[Call], None], **options: Any) -> Iterator[tuple[Fleet, Scripted]]:
    with scripted(authority.server(), script) as server:
        fleet = authority.fleet(server.port, **options)
        fleet.node = NODE
        yield fleet, server
        fleet.close()


# -- statuses ---------------------------------------------------------------------------------------------------------


PASSING = (429, 502, 503)
OTHERS = (301, 400, 401, 403, 404, 412, 413, 500)


@pytest.mark.parametrize(("status", "passing"), [(one, one in PASSING) for one in PASSING + OTHERS])
def test_every_status_but_one_is_worth_coming_back(authority: Authority, status: int, passing: bool) -> None:
    with serving(authority, lambda call: call.answer(status, b"charter", collegium_refused="budget")) as (fleet, _):
        with pytest.raises(FleetError, match=str(status)) as caught:
            fleet.poll()
        assert caught.value.status == status
        assert caught.value.passing is passing
        assert caught.value.retryable


def test_only_the_doors_own_word_is_final(authority: Authority) -> None:
    with serving(authority, lambda call: call.answer(403, collegium_refused="charter")) as (fleet, _):
        with pytest.raises(FleetRefusedError, match="does not list this site's certificate") as caught:
            fleet.poll()
        assert not caught.value.retryable


@pytest.mark.parametrize("status", [401, 404, 500, 503])
def test_the_doors_word_needs_the_doors_status(authority: Authority, status: int) -> None:
    with (
        serving(authority, lambda call: call.answer(status, collegium_refused="charter")) as (fleet, _),
        pytest.raises(FleetError),
    ):
        fleet.poll()


def test_a_clock_that_is_off_is_named(authority: Authority) -> None:
    with serving(authority, lambda call: call.answer(401)) as (fleet, _), pytest.raises(FleetError) as caught:
        fleet.poll()
    assert caught.value.lines()[-1] == "Is this machine's clock right?"


def test_a_redirect_is_not_followed(authority: Authority) -> None:
    with scripted(authority.server(), lambda call: call.answer(body=BEAT)) as other:
        to = f"https://127.0.0.1:{other.port}/v1/fleet/send-node-heartbeat"
        with serving(authority, lambda call: call.answer(307, location=to)) as (fleet, _), pytest.raises(FleetError):
            fleet.heartbeat()
        assert not other.calls


def test_a_proxy_of_the_environment_is_not_used(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with serving(authority, lambda call: call.answer(body=BEAT)) as (fleet, _):
        assert fleet.heartbeat()


def test_what_a_server_says_reaches_people_as_one_plain_line(authority: Authority) -> None:
    with (
        serving(authority, lambda call: call.answer(500, collegium_refused="\x1b[2J" + "x" * 99)) as (fleet, _),
        pytest.raises(TransportError) as caught,
    ):
        fleet.poll()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


# -- size and time ----------------------------------------------------------------------------------------------------


def flood(call: Call) -> None:
    call.send(b"HTTP/1.1 200 x\r\ncontent-length: 400000000\r\n\r\n")
    pour(call, b"x" * 65_536)


def flood_in_chunks(call: Call) -> None:
    call.send(b"HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n\r\n")
    pour(call, b"10000\r\n" + b"x" * 65_536 + b"\r\n")


def flood_of_headers(call: Call) -> None:
    call.send(b"HTTP/1.1 200 x\r\n")
    pour(call, b"name: " + b"x" * 65_528 + b"\r\n")


def flood_after_a_refusal(call: Call) -> None:
    call.send(b"HTTP/1.1 500 x\r\ncontent-length: 400000000\r\n\r\n")
    pour(call, b"x" * 65_536)


def pour(call: Call, block: bytes) -> None:
    for _ in range(6_104):
        call.send(block)


@pytest.mark.parametrize("ask", [Fleet.heartbeat, Fleet.poll, Fleet.activate, Fleet.deactivate])
@pytest.mark.parametrize("script", [flood, flood_in_chunks, flood_of_headers, flood_after_a_refusal])
def test_400_megabytes_cost_a_site_little(
    authority: Authority, ask: Callable[[Fleet], object], script: Callable[[Call], None]
) -> None:
    calls: list[Call] = []

    def watched(call: Call) -> None:
        calls.append(call)
        script(call)

    with serving(authority, watched) as (fleet, _):
        tracemalloc.start()
        with pytest.raises((RemoteProtocolError, FleetError)):
            ask(fleet)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 5_000_000
    assert calls[0].sent < 20_000_000  # what filled the sockets' buffers


def test_a_payload_is_capped(authority: Authority) -> None:
    head = head_of(authority)
    with serving(authority, flood, cap=1_000_000) as (fleet, _):
        tracemalloc.start()
        with pytest.raises(RemoteProtocolError, match="more than 1004096 bytes"):
            fleet.pull(head)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 5_000_000


def test_a_packed_reply_is_not_unpacked(authority: Authority) -> None:
    with (
        serving(authority, lambda call: call.answer(body=b"x", content_encoding="gzip")) as (fleet, _),
        pytest.raises(RemoteProtocolError, match="packed"),
    ):
        fleet.poll()


@pytest.mark.parametrize("beginning", [b"", b"HTTP/1.1 200 x\r\nx: ", b"HTTP/1.1 200 x\r\ncontent-length: 999\r\n\r\n"])
def test_a_byte_now_and_then_does_not_hold_a_call(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, beginning: bytes
) -> None:
    monkeypatch.setattr("clients.fleet._BEAT", 0.4)
    ended, poured = threading.Event(), []

    def trickle(call: Call) -> None:
        call.send(beginning)
        for _ in range(60):
            if ended.wait(0.05):
                return
            call.send(b"x" if beginning else b"H")
        poured.append(call)

    with serving(authority, trickle) as (fleet, _):
        with pytest.raises(FleetError, match=r"does not answer|took too long"):
            fleet.heartbeat()
        ended.set()
    assert not poured  # the call ended while bytes kept coming


# -- the shape of messages --------------------------------------------------------------------------------------------


def head_response(**changes: Any) -> fleet_pb2.PullMessagesResponse:
    message = a_question(NODE)
    proto, tree = message_to_proto(remove_content_from_message(message)), get_object_tree(message)
    for name, value in changes.items():
        setattr(proto.metadata, name, value)
    return fleet_pb2.PullMessagesResponse(messages_list=[proto], message_object_trees=[tree])


def head_of(authority: Authority) -> Any:
    body = head_response().SerializeToString()
    with serving(authority, lambda call: call.answer(body=body)) as (fleet, _):
        return fleet.poll()


def tree(depth: int, width: int = 1) -> message_pb2.ObjectTree:
    children = [tree(depth - 1, width) for _ in range(width)] if depth else []
    return message_pb2.ObjectTree(object_id=f"{depth:064x}", children=children)


def other_trees() -> Iterator[message_pb2.ObjectTree]:
    good = head_response().message_object_trees[0]
    root, middle, leaf = good.object_id, good.children[0].object_id, good.children[0].children[0].object_id
    one = message_pb2.ObjectTree
    yield from (tree(0), tree(1), tree(3), tree(60), tree(2, 2))
    wide = [one(object_id=f"{place:064x}") for place in range(400)]
    yield one(object_id=root, children=[one(object_id=middle, children=wide)])
    yield one(object_id=root, children=[one(object_id=middle, children=wide[:4])])  # CAP is three parts
    yield one(object_id=root, children=[one(object_id=middle, children=[one(object_id=leaf)] * 2)])
    yield one(object_id=root, children=[one(object_id=middle, children=[one(object_id=root)])])
    yield one(object_id=root, children=[one(object_id=middle, children=[one(object_id="../../etc/passwd")])])
    yield one(object_id=root, children=[one(object_id=middle, children=[one(object_id=leaf.upper())])])


@pytest.mark.parametrize("number", range(11))
def test_a_message_in_other_parts_is_refused(authority: Authority, number: int) -> None:
    response = head_response()
    response.message_object_trees[0].CopyFrom(list(other_trees())[number])
    response.messages_list[0].metadata.message_id = response.message_object_trees[0].object_id  # or that is the reason
    refused(authority, response)


@pytest.mark.parametrize(
    "changes",
    [
        {"dst_node_id": NODE + 1},
        {"src_node_id": NODE},
        {"reply_to_message_id": "0" * 64},
        {"message_id": "0" * 64},
        {"message_type": "train.evil\n"},
        {"message_type": ""},
    ],
    ids=str,
)
def test_a_message_that_is_not_a_question_to_this_site_is_refused(
    authority: Authority, changes: dict[str, Any]
) -> None:
    refused(authority, head_response(**changes))


def test_a_message_with_content_in_its_head_is_refused(authority: Authority) -> None:
    response = head_response()
    response.messages_list[0].content.CopyFrom(message_to_proto(a_question(NODE)).content)
    refused(authority, response)


def test_a_message_that_is_an_error_is_refused(authority: Authority) -> None:
    response = head_response()
    response.messages_list[0].ClearField("content")
    response.messages_list[0].error.code = 1
    refused(authority, response)


def test_more_than_one_message_is_refused(authority: Authority) -> None:
    one = head_response()
    refused(authority, fleet_pb2.PullMessagesResponse(messages_list=list(one.messages_list) * 2))
    refused(authority, fleet_pb2.PullMessagesResponse(message_object_trees=list(one.message_object_trees)))


def refused(authority: Authority, response: fleet_pb2.PullMessagesResponse) -> None:
    body = response.SerializeToString()
    with serving(authority, lambda call: call.answer(body=body)) as (fleet, server):
        with pytest.raises(RemoteProtocolError):
            fleet.poll()
        assert server.calls == ["pull-messages"]


@pytest.mark.parametrize("body", [b"\xff" * 100, b"\x0a\xff\xff\xff\xff\x0f", b"<html>"], ids=repr)
def test_what_is_not_a_reply_is_refused(authority: Authority, body: bytes) -> None:
    with serving(authority, lambda call: call.answer(body=body)) as (fleet, _):
        for ask in (Fleet.poll, Fleet.heartbeat, Fleet.activate):
            with pytest.raises(RemoteProtocolError):
                ask(fleet)


def test_a_reply_nested_without_end_is_refused(authority: Authority) -> None:
    body = b""
    for _ in range(8_000):
        size, lengths = len(body), bytearray()
        while size >= 0x80:
            lengths.append(size & 0x7F | 0x80)
            size >>= 7
        body = b"\x12" + bytes([*lengths, size]) + body
    with (
        serving(authority, lambda call: call.answer(body=b"\x1a" + body[1:])) as (fleet, _),
        pytest.raises(RemoteProtocolError),
    ):
        fleet.poll()


@pytest.mark.parametrize("content", [None, ConfigRecord({RECORD: b"another"}).deflate()])
def test_another_object_than_the_one_announced_is_refused(authority: Authority, content: bytes | None) -> None:
    found = content is not None
    part = message_pb2.PullObjectResponse(object_found=found, object_available=found, object_content=content or b"")
    body, head = part.SerializeToString(), head_of(authority)
    with serving(authority, lambda call: call.answer(body=body)) as (fleet, server):
        with pytest.raises(RemoteProtocolError):
            fleet.pull(head)
        assert server.calls == ["pull-object"]


# -- who is at the other end ------------------------------------------------------------------------------------------


def rejected(authority: Authority, context: ssl.SSLContext, **options: Any) -> str:
    """The reason for which a server is not spoken to, having checked that nothing was said to it."""
    with scripted(context, lambda call: call.answer(body=BEAT)) as server:
        fleet = authority.fleet(server.port, **options)
        with pytest.raises(FleetError) as caught:
            fleet.heartbeat()
        assert not server.calls
        return str(caught.value)


def test_the_server_of_the_charter_is_spoken_to(authority: Authority) -> None:
    with serving(authority, lambda call: call.answer(body=BEAT)) as (fleet, server):
        assert fleet.heartbeat()
        assert server.calls == ["send-node-heartbeat"]


def test_a_server_with_another_root_is_not_spoken_to(authority: Authority, strangers: Authority) -> None:
    assert "certificate" in rejected(authority, strangers.server())


def test_a_site_of_the_federation_cannot_play_the_server(authority: Authority) -> None:
    authority.leaf("impostor", replace(SITE, dns=SERVER.dns))  # even with the server's DNS name
    assert "is that of spiffe://fed/site/a" in rejected(authority, authority.server("impostor"))


def test_a_server_of_another_name_is_not_spoken_to(authority: Authority) -> None:
    authority.leaf("elsewhere", replace(SERVER, dns="elsewhere.fed.internal"))
    assert "certificate" in rejected(authority, authority.server("elsewhere"))


def test_an_expired_server_is_not_spoken_to(authority: Authority) -> None:
    authority.leaf("expired", SERVER, end=timedelta(days=-1))
    assert "expired" in rejected(authority, authority.server("expired"))


def test_a_revoked_server_is_not_spoken_to(authority: Authority) -> None:
    authority.leaf("revoked", SERVER, serial=0x77 << 100 | 1)
    options = {"revoked": lambda: {0x77 << 100 | 1}}
    assert "revoked" in rejected(authority, authority.server("revoked"), **options)


def test_an_older_tls_is_not_spoken(authority: Authority) -> None:
    context = authority.server()
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2
    assert rejected(authority, context)


def test_a_context_of_another_making_is_refused(authority: Authority) -> None:
    lax = ssl.create_default_context()
    lax.minimum_version = ssl.TLSVersion.TLSv1_3
    blind = authority.client()
    blind.check_hostname = False
    old = authority.client()
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    for context in (lax, blind, old):
        with pytest.raises(ValueError, match="tls_context"):
            Fleet("https://127.0.0.1:1", context, FLOWER_KEY, server_name=SERVER.dns, cap=1)


@pytest.mark.parametrize(
    "address", ["http://a:1", "https://a", "https://a:1/x", "https://a:1@b:2", "https://a b:1", "a:1", "https://a:1\n"]
)
def test_an_address_is_a_host_and_a_port(authority: Authority, address: str) -> None:
    with pytest.raises(ConfigError, match="not a server's address"):
        Fleet(address, authority.client(), FLOWER_KEY, server_name=SERVER.dns, cap=1)


def test_files_that_are_no_certificates_are_a_plain_line(authority: Authority) -> None:
    (authority.folder / "bad.crt").write_text("none")
    (authority.folder / "bad.key").write_text("none")
    with pytest.raises(ConfigError, match="cannot be used for TLS"):
        authority.client("bad")


def test_a_site_that_the_server_does_not_know_is_told_to_look_at_its_certificate(
    authority: Authority, strangers: Authority
) -> None:
    """The alert may be lost with the connection; what it never does is to end the agent."""
    own = authority.client()
    own.load_cert_chain(strangers.folder / "site.crt", strangers.folder / "site.key")
    with scripted(authority.server(), lambda call: call.answer(body=BEAT)) as server:
        fleet = Fleet(f"https://127.0.0.1:{server.port}", own, FLOWER_KEY, server_name=SERVER.dns, cap=1)
        with pytest.raises(FleetError, match=r"does not accept this site's certificate|does not answer"):
            fleet.heartbeat()
        assert not server.calls


def test_a_line_cut_inside_the_handshake_is_worth_coming_back(authority: Authority) -> None:
    with scripted(None, lambda _call: None) as server, pytest.raises(FleetError) as caught:
        authority.fleet(server.port).heartbeat()
    assert caught.value.passing


def test_closing_takes_no_call_from_another_thread(authority: Authority) -> None:
    inside, go_on, beats = threading.Event(), threading.Event(), []

    def script(call: Call) -> None:
        inside.set()
        go_on.wait(10)
        call.answer(body=BEAT)

    with serving(authority, script) as (fleet, server):
        asking = threading.Thread(target=lambda: beats.append(fleet.heartbeat()))
        asking.start()
        inside.wait(10)
        fleet.close()
        with pytest.raises(FleetError, match="was closed"):
            fleet.heartbeat()
        go_on.set()
        asking.join(10)
        assert beats == [True]
        assert len(server.calls) == 1
        assert fleet._connection._client.is_closed


def test_a_pulled_message_has_the_payload_and_nothing_else(authority: Authority) -> None:
    message = a_question(NODE)
    head = head_of(authority)
    leaf = next(iter(message.content.values())).deflate()

    def script(call: Call) -> None:
        part = message_pb2.PullObjectResponse(object_found=True, object_available=True, object_content=leaf)
        call.answer(body=part.SerializeToString() if call.path.endswith("pull-object") else b"")

    with serving(authority, script) as (fleet, server):
        assert payload_of(fleet.pull(head)) == b"question"
        assert server.calls == ["pull-object", "confirm-message-received"]
