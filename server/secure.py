"""Drives FSA1's coordinator over Flower messages: one question per site and phase, one answer to each.

The machine decides everything (``privacy.secagg.coordinator``); this file carries bytes, closes a phase when everybody
has answered or the exchange's deadline is over, and turns the opened sums into an aggregate. A region whose cover was
lost stands still for the rest of its round: the next attempt does not ask for it (docs/protocol.md §7.3).
"""

import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from privacy.audit.transcript import AttemptRecord
from privacy.charter.document import Floors
from privacy.dp.plan import SitePlan
from privacy.errors import QuorumError
from privacy.secagg import coordinator, effects
from privacy.secagg.context import Durations, Roster, RoundContext, Thresholds, model_root, region_digest, thresholds
from privacy.secagg.suite import RealSuite, fastest_keystream
from privacy.store.budgets import Debit
from privacy.store.ledger import Ledger
from server.exchange import Exchange
from server.rounds import Collected
from server.witnesses import Witnesses
from strategies.algorithm import Algorithm
from strategies.contribution import Vector
from strategies.messages import MASKED, SECAGG, RoundTask, SecureTask
from strategies.regions import HeldRegion, Plan
from strategies.secure_sum import (
    BITS,
    PLAIN,
    Encoding,
    Units,
    context_regions,
    plan_digest,
    run_digest,
    summed,
    to_aggregate,
    values_digest,
)
from strategies.task import SiteId


@dataclass(frozen=True)
class CentralNoise:
    """Noise that the server adds to every opened sum before anybody sees it, and the ledger that it is debited to.

    Attributes:
      asset: The population that it protects, in the ledger.
      run: Which run pays.
    """

    plan: SitePlan
    ledger: Ledger
    asset: str
    run: str

    def debits(self, number: int, attempt: int) -> list[Debit]:
        """Returns what opening the sum of one attempt costs."""
        event, limit = self.plan.event(1), self.plan.max_executions
        return [Debit(self.asset, number, attempt, event, limit=limit, run=self.run, claim=self.plan.claim)]

    def release(self, sums: Mapping[int, Units], number: int, attempt: int) -> dict[int, Units]:
        """Debits, then noises all regions as the one vector that was clipped; raises PrivacyError before a release."""
        self.ledger.release(self.ledger.reserve(self.debits(number, attempt)))
        total = self.plan.noised(np.concatenate(list(sums.values())), secrets.token_bytes)
        ends = np.cumsum([each.size for each in sums.values()])[:-1]
        return dict(zip(sums, np.split(total, ends), strict=True))


