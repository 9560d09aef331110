"""The copy must be the run: same result without privacy, same payments with it; and it must leave nothing behind."""

import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chi2

from simulations.audit.training import train_copy
from simulations.job import resolve
from simulations.members import load_member_data
from simulations.options import Options
from simulations.reference import federate


@pytest.mark.parametrize("secagg", [True, False])
def test_without_privacy_a_copy_is_the_run_to_the_bit(*, secagg: bool) -> None:
    job = resolve(Options(privacy="none", rounds=2, secagg=secagg))
    data = load_member_data(job)
    expected = federate(job, data).model
    np.testing.assert_array_equal(train_copy(job, data).model, expected)


def test_private_parameters_come_back_with_the_copy() -> None:
    job = resolve(Options(scenario="hospitals-parts", privacy="none", rounds=2))
    data = load_member_data(job)
    expected, found = federate(job, data), train_copy(job, data)
    for site in job.sites:
        np.testing.assert_array_equal(found.piece(site), expected.piece(site))


@pytest.mark.parametrize("privacy", ["record", "site"])
def test_the_plans_noise_is_in_every_copy(privacy: str) -> None:
    """The difference of two copies of one round is Gaussian in 14 entries, of the plan's own deviation."""
    job = resolve(Options(privacy=privacy, rounds=1))
    data = load_member_data(job)
    sizes = [data[site].train.n_units for site in job.sites]
    if privacy == "site":
        assert job.sum_plan is not None
        deviation = float(job.sum_plan.noise_multiplier * job.sum_plan.clip) / len(sizes)
    else:
        plan = job.record_plan(job.sites[0], sizes[0])
        assert plan is not None
        step = job.task.training.learning_rate / sum(sizes)
        deviation = step * float(plan.noise_multiplier * plan.clip) * math.sqrt(len(sizes))
    first, second = (train_copy(job, data).model for _ in range(2))
    squares = float(np.sum((first - second).astype(np.float64) ** 2)) / (2 * deviation**2)
    assert 1e-5 < chi2.sf(squares, first.size) < 1 - 1e-5


def test_a_copy_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    job = resolve(Options(rounds=1))
    train_copy(job, load_member_data(job))
    assert not list(tmp_path.iterdir())
