"""The two sides that ``simulations/bench/real.py`` compares, as processes: ours, and stock Flower with its defaults.

Ours: `collegium server start`, and a resident agent for each site, over mutual TLS 1.3. Stock: `flower-superlink` with
TLS and node authentication, a `flower-supernode` for each site, a ServerApp by `flwr run`. Both keep state in memory.
"""

import json
import os
import re
import secrets
import signal
import socket as sockets
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Self

from privacy.dp.plan import Unit
from privacy.errors import TransportError
from privacy.store.run_folder import METRICS_FILE
from server.exchange import Exchange, Timing
from server.real_run import SOCKET, Coordinator
from server.superlink import session
from simulations.bench.real_app import ECHO, Orders, check_echoes, listening, questions, waited_for
from simulations.bench.real_parties import ASSET, HOST, HUB, PURPOSE, Parties
from strategies.invitation import resolve_job
from strategies.task import SiteId

_START = 180.0  # seconds that a process may take to answer, on a machine with other work
_END = 15.0  # seconds that it may take to end
_BIN = Path(sys.executable).parent
_QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "PYTHONUNBUFFERED": "1",
}
_APP = '''"""The app of the benchmark is installed; Flower wants plain assignments."""

from simulations.bench import real_app

client = real_app.client
server = real_app.server
'''
_PROJECT = """
[project]
name = "bench-app"
version = "0.1.0"
license = "Apache-2.0"
dependencies = []
[tool.hatch.build.targets.wheel]
packages = ["."]
[tool.flwr.app]
publisher = "collegium"
[tool.flwr.app.components]
serverapp = "bench_app:server"
clientapp = "bench_app:client"
[tool.flwr.app.config]
orders = ""
"""


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Makes SIGTERM and SIGHUP end the block as Ctrl-C does, so that what it started ends too."""

    def told(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = {number: signal.signal(number, told) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def free_port() -> int:
    """Returns a port on loopback that nobody listens on now."""
    with sockets.create_server(("127.0.0.1", 0)) as listening_for_a_moment:
        return int(listening_for_a_moment.getsockname()[1])


class Processes:
    """Processes by name, each in a session of its own with a log file; none of them outlives the block."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop(*self._running)

    def start(self, name: str, *command: str, **environment: str) -> None:
        """Starts one and returns at once."""
        self._running[name] = self._popen(name, command, environment)

    def run(self, name: str, *command: str, **environment: str) -> None:
        """Runs one to its end. Raises: TransportError: It failed."""
        self.wait(name, *command, **environment)()

    def wait(self, name: str, *command: str, **environment: str) -> Callable[[], None]:
        """Starts one that ends by itself; returns what waits for that. Raises: TransportError: It failed."""
        self.start(name, *command, **environment)
        running = self._running[name]

        def ended() -> None:
            try:
                status = running.wait(_START)
            except subprocess.TimeoutExpired:
                raise TransportError(f"{name} came to no end: {self.last_line(name)}", retryable=False) from None
            del self._running[name]
            if status:
                raise TransportError(f"{name} ended with {status}: {self.last_line(name)}", retryable=False)

        return ended

    def stop(self, *names: str) -> None:
        """Ends them: by a signal, and whoever does not go, with all of its session, by a stronger one."""
        ending = [self._running[name] for name in names]
        for process in ending:
            with suppress(ProcessLookupError):
                process.terminate()
        end = time.monotonic() + _END
        for process in ending:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, end - time.monotonic()))
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for name in names:
            del self._running[name]

    def check(self) -> None:
        """Checks that all are still there. Raises: TransportError: One has ended."""
        for name, process in self._running.items():
            if process.poll() is not None:
                raise TransportError(f"{name} ended early: {self.last_line(name)}", retryable=False)

    def last_line(self, name: str) -> str:
        """Returns what a process said last."""
        lines = self._log(name).read_text(encoding="utf-8", errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")

    def _log(self, name: str) -> Path:
        return self._path / f"{name}.log"

    def _popen(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        path = f"{_BIN}{os.pathsep}{os.environ.get('PATH', '')}"  # stock Flower starts programs by name
        with self._log(name).open("wb") as log:
            return subprocess.Popen(  # noqa: S603 -- our own command
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **_QUIET, "PATH": path, **environment},
                start_new_session=True,  # Ctrl-C is ours to pass on
            )


def _until_listening(processes: Processes, port: int) -> None:
    end = time.monotonic() + _START
    while time.monotonic() < end:
        processes.check()
        with suppress(OSError), sockets.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise TransportError(f"nobody listens on port {port}", retryable=False)


def _see_off(process: int) -> None:
    """Waits until a process that is not our child has ended, and ends it if that takes too long."""
    end = time.monotonic() + _END
    with suppress(ProcessLookupError):
        while time.monotonic() < end:
            os.kill(process, 0)
            time.sleep(0.05)
        os.kill(process, signal.SIGKILL)


@dataclass
class Ours:
    """Our launcher and resident agents."""

    parties: Parties
    processes: Processes
    sites: list[str] = field(default_factory=list)
    timing: Timing = field(default_factory=lambda: Timing(deadline=60, first_poll=0.05))  # as `collegium server run`

    def start(self) -> None:
        """Starts the launcher."""
        self.processes.start("launcher", str(_BIN / "collegium"), "server", "start", str(self._hub))
        _until_listening(self.processes, self.parties.port)

    def add(self, *sites: str) -> None:
        """Starts agents that answer echoes."""
        for site in sites:
            folder = str(self.parties.path / site)
            self.processes.start(f"agent-{site}", sys.executable, "-m", "simulations.bench.real_app", folder)
        self.sites += sites

    def start_sites(self, *sites: str) -> None:
        """Ends the agents that answer echoes, and starts real ones."""
        self.processes.stop(*(f"agent-{site}" for site in self.sites))
        for site in sites:
            folder = str(self.parties.path / site)
            self.processes.start(f"agent-{site}", str(_BIN / "collegium"), "site", "start", folder)
        self.sites = list(sites)
        with session(self._hub / SOCKET) as (grid, _):
            waited_for(grid, len(sites))

    @contextmanager
    def asking(self) -> Iterator[Callable[[int], float]]:
        """Yields what asks everybody for an echo of so many bytes and returns the seconds of that phase."""
        with session(self._hub / SOCKET) as (grid, _):
            waited_for(grid, len(self.sites))
            nodes = {SiteId(str(node)): node for node in grid.get_node_ids()}
            exchange = Exchange(grid, nodes, self.timing, time.monotonic, time.sleep)

            def ask(size: int) -> float:
                asked = {SiteId(str(node)): data for node, data in questions(sorted(nodes.values()), size).items()}
                began = time.perf_counter()
                answers = exchange.ask(ECHO, asked, group="1")
                seconds = time.perf_counter() - began
                check_echoes(asked, answers.payloads)
                return seconds

            yield ask

    def rounds(self, count: int) -> list[float]:
        """Runs the study under secure aggregation; returns the seconds of so many rounds.

        From the line that tells of one round to that of the next, with its commit, the log and all: the first round,
        after the roll call, is one more.
        """
        study, name, marks = self.parties.study, f"run-{secrets.token_hex(4)}", list[float]()

        def report(line: str) -> None:
            if re.match(r"round \d+ of ", line):
                marks.append(time.perf_counter())

        coordinator = Coordinator.opened(self.parties.folder(HUB), lambda: datetime.now(UTC), report)
        job = resolve_job(
            study,
            "fedavg",
            {"rounds": Decimal(count + 1)},
            sites=tuple(SiteId(site) for site in self.sites),
            seed=42,
            privacy=(),
            unit=Unit.RECORD,
            epsilon=Decimal(1),
            delta=Decimal("0.001"),
        )
        invitation = coordinator.invite(job, run=name, purpose=PURPOSE, asset=ASSET)
        folder = coordinator.begin(job, invitation)
        coordinator.drive(name, self.timing)
        check_rounds((folder.path / METRICS_FILE).read_text(encoding="utf-8"), self.sites)
        return [end - begin for begin, end in pairwise(marks)]

    @property
    def _hub(self) -> Path:
        return self.parties.path / HUB


def check_rounds(metrics: str, sites: Sequence[str]) -> None:
    """Checks the metrics of a run.

    Raises: TransportError: A round was repeated, skipped, or done without a site: its time says nothing of speed.
    """
    for line in metrics.splitlines():
        found = json.loads(line)
        if found["skipped"] or found["attempts"] != 1 or set(found["answered"]) != set(sites):
            raise TransportError(f"round {found['round']} did not go through with all sites", retryable=False)


@dataclass
class Stock:
    """Stock Flower, as its documentation starts it."""

    parties: Parties
    processes: Processes
    home: Path
    sites: list[str] = field(default_factory=list)
    port: int = field(default_factory=free_port)

    def start(self) -> None:
        """Starts the SuperLink, and its connection settings for the `flwr` command."""
        hub = self.parties.path / HUB
        self.home.mkdir()
        (self.home / "config.toml").write_text(
            f'[superlink]\ndefault = "bench"\n[superlink.bench]\naddress = "{HOST}:{self.port}"\n'
            f'root-certificates = "{self.parties.root}"\n',
            encoding="utf-8",
        )
        tls = {"certfile": hub / "tls.crt", "keyfile": hub / "tls.key", "ca-certfile": self.parties.root}
        self.processes.start(
            "superlink",
            str(_BIN / "flower-superlink"),
            *(text for key, path in tls.items() for text in (f"--ssl-{key}", str(path))),
            *("--host", HOST, "--port", str(self.port)),
            *("--enable-supernode-auth", "--disable-runtime-dependency-installation"),
            **self._environment,
        )
        _until_listening(self.processes, self.port)

    def add(self, *sites: str) -> None:
        """Registers sites and starts their SuperNodes."""
        flwr = str(_BIN / "flwr")
        registering = [
            self.processes.wait(
                f"register-{site}",
                *(flwr, "supernode", "register", str(self.parties.public_key(site)), "bench"),
                **self._environment,
            )
            for site in sites
        ]
        for registered in registering:
            registered()
        for site in sites:
            self.processes.start(
                f"supernode-{site}",
                *(str(_BIN / "flower-supernode"), "--superlink", f"{HOST}:{self.port}"),
                *("--root-certificates", str(self.parties.root), "--host", "127.0.0.1", "--port", str(free_port())),
                *("--auth-supernode-private-key", str(self.parties.path / site / "flower.key")),
                *("--node-config", f'rows="{self.parties.rows(site)}"'),
                **self._environment,
            )
        self.sites += sites

    def keep(self, *sites: str) -> None:
        """Ends the SuperNodes of all other sites."""
        self.processes.stop(*(f"supernode-{site}" for site in self.sites if site not in sites))
        self.sites = list(sites)

    @contextmanager
    def running(self) -> Iterator[Orders]:
        """Starts the app and yields the line to its ServerApp, which ends with the block."""
        app, path = self.home / "bench-app", self.home / "orders"
        app.mkdir()
        (app / "pyproject.toml").write_text(_PROJECT, encoding="utf-8")
        (app / "bench_app.py").write_text(_APP, encoding="utf-8")
        with listening(path) as line:
            self.processes.run(
                "flwr-run",
                *(str(_BIN / "flwr"), "run", str(app), "bench", "--run-config", f'orders="{path}"'),
                **self._environment,
            )
            with self._accepted(line) as connection:
                orders = Orders(connection)
            try:
                yield orders
            finally:
                orders.hang_up()
                _see_off(orders.process)

    def _accepted(self, line: sockets.socket) -> sockets.socket:
        end = time.monotonic() + _START
        while time.monotonic() < end:
            self.processes.check()
            with suppress(TimeoutError):
                return line.accept()[0]
        raise TransportError("stock Flower did not start the ServerApp", retryable=False)

    @property
    def _environment(self) -> dict[str, str]:
        return {"FLWR_HOME": str(self.home)}


def median(turns: Sequence[Sequence[float]]) -> float:
    """Returns the median over all turns."""
    return statistics.median(seconds for turn in turns for seconds in turn)
