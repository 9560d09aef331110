"""A run over unequal parts: equal to plain function calls to the bit, and nothing in the clear on its way.

Real machines over Flower messages in process; a tap sees every byte that a site sends.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import clients.app
from clients.agent import LocalWork, TorchAgent
from clients.app import build
from clients.private_part import read_private
from clients.sites import site_of
from clients.work import Work, contribute
from privacy.dp.plan import DistributedPlan, SitePlan
from privacy.errors import ConfigError, FederationError
from privacy.secagg import wire
from privacy.store.run_folder import RunFolder
from server.rounds import RoundRecord
from simulations.accounts import SERVER, Accounts
from simulations.conduct import Trained, train_over
from simulations.demo_charter import establish
from simulations.job import Job, resolve
from simulations.local_grid import LocalGrid, SiteApp
from simulations.members import PRIVATE_FOLDER, fixed_member, load_member_data, member_of
from simulations.options import Options
from simulations.pieces import Pieces
from simulations.reference import federate
from strategies.contribution import Contribution, Vector
from strategies.secure_sum import in_region, to_units
from strategies.task import ModelSpec, SiteId
from tests.integration.test_privacy_settings import without_noise
from tests.integration.test_secagg import FAST, Quiet, Tap, _sleep, accounts_of

NARROW = SiteId("switzerland")


def job_of(scenario: str = "hospitals-parts", **options: Any) -> Job:
    settings = {**FAST, **options.pop("settings", {})}
    chosen = {"scenario": scenario, "privacy": "none", "rounds": 3, "settings": settings, **options}
    return resolve(Options(**chosen))


@dataclass(frozen=True)
class Ran:
    """A run, what left each site, and what it kept."""

    trained: Trained
    sent: Mapping[SiteId, list[bytes]]
    records: list[RoundRecord]
    kept: Pieces
    folder: Path

    def masked(self, site: SiteId) -> list[wire.Msk]:
        """Returns a site's masked inputs, in order."""
        found = [decoded(data) for data in self.sent[site]]
        return [message for message in found if isinstance(message, wire.Msk)]


def decoded(data: bytes) -> wire.Message | None:
    try:
        return wire.decode(data, limit=2**30)
    except FederationError:
        return None  # not of secure aggregation: the roll call, or an update in the clear


def run(job: Job, folder: Path, sent: dict[SiteId, list[bytes]] | None = None) -> Ran:
    """Runs a job in process; ``sent`` is where the tap writes, for whoever wants to see it although the run fails."""
    made, data = RunFolder.create(folder), load_member_data(job)
    (made.path / PRIVATE_FOLDER).mkdir()
    accounts = accounts_of(job, made)
    establish(job, made, datetime.now(UTC))
    sent = {site: [] for site in job.sites} if sent is None else sent
    apps: dict[int, SiteApp] = {}
    for place, site in enumerate(job.sites):
        member = member_of(job, data[site], made.path, accounts)
        apps[place + 1] = Tap(build(fixed_member(member)), sent[site])
    grid, observer = LocalGrid(apps, run_id=7, node_configs={place: {} for place in apps}), Quiet()
    try:
        trained = train_over(grid, job, made, accounts, observer, loss_of=lambda _model: 0.0, sleep=_sleep)
    finally:
        grid.close()
    kept = Pieces.of_run(job, trained.model, made.path)
    return Ran(trained, sent, observer.records, kept, made.path)


def check_equal(ran: Ran, expected: Pieces) -> None:
    """Whether model and private parameters are the same, bit for bit."""
    np.testing.assert_array_equal(ran.trained.model, expected.model)
    assert ran.kept.private.keys() == expected.private.keys()
    for site, values in expected.private.items():
        np.testing.assert_array_equal(ran.kept.private[site], values)


