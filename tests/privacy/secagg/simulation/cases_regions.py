"""Attempts over plans of unequal sub-models, each with its outcome and the oracle's word on what is open.

What must come of one is counted in ``adversaries_regions.judged``. ``count`` is how many are drawn of what there is.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice, product
from typing import Any

import numpy as np

from privacy.secagg.admission import LocalInput
from privacy.secagg.context import RoundContext, thresholds
from privacy.secagg.effects import Aborted, Finished
from privacy.secagg.wire import Fwd, Keys, Message, Sigs, Start, Surv
from tests.privacy.secagg.simulation.adversaries_regions import (
    LIES,
    NOBODY,
    PHASES,
    ChoosingServer,
    Group,
    Losses,
    OtherStart,
    Plan,
    SwitchingServer,
    Verdict,
    allies,
    groups,
    judged,
    lies,
    sent,
    start,
)
from tests.privacy.secagg.simulation.oracle import Oracle, Symbol
from tests.privacy.secagg.simulation.schedule import Schedule, source
from tests.privacy.secagg.simulation.world import Attempted, World

Openings = frozenset[tuple[int, frozenset[Symbol]]]


@dataclass
class Tally:
    """Counts cases, and what must not have happened in them."""

    cases: int = 0
    openings: int = 0
    faults: list[str] = field(default_factory=list)

    def case(self, name: str, oracle: Oracle, may: Iterable[int], before: Openings = frozenset()) -> "Case":
        """Takes a case in which nothing but the regions ``may`` may be open to anybody that was not ``before``."""
        forbidden = {k for k, _ in oracle.openings - before} - set(may)
        self.cases += 1
        self.openings += len(forbidden)
        case = Case(self, name)
        case.expect(not forbidden, f"opens {forbidden}")
        case.expect(not oracle.violations, f"{oracle.violations[:2]}")
        return case

    def add(self, other: "Tally") -> None:
        self.cases += other.cases
        self.openings += other.openings
        self.faults += other.faults

    def __str__(self) -> str:
        return f"{self.cases} cases, {self.openings} openings of a forbidden region"

    def check(self, expected: int) -> None:
        assert not self.faults, "\n".join(self.faults[:5])
        assert str(self) == f"{expected} cases, 0 openings of a forbidden region"


@dataclass(frozen=True)
class Case:
    tally: Tally
    name: str

    def expect(self, kept: bool, what: str) -> None:
        if not kept:
            self.tally.faults.append(f"{self.name}: {what}")

    def ends(self, attempt: Attempted, verdict: Verdict, names: tuple[int, ...], region: int | None) -> None:
        """Expects the coordinator's sum over exactly the active regions, or its abort naming ``region``."""
        if verdict.fine:
            right = isinstance(attempt.end, Finished) and frozenset(attempt.end.survivors) == verdict.rest
            opened = {names[k] for k in attempt.end.sums} if isinstance(attempt.end, Finished) else set()
            self.expect(right and opened == set(verdict.active), f"ended in {attempt.end}")
        else:
            aborted = isinstance(attempt.end, Aborted) and attempt.end.region == region
            self.expect(aborted, f"did not abort for region {region}: {attempt.end}")


def some(cases: Iterable[Any], count: int, *seed: object) -> list[Any]:
    every = list(cases)
    return every if len(every) <= count else source("regions", *seed).sample(every, count)


# --- Weak regions and chosen drop-outs ----------------------------------------------------------------


