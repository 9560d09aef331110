"""The server's side of one attempt, as a pure state machine (§7): it learns who took part, and one sum per region.

A phase closes when everybody expected has answered or its time is over. A site whose message fails a check is dropped
and named; late, repeated, out-of-phase and unknown messages change nothing. Masked vectors are added on arrival, in
place, and not kept: memory does not grow with the number of sites.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal

import numpy as np

from privacy.errors import ConfigError, RemoteProtocolError
from privacy.keys.agreement import Secret, check_public
from privacy.secagg import effects, opening, wire
from privacy.secagg.bindings import Bindings, advert_message, leaf, y_digests
from privacy.secagg.checked import refuse_unless
from privacy.secagg.context import Roster, RoundContext
from privacy.secagg.encoding import MAX_CONTROL_BYTES
from privacy.secagg.masks import Mask, apply_streams
from privacy.secagg.ring import Ring, from_ring, ring_dtype
from privacy.secagg.shares import combine
from privacy.secagg.suite import RealSuite


class Phase(StrEnum):
    """States of the coordinator, named for the message that it collects."""

    IDLE = "IDLE"
    ADV = "ADV"
    SHR = "SHR"
    MSK = "MSK"
    CON = "CON"
    UNM = "UNM"
    FINISHED = "FINISHED"
    ABORTED = "ABORTED"


@dataclass(frozen=True)
class CoordinatorConfig:
    """What an attempt is run with; all public.

    Attributes:
      context: Of the attempt.
      roster: The one that the context names.
      region_digests: ``r_k`` of every region (§2.4).
      suite: The primitives.
    """

    context: RoundContext
    roster: Roster
    region_digests: tuple[bytes, ...]
    suite: RealSuite = field(repr=False)

    def __post_init__(self) -> None:
        if self.context.roster != self.roster.digest or not set(self.context.cohort) <= set(self.roster.keys):
            raise ConfigError("the context names another roster, or a site that the roster lacks")
        if len(self.region_digests) != len(self.context.regions):
            raise ConfigError("there is not one digest for every region")

    @cached_property
    def limit(self) -> int:
        """Most bytes of a message that are looked at."""
        entries = sum(region.length for region in self.context.regions)
        return MAX_CONTROL_BYTES + entries * self.context.bits // 8


@dataclass(frozen=True)
class CoordinatorState:
    """Where the coordinator is. Only ``sums`` is changed in place, after every check of the vector that is added.

    Attributes:
      phase: What is collected.
      adverts: By site; U1 once the phase is over.
      shr: By site; U2 once the phase is over.
      msk: Digests and signature by site; U3 once the phase is over.
      con: Signature over U3 by site.
      unm: Shares that matched their commitment, by revealing site and dealer. Secret until the sum is opened.
      sums: Running sum by active region, masked.
      dropped: Sites whose message was refused.
      active: Active regions.
      bindings: To U1; to nobody before SHR.
    """

    phase: Phase = Phase.IDLE
    adverts: Mapping[str, wire.Advert] = field(default_factory=dict, repr=False)
    shr: Mapping[str, wire.Shr] = field(default_factory=dict, repr=False)
    msk: Mapping[str, tuple[Mapping[int, bytes], bytes]] = field(default_factory=dict, repr=False)
    con: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    unm: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict, repr=False)
    sums: Mapping[int, Ring] = field(default_factory=dict, repr=False)
    dropped: frozenset[str] = frozenset()
    active: tuple[int, ...] = ()
    bindings: Bindings = field(default=Bindings(b"", {}), repr=False)

    @property
    def survivors(self) -> tuple[str, ...]:
        """Sites whose MSK was added, in order."""
        return tuple(sorted(self.msk))


_Result = tuple[CoordinatorState, tuple[effects.Effect, ...]]


@dataclass(frozen=True)
class Collection:
    """One row of the table: what a phase collects, from whom, into what, and what follows.

    Attributes:
      accepts: Kind of message.
      into: Field of the state that the answers are in.
      asked: Field whose sites are asked; empty for the cohort.
      take: Checks one message and returns the state with it.
      close: Goes on to the next phase.
    """

    accepts: type[wire.SiteMessage]
    into: str
    asked: str
    take: Callable[[CoordinatorConfig, CoordinatorState, Any], _Result]
    close: Callable[[CoordinatorConfig, CoordinatorState], _Result]


def step(config: CoordinatorConfig, state: CoordinatorState, event: effects.ProtocolEvent) -> _Result:
    """Takes one event.

    Guarantees: no bytes make it raise; only sets that pass §7.1 and §7.3 go on; ``sums`` of a state before the step
    must not be used after it.

    Args:
      config: Of the attempt.
      state: ``CoordinatorState()`` at first.
      event: Begin, Received with a sender, or Expired.

    Returns: The next state, and what the driver does, in this order.
    Raises: LocalProtocolError: A bug of ours.
    """
    match event:
        case effects.Begin() if state.phase is Phase.IDLE:
            return _begin(config, state)
        case effects.Received(data, sender) if state.phase in COLLECTIONS:
            return _receive(config, state, data, sender)
        case effects.Expired(phase) if phase == state.phase and state.phase in COLLECTIONS:
            return _close(config, state)
        case _:
            return state, ()  # §7.4


def awaited(config: CoordinatorConfig, state: CoordinatorState) -> tuple[str, ...]:
    """Returns the sites whose answer this phase still waits for, in order."""
    row = COLLECTIONS.get(state.phase)
    if row is None:
        return ()
    asked = getattr(state, row.asked) if row.asked else config.context.cohort
    return tuple(sorted(set(asked) - set(getattr(state, row.into)) - state.dropped))


def _begin(config: CoordinatorConfig, state: CoordinatorState) -> _Result:
    context = config.context
    messages = {}
    for site in context.cohort:
        held = set(context.held(site))
        others = {k: value for k, value in enumerate(config.region_digests) if k not in held}
        messages[site] = wire.Start(context.digest, context.encode(), others).encode()
    return _ask(replace(state, phase=Phase.ADV), messages, context.durations.keys)


def _ask(state: CoordinatorState, messages: Mapping[str, bytes], seconds: int) -> _Result:
    """§7.1: waits half as long as sites do; else one that is silent makes all others give up first."""
    sends = (effects.SendTo(site, data) for site, data in messages.items())
    return state, (*sends, effects.Timer(seconds // 2, state.phase))


def _receive(config: CoordinatorConfig, state: CoordinatorState, data: bytes, sender: str) -> _Result:
    row = COLLECTIONS[state.phase]
    if sender not in awaited(config, state):
        return state, ()  # §7.4: unknown, repeated or dropped
    try:
        message = wire.decode(data, limit=config.limit)
        if message.ctx != config.context.digest or not isinstance(message, row.accepts):
            return state, ()  # §7.4: of another attempt or phase
        refuse_unless(message.sender == sender, "a message names another site than the one that sent it")
        taken, asked = row.take(config, state, message)
    except RemoteProtocolError as error:
        # §7.2
        taken = replace(state, dropped=state.dropped | {sender})
        asked = (effects.Audit("dropped", sender, f"{row.accepts.kind}: {error}"),)
    if awaited(config, taken):
        return taken, asked
    closed, more = _close(config, taken)
    return closed, (*asked, *more)


def _close(config: CoordinatorConfig, state: CoordinatorState) -> _Result:
    try:
        return COLLECTIONS[state.phase].close(config, state)
    except RemoteProtocolError as error:
        return _abort(str(error))


def _abort(reason: str, *named: effects.Audit, site: str = "", region: int | None = None) -> _Result:
    audits = (*named, effects.Audit("aborted", site, reason))
    return CoordinatorState(Phase.ABORTED), (*audits, effects.Aborted(reason, site, region))


def _take_adv(config: CoordinatorConfig, state: CoordinatorState, message: wire.Adv) -> _Result:
    advert = wire.Advert(message.c, message.s, message.sig)
    check_public(advert.c)  # §1.6
    check_public(advert.s)
    every = [key for one in (*state.adverts.values(), advert) for key in (one.c, one.s)]
    refuse_unless(len(set(every)) == len(every), "a key occurs twice")
    signed = advert_message(message.ctx, message.sender, advert.c, advert.s)
    config.suite.verify(config.roster.keys[message.sender], advert.sig, signed)
    return replace(state, adverts={**state.adverts, message.sender: advert}), ()


def _close_adv(config: CoordinatorConfig, state: CoordinatorState) -> _Result:
    context = config.context
    u1 = tuple(sorted(state.adverts))
    context.check_set("U1", u1, context.cohort)  # §7.1
    active = context.active(u1)  # §7.3
    refuse_unless(bool(active), "no region has enough holders in U1")
    data = wire.Keys(context.digest, state.adverts).encode()
    after = replace(state, phase=Phase.SHR, active=active, bindings=Bindings(context.digest, state.adverts))
    return _ask(after, dict.fromkeys(u1, data), context.durations.fwd)


def _take_shr(config: CoordinatorConfig, state: CoordinatorState, message: wire.Shr) -> _Result:
    bindings = state.bindings
    refuse_unless(set(message.to) == set(bindings.u1), "the shares are not for U1")
    without = [u for u, sealed in message.to.items() if not sealed.ct]
    refuse_unless(without == [message.sender], "a ciphertext is missing, or one is for the sender itself")
    leaves = [leaf(u, message.to[u]) for u in bindings.u1]
    signed = bindings.shr_message(message.sender, message.bcom, leaves)
    config.suite.verify(config.roster.keys[message.sender], message.sig, signed)
    return replace(state, shr={**state.shr, message.sender: message}), ()


def _close_shr(config: CoordinatorConfig, state: CoordinatorState) -> _Result:
    context, bindings = config.context, state.bindings
    u2 = tuple(sorted(state.shr))
    lost = context.uncovered(state.active, u2)
    if lost is not None:
        return _abort(f"region {lost} has too few holders left after SHR", region=lost)  # §7.3
    context.check_set("U2", u2, bindings.u1)  # §7.1
    leaves = {u: tuple(leaf(v, state.shr[u].to[v]) for v in bindings.u1) for u in u2}
    messages = {}
    for recipient in u2:
        senders = {u: wire.Forwarded(m.bcom, m.to[recipient], leaves[u], m.sig) for u, m in state.shr.items()}
        messages[recipient] = wire.Fwd(context.digest, senders).encode()
    zeros = {k: np.zeros(context.regions[k].length, dtype=ring_dtype(context.bits)) for k in state.active}
    return _ask(replace(state, phase=Phase.MSK, sums=zeros), messages, context.durations.surv)


def _take_msk(config: CoordinatorConfig, state: CoordinatorState, message: wire.Msk) -> _Result:
    carried = config.context.carried(state.active, message.sender)
    refuse_unless(tuple(message.y) == carried, "the vectors are not those of the active regions that the site holds")
    whole = all(len(value) == state.sums[k].nbytes for k, value in message.y.items())
    refuse_unless(whole, "a masked vector has the wrong length")
    digests = y_digests(message.y)
    signed = state.bindings.msk_message(message.sender, digests)
    config.suite.verify(config.roster.keys[message.sender], message.sig, signed)
    for k, value in message.y.items():
        state.sums[k][:] += np.frombuffer(value, dtype=state.sums[k].dtype)  # §4.4: added on arrival, not kept
    return replace(state, msk={**state.msk, message.sender: (digests, message.sig)}), ()


def _close_msk(config: CoordinatorConfig, state: CoordinatorState) -> _Result:
    context, survivors = config.context, state.survivors  # §4.4: U3 is what was added
    lost = context.uncovered(state.active, survivors)
    if lost is not None:
        return _abort(f"region {lost} has too few holders left after MSK", region=lost)  # §7.3
    context.check_set("U3", survivors, tuple(state.shr))  # §7.1
    data = wire.Surv(context.digest, survivors).encode()
    return _ask(replace(state, phase=Phase.CON), dict.fromkeys(survivors, data), context.durations.sigs)


def _take_con(config: CoordinatorConfig, state: CoordinatorState, message: wire.Con) -> _Result:
    signed = state.bindings.survivors_message(state.survivors)
    config.suite.verify(config.roster.keys[message.sender], message.sig, signed)
    return replace(state, con={**state.con, message.sender: message.sig}), ()


def _close_con(config: CoordinatorConfig, state: CoordinatorState) -> _Result:
    context = config.context
    refuse_unless(len(state.con) >= context.thresholds.t, "fewer sites than the threshold signed the survivors")  # §7.1
    data = wire.Sigs(context.digest, state.con).encode()
    return _ask(replace(state, phase=Phase.UNM), dict.fromkeys(sorted(state.con), data), context.durations.sigs)


def _take_unm(config: CoordinatorConfig, state: CoordinatorState, message: wire.Unm) -> _Result:
    del config
    refuse_unless(set(message.shares) == set(state.shr), "the shares are not those of U2")
    good: dict[str, bytes] = {}
    audits = []
    for dealer, share in message.shares.items():
        sealed = state.shr[dealer].to[message.sender]
        label: Literal["bshare", "sshare"] = "bshare" if dealer in state.msk else "sshare"
        dealt = sealed.bshare if label == "bshare" else sealed.sshare
        if state.bindings.share_commitment(label, dealer, message.sender, share) == dealt:
            good[dealer] = share
        else:  # §4.5: dropped, its sender named
            audits.append(effects.Audit("bad_share", message.sender, f"not the share that {dealer} dealt"))
    return replace(state, unm={**state.unm, message.sender: good}), tuple(audits)


def _close_unm(config: CoordinatorConfig, state: CoordinatorState) -> _Result:
    context = config.context
    t = context.thresholds.t
    refuse_unless(len(state.unm) >= t, "fewer sites than the threshold revealed their shares")  # §7.1
    view = opening.View(context, state.bindings, state.active, config.suite)
    masks: list[Mask] = []
    for dealer in sorted(state.shr):
        shares = {context.place(u): given[dealer] for u, given in state.unm.items() if dealer in given}
        refuse_unless(len(shares) >= t, f"fewer good shares than the threshold for {dealer}")
        try:
            secret = Secret(combine(shares, t))
            if dealer in state.msk:
                masks.append(opening.of_seed(view, dealer, secret, state.shr[dealer].bcom))
            else:
                masks += opening.of_private_key(view, dealer, secret, state.survivors)
        except RemoteProtocolError as error:
            named = effects.Audit("bad_dealer", dealer, str(error))  # §4.5
            return _abort(f"the shares that {dealer} dealt do not open its secret", named, site=dealer)
    apply_streams(state.sums, masks, context.bits, config.suite.stream)
    sums = {k: from_ring(residues, context.bits) for k, residues in state.sums.items()}  # §4.6
    finished = effects.Finished(state.survivors, sums, _transcript(config, state))
    return CoordinatorState(Phase.FINISHED), (finished,)


def _transcript(config: CoordinatorConfig, state: CoordinatorState) -> effects.Transcript:
    return effects.Transcript(
        context=config.context.encode(),
        adverts=state.adverts,
        u2=tuple(sorted(state.shr)),
        y_digests={u: state.msk[u][0] for u in state.survivors},
        msk_signatures={u: state.msk[u][1] for u in state.survivors},
        survivors=state.survivors,
        con_signatures=state.con,
        active=state.active,
    )


COLLECTIONS: Mapping[Phase, Collection] = {
    Phase.ADV: Collection(wire.Adv, "adverts", "", _take_adv, _close_adv),
    Phase.SHR: Collection(wire.Shr, "shr", "adverts", _take_shr, _close_shr),
    Phase.MSK: Collection(wire.Msk, "msk", "shr", _take_msk, _close_msk),
    Phase.CON: Collection(wire.Con, "con", "msk", _take_con, _close_con),
    Phase.UNM: Collection(wire.Unm, "unm", "con", _take_unm, _close_unm),
}
"""Phases in order (§7.1); in IDLE, FINISHED and ABORTED no message changes anything."""
