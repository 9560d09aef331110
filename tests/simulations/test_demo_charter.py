"""Simulations run under a charter too: the gate is asked, and what the scenario's charter does not list is refused."""

import base64
import json
import subprocess
import sys
import tomllib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from privacy.audit import canonical
from privacy.audit.approval import CHARTER_FILE, adopted
from privacy.charter import rules
from privacy.charter.signatures import decode, verify_chain
from privacy.errors import FederationError, VerificationError
from privacy.store.run_folder import RunFolder
from simulations.demo_charter import (
    ASSET,
    PURPOSE,
    demo_charter,
    establish,
    federation_of,
    pinned,
    simulated_application,
)
from simulations.identities import Identities
from simulations.job import Job, resolve
from simulations.options import Options
from strategies.invitation import invite
from strategies.registry import ALGORITHMS

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
CHARTERED = """
based_on = "hospitals"
name = "chartered"
title = "Hospitals whose charter lists two strategies"

[charter]
strategies = ["fedavg", "fedprox"]
"""


@pytest.fixture
def chartered(tmp_path: Path) -> str:
    path = tmp_path / "chartered.toml"
    path.write_text(CHARTERED)
    return str(path)


def identities(job: Job, folder: Path) -> Identities:
    return Identities.create(folder, job.sites)


def allowed(job: Job, folder: Path, *, at: datetime = NOW) -> None:
    """Raises unless the charter of the job's scenario allows the job, updates in the clear included."""
    charter = demo_charter(job, identities(job, folder), NOW).charter
    sent = invite(
        job,
        federation=federation_of(job),
        run="1",
        charter=charter.digest,
        application=simulated_application(),
        study=job.scenario.study.digest,
        purpose=PURPOSE,
        asset=ASSET,
    )
    rules.check(charter, sent.proposal(job, (), charter.floors), at, unsafe_without_masks=not job.secagg)


@pytest.mark.parametrize("strategy", ALGORITHMS)
def test_a_scenario_that_lists_nothing_allows_every_strategy(strategy: str, tmp_path: Path) -> None:
    allowed(resolve(Options(strategy=strategy, privacy="none")), tmp_path)


@pytest.mark.parametrize("strategy", ALGORITHMS)
def test_a_scenario_that_lists_strategies_allows_no_other(strategy: str, chartered: str, tmp_path: Path) -> None:
    job = resolve(Options(scenario=chartered, strategy=strategy, privacy="none"))
    if strategy in {"fedavg", "fedprox"}:
        allowed(job, tmp_path)
        return
    with pytest.raises(rules.CharterRefusalError, match="only fedavg, fedprox") as caught:
        allowed(job, tmp_path)
    assert caught.value.clause == "strategy"


def test_the_charter_names_who_and_what_and_when(tmp_path: Path) -> None:
    job = resolve(Options(scenario="hospitals"))
    known = identities(job, tmp_path)
    signed = demo_charter(job, known, NOW)
    charter = verify_chain([decode(signed.encode())])
    assert tuple(charter.sites) == tuple(sorted(job.sites))
    assert {site: one.identity for site, one in charter.sites.items()} == dict(known.roster.keys)
    assert charter.server.identity == known.coordinator.public_key
    assert charter.application == simulated_application()
    assert set(charter.studies.values()) == {job.scenario.study.digest}
    assert (charter.not_before, charter.not_after) == (NOW - timedelta(days=1), NOW + timedelta(days=7))


@pytest.mark.parametrize("days", [-2, 8])
def test_the_charter_of_a_run_ends_with_the_week(days: int, tmp_path: Path) -> None:
    job = resolve(Options(scenario="hospitals", privacy="none"))
    with pytest.raises(rules.CharterRefusalError, match="nothing may run"):
        allowed(job, tmp_path, at=NOW + timedelta(days=days))


def test_what_was_established_is_what_is_pinned_and_no_other_charter_is(tmp_path: Path) -> None:
    job = resolve(Options(scenario="hospitals"))
    folder = RunFolder.create(tmp_path / "run")
    establish(job, folder, NOW)
    charter, path = pinned(folder.path), folder.path / CHARTER_FILE
    assert charter == adopted(path.read_bytes())
    line = json.loads(path.read_bytes())
    body = base64.b64decode(line["payload"]).replace(b'"unsafe_without_dp":true', b'"unsafe_without_dp":false')
    path.write_bytes(canonical.dumps({**line, "payload": base64.b64encode(body).decode()}) + b"\n")
    with pytest.raises(FederationError):
        pinned(folder.path)


def test_two_runs_have_officers_of_their_own(tmp_path: Path) -> None:
    job = resolve(Options(scenario="hospitals"))
    known = identities(job, tmp_path)
    one, two = (demo_charter(job, known, NOW).charter for _ in range(2))
    assert {officer.key for officer in one.officers}.isdisjoint({officer.key for officer in two.officers})
    forged = replace(demo_charter(job, known, NOW), charter=one)
    with pytest.raises(VerificationError):
        verify_chain([forged])


def test_the_local_engine_refuses_what_the_charter_does_not_list(chartered: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("collegium")), "simulate", chartered, "--strategy", "fedadam",
            "--privacy", "none", "--rounds", "1", "--out", "run",
        ],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode != 0
    assert "the charter forbids this (strategy): strategy 'fedadam' is not listed" in done.stderr
    assert tomllib.loads((tmp_path / "run" / "run.toml").read_text())["status"] == "stopped"
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_charter_lists_strategies_that_there_are(tmp_path: Path) -> None:
    path = tmp_path / "odd.toml"
    path.write_text(CHARTERED.replace('"fedprox"', json.dumps("fedmagic")))
    with pytest.raises(FederationError, match="there is no strategy 'fedmagic'"):
        resolve(Options(scenario=str(path)))
