"""What the entries of a ledger amount to, and what they still allow: a pure fold over a hash chain.

Entry ``n`` carries SHA-256(hash of entry n-1 || text of entry n), so one changed, missing or inserted entry breaks the
chain, and the head alone stands for the whole history. The rules of life: a debit is *reserved*, then perhaps
*released*; it counts from its reservation for ever.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Context, Decimal, Inexact
from enum import StrEnum
from typing import Any, NamedTuple

from privacy.dp.events import Event, merged
from privacy.dp.filters import Filter
from privacy.errors import (
    BudgetExhaustedError,
    ConfigError,
    FederationError,
    LocalProtocolError,
    UnsupportedEventError,
    VerificationError,
)
from privacy.store.budgets import UNLIMITED, Asset, Debit, Unlimited, epsilon_at_most, filter_name

_DOWN = Context(prec=60, rounding=ROUND_FLOOR)
_EXACT = Context(prec=200, traps=[Inexact])


class Link(NamedTuple):
    """An entry's place in the chain: its number and its hash."""

    seq: int
    hash: bytes

    def then(self, text: str) -> "Link":
        """Returns the link of the entry after this one."""
        return Link(self.seq + 1, hashlib.sha256(self.hash + text.encode()).digest())


START = Link(0, bytes(32))


class State(StrEnum):
    """Where a debit stands; it counts in either state."""

    RESERVED = "reserved"
    RELEASED = "released"


@dataclass(frozen=True)
class Line:
    """A debit as the ledger holds it."""

    link: Link
    debit: Debit
    state: State


