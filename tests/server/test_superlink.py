"""Contract with Flower 1.41, and a whole exchange: driver, launcher, and nodes that speak Flower's own protocol."""

import base64
import hashlib
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import flwr
import httpx
import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.control_pb2 import ListRunsRequest
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest, PushMessagesRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
)
from flwr.proto.node_pb2 import Node
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, iterate_object_tree
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from privacy.errors import ConfigError, TransportError
from server import superlink
from server.admission import tree_ids
from server.superlink import fleet_app, node_id, register, session
from tests.server.launched import Federation, Launched, flower, header, launched

A, B = node_id(header(2)), node_id(header(3))


@dataclass(frozen=True)
class SiteNode:
    """A node as Flower's own client would be it; every method is one request."""

    client: FleetHttpClient
    id: int

    @property
    def me(self) -> Node:
        return Node(node_id=self.id)

    def question(self) -> tuple[Message, ObjectTree]:
        for _ in range(100):
            found = self.client.PullMessages(PullMessagesRequest(node=self.me))
            if found.messages_list:
                return message_from_proto(found.messages_list[0]), found.message_object_trees[0]
            time.sleep(0.02)
        raise AssertionError("no question came")

    def pull(self, run: int, object_id: str) -> PullObjectResponse:
        return self.client.PullObject(PullObjectRequest(node=self.me, run_id=run, object_id=object_id))

    def confirm(self, run: int, message_id: str) -> None:
        request = ConfirmMessageReceivedRequest(node=self.me, run_id=run, message_object_id=message_id)
        self.client.ConfirmMessageReceived(request)

    def announce(self, answer: Message, tree: ObjectTree | None = None, times: int = 1) -> Any:
        head = message_to_proto(remove_content_from_message(answer) if answer.has_content() else answer)
        head.metadata.message_id = answer.object_id
        trees = [tree or get_object_tree(answer)]
        request = PushMessagesRequest(node=self.me, messages_list=[head] * times, message_object_trees=trees * times)
        return self.client.PushMessages(request)

    def push(self, run: int, session_id: str, object_id: str, content: bytes) -> bool:
        request = PushObjectRequest(
            node=self.me, run_id=run, session_id=session_id, object_id=object_id, object_content=content
        )
        return bool(self.client.PushObject(request).stored)

    def answer(self, question: Message, payload: bytes) -> Message:
        """An answer; from the node that was asked."""
        return self.sign(Message(RecordDict({"r": ConfigRecord({"r": payload})}), reply_to=question), question)

    def sign(self, answer: Message, question: Message) -> Message:
        answer.metadata.__dict__["_src_node_id"] = question.metadata.dst_node_id
        answer.metadata.__dict__["_message_id"] = answer.object_id
        return answer

    def give(self, answer: Message) -> None:
        announced = self.announce(answer)
        for object_id, one in get_all_nested_objects(answer).items():
            assert self.push(answer.metadata.run_id, announced.session_id, object_id, one.deflate())


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    with launched(Federation.create(tmp_path_factory.mktemp("hub"), parts=50)) as running:
        yield running


@pytest.fixture(scope="module")
def nodes(hub: Launched) -> Iterator[tuple[SiteNode, SiteNode]]:
    with ExitStack() as stack:
        found = []
        for name, number in (("a", 2), ("b", 3)):
            own = flower(number)
            interceptors = [NodeAuthHttpInterceptor(own, own.public_key())]
            url, context = f"https://127.0.0.1:{hub.port}", hub.federation.context(name)
            client = stack.enter_context(FleetHttpClient(url, interceptors=interceptors, verify=context))
            key = base64.b64decode(header(number))
            answer = client.ActivateNode(ActivateNodeRequest(public_key=key, heartbeat_interval=1800))
            found.append(SiteNode(client, answer.node_id))
        yield found[0], found[1]


def ask(grid: Any, *to: int) -> list[str]:
    questions = []
    for node in to:
        content = RecordDict({"r": ConfigRecord({"r": b"to %d" % node})})
        questions.append(Message(content, dst_node_id=node, message_type="train", ttl=60))
    return list(grid.push_messages(questions))


def replies(grid: Any, ids: list[str]) -> list[Message]:
    for _ in range(100):
        if found := list(grid.pull_messages(ids)):
            return found
        time.sleep(0.02)
    raise AssertionError("no reply came")


