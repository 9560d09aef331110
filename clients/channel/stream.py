"""A session over lines that may be cut: threads and waiting around ``Flow``. What a line is made of is not known here.

Three threads meet: whoever sends, whoever receives, and the reader of the line, which calls ``arrived``. A line's
writer takes frames out of the ``Line`` itself.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from queue import SimpleQueue

from clients.channel import frames
from clients.channel.flow import Flow
from clients.channel.limits import Limits
from clients.channel.message import Message
from clients.channel.session import (
    ChannelClosedError,
    ChannelError,
    ChannelTimeoutError,
    Opening,
    RemoteRefusalError,
    told,
)
from privacy.errors import FederationError, RemoteProtocolError

LINGER = 1.0
"""Seconds that ``close`` waits for the peer to know; after that the line's own threads go on."""


class Line:
    """Frames on their way out, in order. Holds at most a window of messages, and acknowledgements of as many."""

    def __init__(self) -> None:
        self._frames: SimpleQueue[bytes | None] = SimpleQueue()

    def put(self, frame: bytes) -> None:
        """Appends a frame; never blocks."""
        self._frames.put(frame)

    def end(self) -> None:
        """Says that nothing follows."""
        self._frames.put(None)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._frames.get, None)


class StreamSession:
    """One end of a session; see ``Session`` for what it promises.

    Attributes:
      peer: Site id of the other end, authenticated by whoever made this.
      opening: What the session was opened with.
      opened: What the listener's service answered.
      limits: Those of both ends.
    """

    def __init__(self, *, peer: str, opening: Opening, opened: bytes, limits: Limits) -> None:
        self.peer, self.opening, self.opened, self.limits = peer, opening, opened, limits
        self._check: Callable[[], None] = lambda: None
        self._flow = Flow(window=limits.window, steps=limits.steps)
        self._changed = threading.Condition()
        self._sending = threading.Lock()  # one encodes and numbers at a time
        self._inbox: deque[Message] = deque()
        self._line: Line | None = None
        self._cut = math.inf  # when the last line was lost; before there was one, a deadline bounds every wait
        self._quiet: float | None = None  # since when somebody has waited for a message
        self._over: ChannelError | None = None  # why nothing more comes in, or can be sent
        self._closing = self._finished = False

    @property
    def id(self) -> bytes:
        """16 bytes."""
        return self.opening.session

    @property
    def received(self) -> int:
        """Sequence number of the last frame that came in."""
        return self._flow.received

    def send(self, message: Message, timeout: float | None = None) -> None:
        """As ``Session.send``."""
        with self._changed:
            self._refuse_if_over()
        self._checked()
        deadline = time.monotonic() + (self.limits.idle if timeout is None else timeout)
        with self._sending:
            with self._changed:
                while not self._flow.room:
                    self._wait(deadline, f"{self.peer} takes no more messages")
                self._refuse_if_over()
                if self._flow.spent:
                    raise ChannelError(
                        f"this session's {self.limits.steps} messages are used up",
                        retryable=False,
                        hint="Open another.",
                    )
            number, told = self._flow.sent + 1, self._flow.taken
            frame = frames.data(number, told, message, session=self.id, frame_bytes=self.limits.frame_bytes)
            with self._changed:
                self._refuse_if_over()
                self._put(frame, told)
                self._quiet = None

    def receive(self, timeout: float | None = None) -> Message:
        """As ``Session.receive``."""
        with self._changed:
            now = time.monotonic()
            self._quiet = now if self._quiet is None else self._quiet
            idle = self._quiet + self.limits.idle
            deadline = idle if timeout is None else min(idle, now + timeout)
            try:
                while not self._inbox:
                    self._refuse_if_over()
                    self._wait(deadline, f"{self.peer} sent nothing in time")
            except ChannelTimeoutError:
                if deadline == idle:
                    self._end(ChannelClosedError(f"the session with {self.peer} was idle for too long"))
                raise
        self._checked()
        with self._changed:
            if not self._inbox:
                self._refuse_if_over()  # closed by another thread just now
            self._quiet = None
            message = self._inbox.popleft()
            if self._flow.took() and self._line is not None and not self._closing:
                self._line.put(frames.acknowledgement(self._flow.told()))
            return message

    def close(self, reason: str = "", linger: float = LINGER) -> None:
        """As ``Session.close``; waits at most ``linger`` seconds for the peer to know."""
        with self._changed:
            self._end(ChannelClosedError(reason or "this end closed the session", retryable=False), reason)
            self._inbox.clear()
            known = self._changed.wait_for(lambda: self._finished, linger)
        if not known:  # a cut line may still come back with it, but not for ever
            after(self.limits.resume, self.finish)

    # What follows is for the lines.

    def attach(self, line: Line, received: int, check: Callable[[], None]) -> None:
        """Goes on over a new line; the one before, if any, ends.

        Args:
          line: Empty but for what opened it.
          received: The last frame that the peer says has come in.
          check: Raises FederationError once the peer, as it showed itself on this line, is no longer one to talk to;
            asked at every message.

        Raises: RemoteProtocolError: That cannot be.
        """
        with self._changed:
            for frame in self._flow.missing(received):
                line.put(frame)
            before, self._line, self._check = self._line, line, check
            if before is not None:
                before.end()
            if self._finished:
                line.end()

    def detach(self, line: Line) -> None:
        """Notes that a line was cut."""
        with self._changed:
            if self._line is line:
                self._line, self._cut = None, time.monotonic()
                self._changed.notify_all()

    def arrived(self, line: Line, frame: bytes) -> None:
        """Takes a frame from a line; one that breaks the protocol ends the session."""
        try:
            read = frames.decode(frame, session=self.id, frame_bytes=self.limits.frame_bytes)
            with self._changed:
                if self._line is line:
                    self._take(read)
        except RemoteProtocolError as error:
            with self._changed:
                self._end(ChannelClosedError(f"{self.peer} broke the protocol: {error}", retryable=False), str(error))

    def finish(self, over: ChannelError | None = None) -> None:
        """Gives the peer up: nothing more is sent, and whoever waits is told ``over``, or that the line was cut."""
        with self._changed:
            self._finish(over or self._lost())

    def finished(self, timeout: float) -> bool:
        """Waits until both ends have closed, or this one has given the other up; tells whether that came."""
        with self._changed:
            return self._changed.wait_for(lambda: self._finished, timeout)

    def _checked(self) -> None:
        """Makes sure that the peer is still one to talk to."""
        try:
            self._check()
        except FederationError as error:
            with self._changed:
                reason = told(error)
                self._end(ChannelClosedError(str(error), retryable=False, hint=error.hint, told=reason), reason)
                self._inbox.clear()
                self._refuse_if_over()

    def _take(self, read: frames.Arrived) -> None:
        self._flow.heard(read.acknowledged)
        if isinstance(read.content, str):
            if self._flow.accept(read.sequence, last=True):
                reason, peer = read.content, self.peer
                over = RemoteRefusalError(peer, reason) if reason else ChannelClosedError(f"{peer} closed the session")
                self._end(over)
                self._finish(over)
        elif read.content is not None and self._flow.accept(read.sequence, last=False) and not self._closing:
            self._inbox.append(read.content)
        self._changed.notify_all()

    def _put(self, frame: bytes, told: int) -> None:
        self._flow.keep(frame, told)
        if self._line is not None:
            self._line.put(frame)

    def _end(self, over: ChannelError, reason: str = "") -> None:
        """Sends this end's last frame, once; whoever waits is told ``over``."""
        if not self._closing:
            self._closing, self._over = True, over
            told = self._flow.told()
            self._put(frames.closed(self._flow.sent + 1, told, reason), told)
            self._changed.notify_all()

    def _finish(self, over: ChannelError) -> None:
        self._over, self._closing, self._finished = self._over or over, True, True
        if self._line is not None:
            self._line.end()
        self._changed.notify_all()

    def _lost(self) -> ChannelClosedError:
        return ChannelClosedError(f"the line to {self.peer} was cut, and did not come back in {self.limits.resume:g} s")

    def _refuse_if_over(self) -> None:
        if self._over is not None:
            raise self._over.with_traceback(None)

    def _wait(self, deadline: float, late: str) -> None:
        """Waits for a change. Raises: ChannelError: The deadline has passed, or the session is over."""
        self._refuse_if_over()
        now = time.monotonic()
        if self._line is None and now >= self._cut + self.limits.resume:
            self._finish(self._lost())
            self._refuse_if_over()
        if now >= deadline:
            raise ChannelTimeoutError(late)
        until = deadline if self._line is not None else min(deadline, self._cut + self.limits.resume)
        self._changed.wait(until - now)


def after(seconds: float, action: Callable[[], object]) -> threading.Timer:
    """Does something later, on a thread that keeps no process alive."""
    timer = threading.Timer(seconds, action)
    timer.daemon = True
    timer.start()
    return timer
