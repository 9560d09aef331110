"""What an asset's whole lifetime may cost: filters that stay valid when later parameters depend on earlier results.

Runs on one asset are planned by people who saw the runs before, and under that PLD's epsilon is not a bound on what was
spent (docs/privacy-rules.md, 3). Two sums are:

* ``gdp``: full-batch Gaussians only. The sum of ``(k / z)^2`` stays below ``mu^2``, where one Gaussian of multiplier
  ``1 / mu`` has exactly (epsilon, delta). See Smith and Thakurta, "Fully Adaptive Composition for Gaussian Differential
  Privacy", 2022.
* ``renyi``: the divergences at *one* order, fixed before the first event, stay below the divergence that converts to
  (epsilon, delta). See Feldman and Zrnic, "Individual Privacy Accounting via a Rényi Filter", NeurIPS 2021, and for the
  conversion Canonne, Kamath and Steinke, "The Discrete Gaussian", NeurIPS 2020, proposition 12.

Both hold for zero-out neighbours. Costs are rounded up, limits down. Whatever has no cost is refused.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, Inexact, localcontext
from enum import StrEnum
from fractions import Fraction
from functools import cached_property, lru_cache

import dp_accounting

from privacy.dp.events import FULL_BATCH, Event, GaussianEvent, Relation, SamplingType, SkellamEvent
from privacy.dp.renyi import divergences, full_batch_rate, skellam_divergence
from privacy.errors import ConfigError, UnsupportedEventError

RELATION = Relation.REPLACE_SPECIAL
"""What the neighbours of every lifetime claim differ by."""

_PLACES = 12
LARGEST_BUDGET = 1000  # far above it the search for a limit takes hours, and budgets come from strangers' files, too
_ORDERS = (*range(2, 65), *range(68, 129, 4), 160, 192, 256, 384, 512, 768, 1024)
_PRECISE = Context(prec=60)
_EXACT = Context(prec=200, traps=[Inexact])
# dp-accounting's sums of logarithms are off by about 1e-12 at these orders; rounded up by more than that, relative to
# a cost and per execution.
_FLOAT_SLACK = Fraction(1, 10**9)
_FLOAT_FLOOR = Fraction(1, 10**11)


class FilterKind(StrEnum):
    """Which sum is kept below its limit; the module says what each admits."""

    GDP = "gdp"
    RENYI = "renyi"


@dataclass(frozen=True)
class Filter:
    """A budget of (epsilon, delta) and the sum that keeps it. All fields are public and fixed with the budget.

    Attributes:
      epsilon: Most that the lifetime may cost, > 0.
      delta: 0 < delta < 1; one for the asset's whole lifetime.
      order: Rényi order, an integer from 2 to 1024; None for ``gdp``.
    """

    kind: FilterKind
    epsilon: Decimal
    delta: Decimal
    order: int | None = None

    def __post_init__(self) -> None:
        _check_budget(self.epsilon, self.delta)
        if (self.kind is FilterKind.RENYI) != (self.order is not None):
            raise ConfigError("a Rényi filter has one order, a Gaussian one none")
        if self.order is not None and not 2 <= self.order <= _ORDERS[-1]:
            raise ConfigError(f"a Rényi order is an integer from 2 to {_ORDERS[-1]}, not {self.order}")
        if self.limit <= 0:
            raise ConfigError(f"nothing fits a budget of epsilon {self.epsilon} at delta {self.delta}")

    @classmethod
    def for_budget(cls, kind: FilterKind, epsilon: Decimal, delta: Decimal, typical: Event | None = None) -> "Filter":
        """Creates the filter of a new budget.

        Args:
          kind: Which sum.
          epsilon: Most that the lifetime may cost.
          delta: Of the lifetime.
          typical: What is expected to be run; the Rényi order is the one that allows most executions of it. Full
            batches of a Gaussian unless given.

        Raises: ConfigError: The budget is unusable. UnsupportedEventError: ``typical`` has no cost.
        """
        if kind is FilterKind.GDP:
            return cls(kind, epsilon, delta)
        _check_budget(epsilon, delta)
        event = (typical or GaussianEvent(Decimal(100), FULL_BATCH, 1)).times(1)

        def executions(order: int) -> Fraction:
            return _renyi_limit(epsilon, delta, order) / Fraction(_renyi_cost(event, order))

        return cls(kind, epsilon, delta, max(_ORDERS, key=executions))

    @cached_property
    def limit(self) -> Decimal:
        """What the costs may add up to; rounded down."""
        if self.order is None:
            return _gdp_limit(self.epsilon, self.delta)
        return _down(_renyi_limit(self.epsilon, self.delta, self.order))

    def cost(self, event: Event) -> Decimal:
        """Returns what the event adds to the sum; rounded up, in steps of 10^-12.

        Raises: UnsupportedEventError: This filter has no valid cost for it.
        """
        if self.order is not None:
            return _renyi_cost(event, self.order)
        if not isinstance(event, GaussianEvent) or event.sampling.type is not SamplingType.FULL:
            raise UnsupportedEventError(f"a Gaussian filter takes full-batch Gaussian noise only, not {event}")
        return _up(full_batch_rate(event))

    def spent(self, events: Sequence[Event]) -> Decimal:
        """Adds up the costs of events, reservations included; events are admitted while this is at most ``limit``."""
        with localcontext(_EXACT):
            return sum(map(self.cost, events), Decimal(0))

    def room(self, spent: Decimal, event: Event) -> int:
        """Counts how many executions of the event, whatever its own count, still fit; at most 10^9."""
        with localcontext(_EXACT):
            left = Fraction(self.limit - spent)
        return max(0, min(10**9, int(left / Fraction(self.cost(event.times(1))))))

    def epsilon_of(self, spent: Decimal) -> float:
        """Converts a sum into the epsilon that it costs at most, at the filter's delta; at the limit, the budget."""
        if spent <= 0:
            return 0.0
        if self.order is None:
            return _gdp_epsilon(float(spent), self.delta)
        with localcontext(_PRECISE):
            exact = max(Decimal(0), spent + _conversion(self.delta, self.order))
        return math.nextafter(float(exact), math.inf)


