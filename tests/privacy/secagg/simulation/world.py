"""Runs the real coordinator and the real sites over a bad network, on a clock of its own, from one seed."""

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from privacy.secagg import coordinator
from privacy.secagg.context import RoundContext
from privacy.secagg.coordinator import CoordinatorConfig, CoordinatorState
from privacy.secagg.effects import (
    Aborted,
    Audit,
    Begin,
    Effect,
    Expired,
    Finished,
    ProtocolEvent,
    Received,
    Send,
    SendTo,
    Timer,
)
from privacy.secagg.wire import Message
from tests.privacy.secagg.simulation.oracle import Oracle
from tests.privacy.secagg.simulation.schedule import MAX_ATTEMPTS, Schedule, source
from tests.privacy.secagg.simulation.site import Site, Witness, read, site_map

PATIENCE = 1.0
"""Part of the time that the coordinator asks for, which is half of what sites wait (§7.1), that a phase lasts."""
RESEND = 15.0
"""Seconds between two repetitions of an unanswered message."""

Kind = Literal["to site", "to server", "site timer", "server timer", "resend", "restart"]


class Interference:
    """What an adversary does to messages that a world carries; this one does nothing.

    ``active`` sites obey it. It sees every message that leaves a party, and gives what is sent in its place.
    """

    active: frozenset[str] = frozenset()

    def begin(self, world: "World") -> None:
        """Is called once, before anything runs."""

    def to_site(self, world: "World", site: str, message: Message) -> Iterable[Message | bytes]:
        """Returns what the site gets."""
        del world, site
        return [message]

    def to_server(self, world: "World", site: str, message: Message) -> Iterable[Message | bytes]:
        """Returns what the coordinator gets from the site."""
        del world, site
        return [message]


Change = Callable[["World", str, Message], Iterable[Message | bytes]]


@dataclass
class Attempted:
    """One attempt of the coordinator."""

    context: RoundContext
    end: Finished | Aborted | None = None
    audits: list[tuple[str, str]] = field(default_factory=list)


