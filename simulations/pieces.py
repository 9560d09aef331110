"""What each site works with after a run: its part of the delivered model, and the parameters it kept to itself.

The experimenter's view. With whole models and nothing private it is the delivered model at every site.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clients.private_part import read_private
from clients.records import Records
from clients.scores import Scorer
from simulations.holder import Holder
from simulations.job import Job
from simulations.members import PRIVATE_FOLDER
from strategies.contribution import Vector
from strategies.task import SiteId


@dataclass(frozen=True)
class Pieces:
    """A model as the sites have it.

    Attributes:
      model: The whole one, shape ``(d,)``.
      private: By site, shape ``(p,)``; a site that is not listed has the initial values.
    """

    job: Job
    model: Vector
    private: Mapping[SiteId, Vector] = field(default_factory=dict)

    @classmethod
    def of_run(cls, job: Job, model: Vector, folder: Path) -> "Pieces":
        """Takes the private parameters that the sites of a run wrote down, and what the holder of its piece did."""
        if job.chain is not None:
            return cls(job, Holder(job, folder).model(model))
        if not job.division.private:
            return cls(job, model)
        files = {site: folder / PRIVATE_FOLDER / f"{site}.safetensors" for site in job.sites}
        private = {site: read_private(path, job.part_of(site)) for site, path in files.items() if path.is_file()}
        return cls(job, model, private)

    def piece(self, site: SiteId) -> Vector:
        """Returns the parameters that a site works with, in the layout of its own model; of a chain, all of them."""
        if self.job.chain is not None:
            return self.model
        part = self.job.part_of(site)
        return part.piece_of(self.model[part.held], self.job.initial_of(site), self.private.get(site))

    def score(self, site: SiteId, records: Records) -> float | None:
        """Scores what a site works with; ``None``: these records give no score."""
        return self._scorer(site).score(self.piece(site), records)

    def loss(self, site: SiteId, records: Records) -> float:
        """Returns the mean cross-entropy of what a site works with, in nats."""
        return self._scorer(site).loss(self.piece(site), records)

    def losses(self, site: SiteId, records: Records) -> npt.NDArray[np.float64]:
        """Returns the cross-entropy of each record, in nats, shape ``(n,)``."""
        return self._scorer(site).losses(self.piece(site), records)

    def _scorer(self, site: SiteId) -> Scorer:
        return Scorer(self.job.task, self.job.spec_of(site))
