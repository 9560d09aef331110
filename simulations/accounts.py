"""The budget ledgers of a run: one a site and one of the server, new in the run folder or kept across runs.

``ledger.db`` is the server's, ``ledgers/SITE.db`` a site's. An asset is what the scenario calls the site's records: a
scenario of one's own that reads the same people under another name would need the same asset.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clients.work import Site, plans_of
from privacy.audit import ledger_chain
from privacy.dp.events import Event, GaussianEvent, SamplingType, merged
from privacy.dp.filters import Filter, FilterKind
from privacy.dp.plan import PrivacyPlan, SitePlan
from privacy.errors import ConfigError
from privacy.store.budgets import UNLIMITED, Asset, Budget
from privacy.store.ledger import Ledger
from privacy.store.run_folder import LEDGER_FILE
from server.claims import Lifetime
from simulations.job import Job
from simulations.options import Options
from strategies.task import SiteId

SERVER = "server"
"""Who holds the ledger of noise in opened sums."""


@dataclass(frozen=True)
class Accounts:
    """Where the ledgers of a run are, and how the run is called in them.

    Attributes:
      folder: Of the ledgers: the run folder, or the one that ``--ledgers`` names.
      run: Unique over all runs that use the folder.
    """

    folder: Path
    run: str

    @classmethod
    def of(cls, options: Options, folder: Path, run_id: int) -> "Accounts":
        """Returns the accounts of a run with that folder and id."""
        return cls(Path(options.ledgers).absolute() if options.ledgers else folder, str(run_id))

    def path(self, holder: str) -> Path:
        """Returns the ledger file of a site or of the server."""
        return self.folder / LEDGER_FILE if holder == SERVER else self.folder / "ledgers" / f"{holder}.db"

    def open(self, holder: str) -> Ledger:
        """Opens a ledger that ``prepare`` made. Raises: ConfigError: It is not there or damaged."""
        return Ledger(self.path(holder))

    def prepare(self, job: Job, sites: Sequence[Site], options: Options) -> None:
        """Makes the ledgers that are not there yet, and declares what the run will debit.

        Raises: ConfigError: A ledger is unusable, or an asset has another budget already.
        """
        for site in sites:
            self._prepare(asset_of(job, site.id), site.id, plans_of(site), options)
        self._prepare(federation_asset(job), SERVER, server_plans(job), options)

    def _prepare(self, asset: str, holder: str, plans: Sequence[PrivacyPlan], options: Options) -> None:
        path = self.path(holder)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{path.parent} cannot be written: {error.strerror or error}") from error
        ledger = Ledger(path) if path.exists() else Ledger.create(path, simulation=True)
        with ledger.reading() as books:
            known = books.assets.get(asset)
        if known is None and plans:
            ledger.declare(Asset(asset, {plan.claim: _budget(plan, options) for plan in plans}))
        elif known is not None and options.budget:
            _check_same(known, options)

    def events(self, holder: str, claim: str) -> tuple[Event, ...]:
        """Returns what this run debited under a claim, equal events merged."""
        debits = (debit for debit in self.open(holder).debits() if debit.run == self.run)
        return merged([debit.event for debit in debits if debit.claim == claim])

    def entries(self, holders: Iterable[str]) -> Iterator[bytes]:
        """Yields the lines of the whole ledgers of these holders, other runs' entries included, for a report."""
        for holder in sorted(holders):
            yield from ledger_chain.lines(holder, self.open(holder).entries())

    def lifetime(self, holder: str, asset: str, claim: str) -> Lifetime | None:
        """Returns the budget behind a claim and what all runs spent of it; ``None`` where nothing is limited."""
        with self.open(holder).reading() as books:
            budget = books.asset(asset).budgets[claim]
            events = books.spent(asset, claim)
        return Lifetime(asset, budget, events) if isinstance(budget, Filter) else None


def server_plans(job: Job) -> tuple[SitePlan, ...]:
    """Returns the plans whose noise the server adds, and therefore pays for."""
    return (job.sum_plan,) if isinstance(job.sum_plan, SitePlan) else ()


def asset_of(job: Job, site: SiteId) -> str:
    """Names the population behind a site's records."""
    return f"{job.scenario.name}/{site}"


def federation_asset(job: Job) -> str:
    """Names the population that noise in opened sums protects: all sites."""
    return f"{job.scenario.name}/all sites"


def _budget(plan: PrivacyPlan, options: Options) -> Budget:
    if not options.budget:
        return UNLIMITED
    event = plan.event(1)
    full = isinstance(event, GaussianEvent) and event.sampling.type is SamplingType.FULL
    return Filter.for_budget(FilterKind.GDP if full else FilterKind.RENYI, options.budget, options.delta, event)


def _check_same(asset: Asset, options: Options) -> None:
    wanted = (options.budget, options.delta)
    found: Iterable[Budget] = asset.budgets.values()
    for budget in found:
        if not isinstance(budget, Filter) or (budget.epsilon, budget.delta) != wanted:
            was = f"{budget.epsilon} at delta {budget.delta}" if isinstance(budget, Filter) else "unlimited"
            raise ConfigError(
                f"the budget of {asset.name} is {was}, fixed when it was declared",
                hint="Drop --budget to spend from it, or name another --ledgers folder.",
            )