def _up(value: Fraction) -> Decimal:
    return Decimal(math.ceil(value * 10**_PLACES)).scaleb(-_PLACES, _EXACT)


def _down(value: Fraction) -> Decimal:
    return Decimal(math.floor(value * 10**_PLACES)).scaleb(-_PLACES, _EXACT)


def _check_budget(epsilon: Decimal, delta: Decimal) -> None:
    if not (epsilon.is_finite() and epsilon > 0 and delta.is_finite() and 0 < delta < 1):
        raise ConfigError(f"a budget needs epsilon > 0 and 0 < delta < 1, not {epsilon} and {delta}")
    if epsilon > LARGEST_BUDGET:
        raise ConfigError(f"a budget of epsilon {epsilon} protects nobody: at most {LARGEST_BUDGET}")


def _gdp_epsilon(spent: float, delta: Decimal) -> float:
    # The closed form is solved to an absolute 1e-12.
    found = float(dp_accounting.get_epsilon_gaussian(1 / math.sqrt(spent), float(delta)))
    return found * (1 + 1e-12) + 1e-11 if found else 0.0


@lru_cache(maxsize=64)
def _gdp_limit(epsilon: Decimal, delta: Decimal) -> Decimal:
    multiplier = float(dp_accounting.get_sigma_gaussian(float(epsilon), float(delta)))
    limit = _down(1 / Fraction(multiplier) ** 2)
    # The root is approximate: walk down until the bound itself holds.
    while limit > 0 and _gdp_epsilon(float(limit), delta) > float(epsilon):
        limit = _down(Fraction(limit) * (1 - _FLOAT_SLACK))
    return limit


def _conversion(delta: Decimal, order: int) -> Decimal:
    """Returns epsilon minus divergence: ``ln(1 - 1/a) - ln(delta a) / (a - 1)`` at order ``a``."""
    with localcontext(_PRECISE):
        return (1 - 1 / Decimal(order)).ln() - (delta * order).ln() / (order - 1)


def _renyi_limit(epsilon: Decimal, delta: Decimal, order: int) -> Fraction:
    return Fraction(epsilon) - Fraction(_conversion(delta, order)) - Fraction(1, 10**_PLACES)


@lru_cache(maxsize=1024)
def _sampled_divergence(one: GaussianEvent, order: int) -> float:
    return divergences([one], [order], RELATION)[0]


@lru_cache(maxsize=1024)
def _renyi_cost(event: Event, order: int) -> Decimal:
    if isinstance(event, SkellamEvent):
        return _up(skellam_divergence(event, order, RELATION))
    if event.sampling.type is SamplingType.FULL:
        return _up(order * full_batch_rate(event) / 2)
    one = _sampled_divergence(event.times(1), order)
    if not math.isfinite(one):
        raise UnsupportedEventError(f"order {order} does not price {event}")
    return _up(event.count * (Fraction(max(one, 0.0)) * (1 + _FLOAT_SLACK) + _FLOAT_FLOOR))
