"""The server's machine: whom it drops and names, what it ignores, and that it never opens what the sites would not."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.errors import ConfigError
from privacy.keys.agreement import Secret
from privacy.secagg.bindings import Bindings, advert_message, leaf, y_digests
from privacy.secagg.coordinator import COLLECTIONS, CoordinatorConfig, CoordinatorState, Phase, awaited, step
from privacy.secagg.effects import Begin, Expired, Finished, Received, SendTo, Timer
from privacy.secagg.encoding import Entropy
from privacy.secagg.shares import split
from privacy.secagg.suite import RealSuite
from privacy.secagg.wire import Adv, Advert, Con, Message, Msk, Sealed, Shr, Unm, decode
from tests.privacy.secagg.ideal_suite import UnsafeIdealSuite
from tests.privacy.secagg.parties import Log, Parties, exchange, identity, lose, parties, site_ids
from tests.privacy.secagg.test_exchange import check_exact

BAD = "site-2"
SUITE = RealSuite()


def flip(data: bytes, at: int = 0) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def from_bad(kind: type[Message], change: Callable[[Any], Message | bytes]) -> tuple[Parties, Log]:
    """Five sites, of which one sends something else for that message."""
    all_of = parties(5)

    def arrive(site: str, message: Message) -> Message | bytes:
        return change(message) if site == BAD and isinstance(message, kind) else message

    return all_of, exchange(all_of, arrive)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (Adv, lambda m: replace(m, sig=flip(m.sig))),
        (Adv, lambda m: replace(m, c=flip(m.c))),
        (Adv, lambda m: replace(m, s=m.s[:31] + bytes([m.s[31] | 128]))),
        (Adv, lambda m: replace(m, sender="site-1")),
        (Adv, lambda _: b"not a message"),
        (Shr, lambda m: replace(m, sig=flip(m.sig))),
        (Shr, lambda m: replace(m, bcom=flip(m.bcom))),
        (Shr, lambda m: replace(m, to={u: e for u, e in m.to.items() if u != "site-1"})),
        (Shr, lambda m: replace(m, to={**m.to, "site-1": replace(m.to["site-1"], ct=b"")})),
        (Shr, lambda m: replace(m, to={**m.to, BAD: replace(m.to[BAD], ct=bytes(82))})),
        (Msk, lambda m: replace(m, sig=flip(m.sig))),
        (Msk, lambda m: replace(m, y={0: flip(m.y[0])})),
        (Msk, lambda m: replace(m, y={0: m.y[0][:-1]})),
        (Msk, lambda m: replace(m, y={})),
        (Msk, lambda m: replace(m, y={**m.y, 1: m.y[0]})),
        (Msk, lambda m: replace(m, sender="site-1")),
        (Con, lambda m: replace(m, sig=flip(m.sig))),
        (Unm, lambda m: replace(m, shares=dict(list(m.shares.items())[1:]))),
    ],
)
def test_a_sender_whose_message_fails_is_dropped_and_named(
    kind: type[Message], change: Callable[[Any], Message | bytes]
) -> None:
    all_of, log = from_bad(kind, change)
    assert ("dropped", BAD) in log.audits()
    assert [site for event, site in log.audits() if event == "dropped"] == [BAD]
    check_exact(all_of, log)


def test_a_copied_key_drops_the_copier() -> None:
    first: list[Advert] = []
    all_of = parties(5)

    def change(site: str, message: Message) -> Message:
        if isinstance(message, Adv) and site == "site-1":
            first.append(Advert(message.c, message.s, message.sig))
        if isinstance(message, Adv) and site == BAD:
            c, s = first[0].c, message.s
            return replace(message, c=c, s=s, sig=SUITE.sign(identity(BAD), advert_message(message.ctx, BAD, c, s)))
        return message

    log = exchange(all_of, change)
    assert log.audits() == [("dropped", BAD)]
    check_exact(all_of, log)


def other_seed(bound: Bindings, places: dict[str, int], message: Shr) -> Shr:
    """Shares of another secret than the committed one, all of them consistent."""
    draws = iter(range(1, 1000))

    def entropy(size: int) -> bytes:
        return hashlib.shake_256(str(next(draws)).encode()).digest(size)

    of_b = split(b"another secret of thirty-two byte"[:32], t=4, places=places.values(), entropy=entropy)
    to = {}
    for u in bound.u1:
        share_b, share_s = of_b[places[u]], of_b[places[u]]
        commit = bound.share_commitment
        ct = b"" if u == BAD else share_b + share_s
        to[u] = Sealed(ct, commit("bshare", BAD, u, share_b), commit("sshare", BAD, u, share_s))
    return replace(message, to=to)


def test_a_dealer_that_drops_out_with_a_false_key_is_named() -> None:
    all_of = parties(6)
    assert all_of.context.thresholds.t == 4
    private: list[Secret] = []
    config = all_of.configs[BAD]

    def entropy(size: int) -> bytes:
        private.append(Secret(config.entropy(size)))
        return private[-1].reveal()

    all_of.configs[BAD] = replace(config, entropy=entropy)
    adverts: dict[str, Advert] = {}

    def arrive(site: str, message: Message) -> Message | None:
        if isinstance(message, Adv):
            adverts[site] = Advert(message.c, message.s, message.sig)
        if site == BAD and isinstance(message, Shr):
            bound = Bindings(all_of.context.digest, adverts)
            dealt = other_seed(bound, {u: all_of.context.place(u) for u in site_ids(6)}, message)
            to = dict(dealt.to)
            for u in bound.u1:
                if u != BAD:
                    shared = SUITE.agree(private[0], adverts[u].c).reveal()
                    key = SUITE.kdf(shared, "share-enc", bound.sealing_info(BAD, u))
                    to[u] = replace(to[u], ct=SUITE.seal(key, to[u].ct, bound.associated(BAD, u)))
            sig = SUITE.sign(identity(BAD), bound.shr_message(BAD, dealt.bcom, [leaf(u, to[u]) for u in bound.u1]))
            return replace(dealt, to=to, sig=sig)
        return message

    log = exchange(all_of, arrive)  # BAD itself stops at FWD, so its private key is what the others open
    assert log.finished is None
    assert ("bad_dealer", BAD) in log.audits()
    aborted = log.aborted()
    assert aborted is not None
    assert aborted.site == BAD


def test_a_survivor_whose_commitment_is_false_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    true = Bindings.seed_commitment
    calls: list[str] = []

    def lie(self: Bindings, dealer: str, b: bytes) -> bytes:
        calls.append(dealer)
        first = calls.count(BAD) == 1  # the dealer's own call; the server's check is the second
        return true(self, dealer, bytes(32) if dealer == BAD and first else b)

    monkeypatch.setattr(Bindings, "seed_commitment", lie)
    log = exchange(parties(5))
    assert log.finished is None
    assert log.audits() == [("bad_dealer", BAD), ("aborted", BAD)]


def test_surplus_shares_off_the_polynomial_name_the_dealer(monkeypatch: pytest.MonkeyPatch) -> None:
    all_of = parties(5)
    dealers_own = all_of.configs[BAD].entropy

    def uneven(secret: bytes, *, t: int, places: Iterable[int], entropy: Entropy) -> dict[int, bytes]:
        shares = split(secret, t=t, places=places, entropy=entropy)
        return {**shares, 4: bytes(32) + b"\x01"} if entropy is dealers_own else shares

    monkeypatch.setattr("privacy.secagg.dealing.split", uneven)
    log = exchange(all_of)
    assert log.finished is None
    assert log.audits() == [("bad_dealer", BAD), ("aborted", BAD)]


def test_bad_shares_down_to_t_are_survived_and_below_it_not() -> None:
    """N = 5, t = 4: one wrong share of a secret is dropped, two leave three good ones."""
    for liars, exact in ((("site-1",), True), (("site-1", "site-3"), False)):

        def change(site: str, message: Message, liars: tuple[str, ...] = liars) -> Message:
            if isinstance(message, Unm) and site in liars:
                return replace(message, shares={**message.shares, "site-4": flip(message.shares["site-4"], 32)})
            return message

        all_of = parties(5)
        log = exchange(all_of, change)
        assert [a for a in log.audits() if a[0] == "bad_share"] == [("bad_share", liar) for liar in liars]
        assert (log.finished is not None) is exact
        if exact:
            check_exact(all_of, log)


# What changes nothing -----------------------------------------------------------------------------------------------


def test_late_repeated_unknown_and_foreign_messages_change_nothing() -> None:
    """A whole run is fed to a new coordinator; after every step all that went before is offered again."""
    suite = UnsafeIdealSuite()
    all_of = parties(4, suite=suite)
    sent = [(p, d) for p, d in exchange(all_of, lose({"site-4": "MSK"})).sent if p]
    foreign = [(p, d) for p, d in exchange(parties(4, suite=suite, attempt=2)).sent if p]
    config = all_of.server
    state, _ = step(config, CoordinatorState(), Begin())
    offered: list[tuple[str, bytes]] = [*foreign, ("spare", b"x"), ("", b"x")]
    for site, data in sent:
        kind = decode(data).kind
        if kind == "CON" and state.phase is Phase.MSK:
            assert awaited(config, state) == ("site-4",)
            state, _ = step(config, state, Expired(Phase.MSK))
        if (site, kind) != ("site-4", "MSK"):
            state, _ = step(config, state, Received(data, site))
        if (site, kind) != ("site-4", "MSK") or state.phase is not Phase.MSK:
            offered.append((site, data))
        for who, again in offered:
            assert step(config, state, Received(again, who)) == (state, ())
    assert state == CoordinatorState(Phase.FINISHED)


def test_a_repeated_message_is_not_added_twice_and_a_late_one_not_at_all() -> None:
    late: list[bytes] = []

    def hold(site: str, message: Message) -> Message | None:
        if isinstance(message, Msk) and site == "site-4":
            late.append(message.encode())
            return None
        if isinstance(message, Con) and late:
            for _ in range(2):
                again = step(all_of.server, all_of.server_state, Received(late[0], "site-4"))
                assert again == (all_of.server_state, ())
        return message

    all_of = parties(4)
    log = exchange(all_of, hold)
    check_exact(all_of, log)
    assert log.finished is not None
    assert log.finished.survivors == ("site-1", "site-2", "site-3")
    assert late


def test_fewer_signatures_than_the_threshold_are_not_sent_on() -> None:
    log = exchange(parties(4), lose({"site-1": "CON", "site-2": "CON"}))
    assert "SIGS" not in [decode(d).kind for _, d in log.sent]
    aborted = log.aborted()
    assert aborted is not None
    assert "signed the survivors" in aborted.reason


def test_nobody_answers_in_the_name_of_another() -> None:
    """UNM is not signed: only the transport says whose it is."""

    def change(site: str, message: Message) -> Message:
        return replace(message, sender="site-1") if isinstance(message, Unm) and site == BAD else message

    all_of = parties(5)
    log = exchange(all_of, change)
    assert log.audits() == [("dropped", BAD)]
    check_exact(all_of, log)


def test_msk_twice_in_its_phase() -> None:
    all_of = parties(4)

    def twice(site: str, message: Message) -> Message:
        if isinstance(message, Msk) and site != "site-1" and "site-1" in all_of.server_state.msk:
            first = next(d for p, d in log_sent if p == "site-1" and isinstance(decode(d), Msk))
            before = {k: v.copy() for k, v in all_of.server_state.sums.items()}
            assert step(all_of.server, all_of.server_state, Received(first, "site-1")) == (all_of.server_state, ())
            assert all((before[k] == v).all() for k, v in all_of.server_state.sums.items())
        if isinstance(message, Msk):
            log_sent.append((site, message.encode()))
        return message

    log_sent: list[tuple[str, bytes]] = []
    check_exact(all_of, exchange(all_of, twice))


def test_expiry_with_too_few_answers_aborts_and_a_stale_timer_does_not() -> None:
    all_of = parties(4)
    state, effects = step(all_of.server, CoordinatorState(), Begin())
    assert [e.site for e in effects if isinstance(e, SendTo)] == list(site_ids(4))
    assert effects[-1] == Timer(30, Phase.ADV)  # half of what sites wait for KEYS (§7.1)
    assert step(all_of.server, state, Begin()) == (state, ())
    for phase in Phase:
        after, _ = step(all_of.server, state, Expired(phase))
        assert after == (CoordinatorState(Phase.ABORTED) if phase is Phase.ADV else state)


def test_the_table_is_total() -> None:
    assert set(COLLECTIONS) == set(Phase) - {Phase.IDLE, Phase.FINISHED, Phase.ABORTED}
    assert [row.accepts.kind for row in COLLECTIONS.values()] == [phase.value for phase in COLLECTIONS]
    all_of = parties(4)
    for phase in (Phase.IDLE, Phase.FINISHED, Phase.ABORTED):
        state = CoordinatorState(phase)
        for event in (Received(b"", "site-1"), Expired(phase)):
            assert step(all_of.server, state, event) == (state, ())
        assert awaited(all_of.server, state) == ()


def test_the_transcript_can_be_checked_by_a_stranger() -> None:
    all_of = parties(5)
    finished = exchange(all_of, lose({"site-3": "MSK"})).finished
    assert isinstance(finished, Finished)
    transcript = finished.transcript
    assert transcript is not None
    bound = Bindings(all_of.context.digest, transcript.adverts)
    for site, advert in transcript.adverts.items():
        message = advert_message(bound.ctx, site, advert.c, advert.s)
        SUITE.verify(all_of.roster.keys[site], advert.sig, message)
    for site in transcript.survivors:
        message = bound.msk_message(site, transcript.y_digests[site])
        SUITE.verify(all_of.roster.keys[site], transcript.msk_signatures[site], message)
    for site, signature in transcript.con_signatures.items():
        SUITE.verify(all_of.roster.keys[site], signature, bound.survivors_message(transcript.survivors))
    assert len(transcript.con_signatures) >= all_of.context.thresholds.t
    assert y_digests({0: b""}) == {0: hashlib.sha256(b"").digest()}
    assert transcript.u2 == site_ids(5)


def test_config_is_checked() -> None:
    config = parties(4).server
    with pytest.raises(ConfigError):
        replace(config, roster=replace(config.roster, version=2))
    with pytest.raises(ConfigError):
        replace(config, region_digests=())


def phases() -> list[tuple[CoordinatorConfig, CoordinatorState]]:
    all_of = parties(4)
    seen: dict[str, CoordinatorState] = {}

    def spy(site: str, message: Message) -> Message:
        del site
        seen.setdefault(all_of.server_state.phase, all_of.server_state)
        return message

    exchange(all_of, spy)
    assert set(seen) == set(COLLECTIONS)
    return [(all_of.server, state) for state in seen.values()]


STATES = phases()


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 4), st.sampled_from([*site_ids(4), "", "spare", "stranger"]), st.binary(max_size=120))
def test_any_bytes_in_any_phase(place: int, sender: str, data: bytes) -> None:
    config, state = STATES[place]
    after, _ = step(config, state, Received(data, sender))
    if sender not in awaited(config, state):
        assert after == state
    else:
        assert after.dropped == state.dropped | {sender} or after == state or after.phase is Phase.ABORTED
