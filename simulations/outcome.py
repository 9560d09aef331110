"""What a run came to: the numbers behind the closing table, the ``--json`` object and the signed report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from privacy.dp.events import GaussianEvent, Relation
from privacy.dp.plan import RecordPlan
from server.exchange import Egress
from simulations.conduct import Trained
from simulations.datasets import SiteData
from simulations.job import Job
from simulations.reference import Reference
from simulations.scores import Scorer
from strategies.task import SiteId


@dataclass(frozen=True)
class Spent:
    """What one site's ledger says after a run.

    Attributes:
      events: Debited events, equal mechanisms merged.
    """

    plan: RecordPlan
    events: tuple[GaussianEvent, ...]

    @property
    def executions(self) -> int:
        """Noisy steps that were paid for."""
        return sum(event.count for event in self.events)

    def epsilon(self, relation: Relation = Relation.REPLACE_SPECIAL) -> float:
        """Returns epsilon of what was executed, by PLD."""
        return self.plan.epsilon(self.executions, relation)


@dataclass(frozen=True)
class Outcome:
    """A run that came to an end; the experimenter's numbers included.

    Attributes:
      spent: Per site that has a privacy plan.
      together: Score of the delivered model per participating site.
    """

    job: Job
    engine: str
    run_id: str
    folder: str
    started: datetime
    finished: datetime
    trained: Trained
    data: Mapping[SiteId, SiteData]
    reference: Reference
    spent: Mapping[SiteId, Spent]
    together: Mapping[SiteId, float]

    @property
    def protections(self) -> dict[str, bool]:
        """What was on; everything else was off."""
        return {
            "secagg": self.job.secagg,
            "record_dp": self.job.record_privacy,
            "site_dp": False,
            "distributed_dp": False,
            "tls": False,
        }

    @property
    def skipped(self) -> int:
        """Rounds that left the model as it was."""
        return sum(record.skipped for record, _ in self.trained.rounds)

    def interval(self, site: SiteId) -> tuple[float, float]:
        """Returns the 95 % interval of ``together``."""
        return Scorer(self.job.task).interval(self.together[site], self.data[site].test)

    def egress(self, site: SiteId) -> Egress:
        """Returns what left the site."""
        return self.trained.egress.get(site, Egress())

    def columns(self, site: SiteId) -> dict[str, float | None]:
        """Returns the scores of a site, by column of the closing table."""
        reference = self.reference
        return {
            "home": reference.home[site],
            "elsewhere": reference.elsewhere[site],
            "together": self.together[site],
            "together_without_privacy": None if reference.together is None else reference.together[site],
            "pooled": reference.pooled[site],
        }

    def means(self) -> dict[str, float | None]:
        """Returns the unweighted means over participating sites, by column."""
        rows = [self.columns(site) for site in self.job.sites]
        return {name: _mean([row[name] for row in rows]) for name in rows[0]}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
