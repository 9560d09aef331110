"""The end that dials: it believes nobody before the listener's signature is checked, and comes back after a cut.

Every stream has a gRPC channel of its own, so a new stream starts with a new handshake and the newest certificate.
"""

import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import grpc

from clients.channel import openings, transport
from clients.channel.credentials import Credentials, Identity, Watch, sign_asked, verify_opened
from clients.channel.limits import Limits
from clients.channel.session import (
    SESSION_BYTES,
    ChannelClosedError,
    ChannelError,
    ChannelTimeoutError,
    Opening,
    Session,
    told,
)
from clients.channel.stream import LINGER, Line, StreamSession, after
from clients.proto import channel_pb2 as wire
from privacy.enrolment.certificates import Usage, read_certificate
from privacy.errors import FederationError
from privacy.secagg.encoding import Entropy, draw

ATTEMPT = 5.0
"""Most seconds of one attempt to come back after a cut."""

_LIMITS = Limits()


@dataclass(frozen=True)
class _Target:
    """Whom to dial, and what for."""

    address: str
    peer: str
    opening: Opening


class _Stream:
    """One gRPC stream, and its channel."""

    def __init__(self, given: Credentials, target: _Target, name: str, limits: Limits, first: bytes) -> None:
        self.line, self._peer = Line(), target.peer
        self.line.put(first)
        options = transport.dialler_options(limits, name)
        self._channel = grpc.secure_channel(target.address, transport.dialler_credentials(given), options)
        self._call = transport.opened(self._channel, self._outgoing())

    def first(self, deadline: float) -> bytes:
        """Returns the listener's first frame. Raises: ChannelError: None came in ``deadline`` seconds."""
        timer = after(deadline, self._call.cancel)
        try:
            return next(self._call)
        except StopIteration:
            raise ChannelError(f"{self._peer} answers nothing") from None
        except grpc.RpcError as error:
            if self._call.code() is grpc.StatusCode.CANCELLED:
                raise ChannelTimeoutError(f"{self._peer} did not answer within {deadline:g} s") from None
            raise transport.unanswered(error, self._peer) from None
        finally:
            timer.cancel()

    def rest(self) -> Iterator[bytes]:
        """Yields the frames that follow. Raises: ChannelError: The stream broke off, with the reason."""
        try:
            yield from self._call
        except grpc.RpcError as error:
            raise transport.unanswered(error, self._peer) from None

    def _outgoing(self) -> Iterator[bytes]:
        yield from self.line
        after(LINGER, self._call.cancel)  # both ends are done: a listener that goes on keeps nothing of ours open

    def end(self) -> None:
        """Lets go of everything."""
        self.line.end()
        self._call.cancel()
        self._channel.close()


@dataclass
class Dialler:
    """Opens sessions to other sites.

    Attributes:
      own: Who dials.
      limits: The most that this end takes.
      entropy: Source of session ids and nonces; public.
    """

    own: Identity
    limits: Limits = _LIMITS
    entropy: Entropy = secrets.token_bytes
    _held: list[StreamSession] = field(default_factory=list, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def open(
        self,
        address: str,
        peer: str,
        *,
        kind: str,
        body: bytes = b"",
        purpose: str = "",
        deadline: float = 10.0,
        session: bytes | None = None,
    ) -> Session:
        """Opens a session; nothing but the opening has left before the peer has proved who it is.

        Args:
          address: ``host:port``.
          peer: Site id; the charter says by which name and key it is known.
          kind: Which service.
          body: For the service.
          purpose: As the charter calls it.
          deadline: Seconds until the service must have answered.
          session: 16 bytes that name the session; drawn if not given.

        Raises:
          RemoteRefusalError: The peer refuses.
          ChannelError: It cannot be reached, or is not who it should be.
        """
        name = draw(self.entropy, SESSION_BYTES) if session is None else session
        target = _Target(address, peer, Opening(kind, name, body, purpose))
        stream, terms, watch = self._dial(target, deadline, None)
        limits = self.limits.lesser(terms.limits)
        held = StreamSession(peer=peer, opening=target.opening, opened=terms.body, limits=limits)
        held.attach(stream.line, 0, watch)
        threading.Thread(target=self._keep, args=(target, held, stream), daemon=True, name=f"line to {peer}").start()
        with self._lock:
            self._held = [one for one in self._held if not one.finished(0)] + [held]
        return held

    def close(self) -> None:
        """Closes every session that is still open."""
        with self._lock:
            held, self._held = self._held, []
        for one in held:
            one.close()

    def _dial(self, target: _Target, deadline: float, received: int | None) -> tuple[_Stream, wire.Terms, Watch]:
        """Opens a stream and checks who answers.

        Args:
          target: Whom to dial.
          deadline: Seconds for all of it.
          received: To take up a session: the last frame that came in.

        Raises: ChannelError: Nobody answered, or it was not who it should be, or it refuses.
        """
        own, stream = self.own, None
        try:
            charter, given = own.charter(), own.credentials()
            entry = own.entry(charter, target.peer)
            asked = openings.ask(
                target.opening,
                dialler=own.site,
                listener=target.peer,
                charter=charter.digest,
                nonce=draw(self.entropy, openings.NONCE_BYTES),
                limits=self.limits,
                received=received,
            )
            first = openings.write(asked, sign_asked(own, read_certificate(given.certificate), asked))
            stream = _Stream(given, target, own.holder(charter, target.peer).dns, self.limits, first)
            opened = openings.read_answer(stream.first(deadline), target.peer, self.limits)
            verify_opened(own, charter, entry, opened.signature, first, opened.terms)
            terms = openings.read_terms(opened, self.limits)
            return stream, terms, Watch(own, charter, target.peer, read_certificate(terms.certificate), Usage.SERVER)
        except BaseException as error:
            if stream is not None:
                stream.end()
            if isinstance(error, FederationError) and not isinstance(error, ChannelError):
                raise ChannelError(str(error), retryable=False, hint=error.hint, told=told(error)) from error
            raise

    def _keep(self, target: _Target, held: StreamSession, stream: _Stream | None) -> None:
        """Reads the session's streams, one after the other, until it is over."""
        while stream is not None:
            try:
                for frame in stream.rest():
                    held.arrived(stream.line, frame)
            except ChannelError as error:
                if not error.retryable:
                    held.finish(error)
            held.detach(stream.line)
            stream.end()
            stream = None if held.finished(0) else self._again(target, held)

    def _again(self, target: _Target, held: StreamSession) -> _Stream | None:
        """Takes a cut session up on a new stream, or gives it up."""
        until, pause = time.monotonic() + held.limits.resume, 0.05
        while (left := until - time.monotonic()) > 0 and not held.finished(0):
            stream = None
            try:
                stream, terms, watch = self._dial(target, min(left, ATTEMPT), held.received)
                held.attach(stream.line, terms.received, watch)
            except FederationError as error:
                if stream is not None:
                    stream.end()
                if not (isinstance(error, ChannelError) and error.retryable):
                    words = "the session was cut and cannot go on"
                    why, said = f"{words}: {error}", f"{words}: {told(error)}"
                    held.finish(ChannelClosedError(why, retryable=False, told=said))
            else:
                return stream
            time.sleep(min(pause, max(0.0, until - time.monotonic())))
            pause = min(2 * pause, 1.0)
        held.finish()
        return None
