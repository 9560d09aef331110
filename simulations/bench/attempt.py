"""One attempt of secure aggregation in this process, real machines and real cryptography, weighed party by party."""

import secrets
import time
import tracemalloc
from collections import deque

import numpy as np
from numpy.typing import NDArray

from privacy.errors import LocalProtocolError
from privacy.keys.signing import SigningKey
from privacy.secagg import client, coordinator
from privacy.secagg.admission import ClientConfig, LocalInput
from privacy.secagg.context import Block, Durations, Region, Roster, RoundContext, model_root, region_digest, thresholds
from privacy.secagg.effects import Aborted, Begin, Expired, Finished, ProtocolEvent, Received, Send, SendTo
from privacy.secagg.ring import quantise
from privacy.secagg.suite import RealSuite, fastest_keystream

CLIP = 8.0
FRACTION_BITS = 18
BOUND = 2**21
"""Entries in [-8, 8] on a grid of 2^-18: that of Flower's defaults."""
DIGEST = bytes(32)
"""Stands for every digest that a benchmark has nothing to say about."""
KEYSTREAM = fastest_keystream(time.perf_counter)
SUITE = RealSuite(KEYSTREAM)


def site_ids(n: int) -> tuple[str, ...]:
    """Returns ``n`` site ids, sorted."""
    return tuple(f"site-{place:03d}" for place in range(n))


def rounded(update: NDArray[np.float32]) -> NDArray[np.int64]:
    """Clips ``update`` in place and rounds it stochastically, coins from AES-256-CTR."""
    np.clip(update, -CLIP, CLIP, out=update)
    return quantise(
        update, fraction_bits=FRACTION_BITS, bound=BOUND, rounding="stochastic", entropy=secrets.token_bytes
    )


def agreed(cohort: tuple[str, ...], roster: Roster, d: int, bits: int) -> RoundContext:
    """Returns a context with one region of ``d`` entries that everybody holds."""
    root = model_root(DIGEST, [region_digest(0, d, cohort, DIGEST)])
    return RoundContext(
        federation="bench", run=bytes(16), round=1, attempt=1, roster=roster.digest, cohort=cohort,
        thresholds=thresholds(len(cohort)), bits=bits, fraction_bits=FRACTION_BITS,
        regions=(Region(cohort, (Block(d, BOUND),)),), model_root=root, job=DIGEST, purpose="bench", asset="none",
        durations=Durations(60, 60, 60, 60), fixed_set=False,
    )  # fmt: skip


class Attempt:
    """``n`` sites with ``d`` entries each; the last ``lost`` vanish before MSK.

    Attributes:
      client_cpu: CPU seconds by site, rounding included.
      server_cpu: CPU seconds of the coordinator, all phases.
      sent: Bytes by site, all phases.
      server_peak: Most bytes that the coordinator held at once, the message at hand included; 0 unless traced.
      finished: Survivors and sum.
    """

    def __init__(self, n: int, d: int, bits: int, *, lost: int = 0, traced: bool = False) -> None:
        """Prepares the sites."""
        cohort = site_ids(n)
        self.client_cpu = dict.fromkeys(cohort, 0.0)
        self.server_cpu = 0.0
        self.sent = dict.fromkeys(cohort, 0)
        self.server_peak = self._held = 0
        self.finished = Finished(())
        self._lost = frozenset(cohort[n - lost :])
        self._traced = traced
        keys = {site: SigningKey(secrets.token_bytes(32)) for site in cohort}
        roster = Roster(1, {site: key.public_key for site, key in keys.items()})
        self._server = coordinator.CoordinatorConfig(
            agreed(cohort, roster, d, bits), roster, (region_digest(0, d, cohort, DIGEST),), SUITE
        )
        self._state = coordinator.CoordinatorState()
        self._configs = {
            site: ClientConfig(site, key, roster, DIGEST, {}, secrets.token_bytes, SUITE) for site, key in keys.items()
        }
        self._inputs = {site: self._input(site, place, d) for place, site in enumerate(cohort)}
        self._states = {
            site: client.idle(LocalInput({0: units}, DIGEST, {0: DIGEST})) for site, units in self._inputs.items()
        }

    def run(self) -> "Attempt":
        """Runs it to the end.

        Raises: LocalProtocolError: No sum, or another than the survivors' sum in plain integers.
        """
        if self._traced:
            tracemalloc.start()
        try:
            self._run()
        finally:
            tracemalloc.stop()
        expected = sum(self._inputs[site] for site in self.finished.survivors)
        if not self.finished.survivors or not np.array_equal(self.finished.sums[0], expected):
            raise LocalProtocolError("the sum is not that of the survivors")
        return self

    def _run(self) -> None:
        phases = coordinator.Phase
        queue = deque(self._serve(Begin()))
        while queue or self._state.phase not in {phases.FINISHED, phases.ABORTED}:
            if not queue:
                queue.extend(self._serve(Expired(self._state.phase)))
                continue
            sent = queue.popleft()
            if not (sent.site in self._lost and self._state.phase is phases.MSK):
                queue.extend(self._serve(Received(self._answer(sent), sent.site)))

    def _answer(self, sent: SendTo) -> bytes:
        start = time.process_time()
        self._states[sent.site], effects = client.step(
            self._configs[sent.site], self._states[sent.site], Received(sent.data)
        )
        self.client_cpu[sent.site] += time.process_time() - start
        (data,) = (effect.data for effect in effects if isinstance(effect, Send))
        self.sent[sent.site] += len(data)
        return data

    def _serve(self, event: ProtocolEvent) -> list[SendTo]:
        before = 0
        if self._traced:
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            if isinstance(event, Received):
                # A copy, so that the message counts as the server's, and counts on if the server keeps it.
                event = Received(memoryview(event.data).tobytes(), event.sender)
        start = time.process_time()
        self._state, effects = coordinator.step(self._server, self._state, event)
        self.server_cpu += time.process_time() - start
        del event
        if self._traced:
            after, peak = tracemalloc.get_traced_memory()
            self.server_peak = max(self.server_peak, self._held + peak - before)
            self._held += after - before
        for effect in effects:
            if isinstance(effect, Finished):
                self.finished = effect
            elif isinstance(effect, Aborted):
                raise LocalProtocolError(effect.reason)
        return [effect for effect in effects if isinstance(effect, SendTo)]

    def _input(self, site: str, place: int, d: int) -> NDArray[np.int64]:
        update = np.random.default_rng(place).standard_normal(d, dtype=np.float32)
        start = time.process_time()
        units = rounded(update)
        self.client_cpu[site] += time.process_time() - start
        return units
