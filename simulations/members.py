"""Turns a job into sites: each gets its own rows, its own plan, and nothing of anybody else's."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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
from privacy.keys.signing import SigningKey
from privacy.secagg.context import Roster
from privacy.store.admissions import Admissions
from privacy.store.ledger import Ledger
from privacy.store.run_folder import LEDGER_FILE
from simulations.datasets import SiteData, load_sites
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
      folder: Run folder, where the ledger is; empty to derive it from the run's id.
      identities: Identity keys for secure aggregation; a simulation makes everybody's.
    """

    def __init__(
        self,
        config: dict[str, str | int | float | bool] | None = None,
        folder: str = "",
        identities: "Identities | None" = None,
    ) -> None:
        self._config = config
        self._folder = folder
        self._identities = identities

    def __call__(self, context: Context) -> Member:
        """Returns who the node is. Raises: ConfigError: More nodes than sites, or unusable options."""
        config = self._config if self._config is not None else dict(context.run_config)
        folder = self._folder or str(folder_of(Options.from_run_config(config), context.run_id))
        place = context.node_config.get("partition-id")
        if not isinstance(place, int):
            raise ConfigError("a simulated node has a partition-id")
        return _member(tuple(sorted(config.items())), folder, place, self._identities)


def folder_of(options: Options, run_id: int) -> Path:
    """Returns where a Flower run writes: ``out``, or a folder under ``runs`` that server and sites both derive."""
    name = Path(options.scenario).stem
    return Path(options.out or Path("runs") / f"{name}-{run_id}").absolute()


@lru_cache(maxsize=32)
def _member(
    config: tuple[tuple[str, str | int | float | bool], ...], folder: str, place: int, identities: "Identities | None"
) -> Member:
    job = resolve(Options.from_run_config(dict(config)))
    if place >= len(job.sites):
        raise ConfigError(f"node {place} has no site: {job.scenario.name} has {len(job.sites)}")
    return member_of(job, load_member_data(job)[job.sites[place]], Path(folder), identities)


@dataclass(frozen=True)
class Identities:
    """Identity keys of a simulated federation: seeds by site, as sorted pairs so that the value can be a cache key.

    At real sites each key is made where it is used and the roster is signed by officers; here one process plays all.
    """

    seeds: tuple[tuple[SiteId, bytes], ...] = field(repr=False)

    @classmethod
    def drawn(cls, sites: Sequence[SiteId], entropy: Callable[[int], bytes]) -> "Identities":
        """Draws a key for each site."""
        return cls(tuple((site, entropy(32)) for site in sorted(sites)))

    def key(self, site: SiteId) -> SigningKey:
        """Returns a site's identity key."""
        return SigningKey(dict(self.seeds)[site])

    @property
    def roster(self) -> Roster:
        """Public keys, as every site pins them."""
        return Roster(1, {site: self.key(site).public_key for site, _ in self.seeds})


def member_of(job: Job, data: SiteData, folder: Path, identities: Identities | None = None) -> Member:
    """Builds the member of a run that holds this data, with the run's ledger if anything is to be debited."""
    site = site_of(job, data)
    ledger = Ledger(folder / LEDGER_FILE) if site.plan is not None else None
    secure: SecureSite | None = None
    if job.secagg:
        if identities is None:
            raise ConfigError("secure aggregation needs identity keys, and this engine has none")
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
