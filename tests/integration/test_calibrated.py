"""A plan made by ``plan --calibrate`` for three processes runs as planned, and takes about as long as it said.

Home is the test's own process; brno and cork run ``collegium stage serve --measure``.
"""

import json
import secrets
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clients.chain.home import Own
from clients.chain.installed import Installed
from clients.chain.opening import PeerDial, open_chain
from clients.chain.released import Releaser
from clients.chain.stage import Learning, Stage
from clients.channel.credentials import Identity
from clients.channel.dialler import Dialler
from privacy.audit import schemas
from strategies.chain_plan import ChainPlan, StageSpec, parse_chain_plan
from tests.federation import CHANNEL_POLICY, PURPOSE, Federation, federate
from tests.integration.real import Command, free_port

SITES = ("alba", "brno", "cork")
LONG, SHORT = "tests.integration.calibrated_model:mlp", "tests.clients.chain.holders:mlp"
STEPS, UNCOUNTED = 50, 3
RATE = 0.01
DEVICE = """
[[devices]]
name = "{site}"
organisation = "{site}"
speed = "5 GFLOP/s"
memory = "{memory}"
bandwidth = "1 kB/s"
round_trip = "10 s"
{address}
"""
RELEASE = """
[[releases]]
owner = "alba"
to = "{site}"
what = ["inputs", "activations", "gradients"]
unsafe = "made-up numbers"
"""


@dataclass
class Works:
    """Three sites, of which two serve."""

    federation: Federation
    ports: dict[str, int]
    model: str

    def planned(self, path: Path, memory: tuple[str, ...]) -> dict[str, Any]:
        """What the command leaves as ``plan.json``, for devices of so much memory."""
        text = "".join(
            DEVICE.format(
                site=site,
                memory=limit,
                address=f'address = "127.0.0.1:{self.ports[site]}"' if site in self.ports else "",
            )
            for site, limit in zip(SITES, memory, strict=True)
        )
        path.mkdir()
        (path / "devices.toml").write_text(text + "".join(RELEASE.format(site=site) for site in self.ports))
        done = Command(
            path / "log", "plan", self.model, "--devices", str(path / "devices.toml"), "--optimizer", "sgd",
            "--calibrate", str(self.federation.folders["alba"].path), "--out", str(path / "plan"),
        )  # fmt: skip
        assert done.wait() == 0, done.text
        found: dict[str, Any] = json.loads((path / "plan" / "plan.json").read_bytes())
        schemas.check("plan-v1", found)
        return found

    def timed(self, plan: ChainPlan) -> list[float]:
        """Seconds of each step over the channel."""
        installed, folder = Installed.of_factory(self.model), self.federation.folders["alba"]
        example = installed.make(0)[1][0]
        drawn = np.random.default_rng(1)
        inputs = torch.from_numpy(drawn.normal(size=example.shape).astype(np.float32))
        labels = torch.from_numpy(drawn.integers(0, 2, len(example)).astype(np.float32))

        def at_work(spec: StageSpec | None) -> Stage | None:
            return None if spec is None else Stage(installed.piece(spec, 0, train=True), Learning(plan.optimizer, RATE))

        own, took = Own(at_work(plan.front), at_work(plan.tail)), []
        releaser = Releaser(plan, payer=None, entropy=secrets.token_bytes, record=lambda _: None)
        releaser.pay(STEPS + UNCOUNTED)
        dialler = Dialler(Identity.of_folder(folder, lambda: datetime.now(UTC)))
        peers = {site: f"127.0.0.1:{port}" for site, port in self.ports.items()}
        try:
            dial = PeerDial(dialler, lambda: peers)
            with open_chain(plan, dial, own, releaser, purpose=PURPOSE, learning_rate=RATE) as driver:
                for _ in range(STEPS + UNCOUNTED):
                    started = time.perf_counter()
                    driver.step(inputs, labels)
                    took.append(time.perf_counter() - started)
        finally:
            dialler.close()
        return took[UNCOUNTED:]


@pytest.fixture
def works(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Works]:
    model: str = request.param
    made = federate(tmp_path / "north", SITES, policy=CHANNEL_POLICY)
    ports = {site: free_port() for site in SITES[1:]}
    peers = "".join(f'{site} = "127.0.0.1:{port}"\n' for site, port in ports.items())
    with ExitStack() as ends:
        for site, port in ports.items():
            folder = made.folders[site].path
            with (folder / "site.toml").open("a") as file:
                file.write(f'[channel]\nlisten = "127.0.0.1:{port}"\n[channel.peers]\n{peers}')
            served = Command(tmp_path / f"{site}.log", "stage", "serve", str(folder), "--model", model, "--measure")
            ends.callback(served.kill)
            served.says("listens on")
        yield Works(made, ports, model)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("works", "memory"),
    [(LONG, ("4 MB", "12 MB", "12 MB")), (SHORT, ("0.7 kB", "1.3 kB", "1.3 kB"))],
    indirect=["works"],
    ids=["long", "short"],
)
def test_a_plan_for_three_devices_takes_about_as_long_as_it_says(
    works: Works, memory: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = works.planned(tmp_path / "planned", memory)
    plan = parse_chain_plan((tmp_path / "planned" / "plan" / "plan.json").read_bytes())
    assert {stage.organisation for stage in plan.stages} >= {"brno", "cork"}
    assert found["measured"]["brno"]["line"]["latency"] < 1
    works.federation.amend(chains={"calibrated": plan.digest})
    estimate, median = found["cost"]["latency"], statistics.median(works.timed(plan))
    pieces = " - ".join(f"{stage.device} {stage.start or 'inputs'}..{stage.end}" for stage in plan.stages)
    told = f"{works.model}: {pieces}: estimate {estimate * 1e3:.3g} ms, median of {STEPS} {median * 1e3:.3g} ms"
    with capsys.disabled():
        sys.stdout.write(f"\n{told}\n")
    if median >= 0.02:
        assert 0.5 <= median / estimate <= 2, told
