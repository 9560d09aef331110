"""Bounds from right guesses as claims write them, and the rules that measured claims are judged by.

Whoever makes a claim and whoever checks it call the same functions on the same written numbers.
"""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal

from privacy.attacks import one_run
from privacy.attacks.one_run import GRID, Guesses
from privacy.audit.figures import epsilon_text

DELTA = Decimal("0.00001")
"""Delta of every audit by guesses: a larger one would give away more than such an audit can show."""
ALPHA = Decimal("0.05")
"""Probability that a bound is wrong, each by itself."""

Verdict = Literal["no violation", "violation", "inconclusive"]

# Bounds are rounded down to 4 decimals; another machine's last bit may tip one of them over.
_LAST_PLACE = Decimal("0.0001")


def judged(*, exceeded: bool, fired: bool) -> Verdict:
    """Returns what an audit shows: what it found counts always, that it found nothing only if its controls fired."""
    if exceeded:
        return "violation"
    return "no violation" if fired else "inconclusive"


def guesses_json(guesses: Sequence[Guesses]) -> list[dict[str, Any]]:
    """Writes counts for a claim."""
    return [
        {"fraction": str(one.fraction), "sides": one.sides, "guesses": one.guesses, "correct": one.correct}
        for one in guesses
    ]


def counted(m: int, guesses: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Returns the lower bounds that written counts among ``m`` canaries give, as a claim writes them."""
    read = tuple(Guesses(Decimal(one["fraction"]), one["sides"], one["guesses"], one["correct"]) for one in guesses)
    return {
        "steinke": epsilon_text(one_run.steinke(m, read, float(DELTA), float(ALPHA))),
        "fdp": epsilon_text(one_run.fdp(m, read, float(DELTA), float(ALPHA))),
    }


def ceiling_json(m: int) -> dict[str, str]:
    """Returns the bounds were every guess right."""
    steinke, fdp = one_run.ceiling(m, float(DELTA), float(ALPHA))
    return {"steinke": epsilon_text(steinke), "fdp": epsilon_text(fdp)}


def powerless(ceiling: Mapping[str, str], formal: str) -> bool:
    """Says whether not even right guesses only would exceed the formal value."""
    return max(Decimal(bound) for bound in ceiling.values()) <= Decimal(formal)


def same_bound(claimed: str | None, computed: str | None) -> bool:
    """Compares two written bounds, up to one unit in the last place."""
    if claimed is None or computed is None:
        return claimed is computed
    return abs(Decimal(claimed) - Decimal(computed)) <= _LAST_PLACE


def same_bounds(claimed: Mapping[str, str | None], computed: Mapping[str, str | None]) -> bool:
    """Compares written bounds name by name."""
    return claimed.keys() == computed.keys() and all(same_bound(claimed[name], computed[name]) for name in claimed)


def miscounted(m: int, guesses: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yields how counts differ from what the strategies, fixed beforehand, can give."""
    if [(Decimal(one["fraction"]), one["sides"]) for one in guesses] != list(GRID):
        yield "the strategies of guessing are not those that were fixed beforehand"
        return
    for one, (fraction, sides) in zip(guesses, GRID, strict=True):
        if one["guesses"] != sides * int(fraction * m) or one["correct"] > one["guesses"]:
            yield f"{one['correct']} of {one['guesses']} right guesses at {fraction} cannot be of {m} canaries"
