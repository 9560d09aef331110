"""The round driver: proposes rounds, drops who fails, never opens a sum below the floor, always comes to an end.

Not Flower's ``Strategy.start``: that samples without a time-out, sends one record to all, and dies with one bad reply
(ADR 0003). Here the algorithm is a value and the driver holds its state, so a round can be repeated or resumed.

With a journal (``server.checkpoints``) every round is one commit. A round that a crash left half-done goes on as its
next attempt: what the sites paid for the lost one stays paid, and it counts as a retry.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from privacy.errors import BudgetExhaustedError, ConfigError, RemoteProtocolError
from privacy.secagg.context import MAX_ATTEMPTS
from server.exchange import Egress, Exchange
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
      asked: Whether any site was; if not, another attempt at the round would ask nobody either.
    """

    aggregate: Aggregate | None
    answered: tuple[SiteId, ...]
    missing: Mapping[SiteId, str]
    still: tuple[int, ...] = ()
    asked: bool = True


@dataclass(frozen=True, eq=False)
class Standing:
    """Where a run stands between two rounds: all it takes to go on, beside what the sites remember; public.

    Attributes:
      round: The last one that is done; 0 before the first.
      state: The algorithm's.
      accepted: Round and attempt of each site's last contribution that counted.
      retries: Attempts beyond one a round that the run may still spend.
      spent: Sites whose privacy budget has no room left, with what they said.
      egress: What left each site in the rounds that are done.
    """

    round: int
    state: Any
    accepted: Mapping[SiteId, tuple[int, int]]
    retries: int
    spent: Mapping[SiteId, str] = field(default_factory=dict)
    egress: Mapping[SiteId, Egress] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Resumed:
    """What a journal holds of a run that ended before its time.

    Attributes:
      standing: After the last round that was committed; ``None`` if there was none.
      records: Of every round that was committed, in order.
      begun: Attempts at the round after it that were begun; whatever became of them, they count.
      stopped: Why the run came to an end of its own; empty if it was cut off.
    """

    standing: Standing | None
    records: tuple[RoundRecord, ...]
    begun: int
    stopped: str = ""


