"""A server that keeps no rule: it shows different sites different sets, below every floor, and keeps what opens most.

It cannot forge the signatures of honest sites; the sites that obey it sign whatever it likes and give it their keys.
Every masked vector that was sent is in its hands, also of the sites that it calls dead.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from privacy.secagg.bindings import Bindings, leaf
from privacy.secagg.context import RoundContext
from privacy.secagg.effects import Send
from privacy.secagg.wire import Adv, Advert, Con, Forwarded, Fwd, Keys, Message, Msk, Shr, Sigs, Start, Surv
from tests.privacy.secagg.simulation.oracle import Oracle
from tests.privacy.secagg.simulation.schedule import MAX_ATTEMPTS, Schedule, signing_key, source
from tests.privacy.secagg.simulation.site import Site, Witness, read, site_map

_M = TypeVar("_M", bound=Message)
PLANS = (
    *("plain", "few U1", "few U2", "few U3", "split U1", "split U2", "split U3", "split U3", "mixed signatures"),
    *("isolate U1", "isolate U2", "isolate U3", "own keys", "few signatures", "twice"),
)
"""One of them is what the server tries in an attempt."""


@dataclass
class MaliciousServer:
    """One schedule under it.

    Attributes:
      schedule: What the seed decided.
      opened: Attempts in which at least ``t`` sites revealed their shares.
    """

    schedule: Schedule
    opened: int = 0
    plan: str = ""
    witness: Witness = field(init=False)
    sites: dict[str, Site] = field(init=False)
    random: Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = source("malicious", self.schedule.seed)
        self.witness = Witness(Oracle(self.schedule.context(), self.schedule.active))
        self.sites = site_map(self.schedule, self.witness, self._dies)

    @property
    def violations(self) -> list[str]:
        return self.witness.oracle.violations

    def run(self) -> "MaliciousServer":
        for number in range(1, self.schedule.rounds + 1):
            for attempt in range(1, MAX_ATTEMPTS + 1):
                self.plan = self.random.choice(PLANS)
                self._attempt(self.schedule.context(number, attempt))
        return self

    def _dies(self, where: str) -> bool:
        del where
        return self.random.random() < self.schedule.network.crash / 4

    def _attempt(self, context: RoundContext) -> None:
        self._open(context, *self._to_masks(context))

    def _to_masks(self, context: RoundContext) -> tuple[dict[str, Keys], tuple[str, ...]]:
        """Returns the KEYS that each site was given, and whose masked vectors came."""
        for down in self.sites.values():
            if not down.up:
                down.restart()
        digests = self.schedule.digests(context.attempt)
        starts = {}
        for site in context.cohort:
            held = context.held(site)
            others = {k: value for k, value in enumerate(digests) if k not in held}
            starts[site] = Start(context.digest, context.encode(), others)
        adverts = {m.sender: Advert(m.c, m.s, m.sig) for m in self._all(starts, Adv)}
        keys = self._keys(context, adverts)
        dealt = {m.sender: m for m in self._all(keys, Shr)}
        masked = [m.sender for m in self._all(self._forward(context, keys, dealt), Msk)]
        return keys, tuple(masked)

    def _keys(self, context: RoundContext, adverts: Mapping[str, Advert]) -> dict[str, Keys]:
        shown = self._told(context, tuple(adverts), "U1")
        out = {}
        for u, others in shown.items():
            entries = {v: adverts[v] for v in others}
            victim = self.random.choice(others)
            if self.plan == "own keys" and victim != u:
                entries[victim] = Advert(
                    self.random.randbytes(31) + b"\0", self.random.randbytes(31) + b"\0", bytes(64)
                )
            out[u] = Keys(context.digest, entries)
        return out

    def _forward(self, context: RoundContext, keys: Mapping[str, Keys], dealt: Mapping[str, Shr]) -> dict[str, Fwd]:
        out = {}
        for recipient, chosen in self._told(context, tuple(dealt), "U2").items():
            senders = {}
            for u in chosen:
                shr = dealt[u]
                if keys[u] == keys[recipient] and recipient in shr.to:
                    leaves = tuple(leaf(v, shr.to[v]) for v in sorted(shr.to))
                    senders[u] = Forwarded(shr.bcom, shr.to[recipient], leaves, shr.sig)
            out[recipient] = Fwd(context.digest, senders)
        return out

    def _open(self, context: RoundContext, keys: Mapping[str, Keys], masked: tuple[str, ...]) -> None:
        told = self._told(context, masked, "U3")
        if self.plan == "twice":
            self._all({u: Surv(context.digest, masked) for u in masked}, Con)
        cons = self._all({u: Surv(context.digest, seen) for u, seen in told.items()}, Con)
        revealed = 0
        for u, seen in told.items():
            same = self.plan != "mixed signatures"
            mine = {c.sender: c.sig for c in cons if c.sender in seen and (told[c.sender] == seen or not same)}
            message = Bindings(context.digest, keys[u].keys).survivors_message(seen)
            for ally in self.schedule.active & set(seen):
                mine[ally] = self.schedule.crypto.sign(signing_key(ally), message)
            if self.plan == "few signatures":
                mine = dict(sorted(mine.items())[: context.thresholds.t - 1])
            revealed += bool(self._give(u, Sigs(context.digest, mine)))
        self.opened += revealed >= context.thresholds.t

    def _told(self, context: RoundContext, sites: tuple[str, ...], phase: str) -> dict[str, tuple[str, ...]]:
        """Returns what set each of ``sites`` is told; each finds itself in its own."""
        groups = [sites]
        if self.plan == f"few {phase}":
            groups = [self._some(sites, self.random.randint(2, max(2, context.thresholds.min_survivors - 1)))]
        elif self.plan == f"isolate {phase}":
            groups = [self._isolating(context, sites)]
        elif self.plan == f"split {phase}" or (self.plan == "mixed signatures" and phase == "U3"):
            groups = [self._some(sites, self.random.randint(max(2, len(sites) - 2), max(2, len(sites)))) for _ in "12"]
        elif self.plan == "plain" and self.random.random() < 0.5:
            groups = [self._some(sites, self.random.randint(context.thresholds.min_survivors, 10))]
        told = {}
        for u in sites:
            fitting = [group for group in groups if u in group]
            if fitting:
                told[u] = tuple(sorted(self.random.choice(fitting)))
        return told

    def _some(self, sites: tuple[str, ...], count: int) -> tuple[str, ...]:
        return tuple(self.random.sample(sites, min(count, len(sites))))

    def _isolating(self, context: RoundContext, sites: tuple[str, ...]) -> tuple[str, ...]:
        """Leaves one active region with too few holders, and everybody else as they are."""
        active = context.active(sites)
        if not active:
            return sites
        holders = set(context.regions[self.random.choice(active)].holders) & set(sites)
        kept = self.random.sample(sorted(holders), self.random.randint(1, context.thresholds.min_cover - 1))
        return tuple(sorted((set(sites) - holders) | set(kept)))

    def _all(self, messages: Mapping[str, Message], kind: type[_M]) -> list[_M]:
        order = list(messages)
        self.random.shuffle(order)
        answers = [m for site in order for m in self._give(site, messages[site]) if isinstance(m, kind)]
        return sorted(answers, key=lambda m: getattr(m, "sender", ""))

    def _give(self, site: str, message: Message) -> list[Message]:
        left = self.sites[site].receive(message.encode())
        sent = [read(effect.data) for effect in left if isinstance(effect, Send)]
        return [answer for answer in sent if answer is not None]