def left_out(tally: Tally, plan: Plan, phase: str, gone: Group, obey: Group = NOBODY) -> None:
    """The server leaves sites out; it has every vector that was sent, also of those that it calls dead."""
    server = ChoosingServer(plan.schedule(active=obey), gone={phase: gone}).attempt()
    verdict, oracle = judged(plan, phase, gone), server.witness.oracle
    name = f"{plan.name}: {phase} without {sorted(gone)}, {sorted(obey)} obey"
    case = tally.case(name, oracle, verdict.active if verdict.fine else ())
    case.expect(all(set(m.regions) <= set(verdict.active) for m in oracle.machines), "a region not active is sent")
    for u in verdict.rest:
        kinds = server.sites[u].kinds()
        if verdict.fine:
            case.expect("UNM" in kinds, f"{u} does not finish")
        else:
            stopped = server.sites[u].aborted() is not None and PHASES[phase][0] not in kinds
            case.expect(stopped, f"{u} does not refuse; it holds {server.schedule.context().held(u)}")
    for k in verdict.active if verdict.fine else ():
        whole = frozenset(("x", u, (1, 1)) for u in plan.held[k] & verdict.rest - obey)
        case.expect((k, whole) in oracle.openings, f"the sum of region {k} is not open")


def dropped(tally: Tally, plan: Plan, phase: str, gone: Group) -> None:
    """The sites are truly dead, and the coordinator is honest."""
    world = World(plan.schedule(), Losses(PHASES[phase][1], gone)).run(attempts=1)
    verdict = judged(plan, phase, gone)
    name = f"{plan.name}: {PHASES[phase][1].kind} of {sorted(gone)} is lost"
    case = tally.case(name, world.oracle, verdict.active if verdict.fine else ())
    lost = verdict.lost[0] if verdict.lost else None
    case.ends(world.attempts[0], verdict, tuple(range(len(plan.held))), lost)


def choices(plan: Plan) -> Iterator[tuple[str, Group]]:
    """Yields every phase with every group of sites, up to one more than may be missing at all."""
    spare = plan.n - thresholds(plan.n, plan.n_c).min_survivors
    return product(PHASES, groups(plan.cohort, range(spare + 2)))


def leave(plan: Plan, count: int) -> Tally:
    tally = Tally()
    for (phase, gone), obey in some(product(choices(plan), allies(plan)), count, plan.name):
        left_out(tally, plan, phase, gone, obey)
    return tally


def drop(plan: Plan, count: int) -> Tally:
    tally = Tally()
    for phase, gone in some((c for c in choices(plan) if c[0] != "U3"), count, plan.name):
        dropped(tally, plan, phase, gone)
    return tally


# --- A plan shown differently -------------------------------------------------------------------------


def shown_differently(tally: Tally, plan: Plan, k: int, told: Group, lie: int) -> None:
    """Some sites see another plan, and the server plays on with them in it; or the honest coordinator without them."""
    schedule = plan.schedule()
    truth = {u: start(schedule.context(), schedule.digests(), u) for u in told}
    for name, context, digests in islice(lies(schedule, k, min(told)), lie, lie + 1):
        every = {u: start(context, digests, u) for u in told}
        shown = {u: every[u] for u in told if every[u] != truth[u]}
        title = f"{plan.name}: region {k}, {sorted(shown)} see it {name}"
        if len(shown) == plan.n:
            _to_all(tally, plan, schedule, shown, title)
        elif shown:
            _without_them(tally, plan, schedule, shown, title)
            _with_them(tally, plan, schedule, shown, title)


def _to_all(tally: Tally, plan: Plan, schedule: Schedule, shown: dict[str, Start], title: str) -> None:
    """Nobody sees the true plan; those who cannot tell go on, and open what enough of the true holders are in."""
    limits = schedule.limits
    server = ChoosingServer(schedule, shown=shown).attempt()
    believe = {u for u in plan.cohort if "ADV" in server.sites[u].kinds()}
    enough = len(believe) >= limits.min_survivors
    may = [j for j, held in enumerate(plan.held) if enough and len(held & believe) >= limits.min_cover]
    tally.case(title, server.witness.oracle, may)


