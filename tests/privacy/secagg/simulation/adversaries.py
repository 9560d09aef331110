"""Scripted adversaries against keys, shares, contexts and messages, each with the outcome that it must have.

A script changes what the real coordinator and the real sites send. ``active`` sites obey it: it signs in their name.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from privacy.keys.agreement import Secret
from privacy.secagg.bindings import advert_message, leaf
from privacy.secagg.context import Block, Region, Thresholds, thresholds
from privacy.secagg.wire import Adv, Advert, Forwarded, Fwd, Keys, Message, Shr
from tests.privacy.secagg.parties import site_ids
from tests.privacy.secagg.simulation.schedule import Schedule, signing_key
from tests.privacy.secagg.simulation.world import Change, Interference, World

COHORT = site_ids(7)
CULPRIT, VICTIM, LAST = "site-2", "site-6", "site-7"
OTHERS = frozenset(COHORT) - {CULPRIT}
NARROW = COHORT[:5]
"""Holders of the region that not everybody holds; it can spare one of them."""


@dataclass
class Script(Interference):
    """An adversary of two functions."""

    site: Change | None = None
    server: Change | None = None
    active: frozenset[str] = frozenset()

    def to_site(self, world: World, site: str, message: Message) -> Iterable[Message | bytes]:
        return self.site(world, site, message) if self.site else [message]

    def to_server(self, world: World, site: str, message: Message) -> Iterable[Message | bytes]:
        return self.server(world, site, message) if self.server else [message]


@dataclass(frozen=True)
class Case:
    """An attack and what must come of it.

    Attributes:
      name: Of the attack.
      script: Makes the adversary; it may have a memory.
      survivors: Whom the exact sum is over; None if the attempt must abort.
      dropped: Whom the coordinator names, and how.
      stopped: Sites that must have aborted, and whom they name.
      unsent: Kind of message that the sites that stopped must not have sent; the refusal comes in time.
      schedule: Without it, the usual one.
    """

    name: str
    script: Callable[[], Interference]
    survivors: frozenset[str] | None = None
    dropped: frozenset[tuple[str, str]] = frozenset()
    stopped: Mapping[str, str] = field(default_factory=dict)
    schedule: Schedule | None = None
    unsent: str = ""


def quiet(
    *,
    limits: Thresholds | None = None,
    regions: tuple[Region, ...] | None = None,
    fixed_set: bool = False,
    rounds: int = 1,
    run: bytes = bytes(16),
) -> Schedule:
    """Seven sites of which two may collude, real cryptography, a perfect network."""
    cut = regions or (Region(COHORT, (Block(5, 1000),)), Region(NARROW, (Block(3, 9), Block(2, 2**20))))
    return Schedule(1, "real", COHORT, limits or thresholds(7), cut, fixed_set=fixed_set, rounds=rounds, run=run)


def every(*sites: str, names: str = "") -> dict[str, str]:
    return dict.fromkeys(sites or COHORT, names)


def without(*sites: str) -> frozenset[str]:
    return frozenset(COHORT) - set(sites)


def at(kind: type[Message], change: Callable[[World, str, Message], Message | None], *sites: str) -> Change:
    """Changes messages of one kind to or from some sites (all, if none are named); None loses the message."""

    def changed(world: World, site: str, message: Message) -> list[Message | bytes]:
        if not isinstance(message, kind) or (sites and site not in sites):
            return [message]
        out = change(world, site, message)
        return [] if out is None else [out]

    return changed


def only_site(kind: type[Message], change: Callable[[World, str, Message], Message | None], *sites: str) -> Script:
    return Script(site=at(kind, change, *sites))


def culprit(kind: type[Message], change: Callable[[World, str, Message], Message | None]) -> Script:
    return Script(server=at(kind, change, CULPRIT), active=frozenset({CULPRIT}))


@dataclass
class Dealer(Interference):
    """Changes the SHR of the culprit, and shows the culprit's own machine the one that it sent."""

    change: Callable[[World, str, Message], Message]
    active: frozenset[str] = frozenset({CULPRIT})
    sent: Shr | None = None

    def to_server(self, world: World, site: str, message: Message) -> Iterable[Message | bytes]:
        if site == CULPRIT and isinstance(message, Shr):
            self.sent = message
            return [self.change(world, site, message)]
        return [message]

    def to_site(self, world: World, site: str, message: Message) -> Iterable[Message | bytes]:
        del world
        if site == CULPRIT and isinstance(message, Fwd) and self.sent is not None:
            to = self.sent.to
            leaves = tuple(leaf(u, to[u]) for u in sorted(to))
            own = Forwarded(self.sent.bcom, to[CULPRIT], leaves, self.sent.sig)
            return [replace(message, senders={**message.senders, CULPRIT: own})]
        return [message]


