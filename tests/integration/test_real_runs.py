"""Real sites over mutual TLS: whole runs, what a kill costs, what is refused. The long rows are `test_real_soak`'s."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from privacy.audit import egress
from privacy.audit.egress import EGRESS_FILE
from privacy.enrolment.certificates import read_certificate
from strategies.messages import CLOSE, COSIGN, HELLO, MASKED, SECAGG
from tests.federation import HUB, SITES, Federation, federate
from tests.integration.real import Works, at_work, free_port, in_process

PAUSED, KILLED, REVOKED = "brno", "alba", "dole"
UNLISTED = "scaffold"


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Works]:
    made = federate(tmp_path_factory.mktemp("real") / "north", port=free_port())
    made.amend(strategies={name: ends for name, ends in _listed(made).items() if name != UNLISTED})
    with at_work(made) as works:
        yield works


def _listed(made: Federation) -> dict[str, Any]:
    strategies = made.charter.body["strategies"]
    assert UNLISTED in strategies
    return dict(strategies)


def test_a_run_gives_the_model_that_one_process_gives(works: Works) -> None:
    assert works.run("whole").wait() == 0
    assert works.model("whole") == in_process(works.federation, "whole")
    assert [one["answered"] for one in works.rounds("whole")] == [[*SITES]] * 3


def test_a_run_that_is_over_is_closed_at_every_site_with_the_same_account_of_what_left(works: Works) -> None:
    received = egress.read((works.folder("whole") / EGRESS_FILE).read_bytes())
    for site in SITES:
        there = works.folder("whole", site)
        assert (there / "closed").exists()
        assert json.loads((there / "score.json").read_text())["n_test"] > 0
        sent = egress.read((there / "egress.jsonl").read_bytes())["whole"]
        assert sent == received[site]
        assert {one.kind for one in sent} == {HELLO, MASKED, SECAGG, CLOSE, COSIGN}


def test_a_run_goes_on_after_its_driver_was_killed_to_the_same_model(works: Works) -> None:
    driver = works.run("cut")
    works.reach("cut", 1)
    driver.kill()
    assert len(works.rounds("cut")) < 3
    assert works.resume("cut").wait() == 0
    assert [one["round"] for one in works.rounds("cut")] == [1, 2, 3]
    assert works.model("cut") == in_process(works.federation, "cut")


def test_a_strategy_that_the_charter_does_not_list_is_refused_and_on_record(works: Works) -> None:
    driver = works.run("other", UNLISTED)
    assert driver.wait() == 1
    assert UNLISTED in driver.text
    assert not works.folder("other").exists()
    logged = [entry.record.content for entry in works.federation.hub.log().entries() if entry.record.kind == "decision"]
    assert [one["allowed"] for one in logged if one["run"] == "other"] == [False]


def test_a_site_that_is_paused_sends_nothing_and_the_others_go_on(works: Works) -> None:
    folder = str(works.federation.folders[PAUSED].path)
    assert works.collegium("site", "pause", folder, log="pause").wait() == 0
    works.agents[PAUSED].says("paused: this site answers nothing")
    assert works.run("without", "fedavg", "--set", "rounds=1", deadline=3).wait() == 0
    assert [one["answered"] for one in works.rounds("without")] == [[site for site in SITES if site != PAUSED]]
    assert not works.folder("without", PAUSED).exists()
    assert works.collegium("site", "pause", folder, "--resume", log="pause").wait() == 0


def test_a_killed_agent_comes_back_and_every_released_answer_was_paid_for(works: Works) -> None:
    driver = works.run("hurt", "fedavg", "--epsilon", "1", privacy="record", deadline=4)
    works.reach("hurt", 1)
    works.agents[KILLED].kill()
    agent = works.start_agent(KILLED)
    assert driver.wait() == 0, driver.text
    assert len(works.rounds("hurt")) == 3
    assert all(len(one["answered"]) >= 3 for one in works.rounds("hurt"))
    for site in SITES:
        assert works.counted(site, "hurt")
        assert works.counted(site, "hurt") <= works.paid(site, "hurt")
    agent.says("connected as node")  # Flower takes a lost node for present for up to 20 s
    assert all(line.startswith("20") for line in works.server.text.splitlines()), "what Flower logs is a plain line"


def test_a_certificate_that_the_next_charter_takes_back_is_refused_at_once(works: Works) -> None:
    leaf = read_certificate((works.federation.folders[REVOKED].path / "tls.crt").read_bytes())
    agent = works.agents[REVOKED]
    works.federation.amend(HUB, revoked=[format(leaf.serial_number, "x")])
    assert agent.wait(30) == 2
    assert "the charter in force at the server does not list this site's certificate" in agent.text
    again = works.start_agent(REVOKED)
    assert again.wait(30) == 2
    assert "connected as node" not in again.text
    assert works.agents[PAUSED].process.is_alive()
