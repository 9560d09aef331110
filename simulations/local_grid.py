"""A Flower ``Grid`` in this process: same ServerApp code, same ClientApp, same messages, no Ray and no SuperLink.

The only file that touches Flower's private names (1.41): ``TaskIdentity``, which ``Message`` reads for its source, and
``Metadata._message_id``, which a SuperLink would assign. ``tests/simulations/test_local_grid.py`` is the contract test
that fails loudly when a new Flower changes either.
"""

import queue
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

SiteApp = Callable[[Message, Context], Message]
"""What runs at a node: a ``ClientApp``, or one wrapped by a fault."""

_RAISED = 2  # Flower's code for a ClientApp that raised


class LocalGrid(Grid):
    """Calls each node's app on a thread of its own, so that one that hangs holds up nobody else.

    Messages reach a node in order and one at a time, as at a real site; the threads die with the process. Every
    message goes through its own queue: a node sees nothing but the message it was sent.
    """

    def __init__(
        self, apps: Mapping[int, SiteApp], *, run_id: int, node_configs: Mapping[int, Mapping[str, Any]]
    ) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, 0, 1
        self._replies: dict[str, Message] = {}
        self._lock = threading.Lock()
        self._inboxes: dict[int, queue.SimpleQueue[Message | None]] = {}
        for node_id, app in apps.items():
            context = Context(run_id, node_id, dict(node_configs[node_id]), RecordDict(), {})
            inbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
            self._inboxes[node_id] = inbox
            threading.Thread(target=self._serve, args=(app, context, inbox), daemon=True).start()

    def close(self) -> None:
        """Lets idle nodes end; one that hangs is left behind."""
        for inbox in self._inboxes.values():
            inbox.put(None)

    def set_run(self, run: Run) -> None:
        """Part of the interface; this grid has one run from the start."""

    @property
    def run(self) -> Run:
        """Part of the interface.

        Raises: NotImplementedError: A local grid has no SuperLink's record of a run.
        """
        raise NotImplementedError("a local grid has no run record")

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Returns a message as ``Message(...)`` does."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Returns the ids of all nodes."""
        return list(self._inboxes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Hands each message to its node and returns at once."""
        ids = []
        for message in messages:
            message_id = _identify(message)
            self._inboxes[message.metadata.dst_node_id].put(message)
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Returns the replies that have arrived, each once."""
        with self._lock:
            return [self._replies.pop(message_id) for message_id in message_ids if message_id in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Part of the interface; the round driver keeps its own deadlines.

        Raises: NotImplementedError: Always; use ``push_messages`` and ``pull_messages``.
        """
        raise NotImplementedError("use push_messages and pull_messages")

    def _serve(self, app: SiteApp, context: Context, inbox: "queue.SimpleQueue[Message | None]") -> None:
        while (message := inbox.get()) is not None:
            try:
                reply = app(message, context)
            except Exception:  # noqa: BLE001 - whatever a node raises, Flower reports as its error
                reply = Message(Error(code=_RAISED, reason="the ClientApp raised an exception"), reply_to=message)
            _identify(reply)
            with self._lock:
                self._replies[message.metadata.message_id] = reply


def _identify(message: Message) -> str:
    message_id = uuid.uuid4().hex
    message.metadata.__dict__["_message_id"] = message_id
    return message_id
