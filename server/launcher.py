"""Serves Flower's app on two listeners: mutual TLS for the sites, a unix socket for whoever runs the coordinator.

The public listener speaks TLS 1.3 with certificates of the federation's root and nothing else, gives out no session
tickets, so that every connection shows its certificate again, and passes on Fleet requests only (``server/door.py``).
Everything else, the starting of runs above all, is on the socket, in a folder that only its user can enter.
"""

import asyncio
import fcntl
import logging
import os
import socket as sockets
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from uvicorn.config import Config
from uvicorn.server import ServerState

from privacy.enrolment.certificates import read_certificate
from privacy.errors import ConfigError, FederationError, VerificationError
from privacy.store.key_files import check_folder, read_private
from server.admission import Bucket, Limits, Peer, Peers, Refused
from server.door import Door, Gate, Identify, by_certificate, by_user
from server.superlink import fleet_app, register, tidy

_TICK = 0.5  # seconds; how soon a removal from the charter closes a connection that says nothing
_GRACE = 5.0  # seconds that requests under way have at the end
_FLUSH = 0.1  # seconds for what was answered to leave
_HANDSHAKES = 64  # at once; the oldest unfinished one goes
_KEEP_ALIVE = 60  # seconds without a request
_LINE = 160  # characters of what a library says

Report = Callable[[str], None]


@dataclass(frozen=True)
class Listener:
    """The public side.

    Attributes:
      host: Address to listen on.
      port: 0: chosen by the system.
      certificate: PEM of the server's leaf.
      key: Its key, a private file.
      root: PEM of the federation's root, which alone signs clients.
    """

    host: str
    port: int
    certificate: Path
    key: Path
    root: Path


def tls_context(listener: Listener) -> ssl.SSLContext:
    """Returns the context of the public listener. Raises: ConfigError: A file that cannot be used."""
    read_private(listener.key)  # refuses one that others can read
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_ecdh_curve("X25519")
    context.num_tickets = 0
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    try:
        context.load_verify_locations(cafile=listener.root)
        context.load_cert_chain(listener.certificate, listener.key, password=_no_password)
    except (OSError, ValueError) as error:
        raise ConfigError(f"the server's certificate cannot be used: {error}") from None
    return context


def _no_password() -> str:
    raise ValueError("the key file is encrypted")


async def serve(
    listener: Listener,
    peers: Callable[[], Peers],
    socket: Path,
    *,
    ready: Callable[[int], None],
    stop: asyncio.Event,
    report: Report = print,
    limits: Limits | None = None,
    users: frozenset[int] | None = None,
) -> None:
    """Serves until ``stop``, then lets requests under way end.

    Args:
      listener: The public side.
      peers: Reads the charter in force; called every half second, on a thread.
      socket: Path of the control socket, in a folder of mode 0700.
      ready: Called with the public port when both listen and all nodes of the charter are registered.
      stop: Ends it.
      report: Takes a plain line for each caller turned away, at most a few a second.
      limits: Of what callers may cost.
      users: Who may use the socket; by default the user of this process.

    Raises: ConfigError: A file, a folder, an address or the charter cannot be used, or another launcher runs here.
    """
    clock, limits = time.time, limits or Limits()
    report = _seldom(report, clock)
    for logger in ("flwr", "uvicorn.error"):
        logging.getLogger(logger).addFilter(_Plain(report))
    context, app = tls_context(listener), fleet_app()
    root = read_certificate(listener.root.read_bytes())
    state = ServerState()
    current = _Current(peers, report)
    for flower_key in current().flower_keys.values():
        register(app, flower_key)
    gate = Gate(app, current, limits, clock=clock, report=report)
    identify = _bounded(by_certificate(root, clock), state, limits)
    local = by_user(users if users is not None else frozenset({os.geteuid()}))

    def door(served: Any, who: Identify) -> Callable[[], Door]:
        config = _config(served)
        return lambda: Door(config, state, limits, who, report)

    with _control_socket(socket) as inner, _public_socket(listener) as outer:
        ends = [
            asyncio.create_task(_accept(inner, None, door(app, local), limits, report)),
            asyncio.create_task(_accept(outer, context, door(gate, identify), limits, report)),
            asyncio.create_task(_watch(state, app, current, clock, report)),
            asyncio.create_task(stop.wait()),
        ]
        try:
            ready(outer.getsockname()[1])
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
            await asyncio.gather(*ends, return_exceptions=True)
    await _finish(state)
    for end in done:
        end.result()