class TestEqualsPlainFunctionCalls:
    def test_model_and_what_each_site_keeps(self, tmp_path: Path) -> None:
        job = job_of()
        ran, expected = run(job, tmp_path / "run"), federate(job, load_member_data(job))
        check_equal(ran, expected)
        assert set(expected.private) == set(job.sites)
        heads = [expected.private[site].tobytes() for site in job.sites]
        assert len(set(heads)) == len(heads)  # everybody's own: nothing summed them
        assert [record.still for record in ran.records] == [()] * 3

    def test_with_batches_and_a_correction_of_every_step(self, tmp_path: Path) -> None:
        job = job_of(strategy="fedprox", settings={"batch": "32", "local_steps": "2"})
        check_equal(run(job, tmp_path / "run"), federate(job, load_member_data(job)))

    def test_with_a_site_whose_units_are_dead(self, tmp_path: Path) -> None:
        """Its update is all zero, so it takes no part in the sums; the other three do."""
        (tmp_path / "dead.toml").write_text(
            'based_on = "hospitals"\nname = "dead"\ntitle = "x"\n'
            '[model]\nkind = "mlp"\nhidden = 8\ninit = "torch"\n[submodels]\nprivate = ["2.bias"]\n'
            '[[submodels.parts]]\nname = "narrow"\nsites = ["switzerland"]\nwidth = 0.125\n'
        )
        job = job_of(str(tmp_path / "dead.toml"), seed=41)
        ran = run(job, tmp_path / "run")
        check_equal(ran, federate(job, load_member_data(job)))
        assert [NARROW in record.answered for record in ran.records] == [False] * 3
        assert not any(record.skipped for record in ran.records)
        assert "are its units dead? Another seed or more width" in ran.records[0].missing[NARROW]

    def test_where_dead_units_leave_too_few(self, tmp_path: Path) -> None:
        """Every attempt loses one of three again: no round comes to a sum, and the model stays as it was."""
        for file in (Path(__file__).parents[2] / "docs" / "examples" / "own-data").iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        (tmp_path / "dead.toml").write_text(
            'based_on = "clinics.toml"\nname = "dead"\ntitle = "x"\n'
            '[model]\nkind = "mlp"\nhidden = 8\ninit = "torch"\n[submodels]\nprivate = ["2.*"]\n'
            '[[submodels.parts]]\nname = "narrow"\nsites = ["valley"]\nwidth = 0.125\n'
        )
        job = job_of(str(tmp_path / "dead.toml"), seed=77, rounds=2)
        np.testing.assert_array_equal(federate(job, load_member_data(job)).model, job.initial)

    def test_with_a_region_that_loses_its_cover(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """One of its three holders has learnt nothing there; another attempt asks for the rest alone."""
        job, honest, odd = job_of(settings={"retries": "2"}), TorchAgent.train, SiteId("va")
        (outer,) = [region.positions for region in job.plan.regions() if NARROW not in region.holders]
        part = job.part_of(odd)
        dead = part.slots[np.searchsorted(part.held, outer)]

        def train(agent: TorchAgent, start: Vector, work: LocalWork) -> Vector:
            trained = honest(agent, start, work)
            if agent.site == odd:
                trained[dead] = start[dead]
            return trained

        monkeypatch.setattr(TorchAgent, "train", train)
        ran = run(job, tmp_path / "run")
        check_equal(ran, federate(job, load_member_data(job)))
        assert [(record.attempts, record.skipped, record.still) for record in ran.records] == [
            (2, False, (1,)), (2, False, (1,)), (1, True, (0, 1)),
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("privacy", "settings"), [("site", {}), ("distributed", {"unit": "site"})], ids=["central", "distributed"]
    )
    def test_but_for_the_noise(
        self, privacy: str, settings: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        without_noise(monkeypatch)
        job = job_of(privacy=privacy, epsilon=Decimal(10), settings=settings)
        check_equal(run(job, tmp_path / "run"), federate(job, load_member_data(job)))


@pytest.mark.parametrize("privacy", ["site", "distributed"])
def test_an_attempt_is_one_debit_and_every_region_is_noised(privacy: str, tmp_path: Path) -> None:
    job = job_of(privacy=privacy, epsilon=Decimal(10), settings={"unit": "site"} if privacy == "distributed" else {})
    plan = job.sum_plan
    assert isinstance(plan, SitePlan | DistributedPlan)
    ran, again = run(job, tmp_path / "run"), run(job, tmp_path / "again")
    accounts = Accounts(ran.folder, "7")
    payers = [SERVER] if privacy == "site" else list(job.sites)
    for payer in payers:
        assert accounts.events(payer, plan.claim) == (plan.event(3),)
        assert [(debit.round, debit.attempt) for debit in accounts.open(payer).debits()] == [(1, 1), (2, 1), (3, 1)]
    for region in job.plan.regions():
        equal = ran.trained.model[region.positions] == again.trained.model[region.positions]
        assert equal.mean() < 0.05  # the noise is of whole grid units: two sums agree in an entry now and then


def forms(values: npt.NDArray[np.float32]) -> Iterator[bytes]:
    """What numbers look like in the clear, one by one: as float32 and as float64."""
    for form in (values, values.astype(np.float64)):
        for value in form[form != 0]:
            yield value.tobytes()


@dataclass(frozen=True)
class Clear:
    """A site's secrets of round 1, in the forms that they would have in the clear."""

    updates: list[bytes]
    private: list[bytes]

    @classmethod
    def of(cls, job: Job, site: SiteId) -> "Clear":
        data = load_member_data(job)[site]
        held = job.plan.held_of(site, {"model": job.initial})
        work = contribute(site_of(job, data.id, data.train), held, round_number=1)
        units = to_units(work.contribution, job.algorithm.declared, 1, lambda n: b"\0" * n, job.encoding)["update"]
        updates = list(forms(work.contribution.arrays["update"]))
        for region in job.plan.regions():
            if site in region.holders:
                part = in_region(units, job.plan.held_by(site), region)
                updates += [value.tobytes() for value in part[part != 0]]
        return cls(updates, list(forms(work.kept["private"])))


def found(secrets: list[bytes], sent: list[bytes]) -> bool:
    return any(secret in data for secret in secrets for data in sent)


class TestWhatLeavesASite:
    def test_is_neither_its_private_parameters_nor_an_unmasked_update_of_a_region(self, tmp_path: Path) -> None:
        job = job_of(rounds=1)
        ran = run(job, tmp_path / "run")
        for site in job.sites:
            clear = Clear.of(job, site)
            kept = read_private(ran.folder / PRIVATE_FOLDER / f"{site}.safetensors", job.part_of(site))
            assert set(forms(kept)) == set(clear.private)  # what is looked for is what the site has
            assert len(ran.sent[site]) == 6  # the roll call and five phases: the tap saw everything
            assert not found(clear.private, ran.sent[site])
            assert not found(clear.updates, ran.sent[site])
        assert all(account.unmasked_arrays == 0 for account in ran.trained.egress.values())

    def test_has_one_masked_entry_for_each_shared_coordinate(self, tmp_path: Path) -> None:
        """By the shapes of the hidden layer: 13 inputs, 16 units or 4 of them; the output layer is private."""
        job = job_of(rounds=1)
        ran = run(job, tmp_path / "run")
        for site in job.sites:
            (message,) = ran.masked(site)
            units = 4 if site == NARROW else 16
            assert sum(map(len, message.y.values())) == 8 * units * (job.task.n_inputs + 1)
            assert len(message.y) == (1 if site == NARROW else 2)

    def test_is_seen_by_the_tap_where_masks_are_taken_out_and_private_ones_added(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The detector detects: a site that contributes its private parameters, in the clear."""

        def leaking(*args: Any, **rest: Any) -> Work:
            work = contribute(*args, **rest)
            return replace(work, contribution=Contribution({**work.contribution.arrays, "head": work.kept["private"]}))

        monkeypatch.setattr(clients.app, "contribute", leaking)
        monkeypatch.setattr(clients.app, "check_sent", lambda *_what: None)  # it would not let them out
        job = replace(job_of(rounds=1), secagg=False)
        sent: dict[SiteId, list[bytes]] = {site: [] for site in job.sites}
        with pytest.raises(FederationError, match="no model was made"):
            run(job, tmp_path / "run", sent)
        for site in job.sites:
            clear = Clear.of(job, site)
            assert found(clear.private, sent[site])
            assert found(clear.updates, sent[site])


class TestAScikitLearnAgent:
    """VA trains with scikit-learn, in the same masked sums as three hospitals with torch."""

    AGENT: Mapping[str, str] = {"agent.va": "scikit-learn", "local_steps": "3", "batch": "32"}

    def job(self, model: str, **options: Any) -> Job:
        job = job_of("hospitals", settings=self.AGENT, epsilon=Decimal(10), **options)
        mlp = ModelSpec("mlp", hidden=(8,), init="torch")
        return job if model == "logistic" else replace(job, task=replace(job.task, model=mlp))

    @pytest.mark.parametrize("model", ["logistic", "mlp"])
    @pytest.mark.parametrize("privacy", ["none", "site"])
    def test_is_summed_with_the_others(
        self, model: str, privacy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        without_noise(monkeypatch)
        job = self.job(model, privacy=privacy)
        ran = run(job, tmp_path / "run")
        np.testing.assert_array_equal(ran.trained.model, federate(job, load_member_data(job)).model)
        assert [record.answered for record in ran.records] == [job.sites] * 3
        assert len(ran.masked(SiteId("va"))) == 3
        torch = replace(job, agents={})
        assert (federate(torch, load_member_data(job)).model != ran.trained.model).any()

    @pytest.mark.parametrize("privacy", ["record", "record+distributed", "distributed"])
    def test_is_refused_where_records_are_protected(self, privacy: str) -> None:
        steps = {"local_steps": "1", "batch": "0"} if privacy == "distributed" else {}
        with pytest.raises(ConfigError, match="scikit-learn agent of va cannot offer record-level privacy") as caught:
            resolve(Options(privacy=privacy, settings={"agent.va": "scikit-learn", **steps}))
        assert "--privacy site" in caught.value.hint
