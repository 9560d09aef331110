"""What a site refuses, check by check, and that refusing leaves nothing behind."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.errors import ConfigError, LocalProtocolError
from privacy.keys.agreement import Secret
from privacy.secagg import client
from privacy.secagg.admission import ClientConfig, LocalInput, SitePolicy
from privacy.secagg.bindings import Bindings, advert_message, leaf
from privacy.secagg.client import TRANSITIONS, ClientState, Phase, step
from privacy.secagg.context import Block, Region, RoundContext, region_digest
from privacy.secagg.effects import Aborted, Attempt, Debit, Effect, Expired, Persist, Persisted, Received, Send, Timer
from privacy.secagg.encoding import dumps, labelled, loads
from privacy.secagg.shares import P
from privacy.secagg.suite import RealSuite
from privacy.secagg.wire import (
    Adv,
    Advert,
    Fwd,
    Keys,
    Message,
    Msk,
    Sealed,
    Shr,
    Sigs,
    Start,
    Surv,
    Unm,
    decode,
)
from tests.privacy.secagg.parties import RUN, Log, Parties, exchange, identity, parties, site_ids

ME = "site-2"
SUITE = RealSuite()
LABELS: tuple[Literal["bshare", "sshare"], ...] = ("bshare", "sshare")


def flip(data: bytes, at: int = 0) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def refused(all_of: Parties, kind: str, change: Callable[[Any], Message | bytes], *, keep: str = "") -> Log:
    """Changes the message of that kind to one site; that site must abort, hold nothing and send nothing more."""
    order = ["START", "KEYS", "FWD", "SURV", "SIGS"]
    answers = ["ADV", "SHR", "MSK", "CON", "UNM"]

    def arrive(site: str, message: Message) -> Message | bytes:
        return change(message) if site == ME and message.kind == kind else message

    log = exchange(all_of, arrive)
    state = all_of.states[ME]
    assert state == ClientState(Phase.ABORTED, None)
    assert log.kinds(ME) == answers[: order.index(kind)]
    aborted = log.aborted(ME)
    assert aborted is not None
    assert keep in aborted.reason
    return log


# START -------------------------------------------------------------------------------------------------------------


def restart(change: dict[str, Any]) -> Callable[[Start], Start]:
    """A START over a context with changed fields, correctly bound."""

    def changed(message: Start) -> Start:
        context = dumps({**loads(message.context), **change})
        return replace(message, context=context, ctx=RoundContext.decode(context).digest)

    return changed


def one_region(holders: list[str], blocks: list[list[int]]) -> list[dict[str, Any]]:
    return [{"holders": holders, "blocks": blocks}]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"cohort": ["site-1", "site-3", "site-4"], "regions": one_region(["site-1"], [[1, 1]])}, "not in the cohort"),
        ({"roster": bytes(32)}, "another roster"),
        ({"cohort": ["site-1", ME, "site-3", "stranger"], "regions": one_region([ME], [[42, 1]])}, "roster lacks"),
        ({"job": bytes(32)}, "another job"),
        ({"model_root": bytes(32)}, "another model"),
        ({"n_c": 0}, "below this site's floor"),
        ({"regions": one_region(list(site_ids(4)), [[41, 2**20]])}, "another model"),
    ],
)  # fmt: skip
def test_start_is_checked(change: dict[str, Any], why: str) -> None:
    refused(parties(4), "START", restart(change), keep=why)


@pytest.mark.parametrize("change", [{"t": 2}, {"min_survivors": 2}, {"min_cover": 2}, {"version": 2}, {"attempt": 4}])
def test_a_context_below_the_floors_is_refused(change: dict[str, Any]) -> None:
    def changed(message: Start) -> Start:
        return replace(message, context=dumps({**loads(message.context), **change}))

    refused(parties(4), "START", changed)


def test_start_is_bound_to_its_context() -> None:
    refused(parties(4), "START", lambda m: replace(m, ctx=flip(m.ctx)), keep="another context")


def two_regions(cohort: tuple[str, ...]) -> tuple[Region, ...]:
    """The second region is not held by ME."""
    return (Region(cohort, (Block(3, 9),)), Region(tuple(c for c in cohort if c != ME), (Block(5, 9),)))


@pytest.mark.parametrize("others", [{}, {0: bytes(32)}, {0: bytes(32), 1: bytes(32)}, {1: bytes(32)}])
def test_digests_of_other_regions_are_checked(others: dict[int, bytes]) -> None:
    refused(parties(5, regions=two_regions), "START", lambda m: replace(m, others=others))


def test_a_site_uses_its_own_digest_of_what_it_trained_on() -> None:
    all_of = parties(4)
    own = all_of.inputs[ME]
    all_of.states[ME] = client.idle(replace(own, values_digests={0: bytes(32)}))
    refused(all_of, "START", lambda m: m, keep="another model")
    # Not even when the server sends a digest for it.
    digest = region_digest(0, 42, site_ids(4), own.values_digests[0])
    all_of = parties(4)
    all_of.states[ME] = client.idle(replace(own, values_digests={0: bytes(32)}))
    refused(all_of, "START", lambda m: replace(m, others={0: digest}))


def inputs(vector: Any) -> Callable[[LocalInput], LocalInput]:
    return lambda own: replace(own, vectors={0: vector})


EDGE = np.zeros(42, dtype=np.int64)
EDGE[0] = 1000


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (inputs(np.ones(41, dtype=np.int64)), "shape"),
        (inputs(np.ones((42, 1), dtype=np.int64)), "shape"),
        (inputs(np.ones(42, dtype=np.float64)), "type"),
        (lambda own: replace(own, vectors={}), "regions"),
        (lambda own: replace(own, vectors={**own.vectors, 1: own.vectors[0]}), "regions"),
        (lambda own: replace(own, values_digests={}), "regions"),
        (lambda own: replace(own, plan_digest=bytes(32)), "another model"),
    ],
)
def test_the_own_input_is_checked(change: Callable[[LocalInput], LocalInput], why: str) -> None:
    all_of = parties(4)
    all_of.states[ME] = client.idle(change(all_of.inputs[ME]))
    refused(all_of, "START", lambda m: m, keep=why)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (inputs(np.zeros(42, dtype=np.int64)), "all zero"),
        (inputs(EDGE + np.eye(1, 42, 0, dtype=np.int64)[0]), "outside"),
        (inputs(-EDGE - np.eye(1, 42, 0, dtype=np.int64)[0]), "outside"),
        (inputs(np.full(42, np.iinfo(np.int64).min)), "a lower learning_rate may help"),
    ],
)
def test_what_depends_on_the_entries_is_said_once_it_is_paid(
    change: Callable[[LocalInput], LocalInput], why: str
) -> None:
    """A free refusal, of a bound that the server may choose, would be an oracle on one site's update."""
    all_of = parties(4)
    all_of.states[ME] = client.idle(change(all_of.inputs[ME]))
    log = refused(all_of, "FWD", lambda m: m, keep=why)
    assert log.records(ME) == ["Attempt", "Debit"]
    assert log.finished is not None
    assert ME not in log.finished.survivors


