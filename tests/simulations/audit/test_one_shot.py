from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from clients.sites import site_of
from clients.work import contribute
from privacy.errors import ConfigError
from simulations.audit.one_shot import IN_A_COPY, CanaryAgent, cosines, one_shot, why_not
from simulations.job import Job, resolve
from simulations.members import load_member_data
from simulations.options import Options
from strategies.task import ModelSpec
from tests.simulations.audit.promised import epsilons


def wide(privacy: str) -> Job:
    """The hospitals with a model of 1201 parameters."""
    job = resolve(Options(privacy=privacy, rounds=1, settings={"unit": "site"} if privacy == "distributed" else {}))
    return replace(job, task=replace(job.task, model=ModelSpec("mlp", (80,), "torch")))


JOB = wide("site")
DATA = load_member_data(JOB)


def directions(job: Job, k: int) -> npt.NDArray[np.float64]:
    drawn = np.random.default_rng(1).standard_normal((k, job.initial.size))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))


def test_a_canary_site_sends_its_direction_at_the_length_of_the_clip() -> None:
    plan, way = JOB.sum_plan, directions(JOB, 1)[0]
    assert plan is not None
    site = site_of(JOB, JOB.sites[0], DATA[JOB.sites[0]].train)
    canary = replace(site, agent=CanaryAgent(site.agent.training, (float(plan.clip) * way).astype(np.float32)))
    units = contribute(canary, {"model": JOB.initial}, round_number=1).units
    assert units is not None
    sent = units / plan.units
    assert 0.999 < np.linalg.norm(sent) <= 1
    np.testing.assert_allclose(sent, way, atol=1e-5)


def test_without_noise_the_cosine_is_what_the_updates_give() -> None:
    """One round of equal weights by hand: two canaries and what the sites send, summed."""
    plain = wide("none")
    ways, length = directions(plain, 2), 0.1
    sites = [site_of(plain, site, DATA[site].train) for site in plain.sites]
    sizes = [site.records.n_units for site in sites]
    sent = [contribute(site, {"model": plain.initial}, round_number=1).contribution.arrays["update"] for site in sites]
    # Canary sites weigh as the first site, whose number of records they say to have.
    total = sum(size * update for size, update in zip(sizes, sent, strict=True)) + sizes[0] * length * ways.sum(axis=0)
    expected = ways @ total / np.linalg.norm(total)
    np.testing.assert_allclose(cosines(plain, DATA, ways, length), expected, atol=1e-3)


def test_noise_hides_canary_sites() -> None:
    claim = one_shot(JOB, DATA, epsilons=epsilons(JOB, DATA))
    assert (claim["canaries"], claim["dimension"], claim["delta"]) == (100, 1201, "0.001")
    assert float(claim["control"]["mean"]) > 0.08 > float(claim["mean"])
    assert float(claim["control"]["estimate"]) > 10 > float(claim["estimate"])


@pytest.mark.parametrize(
    ("job", "why"),
    [
        (resolve(Options(privacy="record", rounds=1)), "nothing is promised about a whole site"),
        (resolve(Options(privacy="distributed", rounds=1)), "nothing is promised about a whole site"),
        (resolve(Options(privacy="site", rounds=1)), "in a model of 14 parameters no hundred directions find room"),
    ],
    ids=["record", "records under masks", "small"],
)
def test_what_is_not_measured_says_why(job: Job, why: str) -> None:
    assert why in why_not(job)
    with pytest.raises(ConfigError, match="no canary sites"):
        one_shot(job, DATA, epsilons=[])


def test_a_sum_without_room_for_canaries_says_so() -> None:
    many = replace(JOB, sites=JOB.sites * (IN_A_COPY // 2))
    assert f"beside {len(many.sites)} others" in why_not(many)
