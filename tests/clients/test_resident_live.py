"""The agent against servers that are real, on loopback: it answers, and comes back from whatever happens to them."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from flwr.app import Context, Message
from flwr.proto import fleet_pb2

from clients.connection import FleetRefusedError
from clients.fleet import payload_of
from clients.resident import Resident
from tests.clients.fleet_servers import Authority, Call, Flower, scripted
from tests.clients.test_resident import SECONDS, echo


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca")).make()


@pytest.fixture
def flower(authority: Authority) -> Iterator[Flower]:
    server = Flower(authority).start()
    yield server
    server.kill()


def until(holds: Callable[[], object], seconds: float = SECONDS) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextmanager
def agent(
    authority: Authority, port: Callable[[], int], answer: Callable[[Message, Context], Message] = echo
) -> Iterator[list[str]]:
    """Runs an agent in a thread; yields the lines that it says, the last of which is why it ended."""
    lines: list[str] = []
    stop = threading.Event()
    resident = Resident(
        lambda: authority.fleet(port()),
        answer,
        allowed=frozenset({"train.round"}),
        paused=lambda: False,
        report=lines.append,
        sent=lambda *_what: None,
        back_off=lambda _failures: 0.02,
    )

    def run() -> None:
        try:
            resident.run(stop)
        except FleetRefusedError as error:
            lines.append(f"ended: {error}")
        else:
            lines.append("ended")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield lines
    finally:
        stop.set()
        thread.join(SECONDS)
        assert not thread.is_alive()


def answered(server: Flower, payload: bytes, seconds: float = SECONDS) -> bytes:
    """What the site answers to a question; Flower takes none for a node that is offline."""
    until(lambda: server.online, seconds)
    question, found = server.ask("train.round", payload), list[Message]()

    def arrived() -> bool:
        reply = server.reply(question)
        found.extend([reply] if reply else [])
        return bool(found)

    until(arrived, seconds)
    return payload_of(found[0])


def test_it_answers_leaves_and_is_back_after_the_server_was_killed(authority: Authority) -> None:
    server = Flower(authority).start()
    with agent(authority, lambda: server.port) as lines:
        assert answered(server, b"one") == b"to one"
        server.kill()
        until(lambda: "does not answer" in lines[-1])
        server.start()
        assert answered(server, b"two") == b"to two"
        assert lines[0] == lines[-1] == f"connected as node {server.node}"
    assert lines[-1] == "ended"
    assert not server.online
    server.kill()


def test_a_finished_run_costs_one_message_and_the_next_run_is_answered(authority: Authority, flower: Flower) -> None:
    def answer(message: Message, context: Context) -> Message:
        if payload_of(message) == b"last":
            flower.finish()
        return echo(message, context)

    with agent(authority, lambda: flower.port, answer) as lines:
        until(lambda: flower.online)
        flower.ask("train.round", b"last")
        until(lambda: any("was dropped" in line for line in lines))
        assert "status 403" in lines[-1]
        flower.begin()
        assert answered(flower, b"next") == b"to next"


def test_an_agent_that_was_told_to_end_says_goodbye_and_ends_well(authority: Authority, flower: Flower) -> None:
    with process(authority, flower) as running:
        assert answered(flower, b"me", 30) == b"to me"
        running.send_signal(signal.SIGTERM)
        assert running.wait(SECONDS) == 0
        assert not flower.online


BAD = [401, 403, 404, 412, 429, 500, 502, 503]


@pytest.mark.parametrize("status", BAD)
def test_no_status_ends_it(authority: Authority, status: int) -> None:
    left = [status] * 5

    def script(call: Call) -> None:
        if left:
            call.answer(left.pop())
        else:
            call.answer(body=fleet_pb2.ActivateNodeResponse(node_id=7).SerializeToString())

    with scripted(authority.server(), script) as server, agent(authority, lambda: server.port) as lines:
        until(lambda: server.calls.count("activate-node") > 5)
        until(lambda: any(f"status {status}" in line for line in lines))
        assert not any(line.startswith("ended") for line in lines)


def test_no_line_that_is_cut_inside_the_handshake_ends_it(authority: Authority, flower: Flower) -> None:
    with scripted(None, lambda _call: None) as cutting:
        port = cutting.port
        with agent(authority, lambda: port) as lines:
            until(lambda: lines)
            time.sleep(0.3)
            port = flower.port
            assert answered(flower, b"me") == b"to me"
        assert lines[0].startswith("the server does not answer")


def test_the_doors_word_ends_it(authority: Authority) -> None:
    def script(call: Call) -> None:
        call.answer(403, collegium_refused="charter")

    with scripted(authority.server(), script) as server, agent(authority, lambda: server.port) as lines:
        until(lambda: lines)
        assert lines == ["ended: the charter in force at the server does not list this site's certificate"]
        assert server.calls == ["activate-node"]


@contextmanager
def process(authority: Authority, server: Flower) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "tests.clients.agent_process", str(authority.folder), str(server.port)]
    running = subprocess.Popen(
        command, cwd=Path(__file__).parents[2], env={**os.environ, "FLWR_TELEMETRY_ENABLED": "0"}
    )
    try:
        yield running
    finally:
        running.kill()
        running.wait()


@pytest.mark.soak
def test_a_killed_agent_is_back_when_flower_has_missed_it(authority: Authority, flower: Flower) -> None:
    with process(authority, flower):
        assert answered(flower, b"one", 30) == b"to one"
    with process(authority, flower):
        until(lambda: not flower.online, 40)
        assert answered(flower, b"two", 60) == b"to two"


@pytest.mark.soak
def test_an_agent_that_was_stopped_for_longer_than_flower_waits_is_back(authority: Authority, flower: Flower) -> None:
    with process(authority, flower) as running:
        assert answered(flower, b"one", 30) == b"to one"
        running.send_signal(signal.SIGSTOP)
        until(lambda: not flower.online, 40)
        running.send_signal(signal.SIGCONT)
        assert answered(flower, b"two", 60) == b"to two"
