"""Plans of unequal sub-models, what a model of three lines says may be opened of them, and servers that want more.

A plan names who holds each region by place in the cohort. Regions are numbered as in the plan in every attempt.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, combinations
from typing import Any, Self

from privacy.secagg.context import Block, Region, RoundContext, model_root, region_digest, thresholds
from privacy.secagg.effects import Send
from privacy.secagg.wire import Adv, Fwd, Keys, Message, Msk, Shr, Sigs, Start, Surv
from tests.privacy.secagg.parties import PLAN, site_ids, values_digest
from tests.privacy.secagg.simulation.malicious import MaliciousServer
from tests.privacy.secagg.simulation.schedule import Schedule, SuiteName
from tests.privacy.secagg.simulation.site import Site, read
from tests.privacy.secagg.simulation.world import Interference, World

Group = frozenset[str]
NOBODY: Group = frozenset()


@dataclass(frozen=True)
class Plan:
    """Who holds what.

    Attributes:
      name: Of the plan.
      n: Sites.
      holders: Places in the cohort, by region.
      n_c: Colluding sites; None for the default of §2.2.
      suite: Cryptography.
    """

    name: str
    n: int
    holders: tuple[tuple[int, ...], ...]
    n_c: int | None = None
    suite: SuiteName = "ideal"

    @property
    def cohort(self) -> tuple[str, ...]:
        return site_ids(self.n)

    @property
    def held(self) -> tuple[Group, ...]:
        return tuple(frozenset(self.cohort[i] for i in places) for places in self.holders)

    def schedule(self, **change: Any) -> Schedule:
        regions = tuple(Region(tuple(sorted(held)), (Block(2, 1000),)) for held in self.held)
        return Schedule(1, self.suite, self.cohort, thresholds(self.n, self.n_c), regions, **change)


def of_agents(name: str, n: int, agents: Sequence[tuple[int, str]]) -> Plan:
    """Returns the plan of agents that are listed with their organisation and the pieces they hold, a letter each."""
    pieces = sorted(set("".join(held for _, held in agents)))
    holders = (sorted({organisation for organisation, held in agents if piece in held}) for piece in pieces)
    return Plan(name, n, tuple(map(tuple, holders)))


def _up_to(*counts: int) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(range(count)) for count in counts)


SMALL = (
    Plan("three wide and one narrow", 4, _up_to(4, 3)),
    of_agents("two agents of one organisation", 5, [*((i, "a") for i in range(5)), *((i, "ab") for i in range(3)),
        (0, "abc"), (0, "abc"), (1, "abc")]),
    Plan("depth prefixes", 6, _up_to(6, 5, 4, 3)),
    Plan("disjoint heads", 6, ((0, 1, 2, 3, 4, 5), (0, 1, 2), (3, 4, 5))),
)  # fmt: skip
LARGE = (
    Plan("whole, half, quarter", 7, _up_to(7, 5, 3)),
    Plan("whole, half, quarter against one", 7, _up_to(7, 5, 3), 1),
    Plan("five and five", 10, _up_to(10, 5)),
    Plan("three whole of ten", 10, _up_to(10, 3)),
    Plan("three whole of ten, nobody colludes", 10, _up_to(10, 3), 0),
)
PLANS = (*SMALL, *LARGE)

# --- What may be opened -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What must come of an attempt; counted here from the thresholds, without the code under test.

    Attributes:
      rest: Sites that are not left out.
      active: Regions with enough holders in U1.
      lost: Of them, those with too few in ``rest``.
      fine: Whether the sum over ``rest`` may be opened; else nothing may.
    """

    rest: Group
    active: tuple[int, ...]
    lost: tuple[int, ...]
    fine: bool


PHASES: Mapping[str, tuple[str, type[Message]]] = {
    "U1": ("SHR", Adv), "U2": ("MSK", Shr), "MSK": ("CON", Msk), "U3": ("CON", Msk),
}  # fmt: skip
"""When sites are left out: of KEYS; of FWD; dead before MSK; called dead with their vector in hand.

With it, what the others may not send any more if that leaves too few; and what is lost of sites that are truly dead.
"""