def _without_them(tally: Tally, plan: Plan, schedule: Schedule, shown: dict[str, Start], title: str) -> None:
    told = frozenset(shown)
    world = World(schedule, OtherStart(shown)).run(attempts=1)
    verdict = judged(plan, "U1", told)
    case = tally.case(title, world.oracle, verdict.active if verdict.fine else ())
    case.ends(world.attempts[0], verdict, tuple(range(len(plan.held))), None)
    for u in told:
        quiet = world.sites[u].aborted() is not None and set(world.sites[u].kinds()) <= {"ADV"}
        case.expect(quiet, f"{u} sends {world.sites[u].kinds()}")
        case.expect(not any(u in {x[1] for x in total} for _, total in world.oracle.openings), f"{u} is open")


def _with_them(tally: Tally, plan: Plan, schedule: Schedule, shown: dict[str, Start], title: str) -> None:
    told = frozenset(shown)
    server = ChoosingServer(schedule, shown=shown).attempt()
    believe = any("ADV" in server.sites[u].kinds() for u in told)
    verdict = judged(plan, "U1", told)
    fine = verdict.fine and not believe
    case = tally.case(f"{title}, mixed", server.witness.oracle, verdict.active if fine else ())
    for u, site in server.sites.items():
        if u in told or not fine:
            case.expect(site.aborted() is not None and "SHR" not in site.kinds(), f"{u} goes on")
        else:
            case.expect("UNM" in site.kinds(), f"{u} does not finish")


def show(plan: Plan, count: int) -> Tally:
    tally = Tally()
    cohort = frozenset(plan.cohort)
    singles = list(groups(cohort, [1]))
    every = [*singles, *(cohort - one for one in singles), *plan.held, *(cohort - held for held in plan.held)]
    told = filter(None, dict.fromkeys(every))
    for k, who, lie in some(product(range(len(plan.held)), told, range(LIES)), count, plan.name):
        shown_differently(tally, plan, k, who, lie)
    return tally


# --- A plan changed in flight, a region frozen --------------------------------------------------------


def switched(tally: Tally, plan: Plan, k: int, since: type[Message], victims: Group, *, relabelled: bool) -> None:
    """Sites that began one attempt get messages of the one before it, which had a region more, or less."""
    unsent = {Keys: "SHR", Fwd: "MSK", Surv: "UNM" if relabelled else "CON", Sigs: "UNM"}[since]
    for first, second in ((1, 2), (2, 3)):
        schedule = plan.schedule(frozen=(frozenset(), frozenset({k}), frozenset()))
        server = SwitchingServer(schedule, victims=victims, since=since, relabelled=relabelled).attempt(first)
        oracle = server.witness.oracle
        before = frozenset(oracle.openings)
        server.second = True
        server.attempt(second)
        everybody = victims == frozenset(plan.cohort)
        title = f"{plan.name}: region {k}, {sorted(victims)} get {since.kind} of attempt {first} ({relabelled})"
        may = () if everybody else schedule.kept(second)
        case = tally.case(title, oracle, may, before)
        for u in victims:
            kinds = sent(server.sites[u], schedule.context(1, second).digest)
            case.expect(unsent not in kinds and kinds != [], f"{u} sends {kinds}")


def switch(plan: Plan, count: int) -> Tally:
    tally = Tally()
    cohort = frozenset(plan.cohort)
    fitting = [k for k in range(len(plan.held)) if judged(plan, "U1", NOBODY, frozenset({k})).active]
    for k in fitting:
        victims = dict.fromkeys([cohort, plan.held[k], *groups(cohort, [1])])
        every = product((Keys, Fwd, Surv, Sigs), victims, (True, False))
        for since, who, relabelled in some(every, count, plan.name, k):
            switched(tally, plan, k, since, who, relabelled=relabelled)
    return tally


def losing(plan: Plan, phase: str) -> list[tuple[int, Group]]:
    """Returns the choices of sites without which exactly one region loses its cover, and nothing else is missing."""
    enough = thresholds(plan.n, plan.n_c).min_survivors
    verdicts = ((gone, judged(plan, phase, gone)) for gone in groups(plan.cohort))
    return [(v.lost[0], gone) for gone, v in verdicts if len(v.lost) == 1 and len(v.rest) >= enough]


