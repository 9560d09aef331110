"""The black-box audit: mislabelled canaries in a copy of the run, and an attacker who sees the model that comes out.

The attacker says "in" of a canary whose wrong label the model finds likelier than somebody would who never saw it. The
same canaries and coins go into a model that remembers: if the attacker does not see them there, it would not have seen
them in the copy either.

See: `privacy.attacks.one_run` for what right guesses prove.
"""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from clients.records import Records
from privacy.attacks.canaries import included
from privacy.audit.attack_claims import Evidence, Scored, black_box_claim
from privacy.dp.noise import Entropy
from privacy.dp.plan import Unit
from simulations.audit import memory
from simulations.audit.canaries import Coins, Planted, joined, plant
from simulations.audit.training import train_copy
from simulations.data.datasets import SiteData
from simulations.job import Job
from strategies.task import SiteId

CANARIES = 200
"""With this many the attacker can show an epsilon above 3, and four hospitals keep more than half of their records."""

Losses: TypeAlias = npt.NDArray[np.float64]


def black_box(
    job: Job,
    data: Mapping[SiteId, SiteData],
    *,
    epsilons: Sequence[dict[str, Any]],
    seed: bytes,
    canaries: int = CANARIES,
    entropy: Entropy = secrets.token_bytes,
) -> Evidence:
    """Trains a copy of the run and a model that remembers, both with the canaries that the coins let in.

    Args:
      job: The run's.
      data: Of each of its sites. Secret.
      epsilons: ``Statement.epsilons`` of the run: what was promised.
      seed: 32 bytes that were committed to beforehand; decide which canaries are in.
      canaries: How many at most.
      entropy: Randomness of the copy's noise and sampling.

    Returns: The claim ``audit.black_box`` and its lines of the canaries' file.
    Raises: ConfigError: Too few canaries find a place. FederationError: As a run.
    """
    planted = plant(job, data, canaries)
    coins = _by_site(planted, included(seed, sum(len(one.canaries) for one in planted.values())))
    real = memory.some(job, joined([data[site].train for site in job.sites]))
    expected = memory.learn(job, real)(_canaries(planted))
    return black_box_claim(
        Scored("a copy of the run, trained like it", gained(_copied(job, data, planted, coins, entropy), expected)),
        Scored(
            f"{memory.NAME}: {len(real)} real ones and the canaries",
            gained(remembered(job, real, planted, coins), expected),
        ),
        records=sum(len(one.real) for one in planted.values()),
        epsilons=epsilons,
        seed=seed,
    )


def gained(losses: Losses, expected: Losses) -> Losses:
    """Scores canaries: how much likelier their wrong labels are than to a model that saw none of them.

    Without the comparison, canaries that look as they are labelled would seem to be in whether they are or not.

    Args:
      losses: Of the model under attack, shape ``(m,)``, in nats.
      expected: Of the model that saw none, likewise.

    See: Watson et al., ICLR 2022 (difficulty calibration of membership scores).
    """
    return np.exp(-losses) - np.exp(-expected)


def remembered(job: Job, real: Records, planted: Mapping[SiteId, Planted], coins: Mapping[SiteId, Coins]) -> Losses:
    """Returns the canaries' losses under the control: trained on real records and the canaries that are in."""
    let_in = [one.canaries.take(np.flatnonzero(coins[site])) for site, one in planted.items()]
    return memory.remember(job, joined([real, *let_in]))(_canaries(planted))


def _copied(
    job: Job,
    data: Mapping[SiteId, SiteData],
    planted: Mapping[SiteId, Planted],
    coins: Mapping[SiteId, Coins],
    entropy: Entropy,
) -> Losses:
    clips_records = job.record_privacy or (job.sum_plan is not None and job.sum_plan.unit is not Unit.SITE)
    trained = {
        site: SiteData(site, one.records(coins[site], zeroed=clips_records), data[site].test)
        for site, one in planted.items()
    }
    pieces = train_copy(job, trained, entropy=entropy)
    return np.concatenate([pieces.losses(site, one.canaries) for site, one in planted.items()])


def _canaries(planted: Mapping[SiteId, Planted]) -> Records:
    return joined([one.canaries for one in planted.values()])


def _by_site(planted: Mapping[SiteId, Planted], coins: Coins) -> Mapping[SiteId, Coins]:
    ends = np.cumsum([len(one.canaries) for one in planted.values()])
    return dict(zip(planted, np.split(coins, ends[:-1]), strict=True))
