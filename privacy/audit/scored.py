"""What the scores of a simulation must agree on, in words: with the sites of the run, with their means, with counts.

An accuracy is a number of rows out of those that a site kept back, and its interval follows from that number (Wilson,
JASA 1927); so neither can be chosen freely, whoever signs. That the rows were scored honestly, no document shows.
"""

import math
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise
from typing import Any

from privacy.audit.statement import Statement

SCORES = ("home", "elsewhere", "together", "together_without_privacy", "pooled")
_OF_ONE_MODEL = ("home", "together", "together_without_privacy", "pooled")
"""Scores of one model on the site's own rows; ``elsewhere`` is a mean over the models of others."""
# Scores carry four decimals; a mean of rounded scores may differ from a rounded mean by one unit in the last place.
_ROUNDING = Decimal("0.0001")
_Z95 = 1.959963984540054


def contradictions(report: Statement) -> Iterator[str]:
    """Yields what scores contradict, in words; nothing where they stay at the sites."""
    utility, sites = report.predicate["utility"], {entry["site"] for entry in report.predicate["egress"]}
    if utility is None:
        return
    yield from _who(utility, sites)
    yield from _means(utility)
    for site in utility["sites"]:
        if utility["metric"] == "accuracy":
            yield from _counts(site)
        if site["interval"] is not None and site["together"] is not None:
            ordered = [Decimal(site["interval"][0]), Decimal(site["together"]), Decimal(site["interval"][1])]
            if any(low - high > _ROUNDING for low, high in pairwise(ordered)):
                yield f"the interval of {site['id']} does not contain its score"


def _who(utility: dict[str, Any], sites: set[str]) -> Iterator[str]:
    for where, listed in (("the scores", utility["sites"]), ("the sites left out", utility["left_out"])):
        times = Counter(site["id"] for site in listed)
        yield from (f"{where}: {name} is listed {n} times" for name, n in times.items() if n > 1)
    n_test = {site["id"]: site["n_test"] for site in utility["sites"]}
    if n_test and set(n_test) != sites:
        yield "the sites that are scored are not those of this run"
    for one in utility["left_out"]:
        if sorted(one["trained_by"]) != sorted(sites - {one["id"]}):
            yield f"the model that {one['id']} is left out of is not that of all other sites"
        if n_test.get(one["id"], one["n_test"]) != one["n_test"]:
            yield f"{one['id']} has two different numbers of test rows"


def _means(utility: dict[str, Any]) -> Iterator[str]:
    for name in SCORES:
        mean = utility["mean"][name]
        values = [Decimal(site[name]) for site in utility["sites"] if site[name] is not None]
        if utility["sites"] and (mean is None) != (not values):
            yield f"'{name}' has a mean exactly where sites have scores, and here it is not so"
        if mean is None or not values:
            continue
        exact = sum(values, Decimal(0)) / len(values)
        if abs(Decimal(mean) - exact) > _ROUNDING:
            yield f"the mean of '{name}' is not the mean of the sites"


def _counts(site: dict[str, Any]) -> Iterator[str]:
    """Checks that an accuracy is a number of rows, and that the interval is the one of that number."""
    n, name = site["n_test"], site["id"]
    shares = {column: site[column] for column in _OF_ONE_MODEL if site[column] is not None}
    if n == 0:
        yield from (f"{name} has a score and no test rows" for _ in shares)
        return
    for column, value in shares.items():
        if f"{round(float(value) * n) / n:.4f}" != value:
            yield f"{name}: '{column}' is {value}, which is no number of its {n} test rows"
    if site["interval"] is None or site["together"] is None:
        return
    interval = _wilson(round(float(site["together"]) * n) / n, n)
    if any(
        abs(Decimal(shown) - Decimal(bound)) > _ROUNDING
        for shown, bound in zip(site["interval"], interval, strict=True)
    ):
        yield f"the interval of {name} is not that of {site['together']} of {n} test rows"


def _wilson(share: float, n: int) -> tuple[float, float]:
    """Returns Wilson's 95 % score interval of a share of ``n`` trials."""
    centre = (share + _Z95**2 / (2 * n)) / (1 + _Z95**2 / n)
    half = _Z95 / (1 + _Z95**2 / n) * math.sqrt(share * (1 - share) / n + _Z95**2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)
