"""A site's process around the real machine: a store that survives, memory that does not, and what must never happen."""

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, cast

from privacy.errors import RemoteProtocolError
from privacy.secagg import client
from privacy.secagg.admission import ClientConfig, LocalInput, SitePolicy
from privacy.secagg.client import ClientState, Phase
from privacy.secagg.context import RoundContext
from privacy.secagg.effects import (
    Aborted,
    Attempt,
    Audit,
    Debit,
    Effect,
    Expired,
    Finished,
    Persist,
    Persisted,
    ProtocolEvent,
    Received,
    Send,
    Timer,
)
from privacy.secagg.encoding import Entropy
from privacy.secagg.masks import KeyStream
from privacy.secagg.suite import RealSuite
from privacy.secagg.wire import Adv, Advert, Con, Fwd, Keys, Message, Msk, Shr, Start, Unm, decode
from tests.privacy.secagg.parties import JOB
from tests.privacy.secagg.simulation.oracle import Machine, Oracle
from tests.privacy.secagg.simulation.schedule import Schedule, roster, signing_key


@dataclass
class Witness:
    """What all sites did, for the rules that no single machine can see.

    Attributes:
      oracle: Where openings and violations go.
      streams: Who opened the keystream of a key.
      sealed: How often a key sealed.
      adverts: Different ADV of one site for one attempt.
      cons: Different CON of one site for one context.
      survivors: The sets with which sites of one context reached UNM.
    """

    oracle: Oracle
    streams: dict[bytes, list[str]] = field(default_factory=dict)
    sealed: Counter[bytes] = field(default_factory=Counter)
    adverts: dict[tuple[str, Attempt], set[bytes]] = field(default_factory=dict)
    cons: dict[tuple[str, bytes], set[bytes]] = field(default_factory=dict)
    survivors: dict[bytes, set[tuple[str, ...]]] = field(default_factory=dict)

    def stream(self, site: str, key: bytes) -> None:
        users = self.streams.setdefault(key, [])
        users.append(site)
        if len(users) > 2 or len(set(users)) < len(users):
            self.oracle.violation(f"a keystream key is used again by {site}")

    def seal(self, key: bytes) -> None:
        self.sealed[key] += 1
        if self.sealed[key] > 1:
            self.oracle.violation("a key seals twice")

    def advertises(self, site: str, attempt: Attempt, data: bytes) -> bool:
        """Tells whether this is the only ADV of the attempt."""
        seen = self.adverts.setdefault((site, attempt), set())
        seen.add(data)
        return len(seen) == 1

    def signs(self, site: str, ctx: bytes, data: bytes) -> None:
        seen = self.cons.setdefault((site, ctx), set())
        seen.add(data)
        if len(seen) > 1:
            self.oracle.violation(f"{site} signs two sets of survivors")

    def finished(self, ctx: bytes, survivors: tuple[str, ...]) -> None:
        seen = self.survivors.setdefault(ctx, set())
        seen.add(survivors)
        if len(seen) > 1:
            self.oracle.violation("two honest sites reach UNM with different survivors")


class Tap:
    """A suite that tells the witness about every key that makes a stream or seals a message."""

    def __init__(self, inner: RealSuite, site: str, witness: Witness) -> None:
        self._inner, self._site, self._witness = inner, site, witness
        self.streams = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def seal(self, key: bytes, plaintext: bytes, associated: bytes) -> bytes:
        self._witness.seal(key)
        return self._inner.seal(key, plaintext, associated)

    def stream(self, key: bytes) -> KeyStream:
        self.streams += 1
        self._witness.stream(self._site, key)
        return self._inner.stream(key)


@dataclass
class Store:
    """What survives a crash."""

    attempts: tuple[Attempt, ...] = ()
    debits: tuple[Debit, ...] = ()

    def admitted(self) -> dict[bytes, tuple[int, int]]:
        highest: dict[bytes, tuple[int, int]] = {}
        for record in self.attempts:
            highest[record.run] = max(highest.get(record.run, (0, 0)), (record.round, record.attempt))
        return highest

    def write(self, record: Attempt | Debit) -> bool:
        """Returns False if the record is there already: it is unique."""
        if isinstance(record, Attempt):
            fresh = record not in self.attempts
            self.attempts += (record,) * fresh
        else:
            fresh = record not in self.debits
            self.debits += (record,) * fresh
        return fresh


@dataclass
class _Running:
    config: ClientConfig
    state: ClientState
    truth: Machine
    tap: Tap
    sent: bytes = b""


def never(_: str) -> bool:
    return False