def test_where_noise_is_added_to_the_sum_zeros_are_summed_like_anything_else() -> None:
    all_of = parties(4)
    all_of.inputs[ME] = replace(all_of.inputs[ME], vectors={0: np.zeros(42, dtype=np.int64)}, noised=True)
    all_of.states[ME] = client.idle(all_of.inputs[ME])
    log = exchange(all_of)
    assert log.finished is not None
    assert ME in log.finished.survivors
    assert log.finished.sums[0].tolist() == all_of.oracle(site_ids(4))[0]


def test_bounds_below_the_entries_change_nothing_before_the_debit() -> None:
    change = {"regions": one_region(list(site_ids(4)), [[37, 1], [5, 1]])}
    log = exchange(parties(4), lambda site, m: restart(change)(m) if site == ME and isinstance(m, Start) else m)
    assert log.kinds(ME) == ["ADV"]


def test_an_input_on_its_bound_is_taken() -> None:
    all_of = parties(4)
    all_of.inputs[ME] = replace(all_of.inputs[ME], vectors={0: -EDGE})
    all_of.states[ME] = client.idle(all_of.inputs[ME])
    log = exchange(all_of)
    assert log.finished is not None
    assert log.finished.sums[0].tolist() == all_of.oracle(site_ids(4))[0]


