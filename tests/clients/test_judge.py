"""A site's own judge: facts from its own ledger, settings and clock, whatever the invitation says."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from math import ceil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from clients.chain.payer import Payer, event_under
from clients.gate import PolicyRefusalError
from clients.judge import SiteJudge
from privacy.charter.document import Floors
from privacy.dp.filters import Filter
from privacy.dp.plan import PrivacyPlan, RecordPlan, SitePlan, Unit
from privacy.errors import PrivacyError
from privacy.policy.engine import Request, Verdict
from privacy.policy.floor import FloorRefusalError
from privacy.policy.requests import MOST
from privacy.secagg.context import RoundContext, Thresholds
from privacy.store.budgets import Asset, Debit
from privacy.store.ledger import Ledger
from strategies.job import Job
from strategies.release import Release
from strategies.task import SiteId
from tests.clients.invited import Parties
from tests.federation import ASSET, PURPOSE, STUDY, Federation, federate, study_of
from tests.strategies.test_chain_job import CHAIN, OPEN

ALBA = SiteId("alba")
N_UNITS = 40
MOMENT = datetime(2027, 3, 1, 23, 30, tzinfo=UTC)


NOISY = OPEN.replace('unsafe = "made up"', "clip = 1.0\nnoise = 20.0\nmost = 50")
CUT = STUDY.replace('kind = "logistic"', 'kind = "mlp"\nhidden = [4, 3, 2]\ninit = "torch"') + CHAIN + NOISY


@dataclass
class Policy:
    """Notes what it is asked; refuses if told to."""

    verdict: Verdict = field(default_factory=lambda: Verdict(True, ("yes",), "ab" * 32))
    digest: str = "ab" * 32
    asked: list[Request] = field(default_factory=list)

    def decide(self, request: Request) -> Verdict:
        self.asked.append(request)
        return self.verdict


@dataclass
class Scene:
    parties: Parties
    ledger: Ledger
    policy: Policy = field(default_factory=Policy)
    most_records: int = 1

    def judge(
        self,
        job: Job,
        plans: Sequence[PrivacyPlan] | None = None,
        context: RoundContext | None = None,
        **changes: Any,
    ) -> None:
        settings = self.parties.federation.folders["alba"].settings
        charter = self.parties.federation.charter
        judge = SiteJudge(ALBA, charter, self.policy, settings.assets, self.ledger, lambda: MOMENT, self.most_records)
        assert judge.digest == self.policy.digest
        judge.judge(self.parties.invitation(job, **changes), job, plan(job) if plans is None else plans, context)

    @property
    def context(self) -> dict[str, Any]:
        return dict(self.policy.asked[-1].context)


def plan(job: Job) -> list[RecordPlan]:
    made = job.record_plan(ALBA, N_UNITS)
    return [] if made is None else [made]


@pytest.fixture
def scene(parties: Parties) -> Scene:
    return Scene(parties, parties.federation.folders["alba"].ledger())


@pytest.fixture(scope="module")
def unprotected(founded: Federation) -> Scene:
    """For questions that change nothing."""
    return Scene(Parties(founded), founded.folders["alba"].ledger())


def test_the_policy_is_asked_with_what_the_site_knows(scene: Scene) -> None:
    job = scene.parties.job("record", retries="2")
    scene.judge(job)
    (request,) = scene.policy.asked
    (priced,) = plan(job)
    assert (request.principal, request.action, request.resource) == (("Coordinator", "hub"), "train", ("Asset", ASSET))
    assert request.attributes == {
        "sensitivity": "special-category", "purposes": ("training",), "epsilon_cap_milli": 4000
    }  # fmt: skip
    milli = scene.context
    assert (milli["cohort"], milli["survivors"], milli["threshold"], milli["cover"]) == (4, 3, 3, 3)
    assert (milli["rounds"], milli["secagg"], milli["settings"]) == (5, True, ("record",))
    assert (milli["epsilon_milli"], milli["delta_exponent"]) == (1000, 3)
    assert milli["noise_milli"] == int(priced.noise_multiplier * 1000)
    assert milli["clip_milli"] == 1000
    assert milli["minute"] == 23 * 60 + 30
    assert {milli[name] for name in ("study", "application")} == {
        scene.parties.federation.study.digest, scene.parties.federation.charter.application
    }  # fmt: skip


def test_an_attempt_is_judged_by_its_own_sites_and_limits(unprotected: Scene) -> None:
    scene = replace(unprotected, policy=Policy())
    limits = Thresholds(n_c=2, t=5, min_survivors=6, min_cover=4)
    attempt = cast("RoundContext", SimpleNamespace(cohort=tuple("abcdefg"), thresholds=limits))
    scene.judge(scene.parties.job(), context=attempt)
    told = scene.context
    assert (told["cohort"], told["survivors"], told["threshold"], told["cover"]) == (7, 6, 5, 4)


def test_an_asset_that_has_cost_something_costs_more_after_this_run(scene: Scene) -> None:
    job = scene.parties.job("record")
    (priced,) = plan(job)
    scene.judge(job)
    before = scene.context["epsilon_after_milli"]
    assert before <= 1000 + 1, "one run alone costs what it is calibrated for"
    pay(scene.ledger, priced, "earlier")
    scene.judge(job)
    assert before < scene.context["epsilon_after_milli"] < 2 * before
    pay(scene.ledger, priced, "first")
    after = scene.context["epsilon_after_milli"]
    scene.judge(job)
    assert scene.context["epsilon_after_milli"] == after, "what this run paid already is in its price"


def pay(ledger: Ledger, plan: RecordPlan, run: str) -> None:
    debit = Debit(ASSET, 1, 1, plan.event(plan.max_executions), limit=plan.max_executions, run=run, claim=plan.claim)
    ledger.release(ledger.reserve([debit]))


def test_what_the_run_could_cost_with_all_its_retries_must_fit(scene: Scene) -> None:
    job = scene.parties.job("record", epsilon=Decimal(2))
    (priced,) = plan(job)
    with scene.ledger.reading() as books:
        budget = books.asset(ASSET).budgets[priced.claim]
    assert isinstance(budget, Filter)
    whole = priced.event(priced.max_executions)
    fits = int(budget.limit / budget.cost(whole))
    assert fits > 1
    for run in range(fits):
        scene.judge(job)
        pay(scene.ledger, priced, f"earlier-{run}")
    with pytest.raises(PrivacyError, match="what is left of the budget"):
        scene.judge(job)
    scene.judge(scene.parties.job("record", epsilon=Decimal("0.1"), strategy="fedprox"), plan(small(scene)))


def small(scene: Scene) -> Job:
    return scene.parties.job("record", epsilon=Decimal("0.1"), strategy="fedprox")


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return federate(tmp_path_factory.mktemp("cut") / "fed", study=study_of(text=CUT))


@pytest.mark.parametrize("most_records", [1, 10])
def test_what_crosses_a_chain_with_noise_is_in_the_price_of_the_run(
    cut: Federation, most_records: int, tmp_path: Path
) -> None:
    """From before the run to its end the same number, and it is the ledger's once all is paid."""
    copied = cut.copied(tmp_path / "north")
    scene = Scene(Parties(copied), copied.folders["alba"].ledger(), most_records=most_records)
    job = scene.parties.job("record")
    (priced,) = plan(job)
    (noisy,) = job.chain.released_by(ALBA) if job.chain else ()
    assert isinstance(noisy, Release)
    with scene.ledger.reading() as books:
        budget = books.asset(ASSET).budgets[priced.claim]
    assert isinstance(budget, Filter)
    attempts = job.max_attempts
    whole = budget.spent(
        [priced.event(priced.max_executions), event_under("record", noisy, 2 * attempts, most_records)]
    )
    scene.judge(job)
    told = scene.context["epsilon_after_milli"]
    assert told == ceil(1000 * budget.epsilon_of(whole))
    assert told > 1200, "training alone would be 1000"
    payer = Payer(scene.ledger, ASSET, most_records=most_records, note_ledger=lambda: None)
    for attempt in range(1, attempts + 1):
        payer.pay({noisy: 2})
        scene.judge(job)
        assert told <= scene.context["epsilon_after_milli"] <= ceil(1000 * budget.epsilon_of(budget.limit))
        step = priced.event(priced.steps_per_attempt)
        debit = Debit(ASSET, attempt, 1, step, limit=priced.max_executions, run="first", claim=priced.claim)
        scene.ledger.release(scene.ledger.reserve([debit]))
        scene.judge(job)
        assert scene.context["epsilon_after_milli"] == told
    with scene.ledger.reading() as books:
        assert ceil(1000 * budget.epsilon_of(budget.spent(books.spent(ASSET, priced.claim)))) == told


