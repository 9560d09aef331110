"""What dividing the model came to: who held what, which regions stood still, and the two baselines to read it against.

Dividing a model is worth it only if it beats both leaving the weak sites out and giving everybody the smallest model;
so both are trained, without privacy, beside every run of a divided model. The experimenter's view.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from clients.scores import Scorer
from privacy.secagg.context import thresholds
from server.rounds import FLOOR, RoundRecord
from simulations.data.datasets import SiteData
from simulations.job import Job
from simulations.pieces import Pieces
from simulations.reference import federate
from strategies.parts import Division
from strategies.secure_sum import BITS
from strategies.task import SiteId


@dataclass(frozen=True)
class PartFound:
    """One part of the model after a run.

    Attributes:
      sites: Who trained it.
      parameters: Of the part, private ones included.
      upload: Bytes of masked vector that a site with this part sends in an attempt.
      score: Of this part of the delivered model; of every exit, the last one last, where the model has exits.
      scored_at: Whose test rows were used: everybody's, or those of its holders where a part has private parameters.
    """

    name: str
    sites: tuple[SiteId, ...]
    parameters: int
    upload: int
    score: tuple[float | None, ...]
    scored_at: tuple[SiteId, ...]


@dataclass(frozen=True)
class RegionFound:
    """Coordinates that the same sites hold, and what became of them.

    Attributes:
      still: Rounds, of those that were begun, in which no sum moved it.
    """

    holders: tuple[str, ...]
    parameters: int
    still: int


@dataclass(frozen=True)
class Baseline:
    """A federation without division: the smallest part for all, or the sites with the largest part by themselves."""

    sites: tuple[SiteId, ...]
    score: float | None
    scored_at: tuple[SiteId, ...]


@dataclass(frozen=True)
class Divided:
    """All of it.

    Attributes:
      floor: Fewest holders of a region whose sum is opened.
      strong: ``None`` where fewer than three sites hold the largest part.
    """

    parts: tuple[PartFound, ...]
    regions: tuple[RegionFound, ...]
    floor: int
    smallest: Baseline
    strong: Baseline | None

    @property
    def slack(self) -> int:
        """Holders that the region with the fewest can lose before it stands still; below 0 it never moves."""
        return min(len(region.holders) for region in self.regions) - self.floor


def is_divided(job: Job) -> bool:
    """Whether there is a parameter that not every site trains and sends."""
    return not job.plan.is_whole


def measure_division(
    job: Job, data: Mapping[SiteId, SiteData], delivered: Pieces, rounds: Sequence[RoundRecord]
) -> Divided:
    """Scores every part of a delivered model and trains the baselines."""
    groups: dict[str, list[SiteId]] = {}
    for site in job.sites:
        groups.setdefault(job.part_name(site), []).append(site)
    by_size = sorted(groups.values(), key=lambda sites: job.part_of(sites[0]).piece.size)
    strong = tuple(by_size[-1])
    smallest = _baseline(job, job.sites, by_size[0][0], data)
    return Divided(
        parts=tuple(_part(name, tuple(sites), data, delivered) for name, sites in groups.items()),
        regions=tuple(
            RegionFound(region.holders, region.positions.size, sum(k in record.still for record in rounds))
            for k, region in enumerate(job.plan.regions())
        ),
        floor=thresholds(len(job.sites)).min_cover,
        smallest=smallest,
        strong=_strong(job, strong, smallest, data),
    )


def _strong(
    job: Job, strong: tuple[SiteId, ...], smallest: Baseline, data: Mapping[SiteId, SiteData]
) -> Baseline | None:
    if strong == job.sites:  # everybody has the same part: it is the same federation
        return smallest
    return _baseline(job, strong, strong[0], data) if len(strong) >= FLOOR else None


def _part(name: str, sites: tuple[SiteId, ...], data: Mapping[SiteId, SiteData], delivered: Pieces) -> PartFound:
    job = delivered.job
    part, spec = job.part_of(sites[0]), job.spec_of(sites[0])
    scorer, at = Scorer(job.task, spec), sites if part.private else job.sites
    # Without private parameters all holders of a part have the same piece.
    pieces = {site: delivered.piece(site if part.private else sites[0]) for site in at}
    scores = [
        _mean({site: scorer.score_exit(pieces[site], data[site].test, k) for site in at}, data)
        for k in range(len(spec.hidden) if spec.exits else 0)
    ] or [_mean({site: scorer.score(pieces[site], data[site].test) for site in at}, data)]
    return PartFound(
        name,
        sites,
        part.piece.size,
        part.held.size * len(job.algorithm.declared.arrays) * BITS // 8,
        tuple(scores),
        at,
    )


def _baseline(job: Job, sites: tuple[SiteId, ...], like: SiteId, data: Mapping[SiteId, SiteData]) -> Baseline:
    """Trains one undivided federation of ``sites`` on the part that ``like`` holds."""
    plain = replace(
        job.without_privacy(),
        sites=sites,
        task=replace(job.task, model=job.spec_of(like)),
        division=Division(private=job.division.private),
        chain=None,
    )
    found = federate(plain, data)
    at = sites if job.division.private else job.sites
    return Baseline(sites, _mean({site: found.score(site, data[site].test) for site in at}, data), at)


def _mean(scores: Mapping[SiteId, float | None], data: Mapping[SiteId, SiteData]) -> float | None:
    """Weighs the sites that have a score by their test rows: of accuracies, that is the accuracy over all rows."""
    known = [(score, len(data[site].test.y)) for site, score in scores.items() if score is not None]
    return math.fsum(score * n for score, n in known) / sum(n for _, n in known) if known else None
