"""Whole attempts in one process with real cryptography: exact sums under every loss, and what is refused."""

import gc
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.keys.agreement import Secret
from privacy.keys.signing import SigningKey
from privacy.secagg import client
from privacy.secagg.client import ClientState
from privacy.secagg.context import Block, Region, thresholds
from privacy.secagg.coordinator import CoordinatorState
from privacy.secagg.encoding import Entropy
from privacy.secagg.masks import KeyStream
from privacy.secagg.suite import RealSuite
from privacy.secagg.wire import Con, Message, Msk, Surv, Unm, decode
from tests.privacy.secagg.ideal_suite import UnsafeIdealSuite
from tests.privacy.secagg.parties import Log, Parties, exchange, lose, parties, site_ids

KINDS = ("ADV", "SHR", "MSK", "CON", "UNM")


def two_regions(cohort: tuple[str, ...]) -> tuple[Region, ...]:
    """A trunk that all hold, an odd length so that streams need aligning, and a head that all but one hold."""
    return (Region(cohort, (Block(7, 50),)), Region(cohort[1:], (Block(9, 60), Block(4, 3))))


def check_exact(all_of: Parties, log: Log) -> None:
    finished = log.finished
    assert finished is not None, log.aborted()
    assert finished.transcript is not None
    active = finished.transcript.active
    expected = {k: total for k, total in all_of.oracle(finished.survivors).items() if k in active}
    assert 0 in active
    assert {k: [int(v) for v in total] for k, total in finished.sums.items()} == expected


@pytest.mark.parametrize("n", [3, 4, 5, 10])
@pytest.mark.parametrize("bits", [32, 64])
def test_the_sum_is_exact(n: int, bits: int) -> None:
    all_of = parties(n, bits=bits)
    log = exchange(all_of)
    check_exact(all_of, log)
    assert log.finished is not None
    assert log.finished.survivors == site_ids(n)
    for site in site_ids(n):
        assert log.kinds(site) == ["ADV", "SHR", "MSK", "CON", "UNM"]
        assert log.records(site) == ["Attempt", "Debit"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [4, 5, 10])
def test_one_site_may_drop_out_in_any_phase(n: int, kind: str) -> None:
    for site in (site_ids(n)[0], site_ids(n)[-1]):
        all_of = parties(n)
        log = exchange(all_of, lose({site: kind}))
        check_exact(all_of, log)
        assert log.finished is not None
        assert (site in log.finished.survivors) is (kind in {"CON", "UNM"})


@pytest.mark.parametrize("kind", KINDS)
def test_three_sites_cannot_spare_one_before_the_masks(kind: str) -> None:
    all_of = parties(3)
    log = exchange(all_of, lose({"site-2": kind}))
    if kind in {"CON", "UNM"}:  # t = 2 of three
        check_exact(all_of, log)
    else:
        assert log.finished is None
        assert log.aborted() is not None


def test_ten_sites_with_a_dropout_in_every_phase() -> None:
    dead = {"site-1": "ADV", "site-2": "SHR", "site-3": "MSK", "site-5": "CON"}
    all_of = parties(10, limits=thresholds(10, 0))
    all_of.configs = {s: replace(c, policy=replace(c.policy, n_c=0)) for s, c in all_of.configs.items()}
    log = exchange(all_of, lose(dead))
    check_exact(all_of, log)
    assert log.finished is not None
    assert set(site_ids(10)) - set(log.finished.survivors) == {"site-1", "site-2", "site-3"}


@pytest.mark.parametrize("bits", [32, 64])
def test_unequal_regions_and_a_dropout(bits: int) -> None:
    for dead in ({}, {"site-3": "MSK"}, {"site-1": "MSK"}, {"site-1": "SHR"}):
        all_of = parties(5, regions=two_regions, bits=bits)
        log = exchange(all_of, lose(dead))
        check_exact(all_of, log)


def test_an_inactive_region_is_sent_by_nobody() -> None:
    def thin(cohort: tuple[str, ...]) -> tuple[Region, ...]:
        return (Region(cohort, (Block(3, 9),)), Region(cohort[:2], (Block(5, 9),)))

    all_of = parties(5, regions=thin)
    log = exchange(all_of)
    assert log.finished is not None
    assert set(log.finished.sums) == {0}
    assert [int(v) for v in log.finished.sums[0]] == all_of.oracle(site_ids(5))[0]
    for party, data in log.sent:
        message = decode(data)
        assert not isinstance(message, Msk) or (party in site_ids(5) and set(message.y) == {0})


