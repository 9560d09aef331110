"""What a report says of a divided model must agree: parts with regions, regions with rounds and with the sums opened.

A region is named by its place in ``submodels.regions`` and known by its holders, so what the signatures show of every
opened sum, its holders and its length, follows from the report alone: the regions that did not stand still, those
that the sites of the attempt cannot tell apart taken together. Each function yields contradictions, in words.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from fractions import Fraction
from itertools import pairwise
from typing import Any

from privacy.audit.statement import Statement
from privacy.secagg.encoding import in_order

_FEWEST_ALONE = 3
"""Sites that a federation takes, that of the strong ones alone included."""


def of_division(report: Statement) -> Iterator[str]:
    """Checks parts, regions and baselines against each other and against rounds, sites and model."""
    body = report.predicate
    found = body["submodels"]
    if found is None:
        still = [str(entry["round"]) for entry in body["rounds"] if entry["still"]]
        yield from (f"round {number} names regions that stood still, but no model was divided" for number in still)
        return
    if not body["protections"]["secagg"]:
        yield "the model is divided, and its parts are summed under masks only, but secure aggregation was off"
    model = report.claim("model.digest") or {}
    if sum(region["parameters"] for region in found["regions"]) > model.get("parameters", 0):
        yield "the regions have more parameters than the model"
    fewest = min(len(region["holders"]) for region in found["regions"])
    if found["slack"] != fewest - found["floor"]:
        yield f"the slack is {found['slack']}, but the fewest holders are {fewest} and the floor is {found['floor']}"
    yield from _still(found["regions"], body["rounds"])
    yield from _parts(found, {entry["site"] for entry in body["egress"]})
    if (body["utility"] is None) != (found["baselines"] is None):
        yield "parts of a divided model are scored, and baselines trained, exactly where the run has scores"
    elif found["baselines"] is not None:
        yield from _baselines(found)


def of_region_sums(report: Statement, claim: Mapping[str, Any]) -> Iterator[str]:
    """Checks the sums that every attempt of a ``secagg.rounds`` claim opened against the regions of the report."""
    body, ratios = report.predicate, set[Fraction]()
    for attempt, cohort, expected in _opened(report, claim):
        name, opened = f"round {attempt['round']}, attempt {attempt['attempt']}", attempt["regions"]
        survivors = set(attempt["survivors"])
        if [region["holders"] for region in opened] != [len(survivors & set(holders)) for holders in expected]:
            yield f"{name}: the sums opened are not those of the regions that moved"
            continue
        if any(region["holders"] < cohort["min_cover"] for region in opened):
            yield f"{name} opened a sum of a region over fewer than {cohort['min_cover']} sites"
        sizes = zip(opened, expected.values(), strict=True)
        ratios |= {Fraction(region["entries"], size) for region, size in sizes}
    if len(ratios) > 1 or any(ratio.denominator != 1 for ratio in ratios):
        yield "the sums opened are not as long as the regions, or the model, that they are sums of"
    found = body["submodels"]
    if found is None:
        return
    for part in found["parts"] if len(ratios) == 1 else ():
        if 8 * part["upload_bytes"] != min(ratios) * claim["ring_bits"] * _held(found, part):
            yield f"what part {part['name']} uploads is not what its regions take"
    everybody = {site for part in found["parts"] for site in part["sites"]}
    for cohort in claim["cohorts"]:
        if set(cohort["sites"]) == everybody and cohort["min_cover"] != found["floor"]:
            yield f"the floor is {found['floor']}, but the masked rounds promise {cohort['min_cover']}"


def sure_shares(report: Statement, claim: Mapping[str, Any]) -> int:
    """Returns how many shares of noise from outside a league were sure to be in every sum that was opened."""
    limits = [(cohort, expected) for _, cohort, expected in _opened(report, claim)]
    return min((fewest_holders(expected, cohort) - cohort["n_c"] for cohort, expected in limits), default=0)


def fewest_holders(regions: Collection[Collection[str]], cohort: Mapping[str, Any]) -> int:
    """Returns over how many sites every sum of these regions is, at least, by the rules of docs/protocol.md §2.2.

    Args:
      regions: Holders of each, all in the cohort.
      cohort: Its ``sites``, ``min_survivors`` and ``min_cover``.
    """
    lost = len(cohort["sites"]) - cohort["min_survivors"]
    return max(int(cohort["min_cover"]), min((len(holders) - lost for holders in regions), default=0))


def _opened(
    report: Statement, claim: Mapping[str, Any]
) -> Iterator[tuple[dict[str, Any], dict[str, Any], dict[tuple[str, ...], int]]]:
    """Yields each opened attempt of a listed round with its cohort and its regions: holders in the cohort, parameters.

    Within a cohort, regions whose holders in it are the same are one; each moves as a whole or not at all.
    """
    found, rounds = report.predicate["submodels"], report.predicate["rounds"]
    model = report.claim("model.digest") or {}
    for attempt in claim["attempts"]:
        if attempt["aborted"] is not None or not attempt["survivors"]:
            continue
        if not 1 <= attempt["round"] <= len(rounds) or attempt["cohort"] not in range(len(claim["cohorts"])):
            continue
        cohort = claim["cohorts"][attempt["cohort"]]
        moved: dict[tuple[str, ...], int] = {tuple(cohort["sites"]): model.get("parameters", 0)}
        if found is not None:
            moved = {}
            sites, still = set(cohort["sites"]), set(rounds[attempt["round"] - 1]["still"])
            for k, region in enumerate(found["regions"]):
                if k not in still:
                    holders = tuple(site for site in region["holders"] if site in sites)
                    moved[holders] = moved.get(holders, 0) + region["parameters"]
        yield attempt, cohort, dict(sorted(moved.items()))


def _still(regions: list[dict[str, Any]], rounds: list[dict[str, Any]]) -> Iterator[str]:
    for entry in rounds:
        name, still = f"round {entry['round']}", entry["still"]
        if still != sorted(set(still)) or any(k >= len(regions) for k in still):
            yield f"{name}: the regions that stood still are not sorted, repeat one, or are not there"
        elif (len(still) == len(regions)) != entry["skipped"]:
            yield f"{name} was {'skipped' if entry['skipped'] else 'completed'}, but {len(still)} regions stood still"
    stood = Counter(k for entry in rounds for k in set(entry["still"]))
    for k, region in enumerate(regions):
        times = stood[k]
        if times != region["still"]:
            yield f"region {k} is said to have stood still in {region['still']} rounds, but {times} name it"


def _parts(found: dict[str, Any], sites: set[str]) -> Iterator[str]:
    parts, regions = found["parts"], found["regions"]
    listed = [site for part in parts for site in part["sites"]]
    if len(set(listed)) != len(listed) or set(listed) != sites or len({part["name"] for part in parts}) != len(parts):
        yield "the parts do not share out the sites: each in one part, and each name once"
    holders = [tuple(region["holders"]) for region in regions]
    if not all(map(in_order, holders)) or any(a >= b for a, b in pairwise(holders)):
        yield "the regions are not sorted by their holders, or two have the same"
    if any(not set(who) <= sites for who in holders):
        yield "a region is held by a site that took no part"
    for part in parts:
        if any(set(part["sites"]) & set(who) not in (set(), set(part["sites"])) for who in holders):
            yield f"the sites of part {part['name']} do not hold the same regions"
        if _held(found, part) > part["parameters"]:
            yield f"part {part['name']} has fewer parameters than the regions that it is made of"
        if not set(part["scored_at"]) <= sites:
            yield f"part {part['name']} is scored at a site that took no part"


def _held(found: Mapping[str, Any], part: Mapping[str, Any]) -> int:
    """Returns the parameters that a part shares with others: those of the regions that its sites hold."""
    return sum(region["parameters"] for region in found["regions"] if part["sites"][0] in region["holders"])


def _baselines(found: dict[str, Any]) -> Iterator[str]:
    parts = {part["name"]: part for part in found["parts"]}
    sizes = [part["parameters"] for part in parts.values()]
    everybody = {site for part in parts.values() for site in part["sites"]}
    smallest, strong = found["baselines"]["smallest"], found["baselines"]["strong"]
    if parts.get(smallest["part"], {}).get("parameters") != min(sizes) or set(smallest["sites"]) != everybody:
        yield "the first baseline is not everybody on the smallest part"
    largest = [part for part in parts.values() if part["parameters"] == max(sizes)]
    if strong is None:
        if all(len(part["sites"]) >= _FEWEST_ALONE for part in largest):
            yield "the sites with the largest part could train alone, but it is not said how they do"
    elif strong["sites"] not in [part["sites"] for part in largest if part["name"] == strong["part"]]:
        yield "the second baseline is not the sites with the largest part"
    for baseline in (smallest, strong):
        if baseline is not None and not set(baseline["scored_at"]) <= everybody:
            yield "a baseline is scored at a site that took no part"
