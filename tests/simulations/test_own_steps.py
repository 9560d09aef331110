"""A site whose agent takes other steps than the rest pays for those, and the report prices each by its own."""

from pathlib import Path
from typing import Any

import pytest

from privacy.audit import consistency, envelope
from privacy.audit.payments import Payment, problems
from privacy.audit.statement import Statement, decode
from privacy.audit.verify import Verdict, verify
from privacy.dp.events import event_from_json
from privacy.keys.signing import parse_trust
from privacy.store.evidence_files import AtHand
from privacy.store.run_folder import REPORT_FILE, TRUST_FILE
from simulations.engines import run_local
from simulations.harness import Experiment
from simulations.job import resolve
from simulations.options import Options
from simulations.progress import PlainObserver

STUDY = 'based_on = "hospitals"\nname = "steps"\ntitle = "Two steps at one site"\n[agents.va]\nlocal_steps = 2\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("steps")
    (home / "steps.toml").write_text(STUDY)
    options = Options(scenario=str(home / "steps.toml"), rounds=2, privacy="record")
    with (home / "lines").open("w") as lines:
        job, observer, out = resolve(options), PlainObserver(lines), home / "run"
        run_local(lambda run: Experiment.prepare(job, options, out, engine="local", run_id=run, observer=observer))
    return out


def found(folder: Path) -> Verdict:
    trust = parse_trust((folder / TRUST_FILE).read_text())
    at_hand: dict[str, Any] = vars(AtHand.beside(folder / REPORT_FILE, {}))
    data = (folder / REPORT_FILE).read_bytes()
    return verify(data, trusted=trust.signers, cosigners=trust.cosigners, threshold=5, **at_hand)


def entries(report: Statement) -> dict[str, dict[str, Any]]:
    (claim,) = report.epsilons
    return {entry["site"]: entry for entry in claim["sites"]}


def test_every_site_is_priced_by_its_own_steps_and_signs(folder: Path) -> None:
    verdict = found(folder)
    assert verdict.exit_code == 0, list(verdict.lines())
    report = decode(envelope.decode((folder / REPORT_FILE).read_bytes()).payload)
    (claim,) = report.epsilons
    told = {site: entry.get("executions_per_attempt", claim["executions_per_attempt"]) for site, entry in
            entries(report).items()}  # fmt: skip
    assert told == {"cleveland": 1, "hungarian": 1, "switzerland": 1, "va": 2}


def test_a_site_that_claims_other_steps_than_it_paid_for_is_found(folder: Path) -> None:
    report = decode(envelope.decode((folder / REPORT_FILE).read_bytes()).payload)
    entry, (claim,) = entries(report)["va"], report.epsilons
    (event,) = [event_from_json(each) for each in entry["events"]]
    name = "record"
    paid = [Payment(name, number, 1, event.times(2)) for number in (1, 2)]
    assert not list(problems(report, "va", paid))
    entry["executions_per_attempt"] = 1 if claim["executions_per_attempt"] == 2 else 4
    assert any("other than" in each for each in problems(report, "va", paid))


def test_a_budget_is_a_whole_number_of_attempts(folder: Path) -> None:
    report = decode(envelope.decode((folder / REPORT_FILE).read_bytes()).payload)
    (claim,) = report.epsilons
    assert not consistency.of_epsilon(report, claim)
    claim |= {"executions_per_attempt": 2, "budget_executions": 2 * claim["budget_executions"] + 1}
    assert any("whole number of attempts" in each for each in consistency.of_epsilon(report, claim))
