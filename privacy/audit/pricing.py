"""The epsilon claim, priced again from its listed events by the same accountant, site by site.

A claim is rounded up, so it may exceed the price by at most ``SLACK_UP``; it may fall below it only by floating-point
error. Events that are too weak to price in reasonable time and memory leave the claim unchecked, never held.
"""

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

from privacy.dp.accounting import Accountant, epsilon
from privacy.dp.events import GaussianEvent, Relation, merged
from privacy.errors import UnsupportedEventError

SLACK_UP = Decimal("0.001")
SLACK_DOWN = Decimal("0.000001")

# Bounds on what is priced: below this noise, or above this epsilon, PLD's grids take gigabytes, and such an epsilon
# protects nobody anyway.
_LEAST_NOISE = Decimal("0.2")
_MOST_NOISE = Decimal(10) ** 9
_LARGEST_EPSILON = 100.0


def problems(claim: dict[str, Any], progress: Callable[[str], None]) -> list[str]:
    """Prices every site of a ``privacy.epsilon`` claim and returns what does not agree.

    Args:
      claim: Fits the schema; 0 < delta < 1 and the counts were checked.
      progress: Called with one plain line before each site.

    Returns: Disagreements in words; none means that the claim holds.
    Raises: UnsupportedEventError: Nothing disagrees as far as could be priced, but something could not be priced.
    """
    found: list[str] = []
    unpriced: list[UnsupportedEventError] = []
    for entry in claim["sites"]:
        progress(f"pricing {entry['site']}")
        try:
            found += _site(entry, Decimal(claim["delta"]), claim["budget_executions"])
        except UnsupportedEventError as error:
            unpriced.append(error)
    if unpriced and not found:
        raise unpriced[0]
    return found


def _site(entry: dict[str, Any], delta: Decimal, budget: int) -> list[str]:
    try:
        events = merged([GaussianEvent.from_json(event) for event in entry["events"]])
    except UnsupportedEventError as error:
        return [f"{entry['site']} lists an event that cannot be: {error}"]
    rdp = _price(events, delta, Relation.REPLACE_SPECIAL, "RDP")
    # RDP costs next to nothing, so a plain lie ends here, before it can make the verifier work.
    found = [*_compare(entry, "epsilon_rdp", rdp)]
    if found:
        return found
    _check_strength(entry["site"], events, rdp)
    pld = _price(events, delta, Relation.REPLACE_SPECIAL, "PLD")
    found += _compare(entry, "epsilon", pld)
    if rdp < pld - float(SLACK_DOWN):
        found.append(f"{entry['site']}: RDP gives less than PLD, so one of the two is wrong")
    found += _compare(entry, "epsilon_replace_one", _price(events, delta, Relation.REPLACE_ONE, "PLD"))
    if found or len(events) != 1:
        return found
    whole = (events[0].times(budget),)
    _check_strength(entry["site"], whole, _price(whole, delta, Relation.REPLACE_SPECIAL, "RDP"))
    return [*_compare(entry, "planned_epsilon", _price(whole, delta, Relation.REPLACE_SPECIAL, "PLD"))]


def _price(events: tuple[GaussianEvent, ...], delta: Decimal, relation: Relation, accountant: Accountant) -> float:
    if any(not _LEAST_NOISE <= event.noise_multiplier <= _MOST_NOISE for event in events):
        raise UnsupportedEventError(f"noise outside {_LEAST_NOISE} to {_MOST_NOISE} times the clip is not priced")
    try:
        return epsilon(events, delta, relation, accountant)
    except (ArithmeticError, ValueError) as error:
        raise UnsupportedEventError(f"the accountant gave up: {str(error)[:80]}") from None


def _check_strength(site: str, events: tuple[GaussianEvent, ...], rdp: float) -> None:
    if not rdp <= _LARGEST_EPSILON:
        executions = sum(event.count for event in events)
        raise UnsupportedEventError(f"{site}: {executions} executions at this noise protect nobody (RDP {rdp:.0f})")


def _compare(entry: dict[str, Any], field: str, price: float) -> Iterator[str]:
    claimed = Decimal(entry[field])
    if not Decimal(price) - SLACK_DOWN <= claimed <= Decimal(price) + SLACK_UP:
        yield f"{entry['site']} claims {field} {claimed}, its events give {price:.6f}"
