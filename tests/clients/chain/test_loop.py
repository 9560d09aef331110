"""Neighbours that stall, vanish or lie: a plain error at every end, within the deadline, and nothing is learned."""

import struct
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from clients.chain.driver import ChainDriver
from clients.chain.home import Links, Own
from clients.chain.links import MOST_IN_FLIGHT, Place, received
from clients.chain.loop import Bounds, StageLoop
from clients.chain.stage import Learning, Stage
from clients.channel.memory import pair
from clients.channel.message import Message
from clients.channel.session import ChannelError, ChannelTimeoutError, RemoteRefusalError, Session
from privacy.errors import FederationError, RemoteProtocolError
from tests.clients.chain.rows import MLP, OPENING, at_work, batches, model, plan_of, stage_of

U = ("owner-pc", "owner-room", "owner-pc")
ROWS = 4
WIDTH = 24  # of the front's output


def message(
    kind: str, *, step: int = 0, index: int = 0, count: int = 1, records: int = ROWS, x: object = None
) -> Message:
    tensors = {} if x is None else {"x": np.asarray(x)}
    return Message(kind, step, struct.pack("<III", index, count, records), tensors)


def ahead(width: int = WIDTH, **more: int) -> Message:
    return message("forward", x=np.zeros((ROWS, width), np.float32), **more)


def back(width: int = 16, **more: int) -> Message:
    return message("backward", x=np.zeros((ROWS, width), np.float32), **more)


def _next(session: Session) -> Message | ChannelError:
    try:
        return session.receive(5)
    except ChannelError as error:
        return error


class Holder:
    """A held piece in a thread; the test is its neighbour on both sides."""

    def __init__(self, *, labels: bool = False, train: bool = True, steps: int = 9) -> None:
        devices = U[:2] if labels else U
        whole = model(MLP)
        plan = plan_of(whole, devices, train=train)
        self.stage = stage_of(plan, plan.held[0], whole)
        self.near, self.far = pair("owner", "room", OPENING)
        bounds = Bounds(steps=steps, deadline=0.5, idle=0.5)
        self.loop, self.errors = StageLoop(self.stage, labels=labels, bounds=bounds), list[FederationError]()
        self.before = self.stage.state()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.loop.run(self.far, self.far)
        except FederationError as error:
            self.errors.append(error)

    def refusal(self) -> str:
        """Returns why the holder ended the session; its piece is as it was."""
        while isinstance(over := _next(self.near), Message):
            pass
        assert isinstance(over, RemoteRefusalError)
        self.thread.join(5)
        assert len(self.errors) == 1
        after = self.stage.state()
        assert all(np.array_equal(after[key], each) for key, each in self.before.items())
        return over.reason


@pytest.fixture
def holder() -> Iterator[Holder]:
    made = Holder()
    yield made
    made.near.close()
    made.thread.join(5)


LIES: dict[str, list[Message]] = {
    "no message of a chain": [Message("hello")],
    "sent no message": [Message("forward", 0, b"short")],
    "numbers its micro-batches wrongly": [ahead(index=1)],
    "sent other tensors": [message("forward")],
    "sent other tensors ": [message("forward", x=np.zeros((ROWS, WIDTH), np.uint64))],
    "sent other tensors  ": [Message("forward", 0, ahead().body, {**ahead().tensors, "y": np.zeros(1)})],
    "more records than the step has": [ahead(records=3)],
    "not finite": [message("forward", x=np.full((ROWS, WIDTH), np.nan, np.float32))],
    "shape or type": [message("forward", x=np.zeros((ROWS, WIDTH + 1), np.float32))],
    "shape or type ": [message("forward", x=np.zeros((ROWS, WIDTH), np.int64))],
    "not the next one": [ahead(step=1)],
    "not the next one ": [back()],
    "out of its order": [ahead(count=3, index=1)],
    "out of its order ": [ahead(count=2), ahead(count=2)],
    "of another step": [ahead(count=2), ahead(count=3, index=1)],
    "nothing that went forward": [
        ahead(count=2),
        back(count=2, index=1),
    ],
    "nothing that went forward ": [ahead(), back(15)],
    "has no use for": [ahead(), message("labels", x=np.zeros(ROWS, np.float32))],
    "wrong side": [message("loss", x=np.float64(0))],
    "in the middle of a step": [ahead(count=2), message("done")],
    "more micro-batches": [ahead(count=30, index=index, records=99) for index in range(MOST_IN_FLIGHT + 1)],
}


