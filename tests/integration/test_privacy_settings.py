"""The four settings of ``--privacy`` over Flower messages in process: where the noise is, and who paid for it."""

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import clients.app
import server.conduct
from clients.agent import LocalWork, TorchAgent
from privacy.dp.events import Event
from privacy.dp.plan import DistributedPlan, SitePlan
from privacy.errors import ConfigError
from simulations.accounts import SERVER, Accounts, asset_of
from simulations.job import Job, resolve
from simulations.members import load_member_data
from simulations.options import Options
from simulations.reference import federate
from strategies.contribution import Vector
from tests.integration.test_secagg import FAST, run

Integers = npt.NDArray[np.int64]


def job_of(privacy: str, **settings: str) -> Job:
    return resolve(Options(privacy=privacy, rounds=3, epsilon=Decimal(10), settings={**FAST, **settings}))


def without_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    def share(_plan: DistributedPlan, size: int, survivors: int, entropy: object) -> Integers:
        del survivors, entropy
        return np.zeros(size, np.int64)

    def noised(_plan: SitePlan, total: Integers, entropy: object) -> Integers:
        del entropy
        return total

    monkeypatch.setattr(DistributedPlan, "share", share)
    monkeypatch.setattr(SitePlan, "noised", noised)
    # Nobody who looked at their release paths would begin.
    monkeypatch.setattr(clients.app, "check_release_paths", lambda _site, _entropy: b"")
    monkeypatch.setattr(server.conduct, "check_server", lambda _plan, _entropy: b"")


def events(folder: Path, holder: str, claim: str) -> tuple[Event, ...]:
    return Accounts(folder, "7").events(holder, claim)


@pytest.mark.parametrize(
    ("privacy", "settings"),
    [("site", {}), ("distributed", {}), ("distributed", {"unit": "site"}), ("distributed", {"clip": "0.2"})],
    ids=["central", "records", "sites", "small clip"],
)
def test_but_for_the_noise_a_run_is_the_sum_of_what_was_clipped(
    privacy: str, settings: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_noise(monkeypatch)
    job = job_of(privacy, **settings)
    trained, _, _ = run(job, tmp_path / "run")
    np.testing.assert_array_equal(trained.model, federate(job, load_member_data(job)).model)


def test_a_sum_over_records_is_a_step_of_the_plain_job_where_nothing_is_clipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clip 8 is above every gradient; the grid has 12 bits or so, hence the tolerance."""
    without_noise(monkeypatch)
    trained, _, _ = run(job_of("distributed", clip="8"), tmp_path / "run")
    plain = federate(job_of("none"), load_member_data(job_of("none"))).model
    np.testing.assert_allclose(trained.model, plain, atol=0.01)


def test_a_site_whose_training_went_out_of_bounds_contributes_zero_and_nothing_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else who is in a sum, which everybody may read in the report, would depend on that site's records."""
    without_noise(monkeypatch)
    honest, job = TorchAgent.train, job_of("site")

    def train(agent: TorchAgent, start: Vector, work: LocalWork) -> Vector:
        return honest(agent, start, work) * np.float32(np.nan if agent.site == "va" else 1)

    monkeypatch.setattr(TorchAgent, "train", train)
    trained, _, observer = run(job, tmp_path / "run")
    assert all((len(record.answered), record.attempts) == (4, 1) for record in observer.records)
    np.testing.assert_array_equal(trained.model, federate(job, load_member_data(job)).model)


@pytest.mark.parametrize("privacy", ["site", "distributed"])
def test_noise_is_fresh_in_every_run(privacy: str, tmp_path: Path) -> None:
    first, _, _ = run(job_of(privacy), tmp_path / "first")
    second, _, _ = run(job_of(privacy), tmp_path / "second")
    assert (first.model != second.model).all()


def test_every_site_adds_its_own_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, shares = job_of("distributed"), list[tuple[int, int]]()
    original = DistributedPlan.share

    def watched(plan: DistributedPlan, size: int, survivors: int, entropy: object) -> Integers:
        drawn = original(plan, size, survivors, entropy)  # type: ignore[arg-type]
        shares.append((survivors, int(np.abs(drawn).max())))
        return drawn

    monkeypatch.setattr(DistributedPlan, "share", watched)
    run(job, tmp_path / "run")
    assert len(shares) == 3 * len(job.sites)
    assert {survivors for survivors, _ in shares} == {3}
    assert all(largest > 0 for _, largest in shares)


def test_central_noise_is_the_servers_to_pay(tmp_path: Path) -> None:
    job = job_of("site")
    run(job, tmp_path / "run")
    assert isinstance(job.sum_plan, SitePlan)
    assert events(tmp_path / "run", SERVER, "site") == (job.sum_plan.event(3),)
    assert all(not events(tmp_path / "run", site, "site") for site in job.sites)


def test_two_claims_are_two_lines_and_never_added(tmp_path: Path) -> None:
    job = job_of("record+distributed")
    run(job, tmp_path / "run")
    assert isinstance(job.sum_plan, DistributedPlan)
    for site in job.sites:
        assert events(tmp_path / "run", site, "site-distributed") == (job.sum_plan.event(3),)
        (local,) = events(tmp_path / "run", site, "record")
        assert local.count == 3


def test_a_drop_out_leaves_a_sum_that_is_still_noised_as_priced(tmp_path: Path) -> None:
    """Four sites, at least three survive, one may collude: two shares are the price, and three are in the sum."""
    job = job_of("distributed")
    plan = job.sum_plan
    assert isinstance(plan, DistributedPlan)
    assert (plan.noise.counted, plan.colluders) == (2, 1)
    assert plan.noise.share_variance() * plan.noise.counted >= plan.noise.variance
    trained, _, observer = run(job, tmp_path / "run", drop={"va": "query.secagg"})
    assert np.isfinite(trained.model).all()
    assert all(len(record.answered) == 3 for record in observer.records)


def test_without_masks_there_is_no_noise_in_a_sum() -> None:
    with pytest.raises(ConfigError, match="secure aggregation"):
        resolve(Options(privacy="distributed", secagg=False))


def test_a_site_whose_budget_is_spent_leaves_and_the_others_go_on(tmp_path: Path) -> None:
    job, folder = job_of("record"), tmp_path / "run"
    trained, _, observer = run(job, folder, spend={"va": 5})
    assert [record.answered for record in observer.records] == [job.sites[:3]] * 3
    assert "no room" in observer.records[0].missing[job.sites[3]]
    assert not trained.stopped
    assert Accounts(folder, "7").open("va").executed(asset_of(job, job.sites[3])) == 5


def test_too_few_budgets_stop_the_run_and_keep_the_last_model(tmp_path: Path) -> None:
    """Room for one more attempt at two sites: round 1 is completed, round 2 never opened."""
    job, folder = job_of("record"), tmp_path / "run"
    trained, _, observer = run(job, folder, spend={"va": 4, "cleveland": 4})
    assert [record.skipped for record in observer.records] == [False, True]
    assert "2 sites have privacy budget left, too few" in trained.stopped
    first, _, _ = run(replace(job, task=job.task), tmp_path / "other")
    assert np.isfinite(trained.model).all()
    assert trained.model.shape == first.model.shape
