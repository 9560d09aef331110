"""Epsilon from events, by dp-accounting: PLD for the claim, RDP beside it (one library, two methods).

PLD's pessimistic estimate is an upper bound up to floating-point error; it is *not* a filter under adaptively chosen
parameters (privacy-audit corrections, 3), so a plan's events and their largest number are frozen before the first one.
"""

import math
from collections.abc import Sequence
from decimal import ROUND_UP, Decimal
from functools import lru_cache
from typing import Literal

import dp_accounting
from dp_accounting import NeighboringRelation, pld, rdp
from scipy.optimize import brentq

from privacy.dp.events import GaussianEvent, Relation, SamplingType, merged
from privacy.errors import ConfigError, UnsupportedEventError

Accountant = Literal["PLD", "RDP"]

_RELATIONS = {
    Relation.REPLACE_SPECIAL: NeighboringRelation.REPLACE_SPECIAL,
    Relation.REPLACE_ONE: NeighboringRelation.REPLACE_ONE,
    Relation.ADD_OR_REMOVE_ONE: NeighboringRelation.ADD_OR_REMOVE_ONE,
}


def epsilon(
    events: Sequence[GaussianEvent], delta: Decimal, relation: Relation, accountant: Accountant = "PLD"
) -> float:
    """Computes the epsilon that the events cost together.

    Args:
      events: What was executed; none costs 0.
      delta: 0 < delta < 1.
      relation: What neighbours differ by.
      accountant: ``PLD`` (the claim) or ``RDP`` (looser; full batches under replace-one are not offered by it).

    Returns: epsilon >= 0; an upper bound up to floating-point error.
    Raises: UnsupportedEventError: The accountant does not price an event under this relation.
    See: Doroshenko et al., "Connect the Dots", PoPETs 2022 (PLD); Mironov, CSF 2017 (RDP).
    """
    if not 0 < delta < 1:
        raise UnsupportedEventError(f"delta {delta} is not between 0 and 1")
    return _epsilon(merged(events), delta, relation, accountant)


@lru_cache(maxsize=256)
def _epsilon(events: tuple[GaussianEvent, ...], delta: Decimal, relation: Relation, accountant: Accountant) -> float:
    if not events:
        return 0.0
    counter = (
        pld.PLDAccountant(_RELATIONS[relation])
        if accountant == "PLD"
        else rdp.RdpAccountant(neighboring_relation=_rdp_relation(relation))
    )
    for event in map(_composed, events):
        one = _dp_event(event, relation, accountant)
        try:
            counter.compose(one, event.count)
        except dp_accounting.UnsupportedEventError as error:
            raise UnsupportedEventError(f"{accountant} does not price {event} under {relation}") from error
    return float(counter.get_epsilon(float(delta)))


def _composed(event: GaussianEvent) -> GaussianEvent:
    """Returns T full-batch steps as the one step that they equal, at multiplier z / sqrt(T).

    Exact for Gaussians (Dong, Roth and Su, JRSS-B 2022, corollary 3.3), and PLD would convolve for minutes.
    """
    if event.sampling.type is not SamplingType.FULL:
        return event
    return GaussianEvent(Decimal(repr(float(event.noise_multiplier) / math.sqrt(event.count))), event.sampling, 1)


def _rdp_relation(relation: Relation) -> NeighboringRelation:
    # Zero-out has add/remove's pair of output distributions; dp-accounting's RDP knows it by that name only.
    if relation is Relation.REPLACE_ONE:
        return NeighboringRelation.REPLACE_ONE
    return NeighboringRelation.ADD_OR_REMOVE_ONE


def _dp_event(event: GaussianEvent, relation: Relation, accountant: Accountant) -> dp_accounting.DpEvent:
    multiplier = float(event.noise_multiplier)
    if relation is Relation.REPLACE_ONE and event.sampling.type is SamplingType.FULL:
        # Replacing one record moves the sum by up to 2C: the same noise is half the multiplier.
        return dp_accounting.GaussianDpEvent(multiplier / 2 if accountant == "RDP" else multiplier)
    gaussian = dp_accounting.GaussianDpEvent(multiplier)
    if event.sampling.type is SamplingType.FULL:
        return gaussian
    return dp_accounting.PoissonSampledDpEvent(float(event.sampling.rate), gaussian)


def calibrate_noise(
    event: GaussianEvent, *, target: Decimal, delta: Decimal, relation: Relation = Relation.REPLACE_SPECIAL
) -> Decimal:
    """Finds the smallest noise multiplier, in steps of 10^-4, at which ``event`` costs at most ``target``.

    Args:
      event: The mechanism with its sampling and count for the *whole* run, retries included; its own multiplier
        is ignored.
      target: Largest epsilon allowed, > 0.
      delta: 0 < delta < 1.
      relation: What neighbours differ by.

    Returns: An exact decimal; ``epsilon`` of the event with it is at most ``target``.
    Raises: ConfigError: No multiplier up to 10^5 is enough, or target and delta are unusable.
    """
    if not (target.is_finite() and target > 0):
        raise ConfigError(f"epsilon must be a positive number, not {target}")
    if not 0 < delta < 1:
        raise ConfigError(f"delta must be between 0 and 1, not {delta}")

    return _calibrated(event.times(event.count), target, delta, relation)


_STEP = Decimal("0.0001")


@lru_cache(maxsize=256)
def _calibrated(event: GaussianEvent, target: Decimal, delta: Decimal, relation: Relation) -> Decimal:
    def excess(multiplier: float) -> float:
        candidate = GaussianEvent(Decimal(repr(multiplier)), event.sampling, event.count)
        return epsilon([candidate], delta, relation) - float(target)

    # From above: full batches need the most noise, and much noise is cheap to price, little noise very dear.
    reach = 2.0 if relation is Relation.REPLACE_ONE else 1.0
    alone = float(dp_accounting.get_sigma_gaussian(float(target), float(delta)))
    high = 1.01 * reach * alone * math.sqrt(event.count)
    if not 0 < high < 10**5:
        raise ConfigError(f"no noise brings {event.count} steps down to epsilon {target} at delta {delta}")
    low = high / 1.1
    while low > 1e-3 and excess(low) <= 0:
        low, high = low / 1.5, low
    root = brentq(excess, low, high, xtol=1e-5, rtol=1e-6) if excess(low) > 0 else high
    # The root is approximate: walk up the public grid until the bound itself holds.
    multiplier = Decimal(repr(root)).quantize(_STEP, rounding=ROUND_UP)
    while excess(float(multiplier)) > 0:
        multiplier += _STEP
    return multiplier


def round_up(value: float, places: int = 4) -> str:
    """Writes an epsilon for people and reports: never rounded in the guarantee's favour."""
    if math.isinf(value):
        return "inf"
    return str(Decimal(repr(value)).quantize(Decimal(1).scaleb(-places), rounding=ROUND_UP))


def posterior_from_even_odds(epsilon_value: float) -> float:
    """Returns the most that a 50 % suspicion can rise to, ``e^eps / (1 + e^eps)``, ignoring delta."""
    return 1.0 / (1.0 + math.exp(-epsilon_value))
