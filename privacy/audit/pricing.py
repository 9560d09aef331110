"""Claims of differential privacy, priced again from their listed events by the same accountants, holder by holder.

A claim is rounded up, so it may exceed the price by at most ``SLACK_UP``; it may fall below it only by floating-point
error. Events that are too weak to price in reasonable time and memory leave the claim unchecked, never held.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

from privacy.dp.accounting import Accountant, curve, epsilon
from privacy.dp.events import (
    FULL_BATCH,
    Arithmetic,
    Event,
    GaussianEvent,
    Relation,
    Sampling,
    SamplingType,
    SkellamEvent,
    event_from_json,
    merged,
)
from privacy.dp.filters import LARGEST_BUDGET, Filter, FilterKind
from privacy.errors import ConfigError, UnsupportedEventError

SLACK_UP = Decimal("0.001")
SLACK_DOWN = Decimal("0.000001")
# Sites draw shares of whole variance, rounded up, so other numbers of shares bring a little more noise than they say.
_SHARE_ROUNDING = Decimal("0.000001")

# Bounds on what is priced: below this noise, above this epsilon, or with larger groups in Poisson batches, PLD's grids
# take gigabytes or minutes, and such an epsilon protects nobody anyway.
_LEAST_NOISE = Decimal("0.2")
_MOST_NOISE = Decimal(10) ** 9
_LARGEST_EPSILON = 100.0
_LARGEST_GROUP = 8


class _TooMuchError(UnsupportedEventError):
    """Not computed, whether or not it would hold."""


@contextmanager
def _guarded() -> Iterator[None]:
    try:
        yield
    except (ArithmeticError, ValueError) as error:
        raise _TooMuchError(f"the accountant gave up: {str(error)[:80]}") from None


def problems(claim: dict[str, Any], progress: Callable[[str], None]) -> list[str]:
    """Prices every holder of one of the ``privacy.epsilon`` claims and returns what does not agree.

    Args:
      claim: Fits the schema; ``consistency.of_epsilon`` found nothing.
      progress: Called with one plain line before each holder.

    Returns: Disagreements in words; none means that the claim holds.
    Raises: UnsupportedEventError: Nothing disagrees as far as could be priced, but something could not be priced.
    """
    found: list[str] = []
    unpriced: list[UnsupportedEventError] = []
    for entry in claim["sites"]:
        progress(f"pricing {entry['site']}")
        try:
            found += _holder(entry, claim)
        except UnsupportedEventError as error:
            unpriced.append(error)
    if not found and not unpriced and "hypothetical" in claim:
        found += _hypothetical(claim)
    if unpriced and not found:
        raise unpriced[0]
    return found


def is_exact(events: Iterable[Event]) -> bool:
    """Says whether all noise was declared to be drawn as integers with exactly the declared distribution."""
    return all(isinstance(event, SkellamEvent) or event.arithmetic is Arithmetic.INTEGER_EXACT for event in events)


def events_of(entry: dict[str, Any]) -> tuple[Event, ...]:
    """Returns the events of a claim's holder or of its ``lifetime``; raises UnsupportedEventError if one cannot be."""
    return merged([event_from_json(event) for event in entry["events"]])


def highest(claim: dict[str, Any], delta: Decimal, relation: Relation = Relation.REPLACE_SPECIAL) -> float:
    """Prices the events of one of the ``privacy.epsilon`` claims at another delta, or under another relation.

    Returns: The largest price of a holder.
    Raises: UnsupportedEventError: Something cannot be priced.
    """
    prices = []
    for entry in claim["sites"]:
        events = events_of(entry)
        _check_strength(entry["site"], events, delta)
        prices.append(_price(events, delta, relation, claim["accountant"]))
    if None in prices:
        raise UnsupportedEventError("events without a price")
    return max(price for price in prices if price is not None)


