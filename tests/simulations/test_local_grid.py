"""The in-process grid, and the contract with the two private Flower names that it needs.

Nothing here sleeps: a node takes its messages in order, so once it has begun the next one, the reply before is there.
"""

import threading
from collections.abc import Callable, Iterator

import pytest
from flwr.app import ConfigRecord, Context, Error, Message, Metadata, RecordDict

from strategies.messages import RECORD, TRAIN

NEW_FLOWER = (
    "Flower changed a private name that simulations/local_grid.py needs. Find out what took its place and change that "
    "one file; raise the pinned version in pyproject.toml only then (docs/adr/0002-flower-1.41.md says why)."
)

try:
    from flwr.supercore.task_identity import TaskIdentity

    from simulations.local_grid import LocalGrid, SiteApp
except ImportError as error:
    raise AssertionError(NEW_FLOWER) from error

PATIENCE = 20.0  # seconds until a test gives up on a thread that never gets there


def question(node: int, text: str = "") -> Message:
    content = RecordDict({RECORD: ConfigRecord({RECORD: text.encode()})})
    return Message(content, dst_node_id=node, message_type=TRAIN, group_id="1")


def text_of(message: Message) -> str:
    data = message.content[RECORD][RECORD]
    assert isinstance(data, bytes)
    return data.decode()


def echo(message: Message, context: Context) -> Message:
    text = f"{context.node_id}: {text_of(message)}"
    return Message(RecordDict({RECORD: ConfigRecord({RECORD: text.encode()})}), reply_to=message)


class FlushableGrid(LocalGrid):
    """A local grid that can tell when its nodes have caught up."""

    def __init__(self, apps: tuple[SiteApp, ...]) -> None:
        numbered = {place: self._watched(app) for place, app in enumerate(apps, start=1)}
        self._caught_up = {place: threading.Event() for place in numbered}
        super().__init__(numbered, run_id=77, node_configs={place: {"partition-id": place - 1} for place in numbered})

    def flush(self, *nodes: int) -> None:
        """Returns once everything that these nodes were sent before is answered."""
        for node in nodes:
            self._caught_up[node].clear()
        self.push_messages([question(node, "flush") for node in nodes])
        for node in nodes:
            assert self._caught_up[node].wait(PATIENCE)

    def _watched(self, app: SiteApp) -> SiteApp:
        def site(message: Message, context: Context) -> Message:
            if text_of(message) != "flush":
                return app(message, context)
            self._caught_up[context.node_id].set()
            return echo(message, context)

        return site


Start = Callable[..., FlushableGrid]


@pytest.fixture
def start() -> Iterator[Start]:
    grids: list[FlushableGrid] = []

    def make(*apps: SiteApp) -> FlushableGrid:
        grids.append(FlushableGrid(apps))
        return grids[-1]

    yield make
    for grid in grids:
        grid.close()


def replies_to(grid: LocalGrid, ids: list[str]) -> dict[str, Message]:
    return {reply.metadata.reply_to_message_id: reply for reply in grid.pull_messages(ids)}


class TestFlowersPrivateNames:
    def test_the_task_identity_is_where_messages_get_their_source(self) -> None:
        try:
            TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 5, 0, 9
            metadata = question(3).metadata
            seen = (metadata.run_id, metadata.src_node_id, metadata.src_task_id)
        except (AttributeError, RuntimeError) as error:
            pytest.fail(f"{NEW_FLOWER} ({error})")
        assert seen == (5, 0, 9), NEW_FLOWER

    def test_a_messages_id_is_in_its_metadata_and_its_reply_refers_to_it(self) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 5, 0, 9
        message = question(3)
        assert message.metadata.message_id == "", NEW_FLOWER
        assert "_message_id" in message.metadata.__dict__, NEW_FLOWER
        message.metadata.__dict__["_message_id"] = "an id"
        assert message.metadata.message_id == "an id", NEW_FLOWER
        assert Message(RecordDict(), reply_to=message).metadata.reply_to_message_id == "an id", NEW_FLOWER
        assert Message(Error(2), reply_to=message).metadata.reply_to_message_id == "an id", NEW_FLOWER

    def test_there_is_still_no_public_way(self) -> None:
        # Once this fails, the private name can go.
        assert Metadata.message_id.fset is None  # type: ignore[attr-defined]  # a property, seen from its class


