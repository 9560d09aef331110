"""What a ledger is about: data assets with their budgets, and the debits that count against them. Pure values.

An asset is a population, not a file: versions, views and overlapping extracts of the same people are aliases of one
asset and share its budgets (docs/privacy-rules.md, 16).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from typing import Any, Final, TypeAlias

from privacy.dp.accounting import round_up
from privacy.dp.events import Event, decimal, event_from_json
from privacy.dp.filters import Filter, FilterKind
from privacy.errors import ConfigError

_LONGEST_NAME = 100


class Unlimited(Enum):
    """The one way to say that nothing is limited; a ledger takes it only if it was created for a simulation."""

    UNLIMITED = "unlimited"


UNLIMITED: Final = Unlimited.UNLIMITED
Budget: TypeAlias = Filter | Unlimited


@dataclass(frozen=True)
class Asset:
    """A population with its budgets. All fields are public and, aliases apart, fixed when the asset is declared.

    A budget is neither raised nor lowered later: a Rényi filter is valid only for a limit and an order that were fixed
    before the first event (Feldman and Zrnic, NeurIPS 2021), and whoever wants to spend less plans less.

    Attributes:
      name: Of the population.
      budgets: By claim. A claim is what neighbours differ by (``record``, ``patient``, ``site``), with a suffix where
        it holds against some people only (``site-distributed``). Claims are never added up; instead every reservation
        must be priced under each of them, so those of an asset are claims that one run pays for together, such as
        ``record`` with ``site-distributed`` (`privacy.dp.combinations.payable`).
      purposes: Which uses are allowed, each with the share of every budget that it may spend at most, in (0, 1]; the
        budget itself binds their sum.
      aliases: Other names of the same population; more may be declared later, none taken back.
    """

    name: str
    budgets: Mapping[str, Budget]
    purposes: Mapping[str, Decimal] = field(default_factory=lambda: {"training": Decimal(1)})
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_names(self.name, *self.aliases, *self.budgets, *self.purposes)
        if not self.budgets or not self.purposes:
            raise ConfigError(f"asset {self.name} needs at least one budget and one purpose")
        if not all(share.is_finite() and 0 < share <= 1 for share in self.purposes.values()):
            raise ConfigError(f"asset {self.name}: a purpose has a share above 0 and at most 1 of the budget")

    def to_json(self) -> dict[str, Any]:
        """Returns the form that the ledger holds; aliases are entries of their own."""
        return {
            "asset": self.name,
            "budgets": {claim: _budget_to_json(budget) for claim, budget in self.budgets.items()},
            "purposes": {purpose: f"{share:f}" for purpose, share in self.purposes.items()},
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Asset":
        """Reads what ``to_json`` wrote; anything else raises some error."""
        return cls(
            body["asset"],
            {claim: _budget_from_json(budget) for claim, budget in body["budgets"].items()},
            {purpose: decimal(share) for purpose, share in body["purposes"].items()},
        )


@dataclass(frozen=True)
class Debit:
    """One line of the ledger: what an attempt at a round costs an asset under one claim. All fields are public.

    Attributes:
      asset: Its name or an alias, kept as it was given.
      limit: Executions that the run's frozen plan was priced for; the same in every debit of the run.
      run: Which run, across all that ever touch the asset.
      purpose: One that the asset allows.
      claim: One that the asset has a budget for.
    """

    asset: str
    round: int
    attempt: int
    event: Event
    limit: int = field(kw_only=True)
    run: str = field(kw_only=True)
    purpose: str = field(default="training", kw_only=True)
    claim: str = field(default="record", kw_only=True)

    def __post_init__(self) -> None:
        check_names(self.asset, self.run, self.purpose, self.claim)

    @property
    def plan(self) -> tuple[str, str, str, str]:
        """What the limit is about: one plan of one run."""
        return self.asset, self.run, self.purpose, self.claim

    @property
    def release(self) -> tuple[str, str, str, int, int]:
        """What is debited once, in a line for each claim."""
        return self.asset, self.run, self.purpose, self.round, self.attempt

    def to_json(self) -> dict[str, Any]:
        """Returns the form that the ledger holds."""
        return {**vars(self), "event": self.event.to_json()}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Debit":
        """Reads what ``to_json`` wrote; anything else raises some error."""
        numbers = {name: body[name] for name in ("round", "attempt", "limit")}
        if not all(type(number) is int and number >= 0 for number in numbers.values()):
            raise ConfigError(f"{numbers} are no numbers of a debit")
        return cls(**{**body, "event": event_from_json(body["event"])})


def check_names(*names: str) -> None:
    """Refuses names that cannot be shown on a line. Raises: ConfigError: Empty, long, or not printable."""
    for name in names:
        if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
            raise ConfigError(f"{name[:40]!r} is no name: 1 to {_LONGEST_NAME} printable characters")


def filter_name(budget: Filter) -> str:
    """Names a filter for people: the lifetime claim rests on it."""
    return "GDP filter" if budget.kind is FilterKind.GDP else f"Rényi filter, order {budget.order}"


def epsilon_at_most(budget: Filter, spent: Decimal) -> str:
    """Returns what a sum costs, for people: rounded up, and ``inf`` from 10^9 on."""
    value = budget.epsilon_of(spent)
    return round_up(value if value < 10**9 else math.inf)


def _budget_to_json(budget: Budget) -> Any:
    if isinstance(budget, Unlimited):
        return budget.value
    # The order is part of the promise: chosen anew, by another version, it might be another one.
    numbers = {"epsilon": f"{budget.epsilon:f}", "delta": f"{budget.delta:f}"}
    return {"kind": str(budget.kind), "order": budget.order, **numbers}


def _budget_from_json(body: Any) -> Budget:
    if body == UNLIMITED.value:
        return UNLIMITED
    return Filter(FilterKind(body["kind"]), decimal(body["epsilon"]), decimal(body["delta"]), body["order"])
