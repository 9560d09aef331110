"""Epsilon from events, by dp-accounting: PLD for the claim, RDP beside it; and the way back, from epsilon to noise.

PLD's pessimistic estimate is an upper bound up to floating-point error; it is *not* a filter under adaptively chosen
parameters (docs/privacy-rules.md, 3), so a plan's events and their largest number are frozen before the first one.
Skellam events are priced by RDP only: no worst direction is known in many dimensions, which PLD would need.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from decimal import ROUND_UP, Decimal
from functools import lru_cache
from typing import Literal

import dp_accounting
from dp_accounting import dp_event, pld, rdp
from scipy.optimize import brentq
from scipy.stats import binom

from privacy.dp.events import Arithmetic, Event, GaussianEvent, Relation, SamplingType, SkellamEvent, merged
from privacy.dp.renyi import RELATIONS, divergences, full_batch_rate
from privacy.errors import ConfigError, UnsupportedEventError

Accountant = Literal["PLD", "RDP"]

DEFAULT_ORDERS = tuple(float(order) for order in rdp.RdpAccountant().orders)
"""Rényi orders that dp-accounting tries, fractions among them."""
INTEGER_ORDERS = (*range(2, 257), 512, 1024)
"""Rényi orders where a Skellam event takes part: its bound is stated for integers."""


def epsilon(events: Sequence[Event], delta: Decimal, relation: Relation, accountant: Accountant = "PLD") -> float:
    """Computes the epsilon that the events cost together.

    Args:
      events: What was executed, of like or unlike mechanisms; none costs 0.
      delta: 0 < delta < 1.
      relation: What neighbours differ by.
      accountant: ``PLD`` (the claim where it is offered) or ``RDP`` (looser; the claim where Skellam noise takes
        part). RDP offers neither truncated batches, nor groups in Poisson batches, nor Poisson batches under
        replace-one; PLD offers no Skellam noise, and no groups in Poisson batches under replace-one.

    Returns: epsilon >= 0; an upper bound up to floating-point error.
    Raises: UnsupportedEventError: The accountant does not price an event under this relation.
    See: Doroshenko et al., "Connect the Dots", PoPETs 2022 (PLD); Mironov, CSF 2017 (RDP).
    """
    _check_delta(delta)
    return _epsilon(_without_arithmetic(events), delta, relation, accountant)


def _check_delta(delta: Decimal) -> None:
    if not (delta.is_finite() and 0 < delta < 1):
        raise UnsupportedEventError(f"delta {delta} is not between 0 and 1")


def _without_arithmetic(events: Sequence[Event]) -> tuple[Event, ...]:
    """How noise was drawn has no price."""
    plain = [replace(one, arithmetic=Arithmetic.FLOAT) if isinstance(one, GaussianEvent) else one for one in events]
    return merged(plain)


@lru_cache(maxsize=64)
def curve(events: tuple[Event, ...], deltas: tuple[Decimal, ...], accountant: Accountant) -> tuple[float, ...]:
    """Computes the epsilon that the events cost at each of several deltas, under zero-out, for the price of one.

    Args:
      events: As for ``epsilon``; at least one.
      deltas: Each between 0 and 1.
      accountant: As for ``epsilon``. Instead of PLD, full batches alone are priced in closed form, which it approaches.

    Raises: UnsupportedEventError: The accountant does not price an event.
    """
    for delta in deltas:
        _check_delta(delta)
    plain, relation = _without_arithmetic(events), Relation.REPLACE_SPECIAL
    if accountant == "RDP":
        orders = _orders(plain)
        spent = divergences(plain, orders, relation)
        return tuple(float(rdp.compute_epsilon(orders, spent, float(delta))[0]) for delta in deltas)
    full = [full_batch_rate(one) for one in plain if isinstance(one, GaussianEvent) and _is_full(one)]
    if len(full) == len(plain):
        multiplier = 1 / math.sqrt(sum(full))
        return tuple(float(dp_accounting.get_epsilon_gaussian(multiplier, float(delta))) for delta in deltas)
    counter = _composed(plain, relation)
    return tuple(float(counter.get_epsilon(float(delta))) for delta in deltas)


def _is_full(event: GaussianEvent) -> bool:
    return event.sampling.type is SamplingType.FULL


def _orders(events: Sequence[Event]) -> Sequence[float]:
    return INTEGER_ORDERS if accountant_for(events) == "RDP" else DEFAULT_ORDERS


def accountant_for(events: Sequence[Event]) -> Accountant:
    """Returns the accountant that the claim about these events is made by."""
    return "RDP" if any(isinstance(event, SkellamEvent) for event in events) else "PLD"


@lru_cache(maxsize=256)
def _epsilon(events: tuple[Event, ...], delta: Decimal, relation: Relation, accountant: Accountant) -> float:
    if not events:
        return 0.0
    if accountant == "PLD":
        return float(_composed(events, relation).get_epsilon(float(delta)))
    orders = _orders(events)
    return float(rdp.compute_epsilon(orders, divergences(events, orders, relation), float(delta))[0])


def _composed(events: tuple[Event, ...], relation: Relation) -> pld.PLDAccountant:
    counter = pld.PLDAccountant(RELATIONS[relation])
    full_batches = 0.0
    for event in events:
        if isinstance(event, SkellamEvent):
            raise UnsupportedEventError(f"PLD does not price {event}")
        if _is_full(event):
            full_batches += float(full_batch_rate(event))
            continue
        try:
            counter.compose(_sampled(event), event.count)
        except (dp_accounting.UnsupportedEventError, NotImplementedError) as error:
            raise UnsupportedEventError(f"PLD does not price {event} under {relation}") from error
    if full_batches:
        # One exact Gaussian, however many and unlike the full batches: convolving them would cost time and precision.
        counter.compose(dp_event.GaussianDpEvent(1 / math.sqrt(full_batches)))
    return counter


def _sampled(event: GaussianEvent) -> dp_accounting.DpEvent:
    multiplier, sampling = float(event.noise_multiplier), event.sampling
    rate = float(sampling.rate)
    if sampling.type is SamplingType.TRUNCATED:
        return dp_event.TruncatedSubsampledGaussianDpEvent(sampling.n_records, rate, sampling.cap, multiplier)
    if event.group > 1:
        # A person's records enter by a coin each, and the worst are those that all point the same way
        # (Ganesh, "Tight Group-Level DP Guarantees for DP-SGD with Sampling", 2024).
        records = range(event.group + 1)
        return dp_event.MixtureOfGaussiansDpEvent(multiplier, records, binom.pmf(records, event.group, rate).tolist())
    return dp_event.PoissonSampledDpEvent(rate, dp_event.GaussianDpEvent(multiplier))


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
    _check_budget(target, delta)
    shape = replace(event, noise_multiplier=Decimal(1), arithmetic=Arithmetic.FLOAT)
    return _calibrated(shape, target, delta, relation)


def _check_budget(target: Decimal, delta: Decimal) -> None:
    if not (target.is_finite() and target > 0):
        raise ConfigError(f"epsilon must be a positive number, not {target}")
    if not (delta.is_finite() and 0 < delta < 1):
        raise ConfigError(f"delta must be between 0 and 1, not {delta}")


_STEP = Decimal("0.0001")


@lru_cache(maxsize=256)
def _calibrated(event: GaussianEvent, target: Decimal, delta: Decimal, relation: Relation) -> Decimal:
    def excess(multiplier: float) -> float:
        candidate = replace(event, noise_multiplier=Decimal(repr(multiplier)))
        return epsilon([candidate], delta, relation) - float(target)

    # From above: full batches need the most noise, and much noise is cheap to price, little noise very dear.
    reach = event.group * (2.0 if relation is Relation.REPLACE_ONE else 1.0)
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
