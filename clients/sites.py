"""Makes a job and a site's own records into a site that can train: its agent, its privacy plan for the whole run."""

from dataclasses import replace

from clients.agent import Agent
from clients.agents import agent_of
from clients.chain.agent import ChainAgent, OpenChain
from clients.clipping import INTEGER_PARAMETERS
from clients.records import Records
from clients.training import check_private_model
from clients.work import Site
from privacy.dp.events import Arithmetic
from privacy.dp.plan import RecordPlan
from strategies.chain_job import chain_of
from strategies.job import Job
from strategies.models import build
from strategies.task import SiteId


def site_of(job: Job, site: SiteId, records: Records, open_chain: OpenChain | None = None) -> Site:
    """Builds a site, its privacy plans calibrated for the whole run.

    Args:
      job: As the site resolved it for itself.
      site: Which of the job's sites it is.
      records: Its training records. Secret.
      open_chain: How it reaches the holder of a cut model's piece; without it such a site cannot train.

    Raises: ConfigError: The model cannot be trained with record-level privacy, or no noise meets the target.
    """
    plan, part = plan_of(job, site, records), job.part_of(site)
    agent: Agent
    if job.chain is not None:
        agent = _chain_agent(job, site, records, plan, open_chain)
    else:
        agent = agent_of(
            job.agent_of(site),
            site=site,
            model=job.spec_of(site),
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
        weight=1 if job.equal_weights else records.n_units,
        encoding=job.encoding,
    )


def _chain_agent(
    job: Job, site: SiteId, records: Records, plan: RecordPlan | None, open_chain: OpenChain | None
) -> ChainAgent:
    return ChainAgent(
        site,
        chain_of(job, site),
        job.task.model,
        job.task.n_inputs,
        job.agent_of(site).training(job.task.training),
        records,
        job.seed,
        plan,
        still=bool(job.privacy),
        weight=1 if job.equal_weights else records.n_units,
        open=open_chain,
    )


def plan_of(job: Job, site: SiteId, records: Records) -> RecordPlan | None:
    """Returns the plan of noise in every step for these records, or ``None`` without it."""
    plan = job.record_plan(site, records.n_units)
    if plan is None:
        return None
    check_private_model(build(job.spec_of(site), job.task.n_inputs, seed=0))
    size = job.part_of(site).piece.size  # of a cut model, what stays at the site: the rest has no noise
    exact = size <= INTEGER_PARAMETERS
    return replace(plan, arithmetic=plan.mechanism.arithmetic(size) if exact else Arithmetic.FLOAT)