@pytest.mark.parametrize(
    ("last", "attempt", "taken"),
    [((1, 1), 1, False), ((1, 1), 2, True), ((1, 2), 1, False), ((2, 1), 3, False), ((0, 3), 1, True)],
)
def test_admission_is_unique_and_increasing(last: tuple[int, int], attempt: int, taken: bool) -> None:
    all_of = parties(4, attempt=attempt)
    all_of.configs[ME] = replace(all_of.configs[ME], admitted={RUN: last, bytes(16): (9, 3)})
    log = exchange(all_of)
    assert (log.kinds(ME) != []) is taken
    assert taken or "admitted before" in (log.aborted(ME) or Aborted("")).reason


@pytest.mark.parametrize("policy", [SitePolicy(n_c=2), SitePolicy(min_survivors=4), SitePolicy(fixed_set=True)])
def test_the_sites_own_floors(policy: SitePolicy) -> None:
    all_of = parties(4)
    all_of.configs[ME] = replace(all_of.configs[ME], policy=policy)
    refused(all_of, "START", lambda m: m)


def test_a_site_is_in_its_roster_with_its_key() -> None:
    config = parties(4).configs[ME]
    for change in ({"site": "site-1"}, {"site": "nobody"}, {"key": identity("other")}):
        with pytest.raises(ConfigError):
            replace(config, **change)


# KEYS --------------------------------------------------------------------------------------------------------------


def signed(all_of: Parties, site: str, c: bytes, s: bytes) -> Advert:
    return Advert(c, s, SUITE.sign(identity(site), advert_message(all_of.context.digest, site, c, s)))


@pytest.mark.parametrize("name", ["c", "s", "sig"])
@pytest.mark.parametrize("site", ["site-1", ME])
def test_any_flipped_bit_of_keys(name: str, site: str) -> None:
    for at in (0, 15, 31):

        def change(m: Keys, at: int = at) -> Keys:
            advert = replace(m.keys[site], **{name: flip(getattr(m.keys[site], name), at)})
            return replace(m, keys={**m.keys, site: advert})

        log = refused(parties(4), "KEYS", change)
        assert site == ME or log.audits(ME) == [("aborted", site)]


def test_keys_of_two_sites_swapped_or_renamed() -> None:
    def swap(m: Keys) -> Keys:
        return replace(m, keys={**m.keys, "site-1": m.keys["site-3"], "site-3": m.keys["site-1"]})

    refused(parties(4), "KEYS", swap)
    refused(parties(4), "KEYS", lambda m: replace(m, keys={**m.keys, "spare": m.keys["site-1"]}), keep="outside")


def test_keys_without_this_site_or_of_too_few() -> None:
    refused(
        parties(4), "KEYS", lambda m: replace(m, keys={u: a for u, a in m.keys.items() if u != ME}), keep="this site"
    )
    refused(parties(4), "KEYS", lambda m: replace(m, keys={u: m.keys[u] for u in ("site-1", ME)}), keep="fewer than 3")


def test_other_keys_of_this_site_are_refused_even_if_it_signed_them() -> None:
    """As a second process with the same identity key would."""
    all_of = parties(4)

    def change(m: Keys) -> Keys:
        c, s = (SUITE.public(Secret(bytes([i]) * 32)) for i in (1, 2))
        return replace(m, keys={**m.keys, ME: signed(all_of, ME, c, s)})

    refused(all_of, "KEYS", change, keep="another entry for this site")


@pytest.mark.parametrize("name", ["c", "s"])
def test_a_signed_twin_key_is_refused(name: str) -> None:
    """A colluding site signs another encoding of a key: only the canonical form stops it."""
    all_of = parties(4)

    def change(m: Keys) -> Keys:
        own = m.keys["site-1"]
        twin = {"c": own.c, "s": own.s}
        twin[name] = twin[name][:31] + bytes([twin[name][31] | 0x80])
        return replace(m, keys={**m.keys, "site-1": signed(all_of, "site-1", **twin)})

    refused(all_of, "KEYS", change, keep="encoding")


@pytest.mark.parametrize("which", ["another's c", "another's s", "c as s", "another's s as c"])
def test_a_key_twice_is_refused_even_if_signed(which: str) -> None:
    all_of = parties(4)

    def change(m: Keys) -> Keys:
        own, other = m.keys["site-1"], m.keys["site-3"]
        pairs = {
            "another's c": (other.c, own.s),
            "another's s": (own.c, other.s),
            "c as s": (own.c, own.c),
            "another's s as c": (other.s, own.s),
        }
        return replace(m, keys={**m.keys, "site-1": signed(all_of, "site-1", *pairs[which])})

    refused(all_of, "KEYS", change, keep="twice")