def test_a_refusal_of_the_policy_names_its_rules(unprotected: Scene) -> None:
    refusing = replace(unprotected, policy=Policy(Verdict(False, ("small-cohort", "day-time"), "ab" * 32)))
    with pytest.raises(PolicyRefusalError, match="small-cohort, day-time") as caught:
        refusing.judge(refusing.parties.job("record"))
    assert caught.value.rules == ("small-cohort", "day-time")


def test_the_floor_holds_whatever_a_policy_would_allow(unprotected: Scene) -> None:
    scene = replace(unprotected, policy=Policy())
    job = scene.parties.job("record")
    weak = scene.parties.job("site", unit=Unit.SITE)
    assert isinstance(weak.sum_plan, SitePlan)
    vars(weak)["sum_plan"] = replace(weak.sum_plan, noise_multiplier=Decimal("0.05"))
    with pytest.raises(FloorRefusalError, match="noise"):
        scene.judge(weak)
    with pytest.raises(FloorRefusalError, match="masks"):
        scene.judge(replace(job, secagg=False))
    assert scene.policy.asked == []


@pytest.mark.parametrize("changes", [{"asset": "lungs"}, {"purpose": "marketing"}], ids=str)
def test_what_the_site_does_not_lend_is_refused_before_anybody_is_asked(
    changes: dict[str, Any], unprotected: Scene
) -> None:
    scene = replace(unprotected, policy=Policy())
    with pytest.raises(PrivacyError, match="this site has no asset"):
        scene.judge(scene.parties.job(), **changes)
    assert scene.policy.asked == []


