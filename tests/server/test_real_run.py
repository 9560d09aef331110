"""Whole runs of a coordinator and four real sites in one process: what they come to, also after a crash."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message

from privacy.audit import conformance_claim, egress, envelope, statement
from privacy.audit.egress import EGRESS_FILE
from privacy.audit.site_statement import SiteStatement, opened
from privacy.audit.testimony import check_growth, keys_of
from privacy.audit.verify import verify
from privacy.charter.rules import CharterRefusalError
from privacy.errors import ConfigError, QuorumError, VerificationError
from privacy.store.evidence_files import AtHand
from privacy.store.run_folder import REPORT_FILE
from server import real_run
from server.exchange import Answers, Exchange
from simulations.local_grid import SiteApp
from strategies.job import Job
from strategies.messages import CLOSE, COSIGN, SECAGG
from tests.clients.invited import RUN, Parties
from tests.federation import ASSET, PURPOSE, Federation, federate


class KilledError(BaseException):
    """The coordinator's process, at that point."""


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return federate(tmp_path_factory.mktemp("founded") / "north")


@pytest.fixture
def parties(founded: Federation, tmp_path: Path) -> Parties:
    return Parties(founded.copied(tmp_path / "north"))


def folder_of(parties: Parties, run: str = RUN) -> Path:
    return parties.federation.hub.path / "runs" / run


def folder_of_site(parties: Parties, site: str) -> Path:
    return parties.federation.folders[site].path / "runs" / RUN


def logged(parties: Parties, kind: str) -> list[Mapping[str, Any]]:
    entries = parties.federation.hub.log().entries()
    return [entry.record.content for entry in entries if entry.record.kind == kind]