def test_a_small_order_key_is_refused() -> None:
    one = (1).to_bytes(32, "little")
    all_of = parties(4)
    refused(
        all_of,
        "KEYS",
        lambda m: replace(m, keys={**m.keys, "site-1": signed(all_of, "site-1", one, m.keys["site-1"].s)}),
    )


def test_keys_of_another_attempt_do_not_verify() -> None:
    other = parties(4, attempt=2)
    old = next(m for _, d in exchange(other).sent if isinstance(m := decode(d), Keys))
    refused(parties(4), "KEYS", lambda m: replace(m, keys={**m.keys, "site-1": old.keys["site-1"]}))


def test_no_active_region_is_refused() -> None:
    def narrow(cohort: tuple[str, ...]) -> tuple[Region, ...]:
        return (Region(cohort[:3], (Block(3, 9),)),)

    all_of = parties(5, regions=narrow)
    refused(
        all_of, "KEYS", lambda m: replace(m, keys={u: a for u, a in m.keys.items() if u != "site-1"}), keep="no region"
    )


# FWD ---------------------------------------------------------------------------------------------------------------


def entry(change: Callable[[Any], Any], dealer: str = "site-3") -> Callable[[Fwd], Fwd]:
    return lambda m: replace(m, senders={**m.senders, dealer: change(m.senders[dealer])})


FWD_CHANGES = {
    "bcom": lambda e: replace(e, bcom=flip(e.bcom)),
    "ct": lambda e: replace(e, sealed=replace(e.sealed, ct=flip(e.sealed.ct) if e.sealed.ct else bytes(82))),
    "bshare": lambda e: replace(e, sealed=replace(e.sealed, bshare=flip(e.sealed.bshare))),
    "sshare": lambda e: replace(e, sealed=replace(e.sealed, sshare=flip(e.sealed.sshare))),
    "own leaf": lambda e: replace(e, leaves=(e.leaves[0], flip(e.leaves[1]), *e.leaves[2:])),
    "other leaf": lambda e: replace(e, leaves=(flip(e.leaves[0]), *e.leaves[1:])),
    "no leaf": lambda e: replace(e, leaves=()),
    "leaf less": lambda e: replace(e, leaves=e.leaves[:-1]),
    "leaf more": lambda e: replace(e, leaves=(*e.leaves, e.leaves[0])),
    "sig": lambda e: replace(e, sig=flip(e.sig)),
}


@pytest.mark.parametrize("name", FWD_CHANGES)
@pytest.mark.parametrize("dealer", ["site-3", ME])
def test_any_change_of_a_dealers_entry(name: str, dealer: str) -> None:
    log = refused(parties(4), "FWD", entry(FWD_CHANGES[name], dealer))
    assert dealer == ME or log.audits(ME) == [("aborted", dealer)]
    assert log.records(ME) == ["Attempt"]  # no debit was asked for


def test_shares_sealed_for_another_site() -> None:
    def other(m: Fwd) -> Fwd:
        return replace(m, senders={**m.senders, "site-3": m.senders["site-1"]})

    refused(parties(4), "FWD", other)


def test_fwd_without_this_site_from_outside_or_of_too_few() -> None:
    def only(*sites: str) -> Callable[[Fwd], Fwd]:
        return lambda m: replace(m, senders={u: m.senders[u] for u in sites})

    refused(parties(4), "FWD", only("site-1", "site-3", "site-4"), keep="leaves this site out")
    refused(parties(4), "FWD", only("site-1", ME), keep="fewer than 3")
    refused(
        parties(4), "FWD", lambda m: replace(m, senders={**m.senders, "spare": m.senders["site-1"]}), keep="outside"
    )


@pytest.mark.parametrize("kind", ["FWD", "SURV"])
def test_the_cover_of_a_region_that_the_site_does_not_hold(kind: str) -> None:
    """Six sites, three hold the head, this one does not: losing a holder must still stop it."""

    def narrow(cohort: tuple[str, ...]) -> tuple[Region, ...]:
        return (Region(cohort, (Block(3, 9),)), Region(("site-1", "site-3", "site-4"), (Block(5, 9),)))

    def change(m: Any) -> Message:
        if isinstance(m, Fwd):
            return replace(m, senders={u: e for u, e in m.senders.items() if u != "site-1"})
        return replace(m, survivors=tuple(u for u in m.survivors if u != "site-1"))  # type: ignore[no-any-return]

    refused(parties(6, regions=narrow), kind, change, keep="region 1")


