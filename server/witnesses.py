"""The server's log as its sites witness it: every START tells each of them how the log has grown since it last looked.

A site that never got the last START saw less than one that answered it, and which of the two holds is not known until
the site answers. So it is told the growth from each size that it may have seen.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from privacy.audit.checkpoint import open_checkpoint
from privacy.store.log import Log
from strategies.task import SiteId

_KEPT = 8


@dataclass
class Witnesses:
    """Sizes of the log that each site may have seen last."""

    log: Log
    _may: dict[SiteId, list[int]] = field(default_factory=dict)

    def saw(self, seen: Mapping[SiteId, int]) -> None:
        """Takes in what the sites said at the roll call."""
        self._may.update((site, [size]) for site, size in seen.items())

    def growth(self, site: SiteId) -> tuple[bytes, ...]:
        """Returns what to tell a site now; nothing about sizes that the log never had, which the site will refuse."""
        now = open_checkpoint(self.log.note(), self.log.key).size
        sizes = [size for size in self._may.get(site, [0]) if size <= now]
        if now not in sizes:
            kept = [*sizes, now]
            # The first is what it said or confirmed itself: a site that was away for long has seen no other.
            self._may[site] = kept if len(kept) <= _KEPT else [kept[0], *kept[2:]]
        return tuple(self.log.growth(size) for size in sizes)

    def confirm(self, sites: Iterable[SiteId]) -> None:
        """These sites answered what they were told last, so they have seen it."""
        for site in sites:
            self._may[site] = self._may[site][-1:]