@pytest.mark.parametrize("reason", LIES)
def test_a_holder_refuses_what_no_stage_sends(holder: Holder, reason: str) -> None:
    def send() -> None:
        for each in LIES[reason]:
            try:
                holder.near.send(each, 5)
            except ChannelError:
                return

    sender = threading.Thread(target=send, daemon=True)  # the holder may answer before all is sent
    sender.start()
    assert reason.strip() in holder.refusal()
    sender.join(5)


def test_a_holder_that_takes_labels_refuses_wrong_ones() -> None:
    for labels, reason in (
        (np.full(ROWS, 7, np.float32), "do not fit the output"),
        (np.zeros(ROWS - 1, np.float32), "do not fit the output"),
    ):
        holder = Holder(labels=True)
        holder.near.send(ahead(16))
        holder.near.send(message("labels", x=labels))
        assert reason in holder.refusal()


def test_a_holder_that_takes_labels_does_not_pile_up_what_has_none() -> None:
    holder = Holder(labels=True)
    for index in range(MOST_IN_FLIGHT + 1):
        holder.near.send(ahead(16, index=index, count=30, records=99))
    assert "more micro-batches" in holder.refusal()


def test_a_holder_takes_no_more_steps_than_agreed() -> None:
    holder = Holder(train=False, steps=2)
    for step in range(2):
        holder.near.send(ahead(step=step))
        assert holder.near.receive(5).kind == "forward"
    holder.near.send(ahead(step=2))
    assert "one more than agreed" in holder.refusal()


@pytest.mark.parametrize("begun", [False, True])
def test_a_holder_waits_no_longer_than_its_bounds(begun: bool) -> None:
    holder = Holder()
    if begun:
        holder.near.send(ahead())
    start = time.monotonic()
    assert holder.refusal()
    assert time.monotonic() - start < 3
    assert isinstance(holder.errors[0], ChannelTimeoutError)


class Liar:
    """Answers for a held piece as the test says."""

    def __init__(self, answer: Callable[[Message, Session], None]) -> None:
        self.near, self.far = pair("owner", "room", OPENING)
        self._answer = answer
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            while True:
                self._answer(self.far.receive(5), self.far)
        except ChannelError:
            return


def trained_by(liar: Liar, deadline: float = 5.0) -> None:
    whole = model(MLP)
    plan = plan_of(whole, U)
    own = Own(*(stage_of(plan, spec, whole) for spec in (plan.front, plan.tail) if spec is not None))
    ((x, y),) = batches(MLP, 1, records=ROWS)
    try:
        with ChainDriver(plan, Links(liar.near, liar.near), own, deadline=deadline) as driver:
            driver.step(x, y)
    finally:
        liar.thread.join(5)


def passed(message_: Message, shape: tuple[int, ...]) -> Message:
    return Message("forward", message_.step, message_.body, {"x": np.zeros(shape, np.float32)})


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda m, s: s.send(passed(m, (ROWS, 9))), "shape or type"),
        (lambda m, s: s.send(passed(m, (ROWS - 1, 16))), "do not fit the output"),
        (lambda m, s: s.send(Message("backward", m.step, m.body, {"x": np.zeros((ROWS, 3), np.float32)})), "came back"),
        (lambda m, s: s.send(Message("loss", m.step, m.body, {"x": np.zeros(())})), "not asked for"),
        (lambda m, s: s.send(Message("forward", 1, m.body, m.tensors)), "not asked for"),
        (lambda _, s: s.send(ahead(16, index=1, count=2)), "not asked for"),
        (lambda m, s: [s.send(passed(m, (ROWS, 16))) for _ in "12"], "not asked for"),
        (lambda m, s: s.send(Message("forward", 0, m.body, {"x": np.full((ROWS, 16), np.inf, np.float32)})), "finite"),
        (lambda m, s: s.send(Message("done", 0, m.body)), "not asked for"),
    ],
)
def test_home_refuses_what_no_stage_sends(answer: Callable[[Message, Session], None], reason: str) -> None:
    with pytest.raises(RemoteProtocolError, match=reason):
        trained_by(Liar(answer))


