"""The release path is the production path: against sums clipped by hand, and by what a patch of production does."""

import secrets
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import clients.training
from clients.release_path import path_of
from privacy.conformance.path import Recorded, ReleasePath, Replayed, keys_of, zeros
from privacy.dp.events import Arithmetic
from privacy.dp.noise import Entropy, poisson_mask
from privacy.dp.plan import DistributedPlan, PrivacyPlan, SitePlan, Unit
from privacy.errors import UnsupportedEventError
from tests.clients.example import Keys, clipped_sum, plan

D = Decimal
RECORD = replace(plan(clip="0.7", noise="2"), arithmetic=Arithmetic.INTEGER_EXACT)
POISSON = replace(plan(clip="0.7", noise="2", rate="0.3"), arithmetic=Arithmetic.INTEGER_EXACT)
PATIENT = replace(RECORD, unit=Unit.PATIENT)
SITE = SitePlan.calibrated(target=D(8), delta=D("0.001"), clip=D("0.7"), max_attempts=5)
DISTRIBUTED = DistributedPlan.calibrated(
    target=D(8),
    delta=D("0.001"),
    clip=D("0.7"),
    unit=Unit.SITE,
    survivors=3,
    colluders=1,
    dimension=20,
    max_attempts=5,
)
SUMMED_RECORDS = replace(DISTRIBUTED, unit=Unit.RECORD)
FULL = [(RECORD, False), (PATIENT, False), (RECORD, True), (PATIENT, True), (SITE, False), (DISTRIBUTED, False)]
PLANS = [*FULL, (SUMMED_RECORDS, False)]
IDS = ["record", "patient", "record/float", "patient/float", "site", "distributed", "distributed records"]


def path(of: PrivacyPlan, floating: bool = False, *, n_units: int = 9, dimension: int = 5) -> ReleasePath:
    return path_of(of, dimension=dimension, n_units=n_units, floating=floating)


def vectors(n_units: int = 9, dimension: int = 5) -> NDArray[np.float64]:
    return np.random.default_rng(3).normal(size=(n_units, dimension)) * np.geomspace(0.01, 10.0, n_units)[:, None]


def moved(one: ReleasePath, rows: NDArray[np.float64], salt: str = "") -> NDArray[np.float64]:
    keys = keys_of(one, Keys(salt))
    return one.release(rows, Replayed(keys)) - one.release(zeros(one), Replayed(keys))


@pytest.mark.parametrize(("of", "floating"), PLANS, ids=IDS)
def test_a_release_is_the_clipped_sum_in_units_of_the_clip(of: PrivacyPlan, floating: bool) -> None:
    assert moved(path(of, floating), vectors()) == pytest.approx(clipped_sum(vectors(), 0.7) / 0.7, abs=2e-3)


@pytest.mark.parametrize(("of", "floating"), PLANS, ids=IDS)
def test_the_noise_has_the_declared_scale(of: PrivacyPlan, floating: bool) -> None:
    one = path(of, floating, dimension=4000)
    noise = one.release(zeros(one), Keys())
    assert noise.std() == pytest.approx(one.scale, rel=0.05)
    assert noise.std() == pytest.approx(float(of.noise_multiplier), rel=0.05)
    assert abs(noise.mean()) < 5 * one.scale / np.sqrt(4000)


@pytest.mark.parametrize("floating", [False, True])
def test_what_takes_part_in_a_poisson_batch_counts_as_one(floating: bool) -> None:
    one = path(POISSON, floating, n_units=40, dimension=40)
    counts = moved(one, 0.7 * np.eye(40))
    assert counts == pytest.approx(np.rint(counts), abs=1e-4)
    assert 4 <= counts.sum() <= 22
    assert moved(one, 0.7 * np.eye(40), "another batch") != pytest.approx(counts, abs=0.5)


@pytest.mark.parametrize("floating", [False, True])
def test_patients_are_clipped_as_a_whole(floating: bool) -> None:
    one = path(PATIENT, floating)
    row = np.zeros((9, 5))
    row[2, 1] = 50.0  # two records of 25: clipped one by one they would add 2
    assert np.linalg.norm(moved(one, row)) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(("of", "floating"), PLANS, ids=IDS)
def test_a_unit_that_is_no_number_adds_nothing(of: PrivacyPlan, floating: bool) -> None:
    rows = vectors()
    rows[4, 2] = np.nan
    rows[5, 0] = np.inf
    without = rows.copy()
    without[4:6] = 0.0
    one, keys = path(of, floating), [bytes([place]) * 32 for place in range(9)]
    np.testing.assert_array_equal(one.release(rows, Replayed(keys)), one.release(without, Replayed(keys)))


@pytest.mark.parametrize(("of", "floating"), PLANS, ids=IDS)
def test_keys_are_all_that_is_random(of: PrivacyPlan, floating: bool) -> None:
    one, recorded = path(of, floating), Recorded(secrets.token_bytes)
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    first = one.release(vectors(), recorded)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(8)
    np.random.seed(8)  # noqa: NPY002 - the generator that nothing may depend on
    np.testing.assert_array_equal(one.release(vectors(), Replayed(recorded.keys)), first)
    assert not np.isclose(one.release(vectors(), secrets.token_bytes), first).any()


@pytest.mark.parametrize("floating", [False, True])
def test_steps_run_the_code_that_trains(monkeypatch: pytest.MonkeyPatch, floating: bool) -> None:
    seen = list[int]()

    def mask(rate: float, size: int, entropy: Entropy) -> NDArray[np.bool_]:
        seen.append(size)
        return poisson_mask(rate, size, entropy)

    monkeypatch.setattr(clients.training, "poisson_mask", mask)
    path(POISSON, floating).release(vectors(), secrets.token_bytes)
    assert seen == [9]


def test_paths_that_no_run_takes_are_refused() -> None:
    with pytest.raises(UnsupportedEventError, match="5000 parameters"):
        path(RECORD, dimension=5000)
    for of in (SITE, DISTRIBUTED):
        with pytest.raises(UnsupportedEventError, match="no such release path"):
            path(of, floating=True)
    assert path(RECORD, floating=True, dimension=5000).path == "float"