class Journal(Protocol):
    """Where a run writes how far it is: durable once a call returns. A call that raises ends the run."""

    def begun(self, number: int, attempt: int) -> None:
        """Notes an attempt, before any site is asked."""

    def committed(self, record: RoundRecord, standing: Standing) -> None:
        """Notes a round that is done, before anybody is told so."""

    def stopped(self, reason: str) -> None:
        """Notes that the run ended of its own before its last round."""


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
      absent: Plain reason per site that does not answer this roll call; every record names it as missing.
      on_lost: Told, once, of the attempts at a round that has no record: its number and how many were begun.
      stopped: Why the run ended before its last round; empty if it did not.
      lost_attempts: Attempts that were begun at the round after the last; they belong to no record, and were paid for.
    """

    exchange: Exchange
    algorithm: Algorithm[Any]
    schedule: Schedule
    job: str
    weights: Mapping[SiteId, float]
    plan: Plan
    collect: Collect | None = None
    absent: Mapping[SiteId, str] = field(default_factory=dict)
    on_lost: Callable[[int, int], None] = lambda _number, _attempts: None
    stopped: str = field(default="", init=False)
    lost_attempts: int = field(default=0, init=False)

    def run(
        self,
        state: Any,
        on_round: Callable[[RoundRecord, Any], None],
        *,
        sites: Sequence[SiteId] | None = None,
        journal: Journal | None = None,
        resumed: Resumed | None = None,
    ) -> Any:
        """Runs all rounds, or as many as privacy budgets allow; the last model is then kept.

        Args:
          state: The algorithm's state to begin with; when resuming, only if no round was done.
          on_round: Told after every round, with the state after it. When resuming, it is told of the last round that
            was done once more, as nobody knows whether it heard of it.
          sites: Whom to ask, in site order; everybody in ``weights`` by default.
          journal: Where to write how far the run is; ``None`` if it will never be resumed.
          resumed: What the journal holds already; ``None`` begins at round 1.

        Returns: The algorithm's state after the last round.
        Raises: ConfigError: The model is no longer finite, as the settings make training diverge; or the journal
          cannot be written.
        """
        cohort, begun = tuple(sites if sites is not None else self.weights), 0
        here = Standing(0, state, dict.fromkeys(cohort, (0, 0)), self.schedule.retries)
        if resumed is not None:
            here, begun = self._taken_up(resumed, here, on_round), resumed.begun
        for number in range(here.round + 1, self.schedule.rounds + 1):
            if self.stopped:
                break
            began = self.exchange.clock()
            found, attempt = self._tried(here, cohort, begun, journal)
            if found is None:
                begun = attempt
                break
            here, begun = self._after(here, found, attempt), 0
            seconds, skipped = self.exchange.clock() - began, self._is_short(found)
            missing = {**found.missing, **self.absent}
            record = RoundRecord(number, attempt, found.answered, missing, skipped, seconds, found.still)
            if journal is not None:
                journal.committed(record, replace(here, egress=self._egress()))
            on_round(record, here.state)
        if begun:
            self.lost_attempts = begun
            self.on_lost(here.round + 1, begun)
        if self.stopped and journal is not None:
            journal.stopped(self.stopped)
        return here.state

    def _taken_up(self, resumed: Resumed, fresh: Standing, on_round: Callable[[RoundRecord, Any], None]) -> Standing:
        """Returns where the run stood, and makes the exchange know again what it knew."""
        self.stopped = resumed.stopped
        if resumed.standing is None:
            return fresh
        here = resumed.standing
        self.exchange.spent.update(here.spent)
        self.exchange.egress.update((site, replace(account)) for site, account in here.egress.items())
        on_round(resumed.records[-1], here.state)
        return replace(here, accepted={**fresh.accepted, **here.accepted})

    def _tried(
        self, here: Standing, cohort: Sequence[SiteId], begun: int, journal: Journal | None
    ) -> tuple[Collected | None, int]:
        """Attempts a round until enough survive; returns the last attempt and its number, or nothing was possible.

        Whatever of it was possible, the number is that of the attempts that were begun, before a crash as well.

        Args:
          here: Before the round.
          cohort: Whom to ask.
          begun: Attempts at it before a crash.
          journal: Told of every attempt, if there is one.
        """
        number, most = here.round + 1, min(here.retries + 1, self.schedule.per_round)
        if begun >= most:
            self.stopped = f"round {number} was under way when the server ended, and no further attempt at it is left"
            return None, begun
        found: Collected | None = None
        for attempt in range(begun + 1, most + 1):
            try:
                found = self._attempt(here, cohort, attempt, journal)
            except BudgetExhaustedError as error:
                self.stopped = str(error)
                return found, attempt - 1
            if not self._is_short(found) or not found.asked:
                break
        return found, attempt

    def _after(self, here: Standing, found: Collected, attempt: int) -> Standing:
        """Returns where the run stands once a round is over."""
        number, state, accepted = here.round + 1, here.state, dict(here.accepted)
        if found.aggregate is not None and not self._is_short(found):
            state = self._apply(state, found.aggregate)
            accepted.update((site, (number, attempt)) for site in found.answered)
        return Standing(number, state, accepted, here.retries - (attempt - 1), dict(self.exchange.spent))

    def _egress(self) -> dict[SiteId, Egress]:
        """Returns the accounts as they are now; the exchange goes on counting in its own."""
        return {site: replace(account) for site, account in self.exchange.egress.items()}

    def _is_short(self, found: Collected) -> bool:
        return found.aggregate is None or len(found.answered) < self.schedule.floor

    def _apply(self, state: Any, aggregate: Aggregate) -> Any:
        state = self.algorithm.apply(state, aggregate, aggregate.weight / math.fsum(self.weights.values()))
        if not np.isfinite(self.algorithm.parameters(state)).all():
            raise ConfigError("training diverged: the model is no longer finite", hint="Use a lower learning rate.")
        return state

    def _attempt(self, here: Standing, cohort: Sequence[SiteId], attempt: int, journal: Journal | None) -> Collected:
        able = [site for site in cohort if site not in self.exchange.spent]
        if len(able) < self.schedule.floor:
            reason = next(iter(self.exchange.spent.values()))
            raise BudgetExhaustedError(f"{len(able)} sites have privacy budget left, too few: {reason}")
        number, arrays = here.round + 1, self.algorithm.broadcast(here.state)
        tasks = {
            site: RoundTask(self.job, number, attempt, here.accepted[site], self.plan.held_of(site, arrays))
            for site in able
        }
        if journal is not None:
            journal.begun(number, attempt)
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