@dataclass(frozen=True)
class SecureCollector:
    """Collects a round's contributions as masked sums, one a region; single updates never reach the server.

    Attributes:
      plan: Who holds what.
      roster: Identity keys of the federation; every site has pinned the same.
      weights: Public whole-number weight per site.
      job: Digest of the settings every site agreed to, hex.
      federation: Name of the federation.
      run: Names the run in every context.
      encoding: What the integers of the sum stand for.
      noise: What the server adds to the sum; ``None`` for nothing.
      log: The server's own log, told to the sites in every START; ``None``: it keeps none.
      purpose: What for, and
      asset: on which data, as the sites' contexts say.
      counted_on: Floors that the plan of noise counts on, however few sites are left to ask; ``None``: no such plan.
      floors: The charter's; ``None``: there is none beyond FSA1's own.
      on_attempt: Told how every attempt ended and what the sites signed in it, before its sum is used.
      first: Type of an attempt's first message: `MASKED`, or `STAGE` where sites train through a chain.
    """

    exchange: Exchange
    algorithm: Algorithm[object]
    plan: Plan
    roster: Roster
    weights: Mapping[SiteId, float]
    job: str
    federation: str
    run: str
    encoding: Encoding = PLAIN
    noise: CentralNoise | None = None
    log: Witnesses | None = None
    purpose: str = "training"
    asset: str = "training records"
    counted_on: Thresholds | None = None
    floors: Floors | None = None
    on_attempt: Callable[[AttemptRecord], None] = lambda _record: None
    first: str = MASKED
    _still: dict[int, set[tuple[str, ...]]] = field(default_factory=dict, repr=False)
    _told: dict[int, int] = field(default_factory=dict, repr=False)

    def collect(
        self, arrays: Mapping[str, Vector], tasks: Mapping[SiteId, RoundTask], number: int, attempt: int
    ) -> Collected:
        """Runs one attempt of FSA1. An abort is no survivors and a reason; nothing is opened then.

        Raises: BudgetExhaustedError: The server's noise has no budget left; no site was asked.
        """
        if self.noise is not None:
            self.noise.ledger.check(self.noise.debits(number, attempt))
        self.lost(number, attempt - 1)
        floors, still = self._floors(len(tasks)), self._still.setdefault(number, set())
        chosen = summed(self.plan, tasks, floors.min_cover, still)
        if not chosen or len(tasks) < floors.min_survivors:
            why = f"no part of the model has the {floors.min_cover} holders that a sum takes"
            if chosen:
                why = f"{len(tasks)} sites are left to ask, and a sum takes {floors.min_survivors}"
            self._record(AttemptRecord(number, attempt, None, why))
            return Collected(None, (), dict.fromkeys(tasks, why), self._at_rest(()), asked=False)
        config = self._config(arrays, chosen, floors, tuple(tasks), number, attempt)
        end, reasons = self._run(config, tasks, number)
        self._record(AttemptRecord.of(number, attempt, end))
        if isinstance(end, effects.Aborted):
            if end.region is not None and len(chosen) > 1:  # of a single one, nothing would be left to ask for
                still.add(chosen[end.region].holders)
            why = f"secure aggregation aborted: {end.reason}"
            missing = {site: reasons.get(site, why) for site in tasks}
            return Collected(None, (), missing, self._at_rest(()))
        sums = end.sums if self.noise is None else self.noise.release(end.sums, number, attempt)
        weights = {site: self.weights[site] for site in tasks if site in end.survivors}
        aggregate = to_aggregate(sums, chosen, self.algorithm.declared, self.plan.layout.size, weights, self.encoding)
        missing = {site: reasons.get(site, "dropped out of the sum") for site in tasks if site not in weights}
        return Collected(aggregate, tuple(weights), missing, self._at_rest([chosen[k] for k in sums]))

    def lost(self, number: int, attempts: int) -> None:
        """Tells of attempts at a round that were begun before the coordinator ended and was resumed: they count."""
        for attempt in range(self._told.get(number, 0) + 1, attempts + 1):
            self._record(AttemptRecord(number, attempt, None, "the coordinator ended in the middle of it"))

    def _record(self, record: AttemptRecord) -> None:
        self._told[record.round] = record.attempt
        self.on_attempt(record)

    def _run(
        self, config: coordinator.CoordinatorConfig, tasks: Mapping[SiteId, RoundTask], number: int
    ) -> tuple[effects.Finished | effects.Aborted, dict[SiteId, str]]:
        """Asks phase by phase until the machine ends; returns its end, and what kept single sites out."""
        state, out = coordinator.step(config, coordinator.CoordinatorState(), effects.Begin())
        reasons: dict[SiteId, str] = {}
        kind = self.first
        while not (ended := [effect for effect in out if isinstance(effect, effects.Finished | effects.Aborted)]):
            questions = {
                SiteId(send.site): self._first(tasks[SiteId(send.site)], send) if kind == self.first else send.data
                for send in out
                if isinstance(send, effects.SendTo)
            }
            answers = self.exchange.ask(kind, questions, group=str(number))
            reasons.update(answers.missing)
            if self.log is not None and kind == self.first:
                self.log.confirm(answers.payloads)
            phase, out = state.phase, ()
            for site, payload in answers.payloads.items():
                state, more = coordinator.step(config, state, effects.Received(payload, site))
                out += more
            if state.phase == phase:
                state, more = coordinator.step(config, state, effects.Expired(phase))
                out += more
            reasons.update({SiteId(e.site): e.detail for e in out if isinstance(e, effects.Audit) and e.site})
            kind = SECAGG
        return ended[0], reasons

    def _first(self, task: RoundTask, send: effects.SendTo) -> bytes:
        growth = () if self.log is None else self.log.growth(SiteId(send.site))
        return SecureTask(task, send.data, growth).encode()

    def _floors(self, n: int) -> Thresholds:
        """Returns the defaults for ``n`` sites, never below the charter's nor what noise was calibrated for."""
        floors = thresholds(n) if self.floors is None else self.floors.raised(thresholds(n))
        if self.counted_on is None:
            return floors
        survivors = max(floors.min_survivors, self.counted_on.min_survivors)
        return replace(floors, min_survivors=survivors, min_cover=max(floors.min_cover, self.counted_on.min_cover))

    def _at_rest(self, opened: Sequence[HeldRegion]) -> tuple[int, ...]:
        """Returns the plan's regions that no opened sum moved, by number; a cohort's regions are unions of them.

        None where every site holds the whole model: that round was skipped, which is said elsewhere.
        """
        if self.plan.is_whole:
            return ()
        moved = np.zeros(self.plan.layout.size, dtype=np.bool_)
        for region in opened:
            moved[region.positions] = True
        return tuple(k for k, region in enumerate(self.plan.regions()) if not moved[region.positions[0]])

    def _config(
        self,
        arrays: Mapping[str, Vector],
        chosen: Sequence[HeldRegion],
        floors: Thresholds,
        cohort: tuple[SiteId, ...],
        number: int,
        attempt: int,
    ) -> coordinator.CoordinatorConfig:
        declared = self.algorithm.declared
        heaviest = max(int(self.weights[site]) for site in cohort)
        if any(self.weights[site] != int(self.weights[site]) for site in cohort):
            raise QuorumError("secure aggregation takes whole-number weights")
        regions = context_regions(chosen, declared, heaviest, self.encoding)
        values = [values_digest({name: arrays[name][each.positions] for name in arrays}) for each in chosen]
        digests = tuple(region_digest(k, region.length, region.holders, values[k]) for k, region in enumerate(regions))
        # A site that answers at once waits while the server waits for the slowest: twice as long, then (§7.1).
        seconds = math.ceil(2 * self.exchange.timing.deadline) + 1
        context = RoundContext(
            federation=self.federation,
            run=run_digest(self.run),
            round=number,
            attempt=attempt,
            roster=self.roster.digest,
            cohort=tuple(sorted(cohort)),
            thresholds=floors,
            bits=BITS,
            fraction_bits=self.encoding.fraction_bits,
            regions=regions,
            model_root=model_root(plan_digest(self.plan, declared), digests),
            job=bytes.fromhex(self.job),
            purpose=self.purpose,
            asset=self.asset,
            durations=Durations(seconds, seconds, seconds, seconds),
            fixed_set=False,
        )
        return coordinator.CoordinatorConfig(
            context, self.roster, digests, RealSuite(fastest_keystream(time.perf_counter))
        )
