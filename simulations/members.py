"""Turns a job into sites: each gets its own rows, its own plan, and nothing of anybody else's."""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from flwr.app import Context

from clients import cosigning
from clients.app import Account, Member, MemberOf
from clients.chain.payer import Payer
from clients.gate import Gate
from clients.memory import Left
from clients.secure import SecureSite
from clients.sites import site_of
from clients.work import plans_of
from privacy.audit.payments import Payment
from privacy.errors import ConfigError
from privacy.keys.signing import SigningKey
from privacy.store.admissions import Admissions
from simulations.accounts import Accounts, asset_of
from simulations.data.datasets import SiteData, load_sites
from simulations.demo_charter import pinned, simulated_application
from simulations.holder import Holder
from simulations.identities import Identities
from simulations.job import Job, resolve
from simulations.options import Options
from strategies.task import SiteId

PRIVATE_FOLDER = "private"
"""Folder of a run where each site keeps the parameters that it never sends."""


class SimulatedMember:
    """Finds out which site a Flower node plays, from its partition number; picklable, so that Ray can send it.

    Each process keeps what it resolved: the job, and the data of the one site it is asked for.

    Args:
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

    def __call__(self, context: Context, _invitation: bytes) -> Member:
        """Returns who the node is; its gate compares what it is invited to with what it resolved.

        Raises: ConfigError: More nodes than sites, or unusable options.
        """
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


def member_of(job: Job, data: SiteData, folder: Path, accounts: Accounts, holder: Holder | None = None) -> Member:
    """Builds the member of a run that holds this data, with its ledger, and its identity key from the run folder.

    Where the model is cut, it trains through ``holder``, all members through the same.

    Raises: ConfigError: The folder holds no charter, or no key for the site.
    """
    account = Account(accounts.open(data.id), asset_of(job, data.id), accounts.run)
    most = data.train.most_of_unit
    payer = Payer(account.ledger, account.asset, most_records=most, note_ledger=lambda: None)  # a simulation has no log
    opener = None if holder is None else holder.opener(payer if job.record_privacy else None)
    site = site_of(job, data.id, data.train, opener)
    identities = Identities(folder)
    gate = Gate(
        site.id,
        pinned(folder),
        simulated_application(),
        clock=lambda: datetime.now(UTC),
        record=lambda _decision: None,
        unsafe_without_masks=not job.secagg,
    )
    secure: SecureSite | None = None
    if job.secagg:
        admissions = Admissions(accounts.path(site.id))
        secure = SecureSite(site.id, identities.key(site.id), identities.roster, admissions, time.monotonic)
    private = folder / PRIVATE_FOLDER / f"{site.id}.safetensors" if site.part.private else None
    return Member(
        site,
        account,
        job.digest,
        job.plan,
        secure,
        private,
        admit=lambda invitation: gate.check(invitation, job, plans_of(site)),
        cosign=_cosigner(job, site.id, identities.key(site.id), account),
    )


def _cosigner(job: Job, site: SiteId, key: SigningKey, account: Account) -> Callable[[bytes, Left], bytes]:
    """Returns how a site signs a report: if its ledger and its own count of what left it say the same."""

    def cosign(data: bytes, left: Left) -> bytes:
        debits = [debit for debit in account.ledger.debits() if debit.run == account.run]
        paid = tuple(Payment(debit.claim, debit.round, debit.attempt, debit.event) for debit in debits)
        own = cosigning.Account(site, account.run, job.digest, paid, left.messages, left.bytes, masked=job.secagg)
        return cosigning.sign(data, site, key, lambda report: cosigning.account_doubts(report, own))

    return cosign


def load_member_data(job: Job) -> dict[SiteId, SiteData]:
    """Loads every site of the scenario, those that do not take part included, each capped to the job's rows."""
    return {data.id: data for data in load_sites(job.scenario, data_home())}


def data_home() -> Path | None:
    """Returns the folder of data sets that the environment variable ``COLLEGIUM_DATA`` names, if it does."""
    named = os.environ.get("COLLEGIUM_DATA", "")
    return Path(named) if named else None


def fixed_member(member: Member) -> MemberOf:
    """Returns a finder for a node that always plays the same site (the in-process engine)."""
    return lambda _context, _invitation: member
