"""Lines that are cut, stalled and slow: a session goes on, or says in time that it cannot."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Self

import numpy as np
import pytest

from clients.channel.dialler import Dialler, _Target
from clients.channel.listener import Listener
from clients.channel.message import Message
from clients.channel.reception import Service
from clients.channel.session import ChannelClosedError, ChannelError, Session
from tests.clients.channel.ends import QUICK, Echo, Handed, identity, listening, sending, until
from tests.federation import Federation
from tests.integration.chaos import GOOD, Chaos, Line


@contextmanager
def lined(federation: Federation, resume: float = 5.0) -> Iterator[tuple[Chaos, Session, Session, Listener]]:
    """A session of alba at brno through a line that can be made bad."""
    service, limits = Handed(), replace(QUICK, resume=resume)
    with listening(federation, "brno", {"talk": service}, [], limits) as listener, Chaos(listener.port) as chaos:
        dialler = Dialler(identity(federation, "alba"), limits=limits)
        a = dialler.open(f"127.0.0.1:{chaos.port}", "brno", kind="talk")
        yield chaos, a, service.sessions.get(timeout=5), listener
        service.done.set()
        dialler.close()


def test_a_cut_line_comes_back_and_nothing_is_lost_or_twice(federation: Federation) -> None:
    x = np.random.default_rng(0).standard_normal(5_000)
    with lined(federation) as (chaos, a, b, _):

        def echo() -> None:
            for _ in range(200):
                message = b.receive(10)
                b.send(Message("back", message.step, tensors=message.tensors), 10)

        def cuts() -> None:
            for _ in range(6):
                time.sleep(0.05)
                chaos.cut()

        threads = [threading.Thread(target=work) for work in (echo, cuts)]
        for thread in threads:
            thread.start()
        steps = []
        for step in range(200):
            a.send(Message("there", step, tensors={"x": x + step}), 10)
            got = a.receive(10)
            assert got.tensors["x"].tobytes() == (x + step).tobytes()
            steps.append(got.step)
            time.sleep(0.002)
        for thread in threads:
            thread.join()
        assert steps == list(range(200))


def test_a_full_window_survives_a_cut(federation: Federation) -> None:
    with lined(federation) as (chaos, a, b, _):
        for step in range(2):
            a.send(Message("x", step))
        chaos.line = Line(refuse=True)
        chaos.cut()
        for step in range(2, 4):
            a.send(Message("x", step))  # into the window, while there is no line
        chaos.line = GOOD
        assert [b.receive(5).step for _ in range(4)] == [0, 1, 2, 3]
        b.send(Message("y", 9))
        assert a.receive(5).step == 9


def test_pings_find_a_dead_line_that_nobody_cuts(federation: Federation) -> None:
    with lined(federation) as (chaos, a, b, _):
        chaos.line = Line(dead=True)
        a.send(Message("x", 1))
        until(lambda: a._line is None, 3)  # type: ignore[attr-defined] # a ping after 0.5 s, 0.5 s for its answer
        chaos.line = GOOD
        assert b.receive(5).step == 1


@pytest.mark.soak
def test_pings_leave_a_quiet_line_alone(federation: Federation) -> None:
    with lined(federation) as (_, a, b, _):
        line = a._line  # type: ignore[attr-defined]
        time.sleep(8)
        assert a._line is line  # type: ignore[attr-defined]
        b.send(Message("y"))
        assert a.receive(5).kind == "y"


def test_a_line_that_stays_away_ends_the_session_at_both_ends_in_time(federation: Federation) -> None:
    with lined(federation, resume=0.5) as (chaos, a, b, _):
        chaos.line = Line(refuse=True)
        chaos.cut()
        for end in (a, b):
            started = time.monotonic()
            with pytest.raises(ChannelClosedError, match=r"was cut, and did not come back in 0.5 s"):
                end.receive(5)
            assert time.monotonic() - started < 2.5
            with pytest.raises(ChannelClosedError):
                end.send(Message("x"))


def test_a_listener_that_was_started_anew_knows_no_session(federation: Federation) -> None:
    echo: dict[str, Service] = {"echo": Echo()}
    with Chaos(0) as chaos, Dialling(federation) as dialler:
        with listening(federation, "brno", echo, []) as first:
            chaos.target = first.port
            session = dialler.open(f"127.0.0.1:{chaos.port}", "brno", kind="echo")
            session.send(Message("x"))
            session.receive(5)
            chaos.line = Line(refuse=True)
            chaos.cut()
        with listening(federation, "brno", echo, []) as second:
            chaos.target, chaos.line = second.port, GOOD
            with pytest.raises(ChannelClosedError, match="no such session"):
                session.receive(5)


def test_the_end_of_a_session_is_delivered_after_a_cut(federation: Federation) -> None:
    with lined(federation) as (chaos, a, b, _):
        chaos.line = Line(refuse=True)
        chaos.cut()
        a.send(Message("last"))
        a.close()
        chaos.line = GOOD
        assert b.receive(5).kind == "last"
        with pytest.raises(ChannelClosedError, match="alba closed"):
            b.receive(5)


def test_a_slow_line_delays_and_loses_nothing(federation: Federation) -> None:
    with lined(federation) as (chaos, a, b, _):
        chaos.line = Line(delay=0.02, jitter=0.02)
        sender = sending(a, 20)
        assert [b.receive(10).step for _ in range(20)] == list(range(20))
        sender.join()


def test_nobody_else_takes_up_a_session(federation: Federation) -> None:
    with lined(federation) as (_, a, b, listener):
        other = Dialler(identity(federation, "cork"), limits=QUICK)
        with pytest.raises(ChannelError, match="no such session"):
            other._dial(_Target(f"127.0.0.1:{listener.port}", "brno", a.opening), 5.0, 0)
        b.send(Message("still"))
        assert a.receive(5).kind == "still"


class Dialling(Dialler):
    def __init__(self, federation: Federation) -> None:
        super().__init__(identity(federation, "alba"), limits=QUICK)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
