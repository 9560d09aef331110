"""Turns a job into sites: each gets its own rows, its own plan, and nothing of anybody else's."""

import os
import time
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from pathlib import Path

from flwr.app import Context

from clients.app import Member
from clients.secure import SecureSite
from clients.training import check_private_model
from clients.work import Site
from privacy.dp.plan import RecordPlan
from privacy.errors import ConfigError
from privacy.store.admissions import Admissions
from privacy.store.ledger import Ledger
from privacy.store.run_folder import LEDGER_FILE
from simulations.datasets import SiteData, load_sites
from simulations.identities import Identities
from simulations.job import Job, resolve
from simulations.options import Options
from strategies.models import build
from strategies.task import SiteId


def site_of(job: Job, data: SiteData) -> Site:
    """Builds the site that holds this data, its privacy plan calibrated for the whole run.

    Raises: ConfigError: The model cannot be trained with record-level privacy, or no noise meets the target.
    """
    return Site(data.id, job.task, job.algorithm, job.seed, plan_of(job, len(data.train.y)), data.train)


def plan_of(job: Job, n_records: int) -> RecordPlan | None:
    """Returns the record-level plan of a site with that many records, or ``None`` without privacy."""
    if not job.record_privacy:
        return None
    check_private_model(build(job.task.model, job.task.n_inputs, seed=0))
    training = job.task.training
    return RecordPlan.calibrated(
        target=job.epsilon,
        delta=job.delta,
        clip=_exact(training.clip),
        n_records=n_records,
        batch=training.batch,
        steps_per_attempt=training.local_steps,
        max_attempts=job.max_attempts,
    )


class SimulatedMember:
    """Finds out which site a Flower node plays, from its partition number; picklable, so that Ray can send it.

    Each process keeps what it resolved: the job, and the data of the one site it is asked for.

    Attributes:
      config: Options in their run-configuration form, or ``None`` to read the node's own run configuration.
      folder: Run folder, where ledger and identity keys are; empty to derive it from the run's id.
    """

    def __init__(self, config: dict[str, str | int | float | bool] | None = None, folder: str = "") -> None:
        self._config = config
        self._folder = folder

    def __call__(self, context: Context) -> Member:
        """Returns who the node is. Raises: ConfigError: More nodes than sites, or unusable options."""
        config = self._config if self._config is not None else dict(context.run_config)
        folder = self._folder or str(folder_of(Options.from_run_config(config), context.run_id))
        place = context.node_config.get("partition-id")
        if not isinstance(place, int):
            raise ConfigError("a simulated node has a partition-id")
        return _member(tuple(sorted(config.items())), folder, place)


def folder_of(options: Options, run_id: int) -> Path:
    """Returns where a Flower run writes: ``out``, or a folder under ``runs`` that server and sites both derive."""
    name = Path(options.scenario).stem
    return Path(options.out or Path("runs") / f"{name}-{run_id}").absolute()


@lru_cache(maxsize=32)
def _member(config: tuple[tuple[str, str | int | float | bool], ...], folder: str, place: int) -> Member:
    job = resolve(Options.from_run_config(dict(config)))
    if place >= len(job.sites):
        raise ConfigError(f"node {place} has no site: {job.scenario.name} has {len(job.sites)}")
    return member_of(job, load_member_data(job)[job.sites[place]], Path(folder))


def member_of(job: Job, data: SiteData, folder: Path) -> Member:
    """Builds the member of a run that holds this data, with ledger and identity key from the run folder.

    Raises: ConfigError: The job aggregates securely and the folder holds no key for the site.
    """
    site = site_of(job, data)
    ledger = Ledger(folder / LEDGER_FILE) if site.plan is not None else None
    secure: SecureSite | None = None
    if job.secagg:
        identities = Identities(folder)
        admissions = Admissions(folder / LEDGER_FILE)
        secure = SecureSite(site.id, identities.key(site.id), identities.roster, admissions, time.monotonic)
    return Member(site, ledger, job.digest, secure)


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


def _exact(value: float) -> Decimal:
    return Decimal(repr(value))
