"""A job: all that decides a run, in one digest."""

from dataclasses import fields, replace
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from privacy.dp.plan import DistributedPlan, SitePlan, Unit
from strategies.chain_spec import ChainSpec
from strategies.fed_avg import FedProx
from strategies.job import Job, exact
from strategies.parts import AgentSpec, Division
from strategies.task import SiteId
from tests.strategies.studied import DIVIDED, SITES, TERMS, job, study

CHANGED: dict[str, Any] = {
    "name": "another",
    "task": replace(job().task, training=replace(job().task.training, clip=2.0)),
    "strategy": "fedprox",
    "algorithm": FedProx(0.1),
    "sites": SITES[:4],
    "seed": 8,
    "privacy": ("record",),
    "unit": Unit.SITE,
    "secagg": False,
    "epsilon": Decimal(2),
    "delta": Decimal("0.002"),
    "division": Division(private=("2.*",)),
    "agents": {SITES[0]: AgentSpec("scikit-learn")},
    "chain": ChainSpec("hub", "_1"),
}


def test_every_field_of_a_job_is_here() -> None:
    assert set(CHANGED) == {field.name for field in fields(Job)}


@pytest.mark.parametrize("name", CHANGED)
def test_whatever_decides_a_run_is_in_its_digest(name: str) -> None:
    assert replace(job(), **{name: CHANGED[name]}).digest != job().digest


def test_two_parties_come_to_the_same_digest() -> None:
    assert job().digest == job().digest
    assert job().digest == job(of=study("# a comment\n" + study_text())).digest


def study_text() -> str:
    return DIVIDED.partition("[[submodels")[0]


def test_sites_train_their_part_by_their_own_agent() -> None:
    divided = job(of=study(DIVIDED))
    brno, cork = SITES[1], SITES[2]
    assert [divided.spec_of(site).hidden for site in SITES] == [(4,), (2,), (4,), (4,), (4,)]
    assert divided.part_of(brno).held.size < divided.initial.size == divided.part_of(cork).held.size
    assert divided.initial_of(brno).size == divided.part_of(brno).piece.size
    assert [divided.agent_of(site).kind for site in SITES] == ["torch", "torch", "scikit-learn", "torch", "torch"]
    assert set(divided.plan.agents) == set(SITES)
    assert np.array_equal(divided.initial_of(cork), divided.initial)


def test_a_seed_decides_the_initial_model() -> None:
    assert np.array_equal(job().initial, job().initial)
    assert not np.array_equal(job().initial, job(seed=8).initial)


def test_retries_are_priced_from_the_beginning() -> None:
    one = job(parameters={"rounds": Decimal(5), "retries": Decimal(2)})
    assert one.max_attempts == 7


def test_noise_in_the_sum_is_planned_as_the_privacy_says() -> None:
    assert job().sum_plan is None
    assert job(privacy=("record",)).sum_plan is None
    central = job(privacy=("site",), unit=Unit.SITE)
    assert isinstance(central.sum_plan, SitePlan)
    shared = job(privacy=("distributed",), unit=Unit.SITE)
    assert isinstance(shared.sum_plan, DistributedPlan)
    for one in (central, shared):
        assert one.sum_plan is not None
        assert (one.sum_plan.target, one.sum_plan.delta) == (TERMS["epsilon"], TERMS["delta"])
        assert one.equal_weights


def test_where_regions_differ_every_site_counts_alike() -> None:
    assert not job().equal_weights
    assert job(of=study(DIVIDED)).equal_weights


def test_a_site_that_is_not_asked_has_no_agent_in_the_job() -> None:
    others = tuple(site for site in SITES if site != SITES[2])
    assert job(of=study(DIVIDED), sites=others).agents == {}


@pytest.mark.parametrize("value", [0.1, 1e-30, 1 / 3, 123456.789, 5e-324])
def test_a_fraction_is_told_exactly(value: float) -> None:
    assert float(exact(value)) == value
    assert str(exact(value)) == str(Decimal(repr(value)))


def test_rows_are_nobodys_business_but_the_sites() -> None:
    assert job().rows == {}
    assert SiteId("nobody") not in job().plan.agents
