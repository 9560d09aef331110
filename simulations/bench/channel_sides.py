"""The two ends of everything that ``simulations/bench/channel.py`` measures: the asker's here, the other in a process.

``python -m simulations.bench.channel_sides KIND PORT FOLDER`` is the other one.
"""

import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from clients.channel.credentials import Identity
from clients.channel.dialler import Dialler
from clients.channel.limits import Limits
from clients.channel.listener import Listener
from clients.channel.message import Message
from clients.channel.session import ChannelClosedError, Opening, Session
from privacy.errors import ConfigError, TransportError
from privacy.store.site_folder import SiteFolder
from simulations.bench import channel_peers as peers
from simulations.bench.channel_peers import Array, Keys, Line
from simulations.bench.channel_split import Exchange, Gloo, answer_session, over_session
from simulations.bench.real_parties import Parties
from simulations.bench.real_sides import Ours, Processes, Stock, free_port

LIMITS = Limits(window=peers.WINDOW, frame_bytes=peers.MESSAGE_CAP, idle=600.0)


class Ends:
    """Opens lines to ends that it starts; all end with the block. The first party asks, the second one answers."""

    def __init__(self, parties: Parties) -> None:
        self._path, names = parties.path, parties.sites[:2]
        self._asker, self._answerer = (parties.folder(name) for name in names)
        self._mine, self._dns = Keys.of(self._asker), self._answerer.holder.dns
        self._ending = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._ending.close()

    def channel(self) -> Line:
        """Opens a session of ours that is answered by echoes."""
        return self._kept(SessionLine(self._session("echo")))

    def split(self) -> Exchange:
        """Opens a session of ours at whose other end the split model's back is."""
        return over_session(self._session("split"))

    def echo(self) -> Line:
        """Opens a bare gRPC stream."""
        return self._kept(peers.Echo(self._started("echo"), self._mine, self._dns))

    def socket(self) -> Line:
        """Opens a mutual-TLS socket."""
        return self._kept(peers.Socket(self._started("socket"), self._mine, self._dns))

    def rpc(self) -> Line:
        """Joins torch RPC."""
        return self._kept(peers.TorchRpc(self._started("rpc")))

    def gloo(self) -> Exchange:
        """Joins gloo, with the split model's back at the other end."""
        return Gloo(self._started("gloo"), 0).exchange

    def _session(self, kind: str) -> Session:
        address = f"127.0.0.1:{self._started('channel')}"
        dialler = Dialler(_identity(self._asker), limits=LIMITS)
        self._ending.callback(dialler.close)
        session = dialler.open(address, self._answerer.holder.id, kind=kind)
        self._ending.callback(session.close)
        return session

    def _kept(self, line: Line) -> Line:
        self._ending.callback(line.close)
        return line

    def _started(self, kind: str) -> int:
        """Starts an answering end and returns its port."""
        port = free_port()
        command = [sys.executable, "-m", "simulations.bench.channel_sides", kind, str(port), str(self._answerer.path)]
        with (self._path / f"{kind}.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)  # noqa: S603 - our own command
        self._ending.callback(_ended, process)
        if process.stdout is None or not process.stdout.readline():
            raise TransportError(f"the answering end of {kind} did not start", retryable=False)
        return port


def _ended(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()


def _identity(folder: SiteFolder) -> Identity:
    return Identity.of_folder(folder, lambda: datetime.now(UTC))


class SessionLine:
    """A session of ours as a line: a tensor a message."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def send(self, tensor: Array) -> None:
        """Sends it."""
        self._session.send(Message("tensor", tensors={"x": tensor}))

    def receive(self) -> Array:
        """Returns the next one."""
        came: Array = self._session.receive().tensors["x"]
        return came

    def close(self) -> None:
        """Ends the session."""
        self._session.close()


class Answering:
    """A service without any gate: what is measured is the channel."""

    def __init__(self, answer: Callable[[Session], None]) -> None:
        self._answer = answer

    def admit(self, _peer: str, _opening: Opening) -> bytes:
        """Admits whom the channel admits."""
        return b""

    def run(self, session: Session) -> None:
        """Answers until the session ends."""
        try:
            self._answer(session)
        except ChannelClosedError:
            return


def answer_echoes(session: Session) -> None:
    """Sends back every tensor."""
    line = SessionLine(session)
    while True:
        line.send(line.receive())


def answer_channel(port: int, folder: SiteFolder, ready: Callable[[], None]) -> None:
    """Answers sessions of ours until the process is ended."""
    services = {"echo": Answering(answer_echoes), "split": Answering(answer_session)}
    own = _identity(folder)
    with Listener(f"127.0.0.1:{port}", own, services, limits=LIMITS, record=lambda _record: None):
        ready()
        threading.Event().wait()


def answer_gloo(port: int, ready: Callable[[], None]) -> None:
    """Is the back of the split model, until the process is ended."""
    ready()
    Gloo(port, 1).answer()


def flower_messages(parties: Parties, size: int, count: int) -> dict[str, list[float]]:
    """Returns seconds of one message with so many bytes to one site and back: by resident agents, by stock Flower."""
    site = parties.sites[0]
    with Processes(parties.path) as processes:
        ours, stock = Ours(parties, processes), Stock(parties, processes, parties.path / "flwr")
        ours.start()
        ours.add(site)
        with ours.asking() as ask:
            ask(size)  # wakes it
            resident = [ask(size) for _ in range(count)]
        stock.start()
        stock.add(site)
        with stock.running() as orders:
            orders.give(nodes=1)
            stocked = [orders.give(echo=size)[0] for _ in range(count)]
    return {"Flower messages, resident agents": resident, "Flower messages, stock": stocked}


def main(arguments: list[str]) -> None:
    """Is the answering end that the arguments ask for. Raises: ConfigError: There is no such end."""
    kind, port, folder = arguments[0], int(arguments[1]), SiteFolder(Path(arguments[2]))
    peers.one_thread()

    def ready() -> None:
        sys.stdout.write("ready\n")
        sys.stdout.flush()

    match kind:
        case "channel":
            answer_channel(port, folder, ready)
        case "echo":
            peers.answer_echo(port, Keys.of(folder), ready)
        case "socket":
            peers.answer_socket(port, Keys.of(folder), ready)
        case "rpc":
            peers.answer_rpc(port, ready)
        case "gloo":
            answer_gloo(port, ready)
        case _:
            raise ConfigError(f"there is no end called {kind}")


if __name__ == "__main__":
    main(sys.argv[1:])
