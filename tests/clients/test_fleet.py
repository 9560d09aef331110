"""A site's side of the Fleet API against Flower's own server: the contract that a new Flower keeps or fails here."""

import threading
from collections.abc import Iterator

import flwr
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.proto import fleet_pb2
from flwr.supercore.inflatable.inflatable_object import get_object_tree
from flwr.superlink.routers.fleet.router import router
from hypothesis import given
from hypothesis import strategies as st

from clients.connection import FleetError
from clients.fleet import PART_BYTES, _value, payload_of
from privacy.errors import LocalProtocolError, RemoteProtocolError
from strategies.messages import RECORD, REFUSED
from tests.clients.fleet_servers import CAP, Authority, Call, Flower, a_question, scripted

ROUTES = {
    "activate-node",
    "confirm-message-received",
    "deactivate-node",
    "pull-messages",
    "pull-object",
    "push-messages",
    "push-object",
    "send-node-heartbeat",
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca")).make()


@pytest.fixture(scope="module")
def flower(authority: Authority) -> Iterator[Flower]:
    server = Flower(authority).start()
    yield server
    server.kill()


def answer_to(question: Message, payload: bytes) -> Message:
    return Message(RecordDict({RECORD: ConfigRecord({RECORD: payload})}), reply_to=question)


def joined(message: Message) -> bytes:
    """A payload in parts, as the server puts it together: by the records' names."""
    names = [RECORD, *(f"{RECORD}.{place}" for place in range(1, len(message.content)))]
    return b"".join(message.content[name][name] for name in names)  # type: ignore[misc]


def test_flower_is_the_version_this_was_written_for_and_has_the_routes() -> None:
    assert flwr.__version__.startswith("1.41.")
    assert {f"/v1/fleet/{route}" for route in ROUTES} <= {getattr(route, "path", "") for route in router.routes}


@pytest.mark.parametrize("size", [0, 400_000, 2 * PART_BYTES + 1])
def test_a_question_and_its_answer_pass_through_flowers_own_server(
    authority: Authority, flower: Flower, size: int
) -> None:
    fleet = authority.fleet(flower.port)
    assert fleet.activate() == flower.node
    question = flower.ask("train.round", b"q" * size)
    head = fleet.poll()
    assert head is not None
    assert (head.run, head.kind) == (flower.run, "train.round")
    message = fleet.pull(head)
    assert payload_of(message) == b"q" * size
    assert message.metadata == head.message.metadata
    fleet.push(answer_to(message, b"a" * size))
    reply = flower.reply(question)
    assert reply is not None
    assert joined(reply) == b"a" * size
    assert len(reply.content) == max(1, -(-size // PART_BYTES))
    assert fleet.poll() is None
    fleet.deactivate()
    assert not flower.online
    fleet.close()


def test_the_parts_of_a_payload_are_capped_together(authority: Authority, flower: Flower) -> None:
    fleet = authority.fleet(flower.port, cap=PART_BYTES + 10)
    fleet.activate(flower.node)
    flower.ask("train.round", bytes(2 * PART_BYTES))
    head = fleet.poll()
    assert head is not None
    with pytest.raises(RemoteProtocolError, match="more than 4106 bytes"):
        fleet.pull(head)


def test_a_message_is_waited_for_until_its_parts_have_come_in(authority: Authority, flower: Flower) -> None:
    fleet = authority.fleet(flower.port)
    fleet.activate(flower.node)
    flower.ask("train.round", b"late", parts=False)
    head = fleet.poll()
    assert head is not None
    threading.Timer(0.2, flower.deliver).start()
    assert payload_of(fleet.pull(head)) == b"late"


def test_an_answer_may_be_pushed_again_and_arrives_once(authority: Authority, flower: Flower) -> None:
    fleet = authority.fleet(flower.port)
    fleet.activate(flower.node)
    question = flower.ask("train.round", b"question")
    head = fleet.poll()
    assert head is not None
    reply = answer_to(fleet.pull(head), b"answer")
    fleet.push(reply)
    fleet.push(reply)
    found = flower.reply(question)
    assert found is not None
    assert payload_of(found) == b"answer"


def test_a_refusal_travels_as_an_error(authority: Authority, flower: Flower) -> None:
    fleet = authority.fleet(flower.port)
    fleet.activate(flower.node)
    question = flower.ask("train.round", b"question")
    head = fleet.poll()
    assert head is not None
    fleet.push(Message(Error(code=REFUSED, reason="no"), reply_to=fleet.pull(head)))
    reply = flower.reply(question)
    assert reply is not None
    assert (reply.error.code, reply.error.reason) == (REFUSED, "no")


def test_a_node_that_is_believed_online_is_taken_up_again(authority: Authority, flower: Flower) -> None:
    first, second = authority.fleet(flower.port), authority.fleet(flower.port)
    node = first.activate(flower.node)
    with pytest.raises(FleetError, match="connected already") as caught:
        second.activate()
    assert caught.value.status == 412
    assert second.activate(node) == node
    first.deactivate()
    assert not flower.online
    assert second.heartbeat()
    assert flower.online


def test_a_finished_run_is_no_reason_to_ask_again(authority: Authority, flower: Flower) -> None:
    fleet = authority.fleet(flower.port)
    fleet.activate(flower.node)
    flower.ask("train.round", b"question")
    head = fleet.poll()
    assert head is not None
    flower.finish()
    with pytest.raises(FleetError) as caught:
        fleet.pull(head)
    assert not caught.value.passing
    flower.begin()


def test_an_answer_of_any_other_shape_does_not_leave(authority: Authority, flower: Flower) -> None:
    fleet = authority.fleet(flower.port)
    fleet.activate(flower.node)
    question = flower.ask("train.round", b"question")
    head = fleet.poll()
    assert head is not None
    message = fleet.pull(head)
    for content in (
        RecordDict(),
        RecordDict({RECORD: ConfigRecord({RECORD: b"a"}), "more": ConfigRecord({})}),
        RecordDict({RECORD: ConfigRecord({RECORD: b"a", "records": 7})}),
        RecordDict({RECORD: ConfigRecord({RECORD: "text"})}),
        RecordDict({RECORD: ArrayRecord()}),
        RecordDict({RECORD: ConfigRecord({RECORD: b"a" * (CAP + 1)})}),
    ):
        with pytest.raises(LocalProtocolError):
            fleet.push(Message(content, reply_to=message))
    assert flower.reply(question) is None


def test_a_push_tells_nothing_but_the_answer(authority: Authority) -> None:
    seen = []

    def script(call: Call) -> None:
        seen.append(call)
        call.answer()

    with scripted(authority.server(), script) as server:
        authority.fleet(server.port).push(answer_to(a_question(), b"answer"))
    request = fleet_pb2.PushMessagesRequest.FromString(seen[0].body)
    assert not request.clientapp_runtime_list  # how long it took
    assert request.messages_list[0].content.ByteSize() == 0
    assert set(seen[0].headers) <= {
        "host",
        "accept",
        "accept-encoding",
        "connection",
        "content-length",
        "content-type",
        "user-agent",
        "flwr-public-key",
        "flwr-signature",
        "flwr-timestamp",
    }
    assert seen[0].headers["user-agent"] == "collegium"


def test_a_server_that_asks_for_other_objects_gets_none(authority: Authority) -> None:
    def script(call: Call) -> None:
        call.answer(body=fleet_pb2.PushMessagesResponse(objects_to_push=["0" * 64]).SerializeToString())

    with scripted(authority.server(), script) as server:
        with pytest.raises(RemoteProtocolError, match="not part of the answer"):
            authority.fleet(server.port).push(answer_to(a_question(), b"answer"))
        assert server.calls == ["push-messages"]


@given(st.binary(max_size=300) | st.integers(0, 40_000).map(bytes))
def test_a_record_is_read_as_flower_writes_it(payload: bytes) -> None:
    assert _value(ConfigRecord({RECORD: payload}).deflate(), RECORD) == payload


@given(st.data())
def test_a_changed_record_is_read_the_same_or_refused(data: st.DataObject) -> None:
    content = bytearray(ConfigRecord({RECORD: b"p" * data.draw(st.integers(0, 200))}).deflate())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place : place + 1] = data.draw(st.binary(max_size=3))
    try:
        payload = _value(bytes(content), RECORD)
    except RemoteProtocolError:
        return
    assert ConfigRecord({RECORD: payload}).deflate() == bytes(content)


@pytest.mark.parametrize(
    "record",
    [
        ConfigRecord({}),
        ConfigRecord({"other": b"x"}),
        ConfigRecord({RECORD: "text"}),
        ConfigRecord({RECORD: [b"x"]}),
        ConfigRecord({RECORD: b"x", "more": b"y"}),
        RecordDict({RECORD: ConfigRecord({RECORD: b"x"})}),
        ArrayRecord(),
    ],
    ids=str,
)
def test_any_other_record_is_refused(record: ConfigRecord | RecordDict | ArrayRecord) -> None:
    assert get_object_tree(record).object_id
    with pytest.raises(RemoteProtocolError):
        _value(record.deflate(), RECORD)
