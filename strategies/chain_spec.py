"""How a study cuts its model for split training: what stays with the records, and who holds the piece in between.

Public, and read before any private row. Across organisations a chain is a U: the tail, and with it the labels, come
back to where the records are, unless the study releases labels in so many words.
"""

from dataclasses import dataclass, replace
from typing import Any

from strategies.parts import Division
from strategies.release import AnyRelease, read_release, release_body
from strategies.task import SiteId
from strategies.task_file import StrictTable

EVERYBODY = "*"
"""Owner of a release that every training site makes alike."""


@dataclass(frozen=True)
class ChainSpec:
    """A cut model; all public.

    Attributes:
      holder: Site id of the organisation that holds the piece between front and tail.
      front: The operation whose value leaves the front, which stays with the records.
      tail: The operation whose value comes back to the tail, which stays with the labels; empty: there is no tail.
      micro_batch: Most records that cross at once; 0: those of a step.
      releases: What may cross, as the study says it.
    """

    holder: str
    front: str
    tail: str = ""
    micro_batch: int = 0
    releases: tuple[AnyRelease, ...] = ()

    def released_by(self, site: SiteId) -> tuple[AnyRelease, ...]:
        """Returns what one site releases."""
        owned = (replace(each, owner=site) if each.owner == EVERYBODY else each for each in self.releases)
        return tuple(each for each in owned if each.owner == site)

    def to_json(self) -> dict[str, Any]:
        """Returns what a digest covers."""
        return {**vars(self), "releases": [release_body(each) for each in self.releases]}


def parse_chain(table: StrictTable, division: Division) -> ChainSpec | None:
    """Reads the ``chain`` table of a study, if it has one.

    Args:
      table: The study while it is being read.
      division: Of the same study.

    Raises: ConfigError: Unknown keys, a release to somebody else than the holder, or a model divided in two ways.
    """
    if "chain" not in table:
        return None
    entry = table.table("chain")
    if division != Division():
        raise entry.error("", "goes with no [submodels]: a model is divided in one way")
    releases = tuple(read_release(each) for each in entry.tables("releases", optional=True))
    spec = ChainSpec(
        holder=entry.text("holder"),
        front=entry.text("front"),
        tail=entry.text("tail", ""),
        micro_batch=entry.whole("micro_batch", 0),
        releases=releases,
    )
    for each in releases:
        if each.to != spec.holder:
            raise entry.error("releases", f"one is to {each.to!r}, and all that crosses goes to {spec.holder!r}")
    entry.close()
    return spec
