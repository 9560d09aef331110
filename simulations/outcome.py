"""What a run came to: the numbers behind the closing table, the ``--json`` object and the signed report."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from clients.scores import Scorer, mean_known
from server.claims import PrivacyClaim, Spent
from server.exchange import Egress
from simulations.accounts import SERVER
from simulations.conduct import Trained
from simulations.data.datasets import SiteData
from simulations.divided import Divided
from simulations.job import Job
from simulations.reference import Reference
from strategies.task import SiteId


@dataclass(frozen=True)
class Outcome:
    """A run that came to an end; the experimenter's numbers included.

    Attributes:
      claims: What differential privacy promises.
      together: Score per participating site of what it works with: its part of the delivered model; ``None`` where
        there is none (`clients.scores`).
      divided: Parts, regions and baselines, where sites hold different parts of the model.
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
    claims: tuple[PrivacyClaim, ...]
    together: Mapping[SiteId, float | None]
    divided: Divided | None = None

    @property
    def protections(self) -> dict[str, bool]:
        """What was on; everything else was off."""
        return {
            "secagg": self.job.secagg,
            "record_dp": self.job.record_privacy,
            "site_dp": "site" in self.job.privacy,
            "distributed_dp": "distributed" in self.job.privacy,
            "tls": False,
        }

    @property
    def spent(self) -> Mapping[str, Spent]:
        """What sites themselves paid for: noise in their steps, or else their shares of the noise in the sum."""
        return next((claim.spent for claim in self.claims if SERVER not in claim.spent), {})

    @property
    def status(self) -> Literal["finished", "stopped"]:
        """Whether all rounds were tried."""
        return "stopped" if self.trained.stopped else "finished"

    @property
    def skipped(self) -> int:
        """Rounds that left the model as it was."""
        return sum(record.skipped for record, _ in self.trained.rounds)

    def interval(self, site: SiteId) -> tuple[float, float] | None:
        """Returns the 95 % interval of ``together``, if there is a score."""
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

    @property
    def mean_ensemble(self) -> float | None:
        """Returns the unweighted mean over the sites that have a score of what their own models together score."""
        return mean_known(self.reference.ensemble.values())

    def means(self) -> dict[str, float | None]:
        """Returns the unweighted means over the participating sites that have a score, by column."""
        rows = [self.columns(site) for site in self.job.sites]
        return {name: mean_known(row[name] for row in rows) for name in rows[0]}
