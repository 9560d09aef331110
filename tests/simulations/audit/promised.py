"""What a run's report would promise, without the run: the plans of its job, all rounds executed."""

from collections.abc import Mapping
from typing import Any

from clients.sites import site_of
from clients.work import plans_of
from privacy.dp.plan import PrivacyPlan, RecordPlan
from server.claims import Placement, PrivacyClaim, Spent, epsilon_claim
from simulations.accounts import SERVER, server_plans
from simulations.data.datasets import SiteData
from simulations.job import Job
from strategies.task import SiteId


def epsilons(job: Job, data: Mapping[SiteId, SiteData]) -> list[dict[str, Any]]:
    """Returns the ``privacy.epsilon`` claims of the run that the job asks for."""
    held: dict[Placement, dict[str, Spent]] = {}
    for site in job.sites:
        for plan in plans_of(site_of(job, site, data[site].train)):
            placement: Placement = "local" if isinstance(plan, RecordPlan) else "distributed"
            held.setdefault(placement, {})[site] = _spent(job, plan)
    for plan in server_plans(job):
        held.setdefault("central", {})[SERVER] = _spent(job, plan)
    return [epsilon_claim(PrivacyClaim(placement, spent), len(job.sites)) for placement, spent in held.items()]


def _spent(job: Job, plan: PrivacyPlan) -> Spent:
    return Spent(plan, (plan.event(plan.steps_per_attempt * job.task.training.rounds),))
