"""The round driver: proposes rounds, drops who fails, never opens a sum below the floor, always comes to an end.

Not Flower's ``Strategy.start``: that samples without a time-out, sends one record to all, and dies with one bad reply
(ADR 0003). Here the algorithm is a value and the driver holds its state, so a round can be repeated or resumed.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from privacy.errors import BudgetExhaustedError, ConfigError, RemoteProtocolError
from privacy.secagg.context import MAX_ATTEMPTS
from server.exchange import Exchange
from strategies.algorithm import Algorithm
from strategies.contribution import Aggregate, Contribution, Vector, check_received, weighted_mean
from strategies.messages import TRAIN, RoundReply, RoundTask
from strategies.regions import Plan
from strategies.task import SiteId

FLOOR = 3
"""Fewest survivors whose sum is opened. Three make a company; a smaller sum would show somebody's update."""


@dataclass(frozen=True)
class Schedule:
    """How many rounds, and how many attempts beyond them the whole run may spend; both enter the privacy plan.

    Attributes:
      per_round: Most attempts at one round, whatever retries are left (docs/protocol.md §6.1).
    """

    rounds: int
    retries: int
    floor: int = FLOOR
    per_round: int = MAX_ATTEMPTS

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.retries < 0 or self.floor < FLOOR:
            raise ValueError(f"a run has at least one round and a floor of at least {FLOOR}")


@dataclass(frozen=True)
class RoundRecord:
    """What became of one round; public.

    Attributes:
      answered: Survivors of the last attempt, in site order.
      missing: Everyone else with a plain reason.
      skipped: Whether the model stayed as it was.
      still: Regions of the plan that nobody's sum moved, by number.
    """

    round: int
    attempts: int
    answered: tuple[SiteId, ...]
    missing: Mapping[SiteId, str]
    skipped: bool
    seconds: float
    still: tuple[int, ...] = ()


@dataclass(frozen=True)
class Collected:
    """What an attempt brought.

    Attributes:
      aggregate: Weighted mean over ``answered``, or ``None`` if nothing was opened.
      answered: Survivors, in site order.
      missing: Everyone else with a plain reason.
      still: Regions of the plan that no opened sum moved, by number.
    """

    aggregate: Aggregate | None
    answered: tuple[SiteId, ...]
    missing: Mapping[SiteId, str]
    still: tuple[int, ...] = ()


Collect = Callable[[Mapping[str, Vector], Mapping[SiteId, RoundTask], int, int], Collected]
"""Collects one attempt: broadcast arrays, whole, task per site in site order, round, attempt."""