def test_a_message_is_answered_by_its_own_node(start: Start) -> None:
    grid = start(echo, echo, echo)
    assert sorted(grid.get_node_ids()) == [1, 2, 3]
    ids = list(grid.push_messages([question(node, f"for {node}") for node in (3, 1)]))
    assert len(set(ids)) == 2
    grid.flush(1, 3)
    replies = replies_to(grid, ids)
    assert [text_of(replies[message_id]) for message_id in ids] == ["3: for 3", "1: for 1"]
    assert [replies[message_id].metadata.src_node_id for message_id in ids] == [3, 1]
    assert {reply.metadata.run_id for reply in replies.values()} == {77}
    assert all(reply.metadata.message_id not in {"", *ids} for reply in replies.values())


def test_a_node_knows_itself_and_keeps_its_memory(start: Start) -> None:
    def remembers(message: Message, context: Context) -> Message:
        count = len(context.state)
        context.state[f"seen-{count}"] = ConfigRecord()
        content = ConfigRecord({RECORD: f"{count} {context.run_id} {context.node_config['partition-id']}".encode()})
        return Message(RecordDict({RECORD: content}), reply_to=message)

    grid = start(remembers, remembers)
    ids = list(grid.push_messages([question(1), question(1), question(2)]))
    grid.flush(1, 2)
    replies = replies_to(grid, ids)
    assert [text_of(replies[message_id]) for message_id in ids] == ["0 77 0", "1 77 0", "0 77 1"]


def test_messages_reach_a_node_in_order_and_one_at_a_time(start: Start) -> None:
    begun: list[str] = []
    inside = threading.Lock()

    def noting(message: Message, context: Context) -> Message:
        assert inside.acquire(blocking=False), "two messages at once"
        begun.append(text_of(message))
        inside.release()
        return echo(message, context)

    grid = start(noting)
    wanted = [f"message {place}" for place in range(200)]
    ids = [message_id for text in wanted for message_id in grid.push_messages([question(1, text)])]
    grid.flush(1)
    assert begun == wanted
    assert not any(reply.has_error() for reply in grid.pull_messages(ids))


def test_a_node_that_hangs_holds_up_nobody_else(start: Start) -> None:
    release = threading.Event()

    def hanging(message: Message, context: Context) -> Message:
        release.wait(PATIENCE)
        return echo(message, context)

    grid = start(hanging, echo)
    [stuck] = grid.push_messages([question(1, "stuck")])
    [quick] = grid.push_messages([question(2, "quick")])
    grid.flush(2)
    assert set(replies_to(grid, [stuck, quick])) == {quick}
    release.set()
    grid.flush(1)
    assert set(replies_to(grid, [stuck])) == {stuck}


def test_what_a_node_raises_becomes_flowers_error_without_its_text(start: Start) -> None:
    def raising(message: Message, context: Context) -> Message:
        if text_of(message) == "fail":
            raise ValueError("patient 47 has cholesterol 412")
        return echo(message, context)

    grid = start(raising)
    failed, fine = grid.push_messages([question(1, "fail"), question(1, "go on")])
    grid.flush(1)
    replies = replies_to(grid, [failed, fine])
    assert (replies[failed].error.code, replies[failed].error.reason) == (2, "the ClientApp raised an exception")
    assert "patient" not in repr(replies[failed])
    assert text_of(replies[fine]) == "1: go on", "one failure does not end the node"


def test_a_reply_is_pulled_once_and_only_by_its_id(start: Start) -> None:
    grid = start(echo)
    one, other = grid.push_messages([question(1, "one"), question(1, "other")])
    grid.flush(1)
    assert list(grid.pull_messages([])) == []
    assert list(grid.pull_messages(["unknown"])) == []
    assert [text_of(reply) for reply in grid.pull_messages([one, one])] == ["1: one"]
    assert [text_of(reply) for reply in grid.pull_messages([one, other])] == ["1: other"]
    assert list(grid.pull_messages([one, other])) == []


def test_nodes_end_when_the_grid_is_closed(start: Start) -> None:
    threads: list[threading.Thread] = []

    def noting(message: Message, context: Context) -> Message:
        threads.append(threading.current_thread())
        return echo(message, context)

    grid = start(noting, noting)
    grid.push_messages([question(1), question(2)])
    grid.flush(1, 2)
    grid.close()
    for thread in threads:
        thread.join(PATIENCE)
    assert [(thread.is_alive(), thread.daemon) for thread in threads] == [(False, True)] * 2


def test_parts_of_the_interface_that_nobody_uses_say_so(start: Start) -> None:
    grid = start(echo)
    with pytest.raises(NotImplementedError):
        _ = grid.run
    with pytest.raises(NotImplementedError, match="push_messages"):
        grid.send_and_receive([])
    message = grid.create_message(RecordDict(), TRAIN, 1, "4", ttl=30.0)
    metadata = message.metadata
    assert (metadata.dst_node_id, metadata.message_type, metadata.group_id, metadata.ttl) == (1, TRAIN, "4", 30.0)
