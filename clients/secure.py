"""Drives FSA1's client machine inside a ClientApp: trains first, then answers phase by phase.

Secrets live in this process and nowhere else; a process that did not see the beginning of an attempt refuses the rest
of it, and the site is a drop-out of that attempt. Records are durable before what they pay for leaves. What the server
sets in START is compared with what the site works out itself, so that no refusal that is free tells of its records.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from flwr.app import RecordDict

from privacy.errors import LocalProtocolError, RemoteProtocolError
from privacy.keys.signing import SigningKey
from privacy.secagg import client, effects, wire
from privacy.secagg.admission import ClientConfig, LocalInput
from privacy.secagg.context import Roster, RoundContext
from privacy.secagg.encoding import Entropy
from privacy.secagg.suite import RealSuite, fastest_keystream
from privacy.store.admissions import Admissions
from strategies.contribution import Declared, Vector
from strategies.regions import HeldRegion, Plan
from strategies.secure_sum import Encoding, Units, check_regions, in_region, plan_digest, values_digest

Release = Callable[[RecordDict], None]
"""Debits what is about to leave and remembers it in the message's state; raises if it cannot: then nothing leaves."""


@dataclass(frozen=True)
class Trained:
    """What a site masks, what it trained on, and how to pay for it.

    Attributes:
      units: Grid units by declared array, each of the site's ``h`` coordinates. Secret.
      arrays: What it trained on, by name, each of shape ``(h,)``.
      plan: Who holds what; the site's own copy.
      weight: The site's public weight, and
      encoding: what the integers stand for: together they bound an entry.
      noised: Whether noise is added to the sum, by the sites or by the server.
      share: Draws the site's share of the noise for a region, given its entries and the fewest of its holders that
        are sure to be in the sum; ``None`` for no noise.
    """

    units: Mapping[str, Units] = field(repr=False)
    arrays: Mapping[str, Vector]
    plan: Plan
    declared: Declared
    release: Release
    weight: int
    encoding: Encoding
    noised: bool = False
    share: Callable[[int, int], Units] | None = None

    def local_input(self, site: str, context: RoundContext) -> LocalInput:
        """Returns what the machine is fed: the regions of the context, cut by the site's own plan, freshly noised.

        Raises: RemoteProtocolError: The context's regions, blocks or bounds are not the plan's.
        """
        try:
            regions = check_regions(context, self.plan, self.declared, self.weight, self.encoding)
        except RemoteProtocolError as error:
            why = f"{site} agreed to another plan of who holds what, or of how it is summed: {error}"
            raise RemoteProtocolError(why, site_id=site, phase="train") from None
        held, mine = self.plan.held_by(site), context.held(site)
        return LocalInput(
            {k: self._vector(held, regions[k], context) for k in mine},
            plan_digest(self.plan, self.declared),
            {
                k: values_digest({name: in_region(array, held, regions[k]) for name, array in self.arrays.items()})
                for k in mine
            },
            self.noised,
        )

    def _vector(self, held: npt.NDArray[np.int64], region: HeldRegion, context: RoundContext) -> Units:
        units = np.concatenate([in_region(self.units[name], held, region) for name in self.declared.arrays])
        if self.share is None:
            return units
        floors, n = context.thresholds, len(context.cohort)
        sure = max(floors.min_cover, len(region.holders) - (n - floors.min_survivors))
        # Fresh for every attempt, and for the fewest holders that its signed context lets into the sum.
        return units + self.share(units.size, sure)


@dataclass
class _Attempt:
    ctx: bytes
    config: ClientConfig
    state: client.ClientState
    release: Release
    until: float
    waits_for: str