def judged(plan: Plan, phase: str, gone: Group, omitted: Group | frozenset[int] = NOBODY) -> Verdict:
    cohort, limits = frozenset(plan.cohort), thresholds(plan.n, plan.n_c)
    rest, u1 = cohort - gone, cohort - gone if phase == "U1" else cohort
    numbers = [k for k in range(len(plan.held)) if k not in omitted]
    active = tuple(k for k in numbers if len(plan.held[k] & u1) >= limits.min_cover)
    lost = tuple(k for k in active if len(plan.held[k] & rest) < limits.min_cover)
    return Verdict(rest, active, lost, len(rest) >= limits.min_survivors and bool(active) and not lost)


def groups(sites: Iterable[str], sizes: Iterable[int] | None = None) -> Iterator[Group]:
    """Yields every group of ``sites``, small ones first."""
    among = sorted(sites)
    chosen = range(len(among) + 1) if sizes is None else sizes
    return map(frozenset, chain.from_iterable(combinations(among, size) for size in chosen))


def allies(plan: Plan) -> Iterator[Group]:
    """Yields nobody, and for every region as many of its holders as may obey the server."""
    n_c = thresholds(plan.n, plan.n_c).n_c
    return iter(dict.fromkeys([NOBODY, *(frozenset(sorted(held)[:n_c]) for held in plan.held)]))


# --- Servers ------------------------------------------------------------------------------------------


@dataclass
class ChoosingServer(MaliciousServer):
    """Leaves out whom it likes, and shows some sites another START; each then gets all messages in its own context.

    Attributes:
      gone: Whom it leaves out, by phase.
      shown: Other START, by site.
    """

    gone: Mapping[str, Group] = field(default_factory=dict)
    shown: Mapping[str, Start] = field(default_factory=dict)

    def attempt(self, number: int = 1) -> Self:
        self._attempt(self.schedule.context(1, number))
        return self

    def resume(self) -> Self:
        """Takes attempt 1 to the masked vectors, makes attempt 2, and then opens attempt 1 without those gone."""
        first, gone = self.schedule.context(1, 1), self.gone
        self.gone = {}
        keys, masked = self._to_masks(first)
        self.attempt(2)
        self.gone = gone
        self._open(first, keys, masked)
        return self

    def _told(self, context: RoundContext, sites: tuple[str, ...], phase: str) -> dict[str, tuple[str, ...]]:
        del context
        kept = tuple(u for u in sites if u not in self.gone.get(phase, NOBODY))
        dead = self.gone.get("MSK", NOBODY) if phase == "U2" else NOBODY
        return {u: kept for u in kept if u not in dead}

    def _give(self, site: str, message: Message) -> list[Message]:
        if site in self.shown:
            start = self.shown[site]
            message = start if isinstance(message, Start) else replace(message, ctx=start.ctx)
        return super()._give(site, message)


@dataclass
class SwitchingServer(ChoosingServer):
    """Makes attempt 1, and in attempt 2 gives some sites the messages of attempt 1 from one kind on.

    Attributes:
      victims: Which sites.
      since: First kind that is replaced.
      relabelled: Whether they carry the context of attempt 2.
      kept: What attempt 1 sent.
    """

    victims: Group = NOBODY
    since: type[Message] = Keys
    relabelled: bool = True
    kept: dict[tuple[str, type[Message]], Message] = field(default_factory=dict)
    second: bool = False

    def _give(self, site: str, message: Message) -> list[Message]:
        order = (Start, Keys, Fwd, Surv, Sigs)
        place = order.index(type(message))
        if not self.second:
            self.kept[site, order[place]] = message
        elif site in self.victims and place >= order.index(self.since):
            old = self.kept[site, order[place]]
            message = replace(old, ctx=message.ctx) if self.relabelled else old
        return super()._give(site, message)


@dataclass
class Losses(Interference):
    """Loses one kind of message of some sites, for all or some attempts; the server is honest."""

    kind: type[Message]
    gone: Group
    attempts: frozenset[int] = frozenset({1, 2, 3})

    def to_server(self, world: World, site: str, message: Message) -> list[Message | bytes]:
        mine = site in self.gone and isinstance(message, self.kind)
        return [] if mine and world.config.context.attempt in self.attempts else [message]