def federated_averaging(parties: Parties, rounds: int, rate: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Full-batch logistic regression from zero, one step a round, weighted by records: in closed form."""
    weights = np.zeros(3)
    tables = []
    for site in parties.federation.sites:
        records = next(iter(parties.agent(site)._joined.values())).loaded.train
        tables.append((np.hstack([records.x, np.ones((len(records), 1))]).astype(np.float64), records.y))
    total = sum(len(y) for _, y in tables)
    for _ in range(rounds):
        steps = [x.T @ (1 / (1 + np.exp(-x @ weights)) - y) / len(y) for x, y in tables]
        weights -= rate * sum(len(y) * step for (_, y), step in zip(tables, steps, strict=True)) / total
    return weights


def kill_at(parties: Parties, line: str) -> None:
    """The coordinator dies once it told people that."""

    class Lines(list[str]):
        def append(self, told: str) -> None:
            super().append(told)
            if told.startswith(line):
                raise KilledError

    parties.lines = Lines()


def test_a_run_comes_to_the_model_that_federated_averaging_comes_to(parties: Parties) -> None:
    job = parties.job()
    done = parties.run(job)
    assert np.allclose(done.model, federated_averaging(parties, 3, 0.5), atol=1e-6)
    assert [record.answered for record in done.rounds] == [parties.federation.sites] * 3
    told = (folder_of(parties) / "run.toml").read_text()
    assert 'status = "finished"' in told
    assert job.digest in told
    assert (folder_of(parties) / "model.safetensors").is_file()
    assert [entry["allowed"] for entry in logged(parties, "decision")] == [True]
    assert [entry["round"] for entry in logged(parties, "round")] == [1, 2, 3]
    assert [entry["run"] for entry in logged(parties, "run-closed")] == [RUN]
    for site in parties.federation.sites:
        kept = folder_of_site(parties, site)
        assert np.array_equal(np.frombuffer((kept / "model.f32").read_bytes(), "<f4"), done.model)
        assert {"metric", "score", "interval", "n_test"} == set(json.loads((kept / "score.json").read_text()))


def test_what_sites_state_is_what_the_server_received_and_was_paid_for_and_was_witnessed(
    parties: Parties, statements: Callable[[Parties], dict[str, SiteStatement]]
) -> None:
    job = parties.job("record", retries="0")
    parties.run(job)
    charter, log = parties.federation.charter, parties.federation.hub.log()
    received = egress.read((folder_of(parties) / EGRESS_FILE).read_bytes())
    stated = statements(parties)
    assert set(stated) == set(parties.federation.sites)
    for site, one in stated.items():
        assert sorted(one.egress) == sorted(sent for sent in received[site] if sent.kind not in {CLOSE, COSIGN})
        assert (one.allowed, one.refusals, one.job, one.run) == (4, (), job.digest, RUN)
        assert [(line["claim"], line["round"]) for line in one.debits] == [("record", n) for n in (1, 2, 3)]
        assert parties.debits(site) == 3
        check_growth(one, charter, log.note(), log.growth(parties.server_log(site).seen))


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> Callable[[Parties], dict[str, SiteStatement]]:
    """Reads what the sites answered to the last message of a run."""
    payloads: dict[str, bytes] = {}
    asked = Exchange.ask

    def ask(self: Exchange, kind: str, questions: Mapping[Any, bytes], *, group: str) -> Answers:
        answers = asked(self, kind, questions, group=group)
        if kind == CLOSE:
            assert answers.missing == {}
            payloads.update((str(site), data) for site, data in answers.payloads.items())
        return answers

    monkeypatch.setattr(Exchange, "ask", ask)
    return lambda parties: {s: opened(data, keys_of(parties.federation.charter)) for s, data in payloads.items()}


@pytest.mark.parametrize("restarted", [False, True], ids=["same agents", "new agents"])
def test_a_run_that_was_killed_comes_to_the_model_of_one_that_was_not(
    restarted: bool, founded: Federation, tmp_path: Path
) -> None:
    """Scaffold's sites remember something between rounds, and may not forget it."""
    whole, killed = (Parties(founded.copied(tmp_path / name)) for name in ("whole", "killed"))
    job = whole.job(strategy="scaffold", local_steps="2")
    expected = whole.run(job).model
    kill_at(killed, "round 2 of 3")
    with pytest.raises(KilledError):
        killed.run(job)
    assert 'status = "interrupted"' in (folder_of(killed) / "run.toml").read_text()
    if restarted:
        for site in founded.sites:
            killed.restart(site)
    killed.lines = []
    done = killed.drive()
    assert [record.round for record in done.rounds] == [1, 2, 3]
    assert np.array_equal(done.model, expected)
    assert [entry["resumed"] for entry in logged(killed, "run-started")] == [False, True]


def test_a_coordinator_that_is_killed_while_it_closes_still_gets_its_report(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = parties.job()
    asked = Exchange.ask
    killed: list[str] = []

    def ask(self: Exchange, kind: str, questions: Mapping[Any, bytes], *, group: str) -> Answers:
        answers = asked(self, kind, questions, group=group)
        if kind == CLOSE and not killed:
            killed.append(kind)
            raise KilledError
        return answers

    monkeypatch.setattr(Exchange, "ask", ask)
    with pytest.raises(KilledError):
        parties.run(job)
    done = parties.drive()
    assert len(done.rounds) == 3
    assert (folder_of(parties) / "model.safetensors").is_file()
    assert 'status = "finished"' in (folder_of(parties) / "run.toml").read_text()


def test_an_attempt_that_the_coordinator_lost_is_paid_for_and_reported(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One site is silent at the end: what it paid is what it was asked for, in an attempt without a record as well."""
    asked, silent, killed = Exchange.ask, parties.federation.sites[0], list[str]()

    def ask(self: Exchange, kind: str, questions: Mapping[Any, bytes], *, group: str) -> Answers:
        if kind == CLOSE:
            questions = {site: data for site, data in questions.items() if site != silent}
        answers = asked(self, kind, questions, group=group)
        if (kind, group) == (SECAGG, "2"):
            killed.append(kind)
            if killed == [SECAGG] * 2:  # shares and masked vectors are in
                raise KilledError
        return answers

    monkeypatch.setattr(Exchange, "ask", ask)
    with pytest.raises(KilledError):
        parties.run(parties.job("record", retries="0"))
    done = parties.drive()
    assert ([record.attempts for record in done.rounds], done.lost_attempts, done.attempts) == ([1], 1, 2)
    assert [parties.debits(site) for site in parties.federation.sites] == [2] * 4
    found = folder_of(parties)
    told = statement.decode(envelope.decode((found / REPORT_FILE).read_bytes()).payload)
    (claim,) = told.epsilons
    assert [one["events"][0]["count"] for one in claim["sites"]] == [2] * 4
    assert len({one["epsilon"] for one in claim["sites"]}) == 1
    stated = told.claim("sites.statements") or {}
    assert [(one["site"], one["reason"]) for one in stated["unattested"]] == [(silent, "it did not answer")]
    tested = folder_of_site(parties, silent) / "conformance"
    assert tested.read_bytes() == conformance_claim.said_by(told, silent) != b""
    attempts = (told.claim("secagg.rounds") or {})["attempts"]
    assert [(one["round"], one["attempt"], one["aborted"]) for one in attempts] == [
        (1, 1, None),
        (2, 1, "the coordinator ended in the middle of it"),
    ]
    at_hand = vars(AtHand.beside(found / REPORT_FILE))
    verdict = verify((found / REPORT_FILE).read_bytes(), self_signed=True, **at_hand)
    assert [one.id for one in verdict.claims if one.verdict == "fails"] == []


def test_noise_that_the_server_adds_is_debited_to_its_own_ledger(parties: Parties) -> None:
    parties.run(parties.job("site", unit="site"))
    debits = parties.federation.hub.ledger().debits(ASSET)
    assert [(debit.run, debit.round, debit.claim) for debit in debits] == [(RUN, n, "site") for n in (1, 2, 3)]
    assert [parties.debits(site) for site in parties.federation.sites] == [0] * 4


def begun(parties: Parties, job: Job) -> None:
    coordinator = parties.coordinator
    coordinator.begin(job, coordinator.invite(job, run=RUN, purpose=PURPOSE, asset=ASSET))


def test_what_the_charter_does_not_list_is_refused_on_record_before_anybody_is_asked(parties: Parties) -> None:
    listed = parties.federation.charter.body["strategies"]
    parties.federation.amend(strategies={"fedavg": listed["fedavg"]})
    with pytest.raises(CharterRefusalError, match="strategy 'fedprox' is not listed"):
        begun(parties, parties.job(strategy="fedprox"))
    assert [(entry["allowed"], entry["strategy"]) for entry in logged(parties, "decision")] == [(False, "fedprox")]
    assert not folder_of(parties).exists()


@pytest.mark.parametrize("setting", ["epsilon", "delta", "clip"])
def test_the_coordinator_asks_the_charter_about_noise_that_only_the_sites_can_price(
    setting: str, parties: Parties
) -> None:
    terms = {"epsilon": "2", "delta": "0.001", "clip": "10", "noise": "0.5"}
    less = {"epsilon": "0.5", "delta": "0.0001", "clip": "0.5"}[setting]
    parties.federation.amend(privacy={"record": {**terms, setting: less}})
    with pytest.raises(CharterRefusalError, match=setting):
        begun(parties, parties.job("record"))


def test_a_run_is_begun_once_and_found_again_only_if_it_is_our_own(parties: Parties) -> None:
    job = parties.job()
    begun(parties, job)
    assert parties.coordinator.invited_to(RUN)[2].digest == job.digest
    with pytest.raises(ConfigError, match="there is a run first already"):
        begun(parties, job)
    with pytest.raises(ConfigError, match="there is no run second"):
        parties.coordinator.invited_to("second")
    path = folder_of(parties) / "invitation.json"
    path.write_bytes(path.read_bytes().replace(b'"seed":1', b'"seed":2'))
    with pytest.raises(VerificationError):
        parties.coordinator.invited_to(RUN)
    with pytest.raises(VerificationError):
        parties.drive()


def test_a_run_that_could_not_be_begun_can_be_begun_again(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_folder: Path, _keys: object) -> None:
        raise ConfigError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(real_run, "begin_transcript", full)
        with pytest.raises(ConfigError, match="no space left"):
            begun(parties, parties.job())
    assert not folder_of(parties).exists()
    begun(parties, parties.job())


def test_a_node_that_answers_as_another_site_is_not_believed(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which node a site is follows from its key in the charter: here those of two sites are exchanged."""
    genuine, exchanged = parties._app, {"alba": "brno", "brno": "alba"}

    def app(site: str) -> SiteApp:
        return genuine(exchanged.get(site, site))

    monkeypatch.setattr(parties, "_app", app)
    with pytest.raises(QuorumError, match="2 of 4 sites answered"):
        parties.run(parties.job())


@pytest.mark.parametrize("unit", ["record", "site"])
def test_a_site_that_does_not_come_back_is_reported_with_what_it_said_before(
    unit: str, parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answered a round: the report says what it may have paid, and rests on the tests of its release path."""
    gone = parties.federation.sites[-1]
    kill_at(parties, "round 1 of 3")
    with pytest.raises(KilledError):
        parties.run(parties.job(unit, retries="0", unit=unit))
    without(parties, monkeypatch, gone)
    parties.lines = []
    done = parties.drive()
    assert [gone in record.answered for record in done.rounds] == [True, False, False]
    found = folder_of(parties) / REPORT_FILE
    told = statement.decode(envelope.decode(found.read_bytes()).payload)
    (claim,) = told.epsilons
    paid = {one["site"]: one["events"][0]["count"] for one in claim["sites"]}
    assert paid == ({"server": 3} if unit == "site" else dict.fromkeys(parties.federation.sites, 3))
    assert conformance_claim.said_by(told, gone) == (folder_of_site(parties, gone) / "conformance").read_bytes() != b""
    stated = told.claim("sites.statements") or {}
    assert [(one["site"], one["reason"]) for one in stated["unattested"]] == [(gone, "it did not answer")]
    verdict = verify(found.read_bytes(), self_signed=True, **vars(AtHand.beside(found)))
    assert [one.id for one in verdict.claims if one.verdict == "fails"] == []


def test_a_site_that_comes_back_later_is_in_every_round_of_the_report(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = parties.federation.sites[-1]
    kill_at(parties, "round 1 of 3")
    with pytest.raises(KilledError):
        parties.run(parties.job("record"))
    kill_at(parties, "round 2 of 3")
    with monkeypatch.context() as patched:
        without(parties, patched, gone)
        with pytest.raises(KilledError):
            parties.drive()
    parties.lines = []
    done = parties.drive()
    assert [gone in record.answered for record in done.rounds] == [True, False, True]
    assert gone in done.rounds[1].missing
    found = folder_of(parties) / REPORT_FILE
    verdict = verify(found.read_bytes(), self_signed=True, **vars(AtHand.beside(found)))
    assert [one.id for one in verdict.claims if one.verdict == "fails"] == []


def without(parties: Parties, monkeypatch: pytest.MonkeyPatch, site: str) -> None:
    """From now on nobody reaches the site's agent."""
    genuine = parties._app

    def app(name: str) -> SiteApp:
        def silent(_message: Message, _context: Context) -> Message:
            raise ConnectionError

        return silent if name == site else genuine(name)

    monkeypatch.setattr(parties, "_app", app)