# --- Keys ---------------------------------------------------------------------------------------------


def _advert(world: World, site: str, ctx: bytes, c: bytes, s: bytes) -> Advert:
    return Advert(c, s, world.schedule.crypto.sign(signing_key(site), advert_message(ctx, site, c, s)))


def _man_in_the_middle(world: World, site: str, message: Message) -> Message:
    del site
    assert isinstance(message, Keys)
    suite = world.schedule.crypto
    c, s = (suite.public(Secret(bytes([i]) * 32)) for i in (1, 2))
    return replace(message, keys={**message.keys, CULPRIT: replace(message.keys[CULPRIT], c=c, s=s)})


def _other_own_entry(world: World, site: str, message: Message) -> Message:
    assert isinstance(message, Keys)
    suite = world.schedule.crypto
    mine = _advert(world, site, message.ctx, suite.public(Secret(bytes(32))), message.keys[site].s)
    return replace(message, keys={**message.keys, site: mine})


def _adv(world: World, message: Message, c: bytes, s: bytes) -> Adv:
    assert isinstance(message, Adv)
    advert = _advert(world, message.sender, message.ctx, c, s)
    return replace(message, c=advert.c, s=advert.s, sig=advert.sig)


def _twin(key: bytes) -> bytes:
    return key[:31] + bytes([key[31] | 0x80])


def _twin_key(world: World, site: str, message: Message) -> Message:
    del site
    assert isinstance(message, Adv)
    return _adv(world, message, _twin(message.c), message.s)


def _same_key_twice(world: World, site: str, message: Message) -> Message:
    del site
    assert isinstance(message, Adv)
    return _adv(world, message, message.c, message.c)


def _twin_keys_forwarded(world: World, site: str, message: Message) -> Message:
    del site
    assert isinstance(message, Keys)
    theirs = message.keys[CULPRIT]
    entry = _advert(world, CULPRIT, message.ctx, _twin(theirs.c), theirs.s)
    return replace(message, keys={**message.keys, CULPRIT: entry})


def _copied_keys_forwarded(world: World, site: str, message: Message) -> Message:
    del site
    assert isinstance(message, Keys)
    entry = _advert(world, CULPRIT, message.ctx, message.keys[VICTIM].c, message.keys[CULPRIT].s)
    return replace(message, keys={**message.keys, CULPRIT: entry})


def _zero_key_forwarded(world: World, site: str, message: Message) -> Message:
    del site
    assert isinstance(message, Keys)
    entry = _advert(world, CULPRIT, message.ctx, bytes(32), message.keys[CULPRIT].s)
    return replace(message, keys={**message.keys, CULPRIT: entry})


def _outsider(world: World, site: str, message: Message) -> Message:
    del site
    assert isinstance(message, Keys)
    suite = world.schedule.crypto
    c, s = (suite.public(Secret(bytes([i]) * 32)) for i in (3, 4))
    return replace(message, keys={**message.keys, "spare": _advert(world, "spare", message.ctx, c, s)})


_STOP_NAMING = every(*OTHERS, names=CULPRIT)
KEYS = (
    Case("man in the middle", lambda: only_site(Keys, _man_in_the_middle, *OTHERS), stopped=_STOP_NAMING, unsent="SHR"),
    Case(
        "own keys replaced",
        lambda: only_site(Keys, _other_own_entry, VICTIM),
        without(VICTIM),
        stopped=every(VICTIM),
        unsent="SHR",
    ),
    Case("twin key", lambda: culprit(Adv, _twin_key), without(CULPRIT), frozenset({("dropped", CULPRIT)})),
    Case("same key twice", lambda: culprit(Adv, _same_key_twice), without(CULPRIT), frozenset({("dropped", CULPRIT)})),
    Case(
        "twin key forwarded",
        lambda: replace(only_site(Keys, _twin_keys_forwarded, *OTHERS), active=frozenset({CULPRIT})),
        stopped=_STOP_NAMING,
        unsent="SHR",
    ),
    Case(
        "copied key forwarded",
        lambda: replace(only_site(Keys, _copied_keys_forwarded, *OTHERS), active=frozenset({CULPRIT})),
        stopped=every(*OTHERS),
        unsent="SHR",
    ),
    Case(
        "all-zero key forwarded",
        lambda: replace(only_site(Keys, _zero_key_forwarded, *OTHERS), active=frozenset({CULPRIT})),
        stopped=_STOP_NAMING,
        unsent="SHR",
    ),
    Case("a site from outside", lambda: only_site(Keys, _outsider), stopped=every(), unsent="SHR"),
)
