"""A cohort and its coordinator in one process: messages in a queue, any of them lost or changed on the way."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from privacy.keys.signing import SigningKey
from privacy.secagg import client, coordinator
from privacy.secagg.admission import ClientConfig, LocalInput, SitePolicy
from privacy.secagg.context import (
    Block,
    Durations,
    Region,
    Roster,
    RoundContext,
    Thresholds,
    model_root,
    region_digest,
    thresholds,
)
from privacy.secagg.effects import (
    Aborted,
    Audit,
    Begin,
    Effect,
    Expired,
    Finished,
    Persist,
    Received,
    Send,
    SendTo,
)
from privacy.secagg.encoding import Entropy
from privacy.secagg.suite import RealSuite
from privacy.secagg.wire import Message, decode

PLAN = hashlib.sha256(b"plan").digest()
JOB = hashlib.sha256(b"job").digest()
RUN = bytes(range(16))


def seeded(*seed: object) -> Entropy:
    """A fixed source of bytes: the n-th draw is SHAKE-256 of the seed and n."""
    count = 0

    def entropy(size: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_256(repr((seed, count)).encode()).digest(size)

    return entropy


def site_ids(n: int) -> tuple[str, ...]:
    return tuple(sorted(f"site-{i}" for i in range(1, n + 1)))


def identity(site: str) -> SigningKey:
    return SigningKey(hashlib.sha256(site.encode()).digest())


def values_digest(k: int) -> bytes:
    return hashlib.sha256(f"values of region {k}".encode()).digest()


def whole(cohort: tuple[str, ...]) -> tuple[Region, ...]:
    """One region that everybody holds."""
    return (Region(cohort, (Block(37, 1000), Block(5, 2**20))),)


@dataclass
class Parties:
    """All parties of one attempt; every field may be changed before ``exchange``."""

    context: RoundContext
    roster: Roster
    inputs: dict[str, LocalInput]
    configs: dict[str, ClientConfig]
    states: dict[str, client.ClientState]
    server: coordinator.CoordinatorConfig
    server_state: coordinator.CoordinatorState = field(default_factory=coordinator.CoordinatorState)

    def oracle(self, survivors: Iterable[str]) -> dict[int, list[int]]:
        """Sums in Python integers."""
        sums = {}
        for k, region in enumerate(self.context.regions):
            held = [self.inputs[site].vectors[k] for site in survivors if site in region.holders]
            if held:
                sums[k] = [sum(int(vector[j]) for vector in held) for j in range(region.length)]
        return sums


def parties(
    n: int = 4,
    *,
    regions: Callable[[tuple[str, ...]], tuple[Region, ...]] = whole,
    limits: Thresholds | None = None,
    bits: int = 32,
    suite: RealSuite | None = None,
    fixed_set: bool = False,
    attempt: int = 1,
    policy: SitePolicy | None = None,
    seed: object = 0,
) -> Parties:
    cohort = site_ids(n)
    crypto = suite or RealSuite()
    roster = Roster(1, {site: identity(site).public_key for site in (*cohort, "spare")})
    cut = regions(cohort)
    digests = tuple(region_digest(k, r.length, r.holders, values_digest(k)) for k, r in enumerate(cut))
    context = RoundContext(
        federation="test", run=RUN, round=1, attempt=attempt, roster=roster.digest, cohort=cohort,
        thresholds=limits or thresholds(n), bits=bits, fraction_bits=8, regions=cut,
        model_root=model_root(PLAN, digests), job=JOB, purpose="a test", asset="numbers",
        durations=Durations(60, 61, 62, 63), fixed_set=fixed_set,
    )  # fmt: skip
    rng = np.random.default_rng(7)
    inputs = {site: random_input(context, site, rng) for site in cohort}
    configs = {
        site: ClientConfig(site, identity(site), roster, JOB, {}, seeded(seed, site), crypto, policy or SitePolicy())
        for site in cohort
    }
    states = {site: client.idle(inputs[site]) for site in cohort}
    return Parties(
        context, roster, inputs, configs, states, coordinator.CoordinatorConfig(context, roster, digests, crypto)
    )


def random_input(context: RoundContext, site: str, rng: np.random.Generator) -> LocalInput:
    held = context.held(site)
    vectors: dict[int, NDArray[np.int64]] = {}
    for k in held:
        blocks = context.regions[k].blocks
        vectors[k] = np.concatenate([rng.integers(-b.bound, b.bound, b.length, endpoint=True) for b in blocks])
    return LocalInput(vectors, PLAN, {k: values_digest(k) for k in held})


Change = Callable[[str, Message], "Message | bytes | None"]
"""Gets the other end (the site) and a message; returns what arrives, or None if it is lost."""


def unchanged(site: str, message: Message) -> Message:
    del site
    return message


@dataclass
class Log:
    """What happened."""

    sent: list[tuple[str, bytes]] = field(default_factory=list)
    effects: dict[str, list[Effect]] = field(default_factory=dict)

    @property
    def finished(self) -> Finished | None:
        return next((e for e in self.effects.get("", []) if isinstance(e, Finished)), None)

    def aborted(self, party: str = "") -> Aborted | None:
        return next((e for e in self.effects.get(party, []) if isinstance(e, Aborted)), None)

    def audits(self, party: str = "") -> list[tuple[str, str]]:
        return [(e.event, e.site) for e in self.effects.get(party, []) if isinstance(e, Audit)]

    def kinds(self, site: str) -> list[str]:
        """What a site sent, in order."""
        return [decode(e.data, limit=2**30).kind for e in self.effects.get(site, []) if isinstance(e, Send)]

    def records(self, site: str) -> list[str]:
        return [type(e.record).__name__ for e in self.effects.get(site, []) if isinstance(e, Persist)]


def lose(dead: Mapping[str, str]) -> Change:
    """Sites that die with the message of that kind: it and everything later is lost."""
    order = ["ADV", "SHR", "MSK", "CON", "UNM"]

    def change(site: str, message: Message) -> Message | None:
        gone = site in dead and message.kind in order and order.index(message.kind) >= order.index(dead[site])
        return None if gone else message

    return change


def exchange(all_of: Parties, change: Change = unchanged) -> Log:
    """Runs the attempt; a phase expires at the server when nothing is under way."""
    log = Log()
    queue: deque[tuple[str, str, bytes]] = deque()

    def carry(effects: Iterable[Effect], party: str) -> None:
        for effect in effects:
            log.effects.setdefault(party, []).append(effect)
            if isinstance(effect, Send | SendTo):
                site = effect.site if isinstance(effect, SendTo) else party
                log.sent.append((party, effect.data))
                arrives = change(site, decode(effect.data, limit=2**30))
                if arrives is not None:
                    data = arrives if isinstance(arrives, bytes) else arrives.encode()
                    queue.append((party, site, data))

    all_of.server_state, effects = coordinator.step(all_of.server, all_of.server_state, Begin())
    carry(effects, "")
    while log.finished is None and log.aborted() is None:
        if not queue:
            event: Expired | Received = Expired(all_of.server_state.phase)
            all_of.server_state, effects = coordinator.step(all_of.server, all_of.server_state, event)
            carry(effects, "")
            continue
        party, site, data = queue.popleft()
        if party:
            event = Received(data, site)
            all_of.server_state, effects = coordinator.step(all_of.server, all_of.server_state, event)
            carry(effects, "")
        else:
            all_of.states[site], effects = client.step(all_of.configs[site], all_of.states[site], Received(data))
            carry(effects, site)
    return log
