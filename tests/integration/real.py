"""A federation at work: a launcher, a driver and an agent a site, each a process of its own, over TLS on loopback.

Loading torch and flwr takes a processor some four seconds, so processes are forked from one that has done it and has
no thread yet. A process dies with the test that started it, whatever becomes of the test.
"""

import ctypes
import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from clients.assets import load
from privacy import command
from privacy.store.books import State
from privacy.store.run_folder import METRICS_FILE, MODEL_FILE
from server.model_file import model_file
from server.real_run import Coordinator
from simulations import reference
from simulations.data.datasets import SiteData
from simulations.job import Job
from strategies.task import SiteId
from tests.federation import ASSET, Federation

_FORKS = multiprocessing.get_context("forkserver")
_LOADED = ("pytest", "torch._dynamo", "clients.site_command", "server.command", "privacy.store.command", __name__)
_FORKS.set_forkserver_preload([*_LOADED])
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG

Fault = Callable[[], None]
"""What goes wrong in a process, arranged in it before it begins; it must pickle."""


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def until(done: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """Waits until something holds, and returns what it returned; fails the test after so many seconds."""
    end = time.monotonic() + seconds
    while not (found := done()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)
    return found


class Command:
    """``collegium …`` in a process of its own; what it prints goes to a file."""

    def __init__(self, log: Path, *arguments: str, fault: Fault | None = None) -> None:
        self.log, self._from = log, log.stat().st_size if log.exists() else 0
        self.process = _FORKS.Process(target=_run, args=(str(log), [*arguments], fault), daemon=True)
        self.process.start()

    @property
    def pid(self) -> int:
        """Of the process."""
        pid = self.process.pid
        assert pid is not None
        return pid

    @property
    def text(self) -> str:
        """What it has printed so far."""
        return self.log.read_bytes()[self._from :].decode() if self.log.exists() else ""

    def says(self, words: str, seconds: float = 60) -> None:
        """Waits until it has printed these words."""
        until(lambda: words in self.text or not self.process.is_alive(), f"{self.log.name} says {words!r}", seconds)
        assert words in self.text, self.text

    def wait(self, seconds: float = 120) -> int:
        """Waits for its end; returns its exit code, minus a signal's number."""
        self.process.join(seconds)
        code = self.process.exitcode
        assert code is not None, f"{self.log.name} has not ended within {seconds:g} s:\n{self.text}"
        return code

    def kill(self) -> None:
        """Ends it as a loss of power would."""
        self.signal(signal.SIGKILL)
        self.process.join(20)

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def memory(self) -> int:
        """Resident memory that is its own, in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return 1024 * sum(
            int(line.split()[1]) for line in status.splitlines() if line.startswith(("RssAnon", "VmSwap"))
        )

    def descriptors(self) -> int:
        """How many files it has open."""
        return len([*Path(f"/proc/{self.pid}/fd").iterdir()])


def in_process(federation: Federation, run: str) -> bytes:
    """The model file that the job of a run gives where all rows lie in one place and functions call each other."""
    _, _, job = Coordinator.opened(federation.hub, lambda: datetime.now(UTC), print).invited_to(run)
    data = {}
    for site in job.sites:
        loaded = load(federation.folders[site].settings.assets[ASSET], job.task)
        data[site] = SiteData(SiteId(site), loaded.train, loaded.test)
    return model_file(job, reference.federate(cast("Job", job), data).model)


def _run(log: str, arguments: list[str], fault: Fault | None) -> None:
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)
    if fault is not None:
        fault()
    sys.argv = ["collegium", *arguments]
    code = command._outcome(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@dataclass
class Works:
    """A federation whose processes run.

    Attributes:
      federation: Its folders.
      commands: Every process that was started, for the end.
    """

    federation: Federation
    agents: dict[str, Command] = field(default_factory=dict)
    commands: list[Command] = field(default_factory=list)
    server: Command = field(init=False)

    def start_server(self) -> Command:
        """Starts the launcher, and waits until it listens."""
        self.server = self.collegium("server", "start", str(self.federation.hub.path), log="server")
        self.server.says(" listens on ")
        return self.server

    def start_agent(self, site: str, fault: Fault | None = None) -> Command:
        """Starts a site's agent."""
        folder = str(self.federation.folders[site].path)
        self.agents[site] = self.collegium("site", "start", folder, log=site, fault=fault)
        return self.agents[site]

    def collegium(self, *arguments: str, log: str, fault: Fault | None = None) -> Command:
        """Starts a command."""
        path = self.federation.path / f"{log}.log"
        self.commands.append(Command(path, *arguments, fault=fault))
        return self.commands[-1]

    def run(
        self, name: str, strategy: str = "fedavg", *options: str, privacy: str = "none", deadline: float = 5
    ) -> Command:
        """Begins a run."""
        return self.collegium(
            "server", "run", strategy, str(self.federation.hub.path), "--asset", ASSET, "--privacy", privacy,
            "--name", name, "--deadline", str(deadline), *options, log=name,
        )  # fmt: skip

    def resume(self, name: str, deadline: float = 5) -> Command:
        """Goes on with a run."""
        hub = str(self.federation.hub.path)
        return self.collegium("server", "resume", name, hub, "--deadline", str(deadline), log=name)

    def folder(self, name: str, party: str = "hub") -> Path:
        """Of a run at a party."""
        return self.federation.folders[party].path / "runs" / name

    def rounds(self, name: str) -> list[dict[str, Any]]:
        """What the coordinator wrote of every round that is done."""
        path = self.folder(name) / METRICS_FILE
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def reach(self, name: str, number: int, seconds: float = 60) -> None:
        """Waits until so many rounds of a run are done."""
        until(lambda: len(self.rounds(name)) >= number, f"round {number} of {name}", seconds)

    def paid(self, site: str, name: str) -> set[tuple[int, int]]:
        """Rounds and attempts of a run that a site's ledger has a debit for that was released."""
        with self.federation.folders[site].ledger().reading() as books:
            lines = [line for line in books.lines.values() if line.debit.run == name and line.state is State.RELEASED]
        return {(line.debit.round, line.debit.attempt) for line in lines}

    def model(self, name: str) -> bytes:
        """The model file of a run that is over."""
        return (self.folder(name) / MODEL_FILE).read_bytes()

    def counted(self, site: str, name: str) -> set[tuple[int, int]]:
        """Rounds and attempts of a run in whose sum a site is."""
        return {(one["round"], one["attempts"]) for one in self.rounds(name) if site in one["answered"]}


@contextmanager
def at_work(federation: Federation) -> Iterator[Works]:
    """Starts launcher and agents; ends whatever runs at the end."""
    works = Works(federation)
    try:
        works.start_server()
        for site in federation.sites:
            works.start_agent(site)
        for site in federation.sites:
            works.agents[site].says("connected as node")
        yield works
    finally:
        for command in works.commands:
            command.signal(signal.SIGKILL)
        for command in works.commands:
            command.process.join(20)
