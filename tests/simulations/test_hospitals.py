"""The main job's figures, on the four hospitals themselves: what the README claims, over 20 seeds."""

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest

from simulations.data.datasets import SiteData
from simulations.job import Job, resolve
from simulations.members import load_member_data
from simulations.options import Options
from simulations.reference import Reference, alone, federate, measure
from strategies.task import SiteId

Data = Mapping[SiteId, SiteData]


@pytest.fixture(scope="module")
def job() -> Job:
    return resolve(Options(privacy="none"))


@pytest.fixture(scope="module")
def data(job: Job) -> Data:
    return load_member_data(job)


@pytest.fixture(scope="module")
def reference(job: Job, data: Data) -> Reference:
    return measure(job, data, federate(job, data))


def mean_score(job: Job, data: Data) -> float:
    model = federate(job, data)
    return float(np.mean([model.score(site, data[site].test) for site in job.sites]))


def test_together_beats_elsewhere(job: Job, data: Data, reference: Reference) -> None:
    """Full batches from zero: the seed changes nothing without privacy, so one seed stands for twenty."""
    together = mean_score(job, data)
    assert together == mean_score(replace(job, seed=7), data)
    assert together >= 0.79
    assert np.mean(list(reference.elsewhere.values())) <= 0.76


def test_the_ensemble_is_the_mean_of_the_home_models_probabilities(job: Job, data: Data, reference: Reference) -> None:
    """A logistic model's weights and bias by hand: no code of ours between them and the score but its accuracy."""
    homes = [alone(job, data[site].train, site).astype(np.float64) for site in job.sites]
    for site in job.sites:
        test = data[site].test
        likely = np.mean([1 / (1 + np.exp(-(test.x @ home[:-1] + home[-1]))) for home in homes], axis=0)
        assert reference.ensemble[site] == ((likely > 0.5) == test.y).mean()
    assert set(reference.ensemble) == set(job.sites)


def test_baselines_are_the_published_ones(reference: Reference) -> None:
    assert reference.constant == pytest.approx(0.637, abs=5e-4)
    assert reference.majority == pytest.approx(0.721, abs=5e-4)


@pytest.mark.parametrize(("epsilon", "least"), [("1", 0.79), ("0.1", 0.72)])
def test_private_training_keeps_its_score_over_twenty_runs(epsilon: str, least: float, job: Job, data: Data) -> None:
    """Noise is fresh each time and follows no seed; the mean of 20 runs has a standard error of about .003 and .011."""
    private = replace(job, privacy=("record",), epsilon=Decimal(epsilon))
    assert np.mean([mean_score(replace(private, seed=seed), data) for seed in range(20)]) >= least


def test_the_seed_does_not_reach_the_noise(job: Job, data: Data) -> None:
    private = replace(job, privacy=("record",))
    assert (federate(private, data).model != federate(private, data).model).any()


def test_a_site_that_never_trained_is_scored_under_the_others_model(reference: Reference) -> None:
    assert [one.id for one in reference.left_out] == ["cleveland", "hungarian", "switzerland", "va"]
    assert all(one.id not in one.trained_by and len(one.trained_by) == 3 for one in reference.left_out)
