"""Who is let in, and which sessions there are: what a listener decides, whatever carries the frames.

In order: the certificate's holder is the site that the opening claims, the charter in force lists it and has not
revoked it; its identity key has signed the opening, for this certificate; it is meant for this site; both ends have the
same charter; the service exists, there is room, and the service's own gate agrees. Until the signature is checked, a
stranger learns no more than that. Who is let in is on record, with the certificate, before the answer leaves.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from clients.channel import frames, openings
from clients.channel.credentials import Identity, Watch, sign_opened, verify_asked
from clients.channel.limits import Limits
from clients.channel.session import FAILED, ChannelError, Opening, Session, told
from clients.channel.stream import Line, StreamSession
from clients.proto import channel_pb2 as wire
from privacy.charter.document import Charter
from privacy.enrolment.certificates import Usage, fingerprint, read_certificate
from privacy.errors import FederationError, RemoteProtocolError, VerificationError
from privacy.store.log import Record

OPENED = "channel-opened"
REFUSED = "channel-refused"

_LOG = logging.getLogger(__name__)


class Service(Protocol):
    """What a listener offers under one kind."""

    def admit(self, peer: str, opening: Opening) -> bytes:
        """Decides on an opening; several threads may ask at once.

        Args:
          peer: Site id, authenticated.
          opening: Untrusted.

        Returns: The body of the answer.
        Raises: FederationError: Refused; the peer gets one plain line, as ``told`` makes it, and the service logs it.
        """

    def run(self, session: Session) -> None:
        """Holds the conversation, on a thread of its own; when it returns the session is over.

        Raises: FederationError: The session ends, and the peer gets one plain line, as ``told`` makes it.
        """


@dataclass(frozen=True)
class _Known:
    """A dialler that is who it says, and means this site.

    Attributes:
      said: What it asks.
      charter: In force at both ends.
      check: Whether it is still one to talk to; asked at every message.
      who: The same for the log.
    """

    said: wire.Asked
    charter: Charter
    check: Callable[[], None]
    who: Mapping[str, str]


class Reception:
    """The sessions of one listener.

    Args:
      own: Who listens.
      services: By kind.
      limits: The most that this end takes.
      record: Logs openings and refusals; if it raises, nothing is opened.
    """

    def __init__(
        self, own: Identity, services: Mapping[str, Service], limits: Limits, record: Callable[[Record], None]
    ) -> None:
        self._own, self._services, self._limits, self._record = own, dict(services), limits, record
        self._sessions: dict[tuple[str, bytes], StreamSession | None] = {}  # None: being opened
        self._lock = threading.Lock()

    def answer(self, first: bytes, leaf: bytes, line: Line) -> tuple[bytes, StreamSession]:
        """Opens a session, or takes one up, over a new stream.

        Args:
          first: The stream's first frame. Untrusted.
          leaf: The dialler's certificate; TLS has made sure that it holds the key.
          line: The stream's way out.

        Returns: The first frame out, and the session, which is attached to ``line``.
        Raises: FederationError: Refused; on record, by the service if it was the service.
        """
        dialler = self._known(first, read_certificate(leaf))
        said, certificate = dialler.said, read_certificate(self._own.credentials().certificate)
        session = self._taken_up(dialler) if said.resume else self._admitted(dialler)
        terms = wire.Terms(
            limits=session.limits.written(),
            body=session.opened,
            received=session.received,
            certificate=certificate.public_bytes(Encoding.DER),
        ).SerializeToString()
        session.attach(line, said.received, dialler.check)
        signature = sign_opened(self._own, dialler.charter, said.dialler, first, terms)
        return openings.write_answer(terms, signature), session

    @property
    def sessions(self) -> list[StreamSession]:
        """Those that are open, or wait for their peer to know that they are over."""
        with self._lock:
            return [one for one in self._sessions.values() if one is not None]

    def _known(self, first: bytes, leaf: x509.Certificate) -> _Known:
        """Checks that the dialler is who it says, and means this site, under this charter.

        Raises: FederationError: It is not.
        """
        who = {"certificate": fingerprint(leaf)}
        with self._recorded(who):
            opened, said = openings.read(first, self._limits)
            who |= {"peer": said.dialler, "service": said.kind, "session": said.session.hex()}
            charter = self._own.charter()
            watch = Watch(self._own, charter, said.dialler, leaf, Usage.CLIENT)
            verify_asked(charter, self._own.entry(charter, said.dialler), leaf, opened.signature, opened.asked)
            if said.listener != self._own.site:
                raise VerificationError(f"this is {self._own.site}, not {said.listener}")
            if said.charter.hex() != charter.digest:
                here = f"version {charter.version}, which is in force at {self._own.site}"
                raise VerificationError(f"{said.dialler} goes by another charter than {here}")
            if said.kind not in self._services:
                raise VerificationError(f"{self._own.site} offers no service called {said.kind}")

        def check() -> None:
            with self._recorded(who):
                watch()

        return _Known(said, charter, check, who)

    def _taken_up(self, dialler: _Known) -> StreamSession:
        said = dialler.said
        with self._recorded(dialler.who):
            with self._lock:
                session = self._sessions.get((said.dialler, said.session))
            if session is None or session.opening != openings.asked(said):
                raise RemoteProtocolError("there is no such session here")
        self._record(Record(OPENED, {**dialler.who, "resumed": True}))
        return session

    def _admitted(self, dialler: _Known) -> StreamSession:
        """Takes a place, asks the service, and starts it. Raises: FederationError: No place, or it refuses."""
        said = dialler.said
        key, opening, service = (said.dialler, said.session), openings.asked(said), self._services[said.kind]
        with self._recorded(dialler.who), self._lock:
            if key in self._sessions:
                raise RemoteProtocolError("there is such a session already")
            if len(self._sessions) >= self._limits.sessions:
                raise ChannelError(f"{self._own.site} holds {self._limits.sessions} sessions and takes no more now")
            self._sessions[key] = None
        try:
            opened, limits = service.admit(said.dialler, opening), self._limits.lesser(said.limits)
            session = StreamSession(peer=said.dialler, opening=opening, opened=opened, limits=limits)
            self._record(Record(OPENED, {**dialler.who, "resumed": False}))
        except BaseException:
            self._forget(key)
            raise
        with self._lock:
            self._sessions[key] = session
        threading.Thread(target=self._serve, args=(service, session), daemon=True, name=said.kind).start()
        return session

    def _serve(self, service: Service, session: StreamSession) -> None:
        reason = ""
        try:
            service.run(session)
        except Exception as error:  # noqa: BLE001 - gRPC's and threads' own ways would hide it, or tell the peer
            reason = told(error)  # if it is the session's own, the peer knows already
            if reason == FAILED:
                _LOG.exception("the service %s failed", session.opening.kind)
        finally:
            session.close(reason)
            session.finished(session.limits.resume)  # a peer whose line is cut may still come for the rest
            session.finish()
            self._forget((session.peer, session.id))

    def _forget(self, key: tuple[str, bytes]) -> None:
        with self._lock:
            del self._sessions[key]

    @contextmanager
    def _recorded(self, who: Mapping[str, str]) -> Iterator[None]:
        """Logs a refusal before it goes out."""
        try:
            yield
        except FederationError as error:
            self._record(Record(REFUSED, {**who, "reason": frames.plain(str(error))}))
            raise
