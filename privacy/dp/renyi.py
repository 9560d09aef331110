"""Rényi divergences of events, order by order: what RDP accounting and the lifetime filter add up.

Gaussians are priced by dp-accounting. Skellam noise is ours, because dp-accounting has no event for it; its bound is
rational, so it is computed exactly.
"""

from collections.abc import Sequence
from fractions import Fraction

import dp_accounting
from dp_accounting import NeighboringRelation, rdp

from privacy.dp.events import Event, GaussianEvent, Relation, SamplingType, SkellamEvent
from privacy.errors import UnsupportedEventError

RELATIONS = {
    Relation.REPLACE_SPECIAL: NeighboringRelation.REPLACE_SPECIAL,
    Relation.REPLACE_ONE: NeighboringRelation.REPLACE_ONE,
    Relation.ADD_OR_REMOVE_ONE: NeighboringRelation.ADD_OR_REMOVE_ONE,
}


def full_batch_rate(event: GaussianEvent) -> Fraction:
    """Returns the sum of ``(k / z)^2`` over a full-batch event's executions, ``k`` its group.

    Such sums add up over unlike events, and are all that composition knows of full batches: together they are one
    Gaussian of multiplier ``1 / sqrt(sum)`` (Dong, Roth and Su, JRSS-B 2022, corollary 3.3).
    """
    return event.count * (event.group / Fraction(event.noise_multiplier)) ** 2


def divergences(events: Sequence[Event], orders: Sequence[float], relation: Relation) -> list[float]:
    """Returns a bound on the Rényi divergence of the events together, for each order.

    Raises: UnsupportedEventError: An event has no such bound under this relation; Skellam has one at integers only.
    """
    counter = rdp.RdpAccountant(orders, RELATIONS[relation])
    skellam = [0.0] * len(orders)
    for event in events:
        if isinstance(event, SkellamEvent):
            skellam = [sum_ + float(_skellam(event, a, relation)) for sum_, a in zip(skellam, orders, strict=True)]
            continue
        try:
            counter.compose(_gaussian(event, relation), event.count)
        except dp_accounting.UnsupportedEventError as error:
            raise UnsupportedEventError(f"RDP does not price {event} under {relation}") from error
    return [float(gaussian) + own for gaussian, own in zip(counter.rdp, skellam, strict=True)]


def skellam_divergence(event: SkellamEvent, order: int, relation: Relation) -> Fraction:
    """Bounds the Rényi divergence of all executions of a Skellam event, exactly.

    The bound holds per coordinate and adds up over coordinates, whence both norms.

    Args:
      event: Its norms double where one unit replaces another.
      order: Integer, at least 2.
      relation: Zero-out or replacement. Under add/remove there is no price: a site that is not there brings no noise.

    Raises: UnsupportedEventError: Another relation.
    See: Agarwal, Kairouz and Liu, "The Skellam Mechanism", NeurIPS 2021, section 3.
    """
    if relation is Relation.ADD_OR_REMOVE_ONE:
        raise UnsupportedEventError("Skellam noise is not priced where the number of records or sites is secret")
    reach = 2 if relation is Relation.REPLACE_ONE else 1
    l2, l1, variance = (Fraction(number) for number in (reach * event.l2, reach * event.l1, event.variance))
    beyond_gaussian = min(((2 * order - 1) * l2**2 + 6 * l1) / (4 * variance**2), 3 * l1 / (2 * variance))
    return event.count * (order * l2**2 / (2 * variance) + beyond_gaussian)


def _skellam(event: SkellamEvent, order: float, relation: Relation) -> Fraction:
    if order < 2 or order != int(order):
        raise UnsupportedEventError(f"Skellam noise has no bound at order {order}")
    return skellam_divergence(event, int(order), relation)


def _gaussian(event: GaussianEvent, relation: Relation) -> dp_accounting.DpEvent:
    if event.sampling.type is SamplingType.FULL:
        # k records move the sum by up to k C, and twice that where they are replaced; RDP is not told the relation.
        reach = event.group * (2 if relation is Relation.REPLACE_ONE else 1)
        return dp_accounting.GaussianDpEvent(float(event.noise_multiplier / reach))
    if event.sampling.type is SamplingType.POISSON and event.group == 1:
        gaussian = dp_accounting.GaussianDpEvent(float(event.noise_multiplier))
        return dp_accounting.PoissonSampledDpEvent(float(event.sampling.rate), gaussian)
    raise UnsupportedEventError(f"RDP does not price {event}")
