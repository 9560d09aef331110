"""Long rows for real sites: kills in every phase, lines that fail, clocks, certificates, and what 500 rounds cost.

Run by `make soak`. Five small sites, each behind a line of its own; what took how long is printed, and nothing passes
or fails by it but the recovery within 90 seconds that is promised.
"""

import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from tests.federation import ASSET, PURPOSE, federate
from tests.integration.chaos import GOOD, Chaos, Line
from tests.integration.kills import PHASES, RECOVERY, DieAt
from tests.integration.real import Command, Works, at_work, free_port, in_process, until

pytestmark = [pytest.mark.soak, pytest.mark.timeout(7200)]

SITES = ("alba", "brno", "cork", "dole", "este")
REPEATS = int(os.environ.get("COLLEGIUM_SOAK_REPEATS", "10"))


@dataclass
class Lined:
    """A federation at work, each agent behind a line."""

    works: Works
    lines: dict[str, Chaos]
    number: int = 0

    def name(self) -> str:
        """Of a new run."""
        self.number += 1
        return f"run-{self.number}"


@pytest.fixture(scope="module")
def lined(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lined]:
    port, path = free_port(), tmp_path_factory.mktemp("soak") / "north"
    wide = {ASSET: {"purposes": [PURPOSE], "epsilon": "100", "delta": "0.001"}}
    made = federate(path, SITES, port=port, assets=wide)
    with ExitStack() as stack:
        lines = {site: stack.enter_context(Chaos(port)) for site in SITES}
        for site, line in lines.items():
            made.rewrite(site, "site.toml", old=f":{port}", new=f":{line.port}")
        yield Lined(stack.enter_context(at_work(made)), lines)


@pytest.fixture
def whole(lined: Lined) -> Iterator[Lined]:
    """Everything is in order when a test begins, and put in order when it ends."""
    yield lined
    for line in lined.lines.values():
        line.line = GOOD
    if not lined.works.server.process.is_alive():
        lined.works.start_server()
    for site in SITES:
        if not lined.works.agents[site].process.is_alive():
            lined.works.start_agent(site).says("connected as node", RECOVERY)


@pytest.mark.parametrize("repeat", range(REPEATS))
@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: f"{phase[0]}-{phase[1]}")
def test_a_site_is_killed_in_any_phase(whole: Lined, phase: tuple[str, int], repeat: int) -> None:
    works, name, victim = whole.works, whole.name(), SITES[repeat % len(SITES)]
    works.agents[victim].kill()
    agent = works.start_agent(victim, DieAt(*phase, answered=repeat % 2 == 1))
    agent.says("connected as node", RECOVERY)
    options = ("--set", "rounds=2", "--set", "retries=3", "--epsilon", "1")
    driver = works.run(name, "fedavg", *options, privacy="record", deadline=6)
    assert agent.wait() == -signal.SIGKILL, "it was to die"
    killed = time.monotonic()
    agent = works.start_agent(victim)
    assert driver.wait(300) == 0, driver.text
    assert [one["round"] for one in works.rounds(name)] == [1, 2]
    assert not any(one["skipped"] for one in works.rounds(name))
    assert all(works.counted(site, name) <= works.paid(site, name) for site in SITES)
    agent.says("connected as node", RECOVERY)
    print(f"{phase} {repeat}: back after {time.monotonic() - killed:.0f} s")  # noqa: T201 - a figure to report


@pytest.mark.parametrize("repeat", range(2 * REPEATS))
def test_the_driver_is_killed_and_the_run_resumed_to_the_same_model(whole: Lined, repeat: int) -> None:
    works, name = whole.works, whole.name()
    driver = works.run(name)
    driver.says("calling the roll")
    moment = random.Random(repeat)  # noqa: S311 - when to kill is no secret
    if repeat % 5:
        until(lambda: driver.text.count("round ") >= repeat % 4 or not driver.process.is_alive(), "it gets so far")
        time.sleep(moment.uniform(0, 2))
    else:
        until(lambda: any((works.folder(name, site) / "closed").exists() for site in SITES), "a site has closed it")
    driver.kill()
    assert works.resume(name).wait(300) == 0, driver.text
    assert works.model(name) == in_process(works.federation, name)


