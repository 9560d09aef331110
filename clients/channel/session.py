"""A session, as its two ends see it, whatever carries it; and how it can fail.

::

    TransportError
    └─ ChannelError               the channel could not do it; the message is one plain line
       ├─ ChannelTimeoutError     nothing came, or nothing could be sent, before the deadline; the session goes on
       ├─ ChannelClosedError      the session is over: closed, idle, or its line cut for good
       └─ RemoteRefusalError      the peer ended it and said why
"""

from dataclasses import dataclass
from typing import Protocol

from clients.channel.message import Message
from privacy.errors import PrivacyError, ProtocolError, TransportError, VerificationError

SESSION_BYTES = 16
FAILED = "the site failed; its own log says why"


class ChannelError(TransportError):
    """The channel could not do what was asked.

    Attributes:
      told: What another organisation may hear of it: the message, unless that speaks of this site's machine or network.
    """

    def __init__(self, message: str, *, retryable: bool = True, hint: str = "", told: str = "") -> None:
        super().__init__(message, retryable=retryable, hint=hint)
        self.told = told or message


class ChannelTimeoutError(ChannelError):
    """The deadline came first; the session is as it was."""


class ChannelClosedError(ChannelError):
    """The session is over, and nobody refused anything."""


class RemoteRefusalError(ChannelError):
    """The peer refused.

    Attributes:
      reason: Its one plain line, printable, as the peer put it; untrusted.
    """

    def __init__(self, peer: str, reason: str) -> None:
        super().__init__(f"{peer} refused: {reason}", retryable=False)
        self.reason = reason


def told(error: Exception) -> str:
    """Returns what a peer may hear of an error: a decision or a broken rule as it is, of everything else the fact.

    Errors of files, settings and data hold paths and values that are nobody else's business; whoever gets ``FAILED``
    here has to see to it that the error itself is in the site's own log or output.
    """
    match error:
        case ChannelError():
            return error.told
        case PrivacyError() | ProtocolError() | VerificationError():
            return str(error)
        case _:
            return FAILED


@dataclass(frozen=True)
class Opening:
    """What the dialler asked for; public to both ends.

    Attributes:
      kind: Which service.
      session: 16 bytes.
      body: For the service.
      purpose: What the charter calls it.
    """

    kind: str
    session: bytes
    body: bytes = b""
    purpose: str = ""


class Session(Protocol):
    """One conversation. One thread sends at a time and one receives; they may be two threads."""

    @property
    def peer(self) -> str:
        """Site id of the other end, authenticated."""

    @property
    def id(self) -> bytes:
        """16 bytes."""

    @property
    def opening(self) -> Opening:
        """What the session was opened with."""

    @property
    def opened(self) -> bytes:
        """What the listener's service answered to the opening."""

    def send(self, message: Message, timeout: float | None = None) -> None:
        """Takes a message to send, exactly once and in order; its arrays may be changed afterwards.

        Args:
          message: At most ``Limits.frame_bytes``.
          timeout: Seconds to wait while the window is full; ``None``: ``Limits.idle``.

        Raises: ChannelError: It cannot be sent.
        """

    def receive(self, timeout: float | None = None) -> Message:
        """Returns the next message.

        Args:
          timeout: Seconds to wait; ``None``: ``Limits.idle``, and if nothing comes then the session is over.

        Raises:
          ChannelTimeoutError: Nothing came.
          ChannelClosedError: Nothing will come any more.
          RemoteRefusalError: The peer refused.
        """

    def close(self, reason: str = "") -> None:
        """Ends the session; a second time it does nothing. What was sent before arrives first.

        Args:
          reason: One plain line: a refusal, which the peer sees as ``RemoteRefusalError``. Empty: all is well.
        """
