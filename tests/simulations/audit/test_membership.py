from decimal import Decimal
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn.metrics import roc_auc_score

from clients.records import Records
from privacy.attacks.gaussian_pair import epsilon_of
from privacy.audit.attack_claims import Compared
from privacy.audit.measured import formal
from privacy.audit.measured.bounds import DELTA
from simulations.audit import membership as module
from simulations.audit.membership import membership, remembered
from simulations.job import resolve
from simulations.members import load_member_data
from simulations.options import Options
from simulations.pieces import Pieces
from simulations.reference import federate
from strategies.losses import record_losses
from strategies.task import SiteId
from tests.simulations.audit.promised import epsilons

PRIVATE = resolve(Options(rounds=1))
JOB = PRIVATE.without_privacy()
DATA = load_member_data(JOB)


@pytest.fixture(autouse=True)
def _one_control(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "remembered", lambda _job, _sites: _control())


@cache
def _control() -> Compared:
    return remembered(JOB, [DATA[site] for site in JOB.sites])


def test_every_site_is_attacked_with_its_own_rows() -> None:
    """Against an oracle: sklearn's area over torch's losses, computed by hand."""
    delivered = federate(JOB, DATA)
    claim = membership(JOB, DATA, delivered, epsilons=[])
    weights, bias = torch.tensor(delivered.model[:-1]), float(delivered.model[-1])
    for entry in claim["sites"]:
        train, test = DATA[entry["who"]].train, DATA[entry["who"]].test
        x, y = np.concatenate([train.x, test.x]), np.concatenate([train.y, test.y])
        scores = -record_losses((torch.from_numpy(x) @ weights + bias)[:, None].double(), torch.from_numpy(y).double())
        expected = roc_auc_score(np.arange(len(y)) < len(train), scores.numpy())
        assert (entry["members"], entry["others"]) == (len(train), len(test))
        assert float(entry["auc"]) == pytest.approx(expected, abs=1e-4)
    assert claim["verdict"] == "no violation"


def test_the_ceiling_is_that_of_the_runs_promise() -> None:
    promised = epsilons(PRIVATE, DATA)
    claim = membership(PRIVATE, DATA, Pieces(PRIVATE, PRIVATE.initial), epsilons=promised)
    assert [entry["epsilon"] for entry in claim["sites"]] == [entry["epsilon"] for entry in promised[0]["sites"]]
    assert {entry["delta"] for entry in claim["sites"]} == {"0.001"}


def test_noise_for_whole_sites_covers_a_record_at_the_price_of_replacing_a_site() -> None:
    """A record more or less makes another site of it, twice the clip away; the price by the Gaussian's closed form."""
    job = resolve(Options(privacy="site", rounds=1))
    promised = epsilons(job, DATA)
    claim = membership(job, DATA, Pieces(job, job.initial), epsilons=promised)
    assert {entry["epsilon"] for entry in claim["sites"]} == {promised[0]["sites"][0]["epsilon_replace_one"]}
    assert job.sum_plan is not None
    distance = 1 / float(job.sum_plan.noise_multiplier)
    assert formal.of_model(promised, DELTA) == pytest.approx(epsilon_of(2 * distance, float(DELTA)), abs=1e-4)
    assert formal.of_sites(promised, DELTA) == pytest.approx(epsilon_of(distance, float(DELTA)), abs=1e-4)


def test_the_control_remembers() -> None:
    found = _control()
    truth = np.arange(found.members.size + found.others.size) < found.members.size
    assert roc_auc_score(truth, np.concatenate([found.members, found.others])) > 0.75
    assert found.members.min() > np.log(0.5)  # every label that it was taught is its guess


def test_a_model_that_leaks_is_a_violation() -> None:
    """Delivered by nobody, but if it were: true of every member, wrong of all others."""
    claim = membership(PRIVATE, DATA, _Leaks(PRIVATE, PRIVATE.initial), epsilons=epsilons(PRIVATE, DATA))
    assert claim["verdict"] == "violation"
    assert min(Decimal(entry["auc"]) for entry in claim["sites"]) == 1


class _Leaks(Pieces):
    def losses(self, site: SiteId, records: Records) -> npt.NDArray[np.float64]:
        return np.full(len(records), 0.0 if records is DATA[site].train else 1.0)
