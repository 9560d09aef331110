"""A Flower grid that answers by a script, and a clock that moves only when somebody sleeps."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from strategies.messages import RECORD


@dataclass
class FakeClock:
    """Both the clock and the sleep of a pure procedure; fails one that would wait for ever."""

    now: float = 1000.0
    naps: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        assert len(self.naps) < 10_000, "this never ends"
        self.now += seconds


@dataclass(frozen=True)
class Delivery:
    """A reply that may be pulled ``delay`` seconds after its question.

    Attributes:
      unasked: Handed over even to someone who does not ask for its id, as no honest SuperLink would.
    """

    delay: float
    reply: Message
    unasked: bool = False


Script = Callable[[Message], Sequence[Delivery]]


class ScriptedGrid(Grid):
    """Answers every message by the script; a reply is pulled once.

    Attributes:
      asked: Every message pushed.
      pulled: Every reply handed over, in order.
    """

    def __init__(self, clock: FakeClock, script: Script, nodes: Callable[[], Iterable[int]] = tuple) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 1
        self.asked: list[Message] = []
        self.pulled: list[Message] = []
        self._clock = clock
        self._script = script
        self._nodes = nodes
        self._underway: list[tuple[float, Delivery]] = []

    def set_run(self, run: Run) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Run:
        raise NotImplementedError

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        raise NotImplementedError

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        return list(self._nodes())

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            ids.append(identify(message, f"question {len(self.asked)}"))
            self.asked.append(message)
            self._underway += [(self._clock.now + delivery.delay, delivery) for delivery in self._script(message)]
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        wanted = set(message_ids)
        arrived: list[tuple[float, Delivery]] = []
        rest: list[tuple[float, Delivery]] = []
        for due, delivery in self._underway:
            asked_for = delivery.unasked or delivery.reply.metadata.reply_to_message_id in wanted
            (arrived if due <= self._clock.now and asked_for else rest).append((due, delivery))
        self._underway = rest
        replies = [delivery.reply for _, delivery in sorted(arrived, key=lambda entry: entry[0])]
        self.pulled += replies
        return replies


def identify(message: Message, message_id: str) -> str:
    """Gives a message the id that a SuperLink would."""
    message.metadata.__dict__["_message_id"] = message_id
    return message_id


def body_of(message: Message) -> bytes:
    """Returns the bytes that a message carries."""
    record = message.content[RECORD]
    assert isinstance(record, ConfigRecord)
    data = record[RECORD]
    assert isinstance(data, bytes)
    return data


def says(question: Message, data: bytes) -> Message:
    """An answer."""
    return Message(RecordDict({RECORD: ConfigRecord({RECORD: data})}), reply_to=question)


def fails(question: Message, reason: str | None) -> Message:
    """A site's own refusal."""
    return Message(Error(code=1000, reason=reason), reply_to=question)


def gone(question: Message) -> Message:
    """The error reply that Flower itself writes for a node that is no longer there."""
    return Message(Error(code=5, reason="Node Unavailable"), reply_to=question)