@contextmanager
def refused() -> Iterator[None]:
    with pytest.raises(httpx.HTTPStatusError) as caught:
        yield
    assert caught.value.response.status_code == 409
    assert caught.value.response.headers["collegium-refused"] == "owner"


def test_the_version_whose_private_names_are_used() -> None:
    assert flwr.__version__.startswith("1.41.")


def test_ids_come_from_keys_and_registering_twice_does_nothing() -> None:
    app = fleet_app()
    assert register(app, header(2)) == register(app, header(2)) == A
    assert register(app, header(3)) == B != A
    state = app.state.linkstate_factory.state()
    assert {node.node_id for node in state.get_node_info()} == {A, B}
    assert app.state.enable_supernode_auth


def test_a_question_goes_out_and_an_answer_of_four_megabytes_comes_back(
    hub: Launched, nodes: tuple[SiteNode, SiteNode]
) -> None:
    node, _ = nodes
    with session(hub.federation.socket) as (grid, run):
        assert set(grid.get_node_ids()) == {A, B}
        ids = ask(grid, A)
        question, tree = node.question()
        assert question.metadata.run_id == run
        for part in iterate_object_tree(tree):
            assert node.pull(run, part.object_id).object_available
        node.confirm(run, tree.object_id)
        node.give(node.answer(question, b"x" * 4_000_000))
        (reply,) = replies(grid, ids)
        assert reply.content["r"]["r"] == b"x" * 4_000_000
        assert reply.metadata.reply_to_message_id == ids[0]
    with session(hub.federation.socket) as (_, again):
        assert again != run


def test_a_node_uses_no_message_and_no_object_of_another(hub: Launched, nodes: tuple[SiteNode, SiteNode]) -> None:
    a, b = nodes
    with session(hub.federation.socket) as (grid, run):
        ids = ask(grid, A, B)
        (for_a, tree), (for_b, _) = a.question(), b.question()
        for part in iterate_object_tree(tree):
            with refused():
                b.pull(run, part.object_id)
        with refused():
            b.confirm(run, tree.object_id)
        stolen = b.answer(for_a, b"in the name of a")
        with refused():
            b.announce(stolen)
        stolen.metadata.__dict__["_src_node_id"] = B
        with refused():
            b.announce(stolen)
        signed = b.answer(for_b, b"as if of a")
        signed.metadata.__dict__["_src_node_id"] = A
        with refused():
            b.announce(signed)
        honest = a.answer(for_a, b"of a")
        announced = a.announce(honest)
        for object_id, one in get_all_nested_objects(honest).items():
            with refused():
                b.push(run, announced.session_id, object_id, one.deflate())
        with refused():
            b.confirm(run, honest.object_id)
        a.give(honest)
        (reply,) = replies(grid, ids[:1])
        assert reply.content["r"]["r"] == b"of a"


def test_an_answer_is_one_and_has_the_objects_it_was_announced_with(
    hub: Launched, nodes: tuple[SiteNode, SiteNode]
) -> None:
    a, _ = nodes
    with session(hub.federation.socket) as (grid, run):
        ask(grid, A)
        question, _ = a.question()
        answer = a.answer(question, b"once")
        root = answer.object_id

        def more(count: int) -> ObjectTree:
            children = [ObjectTree(object_id=f"{number:064x}") for number in range(count)]
            return ObjectTree(object_id=root, children=children)

        with refused():
            a.announce(answer, times=2)
        with refused():
            a.announce(answer, more(50))
        with refused():
            a.announce(answer, ObjectTree(object_id="0" * 64))
        first = a.announce(answer)
        assert a.announce(answer).objects_to_push  # the same again is a retry
        with refused():
            a.announce(answer, more(3))
        with refused():
            a.push(run, first.session_id, "0" * 64, b"x")


def test_objects_of_one_answer_have_a_cap_together() -> None:
    deep = ObjectTree(object_id="0")
    for number in range(1, 60):
        deep = ObjectTree(object_id=str(number), children=[deep])
    assert tree_ids(deep, 60) == frozenset(str(number) for number in range(60))
    assert tree_ids(deep, 59) is None


def test_a_reply_that_never_comes_whole_keeps_nobody_waiting(hub: Launched, nodes: tuple[SiteNode, SiteNode]) -> None:
    a, b = nodes
    with session(hub.federation.socket) as (grid, _):
        ids = ask(grid, A, B)
        a.announce(a.answer(a.question()[0], b"never pushed"))
        started = time.monotonic()
        assert list(grid.pull_messages(ids)) == []
        b.give(b.answer(b.question()[0], b"of b"))
        (reply,) = replies(grid, ids)
        assert reply.content["r"]["r"] == b"of b"
        assert time.monotonic() - started < 5