def resealed(all_of: Parties, change: Callable[[bytes], bytes], *, commit: bool) -> Callable[[str, Message], Message]:
    """Site-3 colludes: it seals other shares for ME and signs that; commitments follow if ``commit``."""
    private: list[Secret] = []
    config = all_of.configs["site-3"]

    def entropy(size: int) -> bytes:
        private.append(Secret(config.entropy(size)))
        return private[-1].reveal()

    all_of.configs["site-3"] = replace(config, entropy=entropy)
    adverts: dict[str, Advert] = {}

    def change_message(site: str, message: Message) -> Message:
        if isinstance(message, Adv):
            adverts[site] = Advert(message.c, message.s, message.sig)
        if not (isinstance(message, Shr) and site == "site-3"):
            return message
        bound = Bindings(all_of.context.digest, adverts)
        key = SUITE.kdf(SUITE.agree(private[0], adverts[ME].c).reveal(), "share-enc", bound.sealing_info("site-3", ME))
        sealed = message.to[ME]
        plain = change(SUITE.open(key, sealed.ct, bound.associated("site-3", ME)))
        ct = SUITE.seal(key, plain, bound.associated("site-3", ME))
        bshare = bound.share_commitment("bshare", "site-3", ME, plain[:33]) if commit else sealed.bshare
        sshare = bound.share_commitment("sshare", "site-3", ME, plain[33:]) if commit else sealed.sshare
        to = {**message.to, ME: Sealed(ct, bshare, sshare)}
        leaves = [leaf(u, to[u]) for u in bound.u1]
        sig = SUITE.sign(identity("site-3"), bound.shr_message("site-3", message.bcom, leaves))
        return replace(message, to=to, sig=sig)

    return change_message


def plus_p(plain: bytes, at: int) -> bytes:
    share = int.from_bytes(plain[at : at + 33], "big") + P
    return plain[:at] + share.to_bytes(33, "big") + plain[at + 33 :]


def test_a_dealer_and_the_server_cannot_swap_what_was_signed() -> None:
    """Sealed, opened and committed to as it should be; only the signed leaf is of other shares."""
    all_of = parties(4)
    private: list[Secret] = []
    config = all_of.configs["site-3"]

    def entropy(size: int) -> bytes:
        private.append(Secret(config.entropy(size)))
        return private[-1].reveal()

    all_of.configs["site-3"] = replace(config, entropy=entropy)
    adverts: dict[str, Advert] = {}

    def change(site: str, message: Message) -> Message:
        if isinstance(message, Adv):
            adverts[site] = Advert(message.c, message.s, message.sig)
        if not (isinstance(message, Fwd) and site == ME):
            return message
        bound = Bindings(all_of.context.digest, adverts)
        shared = SUITE.agree(private[0], adverts[ME].c).reveal()
        key = SUITE.kdf(shared, "share-enc", bound.sealing_info("site-3", ME))
        share = bytes(32) + b"\x07"
        ct = SUITE.seal(key, share + share, bound.associated("site-3", ME))
        commitments = (bound.share_commitment(label, "site-3", ME, share) for label in LABELS)
        swapped = replace(message.senders["site-3"], sealed=Sealed(ct, *commitments))
        return replace(message, senders={**message.senders, "site-3": swapped})

    log = exchange(all_of, change)
    assert log.aborted(ME) == Aborted("site-3: SHR was signed for other shares", "site-3")


@pytest.mark.parametrize("at", [0, 33])
def test_a_share_that_its_dealer_did_not_commit_to_or_plus_p(at: int) -> None:
    for change, commit, why in (
        (lambda plain: flip(plain, at + 32), False, "commitment"),
        (lambda plain: plus_p(plain, at), True, "encoding"),
    ):
        all_of = parties(4)
        log = exchange(all_of, resealed(all_of, change, commit=commit))
        assert all_of.states[ME].phase is Phase.ABORTED
        aborted = log.aborted(ME)
        assert aborted is not None
        assert why in aborted.reason
        assert aborted.site == "site-3"
        assert log.kinds(ME) == ["ADV", "SHR"]