@pytest.mark.parametrize("kind", ["SHR", "MSK"])
def test_a_region_that_loses_its_cover_is_named(kind: str) -> None:
    def narrow(cohort: tuple[str, ...]) -> tuple[Region, ...]:
        return (Region(cohort, (Block(3, 9),)), Region(cohort[:3], (Block(5, 9),)))

    all_of = parties(5, regions=narrow)
    log = exchange(all_of, lose({"site-1": kind}))
    aborted = log.aborted()
    assert log.finished is None
    assert aborted is not None
    assert aborted.region == 1


def test_too_few_survivors_open_nothing() -> None:
    log = exchange(parties(5), lose({"site-1": "MSK", "site-2": "MSK"}))
    assert log.finished is None
    assert "UNM" not in [decode(data).kind for _, data in log.sent]


def test_a_fixed_set_opens_the_whole_cohort_or_nothing() -> None:
    whole = parties(5, fixed_set=True)
    check_exact(whole, exchange(whole))
    for kind in ("ADV", "SHR", "MSK"):
        assert exchange(parties(5, fixed_set=True), lose({"site-4": kind})).finished is None


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 10), st.dictionaries(st.integers(1, 10), st.sampled_from(KINDS), max_size=4), st.booleans())
def test_any_losses_give_an_exact_sum_or_none(n: int, dead: dict[int, str], regions: bool) -> None:
    suite = UnsafeIdealSuite()
    all_of = parties(n, suite=suite, regions=two_regions) if regions else parties(n, suite=suite)
    log = exchange(all_of, lose({f"site-{i}": kind for i, kind in dead.items()}))
    if log.finished is None:
        assert log.aborted() is not None
    else:
        check_exact(all_of, log)
        assert len(log.finished.survivors) >= all_of.context.thresholds.min_survivors


def test_a_changed_share_is_dropped_and_its_sender_named() -> None:
    def change(site: str, message: Message) -> Message:
        if isinstance(message, Unm) and site == "site-2":
            first = min(message.shares)
            share = message.shares[first]
            return replace(message, shares={**message.shares, first: share[:-1] + bytes([share[-1] ^ 1])})
        return message

    all_of = parties(5)
    log = exchange(all_of, change)
    check_exact(all_of, log)
    assert log.audits() == [("bad_share", "site-2")]


class Recorder(RealSuite):
    """Counts the keys of streams and of sealed messages."""

    def __init__(self) -> None:
        self.streams: Counter[bytes] = Counter()
        self.sealed: Counter[bytes] = Counter()

    def stream(self, key: bytes) -> KeyStream:
        self.streams[key] += 1
        return super().stream(key)

    def seal(self, key: bytes, plaintext: bytes, associated: bytes) -> bytes:
        self.sealed[key] += 1
        return super().seal(key, plaintext, associated)


def test_no_key_makes_two_streams_or_seals_two_messages() -> None:
    """P9. Two attempts at one round, each with a dropout and unequal regions; one recorder per party."""
    own: dict[str, Counter[bytes]] = {}
    sealed: Counter[bytes] = Counter()
    for attempt in (1, 2):
        all_of = parties(5, regions=two_regions, attempt=attempt, seed=attempt)
        recorders = {site: Recorder() for site in site_ids(5)}
        all_of.configs = {s: replace(c, suite=recorders[s]) for s, c in all_of.configs.items()}
        check_exact(all_of, exchange(all_of, lose({"site-3": "MSK"})))
        for site, recorder in recorders.items():
            own.setdefault(site, Counter()).update(recorder.streams)
            sealed.update(recorder.sealed)
    assert all(count == 1 for counter in own.values() for count in counter.values())
    assert all(len(counter) == 2 * 5 for counter in own.values())  # one self, four pair masks, two attempts
    assert all(count == 1 for count in sealed.values())
    assert len(sealed) == 2 * 5 * 4  # both directions of every pair differ
    assert not set(sealed) & {key for counter in own.values() for key in counter}
    both_ends = Counter(key for counter in own.values() for key in counter)
    assert Counter(both_ends.values()) == {1: 2 * 5, 2: 2 * 10}