UNREADABLE = {
    "a record where a message should be": ConfigRecord({"r": b"x"}).deflate(),
    "a message that is none": b"Message  4\x00\xff\xff\xff\xff",
    "a message with a part that is not there": b"Message " + b"0" * 64 + b" 1\x00x",
}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
def test_a_reply_that_cannot_be_read_is_an_error_of_its_site(
    hub: Launched, nodes: tuple[SiteNode, SiteNode], monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    a, _ = nodes
    with session(hub.federation.socket) as (grid, run):
        ids = ask(grid, A)
        question, _ = a.question()
        # Flower checks the hash of what it stores and little else.
        fake, object_id = a.answer(question, b"x"), hashlib.sha256(content).hexdigest()
        monkeypatch.setattr(type(fake), "object_id", property(lambda _: object_id))
        announced = a.announce(fake, ObjectTree(object_id=object_id))
        monkeypatch.undo()
        assert a.push(run, announced.session_id, object_id, content)
        (reply,) = replies(grid, ids)
        assert reply.has_error()
        assert reply.error.reason == "the reply cannot be read"
        assert reply.metadata.reply_to_message_id == ids[0]


def test_nothing_of_a_run_stays_in_memory(hub: Launched, nodes: tuple[SiteNode, SiteNode]) -> None:
    a, b = nodes
    with session(hub.federation.socket) as (grid, run):
        ids = ask(grid, A, B)
        answered, tree = a.question()
        assert a.pull(run, tree.object_id).object_available
        a.announce(a.answer(answered, b"and never confirmed"))
        with refused():  # the question is gone with the answer to it
            a.pull(run, tree.object_id)
        unanswered, left = b.question()
        confirmed: list[str] = []
        runtime: Any = vars(grid)["_client"]
        runtime.ConfirmMessageReceived = lambda request: confirmed.append(request.message_object_id)
        b.give(b.sign(Message(Error(code=1, reason="no"), reply_to=unanswered), unanswered))
        assert replies(grid, ids)[0].has_error()
        assert left.object_id in confirmed
        ask(grid, B)
        _, left = b.question()
    for _ in range(100):
        with pytest.raises(httpx.HTTPStatusError) as caught:
            b.pull(run, left.object_id)
        if caught.value.response.status_code == 409:  # tidied up; before that Flower says 403, the run is over
            return
        time.sleep(0.05)
    raise AssertionError("a run that is over keeps its objects")


def test_one_driver_at_a_time_and_what_one_left_behind_is_cleared(hub: Launched) -> None:
    path = hub.federation.socket
    with session(path), pytest.raises(ConfigError, match="another run is being driven"), session(path):
        pass
    with ExitStack() as stack:
        left = superlink._start(stack, path)  # a driver killed before it took its task
    with session(path) as (grid, run):
        assert run != left
        assert vars(grid)["_run"].run_id == run


def test_a_run_ends_as_its_driver_does(hub: Launched) -> None:
    path = hub.federation.socket
    with session(path) as (_, fine):
        pass
    with pytest.raises(RuntimeError, match="of the driver"), session(path) as (_, bad):
        raise RuntimeError("of the driver")
    with superlink._over(path, ControlHttpClient("http://x", interceptors=[])) as control:
        runs = control.ListRuns(ListRunsRequest()).run_dict
    assert (runs[fine].status.status, runs[fine].status.sub_status) == ("finished", "completed")
    assert (runs[bad].status.status, runs[bad].status.sub_status) == ("finished", "failed")


def test_no_launcher_is_one_line_and_one_that_goes_away_ends_the_run(tmp_path_factory: pytest.TempPathFactory) -> None:
    federation = Federation.create(tmp_path_factory.mktemp("short"))
    with pytest.raises(ConfigError, match="no run could be started"), session(federation.socket):
        pass
    with launched(federation) as running, session(federation.socket) as (grid, _):
        running.process.send_signal(signal.SIGKILL)
        running.process.wait(10)
        with pytest.raises(TransportError) as caught:
            ask(grid, A)
        assert not caught.value.retryable
    with launched(federation), session(federation.socket) as (_, run):  # the dead one's socket is no hindrance
        assert run
