"""Two sites that talk: sessions in memory or over mutual TLS on loopback, with services that do as a test says."""

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from queue import SimpleQueue

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from clients.channel import memory, openings
from clients.channel.credentials import Credentials, Identity, sign_asked
from clients.channel.dialler import Dialler
from clients.channel.limits import Limits
from clients.channel.listener import Listener
from clients.channel.message import Message
from clients.channel.reception import Service
from clients.channel.session import Opening, Session
from privacy.enrolment.certificates import issue_leaf, new_request, read_certificate
from privacy.keys.signing import SigningKey
from privacy.store.log import Record
from tests import federation as people
from tests.federation import Federation

QUICK = Limits(frame_bytes=2**20, window=4, sessions=3, steps=1000, idle=5.0, resume=5.0, keepalive=0.5)


def now() -> datetime:
    return datetime.now(UTC)


def identity(federation: Federation, site: str) -> Identity:
    return Identity.of_folder(federation.folders[site], now)


def issued(federation: Federation, site: str) -> Credentials:
    """What the keeper of the root has without anybody's key: a certificate in a site's name for a key of its own."""
    root_key, root = people._authority()
    holder, key = federation.folders[site].holder, ec.generate_private_key(ec.SECP256R1())
    dates = {"start": now() - timedelta(hours=1), "end": now() + timedelta(days=1)}
    request, serial = new_request(key, holder), secrets.token_bytes(16)
    leaf = issue_leaf(request, holder, root=root, root_key=root_key, serial=serial, **dates)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Credentials(root.public_bytes(Encoding.PEM), leaf.public_bytes(Encoding.PEM), private)


def keeper(federation: Federation, site: str) -> Identity:
    """The keeper of the root who plays a site, with an identity key that no charter lists."""
    given, key = issued(federation, site), SigningKey(secrets.token_bytes(32))
    return replace(identity(federation, site), key=key, credentials=lambda: given)


def asked(
    own: Identity,
    opening: Opening,
    *,
    listener: str = "brno",
    limits: Limits = QUICK,
    nonce: bytes = bytes(openings.NONCE_BYTES),
    received: int | None = None,
) -> bytes:
    """What a dialler would sign."""
    charter = own.charter().digest
    return openings.ask(
        opening, dialler=own.site, listener=listener, charter=charter, nonce=nonce, limits=limits, received=received
    )


def signed(own: Identity, asked: bytes) -> bytes:
    """A first frame that says it, under the signature of ``own`` for its certificate."""
    return openings.write(asked, sign_asked(own, read_certificate(own.credentials().certificate), asked))


@dataclass
class Handed:
    """A service that hands its sessions to the test, and holds them until ``done``."""

    sessions: "SimpleQueue[Session]" = field(default_factory=SimpleQueue)
    openings: list[tuple[str, Opening]] = field(default_factory=list)
    refusal: Exception | None = None
    done: threading.Event = field(default_factory=threading.Event)

    def admit(self, peer: str, opening: Opening) -> bytes:
        self.openings.append((peer, opening))
        if self.refusal is not None:
            raise self.refusal
        return b"to " + peer.encode()

    def run(self, session: Session) -> None:
        self.sessions.put(session)
        self.done.wait(60)


class Echo:
    """A service that sends everything back."""

    def admit(self, peer: str, opening: Opening) -> bytes:
        return opening.body + peer.encode()

    def run(self, session: Session) -> None:
        while True:
            message = session.receive()
            session.send(Message(message.kind, message.step, message.body, message.tensors))


@dataclass
class Ends:
    """How two sites come to a session.

    Attributes:
      records: What the listener has logged.
    """

    open: Callable[..., tuple[Session, Session]]
    records: list[Record] = field(default_factory=list)


@contextmanager
def in_memory(limits: Limits = QUICK) -> Iterator[Ends]:
    def opened(kind: str = "talk", body: bytes = b"", purpose: str = "") -> tuple[Session, Session]:
        return memory.pair("alba", "brno", Opening(kind, bytes(16), body, purpose), opened=b"to alba", limits=limits)

    yield Ends(opened)


@contextmanager
def over_tls(federation: Federation, limits: Limits = QUICK) -> Iterator[Ends]:
    records: list[Record] = []
    service, dialler = Handed(), Dialler(identity(federation, "alba"), limits=limits)
    with listening(federation, "brno", {"talk": service}, records, limits) as listener:

        def opened(kind: str = "talk", body: bytes = b"", purpose: str = "") -> tuple[Session, Session]:
            here = dialler.open(f"127.0.0.1:{listener.port}", "brno", kind=kind, body=body, purpose=purpose)
            return here, service.sessions.get(timeout=5)

        yield Ends(opened, records)
        service.done.set()
        dialler.close()


@contextmanager
def listening(
    federation: Federation, site: str, services: dict[str, Service], records: list[Record], limits: Limits = QUICK
) -> Iterator[Listener]:
    own = identity(federation, site)
    with Listener("127.0.0.1:0", own, services, limits=limits, record=records.append) as listener:
        yield listener


def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Waits for something that happens on another thread."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def sending(session: Session, count: int) -> threading.Thread:
    """Sends that many messages, of steps from 0, on a thread of its own."""

    def send() -> None:
        for step in range(count):
            session.send(Message("x", step), 10)

    thread = threading.Thread(target=send)
    thread.start()
    return thread
