"""What crossed from one organisation to another while a cut model was trained: the ``releases`` of a report.

Activations, returned gradients, inputs and labels are personal data of the organisation whose records they come from.
A release is that organisation's decision that the holder of the next piece may see them: with noise, priced here as
replace-one and without amplification, since the receiver knows whose values it gets; or as they are, for a reason that
the page prints in red. Each function is pure, and its words are plain text.
"""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any

from privacy.audit import testimony, words
from privacy.audit.pricing import SLACK_DOWN, SLACK_UP
from privacy.audit.statement import Statement
from privacy.dp.accounting import epsilon, round_up
from privacy.dp.events import FULL_BATCH, GaussianEvent, Relation
from privacy.errors import UnsupportedEventError

STAGE_KIND = "train.stage"
"""Type of the messages of a run that trains through a chain; a report of one, and no other, has releases."""


def price(noise: Decimal, released: int, delta: Decimal) -> float:
    """Returns epsilon of that many noisy releases of one record's values, at ``delta``, by RDP.

    Args:
      noise: Standard deviation on each value, in multiples of the clip; replaced by another record, values move by up
        to twice the clip.
      released: How often values of one record left.
      delta: 0 < delta < 1.
    """
    return _priced([(noise, released)], delta)


def _priced(costs: Sequence[tuple[Decimal, int]], delta: Decimal) -> float:
    """Returns epsilon of releases of one record's values, as pairs of noise and number, all together."""
    events = [GaussianEvent(noise / 2, FULL_BATCH, released) for noise, released in costs if released]
    return epsilon(events, delta, Relation.REPLACE_SPECIAL, "RDP")


def entry(
    owner: str, to: str, what: Sequence[str], *, clip: Decimal, noise: Decimal, most: int, released: int, delta: Decimal
) -> dict[str, Any]:
    """Returns a release with noise as the report lists it."""
    return {
        "owner": owner,
        "to": to,
        "what": sorted(what),
        "clip": f"{clip:f}",
        "noise": f"{noise:f}",
        "most": most,
        "released": released,
        "delta": f"{delta:f}",
        "epsilon": round_up(price(noise, released, delta)),
    }


def unsafe_entry(owner: str, to: str, what: Sequence[str], reason: str) -> dict[str, Any]:
    """Returns a release without noise as the report lists it."""
    return {"owner": owner, "to": to, "what": sorted(what), "unsafe": reason}


def of(body: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Returns a report's releases; ``None``: no model was cut."""
    found: list[dict[str, Any]] | None = body.get("releases")
    return found


def contradictions(report: Statement) -> Iterator[str]:
    """Yields where the releases contradict each other, their price or the rest of the report, in words."""
    body, found = report.predicate, of(report.predicate)
    staged = {
        sent["site"]
        for sent in (report.claim(testimony.LEFT) or {"sites": []})["sites"]
        if any(one["kind"] == STAGE_KIND for one in sent["payloads"])
    }
    if found is None:
        yield from (
            f"{site} trained through a chain, and nothing is said about what crossed" for site in sorted(staged)
        )
        return
    if not body["protections"]["secagg"]:
        yield "the model was cut, and fronts are summed under masks only, but secure aggregation was off"
    keys = [(one["owner"], one["to"], one["what"]) for one in found]
    if any(first >= second for first, second in pairwise(keys)):
        yield "the releases are not sorted, or one stands twice"
    sites = {one["site"] for one in body["egress"]}
    for one in found:
        yield from _release(one, sites)
    owners = {one["owner"] for one in found}
    answered = {site for each in body["rounds"] for site in each["answered"]}
    if len({one["to"] for one in found}) > 1:
        yield "the releases are to several holders, and a run has one"
    for site in sorted(answered - owners):
        yield f"{site} trained through a chain, and no release says what the holder was shown"
    if testimony.LEFT in {claim["id"] for claim in body["claims"]}:
        yield from (
            f"{site} releases values, and never trained through a chain" for site in sorted(owners & answered - staged)
        )


def _release(one: dict[str, Any], sites: set[str]) -> Iterator[str]:
    who = f"a release of {one['owner']}"
    if one["owner"] not in sites:
        yield f"{who}, which is no site of this run"
    if one["owner"] == one["to"]:
        yield f"{who} to itself"
    if one["what"] != sorted(set(one["what"])):
        yield f"{who} is not sorted, or names something twice"
    if "unsafe" in one:
        return
    if one["released"] > one["most"]:
        yield f"{who} was made {one['released']} times, more than the {one['most']} that it allows"
    noise, delta = Decimal(one["noise"]), Decimal(one["delta"])
    if not (noise > 0 and Decimal(one["clip"]) > 0 and 0 < delta < 1):
        yield f"{who} has no clip, no noise, or a delta that is none"
        return
    try:
        above = Decimal(one["epsilon"]) - Decimal(price(noise, one["released"], delta))
    except (UnsupportedEventError, ArithmeticError, ValueError):
        yield f"{who} has a noise that nobody can price"
        return
    if not -SLACK_DOWN <= above <= SLACK_UP:
        yield f"{who} costs another epsilon than it says"


def together(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns what all releases with noise cost a record of each owner together, whoever they are to.

    Returns: By owner, in their order: ``owner``, ``to`` (all receivers), ``releases`` (how many entries), ``delta``
      (the smallest of theirs) and ``epsilon``; that is ``None`` where nobody can price them.
    """
    noised = [one for one in of(body) or () if "unsafe" not in one]
    return [
        {
            "owner": owner,
            "to": sorted({one["to"] for one in own}),
            "releases": len(own),
            "delta": min((one["delta"] for one in own), key=Decimal),
            "epsilon": _joint_price(own),
        }
        for owner in dict.fromkeys(one["owner"] for one in noised)
        if (own := [one for one in noised if one["owner"] == owner])
    ]


def _joint_price(entries: Sequence[dict[str, Any]]) -> str | None:
    try:
        costs = [(Decimal(one["noise"]), one["released"]) for one in entries]
        return round_up(_priced(costs, min(Decimal(one["delta"]) for one in entries)))
    except (UnsupportedEventError, ArithmeticError, ValueError):
        return None


def unprotected(body: dict[str, Any]) -> list[str]:
    """Returns what left without noise, a line for each reason: who to whom, what and why."""
    grouped: dict[tuple[str, tuple[str, ...], str], list[str]] = {}
    for one in of(body) or ():
        if "unsafe" in one:
            grouped.setdefault((one["to"], tuple(one["what"]), one["unsafe"]), []).append(one["owner"])
    return [
        f"{', '.join(owners)} showed {to} the {' and '.join(what)} of records as they are: {reason}"
        for (to, what, reason), owners in grouped.items()
    ]


def summary(body: dict[str, Any]) -> str:
    """Returns what a line about the report adds on releases; nothing if no model was cut."""
    found = of(body)
    if found is None:
        return ""
    bare = sum("unsafe" in one for one in found)
    return f"; the model was cut: {words.count(len(found), 'release')} of values of single records, {bare} unprotected"
