from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pytest

from clients.records import Records
from clients.sites import site_of
from clients.work import contribute
from privacy.attacks.canaries import included
from privacy.errors import ConfigError
from simulations.audit.canaries import Coins, Planted, joined, plant
from simulations.data.datasets import SiteData
from simulations.job import Job, resolve
from simulations.members import load_member_data
from simulations.options import Options
from strategies.task import SiteId

JOB = resolve(Options(rounds=1))
DATA = load_member_data(JOB)
SITE = JOB.sites[0]


def fixed(n_bytes: int) -> bytes:
    return bytes(n_bytes)


def test_every_canary_is_a_test_row_under_the_wrong_label() -> None:
    for site, planted in plant(JOB, DATA, 200).items():
        rows = {tuple(x): y for x, y in zip(DATA[site].test.x.tolist(), DATA[site].test.y.tolist(), strict=True)}
        for x, y in zip(planted.canaries.x.tolist(), planted.canaries.y.tolist(), strict=True):
            assert y in {0.0, 1.0}
            assert rows[tuple(x)] == 1.0 - y


def test_wrong_labels_of_ten_classes_are_classes() -> None:
    job = resolve(Options(scenario="digits", privacy="none", rounds=1))
    data = load_member_data(job)
    for site, planted in plant(job, data, 400).items():
        true = {x.tobytes(): y for x, y in zip(data[site].test.x, data[site].test.y, strict=True)}
        wrong = planted.canaries
        assert all(true[x.tobytes()] != y and y in range(10) for x, y in zip(wrong.x, wrong.y, strict=True))


def test_no_site_gives_up_more_than_half_and_the_number_of_records_stays() -> None:
    planted = plant(JOB, DATA, 10_000)
    for site, one in planted.items():
        n, spare = DATA[site].train.n_units, len(DATA[site].test)
        assert len(one.canaries) == min(spare, n // 2)
        assert len(one.real) + len(one.canaries) == n
    assert sum(len(one.canaries) for one in plant(JOB, DATA, 200).values()) == 200


def test_zeroed_canaries_keep_the_plan_and_others_are_left_out() -> None:
    one = plant(JOB, DATA, 200)[SITE]
    coins = included(bytes(32), len(one.canaries))
    zeroed, fewer = one.records(coins, zeroed=True), one.records(coins, zeroed=False)
    assert site_of(JOB, SITE, zeroed).plan == site_of(JOB, SITE, DATA[SITE].train).plan
    assert len(fewer) == len(one.real) + coins.sum()
    finite = ~np.isnan(zeroed.x[:, 0])
    np.testing.assert_array_equal(finite[len(one.real) :], coins)
    np.testing.assert_array_equal(zeroed.x[finite], fewer.x)


@pytest.mark.parametrize("privacy", ["record", "distributed"])
def test_what_a_zeroed_canary_says_never_reaches_the_sum(privacy: str) -> None:
    """Byte for byte: with the same randomness, other labels of canaries that are out give the same contribution."""
    job = resolve(Options(privacy=privacy, rounds=1))
    one = plant(job, DATA, 200)[SITE]
    coins = included(bytes(32), len(one.canaries))
    flipped = Planted(one.real, Records(one.canaries.x, np.where(coins, one.canaries.y, 1 - one.canaries.y)))
    np.testing.assert_array_equal(_sent(job, one, coins), _sent(job, flipped, coins))
    assert not np.array_equal(_sent(job, one, coins), _sent(job, one, ~coins))


def _sent(job: Job, planted: Planted, coins: Coins) -> npt.NDArray[np.generic]:
    work = contribute(
        site_of(job, SITE, planted.records(coins, zeroed=True)), {"model": job.initial}, round_number=1, entropy=fixed
    )
    return work.contribution.arrays["update"] if work.units is None else work.units


def test_a_patient_gives_way_with_all_records() -> None:
    def rows(n: int, patients: list[int]) -> Records:
        return Records(np.arange(n, dtype=np.float32)[:, None], np.zeros(n, np.float32), np.array(patients))

    # 120 patients of three records each, and as many test rows as there are patients.
    train, test = rows(360, [row // 3 for row in range(360)]), rows(120, list(range(120)))
    data = {site: SiteData(site, train, test) for site in JOB.sites}
    for one in plant(JOB, data, 100).values():
        everybody = one.records(np.ones(len(one.canaries), np.bool_), zeroed=True)
        assert everybody.n_units == train.n_units
        assert len(one.real) == 3 * (train.n_units - len(one.canaries))


def test_too_few_rows_are_refused() -> None:
    few = {site: SiteData(site, one.train, one.test.take(np.arange(3))) for site, one in DATA.items()}
    with pytest.raises(ConfigError, match="at least 50 canaries, and these rows have room for 12"):
        plant(JOB, few, 200)


def test_the_choice_is_the_jobs_and_nobody_elses() -> None:
    first, again = plant(JOB, DATA, 100), plant(JOB, DATA, 100)
    other = plant(resolve(Options(rounds=1, seed=43)), DATA, 100)
    assert _canaries(first) == _canaries(again) != _canaries(other)


def _canaries(planted: Mapping[SiteId, Planted]) -> bytes:
    return joined([one.canaries for one in planted.values()]).x.tobytes()