def frozen(tally: Tally, plan: Plan, phase: str, k: int, gone: Group, *, again: bool) -> None:
    """Attempt 1 loses a region, attempt 2 leaves it out: with the lost sites back, or lost again."""
    schedule = plan.schedule(frozen=(frozenset(), frozenset({k})), again=again)
    for attempts in (frozenset({1}), frozenset({1, 2})):
        # Quicker than the sites' timers: in this world one that an earlier attempt set still goes off.
        world = World(schedule, Losses(PHASES[phase][1], gone, attempts), patience=0.5).run(attempts=2)
        lost = gone if 2 in attempts else NOBODY
        verdict = judged(plan, phase, lost, frozenset({k}))
        title = f"{plan.name}: region {k} is frozen after {phase} without {sorted(gone)}, {attempts}, again {again}"
        case = tally.case(title, world.oracle, verdict.active)
        case.ends(world.attempts[0], judged(plan, phase, gone), (), k)
        case.expect(verdict.fine and len(world.attempts) == 2, "there is no sound retry")
        case.ends(world.attempts[-1], verdict, schedule.kept(2), None)


def resumed(tally: Tally, plan: Plan, k: int, gone: Group, obey: Group, *, again: bool) -> None:
    """The server has all vectors of attempt 1 and the sums of attempt 2, and then asks for the rest of attempt 1."""
    schedule = plan.schedule(frozen=(frozenset(), frozenset({k})), again=again, active=obey)
    server = ChoosingServer(schedule, gone={"U3": gone}).resume()
    title = f"{plan.name}: region {k} of attempt 1 without {sorted(gone)} after attempt 2, {sorted(obey)} obey"
    case = tally.case(title, server.witness.oracle, judged(plan, "U1", NOBODY, frozenset({k})).active)
    for u, site in server.sites.items():
        first, second = (sent(site, schedule.context(1, number).digest) for number in (1, 2))
        case.expect("MSK" in first and "CON" not in first, f"{u} goes on with attempt 1: {first}")
        case.expect("UNM" in second, f"{u} does not finish attempt 2: {second}")


def retry(plan: Plan, count: int) -> Tally:
    tally = Tally()
    for phase in ("U2", "MSK"):
        for (k, gone), again in some(product(losing(plan, phase), (True, False)), count, plan.name, phase):
            frozen(tally, plan, phase, k, gone, again=again)
    every = product(losing(plan, "U3"), allies(plan), (True, False))
    for (k, gone), obey, again in some(every, count, plan.name):
        resumed(tally, plan, k, gone, obey, again=again)
    return tally


# --- A region that was not trained --------------------------------------------------------------------


def untrained(tally: Tally, plan: Plan, k: int, who: Group) -> None:
    """Some holders' updates of a region are zero: its sum would be that of fewer sites than it looks."""
    world = World(plan.schedule())

    def zero(site: str) -> Callable[[RoundContext], LocalInput]:
        def inputs(context: RoundContext) -> LocalInput:
            own = world.schedule.own(site, context)
            return replace(own, vectors={**own.vectors, k: np.zeros_like(own.vectors[k])})

        return inputs

    for u in who:
        world.sites[u].inputs = zero(u)
    world.run(attempts=1)
    verdict = judged(plan, "MSK", who)
    case = tally.case(
        f"{plan.name}: {sorted(who)} did not train region {k}", world.oracle, verdict.active if verdict.fine else ()
    )
    case.ends(world.attempts[0], verdict, tuple(range(len(plan.held))), next(iter(verdict.lost), None))
    for u in who:
        site = world.sites[u]
        case.expect(site.aborted() is not None and "MSK" not in site.kinds(), f"{u} does not refuse")
        case.expect(len(site.store.debits) == 1, f"{u} says for nothing that it did not train")


def idle(plan: Plan, count: int) -> Tally:
    tally = Tally()
    for k, held in enumerate(plan.held):
        for who in some(groups(held, range(1, len(held) + 1)), count, plan.name, k):
            untrained(tally, plan, k, who)
    return tally