@dataclass
class Site:
    """One site. ``receive`` and ``expire`` return what left the process, in order.

    Attributes:
      name: Site id.
      schedule: Of the world.
      witness: Of the world.
      dies: Asked before every effect and behind every record whether the process dies there.
      inputs: Own inputs by context, where they are not those of the schedule.
    """

    name: str
    schedule: Schedule
    witness: Witness
    dies: Callable[[str], bool] = never
    store: Store = field(default_factory=Store)
    up: bool = True
    lives: int = 0
    inputs: Callable[[RoundContext], LocalInput] | None = None
    log: list[Effect] = field(default_factory=list)
    machines: dict[bytes, _Running] = field(default_factory=dict)

    def receive(self, data: bytes) -> list[Send | Timer]:
        if not self.up:
            return []
        message = read(data)
        if isinstance(message, Start) and message.ctx not in self.machines:
            fresh = self._machine(message)
            if fresh is not None:
                self.machines[message.ctx] = fresh
        known = None if message is None else self.machines.get(message.ctx)
        left: list[Send | Timer] = []
        for running in [known] if known else tuple(self.machines.values()):
            left += self._step(running, Received(data), message)
            if not self.up:
                break
        return left

    def expire(self, phase: str) -> list[Send | Timer]:
        left: list[Send | Timer] = []
        for running in tuple(self.machines.values()):
            left += self._step(running, Expired(phase), None)
        return left

    def restart(self) -> None:
        """Starts again with nothing but the store."""
        self.up, self.lives = True, self.lives + 1

    def crash(self) -> None:
        self.up = False
        self.machines = {}

    def own(self, context: RoundContext) -> LocalInput:
        return self.inputs(context) if self.inputs else self.schedule.own(self.name, context)

    def aborted(self) -> Aborted | None:
        return next((e for e in self.log if isinstance(e, Aborted)), None)

    def kinds(self) -> list[str]:
        """Returns what it sent, in order."""
        sent = [read(effect.data) for effect in self.log if isinstance(effect, Send)]
        return [message.kind for message in sent if message is not None]

    def _machine(self, message: Start) -> _Running | None:
        try:
            context = RoundContext.decode(message.context)
        except RemoteProtocolError:
            context = self.schedule.context()  # the machine refuses it; what it would have trained on is of no matter
        own = self.own(context)
        names = self.schedule.kept(context.attempt)
        zero = frozenset(k for k, vector in own.vectors.items() if not vector.any())
        truth = Machine(self.name, self.schedule.input_id(context), context, names, zero)
        tap = Tap(self.schedule.crypto, self.name, self.witness)
        config = ClientConfig(
            self.name, signing_key(self.name), roster(len(self.schedule.cohort)), JOB, self.store.admitted(),
            self._entropy(truth), cast("RealSuite", tap),
            SitePolicy(n_c=self.schedule.limits.n_c, fixed_set=self.schedule.fixed_set),
        )  # fmt: skip
        return _Running(config, client.idle(own), truth, tap)

    def _entropy(self, truth: Machine) -> Entropy:
        seed = (self.schedule.seed, self.name, self.lives, truth.context.digest)

        def entropy(size: int) -> bytes:
            truth.draws.append(hashlib.shake_256(repr((seed, len(truth.draws))).encode()).digest(size))
            return truth.draws[-1]

        return entropy

    def _step(self, running: _Running, event: ProtocolEvent, message: Message | None) -> list[Send | Timer]:
        before = running.state.phase
        running.state, effects = client.step(running.config, running.state, event)
        left: list[Send | Timer] = []
        for effect in effects:
            if self.dies(f"before {type(effect).__name__}"):
                self.crash()
                break
            self.log.append(effect)
            match effect:
                case Persist(record):
                    if not self.store.write(record):
                        self._step(running, Persisted(ok=False), None)
                        break
                    if self.dies("behind Persist"):
                        self.crash()
                        break
                case Send(data):
                    self._sends(running, before, data, message)
                    left.append(effect)
                case Timer():
                    left.append(effect)
                case Finished(survivors):
                    self.witness.finished(running.truth.context.digest, survivors)
                case _:
                    pass
        return left

    def _sends(self, running: _Running, before: Phase, data: bytes, accepted: Message | None) -> None:
        violation = self.witness.oracle.violation
        if before is Phase.ABORTED or (before is Phase.DONE and data != running.sent):
            violation(f"{self.name} sends after it was {before}")
        if data != running.sent:
            running.sent = data
            self._first(running, data, accepted)

    def _first(self, running: _Running, data: bytes, accepted: Message | None) -> None:
        violation = self.witness.oracle.violation
        truth, oracle = running.truth, self.witness.oracle
        context = truth.context
        attempt = Attempt(context.run, context.round, context.attempt)
        match read(data), accepted:
            case Adv(c=c, s=s, sig=sig), Start():
                if not self.witness.advertises(self.name, attempt, data) or attempt not in self.store.attempts:
                    violation(f"{self.name} advertises an attempt again, or one that it has not written down")
                oracle.advertised(truth, Advert(c, s, sig))
            case Shr(), Keys(keys=keys):
                oracle.dealt(truth, keys)
            case Msk(y=y), Fwd(senders=senders):
                self._masks(running, tuple(senders), tuple(y))
            case Con(), _:
                self.witness.signs(self.name, context.digest, data)
            case Unm(shares=shares), _:
                oracle.revealed(truth, shares.values())
            case sent, _:
                violation(f"{self.name} sends {sent} out of turn")

    def _masks(self, running: _Running, u2: tuple[str, ...], regions: tuple[int, ...]) -> None:
        context = running.truth.context
        if not any(debit.ctx == context.digest for debit in self.store.debits):
            self.witness.oracle.violation(f"{self.name} sends a masked vector that it was not debited for")
        peers = {u for k in regions for u in context.regions[k].holders if u in u2} - {self.name}
        if running.tap.streams != 1 + len(peers):
            self.witness.oracle.violation(f"{self.name} uses {running.tap.streams} masks, not {1 + len(peers)}")
        self.witness.oracle.masked(running.truth, u2, regions)

    def audits(self) -> list[tuple[str, str]]:
        return [(e.event, e.site) for e in self.log if isinstance(e, Audit)]


@lru_cache(maxsize=512)
def read(data: bytes) -> Message | None:
    """Returns the message, or None if it is none."""
    try:
        return decode(data, limit=2**30)
    except RemoteProtocolError:
        return None


def site_map(schedule: Schedule, witness: Witness, dies: Callable[[str], bool] = never) -> dict[str, Site]:
    return {name: Site(name, schedule, witness, dies) for name in schedule.cohort}
