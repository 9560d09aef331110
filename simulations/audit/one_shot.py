"""One-shot canaries: a hundred made-up sites in copies of the run, each pulling its own random way in every round.

For claims about a whole site. Their updates go through the clip, the sum on the grid and the noise of the run's own
plan; the masks are left out, since a hundred sites would take long to agree on what cancels in the end.

See: Andrew et al., "One-shot Empirical Privacy Estimation for Federated Learning", ICLR 2024 (arXiv 2302.03098),
algorithm 1: cosines with all that the training changed.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from clients.agent import LocalWork
from clients.sites import site_of
from clients.work import Site
from privacy.audit.attack_claims import one_shot_claim
from privacy.dp.noise import Entropy
from privacy.dp.plan import RecordPlan, Unit
from privacy.errors import ConfigError
from privacy.secagg.context import MAX_SITES
from simulations.data.datasets import SiteData
from simulations.job import Job
from simulations.reference import federate_sites
from strategies.contribution import Vector
from strategies.task import SiteId, Training

COPIES, IN_A_COPY = 2, 50
"""Canary sites: fewer in a copy hide each other less, and no sum has more than 100 sites."""

SMALLEST = 1000
"""Parameters of a model in which the cosine of two random directions is as good as normal, and 50 of them find room."""

_SEED_BYTES = 16
_Directions = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CanaryAgent:
    """Sends the same vector in every round.

    Attributes:
      update: Of its piece, shape ``(p,)``.
    """

    offers: ClassVar[frozenset[str]] = frozenset({"none", "site", "distributed"})
    training: Training
    update: Vector = field(repr=False)
    plan: RecordPlan | None = None

    def train(self, start: Vector, _work: LocalWork) -> Vector:
        """See `clients.agent.Agent.train`."""
        return start + self.update


def why_not(job: Job) -> str:
    """Says in a line why nothing is measured; empty where it is."""
    if job.sum_plan is None or job.sum_plan.unit is not Unit.SITE:
        return "no canary sites: nothing is promised about a whole site"
    if job.initial.size < SMALLEST:
        return f"no canary sites: in a model of {job.initial.size} parameters no hundred directions find room"
    if len(job.sites) + IN_A_COPY > MAX_SITES:
        return f"no canary sites: beside {len(job.sites)} others no sum has room for {IN_A_COPY}"
    return ""


def one_shot(
    job: Job,
    data: Mapping[SiteId, SiteData],
    *,
    epsilons: Sequence[dict[str, Any]],
    entropy: Entropy = secrets.token_bytes,
) -> dict[str, Any]:
    """Trains copies with canary sites, and as many without clip and noise.

    Args:
      job: One for which `why_not` has nothing to say.
      data: Of each of its sites. Secret.
      epsilons: ``Statement.epsilons`` of the run: what was promised.
      entropy: Randomness of the directions.

    Returns: The claim ``audit.one_shot``.
    Raises: ConfigError: What `why_not` says.
    """
    plan, reason = job.sum_plan, why_not(job)
    if plan is None or reason:
        raise ConfigError(reason)
    chance = np.random.default_rng(list(entropy(_SEED_BYTES)))
    directions = chance.standard_normal((COPIES, IN_A_COPY, job.part_of(_name(0)).held.size))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    protected, control = (
        np.concatenate([cosines(each, data, ways, float(plan.clip)) for ways in directions])
        for each in (job, job.without_privacy())
    )
    return one_shot_claim(protected, control, dimension=directions.shape[-1], epsilons=epsilons, delta=plan.delta)


def cosines(job: Job, data: Mapping[SiteId, SiteData], directions: _Directions, length: float) -> _Directions:
    """Runs a job's rounds with a canary site for each direction.

    Args:
      job: With the run's privacy, or without any.
      data: Of each of the job's sites. Secret.
      directions: Of norm 1, shape ``(k, h)``.
      length: Norm of what a canary sends.

    Returns: Cosine of each direction and of all that the training changed, shape ``(k,)``.
    """
    made_up = [_name(number) for number in range(len(directions))]
    wider = replace(job, sites=(*job.sites, *made_up))
    real = [site_of(wider, site, data[site].train) for site in job.sites]
    canaries = [
        _canary(site_of(wider, name, real[0].records), length * way)
        for name, way in zip(made_up, directions, strict=True)
    ]
    changed = federate_sites(wider, [*real, *canaries]).model - job.initial
    seen = changed[job.part_of(made_up[0]).held].astype(np.float64)
    return np.asarray(directions @ seen / np.linalg.norm(seen))


def _canary(site: Site, held: npt.NDArray[np.float64]) -> Site:
    update = np.zeros(site.part.piece.size, np.float32)
    update[site.part.slots] = held
    return replace(site, agent=CanaryAgent(site.agent.training, update))


def _name(number: int) -> SiteId:
    return SiteId(f"canary-{number}")