class World:
    """All parties of one schedule.

    Attributes:
      schedule: What the seed decided.
      witness: Rules over all sites.
      sites: By id.
      attempts: Of the coordinator, in order.
      now: Seconds.
    """

    def __init__(
        self, schedule: Schedule, interference: Interference | None = None, *, patience: float = PATIENCE
    ) -> None:
        self.schedule = schedule
        self.interference = interference or Interference()
        self.patience = patience
        self.random = source("world", schedule.seed)
        self.oracle = Oracle(schedule.context(), self.interference.active)
        self.witness = Witness(self.oracle)
        self.sites: dict[str, Site] = site_map(schedule, self.witness, self._dies)
        self.attempts: list[Attempted] = []
        self.now = 0.0
        self._queue: list[tuple[float, int, Kind, str, bytes]] = []
        self._count = 0
        self._last: dict[str, bytes] = {}
        self.config: CoordinatorConfig = schedule.coordinator(schedule.context())
        self.state = CoordinatorState()
        self.interference.begin(self)

    @property
    def violations(self) -> list[str]:
        return self.oracle.violations

    @property
    def finished(self) -> list[Finished]:
        return [a.end for a in self.attempts if isinstance(a.end, Finished)]

    def run(self, attempts: int = MAX_ATTEMPTS) -> "World":
        """Runs all rounds, each with at most that many attempts."""
        for number in range(1, self.schedule.rounds + 1):
            for attempt in range(1, attempts + 1):
                self._attempt(self.schedule.context(number, attempt))
                if isinstance(self.attempts[-1].end, Finished):
                    break
        self._drain()
        return self

    def inject(self, kind: Literal["to site", "to server"], site: str, data: bytes) -> None:
        """Sends past the other end."""
        self._carry(kind, site, data)

    def _attempt(self, context: RoundContext) -> None:
        self.attempts.append(Attempted(context))
        self.config, self.state, self._last = self.schedule.coordinator(context), CoordinatorState(), {}
        self._server(Begin())
        self._later("resend", "", context.digest, RESEND)
        while self.attempts[-1].end is None:
            if not self._queue:
                self._server(Expired(self.state.phase))
                continue
            self._next()
            if self.random.random() < self.schedule.network.server_crash:
                self.attempts[-1].end = Aborted("the coordinator died")

    def _drain(self) -> None:
        """Delivers what is still under way: a late message must not do harm either."""
        for _ in range(10_000):
            if not self._queue:
                return
            self._next()

    def _next(self) -> None:
        self.now, _, kind, site, data = heapq.heappop(self._queue)
        live = self.attempts[-1].end is None
        match kind:
            case "to site":
                self._left(self.sites[site], self.sites[site].receive(data))
            case "site timer":
                self._left(self.sites[site], self.sites[site].expire(data.decode()))
            case "restart":
                self.sites[site].restart()
            case "to server" if live:
                self._server(Received(data, site))
            case "server timer" if live and data.startswith(self.config.context.digest):
                self._server(Expired(data[32:].decode()))
            case "resend" if live and data == self.config.context.digest:
                for asked in coordinator.awaited(self.config, self.state):
                    if asked in self._last:
                        self._carry("to site", asked, self._last[asked])
                self._later("resend", "", data, RESEND)
            case _:
                pass

    def _server(self, event: ProtocolEvent) -> None:
        before = self.state.phase
        self.state, effects = coordinator.step(self.config, self.state, event)
        if self.state.phase != before:
            self._last = {}
        for effect in effects:
            self._server_effect(effect)

    def _server_effect(self, effect: Effect) -> None:
        attempt = self.attempts[-1]
        match effect:
            case SendTo(site, data):
                for changed in self._interfered(self.interference.to_site, site, data):
                    self._last[site] = changed
                    self._carry("to site", site, changed)
            case Timer(seconds, phase):
                self._later("server timer", "", attempt.context.digest + phase.encode(), seconds * self.patience)
            case Audit(event, site, _):
                attempt.audits.append((event, site))
            case Finished():
                attempt.end = effect
                self._check_sum(attempt.context, effect)
            case Aborted():
                attempt.end = effect
            case _:
                pass

    def _check_sum(self, context: RoundContext, end: Finished) -> None:
        """Compares with Python integers; the survivors' inputs are what the schedule gave them."""
        own = {site: self.sites[site].own(context) for site in end.survivors}
        for k, total in end.sums.items():
            region = context.regions[k]
            held = [own[site].vectors[k] for site in end.survivors if site in region.holders]
            expected = [sum(int(vector[j]) for vector in held) for j in range(region.length)]
            if [int(value) for value in total] != expected:
                self.oracle.violation(f"the sum of region {k} is wrong")
        if end.transcript is None or set(end.sums) != set(end.transcript.active) or not end.sums:
            self.oracle.violation("the sums are not of the active regions")

    def _left(self, site: Site, left: Iterable[Send | Timer]) -> None:
        for effect in left:
            if isinstance(effect, Timer):
                self._later("site timer", site.name, effect.phase.encode(), effect.seconds)
                continue
            for changed in self._interfered(self.interference.to_server, site.name, effect.data):
                self._carry("to server", site.name, changed)
        if not site.up:
            self._later("restart", site.name, b"", self.random.uniform(1, 40))

    def _interfered(self, by: Change, site: str, data: bytes) -> Iterator[bytes]:
        message = None if type(self.interference) is Interference else read(data)
        if message is None:
            yield data
            return
        for changed in by(self, site, message):
            yield changed if isinstance(changed, bytes) else changed.encode()

    def _dies(self, where: str) -> bool:
        del where
        return self.random.random() < self.schedule.network.crash

    def _carry(self, kind: Literal["to site", "to server"], site: str, data: bytes) -> None:
        network = self.schedule.network
        for _ in range(1 + (self.random.random() < network.duplicate)):
            if self.random.random() >= network.drop:
                self._later(kind, site, data, self.random.uniform(0, network.delay))

    def _later(self, kind: Kind, site: str, data: bytes, seconds: float) -> None:
        self._count += 1
        heapq.heappush(self._queue, (self.now + seconds, self._count, kind, site, data))