def reachable(root: object) -> list[object]:
    seen: dict[int, object] = {}
    waiting = [root]
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, type) or callable(item):
            continue
        seen[id(item)] = item
        waiting.extend(gc.get_referents(item))
    return list(seen.values())


def noting(source: Entropy, drawn: set[bytes]) -> Entropy:
    def entropy(size: int) -> bytes:
        drawn.add(fresh := source(size))
        return fresh

    return entropy


def test_nothing_secret_is_reachable_once_it_is_over() -> None:
    for dead in ({}, {"site-3": "MSK"}):
        all_of = parties(4)
        drawn: set[bytes] = set()
        for site, config in all_of.configs.items():
            all_of.configs[site] = replace(config, entropy=noting(config.entropy, drawn))
        exchange(all_of, lose(dead))
        assert len(drawn) == 4 * (3 + 2 * (all_of.context.thresholds.t - 1))
        ends: list[ClientState | CoordinatorState] = [*all_of.states.values(), all_of.server_state]
        for state in ends:
            if state.phase in {"DONE", "ABORTED", "FINISHED"}:
                assert not [x for x in reachable(state) if isinstance(x, Secret | np.ndarray)]
                assert not {x for x in reachable(state) if isinstance(x, bytes)} & drawn


def test_after_the_masks_only_shares_are_left() -> None:
    all_of = parties(4)
    drawn: set[bytes] = set()
    config = all_of.configs["site-1"]
    all_of.configs["site-1"] = replace(config, entropy=noting(config.entropy, drawn))
    exchange(all_of, lambda _, message: None if isinstance(message, Surv) else message)
    state = all_of.states["site-1"]
    assert state.phase == "MASKED"
    left = {x for x in reachable(state) if isinstance(x, bytes)}
    assert len(drawn) == 3 + 2 * (all_of.context.thresholds.t - 1)
    assert not left & drawn  # c, s, b and the coefficients are gone
    assert not [x for x in reachable(state) if isinstance(x, np.ndarray)]


def test_secrets_do_not_show() -> None:
    all_of = parties(4)
    exchange(all_of, lambda _, message: None if isinstance(message, Con) else message)
    shown = repr(all_of.states) + repr(all_of.configs) + repr(all_of.inputs)
    memory = all_of.states["site-1"].memory
    assert memory is not None
    shown += repr(memory)
    secrets = [x.reveal() for x in reachable(all_of.states) if isinstance(x, Secret)]
    assert len(secrets) == 4 * 4 * 2
    assert not any(value.hex() in shown or repr(value)[2:-1] in shown for value in secrets)
    assert isinstance(all_of.configs["site-1"].key, SigningKey)


def test_what_leaves_a_site_is_only_what_the_specification_lists() -> None:
    log = exchange(parties(4))
    allowed = {"ADV", "SHR", "MSK", "CON", "UNM"}
    assert {decode(data).kind for party, data in log.sent if party} == allowed


def test_masked_vectors_look_uniform_and_do_not_depend_on_the_input() -> None:
    """Fixed keys, so that this either always passes or never; two worlds: all ones, and large values."""

    def one(cohort: tuple[str, ...]) -> tuple[Region, ...]:
        return (Region(cohort, (Block(2**16, 2**24),)),)

    for value in (1, 2**24):
        all_of = parties(3, regions=one, seed="uniform")
        for site, own in all_of.inputs.items():
            vector = np.full(2**16, value, dtype=np.int64)
            all_of.inputs[site] = replace(own, vectors={0: vector})
            all_of.states[site] = client.idle(all_of.inputs[site])
        log = exchange(all_of)
        check_exact(all_of, log)
        vectors = [m.y[0] for party, data in log.sent if party and isinstance(m := decode(data), Msk)]
        assert len(vectors) == 3
        for y in vectors:
            counts = np.bincount(np.frombuffer(y, dtype=np.uint8), minlength=256)
            expected = len(y) / 256
            chi2 = float(((counts - expected) ** 2 / expected).sum())
            assert 160 < chi2 < 370  # 255 degrees of freedom: p beyond 1e-5 on either side
            for bit in range(32):
                ones = int(((np.frombuffer(y, dtype="<u4") >> bit) & 1).sum())
                assert abs(ones - 2**15) < 5 * 2**7  # five standard deviations of 2^16 coins
