"""The known answers of FSA1: the files are what the second implementation makes, and what the first one sends."""

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import cbor2
import numpy as np
import pytest

from privacy.keys.agreement import Secret
from privacy.keys.signing import SigningKey
from privacy.secagg import client, coordinator
from privacy.secagg.admission import ClientConfig, LocalInput, SitePolicy
from privacy.secagg.bindings import Bindings
from privacy.secagg.context import Roster, RoundContext, model_root, region_digest
from privacy.secagg.effects import Begin, Effect, Expired, Finished, ProtocolEvent, Received, Send, SendTo
from privacy.secagg.masks import Mask, apply_streams
from privacy.secagg.ring import ring_dtype
from privacy.secagg.shares import combine, split
from privacy.secagg.suite import RealSuite
from privacy.secagg.wire import Advert
from tests.privacy.secagg.independent import Case
from tests.privacy.secagg.independent_primitives import Stream
from tests.privacy.secagg.make_vectors import CASES, FOLDER, rendered

SUITE = RealSuite()
unhex = bytes.fromhex
by_name = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def committed(case: Case) -> Any:
    return json.loads((FOLDER / f"{case.name}.json").read_text(encoding="utf-8"))


@by_name
def test_the_committed_vectors_are_what_the_script_writes(case: Case) -> None:
    """After a change of protocol: `python -m tests.privacy.secagg.make_vectors`."""
    assert (FOLDER / f"{case.name}.json").read_text(encoding="utf-8") == rendered(case)


def test_no_vector_is_left_over() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.json")) == sorted(case.name for case in CASES)


@by_name
def test_masks_cancel_to_the_plain_sum(case: Case) -> None:
    vector = committed(case)
    assert vector["sums"] == vector["plain_sums"]


@by_name
def test_every_case_is_inside_the_specification(case: Case) -> None:
    """§2.2, §2.3: others would prove nothing."""
    for region in case.regions:
        assert all(len(region.holders) * bound < 2 ** (case.bits - 1) for _, bound in region.blocks)
    n, (n_c, t, min_survivors, min_cover) = len(case.cohort), case.thresholds
    assert n >= t > (n + n_c) / 2
    assert n >= min_survivors >= max(t, n_c + 2, 3)
    assert min_cover >= max(3, n_c + 2)


# --- The implementation under test, value by value ----------------------------------------------------


def roster_of(vector: Any) -> Roster:
    keys = {site: unhex(key) for site, key in vector["roster"]["keys"].items()}
    return Roster(vector["roster"]["version"], keys)


def region_digests_of(vector: Any) -> tuple[bytes, ...]:
    digests = []
    for k, region in sorted(vector["regions"].items(), key=lambda item: int(item[0])):
        length = sum(block[0] for block in region["blocks"])
        values = hashlib.sha256(unhex(region["values"])).digest()
        digests.append(region_digest(int(k), length, region["holders"], values))
    return tuple(digests)


def bindings_of(vector: Any) -> Bindings:
    """A Bindings needs no signatures, only the keys."""
    keys = {i: Advert(unhex(vector["secrets"][i]["c"]), unhex(vector["secrets"][i]["s"]), b"") for i in vector["u1"]}
    return Bindings(unhex(vector["ctx"]), keys)


@by_name
def test_the_context_has_the_known_digest(case: Case) -> None:
    vector = committed(case)
    context = RoundContext.decode(unhex(vector["context"]))
    assert context.encode().hex() == vector["context"]
    assert context.digest.hex() == vector["ctx"]
    assert context.roster == roster_of(vector).digest
    assert context.model_root == model_root(unhex(vector["plan_digest"]), region_digests_of(vector))
    assert {str(k) for k in context.active(vector["u1"])} == {
        k for k, region in vector["regions"].items() if region["active"]
    }


@by_name
def test_keys_and_streams_are_the_known_ones(case: Case) -> None:
    vector, bindings = committed(case), bindings_of(committed(case))
    context = RoundContext.decode(unhex(vector["context"]))
    assert bindings.u1h.hex() == vector["u1h"]
    for i, secrets in vector["secrets"].items():
        assert SUITE.public(Secret(unhex(secrets["c_private"]))).hex() == secrets["c"]
        for u, expected in secrets["share_keys"].items():
            shared = SUITE.agree(Secret(unhex(secrets["c_private"])), bindings.keys[u].c)
            assert SUITE.kdf(shared.reveal(), "share-enc", bindings.sealing_info(i, u)).hex() == expected
        active = tuple(k for k in context.held(i) if k in context.active(vector["u1"]))
        mask = bindings.self_mask(SUITE, Secret(unhex(secrets["b"])), i, active, 1)
        assert mask.key.hex() == secrets["self_key"]
        assert_covers(context, mask, secrets["self_stream"])
        for u, expected in secrets["pair_keys"].items():
            both = tuple(k for k in active if k in context.held(u))
            private = Secret(unhex(secrets["s_private"]))
            mask = bindings.pair_mask(SUITE, private, i, u, regions=both, sign=1)
            assert mask.key.hex() == expected
            assert_covers(context, mask, secrets["pair_streams"][u])


def assert_covers(context: RoundContext, mask: Mask, stream: str) -> None:
    """Adds the mask to zeros and finds each region's part of the known stream, at multiples of 16 bytes."""
    zeros = {k: np.zeros(context.regions[k].length, dtype=ring_dtype(context.bits)) for k in mask.regions}
    apply_streams(zeros, [mask], context.bits, SUITE.stream)
    padded = b"".join(zeros[k].tobytes() + bytes(-zeros[k].nbytes % 16) for k in mask.regions)
    gaps = b"".join(b"\xff" * zeros[k].nbytes + bytes(-zeros[k].nbytes % 16) for k in mask.regions)
    known = unhex(stream)
    assert known  # every pair of these cases has something to mask
    assert padded[: len(known)] == bytes(a & b for a, b in zip(known, gaps, strict=False))
    assert not any(gaps[len(known) :])