def at_deltas(
    holder: str, events: tuple[Event, ...], deltas: tuple[Decimal, ...], accountant: Accountant
) -> tuple[float, ...]:
    """Prices events at each of several deltas, under the relation of the claims.

    Raises: UnsupportedEventError: They cannot be priced in reasonable time and memory, or not by this accountant.
    """
    _check_strength(holder, events, min(deltas))
    _check_range(events)
    with _guarded():
        return curve(events, deltas, accountant)


def executions_left(lifetime: dict[str, Any], event: Event) -> int:
    """Counts how many executions of an event a lifetime's budget still has room for.

    Raises: ConfigError, UnsupportedEventError: There is no such budget, or it is not computed.
    """
    budget = _filter(lifetime)
    return budget.room(budget.spent(events_of(lifetime)), event)


def _holder(entry: dict[str, Any], claim: dict[str, Any]) -> list[str]:
    try:
        events = events_of(entry)
    except UnsupportedEventError as error:
        return [f"{entry['site']} lists an event that cannot be: {error}"]
    if claim["kind"] == "proved" and not is_exact(events):
        return [f"{entry['site']} drew noise in floating point, which proves nothing"]
    found = list(_lifetime(entry, events)) if "lifetime" in entry else []
    return found or _run(entry, events, claim)


def per_attempt(claim: Mapping[str, Any], entry: Mapping[str, Any]) -> int:
    """Returns the executions of one attempt at a holder: the claim's, unless its own training takes other steps."""
    each: int = entry.get("executions_per_attempt", claim["executions_per_attempt"])
    return each


def planned(claim: Mapping[str, Any], entry: Mapping[str, Any]) -> int:
    """Returns the executions that a holder's plan has room for: as many attempts as everybody's."""
    attempts: int = claim["budget_executions"] // claim["executions_per_attempt"]
    return attempts * per_attempt(claim, entry)


def _run(entry: dict[str, Any], events: tuple[Event, ...], claim: dict[str, Any]) -> list[str]:
    delta, by = Decimal(claim["delta"]), claim["accountant"]
    rdp = _price(events, delta, Relation.REPLACE_SPECIAL, "RDP")
    # RDP costs next to nothing, so a plain lie ends here, before it can make the verifier work.
    found = [*_compare(entry, "epsilon_rdp", rdp)]
    if found:
        return found
    _check_strength(entry["site"], events, delta)
    price = _price(events, delta, Relation.REPLACE_SPECIAL, by)
    found += _compare(entry, "epsilon", price)
    if rdp is not None and price is not None and rdp < price - float(SLACK_DOWN):
        found.append(f"{entry['site']}: RDP gives less than PLD, so one of the two is wrong")
    found += _compare(entry, "epsilon_replace_one", _price(events, delta, Relation.REPLACE_ONE, by))
    if found or len(events) != 1:
        return found
    whole = (events[0].times(planned(claim, entry)),)
    _check_strength(entry["site"], whole, delta)
    return [*_compare(entry, "planned_epsilon", _price(whole, delta, Relation.REPLACE_SPECIAL, by))]


def _lifetime(entry: dict[str, Any], events: tuple[Event, ...]) -> Iterator[str]:
    """Checks the lifetime's budget by its filter, and that this run is a part of the lifetime."""
    holder, lifetime = entry["site"], entry["lifetime"]
    try:
        budget, ever = _filter(lifetime), events_of(lifetime)
        with _guarded():
            spent = budget.spent(ever)
    except _TooMuchError:
        raise
    except (ConfigError, UnsupportedEventError) as error:
        yield f"{holder} has a lifetime that cannot be: {error}"
        return
    counts = {event.times(1): event.count for event in ever}
    if any(counts.get(event.times(1), 0) < event.count for event in events):
        yield f"{holder} lists events of this run that are missing from its lifetime"
    if spent > budget.limit:
        yield f"{holder} has spent more than the lifetime's budget of epsilon {lifetime['budget']}"
    yield from _compare({**lifetime, "site": f"{holder} over all runs"}, "epsilon", budget.epsilon_of(spent))


