"""The formal values that measurements are held against, from the events that a run's own claims list."""

import math
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from privacy.audit import pricing
from privacy.dp.events import GaussianEvent, Relation, SkellamEvent
from privacy.errors import UnsupportedEventError


def noise_over_run(claim: dict[str, Any]) -> list[float]:
    """Returns the noise multiplier of the one full-batch release that is worth all of a run, for each holder's events.

    ``T`` releases with noise ``z`` are one with noise ``z / sqrt(T)``; T counts every retry that was planned for.

    Args:
      claim: One of ``Statement.epsilons``.
    """
    listed = ((pricing.planned(claim, entry), event) for entry in claim["sites"] for event in pricing.events_of(entry))
    return [_multiplier(event) / math.sqrt(count) for count, event in listed]


def of_model(epsilons: Sequence[dict[str, Any]], delta: Decimal) -> float | None:
    """Returns what the run promises whoever sees the model about any one record.

    Every claim bounds what the model shows of a record: the strongest counts. Noise for whole sites is priced as if one
    replaced another, since a site with one record more or less is another site, and does not fall silent.

    Args:
      epsilons: ``Statement.epsilons``.
      delta: Of the audit.

    Returns: epsilon, or None where nothing is promised, or nothing that can be priced.
    """
    relations = [Relation.REPLACE_ONE if claim["unit"] == "site" else Relation.REPLACE_SPECIAL for claim in epsilons]
    return _strongest(_highest(claim, delta, by) for claim, by in zip(epsilons, relations, strict=True))


def of_sites(epsilons: Sequence[dict[str, Any]], delta: Decimal) -> float | None:
    """Returns what the run promises about a whole site's part, likewise; there, that it might as well be silent."""
    return _strongest(_highest(claim, delta, Relation.REPLACE_SPECIAL) for claim in epsilons if claim["unit"] == "site")


def _strongest(prices: Iterable[float | None]) -> float | None:
    return min((price for price in prices if price is not None), default=None)


def _highest(claim: dict[str, Any], delta: Decimal, relation: Relation) -> float | None:
    try:
        return pricing.highest(claim, delta, relation)
    except UnsupportedEventError:
        return None


def _multiplier(event: GaussianEvent | SkellamEvent) -> float:
    if isinstance(event, GaussianEvent):
        return float(event.noise_multiplier)
    return math.sqrt(event.variance) / float(event.l2)