# SURV, SIGS --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("survivors", "why"),
    [
        (("site-1", "site-3", "site-4"), "leaves this site out"),
        (("site-1", "site-2"), "fewer than"),
        (("site-1", "site-2", "spare"), "outside"),
        ((), "leaves this site out"),
    ],
)
def test_survivors_are_checked(survivors: tuple[str, ...], why: str) -> None:
    refused(parties(4), "SURV", lambda m: replace(m, survivors=survivors), keep=why)


def test_survivors_outside_u2_are_refused() -> None:
    def change(site: str, message: Message) -> Message | None:
        if isinstance(message, Shr) and site == "site-4":
            return None
        return replace(message, survivors=site_ids(4)) if isinstance(message, Surv) and site == ME else message

    all_of = parties(4)
    log = exchange(all_of, change)
    assert "outside" in (log.aborted(ME) or Aborted("")).reason


def test_a_fixed_set_is_demanded_at_every_step() -> None:
    less = {
        "KEYS": lambda m: replace(m, keys={u: a for u, a in m.keys.items() if u != "site-1"}),
        "FWD": lambda m: replace(m, senders={u: e for u, e in m.senders.items() if u != "site-1"}),
        "SURV": lambda m: replace(m, survivors=m.survivors[1:]),
    }
    for kind, change in less.items():
        refused(parties(4, fixed_set=True), kind, change, keep="whole cohort")


def test_split_survivors_open_nothing() -> None:
    """P3. The server tells one half another U3: nobody gets t signatures over its own."""

    def split(site: str, message: Message) -> Message:
        if isinstance(message, Surv):
            gone = "site-5" if site in {"site-1", "site-2"} else "site-1"
            return replace(message, survivors=tuple(u for u in message.survivors if u != gone))
        return message

    log = exchange(parties(5), split)
    assert "UNM" not in [decode(d).kind for _, d in log.sent]
    assert log.finished is None