@by_name
def test_shares_are_the_known_ones(case: Case) -> None:
    """§4.3, with the draws in the order of §4.7; any t of the shares, and all of them, give the secret back."""
    vector, t = committed(case), case.thresholds[1]
    for i, secrets in vector["secrets"].items():
        draw = Stream(unhex(vector["sites"][i]["entropy_seed"])).draw
        assert [draw(32).hex() for _ in range(3)] == [secrets["c_private"], secrets["s_private"], secrets["b"]]
        places = {u: case.cohort.index(u) for u in vector["u1"]}
        for name, secret in (("shares_of_b", secrets["b"]), ("shares_of_s", secrets["s_private"])):
            shares = split(unhex(secret), t=t, places=places.values(), entropy=draw)
            assert {u: shares[place].hex() for u, place in places.items()} == secrets[name]
            assert combine(shares, t).hex() == secret
            assert combine(dict(list(shares.items())[-t:]), t).hex() == secret


# --- The implementation under test, message by message ------------------------------------------------


@dataclass
class Exchange:
    """One attempt of the machines: what sites sent and received, as the vectors list it, and how it ended."""

    case: Case
    vector: Any
    sent: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    received: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    finished: Finished | None = None

    def __post_init__(self) -> None:
        vector, context, roster = self.vector, unhex(self.vector["context"]), roster_of(self.vector)
        self.server = coordinator.CoordinatorConfig(
            RoundContext.decode(context), roster, region_digests_of(vector), SUITE
        )
        self.state = coordinator.CoordinatorState()
        self.sites = {i: self._config(i, roster) for i in self.case.cohort}
        self.states = {i: client.idle(self._input(i)) for i in self.case.cohort}

    def _config(self, site: str, roster: Roster) -> ClientConfig:
        given = self.vector["sites"][site]
        return ClientConfig(
            site,
            SigningKey(unhex(given["identity_seed"])),
            roster,
            unhex(self.vector["job"]),
            {},
            Stream(unhex(given["entropy_seed"])).draw,
            SUITE,
            SitePolicy(n_c=0),
        )

    def _input(self, site: str) -> LocalInput:
        vectors = {int(k): np.array(x, dtype=np.int64) for k, x in self.vector["sites"][site]["input"].items()}
        values = {k: hashlib.sha256(unhex(self.vector["regions"][str(k)]["values"])).digest() for k in vectors}
        return LocalInput(vectors, unhex(self.vector["plan_digest"]), values)

    def run(self) -> None:
        """Delivers everything but what silent sites would have sent; a phase that waits for those expires."""
        replies = self._tell(Begin())
        while self.finished is None and self.state.phase is not coordinator.Phase.ABORTED:
            events: list[ProtocolEvent] = list(replies) or [Expired(self.state.phase)]
            replies = [reply for event in events for reply in self._tell(event)]

    def _tell(self, event: ProtocolEvent) -> list[Received]:
        self.state, effects = coordinator.step(self.server, self.state, event)
        return [reply for effect in effects for reply in self._do(effect)]

    def _do(self, effect: Effect) -> list[Received]:
        if isinstance(effect, Finished):
            self.finished = effect
        if not isinstance(effect, SendTo):
            return []
        site = effect.site
        self.received[kind(effect.data)][site] = effect.data.hex()
        self.states[site], answers = client.step(self.sites[site], self.states[site], Received(effect.data))
        heard = [a.data for a in answers if isinstance(a, Send) and not self._silent(site, kind(a.data))]
        for data in heard:
            self.sent[kind(data)][site] = data.hex()
        return [Received(data, site) for data in heard]

    def _silent(self, site: str, message: str) -> bool:
        order = ["START", "ADV", "SHR", "MSK", "CON", "UNM"]
        return order.index(message) > order.index(self.vector["sites"][site]["last"])


def kind(data: bytes) -> str:
    return str(cbor2.loads(data)["kind"])


@by_name
def test_both_machines_send_the_known_bytes_and_find_the_sum(case: Case) -> None:
    exchange = Exchange(case, committed(case))
    exchange.run()
    for message, by_site in exchange.vector["sent"].items():
        assert exchange.sent[message] == by_site, message
    for message, by_site in exchange.vector["received"].items():
        assert exchange.received[message] == by_site, message
    assert set(exchange.sent) | set(exchange.received) == {
        "START", "ADV", "KEYS", "SHR", "FWD", "MSK", "SURV", "CON", "SIGS", "UNM",
    }  # fmt: skip
    finished = exchange.finished
    assert finished is not None
    assert list(finished.survivors) == exchange.vector["u3"]
    assert {str(k): total.tolist() for k, total in finished.sums.items()} == exchange.vector["plain_sums"]
    assert finished.transcript is not None
    assert list(finished.transcript.u2) == exchange.vector["u2"]


@by_name
def test_revealed_shares_open_the_known_secrets(case: Case) -> None:
    """§3.9: of ``b`` where the site survived, of ``s`` where it did not, and nothing of sites outside U2."""
    vector = committed(case)
    messages = {i: cbor2.loads(unhex(data))["shares"] for i, data in vector["sent"]["UNM"].items()}
    for u in vector["u2"]:
        shares = {case.cohort.index(i): given[u] for i, given in messages.items()}
        expected = vector["secrets"][u]["b" if u in vector["u3"] else "s_private"]
        assert combine(shares, case.thresholds[1]).hex() == expected == vector["opened"][u]
    assert all(sorted(given) == vector["u2"] for given in messages.values())