def test_home_waits_no_longer_than_its_deadline() -> None:
    start = time.monotonic()
    with pytest.raises(ChannelTimeoutError):
        trained_by(Liar(lambda _m, _s: None), deadline=0.4)
    assert time.monotonic() - start < 3


def test_a_refusal_down_the_chain_reaches_home_in_words() -> None:
    whole = model(MLP)
    plan = plan_of(whole, ("owner-pc", "owner-room", "owner-cellar", "owner-pc"))
    ((x, y),) = batches(MLP, 1)
    with pytest.raises(RemoteRefusalError, match="shape or type"), at_work(plan, whole) as row:  # noqa: PT012 - one
        row.held["owner-cellar"].module = torch.nn.Linear(3, 3)
        row.driver.step(x, y)


def test_several_micro_batches_are_under_way_and_no_more_than_the_plan_says() -> None:
    whole, under_way, most = model(MLP), 0, 0

    class Counting:
        def __init__(self, session: Session) -> None:
            self._session = session

        def __getattr__(self, name: str) -> object:
            return getattr(self._session, name)

        def send(self, sent: Message, timeout: float | None = None) -> None:
            nonlocal under_way, most
            if sent.kind == "forward":
                under_way += 1
                most = max(most, under_way)
            self._session.send(sent, timeout)

        def receive(self, timeout: float | None = None) -> Message:
            nonlocal under_way
            got = self._session.receive(timeout)
            under_way -= got.kind == "backward"
            return got

    ((x, y),) = batches(MLP, 1, records=40)
    for in_flight, expected in ((1, 1), (3, 3), (64, MOST_IN_FLIGHT // 2)):
        under_way = most = 0
        plan = plan_of(whole, U, micro_batch=2, in_flight=in_flight)
        with at_work(plan, whole, tapped=lambda _, session: Counting(session)) as row:  # type: ignore[arg-type, return-value]
            row.driver.step(x, y)
        assert most == expected


@pytest.mark.parametrize("devices", [U, U[:2], ("owner-pc", "owner-room", "owner-cellar", "owner-pc")])
def test_many_micro_batches_never_wait_for_each_other_for_ever(devices: tuple[str, ...]) -> None:
    whole = model(MLP)
    ((x, y),) = batches(MLP, 1, records=120)
    with at_work(plan_of(whole, devices, micro_batch=1, in_flight=64), whole) as row:
        row.driver.step(x, y)
    assert not row.errors


def test_what_was_received_is_a_copy() -> None:
    frame = np.zeros((ROWS, 2), np.float32)
    there = received(0, "room", message("forward", x=frame))
    there.value.add_(1)
    assert not frame.any()
    assert there.place == Place(0, 0, 1, ROWS)


def test_a_piece_that_answers_drops_nothing_out() -> None:
    assert not Stage(torch.nn.Dropout(0.5).train()).module.training
    assert Stage(torch.nn.Dropout(0.5).eval(), Learning("sgd", 0.1)).module.training


def test_a_stage_gives_and_takes_its_state_by_the_models_names() -> None:
    whole = model(MLP)
    plan = plan_of(whole, U)
    stage = stage_of(plan, plan.held[0], whole)
    state = stage.state()
    assert list(state) == sorted(plan.held[0].keys)
    other = Stage(stage.module, Learning("sgd", 0.1))
    other.load({key: each * 2 for key, each in state.items()})
    assert all(np.array_equal(other.state()[key], each * 2) for key, each in state.items())
    assert all(np.array_equal(whole.state_dict()[key].numpy(), each) for key, each in state.items())
    with pytest.raises(ValueError, match="another piece's"):
        other.load({})
