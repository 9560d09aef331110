"""Exactly once and in order, over lines that a test cuts wherever it likes; all on one thread."""

import random
from collections.abc import Callable
from queue import Empty

import pytest

from clients.channel import frames
from clients.channel.flow import Flow
from clients.channel.limits import Limits
from clients.channel.message import Message
from clients.channel.session import ChannelClosedError, ChannelError, ChannelTimeoutError, Opening
from clients.channel.stream import Line, StreamSession
from privacy.errors import RemoteProtocolError, VerificationError

OPENING = Opening("talk", bytes(16))
LIMITS = Limits(window=3, steps=10_000)


class Pair:
    """Two ends, and the frames between them in a test's hands."""

    def __init__(self) -> None:
        self.ends = [StreamSession(peer=peer, opening=OPENING, opened=b"", limits=LIMITS) for peer in ("brno", "alba")]
        self.lines = [Line(), Line()]
        for end, line in zip(self.ends, self.lines, strict=True):
            end.attach(line, 0, lambda: None)

    def join(self, late: int = 0) -> None:
        """Takes the session up on new lines; what was on the old ones is lost, but ``late`` frames of either end.

        They arrive after both ends have said what they lack, and so come twice.
        """
        received = [end.received for end in self.ends]
        for place in (0, 1) * late:
            self.pass_one(place)
        self.lines = [Line(), Line()]
        for place, end in enumerate(self.ends):
            end.attach(self.lines[place], received[1 - place], lambda: None)

    def pass_one(self, place: int, *, over: list[Line] | None = None) -> bool:
        """Lets one frame of an end arrive at the other; tells whether there was one."""
        lines = self.lines if over is None else over
        try:
            frame = lines[place]._frames.get_nowait()
        except Empty:
            return False
        if frame is not None:
            self.ends[1 - place].arrived(lines[1 - place], frame)
        return True


@pytest.mark.parametrize("seed", range(30))
def test_every_message_comes_once_and_in_order_wherever_lines_are_cut(seed: int) -> None:
    drawn, pair = random.Random(seed), Pair()  # noqa: S311 - a schedule, no secret
    sent, got = [0, 0], [0, 0]
    for _ in range(800):
        place = drawn.randrange(2)
        end = pair.ends[place]
        match drawn.randrange(12):
            case 0:
                for _ in range(drawn.randrange(4)):  # some get through before the cut
                    pair.pass_one(drawn.randrange(2))
                before = pair.lines
                pair.join(late=drawn.randrange(3))
                pair.pass_one(place, over=before)  # a frame of the old line that comes too late counts for nothing
            case 1 | 2 | 3 if end._flow.room:
                end.send(Message("x", sent[place]))
                sent[place] += 1
            case 4 | 5 | 6 if end._inbox:
                assert end.receive().step == got[place]
                got[place] += 1
            case _:
                pair.pass_one(place)
    while pair.pass_one(0) or pair.pass_one(1):
        pass
    for place, end in enumerate(pair.ends):
        while end._inbox:
            assert end.receive().step == got[place]
            got[place] += 1
    assert got == sent[::-1]
    assert min(sent) > 50


def test_a_line_that_was_replaced_is_heard_no_more() -> None:
    pair = Pair()
    pair.ends[0].send(Message("x", 7))
    before = pair.lines
    pair.join()
    assert pair.pass_one(0, over=before)
    assert not pair.ends[1].received
    assert pair.pass_one(0)
    assert pair.ends[1].receive().step == 7


def test_a_frame_that_is_missing_ends_the_session_at_both_ends() -> None:
    pair = Pair()
    for step in range(2):
        pair.ends[0].send(Message("x", step))
    pair.lines[0]._frames.get_nowait()  # lost, on a line that promises order
    pair.pass_one(0)
    with pytest.raises(ChannelClosedError, match="alba broke the protocol: a frame is missing"):
        pair.ends[1].receive()
    pair.pass_one(1)
    with pytest.raises(ChannelError, match="brno refused: a frame is missing before this one"):
        pair.ends[0].receive()


@pytest.mark.parametrize("first", ["send", "receive"])
def test_a_peer_that_may_not_talk_any_more_gets_and_gives_nothing(first: str) -> None:
    pair = Pair()
    end = pair.ends[0]

    def check() -> None:
        raise VerificationError("brno is not in version 2 of the charter")

    pair.ends[1].send(Message("x"))
    pair.pass_one(1)
    end._check = check
    calls: dict[str, Callable[[], object]] = {"receive": end.receive, "send": lambda: end.send(Message("x"))}
    for name in (first, *calls):
        with pytest.raises(ChannelClosedError, match="not in version 2"):
            calls[name]()
    left = pair.lines[0]._frames
    assert frames.decode(left.get_nowait() or b"", session=bytes(16), frame_bytes=100).content == str(
        VerificationError("brno is not in version 2 of the charter")
    )
    assert left.empty()


def test_a_wait_ends_with_the_time_to_come_back() -> None:
    end = StreamSession(peer="brno", opening=OPENING, opened=b"", limits=Limits(resume=0.05))
    line = Line()
    end.attach(line, 0, lambda: None)
    with pytest.raises(ChannelTimeoutError):
        end.receive(0.1)
    end.detach(line)
    with pytest.raises(ChannelClosedError, match=r"did not come back in 0\.05 s"):
        end.receive(5)


def test_a_peer_that_does_not_answer_an_end_is_given_up() -> None:
    end = StreamSession(peer="brno", opening=OPENING, opened=b"", limits=Limits(resume=0.05))
    line = Line()
    end.attach(line, 0, lambda: None)
    end.close(linger=0.01)
    assert not end.finished(0)
    assert end.finished(5)
    assert len(list(line)) == 1  # it ends, after its last frame


def flow(sent: int = 0, window: int = 3) -> Flow:
    made = Flow(window=window, steps=5)
    for _ in range(sent):
        made.keep(b"frame", 0)
    return made


def test_counts_that_cannot_be_are_refused_and_change_nothing() -> None:
    one = flow(2)
    for wrong in (lambda: one.heard(3), lambda: one.missing(3), lambda: one.accept(2, last=False)):
        with pytest.raises(RemoteProtocolError):
            wrong()
    one.heard(1)
    with pytest.raises(RemoteProtocolError):
        one.missing(0)  # it has taken 1, so it cannot lack it
    assert one.missing(1) == [b"frame"]
    assert (one.sent, one.received, one.taken, one.room) == (2, 0, 0, True)


def test_no_more_than_a_window_and_the_steps_are_accepted() -> None:
    one = flow()
    for number in range(1, 4):
        assert one.accept(number, last=False)
    for number in (2, 3):
        assert not one.accept(number, last=False)
    with pytest.raises(RemoteProtocolError):
        one.accept(4, last=False)
    for _ in range(3):
        one.took()
    for number in (4, 5):
        assert one.accept(number, last=False)
    with pytest.raises(RemoteProtocolError):
        one.accept(6, last=False)
    assert one.accept(6, last=True)


def test_an_old_acknowledgement_is_no_news() -> None:
    one = flow(3)
    one.heard(2)
    one.heard(1)
    assert one.missing(2) == [b"frame"]
