"""The membership attack: was this real record trained on? Asked of the delivered model, site by site.

The attacker says "yes" of records that the model finds likely (Yeom et al., CSF 2018). No copy, no canary: a site's
training records against the test rows that it kept back. The control is a model that learnt its records by heart, under
labels drawn at random: with the true ones it would be as sure of records that it never saw.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clients.records import Records
from privacy.audit.attack_claims import Compared, membership_claim
from simulations.audit import memory
from simulations.audit.canaries import joined
from simulations.data.datasets import SiteData
from simulations.job import Job
from simulations.pieces import Pieces
from strategies.task import SiteId


def membership(
    job: Job, data: Mapping[SiteId, SiteData], delivered: Pieces, *, epsilons: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Attacks the delivered model, and beside it one that remembers its records.

    Args:
      job: The run's.
      data: Of each of its sites. Secret.
      delivered: The run's model.
      epsilons: ``Statement.epsilons`` of the run: what was promised.

    Returns: The claim ``audit.membership``.
    """
    sites: dict[str, Compared] = {
        site: Compared(-delivered.losses(site, data[site].train), -delivered.losses(site, data[site].test))
        for site in job.sites
    }
    return membership_claim(sites, remembered(job, [data[site] for site in job.sites]), epsilons=epsilons)


def remembered(job: Job, sites: Sequence[SiteData]) -> Compared:
    """Attacks the control, on rows of all sites."""
    chance = np.random.default_rng(job.seed)
    train, test = (
        _by_heart(memory.some(job, joined(parts)), job, chance)
        for parts in ([one.train for one in sites], [one.test for one in sites])
    )
    losses = memory.remember(job, train)
    return Compared(-losses(train), -losses(test))


def _by_heart(records: Records, job: Job, chance: np.random.Generator) -> Records:
    return Records(records.x, chance.integers(0, job.task.target.classes, len(records)).astype(np.float32))
