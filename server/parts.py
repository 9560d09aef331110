"""Parts and regions of a divided model as a report about real sites lists them: who held what, and what stood still."""

from collections.abc import Sequence
from typing import Any

from privacy.secagg.context import thresholds
from server.rounds import RoundRecord
from strategies.job import Job
from strategies.secure_sum import BITS
from strategies.task import SiteId


def submodels(job: Job, rounds: Sequence[RoundRecord]) -> dict[str, Any] | None:
    """Returns the ``submodels`` of a report, without the scores, which the coordinator does not know.

    Nothing where every site holds the whole model.
    """
    if job.plan.is_whole:
        return None
    groups: dict[str, list[SiteId]] = {}
    for site in job.sites:
        groups.setdefault(job.part_name(site), []).append(site)
    floor = thresholds(len(job.sites)).min_cover
    regions = [
        {
            "holders": list(region.holders),
            "parameters": int(region.positions.size),
            "still": sum(k in record.still for record in rounds),
        }
        for k, region in enumerate(job.plan.regions())
    ]
    return {
        "floor": floor,
        "slack": min(len(region.holders) for region in job.plan.regions()) - floor,
        "parts": [_part(job, name, sites) for name, sites in groups.items()],
        "regions": regions,
        "baselines": None,
    }


def _part(job: Job, name: str, sites: Sequence[SiteId]) -> dict[str, Any]:
    part = job.part_of(sites[0])
    return {
        "name": name,
        "sites": list(sites),
        "parameters": part.piece.size,
        "upload_bytes": part.held.size * len(job.algorithm.declared.arrays) * BITS // 8,
        "score": [],
        "scored_at": [],
    }
