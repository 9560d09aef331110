"""The agent's decisions, over a connection that is scripted: what is pulled, answered, sent, repeated and given up."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from clients import resident
from clients.connection import FleetError, FleetRefusedError
from clients.fleet import HEARTBEAT_SECONDS, Head, payload_of
from clients.resident import MOST_RUNS, Resident, back_off, poll_pause
from privacy.errors import ConfigError, RemoteProtocolError
from strategies.messages import RECORD, REFUSED
from tests.clients.fleet_servers import a_question

SECONDS = 10.0  # a wait that is not over by then has failed


@dataclass
class Wire:
    """Stands for the server and for every connection to it; errors in ``faults`` are raised by the next such calls."""

    inbox: deque[Message] = field(default_factory=deque)
    pushed: list[Message] = field(default_factory=list)
    pulled: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    faults: dict[str, deque[Exception]] = field(default_factory=dict)
    opened: int = 0
    known: bool = True

    def open(self) -> Any:
        self.opened += 1
        self._do("open")
        return self

    def activate(self, node: int = 0) -> int:
        self._do(f"activate {node}")
        return 7

    def heartbeat(self) -> bool:
        self._do("heartbeat")
        return self.known

    def poll(self) -> Head | None:
        self._do("poll")
        return Head(self.inbox.popleft(), ("0" * 64,)) if self.inbox else None

    def pull(self, head: Head) -> Message:
        self._do("pull")
        self.pulled.append(head.kind)
        return head.message

    def push(self, reply: Message) -> None:
        self._do("push")
        self.pushed.append(reply)

    def deactivate(self) -> None:
        self._do("deactivate")

    def close(self) -> None:
        self._do("close")

    def fail(self, call: str, *errors: Exception) -> None:
        self.faults[call] = deque(errors)

    def _do(self, call: str) -> None:
        self.calls.append(call)
        waiting = self.faults.get(call.split(maxsplit=1)[0])
        if waiting:
            raise waiting.popleft()


def echo(message: Message, context: Context) -> Message:
    assert message.metadata.run_id == context.run_id
    return Message(RecordDict({RECORD: ConfigRecord({RECORD: b"to " + payload_of(message)})}), reply_to=message)


@dataclass
class Agent:
    """A resident in a thread, and what it said and sent."""

    wire: Wire = field(default_factory=Wire)
    answer: Callable[[Message, Context], Message] = echo
    paused: Callable[[], bool] = lambda: False
    lines: list[str] = field(default_factory=list)
    sent: list[tuple[int, str, str, bytes]] = field(default_factory=list)
    ended: list[BaseException | None] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    slept: float = 0.0
    ticks: int = 0

    def run(self) -> None:
        agent = Resident(
            self.wire.open,
            self.answer,
            allowed=frozenset({"train.round", "query.hello"}),
            paused=lambda: self.paused(),  # noqa: PLW0108 - tests change it on the way
            report=self.lines.append,
            sent=lambda *what: self.sent.append(what),
            tick=self.tick,
            clock=lambda: time.monotonic() + self.slept,
            back_off=lambda _failures: 0.001,
        )
        try:
            agent.run(self.stop)
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.ended.append(error)
        else:
            self.ended.append(None)

    def tick(self) -> None:
        self.ticks += 1

    def until(self, holds: Callable[[], object]) -> None:
        end = time.monotonic() + SECONDS
        while not holds():
            assert time.monotonic() < end, (self.lines, self.wire.calls[-20:])
            time.sleep(0.002)

    def until_pushed(self, count: int) -> None:
        self.until(lambda: len(self.wire.pushed) == count)


@contextmanager
def living(agent: Agent) -> Iterator[Agent]:
    thread = threading.Thread(target=agent.run, daemon=True)
    thread.start()
    try:
        yield agent
    finally:
        agent.stop.set()
        thread.join(SECONDS)
        assert not thread.is_alive()


def payloads(agent: Agent) -> list[bytes]:
    return [payload_of(reply) for reply in agent.wire.pushed]


def test_a_question_is_answered_and_counted_before_it_leaves() -> None:
    agent = Agent()
    agent.wire.inbox.append(a_question(payload=b"me"))
    with living(agent):
        agent.until(lambda: agent.wire.pushed)
    assert payloads(agent) == [b"to me"]
    assert agent.sent == [(5, "train.round", "7", b"to me")]
    assert agent.lines == ["connected as node 7"]
    assert agent.ended == [None]
    assert agent.wire.calls[-2:] == ["deactivate", "close"]


def test_what_is_not_allowed_is_never_pulled() -> None:
    agent = Agent()
    agent.wire.inbox += [a_question(kind="train.evil"), a_question(kind="query.hello")]
    with living(agent):
        agent.until(lambda: agent.wire.pushed)
    assert agent.wire.pulled == ["query.hello"]
    assert len(agent.wire.pushed) == 1
    assert "refused unread: a message of type 'train.evil'" in agent.lines


def test_nothing_leaves_that_is_not_counted() -> None:
    agent = Agent()
    agent.wire.inbox.append(a_question())

    class Full(list[Any]):
        def append(self, _what: Any) -> None:
            raise OSError("no space left")

    agent.sent = Full()
    with living(agent):
        agent.until(lambda: any("was dropped" in line for line in agent.lines))
    assert not agent.wire.pushed


# -- pause ------------------------------------------------------------------------------------------------------------


def test_a_paused_site_asks_for_nothing() -> None:
    agent = Agent(paused=lambda: True)
    agent.wire.inbox.append(a_question())
    with living(agent):
        agent.until(lambda: agent.lines)
        before = agent.ticks
        time.sleep(0.2)
        assert "poll" not in agent.wire.calls
        assert agent.ticks > before, "what is due in time is done all the same"
        agent.paused = lambda: False
        agent.until(lambda: agent.wire.pushed)
    assert agent.lines == ["paused: this site answers nothing until it is resumed", "connected as node 7"]


def test_a_pause_during_the_work_holds_the_answer_back() -> None:
    agent = Agent()

    def answer(message: Message, context: Context) -> Message:
        agent.paused = lambda: True
        return echo(message, context)

    agent.answer = answer
    agent.wire.inbox.append(a_question())
    with living(agent):
        agent.until(lambda: any("nothing was sent" in line for line in agent.lines))
    assert agent.wire.pulled
    assert not agent.wire.pushed
    assert not agent.sent


def test_a_pause_between_two_attempts_to_push_holds_the_answer_back() -> None:
    agent = Agent()

    class CutError(FleetError):
        def __init__(self) -> None:
            super().__init__("cut")
            agent.paused = lambda: agent.wire.calls.count("push") > 0

    agent.wire.fail("push", CutError(), CutError())
    agent.wire.inbox.append(a_question())
    with living(agent):
        agent.until(lambda: any("nothing was sent" in line for line in agent.lines))
    assert agent.wire.calls.count("push") == 1


def test_a_pause_before_the_work_leaves_the_message_unpulled() -> None:
    agent, waiting = Agent(), threading.Event()

    def answer(message: Message, context: Context) -> Message:
        waiting.wait(SECONDS)
        return echo(message, context)

    agent.answer = answer
    agent.wire.inbox += [a_question(payload=b"1"), a_question(payload=b"2")]
    with living(agent):
        agent.until(lambda: not agent.wire.inbox)
        agent.paused = lambda: True
        waiting.set()
        agent.until(lambda: sum("nothing was sent" in line for line in agent.lines) == 2)
    assert len(agent.wire.pulled) == 1


def test_a_pause_that_cannot_be_read_is_a_pause() -> None:
    def paused() -> bool:
        raise OSError("the folder is gone")

    agent = Agent(paused=paused)
    with living(agent):
        agent.until(lambda: agent.lines)
        time.sleep(0.1)
    assert "poll" not in agent.wire.calls


# -- trouble ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["open", "activate", "poll"])
@pytest.mark.parametrize(
    "error",
    [
        FleetError("down"),
        FleetError("no", status=401),
        FleetError("no", status=412),
        RemoteProtocolError("nonsense"),
        ConfigError("the certificate cannot be read", hint="Look."),
        KeyError("surprise"),
        RuntimeError("surprise"),
    ],
    ids=repr,
)
def test_trouble_is_said_once_and_never_ends_the_agent(call: str, error: Exception) -> None:
    agent = Agent()
    agent.wire.fail(call, *[error] * 5)
    with living(agent):
        agent.until(lambda: not agent.wire.faults[call] and "connected as node 7" in agent.lines)
        agent.wire.inbox.append(a_question())
        agent.until(lambda: agent.wire.pushed)
    assert agent.ended == [None]
    assert len(agent.lines) <= 3
    assert agent.wire.calls.count("close") == agent.wire.opened - (5 if call == "open" else 0)


def test_what_is_due_in_time_is_done_while_the_server_is_away() -> None:
    agent = Agent()
    agent.wire.fail("open", *[FleetError("down")] * 50)
    with living(agent):
        agent.until(lambda: agent.wire.calls.count("open") >= 20)
        assert agent.ticks >= 19


@pytest.mark.parametrize("call", ["activate", "poll"])
def test_a_certificate_that_is_not_in_the_charter_ends_it(call: str) -> None:
    agent = Agent()
    agent.wire.fail(call, FleetError("down"), FleetRefusedError())
    with living(agent):
        agent.until(lambda: agent.ended)
        assert isinstance(agent.ended[0], FleetRefusedError)
        assert agent.wire.calls[-1] == "close"


def test_a_known_node_is_taken_up_again() -> None:
    agent = Agent()
    agent.wire.fail("poll", FleetError("cut"))
    with living(agent):
        agent.until(lambda: agent.wire.opened == 2 and "connected as node 7" in agent.lines)
    assert [one for one in agent.wire.calls if one.startswith("activate")] == ["activate 0", "activate 7"]


def test_a_node_that_was_away_for_long_asks_anew() -> None:
    """Meanwhile another host with the same keys may have become that node."""
    agent = Agent()

    class AwayError(FleetError):
        def __init__(self) -> None:
            super().__init__("cut")
            agent.slept = 3 * HEARTBEAT_SECONDS

    with living(agent):
        agent.until(lambda: agent.lines)
        agent.wire.fail("poll", AwayError())
        agent.until(lambda: agent.wire.opened == 2)
    assert [one for one in agent.wire.calls if one.startswith("activate")] == ["activate 0", "activate 0"]


def test_a_node_that_the_server_forgot_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident, "HEARTBEAT_SECONDS", 0.01)
    agent = Agent()
    agent.wire.known = False
    with living(agent):
        agent.until(lambda: agent.wire.opened >= 3)
        agent.wire.known = True
        agent.until(lambda: agent.wire.calls[-4:].count("heartbeat") >= 2)
        opened = agent.wire.opened
        agent.wire.fail("heartbeat", *[FleetError("slow")] * 3)
        agent.until(lambda: not agent.wire.faults["heartbeat"])
        assert agent.wire.opened == opened  # a heartbeat that fails says nothing that polling does not say


def test_no_heartbeat_follows_the_farewell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident, "HEARTBEAT_SECONDS", 0.001)
    agent = Agent()

    class Slow(Wire):
        def heartbeat(self) -> bool:
            self._do("heartbeat")
            time.sleep(0.1)
            self._do("heartbeat over")
            return True

    agent.wire = Slow()
    with living(agent):
        agent.until(lambda: agent.wire.calls[-1] == "heartbeat")
    time.sleep(0.2)
    assert agent.wire.calls[-3:] == ["heartbeat over", "deactivate", "close"]


@pytest.mark.parametrize("call", ["pull", "push"])
def test_a_cut_line_costs_no_answer(call: str) -> None:
    agent = Agent()
    agent.wire.fail(call, FleetError("cut"), FleetError("busy", status=503), FleetError("busy", status=429))
    agent.wire.inbox.append(a_question(payload=b"me"))
    with living(agent):
        agent.until(lambda: agent.wire.pushed)
    assert payloads(agent) == [b"to me"]
    assert len(agent.sent) == 1


@pytest.mark.parametrize("call", ["pull", "push"])
@pytest.mark.parametrize(
    "error",
    [FleetError("over", status=403), FleetError("gone", status=500), RemoteProtocolError("another object")],
    ids=str,
)
def test_a_run_that_is_over_costs_one_message(call: str, error: Exception) -> None:
    agent = Agent()
    agent.wire.fail(call, error)
    agent.wire.inbox += [a_question(payload=b"1"), a_question(payload=b"2")]
    with living(agent):
        agent.until(lambda: agent.wire.pushed)
    assert payloads(agent) == [b"to 2"]
    assert f"a train.round message of run 5 was dropped: {error}" in agent.lines


def test_an_answer_is_pushed_over_the_next_connection() -> None:
    agent, working = Agent(), threading.Event()

    def answer(message: Message, context: Context) -> Message:
        working.set()
        agent.until(lambda: agent.wire.opened == 2)
        return echo(message, context)

    agent.answer = answer
    agent.wire.inbox.append(a_question(payload=b"me"))
    with living(agent):
        working.wait(SECONDS)
        agent.wire.fail("poll", FleetError("cut"))
        agent.until(lambda: agent.wire.pushed)
    assert payloads(agent) == [b"to me"]


# -- work -------------------------------------------------------------------------------------------------------------


def test_other_runs_are_answered_while_one_works_and_its_own_messages_wait() -> None:
    agent, go_on, inside, order = Agent(), threading.Event(), [], []

    def answer(message: Message, context: Context) -> Message:
        inside.append(message.metadata.run_id)
        assert inside.count(message.metadata.run_id) == 1
        if message.metadata.run_id == 5:
            go_on.wait(SECONDS)
        order.append(payload_of(message))
        inside.remove(message.metadata.run_id)
        return echo(message, context)

    agent.answer = answer
    agent.wire.inbox += [a_question(payload=b"1"), a_question(payload=b"2"), a_question(run=6, payload=b"other")]
    with living(agent):
        agent.until(lambda: order == [b"other"])
        go_on.set()
        agent.until_pushed(3)
    assert order == [b"other", b"1", b"2"]


def test_a_run_remembers_and_others_do_not_see_it() -> None:
    agent, seen = Agent(), []

    def answer(message: Message, context: Context) -> Message:
        seen.append(dict(context.state))
        context.state[f"after {payload_of(message).decode()}"] = ConfigRecord({})
        return echo(message, context)

    agent.answer = answer
    with living(agent):
        for number, run in enumerate([5, 5, 6]):
            agent.wire.inbox.append(a_question(run=run, payload=str(number).encode()))
            agent.until_pushed(number + 1)
    assert [list(state) for state in seen] == [[], ["after 0"], []]


def test_the_longest_idle_run_is_forgotten_and_a_working_one_is_not() -> None:
    agent, go_on, states = Agent(), threading.Event(), []

    def answer(message: Message, context: Context) -> Message:
        if payload_of(message) == b"wait":
            go_on.wait(SECONDS)
        states.append((message.metadata.run_id, len(context.state)))
        context.state[f"{len(states)}"] = ConfigRecord({})
        return echo(message, context)

    agent.answer = answer
    with living(agent):
        agent.wire.inbox.append(a_question(run=5, payload=b"wait"))
        for number, run in enumerate([6, 7, 8, 6, 9, 7, 6]):
            agent.wire.inbox.append(a_question(run=run))
            agent.until_pushed(number + 1)
        go_on.set()
        agent.until_pushed(8)
        agent.wire.inbox.append(a_question(run=5))
        agent.until_pushed(9)
    assert MOST_RUNS == 4
    assert states == [(6, 0), (7, 0), (8, 0), (6, 1), (9, 0), (7, 0), (6, 2), (5, 0), (5, 1)]


def test_more_than_a_site_takes_is_refused_unread() -> None:
    agent, go_on = Agent(), threading.Event()

    def answer(message: Message, context: Context) -> Message:
        go_on.wait(SECONDS)
        return echo(message, context)

    agent.answer = answer
    agent.wire.inbox += [a_question(run=run) for run in range(5, 5 + MOST_RUNS + 1)]
    agent.wire.inbox += [a_question(run=5, payload=bytes([number])) for number in range(20)]
    with living(agent):
        agent.until(lambda: not agent.wire.inbox)
        agent.until(lambda: sum("more are waiting" in line for line in agent.lines) >= 2)
        go_on.set()


def test_an_answer_that_fails_is_a_refusal_without_reasons() -> None:
    agent = Agent()

    def answer(message: Message, context: Context) -> Message:
        raise ValueError(f"patient 17 of {message} in {context}")

    agent.answer = answer
    agent.wire.inbox.append(a_question())
    with living(agent):
        agent.until(lambda: agent.wire.pushed)
    error = agent.wire.pushed[0].error
    assert (error.code, error.reason) == (REFUSED, "the site failed; its own log says why")
    assert not agent.sent
    assert not any("patient" in line for line in agent.lines)


def test_an_answer_of_another_shape_stays_here() -> None:
    agent = Agent(answer=lambda message, _context: Message(RecordDict({"x": ConfigRecord({})}), reply_to=message))
    agent.wire.inbox.append(a_question())
    with living(agent):
        agent.until(lambda: any("was dropped" in line for line in agent.lines))
    assert not agent.wire.pushed


def test_polls_follow_each_other_closely_only_while_something_happens() -> None:
    assert poll_pause(0) == poll_pause(0.4) == 0.05
    assert poll_pause(4) == 0.5
    assert poll_pause(16) == poll_pause(1e9) == 2


def test_the_back_off_grows_and_ends_at_ten_seconds() -> None:
    waits = [back_off(failures) for failures in range(1, 400)]
    assert waits == sorted(waits)
    assert waits[0] == 1.6
    assert waits[-1] == 10
    assert sum(waits[:4]) < 15
