"""Scripted adversaries against sets of sites, contexts, order and time, each with the outcome that it must have."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import cbor2

from privacy.secagg.bindings import Bindings
from privacy.secagg.context import RoundContext, Thresholds, thresholds
from privacy.secagg.encoding import digest
from privacy.secagg.wire import Con, Fwd, Keys, Message, Msk, Shr, Sigs, Start, Surv, Unm
from tests.privacy.secagg.simulation.adversaries import (
    COHORT,
    CULPRIT,
    LAST,
    NARROW,
    VICTIM,
    Case,
    Script,
    at,
    every,
    only_site,
    quiet,
    without,
)
from tests.privacy.secagg.simulation.schedule import Schedule, signing_key
from tests.privacy.secagg.simulation.world import Interference, World

_ALL = frozenset(COHORT)
_WIDE = tuple(site for site in COHORT if site not in NARROW)


# --- Sets ---------------------------------------------------------------------------------------------


def _keys_without(*gone: str) -> Callable[[World, str, Message], Message]:
    def change(world: World, site: str, message: Message) -> Message:
        del world
        assert isinstance(message, Keys)
        return replace(message, keys={u: entry for u, entry in message.keys.items() if u not in gone or u == site})

    return change


def _fwd_without(*gone: str) -> Callable[[World, str, Message], Message]:
    def change(world: World, site: str, message: Message) -> Message:
        del world
        assert isinstance(message, Fwd)
        return replace(message, senders={u: f for u, f in message.senders.items() if u not in gone or u == site})

    return change


def _surv_without(*gone: str) -> Callable[[World, str, Message], Message]:
    def change(world: World, site: str, message: Message) -> Message:
        del world, site
        assert isinstance(message, Surv)
        return replace(message, survivors=tuple(u for u in message.survivors if u not in gone))

    return change


def _surv_with_a_dead_site(world: World, site: str, message: Message) -> Message:
    del world, site
    assert isinstance(message, Surv)
    return replace(message, survivors=tuple(sorted({*message.survivors, LAST})))


@dataclass
class SplitSurvivors(Interference):
    """Tells two groups different survivors, and gives each the signatures over its own, those of its allies too."""

    active: frozenset[str] = frozenset({"site-3", "site-5"})
    cons: dict[str, Con] = field(default_factory=dict)

    def _told(self, site: str) -> tuple[str, ...]:
        return COHORT[:-1] if site in COHORT[:4] else COHORT[1:]

    def to_site(self, world: World, site: str, message: Message) -> Iterable[Message | bytes]:
        del world
        return [replace(message, survivors=self._told(site)) if isinstance(message, Surv) else message]

    def to_server(self, world: World, site: str, message: Message) -> Iterable[Message | bytes]:
        if not isinstance(message, Con):
            return [message]
        self.cons[site] = message
        for u in COHORT:
            told = self._told(u)
            sigs = {v: con.sig for v, con in self.cons.items() if self._told(v) == told and v in told}
            text = Bindings(message.ctx, world.state.adverts).survivors_message(told)
            sigs |= {v: world.schedule.crypto.sign(signing_key(v), text) for v in self.active & set(told)}
            if len(sigs) >= 5 and u in self.cons:
                world.inject("to site", u, Sigs(message.ctx, dict(sorted(sigs.items()))).encode())
        return [message]


_FIXED = quiet(fixed_set=True)
_FIRST = ("site-1", "site-2", "site-3")
_DIES = Script(server=at(Msk, lambda *_: None, LAST))
SETS = (
    Case("split U1", lambda: only_site(Keys, _keys_without(LAST), *_FIRST)),
    Case("split U2", lambda: only_site(Fwd, _fwd_without(LAST), *_FIRST)),
    Case("split U3", SplitSurvivors),
    Case("U1 too small", lambda: only_site(Keys, _keys_without(*COHORT[:3])), stopped=every(*COHORT[3:]), unsent="SHR"),
    Case(
        "U2 too small",
        lambda: only_site(Fwd, _fwd_without("site-1", *_WIDE)),
        stopped=every("site-2", "site-3", "site-4", "site-5"),
        unsent="MSK",
    ),
    Case("U3 too small", lambda: only_site(Surv, _surv_without("site-1", *_WIDE)), stopped=every(), unsent="CON"),
    Case(
        "U2 isolates a region",
        lambda: only_site(Fwd, _fwd_without("site-1", "site-2")),
        stopped=every(*_WIDE),
        unsent="MSK",
    ),
    Case(
        "U3 isolates a region",
        lambda: only_site(Surv, _surv_without("site-1", "site-2")),
        stopped=every(*_WIDE),
        unsent="CON",
    ),
    Case(
        "left out of SURV",
        lambda: only_site(Surv, _surv_without(VICTIM), VICTIM),
        _ALL,
        stopped=every(VICTIM),
        unsent="CON",
    ),
    Case(
        "a site without shares in SURV",
        lambda: Script(site=at(Surv, _surv_with_a_dead_site), server=at(Shr, lambda *_: None, LAST)),
        stopped=every(*COHORT[:-1]),
        unsent="CON",
    ),
    Case(
        "fixed set, U1",
        lambda: only_site(Keys, _keys_without(LAST)),
        schedule=quiet(fixed_set=True),
        stopped=every(*COHORT[:-1]),
        unsent="SHR",
    ),
    Case(
        "fixed set, U2",
        lambda: only_site(Fwd, _fwd_without(LAST)),
        schedule=quiet(fixed_set=True),
        stopped=every(*COHORT[:-1]),
        unsent="MSK",
    ),
    Case(
        "fixed set, U3",
        lambda: only_site(Surv, _surv_without(LAST)),
        schedule=quiet(fixed_set=True),
        stopped=every(),
        unsent="CON",
    ),
    Case("fixed set, kept", Interference, _ALL, schedule=quiet(fixed_set=True)),
)


# --- Contexts -----------------------------------------------------------------------------------------


def _other_context(**change: Any) -> Callable[[World, str, Message], Message]:
    def changed(world: World, site: str, message: Message) -> Message:
        del world, site
        assert isinstance(message, Start)
        context = replace(RoundContext.decode(message.context), **change)
        return Start(context.digest, context.encode(), message.others)

    return changed


def _raw_context(**change: Any) -> Callable[[World, str, Message], Message]:
    """Encodes what ``RoundContext`` refuses to be."""

    def changed(world: World, site: str, message: Message) -> Message:
        del world, site
        assert isinstance(message, Start)
        encoded = cbor2.dumps({**cbor2.loads(message.context), **change}, canonical=True)
        return Start(digest("ctx", encoded), encoded, message.others)

    return changed


def _other_digests(world: World, site: str, message: Message) -> Message:
    del world, site
    assert isinstance(message, Start)
    return replace(message, others=dict.fromkeys(message.others, bytes(32)))


def _unbound(world: World, site: str, message: Message) -> Message:
    del world, site
    assert isinstance(message, Start)
    return replace(message, ctx=bytes(32))


def _equivocation(name: str, **change: Any) -> Case:
    script = _other_context(**change)
    return Case(name, lambda: only_site(Start, script, VICTIM), without(VICTIM), stopped=every(VICTIM), unsent="ADV")


def _refused(name: str, schedule: Schedule | None = None, **change: Any) -> Case:
    script = _raw_context(**change)
    return Case(name, lambda: only_site(Start, script), stopped=every(), unsent="ADV", schedule=schedule)


_WRAPPING = [
    {"holders": list(COHORT), "blocks": [[5, 2**30]]},
    {"holders": list(NARROW), "blocks": [[3, 9], [2, 2**20]]},
]
CONTEXTS = (
    _equivocation("another model for one site", model_root=bytes(32)),
    _equivocation("another job for one site", job=bytes(32)),
    _equivocation("another roster for one site", roster=bytes(32)),
    _equivocation("weaker thresholds for one site", thresholds=Thresholds(0, 4, 4, 3)),
    _equivocation("another ring for one site", bits=64, regions=quiet().regions[:1]),
    Case(
        "START bound to nothing",
        lambda: only_site(Start, _unbound, VICTIM),
        without(VICTIM),
        stopped=every(VICTIM),
        unsent="ADV",
    ),
    Case(
        "another region for one site",
        lambda: only_site(Start, _other_digests, VICTIM),
        without(VICTIM),
        stopped=every(VICTIM),
        unsent="ADV",
    ),
    _refused("threshold too small", t=4),
    _refused("threshold too small by one half", quiet(limits=thresholds(7, 3)), t=5, min_survivors=5),
    _refused("survivors below the threshold", min_survivors=4),
    _refused("cover below the floor", min_cover=3),
    _refused("two sites", cohort=list(COHORT[:2]), n_c=0, t=2, min_survivors=2),
    _refused("a sum that wraps", regions=_WRAPPING),
    _refused("a fourth attempt", attempt=4),
)


# --- Order and time -----------------------------------------------------------------------------------


@dataclass
class Replay(Interference):
    """Sends everything that it has seen of earlier attempts again, before each message, to the same party."""

    seen: list[tuple[bytes, str, str, bytes]] = field(default_factory=list)

    def to_site(self, world: World, site: str, message: Message) -> Iterable[Message | bytes]:
        return self._before(world, "site", site, message)

    def to_server(self, world: World, site: str, message: Message) -> Iterable[Message | bytes]:
        return self._before(world, "server", site, message)

    def _before(self, world: World, to: str, site: str, message: Message) -> list[Message | bytes]:
        live = world.config.context.digest
        old: list[Message | bytes] = [d for ctx, *ends, d in self.seen if ctx != live and ends == [to, site]]
        self.seen.append((message.ctx, to, site, message.encode()))
        return [*old, message]


@dataclass
class StaleDuplicate(Interference):
    """Gives one site KEYS again behind FWD, of the same attempt."""

    keys: bytes = b""

    def to_site(self, world: World, site: str, message: Message) -> Iterable[Message | bytes]:
        del world
        if isinstance(message, Keys):
            self.keys = message.encode()
        return [message, self.keys] if site == VICTIM and isinstance(message, Fwd) else [message]


@dataclass
class LateVector(Interference):
    """Holds a masked vector back until the survivors are told, so that the server has it all the same."""

    held: bytes = b""

    def to_server(self, world: World, site: str, message: Message) -> Iterable[Message | bytes]:
        if site == LAST and isinstance(message, Msk):
            self.held = message.encode()
            return []
        if isinstance(message, Con) and self.held:
            world.inject("to server", LAST, self.held)
        return [message]


def _forged(world: World, site: str, message: Message) -> Message:
    del world, site
    assert isinstance(message, Sigs)
    return replace(message, sigs={**message.sigs, CULPRIT: bytes(64)})


def _few(world: World, site: str, message: Message) -> Message:
    del site
    assert isinstance(message, Sigs)
    return replace(message, sigs=dict(sorted(message.sigs.items())[: world.schedule.limits.t - 1]))


def _outside(world: World, site: str, message: Message) -> Message:
    del site
    assert isinstance(message, Sigs)
    text = world.state.bindings.survivors_message(COHORT)
    return replace(message, sigs={**message.sigs, "spare": world.schedule.crypto.sign(signing_key("spare"), text)})


def _twice(world: World, site: str, message: Message) -> list[Message | bytes]:
    del world
    return (
        [message, replace(message, survivors=COHORT[1:])] if isinstance(message, Surv) and site == VICTIM else [message]
    )


def _repeated(world: World, site: str, message: Message) -> list[Message | bytes]:
    del world, site
    return [message, message]


ORDER = (
    Case("nobody interferes", Interference, _ALL),
    Case("everything twice", lambda: Script(site=_repeated, server=_repeated), _ALL),
    Case("replay of earlier rounds", Replay, _ALL, schedule=quiet(rounds=3)),
    Case("the largest run id", Replay, _ALL, schedule=quiet(rounds=2, run=bytes(8) + b"\xff" * 8)),
    Case("stale duplicate", StaleDuplicate, _ALL),
    Case("late vector of a dead site", LateVector, without(LAST)),
    Case("signatures withheld", lambda: only_site(Sigs, lambda *_: None), stopped=every(), unsent="UNM"),
    Case("shares withheld", lambda: Script(server=at(Unm, lambda *_: None))),
    Case("forged signature", lambda: only_site(Sigs, _forged), stopped=every(names=CULPRIT), unsent="UNM"),
    Case("too few signatures", lambda: only_site(Sigs, _few), stopped=every(), unsent="UNM"),
    Case("signature from outside", lambda: only_site(Sigs, _outside), stopped=every(), unsent="UNM"),
    Case("SURV twice", lambda: Script(site=_twice), _ALL, stopped=every(VICTIM)),
    Case(
        "colluding holders and a drop-out",
        lambda: replace(_DIES, active=frozenset({"site-1", "site-2"})),
        without(LAST),
    ),
)
