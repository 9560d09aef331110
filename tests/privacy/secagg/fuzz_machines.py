"""Both machines in every state of a recorded attempt: what one message of a stranger may do to them, and no more.

The attempt has five sites with two regions; the last dies before its masked vector arrives. With real signatures a
message that is accepted consists of parts that the honest sites sent, or it is a forgery. Machines with a suite that
believes every signature are there for what lies behind the signatures; only the shape of their answer is checked.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

from privacy.secagg import client, coordinator, wire
from privacy.secagg.admission import ClientConfig
from privacy.secagg.client import ClientState
from privacy.secagg.context import Block, Region, RoundContext
from privacy.secagg.coordinator import CoordinatorConfig, CoordinatorState
from privacy.secagg.effects import Aborted, Audit, Begin, Expired, Finished, Persist, Received, Send, SendTo, Timer
from privacy.secagg.suite import RealSuite
from tests.privacy.secagg.fuzz_mutate import CBOR, Form
from tests.privacy.secagg.parties import Log, Parties, exchange, lose, parties, site_ids

ME, DEAD = "site-2", "site-5"
COHORT = site_ids(5)


class CredulousSuite(RealSuite):
    """Believes every signature."""

    def verify(self, public: bytes, signature: bytes, message: bytes) -> None:
        del public, signature, message


SUITES: Mapping[str, RealSuite] = {"strict": RealSuite(), "credulous": CredulousSuite()}


@dataclass(frozen=True)
class Target:
    """Something that takes bytes from a stranger.

    Attributes:
      name: Unique.
      seeds: Messages to start from; the first is the one that it waits for, if it waits.
      check: Gets a message and a number below 256 that chooses, where there is a choice, who sends it. Returns in one
        word what came of it; raises if that must not be.
      form: Of its messages.
    """

    name: str
    seeds: tuple[bytes, ...]
    check: Callable[[bytes, int], str]
    form: Form = CBOR


def regions(cohort: tuple[str, ...]) -> tuple[Region, ...]:
    return (Region(cohort, (Block(7, 50),)), Region(cohort[1:], (Block(9, 60), Block(4, 3))))


@dataclass(frozen=True)
class Recorded:
    """One attempt.

    Attributes:
      all_of: Its parties, as they were before it began.
      log: What was sent.
      oracle: Sums in Python integers.
    """

    all_of: Parties
    log: Log
    oracle: Mapping[int, list[int]]

    @property
    def messages(self) -> tuple[bytes, ...]:
        return tuple(data for _, data in self.log.sent)

    @property
    def to_me(self) -> list[bytes]:
        """What the coordinator sent to ``ME``, in order."""
        return [e.data for e in self.log.effects[""] if isinstance(e, SendTo) and e.site == ME]

    def sent(self, site: str, kind: str) -> bytes:
        """Returns what the site sent; of the dead site, what it would have."""
        return next(d for party, d in self.log.sent if party == site and wire.decode(d).kind == kind)


@cache
def recorded() -> Recorded:
    change = lose({DEAD: "MSK"})
    log = exchange(parties(5, regions=regions), change)
    fresh = parties(5, regions=regions)
    return Recorded(fresh, log, fresh.oracle(set(COHORT) - {DEAD}))


def client_states() -> list[tuple[ClientConfig, ClientState, bytes]]:
    """Every state of ``ME``, with the message that it waits for; DONE and ABORTED get one that came before."""
    again = parties(5, regions=regions)  # draws the same keys
    config, state, messages = again.configs[ME], again.states[ME], recorded().to_me
    over, _ = client.step(config, state, Expired("IDLE"))
    seen = []
    for data in messages:
        seen.append((config, state, data))
        state, _ = client.step(config, state, Received(data))
    assert [state.phase, over.phase] == ["DONE", "ABORTED"]
    return [*seen, (config, state, messages[0]), (config, over, messages[0])]


def check_client(config: ClientConfig, state: ClientState, strict: bool, data: bytes, choice: int) -> str:
    """Feeds one message: nothing happens, or the site gives up and forgets, or the message was one to accept."""
    del choice
    after, effects = client.step(config, state, Received(data))
    if after == state:
        assert not effects or effects == (Send(state.reply),)
        return "repeated" if effects else "ignored"
    row = client.TRANSITIONS[state.phase]
    if after.phase is client.Phase.ABORTED:
        assert after == ClientState(client.Phase.ABORTED, None)
        assert [type(effect) for effect in effects] == [Audit, Aborted]
        return "refused"
    message = wire.decode(data)
    assert after.phase is row.goes_to
    assert isinstance(message, row.accepts)
    assert not state.ctx or message.ctx == state.ctx
    assert [type(effect) for effect in effects if not isinstance(effect, Persist)] in ([Send, Timer], [Send, Finished])
    assert not strict or genuine(message)
    return "accepted"


def genuine(message: wire.Message) -> bool:
    """Tells whether ``ME`` may accept the message: every part was sent by an honest site, and there are enough."""
    run = recorded()
    start, keys, fwd, _, sigs = (wire.decode(data) for data in run.to_me)
    limits = run.all_of.context.thresholds
    match message:
        case wire.Start(ctx, context):
            read, own = RoundContext.decode(context), run.all_of.context
            assert isinstance(start, wire.Start)
            floors = read.thresholds.n_c >= 1 and read.thresholds.min_survivors >= 3
            pinned = (read.roster, read.job, read.model_root) == (own.roster, own.job, own.model_root)
            held = [(region.holders, region.length) for region in own.regions]
            same = [(region.holders, region.length) for region in read.regions] == held
            return ctx == read.digest and message.others == start.others and pinned and same and floors
        case wire.Keys(_, got):
            assert isinstance(keys, wire.Keys)
            return got.items() <= keys.keys.items() and ME in got and len(got) >= limits.min_survivors
        case wire.Fwd(_, dealt):
            assert isinstance(fwd, wire.Fwd)
            return _part(dealt, fwd.senders) and ME in dealt and len(dealt) >= limits.min_survivors
        case wire.Surv(_, survivors):
            return set(survivors) <= set(COHORT) and ME in survivors and len(survivors) >= limits.min_survivors
        case wire.Sigs(_, got):
            assert isinstance(sigs, wire.Sigs)
            return got.items() <= sigs.sigs.items() and len(got) >= limits.t
        case _:
            return False


def _part(some: Mapping[str, Any], every: Mapping[str, Any]) -> bool:
    return all(name in every and every[name] == item for name, item in some.items())


def coordinator_states() -> list[tuple[CoordinatorConfig, CoordinatorState, bytes]]:
    """Every state of the coordinator, with the next message to it: before each of the messages that it got."""
    run = recorded()
    config, state = run.all_of.server, CoordinatorState()
    aborted, _ = coordinator.step(config, replace(state, phase=coordinator.Phase.ADV), Expired("ADV"))
    first = run.sent(COHORT[0], "ADV")
    seen = [(config, state, first), (config, aborted, first)]
    state, _ = coordinator.step(config, state, Begin())
    while state.phase in coordinator.COLLECTIONS:
        missing = set(coordinator.awaited(config, state)) - ({DEAD} if state.phase == "MSK" else set())
        if not missing:
            state, _ = coordinator.step(config, state, Expired(state.phase))
            continue
        site = min(missing)
        data = run.sent(site, state.phase)
        seen.append((config, unshared(state), data))
        state, _ = coordinator.step(config, state, Received(data, site))
    assert [state.phase, aborted.phase] == ["FINISHED", "ABORTED"]
    return [*seen, (config, state, first)]


def unshared(state: CoordinatorState) -> CoordinatorState:
    """Returns the state with sums of its own: a step changes them in place."""
    return replace(state, sums={k: sums.copy() for k, sums in state.sums.items()})


def sums_of(state: CoordinatorState) -> dict[int, bytes]:
    return {k: sums.tobytes() for k, sums in state.sums.items()}


def check_coordinator(config: CoordinatorConfig, kept: CoordinatorState, strict: bool, data: bytes, choice: int) -> str:
    """Feeds one message: nothing happens, or its sender is dropped, or the message was one to accept."""
    awaited = coordinator.awaited(config, kept)
    everybody = (*awaited, *awaited, *awaited, *COHORT, "spare", "")
    sender = everybody[choice % len(everybody)]
    state = unshared(kept)
    after, effects = coordinator.step(config, state, Received(data, sender))
    if after == state and not effects:
        assert sums_of(after) == sums_of(kept)
        return "ignored"
    assert sender in awaited
    row = coordinator.COLLECTIONS[kept.phase]
    moved = after.phase != kept.phase
    left = set(getattr(after, row.into)) if after.phase in coordinator.COLLECTIONS else set()
    audits = [(effect.event, effect.site) for effect in effects if isinstance(effect, Audit)]
    if ("dropped", sender) in audits:
        assert sender in after.dropped or after.phase is coordinator.Phase.ABORTED
        assert left <= set(getattr(kept, row.into))
        assert moved or (left == set(getattr(kept, row.into)) and sums_of(after) == sums_of(kept))
        return "refused"
    message = wire.decode(data)
    assert isinstance(message, row.accepts)
    assert (message.ctx, message.sender) == (config.context.digest, sender)
    assert moved or sender in left
    if strict and ("bad_share", sender) not in audits:
        assert data == recorded().sent(sender, message.kind)
    for effect in effects:
        if isinstance(effect, Finished):
            assert {k: [int(v) for v in sums] for k, sums in effect.sums.items()} == recorded().oracle
    return "accepted"


def targets() -> list[Target]:
    """Returns every state of both machines, strict and credulous."""
    messages = recorded().messages
    found = []
    for name, suite in SUITES.items():
        strict = name == "strict"
        for config, state, data in client_states():
            check = partial(check_client, replace(config, suite=suite), state, strict)
            found.append(Target(f"client {state.phase} {name}", (data, *messages), check))
        for place, (server, kept, data) in enumerate(coordinator_states()):
            look = partial(check_coordinator, replace(server, suite=suite), kept, strict)
            found.append(Target(f"coordinator {kept.phase} {place} {name}", (data, *messages), look))
    return found
