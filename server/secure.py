"""Drives FSA1's coordinator over Flower messages: one question per site and phase, one answer to each.

The machine decides everything (``privacy.secagg.coordinator``); this file carries bytes, closes a phase when everybody
has answered or the exchange's deadline is over, and turns the opened sum into an aggregate.
"""

import hashlib
import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from privacy.audit.transcript import AttemptRecord
from privacy.dp.plan import SitePlan
from privacy.errors import QuorumError
from privacy.secagg import coordinator, effects
from privacy.secagg.context import Durations, Roster, RoundContext, model_root, region_digest, thresholds
from privacy.secagg.suite import RealSuite, fastest_keystream
from privacy.store.budgets import Debit
from privacy.store.ledger import Ledger
from server.exchange import Exchange
from server.rounds import Collected
from strategies.algorithm import Algorithm
from strategies.contribution import Vector
from strategies.messages import MASKED, SECAGG, RoundTask, SecureTask
from strategies.secure_sum import BITS, PLAIN, Encoding, plan_digest, region, to_aggregate, values_digest
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

    def release(self, total: npt.NDArray[np.int64], number: int, attempt: int) -> npt.NDArray[np.int64]:
        """Debits, then noises; raises PrivacyError before anything is released."""
        self.ledger.release(self.ledger.reserve(self.debits(number, attempt)))
        return self.plan.noised(total, secrets.token_bytes)


@dataclass(frozen=True)
class SecureCollector:
    """Collects a round's contributions as one masked sum; single updates never reach the server.

    Attributes:
      roster: Identity keys of the federation; every site has pinned the same.
      weights: Public whole-number weight per site.
      job: Digest of the settings every site agreed to, hex.
      federation: Name of the federation.
      run: Names the run in every context.
      encoding: What the integers of the sum stand for.
      noise: What the server adds to the sum; ``None`` for nothing.
      on_attempt: Told how every attempt ended and what the sites signed in it, before its sum is used.
    """

    exchange: Exchange
    algorithm: Algorithm[object]
    roster: Roster
    weights: Mapping[SiteId, float]
    job: str
    federation: str
    run: str
    encoding: Encoding = PLAIN
    noise: CentralNoise | None = None
    on_attempt: Callable[[AttemptRecord], None] = lambda _record: None

    def collect(
        self, arrays: Mapping[str, Vector], tasks: Mapping[SiteId, RoundTask], number: int, attempt: int
    ) -> Collected:
        """Runs one attempt of FSA1. An abort is no survivors and a reason; nothing is opened then.

        Raises: BudgetExhaustedError: The server's noise has no budget left; no site was asked.
        """
        if self.noise is not None:
            self.noise.ledger.check(self.noise.debits(number, attempt))
        config = self._config(arrays, tuple(tasks), number, attempt)
        state, out = coordinator.step(config, coordinator.CoordinatorState(), effects.Begin())
        reasons: dict[SiteId, str] = {}
        kind = MASKED
        while not (ended := [effect for effect in out if isinstance(effect, effects.Finished | effects.Aborted)]):
            questions = {
                SiteId(send.site): SecureTask(tasks[SiteId(send.site)], send.data).encode()
                if kind == MASKED
                else send.data
                for send in out
                if isinstance(send, effects.SendTo)
            }
            answers = self.exchange.ask(kind, questions, group=str(number))
            reasons.update(answers.missing)
            phase, out = state.phase, ()
            for site, payload in answers.payloads.items():
                state, more = coordinator.step(config, state, effects.Received(payload, site))
                out += more
            if state.phase == phase:
                state, more = coordinator.step(config, state, effects.Expired(phase))
                out += more
            reasons.update({SiteId(e.site): e.detail for e in out if isinstance(e, effects.Audit) and e.site})
            kind = SECAGG
        self.on_attempt(AttemptRecord.of(number, attempt, ended[0]))
        if isinstance(ended[0], effects.Aborted):
            why = f"secure aggregation aborted: {ended[0].reason}"
            return Collected(None, (), {site: reasons.get(site, why) for site in tasks})
        total = ended[0].sums[0]
        if self.noise is not None:
            total = self.noise.release(total, number, attempt)
        return self._collected(total, ended[0].survivors, tuple(tasks), reasons)

    def _collected(
        self,
        total: npt.NDArray[np.int64],
        opened: Sequence[str],
        cohort: Sequence[SiteId],
        reasons: Mapping[SiteId, str],
    ) -> Collected:
        survivors = tuple(site for site in cohort if site in opened)
        declared, weights = self.algorithm.declared, [self.weights[site] for site in survivors]
        size = total.size // len(declared.arrays)
        aggregate = to_aggregate(total, declared, size, weights, self.encoding)
        missing = {site: reasons.get(site, "dropped out of the sum") for site in cohort if site not in survivors}
        return Collected(aggregate, survivors, missing)

    def _config(
        self, arrays: Mapping[str, Vector], cohort: tuple[SiteId, ...], number: int, attempt: int
    ) -> coordinator.CoordinatorConfig:
        size, declared = arrays["model"].size, self.algorithm.declared
        heaviest = max(int(self.weights[site]) for site in cohort)
        if any(self.weights[site] != int(self.weights[site]) for site in cohort):
            raise QuorumError("secure aggregation takes whole-number weights")
        whole = region(declared, size, cohort, heaviest, self.encoding)
        digests = (region_digest(0, whole.length, whole.holders, values_digest(arrays)),)
        # A site that answers at once waits while the server waits for the slowest: twice as long, then (§7.1).
        seconds = math.ceil(2 * self.exchange.timing.deadline) + 1
        context = RoundContext(
            federation=self.federation,
            run=hashlib.sha256(self.run.encode()).digest()[:16],
            round=number,
            attempt=attempt,
            roster=self.roster.digest,
            cohort=whole.holders,
            thresholds=thresholds(len(cohort)),
            bits=BITS,
            fraction_bits=self.encoding.fraction_bits,
            regions=(whole,),
            model_root=model_root(plan_digest(declared, size), digests),
            job=bytes.fromhex(self.job),
            purpose="training",
            asset="training records",
            durations=Durations(seconds, seconds, seconds, seconds),
            fixed_set=False,
        )
        return coordinator.CoordinatorConfig(
            context, self.roster, digests, RealSuite(fastest_keystream(time.perf_counter))
        )