@pytest.mark.parametrize(
    "change",
    [
        lambda sigs: dict(list(sigs.items())[:2]),
        lambda sigs: {**sigs, "site-1": flip(sigs["site-1"])},
        lambda sigs: {**sigs, "site-1": sigs["site-3"]},
        lambda sigs: {**sigs, "spare": sigs["site-1"]},
        lambda _: {},
    ],
)
def test_signatures_are_counted_and_checked(change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> None:
    refused(parties(4), "SIGS", lambda m: replace(m, sigs=change(dict(m.sigs))))


def test_a_valid_signature_from_outside_the_survivors_is_refused() -> None:
    all_of = parties(4)
    adverts: dict[str, Advert] = {}

    def change(site: str, message: Message) -> Message:
        if isinstance(message, Adv):
            adverts[site] = Advert(message.c, message.s, message.sig)
        if isinstance(message, Sigs) and site == ME:
            signed_by_spare = Bindings(message.ctx, adverts).survivors_message(site_ids(4))
            return replace(message, sigs={**message.sigs, "spare": SUITE.sign(identity("spare"), signed_by_spare)})
        return message

    log = exchange(all_of, change)
    assert log.aborted(ME) == Aborted("SIGS has a signature from outside U3")


def test_t_signatures_suffice() -> None:
    all_of = parties(4)

    def fewer(site: str, message: Message) -> Message:
        del site
        return replace(message, sigs=dict(list(message.sigs.items())[:3])) if isinstance(message, Sigs) else message

    assert exchange(all_of, fewer).finished is not None


def test_one_share_for_a_peer_never_both() -> None:
    all_of = parties(5)
    of_b: dict[str, Sealed] = {}

    def change(site: str, message: Message) -> Message | None:
        if isinstance(message, Shr):
            of_b[site] = message.to[ME]
        return None if isinstance(message, Msk) and site == "site-4" else message

    log = exchange(all_of, change)
    unm = next(m for p, d in log.sent if p == ME and isinstance(m := decode(d), Unm))
    keys = next(m for _, d in log.sent if isinstance(m := decode(d), Keys))
    bound = Bindings(all_of.context.digest, keys.keys)
    assert set(unm.shares) == set(site_ids(5))
    for dealer, share in unm.shares.items():
        survivor = dealer != "site-4"
        assert (bound.share_commitment("bshare", dealer, ME, share) == of_b[dealer].bshare) is survivor
        assert (bound.share_commitment("sshare", dealer, ME, share) == of_b[dealer].sshare) is not survivor


# Repetition, order, time -------------------------------------------------------------------------------------------


def stages() -> list[tuple[ClientConfig, ClientState, bytes]]:
    """One honest run seen by ME: its state before each message, and the message."""
    all_of = parties(4)
    arrived: list[bytes] = []

    def spy(site: str, message: Message) -> Message:
        if site == ME and message.kind in {"START", "KEYS", "FWD", "SURV", "SIGS"}:
            arrived.append(message.encode())
        return message

    exchange(all_of, spy)
    fresh = parties(4)
    config, state = fresh.configs[ME], fresh.states[ME]
    seen = []
    for data in arrived:
        seen.append((config, state, data))
        state, _ = step(config, state, Received(data))
    assert state.phase is Phase.DONE
    return [*seen, (config, state, b"")]


STAGES = stages()
BEFORE = {state.phase: (config, state, data) for config, state, data in STAGES}


def sent(effects: tuple[Effect, ...]) -> list[bytes]:
    return [e.data for e in effects if isinstance(e, Send)]


@pytest.mark.parametrize("place", range(1, 6))
def test_a_repetition_gets_the_same_bytes_and_changes_nothing(place: int) -> None:
    config, before, data = STAGES[place - 1]
    _, state, _ = STAGES[place]
    first = sent(step(config, before, Received(data))[1])
    again, effects = step(config, state, Received(data))
    assert again == state
    # Keys are drawn anew by the call above, so compare with what the machine sent in its own past.
    assert effects == (Send(state.reply),)
    assert len(first) == 1
    assert decode(state.reply).kind == decode(first[0]).kind


@pytest.mark.parametrize("name", [p for p in Phase if p not in {Phase.IDLE, Phase.DONE, Phase.ABORTED}])
def test_any_other_message_in_a_state_aborts(name: Phase) -> None:
    config, state, _ = BEFORE[name]
    for other, (_, _, data) in BEFORE.items():
        if other in {name, Phase.DONE}:
            continue
        after, effects = step(config, state, Received(data))
        behind = list(BEFORE).index(name) - list(BEFORE).index(other)
        if behind == 1:
            assert sent(effects) == [state.reply]  # the last accepted one
        elif behind > 1:
            assert (after, effects) == (state, ())  # a repetition that was overtaken
        else:
            assert after == ClientState(Phase.ABORTED, None)
            assert not sent(effects)
    mine = state.reply
    assert step(config, state, Received(mine))[0].phase is Phase.ABORTED  # its own words back


def test_another_attempts_messages_are_ignored_in_every_state() -> None:
    other = exchange(parties(4, attempt=2))
    for config, state, _ in STAGES:
        for _, data in other.sent:
            if state.phase is Phase.IDLE and isinstance(decode(data), Start):
                continue
            assert step(config, state, Received(data)) == (state, ())


def test_expiry_aborts_and_a_stale_timer_does_not() -> None:
    for config, state, _ in STAGES:
        for phase in Phase:
            after, effects = step(config, state, Expired(phase))
            if phase is state.phase and phase in TRANSITIONS:
                assert after == ClientState(Phase.ABORTED, None)
                assert not sent(effects)
            else:
                assert (after, effects) == (state, ())


def test_timers_are_durations_and_capped() -> None:
    for longest in (3600, 61):
        all_of = parties(4, policy=SitePolicy(longest_wait=longest))
        timers = [e for e in exchange(all_of).effects[ME] if isinstance(e, Timer)]
        waits = [min(seconds, longest) for seconds in (60, 61, 62, 63)]
        assert timers == [Timer(w, p) for w, p in zip(waits, ("ADVERTISED", "SHARED", "MASKED", "SIGNED"), strict=True)]


def test_records_come_before_what_they_allow() -> None:
    config, state, data = BEFORE[Phase.IDLE]
    _, effects = step(config, state, Received(data))
    assert effects[0] == Persist(Attempt(RUN, 1, 1))
    assert isinstance(effects[1], Send)
    assert isinstance(decode(effects[1].data), Adv)
    config, state, data = BEFORE[Phase.SHARED]
    _, effects = step(config, state, Received(data))
    assert effects[0] == Persist(Debit(RUN, 1, 1, state.ctx, (0,)))
    assert isinstance(effects[1], Send)
    assert isinstance(decode(effects[1].data), Msk)
    assert [type(e).__name__ for e in effects] == ["Persist", "Send", "Timer"]


def test_a_record_that_was_not_written_aborts() -> None:
    for config, state, _ in STAGES:
        assert step(config, state, Persisted()) == (state, ())
        after, _ = step(config, state, Persisted(ok=False))
        assert after == (ClientState(Phase.ABORTED, None) if state.phase in TRANSITIONS else state)


def test_the_table_is_total() -> None:
    assert set(TRANSITIONS) == set(Phase) - {Phase.DONE, Phase.ABORTED}
    order = [Phase.IDLE]
    while order[-1] in TRANSITIONS:
        order.append(TRANSITIONS[order[-1]].goes_to)
    assert order == [p for p in Phase if p is not Phase.ABORTED]
    ended = ClientState(Phase.ABORTED, None)
    for config, state, data in STAGES:
        after, _ = step(config, state, Received(data or b"x"))
        expected = TRANSITIONS[state.phase].goes_to if state.phase in TRANSITIONS else state.phase
        assert after.phase is expected
        assert step(config, ended, Received(data)) == (ended, ())


def test_survivors_are_signed_once() -> None:
    """A second SURV, even a valid one, ends the attempt: no second signature."""
    config, state, data = BEFORE[Phase.SIGNED]
    surv = decode(BEFORE[Phase.MASKED][2])
    assert isinstance(surv, Surv)
    assert decode(data).kind == "SIGS"
    other = replace(surv, survivors=tuple(u for u in surv.survivors if u != "site-4"))
    after, effects = step(config, state, Received(other.encode()))
    assert after.phase is Phase.ABORTED
    assert not sent(effects)


def test_a_short_random_source_is_a_bug_not_a_short_key() -> None:
    config, state, data = BEFORE[Phase.IDLE]
    with pytest.raises(LocalProtocolError):
        step(replace(config, entropy=lambda _: b"short"), state, Received(data))


def test_labels_separate_signatures() -> None:
    assert len({labelled(label, bytes(32)) for label in ("adv", "shr", "msk", "u3")}) == 4
    bound = Bindings(bytes(32), {})
    messages = [bound.shr_message("a", b"", []), bound.msk_message("a", {}), bound.survivors_message(["a"])]
    assert [m.split(b"\x00")[0] for m in messages] == [b"FSA1/shr", b"FSA1/msk", b"FSA1/u3"]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 5), st.binary(max_size=120))
