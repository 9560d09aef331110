"""Drives FSA1's coordinator over Flower messages: one question per site and phase, one answer to each.

The machine decides everything (``privacy.secagg.coordinator``); this file carries bytes, closes a phase when everybody
has answered or the exchange's deadline is over, and turns the opened sum into an aggregate.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from privacy.errors import QuorumError
from privacy.secagg import coordinator, effects
from privacy.secagg.context import Durations, Roster, RoundContext, model_root, region_digest, thresholds
from privacy.secagg.suite import RealSuite
from server.exchange import Exchange
from server.rounds import Collected
from strategies.algorithm import Algorithm
from strategies.contribution import Vector
from strategies.messages import MASKED, SECAGG, RoundTask, SecureTask
from strategies.secure_sum import BITS, FRACTION_BITS, plan_digest, region, to_aggregate, values_digest
from strategies.task import SiteId


@dataclass(frozen=True)
class SecureCollector:
    """Collects a round's contributions as one masked sum; single updates never reach the server.

    Attributes:
      roster: Identity keys of the federation; every site has pinned the same.
      weights: Public whole-number weight per site.
      job: Digest of the settings every site agreed to, hex.
      federation: Name of the federation.
      run: Names the run in every context.
    """

    exchange: Exchange
    algorithm: Algorithm[object]
    roster: Roster
    weights: Mapping[SiteId, float]
    job: str
    federation: str
    run: str

    def collect(
        self, arrays: Mapping[str, Vector], tasks: Mapping[SiteId, RoundTask], number: int, attempt: int
    ) -> Collected:
        """Runs one attempt of FSA1. An abort is no survivors and a reason; nothing is opened then."""
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
        return self._collected(ended[0], tuple(tasks), reasons, arrays["model"].size)

    def _collected(
        self, end: effects.Finished | effects.Aborted, cohort: Sequence[SiteId], reasons: dict[SiteId, str], size: int
    ) -> Collected:
        if isinstance(end, effects.Aborted):
            why = f"secure aggregation aborted: {end.reason}"
            return Collected(None, (), {site: reasons.get(site, why) for site in cohort})
        survivors = tuple(site for site in cohort if site in end.survivors)
        aggregate = to_aggregate(end.sums[0], self.algorithm.declared, size, [self.weights[site] for site in survivors])
        missing = {site: reasons.get(site, "dropped out of the sum") for site in cohort if site not in survivors}
        return Collected(aggregate, survivors, missing)

    def _config(
        self, arrays: Mapping[str, Vector], cohort: tuple[SiteId, ...], number: int, attempt: int
    ) -> coordinator.CoordinatorConfig:
        size, declared = arrays["model"].size, self.algorithm.declared
        heaviest = max(int(self.weights[site]) for site in cohort)
        if any(self.weights[site] != int(self.weights[site]) for site in cohort):
            raise QuorumError("secure aggregation takes whole-number weights")
        whole = region(declared, size, cohort, heaviest)
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
            fraction_bits=FRACTION_BITS,
            regions=(whole,),
            model_root=model_root(plan_digest(declared, size), digests),
            job=bytes.fromhex(self.job),
            purpose="training",
            asset="training records",
            durations=Durations(seconds, seconds, seconds, seconds),
            fixed_set=False,
        )
        return coordinator.CoordinatorConfig(context, self.roster, digests, RealSuite())