@dataclass
class Driver:
    """Runs an algorithm over the sites of a roster.

    Attributes:
      job: Digest of the settings every site must have agreed to.
      weights: Public weight per site.
      plan: Who holds what; a site is sent the coordinates that it trains and no others.
      collect: How contributions come in; one by one, in the clear, if ``None``: for whole models only.
      stopped: Why the run ended before its last round; empty if it did not.
    """

    exchange: Exchange
    algorithm: Algorithm[Any]
    schedule: Schedule
    job: str
    weights: Mapping[SiteId, float]
    plan: Plan
    collect: Collect | None = None
    stopped: str = field(default="", init=False)

    def run(
        self, state: Any, on_round: Callable[[RoundRecord, Any], None], *, sites: Sequence[SiteId] | None = None
    ) -> Any:
        """Runs all rounds, or as many as privacy budgets allow; the last model is then kept.

        Args:
          state: The algorithm's state to begin with.
          on_round: Told after every round, with the state after it.
          sites: Whom to ask, in site order; everybody in ``weights`` by default.

        Returns: The algorithm's state after the last round.
        Raises: ConfigError: The model is no longer finite; the settings make training diverge.
        """
        cohort = tuple(sites if sites is not None else self.weights)
        retries, accepted = self.schedule.retries, dict.fromkeys(cohort, (0, 0))
        for number in range(1, self.schedule.rounds + 1):
            began, most = self.exchange.clock(), min(retries + 1, self.schedule.per_round)
            found, attempt = self._tried(state, cohort, number, most, accepted)
            if found is None:
                break
            retries -= attempt - 1
            if found.aggregate is not None and not self._is_short(found):
                state = self._apply(state, found.aggregate)
                accepted.update((site, (number, attempt)) for site in found.answered)
            seconds, skipped = self.exchange.clock() - began, self._is_short(found)
            on_round(RoundRecord(number, attempt, found.answered, found.missing, skipped, seconds, found.still), state)
            if self.stopped:
                break
        return state

    def _tried(
        self,
        state: Any,
        cohort: Sequence[SiteId],
        number: int,
        most: int,
        accepted: Mapping[SiteId, tuple[int, int]],
    ) -> tuple[Collected | None, int]:
        """Attempts a round until enough survive; returns the last attempt and its number, or nothing was possible."""
        found: Collected | None = None
        for attempt in range(1, most + 1):
            try:
                found = self._attempt(state, cohort, number, attempt, accepted)
            except BudgetExhaustedError as error:
                self.stopped = str(error)
                return found, attempt - 1
            if not self._is_short(found):
                break
        return found, attempt

    def _is_short(self, found: Collected) -> bool:
        return found.aggregate is None or len(found.answered) < self.schedule.floor

    def _apply(self, state: Any, aggregate: Aggregate) -> Any:
        state = self.algorithm.apply(state, aggregate, aggregate.weight / math.fsum(self.weights.values()))
        if not np.isfinite(self.algorithm.parameters(state)).all():
            raise ConfigError("training diverged: the model is no longer finite", hint="Use a lower learning rate.")
        return state

    def _attempt(
        self,
        state: Any,
        cohort: Sequence[SiteId],
        number: int,
        attempt: int,
        accepted: Mapping[SiteId, tuple[int, int]],
    ) -> Collected:
        able = [site for site in cohort if site not in self.exchange.spent]
        if len(able) < self.schedule.floor:
            reason = next(iter(self.exchange.spent.values()))
            raise BudgetExhaustedError(f"{len(able)} sites have privacy budget left, too few: {reason}")
        arrays = self.algorithm.broadcast(state)
        tasks = {
            site: RoundTask(self.job, number, attempt, accepted[site], self.plan.held_of(site, arrays)) for site in able
        }
        return (self.collect or self._one_by_one)(arrays, tasks, number, attempt)

    def _one_by_one(
        self, arrays: Mapping[str, Vector], tasks: Mapping[SiteId, RoundTask], number: int, attempt: int
    ) -> Collected:
        questions = {site: task.encode() for site, task in tasks.items()}
        answers = self.exchange.ask(TRAIN, questions, group=str(number))
        missing = dict(answers.missing)
        contributions: list[tuple[SiteId, Contribution]] = []
        for site, payload in answers.payloads.items():
            try:
                contribution = self._checked(site, payload, number, attempt, arrays["model"].size)
            except RemoteProtocolError as error:
                missing[site] = str(error)
                continue
            contributions.append((site, contribution))
        # Below the floor no sum is opened, not even here where every summand is in the clear.
        few = len(contributions) < self.schedule.floor
        aggregate = None if few else weighted_mean(contributions, self.weights)
        return Collected(aggregate, tuple(site for site, _ in contributions), missing)

    def _checked(self, site: SiteId, payload: bytes, number: int, attempt: int, size: int) -> Contribution:
        reply = RoundReply.decode(payload)
        self.exchange.egress[site].unmasked_arrays += len(reply.contribution.arrays)
        if (reply.site, reply.round, reply.attempt) != (site, number, attempt):
            raise RemoteProtocolError(f"{site} answered another question", site_id=site, phase="train")
        check_received(reply.contribution, self.algorithm.declared, size, site_id=site)
        return reply.contribution
