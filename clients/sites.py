"""Makes a job and a site's own records into a site that can train: its agent, its privacy plan for the whole run."""

from dataclasses import replace

from clients.agents import agent_of
from clients.clipping import on_integer_path
from clients.records import Records
from clients.training import check_private_model
from clients.work import Site
from privacy.dp.events import Arithmetic
from privacy.dp.plan import RecordPlan
from strategies.job import Job
from strategies.models import build, size_of
from strategies.task import SiteId


def site_of(job: Job, site: SiteId, records: Records) -> Site:
    """Builds a site, its privacy plans calibrated for the whole run.

    Args:
      job: As the site resolved it for itself.
      site: Which of the job's sites it is.
      records: Its training records. Secret.

    Raises: ConfigError: The model cannot be trained with record-level privacy, or no noise meets the target.
    """
    spec, plan, part = job.spec_of(site), plan_of(job, site, records), job.part_of(site)
    agent = agent_of(
        job.agent_of(site),
        site=site,
        model=spec,
        n_inputs=job.task.n_inputs,
        training=job.task.training,
        records=records,
        seed=job.seed,
        plan=plan,
        part=part,
    )
    return Site(
        site,
        job.task,
        job.algorithm,
        job.seed,
        plan,
        records,
        job.sum_plan,
        part=part,
        agent=agent,
        initial=job.initial_of(site),
        encoding=job.encoding,
    )


def plan_of(job: Job, site: SiteId, records: Records) -> RecordPlan | None:
    """Returns the plan of noise in every step for these records, or ``None`` without it."""
    plan = job.record_plan(site, records.n_units)
    if plan is None:
        return None
    model = build(job.spec_of(site), job.task.n_inputs, seed=0)
    check_private_model(model)
    size = size_of(job.spec_of(site), job.task.n_inputs)
    return replace(plan, arithmetic=plan.mechanism.arithmetic(size) if on_integer_path(model) else Arithmetic.FLOAT)