def test_any_bytes_in_any_state(place: int, data: bytes) -> None:
    config, state, _ = STAGES[place]
    after, effects = step(config, state, Received(data))
    assert after.phase in {state.phase, Phase.ABORTED}
    assert not sent(effects)


@settings(max_examples=250, deadline=None)
@given(st.integers(0, 4), st.data())
def test_changed_bytes_in_any_state(place: int, data: st.DataObject) -> None:
    config, state, good = STAGES[place]
    changed = bytearray(good)
    changed[data.draw(st.integers(0, len(good) - 1))] ^= data.draw(st.integers(1, 255))
    after, effects = step(config, state, Received(bytes(changed)))
    # One byte off: it is refused, or bound to another attempt and ignored. Nothing in a message is unchecked, but for
    # signatures that are not needed: t of them are.
    assert not sent(effects)
    assert after.phase in {state.phase, Phase.ABORTED}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 4), st.data())
def test_well_formed_nonsense_in_any_state(place: int, data: st.DataObject) -> None:
    config, state, good = STAGES[place]
    fields = loads(good)
    name = data.draw(st.sampled_from(sorted(set(fields) - {"kind", "ctx"})))
    if isinstance(fields[name], dict) and fields[name]:
        gone = data.draw(st.sampled_from(sorted(fields[name])))
        value: Any = {key: item for key, item in fields[name].items() if key != gone}
    else:
        value = data.draw(st.binary(max_size=9) | st.lists(st.sampled_from(site_ids(9)), max_size=5))
    after, effects = step(config, state, Received(dumps({**fields, name: value})))
    assert after.phase in {state.phase, Phase.ABORTED, TRANSITIONS[state.phase].goes_to}
    assert sum(isinstance(e, Send) for e in effects) <= 1
