"""Turns a job into sites: each gets its own rows, its own plan, and nothing of anybody else's."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from functools import lru_cache
from pathlib import Path

from flwr.app import Context

from clients.agents import agent_of
from clients.app import Account, Member
from clients.clipping import on_integer_path
from clients.records import Records
from clients.secure import SecureSite
from clients.training import check_private_model
from clients.work import Site
from privacy.dp.events import Arithmetic
from privacy.dp.plan import RecordPlan, Unit
from privacy.errors import ConfigError
from privacy.store.admissions import Admissions
from simulations.accounts import Accounts, asset_of
from simulations.data.datasets import SiteData, load_sites
from simulations.identities import Identities
from simulations.job import Job, resolve
from simulations.options import Options
from strategies.models import build, size_of, to_vector
from strategies.task import SiteId


def site_of(job: Job, data: SiteData) -> Site:
    """Builds the site that holds this data, its privacy plans calibrated for the whole run.

    Raises: ConfigError: The model cannot be trained with record-level privacy, or no noise meets the target.
    """
    spec, plan = job.spec_of(data.id), plan_of(job, data.id, data.train)
    part, agent = job.part_of(data.id), job.agent_of(data.id)
    return Site(
        data.id,
        job.task,
        job.algorithm,
        job.seed,
        plan,
        data.train,
        job.sum_plan,
        part=part,
        agent=agent_of(
            agent,
            site=data.id,
            model=spec,
            n_inputs=job.task.n_inputs,
            training=job.task.training,
            records=data.train,
            seed=job.seed,
            plan=plan,
            part=part,
        ),
        initial=to_vector(build(spec, job.task.n_inputs, job.seed)),
        encoding=job.encoding,
    )


def plan_of(job: Job, site: SiteId, records: Records) -> RecordPlan | None:
    """Returns the plan of noise in every step for these records, or ``None`` without it."""
    if not job.record_privacy:
        return None
    model = build(job.spec_of(site), job.task.n_inputs, seed=0)
    check_private_model(model)
    training = job.agent_of(site).training(job.task.training)
    plan = RecordPlan.calibrated(
        target=job.epsilon,
        delta=job.delta,
        clip=Decimal(repr(training.clip)),
        n_records=records.n_units,
        batch=training.batch,
        steps_per_attempt=training.local_steps,
        max_attempts=job.max_attempts,
    )
    exact = on_integer_path(model)
    size = size_of(job.spec_of(site), job.task.n_inputs)
    return replace(
        plan,
        unit=Unit.RECORD if records.patient is None else Unit.PATIENT,
        arithmetic=plan.mechanism.arithmetic(size) if exact else Arithmetic.FLOAT,
    )


PRIVATE_FOLDER = "private"
"""Folder of a run where each site keeps the parameters that it never sends."""


class SimulatedMember:
    """Finds out which site a Flower node plays, from its partition number; picklable, so that Ray can send it.

    Each process keeps what it resolved: the job, and the data of the one site it is asked for.

    Attributes:
      config: Options in their run-configuration form, or ``None`` to read the node's own run configuration.
      folder: Run folder, where identity keys and, mostly, ledgers are; empty to derive it from the run's id.
      run_id: The run's; 0 for the one that Flower gave it.
    """

    def __init__(
        self, config: dict[str, str | int | float | bool] | None = None, folder: str = "", run_id: int = 0
    ) -> None:
        self._config = config
        self._folder = folder
        self._run_id = run_id

    def __call__(self, context: Context) -> Member:
        """Returns who the node is. Raises: ConfigError: More nodes than sites, or unusable options."""
        config = self._config if self._config is not None else dict(context.run_config)
        folder = self._folder or str(folder_of(Options.from_run_config(config), context.run_id))
        place = context.node_config.get("partition-id")
        if not isinstance(place, int):
            raise ConfigError("a simulated node has a partition-id")
        return _member(tuple(sorted(config.items())), folder, self._run_id or context.run_id, place)


def folder_of(options: Options, run_id: int) -> Path:
    """Returns where a Flower run writes: ``out``, or a folder under ``runs`` that server and sites both derive."""
    name = Path(options.scenario).stem
    return Path(options.out or Path("runs") / f"{name}-{run_id}").absolute()


@lru_cache(maxsize=32)
def _member(config: tuple[tuple[str, str | int | float | bool], ...], folder: str, run_id: int, place: int) -> Member:
    options = Options.from_run_config(dict(config))
    job = resolve(options)
    if place >= len(job.sites):
        raise ConfigError(f"node {place} has no site: {job.scenario.name} has {len(job.sites)}")
    accounts = Accounts.of(options, Path(folder), run_id)
    return member_of(job, load_member_data(job)[job.sites[place]], Path(folder), accounts)


def member_of(job: Job, data: SiteData, folder: Path, accounts: Accounts) -> Member:
    """Builds the member of a run that holds this data, with its ledger, and its identity key from the run folder.

    Raises: ConfigError: The job aggregates securely and the folder holds no key for the site.
    """
    site = site_of(job, data)
    account = Account(accounts.open(site.id), asset_of(job, site.id), accounts.run)
    secure: SecureSite | None = None
    if job.secagg:
        identities = Identities(folder)
        admissions = Admissions(accounts.path(site.id))
        secure = SecureSite(site.id, identities.key(site.id), identities.roster, admissions, time.monotonic)
    private = folder / PRIVATE_FOLDER / f"{site.id}.safetensors" if site.part.private else None
    return Member(site, account, job.digest, job.plan, secure, private)


def load_member_data(job: Job) -> dict[SiteId, SiteData]:
    """Loads every site of the scenario, those that do not take part included, each capped to the job's rows."""
    return {data.id: data for data in load_sites(job.scenario, data_home())}


def data_home() -> Path | None:
    """Returns the folder of data sets that the environment variable ``COLLEGIUM_DATA`` names, if it does."""
    named = os.environ.get("COLLEGIUM_DATA", "")
    return Path(named) if named else None


def fixed_member(member: Member) -> Callable[[Context], Member]:
    """Returns a finder for a node that always plays the same site (the in-process engine)."""
    return lambda _context: member
