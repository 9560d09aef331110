import secrets
import sys
from collections.abc import Mapping
from decimal import Decimal

import numpy as np
import numpy.typing as npt
import pytest

from clients.records import Records
from privacy.attacks import one_run
from privacy.attacks.canaries import included
from privacy.audit import canary_file
from simulations.audit import black_box as module
from simulations.audit import memory
from simulations.audit.black_box import black_box, gained, remembered
from simulations.audit.canaries import Planted, joined, plant
from simulations.data.datasets import SiteData
from simulations.job import Job, resolve
from simulations.members import load_member_data
from simulations.options import Options
from strategies.task import SiteId
from tests.simulations.audit.promised import epsilons

DELTA = 1e-5


def test_hospitals_hide_what_a_model_that_remembers_gives_away() -> None:
    job = resolve(Options(rounds=1))
    data, seed = load_member_data(job), bytes(range(32))
    found = black_box(job, data, epsilons=epsilons(job, data), seed=seed, canaries=200)
    claim, scores = found.claim, canary_file.scores_of(found.lines)
    assert (claim["verdict"], claim["canaries"], claim["records"]) == ("no violation", 200, 286)
    assert Decimal(claim["protected"]["lower"]["fdp"]) <= Decimal(claim["formal"])
    assert Decimal(claim["control"]["lower"]["fdp"]) > Decimal(claim["formal"])
    # Its 14 parameters hardly know any record; the control's scores follow the coins.
    coins = included(seed, 200)
    for what, apart in (("black_box/protected", False), ("black_box/control", True)):
        inside, outside = scores[what][coins], scores[what][~coins]
        assert bool(inside.mean() - outside.mean() > 0.3) is apart


def test_a_copy_that_remembers_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attack sees what the copy was trained on, canary by canary in the order of the coins."""
    monkeypatch.setattr(module, "train_copy", _RemembersEverything)
    job = resolve(Options(rounds=1))
    data = load_member_data(job)
    claim = black_box(job, data, epsilons=epsilons(job, data), seed=bytes(range(32)), canaries=200).claim
    assert claim["verdict"] == "violation"
    assert Decimal(claim["protected"]["lower"]["fdp"]) > 3


class _RemembersEverything:
    """A copy without any privacy, whatever its job says: knows by heart every record that is finite."""

    def __init__(self, job: Job, data: Mapping[SiteId, SiteData], *, entropy: object) -> None:
        del entropy
        every = joined([data[site].train for site in job.sites])
        rows = np.flatnonzero(np.isfinite(every.x).all(axis=1))
        self._losses = memory.remember(job, every.take(rows))

    def losses(self, _site: SiteId, records: Records) -> npt.NDArray[np.float64]:
        return self._losses(records)


@pytest.mark.parametrize(
    ("privacy", "stays"), [("record", True), ("distributed", True), ("site", False), ("none", False)]
)
def test_where_records_are_clipped_their_number_stays(
    monkeypatch: pytest.MonkeyPatch, privacy: str, *, stays: bool
) -> None:
    """Elsewhere a record that is not finite would spoil the model, and nothing is calibrated to their number."""
    job = resolve(Options(privacy=privacy, rounds=1))
    data = load_member_data(job)
    monkeypatch.setattr(module, "train_copy", _look)
    with pytest.raises(_SeenError) as seen:
        black_box(job, data, epsilons=[], seed=bytes(range(32)), canaries=200)
    fewer = {site: data[site].train.n_units - n for site, n in seen.value.units.items()}
    assert all(n == 0 for n in fewer.values()) is stays
    assert sum(fewer.values()) == (0 if stays else 200 - included(bytes(range(32)), 200).sum())


class _SeenError(Exception):
    def __init__(self, units: Mapping[SiteId, int]) -> None:
        self.units = units


def _look(_job: Job, data: Mapping[SiteId, SiteData], *, entropy: object) -> None:
    del entropy
    raise _SeenError({site: one.train.n_units for site, one in data.items()})


def test_scores_are_gains_in_probability() -> None:
    losses, expected = np.log([2.0, 4.0, 1.0]), np.log([4.0, 4.0, 2.0])
    np.testing.assert_allclose(gained(losses, expected), [0.25, 0.0, 0.5])


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("m", "steinke", "fdp"), [(200, 2.0, 2.8), (400, 2.8, 4.0)])
def test_a_model_without_privacy_gives_its_canaries_away(m: int, steinke: float, fdp: float) -> None:
    """The digits, a thousand real images and ``m`` mislabelled ones, ten seeds."""
    for seed in range(10):
        job = resolve(Options(scenario="digits", privacy="none", seed=seed))
        data = load_member_data(job)
        planted = plant(job, data, m)
        real = memory.some(job, joined([data[site].train for site in job.sites]))
        assert (len(real), _count(planted)) == (1000, m)
        coins = included(secrets.token_bytes(32), m)
        losses = remembered(job, real, planted, module._by_site(planted, coins))
        expected = memory.learn(job, real)(joined([one.canaries for one in planted.values()]))
        guesses = one_run.tally(gained(losses, expected), coins)
        found = one_run.steinke(m, guesses, DELTA), one_run.fdp(m, guesses, DELTA)
        sys.stdout.write(f"m {m}, seed {seed}: Steinke {found[0]:.2f}, f-DP {found[1]:.2f}\n")
        assert found[0] >= steinke
        assert found[1] >= fdp


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("scenario", "privacy", "seeds"),
    [("hospitals", "record", 5), ("hospitals", "distributed", 3), ("digits", "record", 1)],
)
def test_a_private_run_stays_at_most_formal(scenario: str, privacy: str, seeds: int) -> None:
    rounds = 3 if scenario == "digits" else 0
    for seed in range(seeds):
        job = resolve(Options(scenario=scenario, privacy=privacy, seed=seed, rounds=rounds))
        data = load_member_data(job)
        claim = black_box(job, data, epsilons=epsilons(job, data), seed=secrets.token_bytes(32)).claim
        lower = claim["protected"]["lower"], claim["control"]["lower"]
        sys.stdout.write(f"{scenario} {privacy} {seed}: formal {claim['formal']}, {lower}\n")
        assert claim["verdict"] == "no violation"


def _count(planted: Mapping[SiteId, Planted]) -> int:
    return sum(len(one.canaries) for one in planted.values())