def _filter(lifetime: dict[str, Any]) -> Filter:
    if Decimal(lifetime["budget"]) > LARGEST_BUDGET:
        raise _TooMuchError(f"a budget of epsilon {lifetime['budget']} protects nobody")
    with _guarded():
        kind = FilterKind(lifetime["filter"])
        return Filter(kind, Decimal(lifetime["budget"]), Decimal(lifetime["delta"]), lifetime["order"])


def _hypothetical(claim: dict[str, Any]) -> Iterator[str]:
    """Prices the weakest holder's events as if other numbers of shares were in every sum."""
    worst = max(claim["sites"], key=lambda entry: Decimal(entry["epsilon"]))
    counted = next(row["shares"] for row in claim["hypothetical"] if row["counted"])
    events = events_of(worst)
    for row in claim["hypothetical"]:
        factor = Decimal(row["shares"]) / counted
        scaled = [replace(one, variance=one.variance * factor) for one in events if isinstance(one, SkellamEvent)]
        price = _price(tuple(scaled), Decimal(claim["delta"]), Relation.REPLACE_SPECIAL, claim["accountant"])
        name = f"the claim with {row['shares']} shares"
        yield from _compare({**row, "site": name}, "epsilon", price, slack=_SHARE_ROUNDING * Decimal(price or 0))


def _price(events: Sequence[Event], delta: Decimal, relation: Relation, accountant: Accountant) -> float | None:
    """Returns the price, or nothing where the accountant has none for such events under this relation."""
    _check_range(events)
    try:
        with _guarded():
            return epsilon(events, delta, relation, accountant)
    except _TooMuchError:
        raise
    except UnsupportedEventError:
        return None


def _check_range(events: Sequence[Event]) -> None:
    gaussian = [event for event in events if isinstance(event, GaussianEvent)]
    if any(not _LEAST_NOISE <= event.noise_multiplier <= _MOST_NOISE for event in gaussian):
        raise _TooMuchError(f"noise outside {_LEAST_NOISE} to {_MOST_NOISE} times the clip is not priced")
    if any(event.group > _LARGEST_GROUP and event.sampling.type is not SamplingType.FULL for event in gaussian):
        raise _TooMuchError(f"groups of more than {_LARGEST_GROUP} in Poisson batches are not priced")


def _check_strength(holder: str, events: Sequence[Event], delta: Decimal) -> None:
    with _guarded():
        rdp = epsilon([_dominating(event) for event in events], delta, Relation.REPLACE_SPECIAL, "RDP")
    if not rdp <= _LARGEST_EPSILON:
        executions = sum(event.count for event in events)
        raise _TooMuchError(f"{holder}: {executions} executions at this noise protect nobody (RDP {rdp:.0f})")


def _dominating(event: Event) -> Event:
    """Returns an event that RDP prices and that costs no less: all of a group at once, or a place lost to a record."""
    if isinstance(event, SkellamEvent) or event.sampling.type is SamplingType.FULL:
        return event
    truncated, group = event.sampling.type is SamplingType.TRUNCATED, event.group
    if not truncated and group == 1:
        return event
    rate = 1 - (1 - event.sampling.rate) ** group
    sampling = FULL_BATCH if rate >= 1 else Sampling(SamplingType.POISSON, rate)
    noise = event.noise_multiplier / (2 if truncated else group)
    return replace(event, noise_multiplier=noise, sampling=sampling, group=1)


def _compare(entry: dict[str, Any], field: str, price: float | None, *, slack: Decimal = SLACK_DOWN) -> Iterator[str]:
    claimed = entry[field]
    if claimed is None or price is None:
        if claimed is not None or price is not None:
            yield f"{entry['site']} claims {field} {claimed or 'of nothing'}, its events have {price or 'no price'}"
    elif not Decimal(price) - max(slack, SLACK_DOWN) <= Decimal(claimed) <= Decimal(price) + SLACK_UP:
        yield f"{entry['site']} claims {field} {claimed}, its events give {price:.6f}"