def test_the_launcher_is_killed_under_its_agents(whole: Lined) -> None:
    works, name = whole.works, whole.name()
    driver = works.run(name)
    works.reach(name, 1)
    works.server.kill()
    assert driver.wait(120) == 2
    assert "launcher" in driver.text
    killed = time.monotonic()
    works.start_server()
    assert all(works.agents[site].process.is_alive() for site in SITES)
    assert works.resume(name, deadline=15).wait(300) == 0
    print(f"launcher: resumed and done after {time.monotonic() - killed:.0f} s")  # noqa: T201 - a figure to report
    assert works.model(name) == in_process(works.federation, name)


def test_launcher_and_driver_are_killed_together(whole: Lined) -> None:
    works, name = whole.works, whole.name()
    driver = works.run(name)
    works.reach(name, 1)
    driver.kill()
    works.server.kill()
    works.start_server()
    assert works.resume(name, deadline=15).wait(300) == 0
    assert works.model(name) == in_process(works.federation, name)


def test_a_second_driver_is_refused(whole: Lined) -> None:
    works, name = whole.works, whole.name()
    driver = works.run(name)
    works.reach(name, 1)
    second = works.run(whole.name())
    assert second.wait() == 2
    assert "another run is being driven" in second.text
    assert driver.wait() == 0


def _survives(whole: Lined, worsen: Line, seconds: float, *, rounds: int) -> None:
    """Runs while the first site's line is bad for so long; then it heals, and the site is back within 90 s."""
    works, name, site = whole.works, whole.name(), SITES[0]
    driver = works.run(name, "fedavg", "--set", f"rounds={rounds}", "--set", "retries=5", deadline=6)
    works.reach(name, 1)
    whole.lines[site].line = worsen
    time.sleep(seconds)
    whole.lines[site].line = GOOD
    healed, before = time.monotonic(), len(works.rounds(name))

    def back() -> bool:
        if driver.process.is_alive():
            return any(site in one["answered"] for one in works.rounds(name)[before:])
        return site in _heard(works, whole.name())

    until(back, f"{site} is in a sum again", RECOVERY)
    took = time.monotonic() - healed
    assert driver.wait(900) == 0, driver.text
    answered = [site in one["answered"] for one in works.rounds(name)]
    print(f"{worsen}: {sum(answered)} of {len(answered)} rounds with {site}, back after {took:.0f} s")  # noqa: T201


def _heard(works: Works, name: str) -> list[str]:
    assert works.run(name, "fedavg", "--set", "rounds=1").wait(300) == 0
    return list(works.rounds(name)[0]["answered"])


def test_a_minute_of_silence_on_a_line(whole: Lined) -> None:
    _survives(whole, Line(dead=True), 60, rounds=10)


def test_a_slow_line(whole: Lined) -> None:
    _survives(whole, Line(delay=0.1, jitter=0.1, rate=100_000), 30, rounds=5)


def test_a_line_that_is_cut_all_the_time(whole: Lined) -> None:
    _survives(whole, Line(cut_after=40_000), 30, rounds=5)


def test_an_agent_stands_still_for_two_minutes(whole: Lined) -> None:
    works, name, site = whole.works, whole.name(), SITES[1]
    driver = works.run(name, "fedavg", "--set", "rounds=4", deadline=6)
    works.reach(name, 1)
    works.agents[site].signal(signal.SIGSTOP)
    threading.Timer(120, works.agents[site].signal, [signal.SIGCONT]).start()
    stopped = time.monotonic()
    assert driver.wait(300) == 0, driver.text
    time.sleep(max(0.0, 121 - (time.monotonic() - stopped)))
    until(lambda: site in _heard(works, whole.name()), "it is back", RECOVERY)


