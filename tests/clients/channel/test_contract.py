"""What a session promises, in memory and over mutual TLS alike."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import partial

import numpy as np
import pytest

from clients.channel.limits import Limits
from clients.channel.message import DTYPES, Array, Message
from clients.channel.session import (
    ChannelClosedError,
    ChannelError,
    ChannelTimeoutError,
    RemoteRefusalError,
)
from privacy.errors import LocalProtocolError, TransportError
from tests.clients.channel.ends import QUICK, Ends, in_memory, over_tls, sending
from tests.federation import Federation

Made = Callable[..., Ends]


@pytest.fixture(params=["memory", "tls"])
def made(request: pytest.FixtureRequest, federation: Federation) -> Iterator[Made]:
    kinds: dict[str, Callable[..., AbstractContextManager[Ends]]] = {
        "memory": in_memory,
        "tls": partial(over_tls, federation),
    }
    with ExitStack() as stack:
        yield lambda limits=QUICK: stack.enter_context(kinds[request.param](limits))


def test_both_ends_know_each_other_and_the_opening(made: Made) -> None:
    a, b = made().open(body=b"what", purpose="training")
    assert (a.peer, b.peer) == ("brno", "alba")
    assert a.opening == b.opening
    assert (b.opening.kind, b.opening.body, b.opening.purpose) == ("talk", b"what", "training")
    assert a.id == b.id == a.opening.session
    assert len(a.id) == 16
    assert a.opened == b.opened == b"to alba"


def test_messages_arrive_as_they_were_sent_both_ways(made: Made) -> None:
    a, b = made().open()
    tensors: dict[str, Array] = {str(dtype): np.arange(24).reshape(2, 3, 4).astype(dtype) for dtype in DTYPES} | {
        "scalar": np.array(2.5),
        "empty": np.zeros((0, 7)),
        "turned": np.arange(6.0).reshape(2, 3).T,
    }
    for one, other in ((a, b), (b, a)):
        one.send(Message("forward", 2**64 - 1, b"body", tensors))
        got = other.receive(5)
        assert (got.kind, got.step, got.body, list(got.tensors)) == ("forward", 2**64 - 1, b"body", list(tensors))
        for name, tensor in tensors.items():
            assert got.tensors[name].dtype == tensor.dtype
            assert got.tensors[name].shape == tensor.shape
            assert got.tensors[name].tobytes() == tensor.tobytes()


def test_every_bit_of_a_float_arrives(made: Made) -> None:
    a, b = made().open()
    bits = np.random.default_rng(1).integers(0, 2**32, 50_000, dtype=np.uint32)  # NaN payloads and denormals too
    a.send(Message("x", tensors={"x": bits.view(np.float32)}))
    assert b.receive(5).tensors["x"].tobytes() == bits.tobytes()


def test_what_was_sent_may_change_and_so_may_what_was_received(made: Made) -> None:
    a, b = made().open()
    sent = np.ones(4)
    a.send(Message("x", tensors={"x": sent}))
    sent[:] = 7
    got = b.receive(5).tensors["x"]
    assert got.tolist() == [1, 1, 1, 1]
    got += 1
    assert sent.tolist() == [7, 7, 7, 7]


def test_many_messages_keep_their_order(made: Made) -> None:
    a, b = made().open()
    sender = sending(a, 300)
    assert [b.receive(5).step for _ in range(300)] == list(range(300))
    sender.join()


def test_a_full_window_holds_the_sender_back(made: Made) -> None:
    a, b = made().open()
    for step in range(4):
        a.send(Message("x", step), timeout=5)
    with pytest.raises(ChannelTimeoutError, match="takes no more messages"):
        a.send(Message("x", 4), timeout=0.05)
    for step in range(3):  # half a window and one: the peer is told by then
        assert b.receive(5).step == step
    a.send(Message("x", 4), timeout=5)
    assert [b.receive(5).step for _ in range(2)] == [3, 4]


def test_a_window_of_one_moves(made: Made) -> None:
    a, b = made(Limits(window=1)).open()
    for step in range(5):
        a.send(Message("x", step), timeout=5)
        assert b.receive(5).step == step


def test_a_deadline_passes_and_the_session_goes_on(made: Made) -> None:
    a, b = made().open()
    started = time.monotonic()
    with pytest.raises(ChannelTimeoutError) as caught:
        a.receive(0.1)
    assert 0.1 <= time.monotonic() - started < 2
    assert isinstance(caught.value, TransportError)
    b.send(Message("late"))
    assert a.receive(5).kind == "late"


def test_silence_ends_a_session_at_its_idle_time(made: Made) -> None:
    a, b = made(Limits(idle=0.3)).open()
    with pytest.raises(ChannelTimeoutError):
        a.receive(0.1)
    with pytest.raises(ChannelTimeoutError):
        a.receive()
    for end in (a, b):
        with pytest.raises(ChannelClosedError):
            end.receive(5)
        with pytest.raises(ChannelClosedError):
            end.send(Message("x"))


def test_what_was_sent_before_the_end_still_arrives(made: Made) -> None:
    a, b = made().open()
    for step in range(3):
        a.send(Message("x", step))
    a.close()
    assert [b.receive(5).step for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ChannelClosedError, match="alba closed the session"):
        b.receive(5)
    with pytest.raises(ChannelClosedError):
        b.send(Message("x"))
    with pytest.raises(ChannelClosedError, match="this end"):
        a.receive(5)
    a.close()
    b.close()


def test_an_end_that_closes_with_a_full_window_is_heard(made: Made) -> None:
    a, b = made().open()
    for step in range(4):
        a.send(Message("x", step))
    a.close()
    assert [b.receive(5).step for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(ChannelClosedError):
        b.receive(5)


def test_a_refusal_is_one_plain_line_at_the_other_end(made: Made) -> None:
    a, b = made().open()
    b.close("no release\nfor \x1b[31mactivations")
    with pytest.raises(RemoteRefusalError, match="brno refused: no release for") as caught:
        a.receive(5)
    assert caught.value.reason.isprintable()
    assert not caught.value.retryable
    with pytest.raises(RemoteRefusalError):
        a.send(Message("x"))


def test_a_waiting_sender_and_a_waiting_receiver_are_told_of_the_end(made: Made) -> None:
    a, b = made().open()
    for step in range(4):
        a.send(Message("x", step))
    errors: list[ChannelError] = []

    def caught(call: Callable[[], object]) -> None:
        try:
            call()
        except ChannelError as error:
            errors.append(error)

    waiting = [threading.Thread(target=caught, args=(call,)) for call in (a.receive, lambda: a.send(Message("x")))]
    for thread in waiting:
        thread.start()
    time.sleep(0.05)
    b.close()
    for thread in waiting:
        thread.join(5)
    assert [type(error) for error in errors] == [ChannelClosedError, ChannelClosedError]


def test_a_message_larger_than_the_session_takes_is_the_senders_mistake(made: Made) -> None:
    a, b = made(Limits(frame_bytes=1000)).open()
    with pytest.raises(LocalProtocolError, match="larger than the 1000"):
        a.send(Message("x", body=bytes(1001)))
    with pytest.raises(LocalProtocolError, match="larger than the 1000"):
        a.send(Message("x", tensors={"x": np.zeros(120)}))
    a.send(Message("x", body=bytes(1000)))
    assert len(b.receive(5).body) == 1000


def test_the_steps_of_a_session_are_counted(made: Made) -> None:
    a, b = made(Limits(steps=3)).open()
    for step in range(3):
        a.send(Message("x", step))
    with pytest.raises(ChannelError, match="3 messages are used up"):
        a.send(Message("x", 3))
    b.send(Message("y"))
    assert a.receive(5).kind == "y"


@pytest.mark.parametrize("tensor", [np.zeros(2, ">f4"), np.zeros(2, "f2"), np.zeros((1,) * 9), np.array(["a"])])
def test_an_array_without_a_place_in_the_format_is_refused_and_nothing_is_sent(made: Made, tensor: Array) -> None:
    a, b = made().open()
    with pytest.raises(LocalProtocolError):
        a.send(Message("x", tensors={"x": tensor}))
    a.send(Message("after"))
    assert b.receive(5).kind == "after"
