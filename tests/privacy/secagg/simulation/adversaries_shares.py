"""Scripted adversaries against shares and masked vectors, each with the outcome that it must have."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from privacy.keys.agreement import Secret
from privacy.secagg.bindings import Bindings, leaf, y_digests
from privacy.secagg.effects import Send
from privacy.secagg.encoding import digest
from privacy.secagg.shares import P
from privacy.secagg.wire import Adv, Con, Forwarded, Fwd, Message, Msk, Sealed, Shr, Unm
from tests.privacy.secagg.simulation.adversaries import (
    COHORT,
    CULPRIT,
    LAST,
    VICTIM,
    Case,
    Dealer,
    culprit,
    every,
    only_site,
    without,
)
from tests.privacy.secagg.simulation.schedule import signing_key
from tests.privacy.secagg.simulation.site import read
from tests.privacy.secagg.simulation.world import World


def _swapped_shares(world: World, site: str, message: Message) -> Message:
    del world, site
    assert isinstance(message, Fwd)
    one, two = message.senders[CULPRIT], message.senders[LAST]
    swapped = {CULPRIT: replace(one, sealed=two.sealed), LAST: replace(two, sealed=one.sealed)}
    return replace(message, senders={**message.senders, **swapped})


def _signed_shr(world: World, message: Shr, to: Mapping[str, Sealed]) -> Shr:
    """Signs other shares in the culprit's name."""
    bindings = Bindings(message.ctx, world.state.adverts)
    leaves = [leaf(u, to[u]) for u in bindings.u1]
    text = bindings.shr_message(message.sender, message.bcom, leaves)
    return replace(message, to=dict(to), sig=world.schedule.crypto.sign(signing_key(message.sender), text))


def _dealt_anew(world: World, message: Shr, recipient: str, change: Callable[[int], int]) -> Shr:
    """Gives one recipient another share of ``b``, sealed and committed to as it should be."""
    suite, bindings = world.schedule.crypto, Bindings(message.ctx, world.state.adverts)
    truth = world.sites[message.sender].machines[message.ctx].truth
    place = world.schedule.cohort.index(recipient)
    of = {(kind, where): share for kind, where, share in truth.shares()}
    share_b = change(int.from_bytes(of["b", place], "big")).to_bytes(33, "big")
    share_s = of["s", place]
    shared = suite.agree(Secret(truth.draws[0]), bindings.keys[recipient].c)
    key = suite.kdf(shared.reveal(), "share-enc", bindings.sealing_info(message.sender, recipient))
    ct = suite.seal(key, share_b + share_s, bindings.associated(message.sender, recipient))
    commit = bindings.share_commitment
    sealed = Sealed(
        ct,
        commit("bshare", message.sender, recipient, share_b),
        commit("sshare", message.sender, recipient, share_s),
    )
    return _signed_shr(world, message, {**message.to, recipient: sealed})


def _bad_dealer(world: World, site: str, message: Message) -> Message:
    del site
    assert isinstance(message, Shr)
    return _dealt_anew(world, message, VICTIM, lambda share: (share + 1) % P)


def _wrong_secret(world: World, site: str, message: Message) -> Message:
    """Commits to another ``b`` than the one that is shared."""
    del site
    assert isinstance(message, Shr)
    return _signed_shr(world, replace(message, bcom=digest("bcom", b"another")), message.to)


def _share_and_p_dealt(world: World, site: str, message: Message) -> Message:
    del site
    assert isinstance(message, Shr)
    return _dealt_anew(world, message, VICTIM, lambda share: share + P)


def _bad_ciphertext(world: World, site: str, message: Message) -> Message:
    del site
    assert isinstance(message, Shr)
    sealed = message.to[VICTIM]
    ct = sealed.ct[:-1] + bytes([sealed.ct[-1] ^ 1])
    return _signed_shr(world, message, {**message.to, VICTIM: replace(sealed, ct=ct)})


def _bad_commitment(label: str) -> Callable[[World, str, Message], Message]:
    def change(world: World, site: str, message: Message) -> Message:
        del site
        assert isinstance(message, Shr)
        sealed = replace(message.to[VICTIM], **{label: bytes(32)})
        return _signed_shr(world, message, {**message.to, VICTIM: sealed})

    return change


def _forwarded(change: Callable[[Forwarded], Forwarded]) -> Callable[[World, str, Message], Message]:
    """Changes what the culprit's entry of FWD says."""

    def changed(world: World, site: str, message: Message) -> Message:
        del world, site
        assert isinstance(message, Fwd)
        return replace(message, senders={**message.senders, CULPRIT: change(message.senders[CULPRIT])})

    return changed


def _unm(change: Callable[[bytes], bytes]) -> Callable[[World, str, Message], Message]:
    def changed(world: World, site: str, message: Message) -> Message:
        del world, site
        assert isinstance(message, Unm)
        return replace(message, shares={**message.shares, VICTIM: change(message.shares[VICTIM])})

    return changed


def _plus_p(share: bytes) -> bytes:
    return (int.from_bytes(share, "big") + P).to_bytes(33, "big")


def _own_shares_replaced(world: World, site: str, message: Message) -> Message:
    del world
    assert isinstance(message, Fwd)
    return replace(message, senders={**message.senders, site: replace(message.senders[site], bcom=bytes(32))})