def test_a_certificate_expires_and_its_renewal_is_there(whole: Lined) -> None:
    works, site = whole.works, SITES[2]
    folder, now = works.federation.folders[site].path, datetime.now(UTC).replace(microsecond=0)
    works.agents[site].kill()
    end = now + timedelta(seconds=50)
    short = works.federation.certificate(site, end=end).public_bytes(Encoding.PEM)
    before = (folder / "tls.crt").read_bytes()
    (folder / "tls.crt").write_bytes(short)
    agent = works.start_agent(site)
    agent.says("connected as node", RECOVERY)
    name = whole.name()
    driver = works.run(name, "fedavg", "--set", "rounds=10", deadline=6)
    works.reach(name, 1)
    (folder / "tls.crt").write_bytes(before)
    assert driver.wait(600) == 0, driver.text
    time.sleep(max(0.0, (end - datetime.now(UTC)).total_seconds() + 2))
    until(lambda: site in _heard(works, whole.name()), "it is back with the renewal", RECOVERY)
    assert agent.process.is_alive()


@dataclass(frozen=True)
class WrongClock:
    """The agent's clock is off by this; OpenSSL's is not, which reads the kernel's."""

    seconds: float

    def __call__(self) -> None:
        from clients import fleet, site_command  # noqa: PLC0415 -- in the agent's process alone

        by = timedelta(seconds=self.seconds)

        class Off(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> "Off":
                return cls.fromtimestamp((datetime.now(tz) + by).timestamp(), tz)

        for module in (fleet, site_command):
            setattr(module, "datetime", Off)  # noqa: B010 -- mypy takes no assignment to a class


@pytest.mark.parametrize("seconds", [-360, 360])
def test_a_clock_that_is_off_by_six_minutes(whole: Lined, seconds: float) -> None:
    works, site = whole.works, SITES[3]
    works.agents[site].kill()
    agent = works.start_agent(site, WrongClock(seconds))
    until(lambda: len(agent.text.splitlines()) >= 2, "it says what is wrong")
    print(agent.text)  # noqa: T201 - to read
    time.sleep(20)  # Flower takes the killed one for present until then
    assert agent.process.is_alive()
    assert "connected as node" not in agent.text
    agent.kill()
    works.start_agent(site).says("connected as node", RECOVERY)


def test_the_same_key_on_two_hosts(whole: Lined) -> None:
    works, site = whole.works, SITES[4]
    twin = works.federation.path / "twin"
    shutil.copytree(works.federation.folders[site].path, twin)
    other = works.collegium("site", "start", str(twin), log="twin")
    other.says("this site is connected already")
    time.sleep(30)
    name = whole.name()
    driver = works.run(name, "fedavg", "--set", "rounds=2", deadline=6)
    assert driver.wait(300) == 0, driver.text
    assert all(site in one["answered"] for one in works.rounds(name))
    assert "connected as node" not in other.text
    other.kill()


def _held(processes: dict[str, Command]) -> dict[str, tuple[int, int]]:
    """Memory and descriptors of each process; of the latter the fewest seen, since files and sockets come and go."""
    fewest = {party: one.descriptors() for party, one in processes.items()}
    for _ in range(50):
        time.sleep(0.1)
        fewest = {party: min(fewest[party], one.descriptors()) for party, one in processes.items()}
    return {party: (one.memory(), fewest[party]) for party, one in processes.items()}


def test_500_rounds_keep_memory_and_descriptors(whole: Lined) -> None:
    works, name = whole.works, whole.name()
    options = ("--set", f"rounds={50 * REPEATS}")
    driver = works.run(name, "fedavg", *options, deadline=30)
    processes: dict[str, Command] = {**works.agents, "launcher": works.server, "driver": driver}
    baseline = (50 * REPEATS) // 10
    works.reach(name, baseline, 3600)
    early = _held(processes)
    works.reach(name, 50 * REPEATS - 5, 7200)
    late = _held(processes)
    for party in processes:
        print(party, early[party], late[party])  # noqa: T201 - figures to report
    assert driver.wait(300) == 0
    assert all(late[party][0] < 1.05 * early[party][0] for party in processes)
    assert all(late[party][1] <= early[party][1] for party in processes)
