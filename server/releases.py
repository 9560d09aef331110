"""What crossed between organisations while a cut model was trained, as a report says it."""

from collections.abc import Mapping
from typing import Any

from privacy.audit import crossings
from strategies.chain_job import releases_in_attempt
from strategies.job import Job, exact
from strategies.release import AnyRelease, Crossing, Release
from strategies.task import SiteId


def releases(job: Job, attempts: int) -> dict[str, list[dict[str, Any]]]:
    """Returns the ``releases`` of a report under their name; nothing where the model was not cut.

    Args:
      job: What ran.
      attempts: Of all rounds. A site that was in each of them released its records' values in each of its steps.
    """
    if job.chain is None:
        return {}
    found = [_entry(job, site, release, attempts) for site in job.sites for release in job.chain.released_by(site)]
    return {"releases": sorted(found, key=lambda one: (one["owner"], one["to"], one["what"]))}


def not_protected(job: Job) -> list[str]:
    """Returns what a cut model leaves open beside what its report tells by itself; nothing where it was not cut."""
    chain = job.chain
    if chain is None:
        return []
    sent = " and ".join(sorted(_sent(job)))
    labels = "Labels stayed at the sites." if chain.tail else "It saw the labels as well."
    seen = (
        f"The model is cut: {chain.holder} holds the piece between and saw {sent} of every record in every step, and"
        f" knows whose they are. {labels} The server saw none of this."
    )
    delivered = f"The delivered file has the ends of the model only: the piece between stays with {chain.holder}."
    assumed = (
        f"An epsilon of the ends assumes that {chain.holder} returns for each record a gradient that depends on it"
        " alone. So its piece keeps its initial parameters in a private run; nothing shows that it did."
    )
    return [seen, delivered, *([assumed] if job.privacy else [])]


def _entry(job: Job, site: SiteId, release: AnyRelease, attempts: int) -> dict[str, Any]:
    what = [str(each) for each in release.what]
    if not isinstance(release, Release):
        return crossings.unsafe_entry(site, release.to, what, release.reason)
    each = releases_in_attempt(job, site, release)
    terms: Mapping[str, Any] = {"clip": exact(release.clip), "noise": exact(release.noise), "most": release.most}
    return crossings.entry(
        site, release.to, what, **terms, released=min(attempts * each, release.most), delta=job.delta
    )


def _sent(job: Job) -> frozenset[Crossing]:
    back = Crossing.GRADIENTS if job.chain is not None and job.chain.tail else Crossing.LABELS
    return frozenset({Crossing.ACTIVATIONS, back})