class _Current:
    """The charter in force, read again every half second; nobody is admitted while it cannot be read.

    Raises: FederationError: It cannot be read to begin with.
    """

    def __init__(self, peers: Callable[[], Peers], report: Report) -> None:
        self._peers, self._report = peers, report
        self._kept: Peers | None = peers()

    def __call__(self) -> Peers:
        if self._kept is None:
            raise Refused(503, "busy", "the charter cannot be read; ask again later")
        return self._kept

    async def refresh(self) -> None:
        """Reads it again, beside the requests: a chain of signatures takes its time."""
        try:
            self._kept = await asyncio.to_thread(self._peers)
        except (FederationError, OSError, ValueError) as error:
            self._kept = None
            self._report(f"the charter cannot be read, so nobody is admitted: {error}")


async def _watch(
    state: ServerState, app: FastAPI, current: _Current, clock: Callable[[], float], report: Report
) -> None:
    """Registers whom the charter adds, cuts off whom it no longer admits, frees what runs left, and keeps the date."""
    while True:
        state.default_headers = [(b"date", formatdate(clock(), usegmt=True).encode())]
        await current.refresh()
        with suppress(Refused):
            peers = current()
            for door in _doors(state):
                if isinstance(door.peer, Peer) and not _stands(peers, door.peer, clock()):
                    door.transport.abort()
            for flower_key in peers.flower_keys.values():
                register(app, flower_key)
        try:
            tidy(app)
        except Exception as error:  # noqa: BLE001 -- no quirk of Flower's bookkeeping may end the launcher
            report(f"a run that is over could not be tidied up: {error!r}")
        await asyncio.sleep(_TICK)


def _stands(peers: Peers, peer: Peer, now: float) -> bool:
    try:
        peers.check(peer, now)
    except Refused:
        return False
    return True


def _doors(state: ServerState) -> list[Door]:
    return [door for door in state.connections if isinstance(door, Door)]


def _bounded(identify: Identify, state: ServerState, limits: Limits) -> Identify:
    """Adds a cap on connections of one holder."""

    def bounded(transport: asyncio.BaseTransport) -> Peer | int:
        peer = identify(transport)
        holders = [door.peer.uri for door in _doors(state) if isinstance(door.peer, Peer)]
        if isinstance(peer, Peer) and holders.count(peer.uri) >= limits.connections:
            raise VerificationError(f"{peer.uri} has {limits.connections} connections already")
        return peer

    return bounded


async def _accept(
    listening: sockets.socket,
    context: ssl.SSLContext | None,
    door: Callable[[], Door],
    limits: Limits,
    report: Report,
) -> None:
    """Takes connections; a handshake runs on its own, under a clock, and the oldest of too many is dropped."""
    loop = asyncio.get_running_loop()
    waiting: dict[asyncio.Task[None], sockets.socket] = {}
    try:
        while True:
            try:
                connection, address = await loop.sock_accept(listening)
            except OSError as error:  # out of file descriptors: refuse no one for good
                report(f"no connection can be taken: {error.strerror}")
                await asyncio.sleep(_TICK)
                continue
            if len(waiting) >= _HANDSHAKES:
                _drop(waiting.pop(next(iter(waiting))))
            task = loop.create_task(_greet(connection, address, context, door, report, limits))
            waiting[task] = connection
            task.add_done_callback(lambda task: waiting.pop(task, None))
    finally:
        for connection in waiting.values():
            _drop(connection)


