"""Kills in every phase under the studies that ship: ten banks, all of which go on, and four hospitals with no slack.

Run by `make soak` with COLLEGIUM_DATA. Each site is a process with the rows that `collegium scenarios --export` gives
it. What is promised: `banks` completes, `hospitals` completes or ends with one plain reason, whoever was killed is back
within 90 seconds, and no sum holds a contribution that its site has no debit for.
"""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from privacy.charter.document import MAX_DELTA
from simulations.export import export
from strategies.invitation import TRAINING_PARAMETERS
from tests.federation import ASSET, PURPOSE, federate
from tests.integration.kills import PHASES, RECOVERY, DieAt
from tests.integration.real import Works, at_work, free_port, until

pytestmark = [pytest.mark.soak, pytest.mark.timeout(7200)]

REPEATS = int(os.environ.get("COLLEGIUM_SOAK_REPEATS", "10"))
WIDE = {ASSET: {"purposes": [PURPOSE], "epsilon": "100", "delta": str(MAX_DELTA)}}
ANY = {"low": "0", "high": "1000"}


@pytest.fixture(scope="module", params=["banks", "hospitals"])
def studied(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Works]:
    home = tmp_path_factory.mktemp("studies")
    exported = export(request.param, home / "exported", Path(os.environ["COLLEGIUM_DATA"]))
    settings = "".join(f"{name} = {value}\n" for name, value in exported.settings.items())
    made = federate(
        home / "federation",
        tuple(sorted(exported.tables)),
        exported.study.read_text(),
        port=free_port(),
        asset=settings + 'incomplete = "drop"\n',
        assets=WIDE,
        strategies={"fedavg": dict.fromkeys(TRAINING_PARAMETERS, ANY)},
    )
    for site, path in exported.tables.items():
        shutil.copyfile(path, made.data(site))
    with at_work(made) as works:
        yield works


@pytest.mark.parametrize("repeat", range(REPEATS))
@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: f"{phase[0]}-{phase[1]}")
def test_a_site_is_killed(studied: Works, phase: tuple[str, int], repeat: int) -> None:
    works, sites = studied, studied.federation.sites
    victim, name = sites[repeat % len(sites)], f"{phase[0]}-{phase[1]}-{repeat}".replace(".", "-")
    works.agents[victim].kill()
    agent = works.start_agent(victim, DieAt(*phase, answered=repeat % 2 == 1))
    agent.says("connected as node", RECOVERY)
    options = ("--set", "rounds=2", "--set", "retries=3", "--epsilon", "1")
    driver = works.run(name, "fedavg", *options, privacy="record", deadline=15)
    until(lambda: not agent.process.is_alive() or not driver.process.is_alive(), "it dies", RECOVERY)
    assert agent.wait(1) == -signal.SIGKILL, driver.text
    killed = time.monotonic()
    agent = works.start_agent(victim)
    agent.says("connected as node", RECOVERY)
    back, code = time.monotonic() - killed, driver.wait(600)
    print(f"{name}: exit code {code}, back after {back:.0f} s")  # noqa: T201 - a figure to report
    assert all(works.counted(site, name) <= works.paid(site, name) for site in sites), "a debit is lost"
    if works.federation.study.name == "banks" or code == 0:
        assert code == 0, driver.text
        assert [one["round"] for one in works.rounds(name)] == [1, 2]
    else:
        assert code in {1, 2}, driver.text
        assert "Traceback" not in driver.text