@dataclass
class OtherStart(Interference):
    """Shows some sites another START; the server is honest to the others."""

    shown: Mapping[str, Start]

    def to_site(self, world: World, site: str, message: Message) -> list[Message | bytes]:
        del world
        return [self.shown[site] if isinstance(message, Start) and site in self.shown else message]


def sent(site: Site, ctx: bytes) -> list[str]:
    """Returns the kinds of message that a site sent in one context."""
    messages = [read(effect.data) for effect in site.log if isinstance(effect, Send)]
    return [message.kind for message in messages if message is not None and message.ctx == ctx]


# --- Another plan for some ----------------------------------------------------------------------------

LIES = 25
"""Most that there are of a region."""
_Numbered = Sequence[tuple[int, Region]]
"""Regions as they are shown, each with the number of the one whose values it is said to have."""


def _other_regions(true: tuple[Region, ...], k: int, victim: str, cohort: tuple[str, ...]) -> dict[str, _Numbered]:
    every, region = list(enumerate(true)), true[k]
    holders = frozenset(region.holders)
    outside = sorted(set(cohort) - holders - {victim})

    def held(by: Iterable[str]) -> _Numbered:
        return [*every[:k], (k, replace(region, holders=tuple(sorted(by)))), *every[k + 1 :]]

    def cut(*blocks: Block) -> _Numbered:
        return [*every[:k], (k, replace(region, blocks=blocks)), *every[k + 1 :]]

    half = replace(region, blocks=(Block(1, 1000),))
    found = {
        "without the region": [*every[:k], *every[k + 1 :]],
        "with one more that all hold": [*every, (len(every), replace(region, holders=cohort))],
        "with one more that others hold": [*every, (len(every), replace(region, holders=tuple(outside)))],
        "with the victim changed": held(holders ^ {victim}),
        "with one other holder less": held(holders - {max(holders - {victim}, default="")}),
        "with all others as holders": held((holders & {victim}) | (set(cohort) - {victim})),
        "longer": cut(Block(3, 1000)),
        "with a wider bound": cut(Block(2, 2000)),
        "in two blocks": cut(Block(1, 1000), Block(1, 1000)),
        "in two regions": [*every[:k], (k, half), (k, half), *every[k + 1 :]],
        "with two regions exchanged": [every[1 - j] if j < 2 else every[j] for j in range(len(every))],
    }
    same = [name for name, regions in found.items() if [r for _, r in regions] == list(true)]
    empty = [name for name, regions in found.items() if not all(r.holders for _, r in regions)]
    return {name: regions for name, regions in found.items() if name not in {*same, *empty}}


def lies(schedule: Schedule, k: int, victim: str) -> Iterator[tuple[str, RoundContext, tuple[bytes, ...]]]:
    """Yields other contexts for a site with their region digests: with the true model root, and with one that fits."""
    true, digests = schedule.context(), schedule.digests()
    others = _other_regions(true.regions, k, victim, schedule.cohort)
    for name, numbered in others.items():
        regions = tuple(region for _, region in numbered)
        shown = tuple(
            region_digest(i, r.length, r.holders, values_digest(of)) for i, (of, r) in enumerate(numbered)
        )  # fmt: skip
        yield f"{name}, the root as it was", replace(true, regions=regions), shown
        yield f"{name}, the root fitting", replace(true, regions=regions, model_root=model_root(PLAN, shown)), shown
    region = true.regions[k]
    values = (*digests[:k], region_digest(k, region.length, region.holders, bytes(32)), *digests[k + 1 :])
    yield "other values", replace(true, model_root=model_root(PLAN, values)), values
    yield "other values, the root as it was", true, values
    yield "another plan digest", replace(true, model_root=model_root(bytes(32), digests)), digests


def start(context: RoundContext, digests: Sequence[bytes], site: str) -> Start:
    held = context.held(site)
    return Start(context.digest, context.encode(), {i: d for i, d in enumerate(digests) if i not in held})