def test_no_privacy_is_told_as_none(unprotected: Scene) -> None:
    scene = replace(unprotected, policy=Policy())
    scene.judge(scene.parties.job())
    told = scene.context
    assert (told["settings"], told["epsilon_milli"], told["epsilon_after_milli"]) == ((), MOST, MOST)
    assert (told["noise_milli"], told["delta_exponent"]) == (0, 0)


def test_noise_of_the_server_is_told_and_costs_this_site_nothing(unprotected: Scene) -> None:
    scene = replace(unprotected, policy=Policy())
    scene.judge(scene.parties.job("site", unit=Unit.SITE))
    told = scene.context
    assert (told["settings"], told["epsilon_milli"], told["epsilon_after_milli"]) == (("site",), 1000, 1000)


def test_of_two_settings_the_weakest_of_each_number_is_told(unprotected: Scene) -> None:
    scene = replace(unprotected, policy=Policy())
    job, (own,) = scene.parties.job("site", unit=Unit.SITE), plan(scene.parties.job("record"))
    scene.judge(job, [own])
    assert job.sum_plan is not None
    least = min(own.noise_multiplier, job.sum_plan.noise_multiplier)
    assert scene.context["noise_milli"] == int(least * 1000)
    for weaker, told, number in (
        (replace(own, target=Decimal(2)), "epsilon_milli", 2000),
        (replace(own, clip=Decimal(3)), "clip_milli", 3000),
        (replace(own, delta=Decimal("0.02")), "delta_exponent", 1),
    ):
        scene.judge(job, [weaker])
        assert scene.context[told] == number


def test_the_charters_floors_are_told_where_they_are_higher(unprotected: Scene) -> None:
    scene = replace(unprotected, policy=Policy())
    job, charter = scene.parties.job(), scene.parties.federation.charter
    settings = scene.parties.federation.folders["alba"].settings
    raised = replace(charter, floors=Floors(cohort=4, survivors=4, threshold=4, cover=4))
    SiteJudge(ALBA, raised, scene.policy, settings.assets, scene.ledger, lambda: MOMENT, 1).judge(
        scene.parties.invitation(job), job, plan(job)
    )
    assert [scene.context[name] for name in ("survivors", "threshold", "cover")] == [4, 4, 4]


def test_what_was_paid_under_another_claim_is_not_in_the_price(parties: Parties, tmp_path: Path) -> None:
    scene = Scene(parties, Ledger.create(tmp_path / "ledger.db", simulation=True))
    job = parties.job("record")
    (priced,) = plan(job)
    with parties.federation.folders["alba"].ledger().reading() as books:
        budget = books.asset(ASSET).budgets[priced.claim]
    scene.ledger.declare(Asset(ASSET, {priced.claim: budget, "patient": budget}, {PURPOSE: Decimal(1)}))
    paid = [
        Debit(ASSET, 1, 1, priced.event(count), limit=count, run="earlier", purpose=PURPOSE, claim=claim)
        for claim, count in ((priced.claim, 1), ("patient", priced.max_executions))
    ]
    scene.ledger.reserve(paid)
    scene.judge(job)
    assert isinstance(budget, Filter)
    spent = budget.spent([priced.event(1), priced.event(priced.max_executions)])
    assert scene.context["epsilon_after_milli"] == ceil(budget.epsilon_of(spent) * 1000)


def test_a_run_under_a_claim_without_a_budget_is_refused(unprotected: Scene) -> None:
    job = unprotected.parties.job("distributed")
    assert isinstance(job.sum_plan, PrivacyPlan)
    with pytest.raises(PrivacyError, match="no budget of hearts for the claim record-distributed"):
        unprotected.judge(job, [job.sum_plan])
