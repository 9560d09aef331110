"""`collegium serve` as processes of their own: one stalls, one is killed, and only a sum over all is ever answered."""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from clients.assets import load
from clients.joint.client import Answer, Client
from clients.joint.terms import Queries
from strategies.study import read_study
from tests.clients.joint.scene import inference
from tests.federation import ASSET, CHANNEL_POLICY, SITES, Federation, federate
from tests.integration.real import Command, free_port, until

pytestmark = pytest.mark.soak


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    made = federate(tmp_path / "fed", policy=CHANNEL_POLICY, inference=inference())
    ports = {site: free_port() for site in SITES}
    peers = "".join(f'{site} = "127.0.0.1:{port}"\n' for site, port in ports.items())
    for site, port in ports.items():
        file = made.folders[site].path / "site.toml"
        file.write_text(f'{file.read_text()}\n[channel]\nlisten = "127.0.0.1:{port}"\n[channel.peers]\n{peers}')
    return made


@pytest.fixture
def agents(federation: Federation, tmp_path: Path) -> Iterator[dict[str, Command]]:
    with ExitStack() as stack:
        running = {site: serving(federation, tmp_path, site) for site in SITES}
        for site in SITES:
            stack.callback(lambda name: stopped(running[name]), site)
        for each in running.values():
            each.says("listens on")
        yield running


def serving(federation: Federation, path: Path, site: str) -> Command:
    return Command(path / f"{site}.log", "serve", str(federation.folders[site].path))


def stopped(agent: Command) -> None:
    agent.process.kill()
    agent.process.join(10)


def rows(federation: Federation, n: int) -> Queries:
    folder = federation.folders["alba"]
    return load(folder.settings.assets[ASSET], read_study(folder.study, where="study.toml").task).test.x[:n]


def test_a_stalled_agent_keeps_the_same_and_a_near_question_unanswered_and_a_killed_one_comes_back(
    federation: Federation, agents: dict[str, Command], tmp_path: Path
) -> None:
    x = rows(federation, 10)
    near = (x + np.float32(1e-4)).astype(np.float32)
    with Client(federation.folders["alba"], now=now) as client:
        before = client.predict(x, mode="ensemble", deadline=20.0)
        assert (before.agents, before.fell_back) == (4, "")
        os.kill(agents["cork"].pid, signal.SIGSTOP)
        for question in (x, near):
            stalled = client.predict(question, mode="ensemble", deadline=2.0)
            assert (stalled.mode, stalled.agents) == ("local", 1)
            assert "cork" in stalled.fell_back
            assert stalled.elapsed < 12
        os.kill(agents["cork"].pid, signal.SIGCONT)
        after = until(lambda: _all(client, x), "all four answer again", 60)
        np.testing.assert_array_equal(after.scores, before.scores)
        agents["dole"].process.kill()
        agents["dole"].process.join(10)
        assert client.predict(x, mode="ensemble", deadline=3.0).mode == "local"
        agents["dole"] = serving(federation, tmp_path, "dole")
        agents["dole"].says("listens on")
        after = until(lambda: _all(client, x), "a new process answers", 60)
        np.testing.assert_array_equal(after.scores, before.scores)


def _all(client: Client, x: Queries) -> Answer | None:
    found = client.predict(x, mode="ensemble", deadline=10.0)
    return found if found.mode == "ensemble" else None