class Books:
    """Assets, debits and what is spent, up to ``head``.

    Attributes:
      head: Last entry that was read.
      ledger: The ledger's id; empty until the first entry was read.
      simulation: Whether assets without a budget are allowed.
      assets: By name.
      lines: Debits by entry number, in order.
    """

    def __init__(self) -> None:
        self.head = START
        self.ledger = ""
        self.simulation = False
        self.assets: dict[str, Asset] = {}
        self.lines: dict[int, Line] = {}
        self._names: dict[str, str] = {}  # names and aliases -> asset
        self._taken: set[tuple[str, str, str, int, int]] = set()
        self._plans: dict[tuple[str, ...], tuple[int, int]] = {}  # limit, executions
        self._sums: dict[tuple[str, str, str | None], _Sum] = {}  # by asset, claim, purpose; None for all together

    def read(self, seq: int, text: str, digest: bytes) -> None:
        """Takes in the next entry; one that does not fit changes nothing.

        Raises: VerificationError: The chain is broken, or the entry says something that cannot be.
        """
        link = self.head.then(text)
        if (seq, digest) != link:
            raise VerificationError(f"entry {seq} of the ledger breaks the chain: it was changed, or one is missing")
        try:
            self._apply(link, json.loads(text))
        except (FederationError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise VerificationError(f"entry {seq} of the ledger is not one that this version writes") from error
        self.head = link

    def _apply(self, link: Link, body: dict[str, Any]) -> None:
        kind = body.pop("kind")
        if (kind == "created") != (link.seq == 1):
            raise ValueError(kind)
        match kind:
            case "created":
                self.ledger, self.simulation = str(body["id"]), body["simulation"] is True
            case "asset":
                asset = Asset.from_json(body)
                self._claim_name(asset.name, asset.name)
                self.assets[asset.name] = asset
            case "alias":
                self._claim_name(body["alias"], self.assets[body["asset"]].name)
            case "reserved":
                self._reserve(link, Debit.from_json(body))
            case "released":
                line = self._pending(body["seq"])
                self.lines[line.link.seq] = Line(line.link, line.debit, State.RELEASED)
            case _:
                raise ValueError(kind)

    def _claim_name(self, name: str, asset: str) -> None:
        if self._names.setdefault(name, asset) != asset or (name == asset and name in self.assets):
            raise ValueError(name)

    def _reserve(self, link: Link, debit: Debit) -> None:
        for purpose in (debit.purpose, None):
            key = self.asset(debit.asset).name, debit.claim, purpose
            self._sums.setdefault(key, _Sum()).add(debit.event.times(1), debit.event.count)
        limit, executed = self._plans.get(debit.plan, (debit.limit, 0))
        self._plans[debit.plan] = limit, executed + debit.event.count
        self._taken.add(debit.release)
        self.lines[link.seq] = Line(link, debit, State.RESERVED)

    def _pending(self, seq: int) -> Line:
        line = self.lines.get(seq)
        if line is None or line.state is not State.RESERVED:
            raise ValueError(f"entry {seq} is no open reservation")
        return line

    def asset(self, name: str) -> Asset:
        """Returns an asset by its name or an alias. Raises: ConfigError: Nobody declared it."""
        if name not in self._names:
            raise ConfigError(
                f"the ledger knows no asset {name!r}", hint="Declare it with its budget, or as an alias, first."
            )
        return self.assets[self._names[name]]

    def aliases(self, asset: str) -> tuple[str, ...]:
        """Returns the other names of an asset."""
        return tuple(name for name, real in self._names.items() if real == asset != name)

    def spent(self, asset: str, claim: str, purpose: str | None = None) -> tuple[Event, ...]:
        """Returns the events that count against a budget, of one purpose or of all, equal ones merged."""
        return self._sum(asset, claim, purpose).events()

    def n_events(self, asset: str, claim: str) -> int:
        """Counts the different events that count against a budget."""
        return len(self._sum(asset, claim).executions)

    def _sum(self, asset: str, claim: str, purpose: str | None = None) -> "_Sum":
        return self._sums.get((asset, claim, purpose), _Sum())

    def executed(self, name: str, run: str | None = None) -> int:
        """Counts the mechanism executions that are paid for under a name, in one run or in all."""
        return sum(done for plan, (_, done) in self._plans.items() if plan[0] == name and run in (None, plan[1]))

    def new_names(self, asset: Asset) -> tuple[bool, tuple[str, ...]]:
        """Returns whether an asset is new, and which of its aliases are.

        Raises: ConfigError: It was declared otherwise, is an alias, an alias is taken, or it has no budget outside
          a simulation.
        """
        if Asset.from_json(asset.to_json()).to_json() != asset.to_json():
            raise ConfigError(f"asset {asset.name} cannot be written down exactly")
        known = self.assets.get(asset.name)
        if known is not None and known.to_json() != asset.to_json():
            raise ConfigError(f"asset {asset.name} was declared with another budget; a budget is fixed for ever")
        if not self.simulation and UNLIMITED in asset.budgets.values():
            raise ConfigError(f"asset {asset.name} has no budget; that is for simulations")
        for name in (asset.name, *asset.aliases):
            if self._names.get(name, asset.name) != asset.name:
                raise ConfigError(f"{name} stands for asset {self._names[name]} already; spend cannot be moved")
        return known is None, tuple(name for name in dict.fromkeys(asset.aliases) if name not in self._names)

    def check(self, debits: Sequence[Debit]) -> None:
        """Refuses what may not be reserved, all of it together; changes nothing.

        Raises:
          BudgetExhaustedError: A budget, a purpose's share of it, or the run's plan does not cover it.
          UnsupportedEventError: An event has no price under the budget's filter, or a budgeted claim has no event.
          LocalProtocolError: The attempt was debited before, or the run's limit was another one.
          ConfigError: An asset, purpose or claim that was not declared.
        """
        if not debits:
            raise UnsupportedEventError("a release without an event has no price")
        claims: dict[tuple[str, str, str, int, int], set[str]] = {}
        plans: dict[tuple[str, ...], tuple[int, int]] = {}
        wanted: dict[tuple[str, str], list[tuple[str, Event]]] = {}  # by asset and claim: purpose, event
        for debit in debits:
            if Debit.from_json(debit.to_json()) != debit:  # what cannot be read back would make the ledger unreadable
                raise UnsupportedEventError(f"{debit.event} cannot be written down exactly")
            asset = self.asset(debit.asset)
            if debit.purpose not in asset.purposes or debit.claim not in asset.budgets:
                raise ConfigError(f"asset {asset.name} has no budget for {debit.purpose} per {debit.claim}")
            priced = claims.setdefault(debit.release, set())
            if debit.release in self._taken or debit.claim in priced:
                raise LocalProtocolError(f"round {debit.round} attempt {debit.attempt} was already debited")
            priced.add(debit.claim)
            before = plans.get(debit.plan) or self._plans.get(debit.plan, (debit.limit, 0))
            plans[debit.plan] = debit.limit, _in_plan(debit, *before)
            wanted.setdefault((asset.name, debit.claim), []).append((debit.purpose, debit.event))
        for (name, *_), priced in claims.items():
            if missing := self.asset(name).budgets.keys() - priced:
                raise UnsupportedEventError(f"the release is not priced per {', '.join(sorted(missing))}")
        for (name, claim), events in wanted.items():
            self.check_budget(name, claim, events)

    def check_budget(self, name: str, claim: str, wanted: Sequence[tuple[str, Event]]) -> None:
        """Refuses events, given with their purposes, that a budget does not cover.

        Raises: BudgetExhaustedError: The budget, or a purpose's share of it. UnsupportedEventError: No price.
        """
        asset = self.asset(name)
        budget = asset.budgets[claim]
        if isinstance(budget, Unlimited):
            return
        what = f"asset {asset.name} per {claim}"
        _check_sum(budget, Decimal(1), self._sum(asset.name, claim), [event for _, event in wanted], what)
        for purpose in {purpose for purpose, _ in wanted}:
            spent, events = self._sum(asset.name, claim, purpose), [event for use, event in wanted if use == purpose]
            _check_sum(budget, asset.purposes[purpose], spent, events, f"{what} for {purpose}")


class _Sum:
    """The executions that count against one budget and what they cost, which is computed again only where they changed.

    A filter adds up the costs of its events, so this is what ``Filter.spent`` returns for all of them.
    """

    def __init__(self) -> None:
        self.executions: dict[Event, int] = {}  # by event of one execution
        self._costs: dict[Event, Decimal] = {}
        self._total = Decimal(0)
        self._changed: dict[Event, None] = {}  # not priced since

    def add(self, one: Event, executions: int) -> None:
        self.executions[one] = self.executions.get(one, 0) + executions
        self._changed[one] = None

    def events(self) -> tuple[Event, ...]:
        return tuple(one.times(count) for one, count in self.executions.items())

    def cost(self, budget: Filter) -> Decimal:
        """Returns the sum of costs, by the one budget that this is ever asked about."""
        while self._changed:
            one = next(iter(self._changed))
            cost = budget.cost(one.times(self.executions[one]))
            self._total = _EXACT.add(self._total, _EXACT.subtract(cost, self._costs.get(one, Decimal(0))))
            self._costs[one] = cost
            del self._changed[one]
        return self._total

    def cost_with(self, budget: Filter, wanted: Sequence[Event]) -> Decimal:
        """Returns what the sum would be with these events as well."""
        total = self.cost(budget)
        for event in merged(wanted):
            one = event.times(1)
            after = budget.cost(one.times(self.executions.get(one, 0) + event.count))
            total = _EXACT.add(total, _EXACT.subtract(after, self._costs.get(one, Decimal(0))))
        return total


def entry(kind: str, body: Mapping[str, Any]) -> str:
    """Returns the text of an entry."""
    return json.dumps({"kind": kind, **body}, sort_keys=True, separators=(",", ":"))


def _in_plan(debit: Debit, limit: int, executions: int) -> int:
    if debit.limit != limit:
        raise LocalProtocolError(f"the run's plan allowed {limit} executions and cannot allow {debit.limit} now")
    if executions + debit.event.count > limit:
        raise BudgetExhaustedError(f"{executions} of {limit} executions are spent; no room for {debit.event.count}")
    return executions + debit.event.count


def _check_sum(budget: Filter, share: Decimal, before: _Sum, wanted: Sequence[Event], what: str) -> None:
    after = before.cost_with(budget, wanted)
    if after <= _DOWN.multiply(budget.limit, share):
        return
    spent, would_be = (epsilon_at_most(budget, value) for value in (before.cost(budget), after))
    part = "" if share == 1 else f", of which {share} may be used so"
    # The numbers are for the site's own people: the server is told the message without its hint.
    raise BudgetExhaustedError(
        f"the budget of {what} does not cover this",
        hint=f"Epsilon {spent} is spent and {would_be} would be, of {budget.epsilon} at delta {budget.delta}{part} "
        f"({filter_name(budget)}).",
    )
