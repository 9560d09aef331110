"""How many organisations hold each part that a plan gives out, before anybody trains: what would stand still, and why.

Cover counts organisations, never devices: what hides one organisation's update in a sum is the others' in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from privacy.secagg.context import MIN_SITES, thresholds
from strategies.planner import Part


@dataclass(frozen=True)
class Cover:
    """Who holds the whole of one part.

    Attributes:
      part: One of those that were given out.
      organisations: With at least this part, sorted.
      floor: Fewest that a sum of it takes, of all organisations that hold anything; 0: these are too few for a sum.
    """

    part: Part
    organisations: tuple[str, ...]
    floor: int

    @property
    def moves(self) -> bool:
        """Whether a sum over its holders may be opened; what is in no smaller part stands still otherwise."""
        return 0 < self.floor <= len(self.organisations)


def covers(parts: Sequence[tuple[str, Part]], nodes: Sequence[str]) -> tuple[Cover, ...]:
    """Returns the cover of every different part, the largest first.

    Args:
      parts: Organisation and part of each device.
      nodes: Names of the cuts in their order: how deep a front is.
    """
    held = [(organisation, part) for organisation, part in parts if part.kind != "none"]
    count = len({organisation for organisation, _ in held})
    floor = thresholds(count).min_cover if count >= MIN_SITES else 0
    different = {(part.kind, part.end, part.ratio): part for _, part in held}
    found = [
        Cover(part, tuple(sorted({owner for owner, other in held if _contains(other, part, nodes)})), floor)
        for part in different.values()
    ]
    return tuple(sorted(found, key=lambda cover: (-cover.part.memory, cover.part.kind, cover.part.end)))


def _contains(larger: Part, part: Part, nodes: Sequence[str]) -> bool:
    """Whether every weight of a part is in another: a front and a slice are in the whole, and in none of each other."""
    if larger.kind == "whole":
        return True
    if larger.kind != part.kind:
        return False
    if part.kind == "depth":
        return nodes.index(larger.end) >= nodes.index(part.end)
    return larger.ratio >= part.ratio