def _not_what_was_signed(world: World, site: str, message: Message) -> Message:
    """Server and dealer give one site another share than the one that the dealer signed for."""
    assert isinstance(message, Fwd)
    other = _dealt_anew(world, world.state.shr[CULPRIT], site, lambda share: (share + 1) % P).to[site]
    return replace(message, senders={**message.senders, CULPRIT: replace(message.senders[CULPRIT], sealed=other)})


_NAMED = {VICTIM: CULPRIT}
_ALL = frozenset(COHORT)
_BLAMED = frozenset({("dropped", CULPRIT)})
SHARES = (
    Case(
        "swapped shares", lambda: only_site(Fwd, _swapped_shares, VICTIM), without(VICTIM), stopped=_NAMED, unsent="MSK"
    ),
    Case(
        "own shares replaced",
        lambda: only_site(Fwd, _own_shares_replaced, VICTIM),
        without(VICTIM),
        stopped=every(VICTIM),
        unsent="MSK",
    ),
    Case(
        "not the share that was signed for",
        lambda: replace(only_site(Fwd, _not_what_was_signed, VICTIM), active=frozenset({CULPRIT})),
        without(VICTIM),
        stopped=_NAMED,
        unsent="MSK",
    ),
    Case("bad dealer", lambda: Dealer(_bad_dealer), None, frozenset({("bad_dealer", CULPRIT)})),
    Case("wrong secret", lambda: Dealer(_wrong_secret), None, frozenset({("bad_dealer", CULPRIT)})),
    Case("share + p dealt", lambda: Dealer(_share_and_p_dealt), without(VICTIM), stopped=_NAMED, unsent="MSK"),
    Case("bad ciphertext", lambda: Dealer(_bad_ciphertext), without(VICTIM), stopped=_NAMED, unsent="MSK"),
    Case(
        "bad commitment to b", lambda: Dealer(_bad_commitment("bshare")), without(VICTIM), stopped=_NAMED, unsent="MSK"
    ),
    Case(
        "bad commitment to s", lambda: Dealer(_bad_commitment("sshare")), without(VICTIM), stopped=_NAMED, unsent="MSK"
    ),
    Case(
        "unsigned shares",
        lambda: only_site(Fwd, _forwarded(lambda f: replace(f, sig=bytes(64))), VICTIM),
        without(VICTIM),
        stopped=_NAMED,
        unsent="MSK",
    ),
    Case(
        "other bcom forwarded",
        lambda: only_site(Fwd, _forwarded(lambda f: replace(f, bcom=bytes(32))), VICTIM),
        without(VICTIM),
        stopped=_NAMED,
        unsent="MSK",
    ),
    Case(
        "other leaves forwarded",
        lambda: only_site(Fwd, _forwarded(lambda f: replace(f, leaves=f.leaves[:-1])), VICTIM),
        without(VICTIM),
        stopped=_NAMED,
        unsent="MSK",
    ),
    Case("share + p revealed", lambda: culprit(Unm, _unm(_plus_p)), _ALL, frozenset({("bad_share", CULPRIT)})),
    Case(
        "wrong share revealed",
        lambda: culprit(Unm, _unm(lambda share: share[:-1] + bytes([share[-1] ^ 1]))),
        _ALL,
        frozenset({("bad_share", CULPRIT)}),
    ),
)


# --- Masked vectors -----------------------------------------------------------------------------------


def _msk(change: Callable[[Msk], Msk]) -> Callable[[World, str, Message], Message]:
    def changed(world: World, site: str, message: Message) -> Message:
        del site
        assert isinstance(message, Msk)
        out = change(message)
        text = world.state.bindings.msk_message(CULPRIT, y_digests(out.y))
        return replace(out, sig=world.schedule.crypto.sign(signing_key(CULPRIT), text))

    return changed


def _unsigned(world: World, site: str, message: Message) -> Message:
    del world, site
    assert isinstance(message, Adv | Shr | Msk | Con)
    return replace(message, sig=bytes(64))


def _in_anothers_name(world: World, site: str, message: Message) -> Message:
    """Sends what another site has sent already: added twice, it would spoil the sum."""
    del site, message
    sent = [read(effect.data) for effect in world.sites[COHORT[0]].log if isinstance(effect, Send)]
    return next(copied for copied in sent if isinstance(copied, Msk))


VECTORS = (
    Case(
        "too short a vector",
        lambda: culprit(Msk, _msk(lambda m: replace(m, y={**m.y, 0: m.y[0][:-4]}))),
        without(CULPRIT),
        _BLAMED,
    ),
    Case(
        "a region left out", lambda: culprit(Msk, _msk(lambda m: replace(m, y={0: m.y[0]}))), without(CULPRIT), _BLAMED
    ),
    Case("in another's name", lambda: culprit(Msk, _in_anothers_name), without(CULPRIT), _BLAMED),
    Case("unsigned ADV", lambda: culprit(Adv, _unsigned), without(CULPRIT), _BLAMED),
    Case("unsigned SHR", lambda: culprit(Shr, _unsigned), without(CULPRIT), _BLAMED),
    Case("unsigned MSK", lambda: culprit(Msk, _unsigned), without(CULPRIT), _BLAMED),
    Case("unsigned CON", lambda: culprit(Con, _unsigned), _ALL, _BLAMED, every(CULPRIT)),
)
