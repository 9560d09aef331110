"""A site's side of one attempt, as a pure state machine: ``step(config, state, event) -> (state, effects)`` (§3, §5).

Every refusal ends in ABORTED, which holds nothing. The order of the checks is the order of the specification; the
clause stands on the line that does it. A refusal that depends on the input's entries leaves behind a debit, as they
themselves would. One machine serves one attempt, in memory only: a site that restarts is a drop-out.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from privacy.errors import RemoteProtocolError, SensitivityError
from privacy.keys.agreement import Secret, check_public
from privacy.secagg import effects, wire
from privacy.secagg.admission import ClientConfig, LocalInput, admit, check_entries
from privacy.secagg.bindings import Bindings, advert_message, pair_sign, y_digests
from privacy.secagg.checked import refuse_unless
from privacy.secagg.context import RoundContext
from privacy.secagg.dealing import deal, naming, open_shares
from privacy.secagg.encoding import draw
from privacy.secagg.masks import apply_streams
from privacy.secagg.ring import to_ring
from privacy.secagg.shares import SECRET_BYTES


class Phase(StrEnum):
    """States of a site (§5)."""

    IDLE = "IDLE"
    ADVERTISED = "ADVERTISED"
    SHARED = "SHARED"
    MASKED = "MASKED"
    SIGNED = "SIGNED"
    DONE = "DONE"
    ABORTED = "ABORTED"


@dataclass(frozen=True)
class _Advertised:
    context: RoundContext
    own: LocalInput
    c: Secret
    s: Secret
    advert: wire.Advert


@dataclass(frozen=True)
class _Shared:
    context: RoundContext
    bindings: Bindings
    active: tuple[int, ...]
    own: LocalInput
    c: Secret
    s: Secret
    b: Secret
    kept: tuple[Secret, Secret]
    sent: wire.Forwarded


@dataclass(frozen=True)
class _Masked:
    context: RoundContext
    bindings: Bindings
    active: tuple[int, ...]
    shares: Mapping[str, tuple[Secret, Secret]]


@dataclass(frozen=True)
class _Signed:
    context: RoundContext
    bindings: Bindings
    shares: Mapping[str, tuple[Secret, Secret]]
    survivors: tuple[str, ...]


_Memory = LocalInput | _Advertised | _Shared | _Masked | _Signed


@dataclass(frozen=True)
class ClientState:
    """Where a site is. Secrets are in ``memory``, which is not shown and is None in DONE and ABORTED.

    Attributes:
      phase: State of §5.
      memory: What this state remembers. Secret.
      ctx: Digest of the context; empty in IDLE.
      accepted: SHA-256 of every accepted message, the last one last; five at most.
      reply: The bytes that answered it; sent, hence no longer secret from the server.
    """

    phase: Phase
    memory: _Memory | None = field(repr=False)
    ctx: bytes = b""
    accepted: tuple[bytes, ...] = ()
    reply: bytes = field(default=b"", repr=False)


_Result = tuple[ClientState, tuple[effects.Effect, ...]]


def idle(own: LocalInput) -> ClientState:
    """Returns the state before START."""
    return ClientState(Phase.IDLE, own)


class _Outcome(NamedTuple):
    memory: _Memory | None
    reply: wire.Message
    record: effects.Attempt | effects.Debit | None = None


@dataclass(frozen=True)
class Transition:
    """One row of the table in §5; ``waits`` names the duration of the state that it goes to."""

    accepts: type[wire.Message]
    goes_to: Phase
    act: Callable[[ClientConfig, Any, Any], _Outcome]
    waits: str = ""


def step(config: ClientConfig, state: ClientState, event: effects.ProtocolEvent) -> _Result:
    """Takes one event.

    Guarantees: no bytes make it raise; a message is accepted in one state only; a state without a way on holds no
    secrets. ``Send`` follows the ``Persist`` that it depends on in the same tuple.

    Args:
      config: Of the site.
      state: Unchanged.
      event: Received, Expired or Persisted.

    Returns: The next state, and what the driver does, in this order.
    Raises: LocalProtocolError: A bug of ours, such as a random source that runs short.
    """
    match event:
        case effects.Received(data):
            return _receive(config, state, data)
        case effects.Expired(phase) if phase == state.phase and state.phase in TRANSITIONS:
            return _abort("the server did not answer in time")
        case effects.Persisted(ok=False) if state.phase in TRANSITIONS:
            return _abort("a record could not be written down")
        case _:
            return state, ()


def _receive(config: ClientConfig, state: ClientState, data: bytes) -> _Result:
    mark = hashlib.sha256(data).digest()
    if state.accepted[-1:] == (mark,):
        return state, (effects.Send(state.reply),)  # §3: a repetition gets the same bytes
    row = TRANSITIONS.get(state.phase)
    if row is None or mark in state.accepted:
        return state, ()  # §5: DONE and ABORTED accept nothing; §3: a repetition that was overtaken says nothing new
    try:
        message = wire.decode(data)
        if message.ctx != state.ctx and not (state.phase is Phase.IDLE and isinstance(message, wire.Start)):
            return state, ()  # §3: another attempt's message
        refuse_unless(isinstance(message, row.accepts), f"{message.kind} is not expected in {state.phase}")
        outcome = row.act(config, state.memory, message)
    except RemoteProtocolError as error:
        return _abort(str(error), error.site_id)
    except SensitivityError as error:  # §3.5: of the input's entries, in SHARED alone; it tells of the records
        return _abort(str(error), "", effects.Persist(_debit(config, state.memory)))
    reply = outcome.reply.encode()
    record = () if outcome.record is None else (effects.Persist(outcome.record),)
    after: effects.Effect = effects.Finished(getattr(state.memory, "survivors", ()))
    if isinstance(outcome.memory, _Advertised | _Shared | _Masked | _Signed):
        seconds = getattr(outcome.memory.context.durations, row.waits)
        after = effects.Timer(min(seconds, config.policy.longest_wait), row.goes_to)
    accepted = (*state.accepted, mark)
    return ClientState(row.goes_to, outcome.memory, message.ctx, accepted, reply), (*record, effects.Send(reply), after)


def _abort(why: str, site: str = "", *paid: effects.Effect) -> _Result:
    return ClientState(Phase.ABORTED, None), (*paid, effects.Audit("aborted", site, why), effects.Aborted(why, site))


def _on_start(config: ClientConfig, own: LocalInput, message: wire.Start) -> _Outcome:
    context = admit(config, own, message)
    c, s = Secret(draw(config.entropy, 32)), Secret(draw(config.entropy, 32))  # §4.7
    public_c, public_s = config.suite.public(c), config.suite.public(s)
    signature = config.suite.sign(config.key, advert_message(context.digest, config.site, public_c, public_s))
    after = _Advertised(context, own, c, s, wire.Advert(public_c, public_s, signature))
    reply = wire.Adv(context.digest, config.site, public_c, public_s, signature)
    record = effects.Attempt(context.run, context.round, context.attempt)
    return _Outcome(after, reply, record)  # §6.1: the record is durable before ADV leaves


def _on_keys(config: ClientConfig, memory: _Advertised, message: wire.Keys) -> _Outcome:
    context, keys = memory.context, message.keys
    context.check_set("U1", tuple(keys), context.cohort)
    refuse_unless(keys.get(config.site) == memory.advert, "KEYS has another entry for this site than it sent")
    for site, advert in keys.items():
        with naming(site):
            check_public(advert.c)  # §1.6
            check_public(advert.s)
    every = [key for advert in keys.values() for key in (advert.c, advert.s)]
    refuse_unless(len(set(every)) == len(every), "a key occurs twice in KEYS")
    for site, advert in keys.items():
        with naming(site):
            signed = advert_message(context.digest, site, advert.c, advert.s)
            config.suite.verify(config.roster.keys[site], advert.sig, signed)
    active = context.active(keys)
    refuse_unless(bool(active), "no region has enough holders in U1")
    bindings = Bindings(context.digest, keys)
    b = Secret(draw(config.entropy, SECRET_BYTES))  # §4.7
    reply, kept, sent = deal(config, context, bindings, c=memory.c, s=memory.s, b=b)
    return _Outcome(_Shared(context, bindings, active, memory.own, memory.c, memory.s, b, kept, sent), reply)


def _on_fwd(config: ClientConfig, memory: _Shared, message: wire.Fwd) -> _Outcome:
    context, bindings = memory.context, memory.bindings
    u2 = tuple(message.senders)
    refuse_unless(config.site in u2, "FWD leaves this site out")
    context.check_set("U2", u2, bindings.u1, memory.active)  # §3.4: every active region, held or not
    refuse_unless(message.senders[config.site] == memory.sent, "FWD has another entry for this site than it sent")
    shares = {config.site: memory.kept}
    for u in u2:
        if u != config.site:
            with naming(u):
                shares[u] = open_shares(config, bindings, memory.c, u, message.senders[u])
    check_entries(context, memory.own)  # §3.5: here and not at START, where a refusal would be free
    y = _masked(config, memory, u2)
    signature = config.suite.sign(config.key, bindings.msk_message(config.site, y_digests(y)))
    # §3.5: the debit is durable before MSK leaves; b, s, c and the input are not in what is remembered.
    after = _Masked(context, bindings, memory.active, shares)
    return _Outcome(after, wire.Msk(context.digest, config.site, y, signature), _debit(config, memory))


def _debit(config: ClientConfig, memory: Any) -> effects.Debit:
    context, regions = memory.context, memory.context.carried(memory.active, config.site)
    return effects.Debit(context.run, context.round, context.attempt, context.digest, regions)


def _masked(config: ClientConfig, memory: _Shared, u2: tuple[str, ...]) -> dict[int, bytes]:
    """Returns ``y`` (§4.2): the input under the self mask and one pair mask per other site of U2."""
    me, suite, context, bindings = config.site, config.suite, memory.context, memory.bindings
    regions = context.carried(memory.active, me)
    vectors = {k: to_ring(memory.own.vectors[k], context.bits) for k in regions}
    masks = [bindings.self_mask(suite, memory.b, me, regions, 1)]
    for u in u2:
        both = context.carried(memory.active, me, u)
        if u != me and both:
            with naming(u):
                masks.append(bindings.pair_mask(suite, memory.s, me, u, regions=both, sign=pair_sign(me, u)))
    apply_streams(vectors, masks, context.bits, suite.stream)
    return {k: vector.tobytes() for k, vector in vectors.items()}


def _on_surv(config: ClientConfig, memory: _Masked, message: wire.Surv) -> _Outcome:
    survivors = message.survivors
    refuse_unless(config.site in survivors, "SURV leaves this site out")
    memory.context.check_set("U3", survivors, tuple(memory.shares), memory.active)  # §3.6: held or not
    signature = config.suite.sign(config.key, memory.bindings.survivors_message(survivors))  # §3.7: once, then SIGNED
    after = _Signed(memory.context, memory.bindings, memory.shares, survivors)
    return _Outcome(after, wire.Con(memory.bindings.ctx, config.site, signature))


def _on_sigs(config: ClientConfig, memory: _Signed, message: wire.Sigs) -> _Outcome:
    refuse_unless(set(message.sigs) <= set(memory.survivors), "SIGS has a signature from outside U3")
    signed = memory.bindings.survivors_message(memory.survivors)
    for u, signature in message.sigs.items():
        with naming(u):
            config.suite.verify(config.roster.keys[u], signature, signed)  # §3.8: over this site's own U3
    refuse_unless(len(message.sigs) >= memory.context.thresholds.t, "SIGS has fewer signatures than the threshold")
    # §3.9: of b for a survivor, else of s; never both.
    shares = {u: (of_b if u in memory.survivors else of_s).reveal() for u, (of_b, of_s) in memory.shares.items()}
    return _Outcome(None, wire.Unm(memory.bindings.ctx, config.site, dict(sorted(shares.items()))))


TRANSITIONS: Mapping[Phase, Transition] = {
    Phase.IDLE: Transition(wire.Start, Phase.ADVERTISED, _on_start, "keys"),
    Phase.ADVERTISED: Transition(wire.Keys, Phase.SHARED, _on_keys, "fwd"),
    Phase.SHARED: Transition(wire.Fwd, Phase.MASKED, _on_fwd, "surv"),
    Phase.MASKED: Transition(wire.Surv, Phase.SIGNED, _on_surv, "sigs"),
    Phase.SIGNED: Transition(wire.Sigs, Phase.DONE, _on_sigs),
}
"""The table of §5; DONE and ABORTED accept nothing. In every state of the table an expiry or a refusal aborts."""
