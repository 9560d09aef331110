"""`predict --mode chain`: a site's rows through a holder's piece, over gRPC, released and paid for or not at all."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clients.assets import load
from clients.chain import released
from clients.chain.held import HELD_FOLDER
from clients.chain.installed import Installed
from clients.chain.opening import PeerDial
from clients.chain.request import StageRequest
from clients.chain.service import Allowed, StageService
from clients.channel.credentials import Identity
from clients.channel.dialler import Dialler
from clients.channel.listener import Listener
from clients.channel_gate import ChannelGate
from clients.joint.client import Client
from clients.joint.model import SEED
from clients.scores import probabilities
from privacy.dp.accounting import epsilon
from privacy.dp.events import FULL_BATCH, GaussianEvent
from privacy.dp.filters import RELATION
from privacy.errors import FederationError, VerificationError
from privacy.store.log import Record
from strategies.chain_job import pieces
from strategies.chain_plan import ChainPlan, StageSpec, decode_chain_plan
from strategies.models import build
from strategies.release import AnyRelease, Crossing, Release, UnsafeRelease
from strategies.study import read_study
from tests.clients.joint.scene import inference
from tests.federation import ASSET, CHANNEL_POLICY, STUDY, federate, study_of
from tests.integration.real import free_port

MLP = STUDY.replace('kind = "logistic"', 'kind = "mlp"\nhidden = [8, 8]\ninit = "torch"')
PURPOSE = "training"  # one that both the charter's answers and its asset allow
TO_BRNO = frozenset({Crossing.ACTIVATIONS})
UNSAFE = UnsafeRelease("alba", "brno", TO_BRNO, "a test on invented rows")
NOISED = Release("alba", "brno", TO_BRNO, clip=1.0, noise=20.0, most=3)
PLANS: dict[str, tuple[AnyRelease, ...]] = {"as it is": (UNSAFE,), "noised": (NOISED,), "nothing": ()}


def now() -> datetime:
    return datetime.now(UTC)


def plan_of(releases: tuple[AnyRelease, ...]) -> ChainPlan:
    """A U: front and tail at alba, what is between at brno."""
    task = read_study(study_of(text=MLP), where="study.toml").task
    found = pieces(task.model, task.n_inputs, "_0", "_3")
    devices = ("alba", "brno", "alba")
    stages = tuple(
        StageSpec(device, device, piece.start, piece.end, piece.keys, piece.digest)
        for device, piece in zip(devices, found, strict=True)
    )
    return ChainPlan("clinics", "alba", "alba", stages, False, "sgd", 4, 2, releases)


class Pair:
    """Alba asks, brno holds; brno's service in this process, over mutual TLS."""

    def __init__(self, path: Path, stack: ExitStack, text: str = MLP, asset: str = "") -> None:
        plans = {name.replace(" ", "-"): plan_of(releases).digest for name, releases in PLANS.items()}
        agents = ["brno", "cork", "dole"]
        modes = ["chain", "ensemble", "local"]
        terms = inference(agents=agents, weights=dict.fromkeys(agents, 1), modes=modes, purposes=[PURPOSE])
        study, policy = study_of(text=text), CHANNEL_POLICY
        self.federation = federate(path, study=study, policy=policy, asset=asset, inference=terms, chains=plans)
        self.study = read_study(study, where="study.toml")
        port = free_port()
        for site in ("alba", "brno"):
            file = self.federation.folders[site].path / "site.toml"
            file.write_text(f'{file.read_text()}\n[channel]\n[channel.peers]\nbrno = "127.0.0.1:{port}"\n')
        folder = self.federation.folders["brno"]
        own, log = Identity.of_folder(folder, now), folder.log()

        def record(entry: Record) -> None:
            log.append([entry], folder.identity)

        def allowed(_peer: str, request: StageRequest) -> Allowed:
            return Allowed(decode_chain_plan(request.plan), request.seed)

        service = StageService(
            site="brno",
            device="",
            installed=Installed.of_study(self.study),
            authorise=allowed,
            gate=ChannelGate.of_folder(folder, now).hold,
            dial=PeerDial(Dialler(own), dict),
            held=folder.path / HELD_FOLDER,
            record=record,
        )
        stack.enter_context(Listener(f"127.0.0.1:{port}", own, {"stage": service}, record=record))

    @property
    def alba(self) -> Any:
        """The folder of whoever asks."""
        return self.federation.folders["alba"]

    def rows(self, n: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Test rows of alba."""
        return load(self.alba.settings.assets[ASSET], self.study.task).test.x[:n]

    def told(self, site: str, kind: str) -> list[Any]:
        """What a site wrote down."""
        entries = self.federation.folders[site].log().entries()
        return [entry.record.content for entry in entries if entry.record.kind == kind]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(tmp_path_factory.mktemp("chained") / "fed", stack)


def test_the_chain_answers_as_the_whole_model_does_bit_for_bit(both: Pair) -> None:
    x = both.rows(11)
    with Client(both.alba, now=now) as client:
        answer = client.predict(x, mode="chain", plan=plan_of((UNSAFE,)))
    torch.set_num_threads(1)
    whole = build(both.study.task.model, both.study.task.n_inputs, SEED).eval()
    with torch.no_grad():
        expected = np.concatenate([probabilities(whole(torch.from_numpy(part))) for part in np.split(x, [4, 8])])
    np.testing.assert_array_equal(answer.scores, expected)
    assert (answer.mode, answer.agents, answer.spent) == ("chain", 2, None)
    assert both.told("alba", "unsafe-release")[-1]["unsafe"] == UNSAFE.reason
    assert both.told("alba", "channel-decision")[-1]["action"] == "release"
    assert both.told("brno", "channel-decision")[-1]["action"] == "hold"


def test_a_release_with_noise_is_paid_for_before_and_its_most_is_the_end(both: Pair) -> None:
    plan, x = plan_of((NOISED,)), both.rows(3)
    with Client(both.alba, now=now) as client:
        for times in range(1, 4):
            answer = client.predict(x, mode="chain", plan=plan)
            assert both.alba.ledger().executed(ASSET) == times
        assert answer.spent is not None
        assert 0 < answer.spent < 1
        with pytest.raises(FederationError, match="3 are spent"):
            client.predict(x, mode="chain", plan=plan)
    assert both.alba.ledger().executed(ASSET) == 3
    told = [each["facts"] for each in both.told("alba", "channel-decision") if each["facts"].get("noise") != "0"]
    assert [Decimal(told[-1][name]) for name in ("clip", "noise")] == [1, 20]
    after = [Decimal(each["epsilon_after"]) for each in told]
    assert after == sorted(set(after))  # dearer every time
    assert not np.array_equal(answer.scores, client_scores(both, x))


def test_under_a_budget_per_patient_rows_cost_as_if_they_were_one_patients_and_that_stays_paid(tmp_path: Path) -> None:
    with ExitStack() as stack:
        both = Pair(tmp_path / "fed", stack, text='patient = "id"\n' + MLP, asset='claims = ["patient"]')
        ledger = both.alba.path / "ledger.db"
        with sqlite3.connect(ledger) as now_, sqlite3.connect(tmp_path / "old.db") as old:
            now_.backup(old)
        with Client(both.alba, now=now) as client:
            answer = client.predict(both.rows(10), mode="chain", plan=plan_of((NOISED,)))
        (debit,) = both.alba.ledger().debits()
        ten = [GaussianEvent(Decimal(10), FULL_BATCH, 10)]
        with both.alba.ledger().reading() as books:
            budget = books.asset(ASSET).budgets["patient"]
        assert budget.cost(debit.event) >= budget.spent(ten)
        assert answer.spent == pytest.approx(epsilon(ten, budget.delta, RELATION))
        (told,) = [each["facts"] for each in both.told("alba", "channel-decision")]
        assert float(told["epsilon_after"]) == pytest.approx(budget.epsilon_of(budget.cost(debit.event)))
        assert both.told("alba", "ledger-head"), "before anything left"
        for name in ("ledger.db", "ledger.db-wal", "ledger.db-shm"):
            (both.alba.path / name).unlink(missing_ok=True)
        shutil.copy(tmp_path / "old.db", ledger)
        with sqlite3.connect(ledger) as restored:
            restored.execute("PRAGMA journal_mode=WAL")
        ledger.chmod(0o600)
        with pytest.raises(VerificationError):
            both.alba.ledger()


def client_scores(both: Pair, x: Any) -> Any:
    with Client(both.alba, now=now) as client:
        return client.predict(x, mode="chain", plan=plan_of((UNSAFE,))).scores


def test_noise_that_does_not_pass_its_tests_lets_no_question_begin(both: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    held, paid = len(both.told("brno", "channel-decision")), both.alba.ledger().head()
    monkeypatch.setattr(released, "noised", lambda values, _release, _entropy: values)
    with Client(both.alba, now=now) as client, pytest.raises(FederationError, match="fails A1, noise scale"):
        client.predict(both.rows(2), mode="chain", plan=plan_of((NOISED,)))
    assert (len(both.told("brno", "channel-decision")), both.alba.ledger().head()) == (held, paid)


def of_cork() -> ChainPlan:
    """The same chain for cork's records."""
    plan = plan_of(())
    front, held, tail = plan.stages
    ends = [replace(stage, device="cork", organisation="cork") for stage in (front, tail)]
    return replace(plan, home="cork", owner="cork", stages=(ends[0], held, ends[1]))


REFUSED = {
    "without a release": (plan_of(()), "no release"),
    "not in the charter": (replace(plan_of((UNSAFE,)), micro_batch=5), "approved chains"),
    "of somebody else": (of_cork(), "records of cork"),
    "a training plan": (replace(plan_of((UNSAFE,)), train=True), "trains its pieces"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_nobody_agreed_to_is_refused_before_anything_leaves(both: Pair, what: str) -> None:
    plan, why = REFUSED[what]
    held = len(both.told("brno", "channel-decision"))
    with Client(both.alba, now=now) as client, pytest.raises(FederationError, match=why) as refused:
        client.predict(both.rows(2), mode="chain", plan=plan, deadline=5.0)
    assert len(refused.value.lines()) <= 2
    assert len(both.told("brno", "channel-decision")) == held


def test_a_paused_owner_releases_nothing(both: Pair) -> None:
    both.alba.pause(paused=True)
    try:
        with Client(both.alba, now=now) as client, pytest.raises(FederationError, match="paused"):
            client.predict(both.rows(2), mode="chain", plan=plan_of((UNSAFE,)), deadline=5.0)
    finally:
        both.alba.pause(paused=False)


def test_rows_of_a_site_that_is_no_agent_are_shown_to_agents_only_if_its_own_gate_says_so(both: Pair) -> None:
    x = both.rows(2)
    with Client(both.alba, now=now) as client:
        with pytest.raises(FederationError, match="listens"):
            client.predict(x, mode="ensemble", deadline=2.0)
        released = both.told("alba", "channel-decision")[-3:]
        assert [(each["action"], each["facts"]["receiver"], each["allowed"]) for each in released] == [
            ("release", site, True) for site in ("brno", "cork", "dole")
        ]
        both.alba.pause(paused=True)
        try:
            with pytest.raises(FederationError, match="paused"):
                client.predict(x, mode="ensemble", deadline=2.0)
        finally:
            both.alba.pause(paused=False)