@dataclass
class SecureSite:
    """A site's part in secure aggregation; one per process and run.

    What a machine remembers is secret and must not outlive its attempt: whoever holds this calls ``expire`` every few
    seconds, since a server that falls silent sends nothing that would.

    Attributes:
      key: Own identity key.
      roster: Pinned identity keys.
      admissions: Durable record of attempts.
      clock: Monotonic seconds.
      admits: Raises unless a context is one of the run that this site was invited to; ``None`` in a simulation.
    """

    site: str
    key: SigningKey = field(repr=False)
    roster: Roster
    admissions: Admissions
    clock: Callable[[], float]
    admits: Callable[[RoundContext], None] | None = None
    _live: dict[bytes, _Attempt] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def start(
        self,
        data: bytes,
        trained: Trained,
        state: RecordDict,
        *,
        paid: tuple[int, int],
        most: int,
        job: str,
        entropy: Entropy,
    ) -> bytes:
        """Answers START, after training (docs/protocol.md §3.0, §3.1).

        Args:
          data: START; untrusted.
          trained: What is masked.
          state: Of the message; remembers the attempt once it is paid for.
          paid: Round and attempt that ``trained`` pays for.
          most: Attempts that the site takes part in, over the whole run.
          job: Digest of the settings, hex.
          entropy: Randomness of keys and masks.

        Returns: The ADV message.
        Raises: RemoteProtocolError: The context is not one this site takes part in, of another attempt than is paid, or
          of one too many.
        """
        context = self._context(data)
        if (context.round, context.attempt) != paid:
            raise self._refusal("is to sign another attempt than it trained and would pay for")
        if self.admissions.count(self.site, context.run) >= most:
            raise self._refusal(f"agreed to {most} attempts in this run, and has taken part in as many")
        if self.admits is not None:
            self.admits(context)
        admitted = {context.run: self.admissions.last(self.site, context.run)}
        config = ClientConfig(
            self.site,
            self.key,
            self.roster,
            bytes.fromhex(job),
            admitted,
            entropy,
            RealSuite(fastest_keystream(time.perf_counter)),
        )
        own = client.idle(trained.local_input(self.site, context))
        attempt = _Attempt(context.digest, config, own, trained.release, float("inf"), "")
        with self._lock:
            answer = self._advance(attempt, data, state)
            self._live = {attempt.ctx: attempt}  # an older attempt is over: its secrets go
        return answer

    def repeated(self, data: bytes) -> bytes:
        """Returns what answered this very START before, or nothing if it is a new one (docs/protocol.md §3).

        Raises: RemoteProtocolError: It was answered, and the attempt has gone on since.
        """
        mark = hashlib.sha256(data).digest()
        with self._lock:
            self._expire()
            before = [each.state for each in self._live.values() if mark in each.state.accepted]
        if not before:
            return b""
        if before[0].accepted[-1] != mark:
            raise self._refusal("has answered that, and the attempt has gone on since")
        return before[0].reply

    def expire(self) -> None:
        """Erases what attempts remember whose next message is overdue (docs/protocol.md §5)."""
        with self._lock:
            self._expire()

    def _expire(self) -> None:
        now = self.clock()
        for ctx, attempt in tuple(self._live.items()):
            if now > attempt.until:
                expired = effects.Expired(attempt.waits_for)
                attempt.state, _ = client.step(attempt.config, attempt.state, expired)
                del self._live[ctx]

    def _context(self, data: bytes) -> RoundContext:
        start = wire.decode(data)
        if not isinstance(start, wire.Start):
            raise self._refusal("begins secure aggregation with START")
        return RoundContext.decode(start.context)

    def _refusal(self, why: str) -> RemoteProtocolError:
        return RemoteProtocolError(f"{self.site} {why}", site_id=self.site, phase="train")

    def answer(self, data: bytes, state: RecordDict) -> bytes:
        """Answers KEYS, FWD, SURV or SIGS. Raises: RemoteProtocolError: Refused; the attempt is over for this site."""
        message = wire.decode(data, limit=2**30)
        with self._lock:
            self._expire()
            attempt = self._live.get(message.ctx)
            if attempt is None:
                raise RemoteProtocolError(
                    f"{self.site} holds no such attempt (aborted, or begun in another process)", phase="secagg"
                )
            return self._advance(attempt, data, state)

    def _advance(self, attempt: _Attempt, data: bytes, state: RecordDict) -> bytes:
        attempt.state, out = client.step(attempt.config, attempt.state, effects.Received(data))
        answer = b""
        for effect in out:
            match effect:
                case effects.Persist(record):
                    self._persist(attempt, record, state)
                case effects.Send(sent):
                    answer = sent
                case effects.Timer(seconds, phase):
                    attempt.until, attempt.waits_for = self.clock() + seconds, phase
                case effects.Aborted(reason):
                    raise RemoteProtocolError(f"{self.site} aborted: {reason}", site_id=self.site, phase="secagg")
                case _:
                    pass
        if not answer:
            raise RemoteProtocolError(f"{self.site} has nothing to say to that", site_id=self.site, phase="secagg")
        return answer

    def _persist(self, attempt: _Attempt, record: effects.Attempt | effects.Debit, state: RecordDict) -> None:
        """Writes a record down; if that fails the machine is dropped, so that no cached answer can leave."""
        try:
            if isinstance(record, effects.Attempt):
                self.admissions.admit(self.site, record)
            else:
                attempt.release(state)
        except Exception as error:
            attempt.state, _ = client.step(attempt.config, attempt.state, effects.Persisted(ok=False))
            self._live.pop(attempt.ctx, None)
            raise LocalProtocolError(f"{self.site} could not write a record down: nothing left") from error
