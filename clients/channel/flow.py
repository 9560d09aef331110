"""Counting for one session: what was sent, what came, what is kept until the peer's application has taken it.

No threads, clocks or lines: ``stream`` has those. A step that fails leaves the counts as they were. Together they make
"exactly once and in order" of streams that may be cut anywhere: a frame is kept until it is acknowledged, is sent again
on the next stream unless the peer says that it came in, and whatever comes twice is dropped.
"""

from collections import deque

from privacy.errors import RemoteProtocolError


class Flow:
    """The counts of one end.

    Attributes:
      sent: Sequence number of the last frame sent.
      received: That of the last one that came in.
      taken: That of the last one that the application took.
    """

    def __init__(self, *, window: int, steps: int) -> None:
        self.sent = self.received = self.taken = 0
        self._window, self._steps = window, steps
        self._acknowledged = self._told = 0
        self._kept: deque[bytes] = deque()  # frames after ``_acknowledged``

    @property
    def room(self) -> bool:
        """Whether the window has room for a message."""
        return len(self._kept) < self._window

    @property
    def spent(self) -> bool:
        """Whether this end has sent all the messages that it may."""
        return self.sent >= self._steps

    def keep(self, frame: bytes, told: int) -> None:
        """Notes that the next frame was sent, with ``told`` as its acknowledgement."""
        self._kept.append(frame)
        self.sent += 1
        self._told = max(self._told, told)

    def heard(self, acknowledged: int) -> None:
        """Forgets what the peer has taken. Raises: RemoteProtocolError: It took what was never sent."""
        if acknowledged > self.sent:
            raise RemoteProtocolError("the peer acknowledges what was never sent")
        while self._acknowledged < acknowledged:
            self._kept.popleft()
            self._acknowledged += 1

    def accept(self, sequence: int, *, last: bool) -> bool:
        """Counts a frame that came in; tells whether it is new.

        Args:
          sequence: Its number, at least 1.
          last: Whether it is the peer's end, for which the window always has room.

        Raises: RemoteProtocolError: One is missing before it, or the peer sends more than it may.
        """
        if sequence <= self.received:
            return False
        if sequence != self.received + 1:
            raise RemoteProtocolError("a frame is missing before this one")
        if not last and (sequence > self._steps or sequence - self.taken > self._window):
            raise RemoteProtocolError("the peer sends more messages than this session allows")
        self.received = sequence
        return True

    def took(self) -> bool:
        """Counts a message that the application took; tells whether the peer must be told at once.

        It is told once half a window has been taken, or with the next message. A sender whose window is full therefore
        knows that more than half of it still waits to be taken, so nobody waits for ever.
        """
        self.taken += 1
        return self.taken - self._told >= max(1, self._window // 2)

    def told(self) -> int:
        """Returns what to acknowledge now, and notes that the peer was told."""
        self._told = self.taken
        return self.taken

    def missing(self, received: int) -> list[bytes]:
        """Returns the frames that the peer lacks after a cut, of which it says that ``received`` was the last to come.

        Raises: RemoteProtocolError: It cannot be.
        """
        if not self._acknowledged <= received <= self.sent:
            raise RemoteProtocolError("the peer resumes where this session never was")
        return [*self._kept][received - self._acknowledged :]
