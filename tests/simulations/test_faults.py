"""Each fault does what its description says, and to training only."""

from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from privacy.errors import ConfigError
from simulations import faults
from simulations.faults import FAULTS, check_fault, with_fault
from strategies.contribution import Contribution
from strategies.messages import HELLO, RECORD, TRAIN, RoundReply
from strategies.task import SiteId

CONTRIBUTION = Contribution({"update": np.ones(3, np.float32), "control": np.zeros(2, np.float32)}, {"loss": 0.5})
HONEST = RoundReply(SiteId("va"), 4, 2, CONTRIBUTION)
CONTEXT = Context(1, 7, {}, RecordDict(), {})


def question(kind: str) -> Message:
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 1
    message = Message(RecordDict(), dst_node_id=7, message_type=kind)
    message.metadata.__dict__["_message_id"] = "question"
    return message


class App:
    """An honest site that notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Message] = []

    def __call__(self, message: Message, context: Context) -> Message:
        assert context is CONTEXT
        self.asked.append(message)
        return Message(RecordDict({RECORD: ConfigRecord({RECORD: HONEST.encode()})}), reply_to=message)


def body_of(reply: Message) -> bytes:
    data = reply.content[RECORD][RECORD]
    assert isinstance(data, bytes)
    return data


class WaitsForEverError(Exception):
    """Stands in for a wait without end."""


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds slept; a wait without end raises instead."""
    naps: list[float] = []

    class Event:
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is None
            raise WaitsForEverError

    monkeypatch.setattr(faults, "time", SimpleNamespace(sleep=naps.append))
    monkeypatch.setattr(faults, "threading", SimpleNamespace(Event=Event))
    return naps


def test_every_fault_is_tested_here() -> None:
    assert set(FAULTS) == {"silent", "late", "nan", "raises"}


def test_silent_never_answers_and_never_trains(waits: list[float]) -> None:
    app = App()
    with pytest.raises(WaitsForEverError):
        with_fault(app, "silent")(question(TRAIN), CONTEXT)
    assert (app.asked, waits) == ([], [])


@pytest.mark.parametrize(("fault", "seconds"), [("late", 3.0), ("late:", 3.0), ("late:0.25", 0.25), ("late:10", 10.0)])
def test_late_answers_honestly_after_a_while(fault: str, seconds: float, waits: list[float]) -> None:
    app, asked = App(), question(TRAIN)
    reply = with_fault(app, fault)(asked, CONTEXT)
    assert waits == [seconds]
    assert body_of(reply) == HONEST.encode()
    assert app.asked == [asked]


def test_nan_keeps_everything_but_the_numbers(waits: list[float]) -> None:
    reply = with_fault(App(), "nan")(question(TRAIN), CONTEXT)
    assert reply.metadata.reply_to_message_id == "question"
    lie = RoundReply.decode(body_of(reply))
    assert (lie.site, lie.round, lie.attempt) == (HONEST.site, HONEST.round, HONEST.attempt)
    assert {name: array.shape for name, array in lie.contribution.arrays.items()} == {"update": (3,), "control": (2,)}
    assert all(np.isnan(array).all() for array in lie.contribution.arrays.values())
    assert waits == []


def test_nan_leaves_a_refusal_as_it_is() -> None:
    def refusing(message: Message, _context: Context) -> Message:
        return Message(Error(1000, "no budget"), reply_to=message)

    assert with_fault(refusing, "nan")(question(TRAIN), CONTEXT).error.reason == "no budget"


def test_raises_raises_in_training() -> None:
    app = App()
    with pytest.raises(RuntimeError, match="on purpose"):
        with_fault(app, "raises")(question(TRAIN), CONTEXT)
    assert app.asked == []


@pytest.mark.parametrize("fault", FAULTS)
def test_roll_calls_are_answered_at_once(fault: str, waits: list[float]) -> None:
    asked = question(HELLO)
    app = App()
    assert body_of(with_fault(app, fault)(asked, CONTEXT)) == HONEST.encode()
    assert app.asked == [asked]
    assert waits == []


@pytest.mark.parametrize("fault", [*FAULTS, "late:0.5", "late:12"])
def test_known_faults_pass(fault: str) -> None:
    check_fault(fault)


@pytest.mark.parametrize(
    "fault", ["", "slow", "Late", "nan:3", "silent:1", "late:-1", "late:soon", "late:1.2.3", "late:1e3"]
)
def test_unknown_faults_are_refused_with_those_that_exist(fault: str) -> None:
    with pytest.raises(ConfigError, match="there is no fault") as caught:
        check_fault(fault)
    assert all(f"{name}: {meaning}" in caught.value.hint for name, meaning in FAULTS.items())