def _drop(connection: sockets.socket) -> None:
    """Ends a handshake as a caller that hangs up would; cancelling it leaves the socket open (Python 3.11)."""
    with suppress(OSError):
        connection.shutdown(sockets.SHUT_RDWR)


async def _greet(
    connection: sockets.socket,
    address: object,
    context: ssl.SSLContext | None,
    door: Callable[[], Door],
    report: Report,
    limits: Limits,
) -> None:
    """Makes a connection of what was accepted; one line about a caller whose certificate does not do."""
    clocks = {"ssl_handshake_timeout": limits.idle, "ssl_shutdown_timeout": 1.0} if context else {}
    try:
        await asyncio.get_running_loop().connect_accepted_socket(door, connection, ssl=context, **clocks)
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", None) or (error.reason or "no TLS").lower().replace("_", " ")
        report(f"refused {_host(address)} at the TLS handshake: {reason}")
    except OSError as error:
        report(f"lost {_host(address)} in the TLS handshake: {error.strerror or 'too slow, or gone'}")


def _host(address: object) -> str:
    return str(address[0]) if isinstance(address, tuple) else "a local caller"


async def _finish(state: ServerState) -> None:
    """Lets answers under way go out, then cuts what is left."""
    for door in _doors(state):
        door.shutdown()
    tasks = list(state.tasks)
    if tasks:
        await asyncio.wait(tasks, timeout=_GRACE)
    for task in tasks:
        task.cancel()
    await asyncio.sleep(_FLUSH)
    for door in _doors(state):
        door.transport.abort()
    await asyncio.gather(*tasks, return_exceptions=True)


def _config(app: Any) -> Config:
    """Returns uvicorn's settings; neither its server nor its logging is used."""
    config = Config(
        app,
        interface="asgi3",
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE,
    )
    config.load()
    return config


@contextmanager
def _public_socket(listener: Listener) -> Iterator[sockets.socket]:
    try:
        family = sockets.AF_INET6 if ":" in listener.host else sockets.AF_INET
        listening = sockets.create_server((listener.host, listener.port), family=family, backlog=256)
    except OSError as error:
        raise ConfigError(f"cannot listen on {listener.host}:{listener.port}: {error.strerror}") from None
    with listening:
        listening.setblocking(False)
        yield listening


@contextmanager
def _control_socket(path: Path) -> Iterator[sockets.socket]:
    """Listens at ``path``, a socket of mode 0600; a lock beside it keeps a second launcher away."""
    check_folder(path.parent)
    lock = os.open(path.with_name("launcher.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    listening = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)  # of a launcher that was killed: the lock says that none is alive
        mask = os.umask(0o177)
        try:
            listening.bind(str(path))
        finally:
            os.umask(mask)
        listening.listen(64)
        listening.setblocking(False)
        yield listening
        path.unlink(missing_ok=True)
    except BlockingIOError:
        raise ConfigError(f"another launcher is at work in {path.parent}") from None
    except OSError as error:
        raise ConfigError(f"cannot listen at {path}: {error.strerror or error}") from None
    finally:
        listening.close()
        os.close(lock)


def _seldom(report: Report, clock: Callable[[], float]) -> Report:
    """Keeps callers from filling a disk with lines about themselves."""
    bucket = Bucket(rate=2, burst=100)

    def seldom(line: str) -> None:
        if bucket.takes(clock()):
            report(line)

    return seldom


class _Plain(logging.Filter):
    """Makes one plain line of what the libraries log of a request, and few of them; what is a bug keeps its trace."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self._report, self._bucket = report, Bucket(rate=0.1, burst=5)

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.ERROR or not self._bucket.takes(record.created):
            return False
        if record.exc_info:
            return True
        words = "".join(character if character.isprintable() else " " for character in record.getMessage())
        self._report(f"{record.name}: {' '.join(words.split())[:_LINE]}")
        return False
