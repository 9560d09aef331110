"""What may cross from one organisation to another: nothing, unless a release says so.

Activations, returned gradients, queries and labels are personal data of the organisation whose records they come from.
Noise on a model's weights does not protect them. A release is that organisation's decision; here it is read and asked,
where stages run it is priced and debited.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from strategies.task_file import StrictTable


class Crossing(StrEnum):
    """What can pass between two stages."""

    INPUTS = "inputs"
    ACTIVATIONS = "activations"
    GRADIENTS = "gradients"
    LABELS = "labels"


@dataclass(frozen=True)
class Release:
    """Noise that the owner adds before values leave; all public.

    Attributes:
      clip: Largest Euclidean norm of one record's values.
      noise: Standard deviation of the Gaussian noise on each, in multiples of ``clip``.
      most: How often values of one record may leave.
    """

    owner: str
    to: str
    what: frozenset[Crossing]
    clip: float
    noise: float
    most: int


@dataclass(frozen=True)
class UnsafeRelease:
    """Values leave as they are, for a reason that the report repeats; all public."""

    owner: str
    to: str
    what: frozenset[Crossing]
    reason: str


AnyRelease = Release | UnsafeRelease


def find_release(releases: Sequence[AnyRelease], what: Crossing, *, owner: str, to: str) -> AnyRelease | None:
    """Returns the release under which an owner's values may reach another organisation; ``None``: refused.

    One with noise is preferred to an unsafe one.
    """
    found = [each for each in releases if each.owner == owner and each.to == to and what in each.what]
    return min(found, key=lambda each: isinstance(each, UnsafeRelease), default=None)


def read_release(table: StrictTable) -> AnyRelease:
    """Reads one release out of a devices file.

    Raises: ConfigError: Anything missing, misspelt or contradictory.
    """
    owner, to = table.text("owner"), table.text("to")
    what = _what(table)
    if owner == to:
        raise table.error("to", "is the owner itself; within an organisation no release is needed")
    release: AnyRelease
    if "unsafe" in table:
        for key in ("clip", "noise", "most"):
            if key in table:
                raise table.error(key, "has no effect beside unsafe: values would leave as they are")
        release = UnsafeRelease(owner, to, what, table.text("unsafe"))
    else:
        # Noise on a label or on the input itself leaves nothing to learn from: the owner has to say it in words.
        for crossing in sorted(what & {Crossing.INPUTS, Crossing.LABELS}):
            raise table.error("what", f'{crossing} can only be released with unsafe = "REASON"')
        release = Release(
            owner, to, what,
            table.number("clip", above=0.0), table.number("noise", above=0.0), table.whole("most", least=1),
        )  # fmt: skip
    table.close()
    return release


def release_body(release: AnyRelease) -> dict[str, Any]:
    """Returns a release as JSON, with the keys that `read_release` takes."""
    terms: dict[str, Any]
    if isinstance(release, UnsafeRelease):
        terms = {"unsafe": release.reason}
    else:
        terms = {"clip": release.clip, "noise": release.noise, "most": release.most}
    return {"owner": release.owner, "to": release.to, "what": sorted(str(each) for each in release.what), **terms}


def _what(table: StrictTable) -> frozenset[Crossing]:
    values = table.scalars("what")
    known = {str(each): each for each in Crossing}
    for value in values:
        if value not in known:
            raise table.error("what", f"{value!r} is not one of: {', '.join(known)}")
    if not values:
        raise table.error("what", "must name at least one of: " + ", ".join(known))
    return frozenset(known[str(value)] for value in values)
