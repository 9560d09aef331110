"""What one end of a session lets the other ask of it; both ends enforce the lesser of the two."""

from dataclasses import dataclass

from clients.proto import channel_pb2 as wire
from privacy.errors import ConfigError, RemoteProtocolError

HEAD_BYTES = 2**16
"""Most bytes of a frame besides its message: numbers, names, a certificate."""


@dataclass(frozen=True)
class Limits:
    """Bounds of a session. A session keeps at most ``2 * window * (frame_bytes + HEAD_BYTES)`` bytes of frames.

    Attributes:
      frame_bytes: Most bytes of one message, body and encoded tensors together; also of an opening's body.
      window: Messages of one direction that the other end's application has not taken yet.
      sessions: A listener holds so many; further ones are refused.
      steps: Messages of one direction in a session's life.
      idle: Seconds without a message after which a session is over.
      resume: Seconds that a cut session waits for its peer.
      keepalive: Seconds of silence after which the transport looks whether the line is still there.

    Raises: ConfigError: A bound that bounds nothing, or nothing could ever pass.
    """

    frame_bytes: int = 2**23
    window: int = 8
    sessions: int = 16
    steps: int = 1_000_000
    idle: float = 60.0
    resume: float = 30.0
    keepalive: float = 10.0

    def __post_init__(self) -> None:
        ranges = {
            "frame_bytes": (1, 2**30),
            "window": (1, 1024),
            "sessions": (1, 1024),
            "steps": (1, 2**40),
            "idle": (0.01, 86_400.0),
            "resume": (0.0, 3600.0),
            "keepalive": (0.1, 3600.0),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"the channel's limit {name} is {value}, outside {low} to {high}")

    def written(self) -> wire.Limits:
        """Returns the part that the peer is told."""
        return wire.Limits(
            frame_bytes=self.frame_bytes,
            window=self.window,
            steps=self.steps,
            idle_ms=round(self.idle * 1000),
            resume_ms=round(self.resume * 1000),
        )

    def lesser(self, other: wire.Limits) -> "Limits":
        """Returns what holds between this end and a peer that declared ``other``.

        Raises: RemoteProtocolError: A declaration under which nothing could pass.
        """
        try:
            return Limits(
                frame_bytes=min(self.frame_bytes, other.frame_bytes),
                window=min(self.window, other.window),
                sessions=self.sessions,
                steps=min(self.steps, other.steps),
                idle=min(self.idle, other.idle_ms / 1000),
                resume=min(self.resume, other.resume_ms / 1000),
                keepalive=self.keepalive,
            )
        except ConfigError:
            raise RemoteProtocolError("the peer declares limits under which nothing can pass") from None
