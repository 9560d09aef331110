"""Mislabelled canaries: records of no training set, under a wrong label, in the place of some of a site's own.

A canary comes from the site's own test rows, so that it looks like any other record. Which canaries are in is up to
coins (`privacy.attacks.canaries`) on which nothing here depends. The number of records stays, in the copy as in the
run, and with it the plan, its noise, sampling rates and denominators: relation zero-out.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clients.records import Records
from privacy.audit.measured.canary_claims import FEWEST
from privacy.errors import ConfigError
from simulations.data.datasets import SiteData
from simulations.job import Job
from strategies.task import SiteId

Coins = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Planted:
    """One site's records around its canaries. Secret.

    Attributes:
      real: Training records that stay.
      canaries: Mislabelled ones, as many as real units gave way.
    """

    real: Records
    canaries: Records

    def records(self, coins: Coins, *, zeroed: bool) -> Records:
        """Returns what the site trains on.

        Args:
          coins: Which canaries are in, shape ``(c,)``.
          zeroed: Keep the others as records that are not finite, which contribute zero to every clipped sum
            (`privacy.dp.mechanism`); otherwise leave them out.
        """
        canaries = self.canaries
        if zeroed:
            hidden = np.where(coins[:, None], canaries.x, np.float32(np.nan))
            canaries = Records(hidden, canaries.y, canaries.patient)
        else:
            canaries = canaries.take(np.flatnonzero(coins))
        return joined([self.real, canaries])


def plant(job: Job, data: Mapping[SiteId, SiteData], wanted: int) -> Mapping[SiteId, Planted]:
    """Chooses canaries among all sites' test rows, at random and in fixed order, and what gives way to them.

    Args:
      job: Whose sites, and whose seed: the choice is no secret.
      data: Of each site. Secret.
      wanted: How many at most; no site gives up more than half of its records, nor more than it has test rows.

    Raises: ConfigError: Too few find a place for an audit.
    """
    chance = np.random.default_rng(job.seed)
    spare = {site: min(len(data[site].test), data[site].train.n_units // 2) for site in job.sites}
    owner = np.repeat(np.arange(len(job.sites)), list(spare.values()))
    chosen = np.bincount(chance.permutation(owner)[:wanted], minlength=len(job.sites))
    if chosen.sum() < FEWEST:
        raise ConfigError(f"an audit takes at least {FEWEST} canaries, and these rows have room for {chosen.sum()}")
    return {
        site: _planted(data[site], count, job.task.target.classes, chance)
        for site, count in zip(job.sites, chosen, strict=True)
    }


def joined(parts: list[Records]) -> Records:
    """Returns records one after another, as the patients that each part names."""
    patients = [part.patient for part in parts if part.patient is not None]
    return Records(
        np.concatenate([part.x for part in parts]),
        np.concatenate([part.y for part in parts]),
        np.concatenate(patients) if len(patients) == len(parts) else None,
    )


def _planted(data: SiteData, count: int, classes: int, chance: np.random.Generator) -> Planted:
    train, test = data.train, data.test
    stays = chance.permutation(np.arange(train.n_units) >= count)
    rows = chance.permutation(len(test))[:count]
    wrong = (test.y[rows] + chance.integers(1, classes, count)) % classes
    # A canary is a patient of its own.
    patients = None if train.patient is None else train.patient.max() + 1 + np.arange(count)
    canaries = Records(test.x[rows], wrong.astype(np.float32), patients)
    return Planted(train.of_units(stays)[0], canaries)
